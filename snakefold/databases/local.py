"""Where a job on this machine finds the files of a database, wherever it is kept.

A job is given a manifest. Its files may lie beside it, or in a folder that is mounted here; else they are brought from
S3 once for all jobs of the machine:

    <cache>/.staged/<name>/<digest>/            one version, whole: it appears by being renamed
    <cache>/.staged/<name>/<digest>.lock        held while it is brought
    <cache>/.staged/<name>/<digest>.partial/    files/: verified, incoming/: the beginning of others

Versions lie side by side and are not removed: a job may be reading the old one.
"""

import hashlib
import os
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path

from snakefold.config import Databases
from snakefold.databases.fetch import Fetch, Transfer
from snakefold.databases.manifest import MANIFEST_NAME, Manifest, is_complete, read_manifest, write_manifest
from snakefold.databases.progress import DownloadProgress
from snakefold.databases.registry import in_units
from snakefold.databases.remote import LARGE, RemoteDatabase, each_once
from snakefold.databases.sources import SourceError
from snakefold.errors import SnakefoldError
from snakefold.locking import locked
from snakefold.s3 import S3Folder, is_s3

_TRANSFER = Transfer(connections=12, segment=64 << 20, retries=8)


def local_folder(manifest_path: Path, databases: Databases, *, progress: DownloadProgress | None = None) -> Path:
    """The folder on this machine with all files (by their sizes) of the database that a manifest describes.

    That is the first of: the manifest's own folder; `<name>` below `databases.folder`, if that is a directory, or below
    `databases.cache`, if a manifest of the same digest lies there; the version staged in the cache, which is brought
    from S3 if need be. Jobs of one machine that need the same wait for the first of them. Raises SnakefoldError.
    """
    manifest = read_manifest(manifest_path)
    if is_complete(manifest_path.parent, manifest):
        return manifest_path.parent
    mounted = [Path(databases.cache) / manifest.name]
    if not is_s3(databases.folder):
        mounted.insert(0, Path(databases.folder) / manifest.name)
    for folder in mounted:
        if _holds(folder, manifest):
            return folder
    staged = staged_folder(databases, manifest)
    if _holds(staged, manifest):
        return staged
    if not is_s3(databases.folder):
        raise SnakefoldError(
            f"{manifest_path}: its files lie neither beside it nor in {mounted[0]}; {_download(manifest.name)}"
        )
    if progress is None:
        with DownloadProgress(manifest.name, plain=True) as progress:
            return _Staging(manifest, databases, progress).run()
    return _Staging(manifest, databases, progress).run()


def staged_folder(databases: Databases, manifest: Manifest) -> Path:
    """Where this version of a database lies in the cache once it has been brought from S3."""
    return Path(databases.cache) / ".staged" / manifest.name / manifest.digest[:16]


def staging(place: Path, progress: DownloadProgress) -> AbstractContextManager[None]:
    """Be the only process that brings a version to its place in the cache."""
    return locked(place.with_name(f"{place.name}.lock"), progress.note, "stages this database")


def _holds(folder: Path, manifest: Manifest) -> bool:
    try:
        there = read_manifest(folder / MANIFEST_NAME)
    except SnakefoldError:
        return False
    return there.digest == manifest.digest and is_complete(folder, manifest)


