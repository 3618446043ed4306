"""A store in a directory."""

import contextlib
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from snakefold.files import canonical_json, read_json, replacing, sha256_of_file, write_text
from snakefold.store.base import DAY, GRACE_DAYS, REMEDY, Record, StoreError, StoreStatistics, record_from_json


class LocalStore:
    """A store in a directory of a POSIX file system, local or shared (rename within a directory must be atomic).

    Records and blobs are written beside their place and renamed, so that any number of writers may share it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def _record_path(self, key: str) -> Path:
        return self.root / "actions" / key[:2] / f"{key}.json"

    def _blob_path(self, digest: str) -> Path:
        return self.root / "blobs" / digest[:2] / digest

    def lookup(self, key: str) -> Record | None:
        """The record of an action whose files are all there, or None."""
        path = self._record_path(key)
        try:
            record = record_from_json(read_json(path))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None  # absent, or torn by a disk fault: computed and written again
        with contextlib.suppress(OSError):  # a colleague's file: readable, but not ours to touch
            os.utime(path)
        return record if all(self.holds(digest) for digest in record.files.values()) else None

    def lookup_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """The records of those actions that `lookup` finds."""
        found = {key: self.lookup(key) for key in keys}
        return {key: record for key, record in found.items() if record is not None}

    def commit(self, key: str, record: Record, folder: Path) -> None:
        """Keep a result: blobs first, so that a record never names what is not there."""
        for name, digest in record.files.items():
            self._put(folder / name, digest)
        write_text(self._record_path(key), canonical_json(asdict(record)))

    def _put(self, source: Path, digest: str) -> None:
        path = self._blob_path(digest)
        try:
            os.utime(path)  # there already: young again, so that a collector at work leaves it alone
            return
        except FileNotFoundError:
            pass
        except PermissionError:
            return  # there already, and a colleague's
        with replacing(path) as temporary:
            shutil.copyfile(source, temporary)
        path.chmod(0o444)

    def fetch(self, digest: str, path: Path) -> None:
        """Copy a blob to `path`. A damaged blob is removed, so that the next run computes it again."""
        blob = self._blob_path(digest)
        with replacing(path) as temporary:
            try:
                found = _copy(blob, temporary)
            except FileNotFoundError:
                raise StoreError(f"store: {blob} is gone; {REMEDY}") from None
            if found != digest:
                blob.unlink(missing_ok=True)
                raise StoreError(f"store: {blob} was damaged and has been removed; {REMEDY}")

    def holds(self, digest: str) -> bool:
        """Whether there is a blob of this digest."""
        return self._blob_path(digest).exists()

    def _records(self) -> Iterator[Path]:
        return (self.root / "actions").glob("??/*.json")

    def _blobs(self) -> Iterator[Path]:
        return (path for path in (self.root / "blobs").glob("??/*") if not path.name.startswith("."))

    def statistics(self) -> StoreStatistics:
        """Count records by step, blobs and bytes."""
        records: Counter[str] = Counter()
        for path in self._records():
            try:
                records[record_from_json(read_json(path)).step] += 1
            except (ValueError, TypeError, KeyError):
                records["unreadable"] += 1
        sizes = [path.stat().st_size for path in self._blobs()]
        return StoreStatistics(records=dict(sorted(records.items())), blobs=len(sizes), size=sum(sizes))

    def verify(self) -> list[str]:
        """Hash every blob and follow every record; remove what is damaged."""
        faults = []
        for blob in sorted(self._blobs()):
            if sha256_of_file(blob) != blob.name:
                blob.unlink()
                faults.append(f"{blob}: damaged; removed")
        for path in sorted(self._records()):
            try:
                record = record_from_json(read_json(path))
            except (ValueError, TypeError, KeyError):
                path.unlink()
                faults.append(f"{path}: unreadable; removed")
                continue
            if missing := [name for name, digest in record.files.items() if not self.holds(digest)]:
                path.unlink()
                faults.append(f"{path}: {', '.join(missing)} missing; removed, will be computed again when asked for")
        return faults

    def collect_garbage(self, keep_days: float) -> tuple[int, int]:
        """Remove what was not used for `keep_days`; leftovers of killed writers go as well."""
        now = time.time()
        used: set[str] = set()
        removed = 0
        for path in list(self._records()):
            if now - path.stat().st_mtime > keep_days * DAY:
                path.unlink(missing_ok=True)
                removed += 1
                continue
            try:
                used.update(read_json(path)["files"].values())
            except (ValueError, TypeError, KeyError, AttributeError):
                path.unlink(missing_ok=True)
        freed = 0
        for path in list((self.root / "blobs").glob("??/*")) + list((self.root / "actions").glob("??/.*")):
            status = path.stat()
            if path.name not in used and now - status.st_mtime > GRACE_DAYS * DAY:
                path.unlink(missing_ok=True)
                freed += status.st_size
        return removed, freed


def _copy(source: Path, destination: Path) -> str:
    """Copy a file and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, destination.open("wb") as writer:
        while chunk := reader.read(1 << 20):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()
