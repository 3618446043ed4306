"""Directories in S3: a marker, uploaded last and removed first, says that a directory is whole.

Snakemake puts the empty file `.snakemake_timestamp` into every directory output after its job, before the upload, and
takes its time for that of the directory. Whoever asks in the middle of an upload, or after one that was cut short,
sees files without it, and so no directory.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from snakemake_storage_plugin_s3_inventory.client import S3, THREADS
from snakemake_storage_plugin_s3_inventory.errors import S3Error
from snakemake_storage_plugin_s3_inventory.inventory import MARKER

Item = TypeVar("Item")
Result = TypeVar("Result")


def store(s3: S3, path: Path, bucket: str, key: str) -> int:
    """Store a directory; returns the bytes of its files. Empty folders in it are lost: S3 has none."""
    marker = f"{key}/{MARKER}"
    files = {f"{key}/{name}": path / name for name in _names(path)}
    before = {listed.key for page in s3.pages(bucket, f"{key}/") for listed in page}
    # Without the marker the mix of old and new files that is there from now on is no directory.
    if marker in before:
        s3.delete(bucket, marker)
    sizes = _all(lambda item: s3.write(item[1], bucket, item[0]), files.items())
    s3.delete_all(bucket, sorted(before - files.keys() - {marker}))
    own_marker = path / MARKER
    s3.write_bytes(own_marker.read_bytes() if own_marker.exists() else b"", bucket, marker)
    return sum(sizes)


def fetch(s3: S3, bucket: str, key: str, path: Path) -> None:
    """Fetch a directory: whole and under its name, or not at all. What was there before is replaced."""
    keys = [listed.key for page in s3.pages(bucket, f"{key}/") for listed in page if not listed.key.endswith("/")]
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir(parents=True)
    try:
        targets = {listed: part / _inside(listed, key, bucket) for listed in keys}
        for folder in {target.parent for target in targets.values()}:
            folder.mkdir(parents=True, exist_ok=True)
        _all(lambda item: s3.read(bucket, item[0], item[1]), targets.items())
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove(s3: S3, bucket: str, key: str) -> None:
    """Remove a directory with all in it."""
    marker = f"{key}/{MARKER}"
    s3.delete(bucket, marker)
    s3.delete_all(bucket, [listed.key for page in s3.pages(bucket, f"{key}/") for listed in page])


def _names(path: Path) -> list[str]:
    """All files of a directory but the marker, relative to it, through links too."""
    names = []
    for folder, _, files in os.walk(path, followlinks=True):
        names += [(Path(folder) / file).relative_to(path).as_posix() for file in files]
    return sorted(name for name in names if name != MARKER)


def _inside(key: str, directory: str, bucket: str) -> PurePosixPath:
    """Path of a key relative to a directory.

    Raises:
        S3Error: if it would leave the directory: S3 allows ".." in keys.

    """
    relative = PurePosixPath(key[len(directory) + 1 :])
    if relative.is_absolute() or ".." in relative.parts:
        raise S3Error(f"S3: s3://{bucket}/{key} would be written outside of its directory: rename it")
    return relative


def _all(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the work for all items, several at a time; the first error stops what has not begun."""
    pool = ThreadPoolExecutor(max_workers=THREADS)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