class _Staging:
    def __init__(self, manifest: Manifest, databases: Databases, progress: DownloadProgress) -> None:
        self._manifest = manifest
        self._name = manifest.name
        self._databases = databases
        self._progress = progress
        self._remote = RemoteDatabase(S3Folder(databases.folder), manifest.name)
        self._place = staged_folder(databases, manifest)
        self._partial = self._place.with_name(f"{self._place.name}.partial")
        self._files = self._partial / "files"
        self._incoming = self._partial / "incoming"

    def run(self) -> Path:
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            with staging(self._place, self._progress):
                if not _holds(self._place, self._manifest):
                    self._stage()
        except OSError as error:
            raise SnakefoldError(
                f"{error.filename or self._place}: cannot be written ({error.strerror}); "
                "let databases.cache in the config name a folder of this machine that can be written, with room for "
                "the databases; on AWS, the machine must make the folder of the fleet's mounts, writable for uid 1000"
            ) from None
        return self._place

    def _stage(self) -> None:
        self._check_remote()
        if self._place.exists() and not self._files.exists():
            # Whole once, and then somebody removed a part of it: what is left need not come again.
            self._partial.mkdir(exist_ok=True)
            self._place.rename(self._files)
        shutil.rmtree(self._place, ignore_errors=True)
        self._files.mkdir(parents=True, exist_ok=True)
        (self._files / MANIFEST_NAME).unlink(missing_ok=True)
        self._incoming.mkdir(exist_ok=True)
        missing = [name for name in sorted(self._manifest.files) if not self._is_here(name)]
        self._check_disk(missing)
        size = sum(self._manifest.files[name].size for name in missing)
        started = time.monotonic()
        self._progress.note(f"staging {len(missing)} files, {in_units(size)}, from {self._remote.folder.url()}")
        self._progress.start(self._name, size)
        each_once(self._manifest, self._bring, missing)
        write_manifest(self._manifest, self._files)
        # Flushed before it appears: after a power cut, sizes alone would not show what is lost.
        os.sync()
        self._files.rename(self._place)
        shutil.rmtree(self._partial, ignore_errors=True)
        self._progress.note(f"staged in {self._place}, {time.monotonic() - started:.1f} s")

    def _check_remote(self) -> None:
        there = self._remote.manifest()
        if there.digest != self._manifest.digest:
            raise SnakefoldError(
                f"{self._remote.folder.url()}: holds version {there.version} now, with other files than version "
                f"{self._manifest.version}, for which this run asks; {_download(self._name)}"
            )

    def _is_here(self, name: str) -> bool:
        """Whether a file was brought and verified by a process that was killed later."""
        try:
            return (self._files / name).stat().st_size == self._manifest.files[name].size
        except OSError:
            return False

    def _check_disk(self, missing: list[str]) -> None:
        received = sum(path.stat().st_blocks * 512 for path in self._incoming.rglob("content"))
        needed = sum(self._manifest.files[name].size for name in missing) - received
        free = shutil.disk_usage(self._partial).free
        if needed > free:
            others = [
                str(path)
                for path in self._place.parent.iterdir()
                if path.is_dir() and path not in (self._place, self._partial)
            ]
            hint = f" (older versions: {', '.join(others)})" if others else ""
            raise SnakefoldError(
                f"{self._name}: needs {in_units(needed)} in {self._databases.cache}, but only {in_units(free)} are "
                f"free; free some space{hint}, or set databases.cache in the config to another disk"
            )

    def _bring(self, name: str) -> None:
        """Have one file, verified, in `files`."""
        record = self._manifest.files[name]
        # Not the file's own name: it may have folders.
        place = self._incoming / hashlib.sha256(name.encode()).hexdigest()[:32]
        fetch = self._fetch_large if record.size > LARGE else self._fetch_small
        # Once more if it is wrong: it may have been damaged on its way, or on this disk while nobody was writing.
        for _ in range(2):
            path, digest = fetch(name, place)
            if digest == record.sha256:
                (self._files / name).parent.mkdir(parents=True, exist_ok=True)
                path.rename(self._files / name)
                return
            _remove(place)
            self._progress.add(-record.size)
        raise SnakefoldError(
            f"{self._remote.folder.url(name)}: its content is not what the manifest says; {_download(self._name)}"
        )

    def _fetch_small(self, name: str, place: Path) -> tuple[Path, str]:
        digest = hashlib.sha256()
        with place.open("wb") as out:

            def take(block: bytes) -> None:
                out.write(block)
                digest.update(block)
                self._progress.add(len(block))

            self._remote.folder.stream(name, take)
        return place, digest.hexdigest()

    def _fetch_large(self, name: str, place: Path) -> tuple[Path, str]:
        digest = hashlib.sha256()
        try:
            fetch = Fetch(self._remote.folder.url(name), place, pinned=True, transfer=_TRANSFER)
            path = fetch.run(name, self._progress, sink=digest.update)
        except SourceError as error:
            url = self._remote.folder.url(name)
            raise SnakefoldError(f"{url}: {error}; run again, it goes on from there") from None
        return path, digest.hexdigest()


def _download(name: str) -> str:
    return f"run `python -m snakefold databases download {name}`"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
