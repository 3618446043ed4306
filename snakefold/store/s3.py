"""A store below an S3 prefix, shared by whoever may use the bucket.

The same layout as in a directory: `actions/<kk>/<key>.json` and `blobs/<dd>/<digest>`. An object appears whole or not
at all, and records are written after their blobs, so writers need no locks.

When a result was last used: S3 keeps no such time, and writing one at each look-up would double the requests. So a
look-up that finds a record older than `RENEW_DAYS` copies it onto itself, which makes it young; the collector allows
for the difference. Blobs that a surviving record names are kept whatever their age. A blob that is there already when a
result is stored, and not quite young, is made young likewise, so that the collector leaves it alone until its record
has come.
"""

import contextlib
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from snakefold.files import canonical_json, replacing, sha256_of_file
from snakefold.s3 import ObjectFacts, Patience, S3Error, S3Folder, S3MissingError, parallel
from snakefold.store.base import DAY, GRACE_DAYS, REMEDY, Record, StoreError, StoreStatistics, record_from_json

RENEW_DAYS = 1.0
"""Records younger than this are not renewed by a look-up: the time of the last use is known to within so many days."""

_RECORD = re.compile(r"actions/[0-9a-f]{2}/[0-9a-f]{64}\.json")
_BLOB = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}")


class S3Store:
    """A store at `s3://bucket/prefix`. All methods may be called from several threads at once.

    Every method raises S3Error, in one line, where S3 refuses or stays out of reach.
    """

    def __init__(self, location: str, *, patience: Patience | None = None) -> None:
        self.folder = S3Folder(location, patience=patience)

    def lookup(self, key: str) -> Record | None:
        """The record of an action whose files are all there, or None: one GET, and HEADs of the files at once."""
        return self.lookup_many([key]).get(key)

    def lookup_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """The records of those actions that `lookup` finds; the requests run side by side."""
        wanted = list(dict.fromkeys(keys))
        answers = zip(wanted, parallel(self._read_record, wanted), strict=True)
        read = {key: found for key, found in answers if found is not None}
        # Members of a batch share files, such as templates: each is asked for once.
        digests = sorted({digest for record, _ in read.values() for digest in record.files.values()})
        there = {digest for digest, held in zip(digests, parallel(self.holds, digests), strict=True) if held}
        found = {key: (record, age) for key, (record, age) in read.items() if there.issuperset(record.files.values())}
        aged = [_record_name(key) for key, (_, age) in found.items() if age > RENEW_DAYS * DAY]
        list(parallel(self._renew_if_allowed, aged))
        return {key: record for key, (record, _) in found.items()}

    def _read_record(self, key: str) -> tuple[Record, float] | None:
        """A record and its age in seconds; None if it is absent or unreadable."""
        try:
            content, facts = self.folder.read(_record_name(key))
        except S3MissingError:
            return None
        record = _parse(content)
        return None if record is None else (record, _age(facts))

    def _renew_if_allowed(self, name: str) -> None:
        with contextlib.suppress(S3Error):  # a colleague's store, for us to read only
            self.folder.renew(name)

    def commit(self, key: str, record: Record, folder: Path) -> None:
        """Keep a result: blobs first and side by side, then the record."""
        sources = {digest: folder / name for name, digest in record.files.items()}
        list(parallel(lambda digest: self._put(sources[digest], digest), sorted(sources)))
        self.folder.write(_record_name(key), canonical_json(asdict(record)).encode())

    def _put(self, source: Path, digest: str) -> None:
        name = _blob_name(digest)
        facts = self.folder.facts(name)
        if facts is None or facts.size != source.stat().st_size:
            self.folder.upload(source, name, digest)
        elif _age(facts) > GRACE_DAYS * DAY / 2:
            try:
                self.folder.renew(name)
            except S3MissingError:  # collected since we asked
                self.folder.upload(source, name, digest)

    def fetch(self, digest: str, path: Path) -> None:
        """Write the bytes of a digest to `path`. A damaged blob is removed, so that the next run computes it again."""
        name = _blob_name(digest)

        def read() -> str:
            self.folder.download(name, temporary)
            return sha256_of_file(temporary)

        with replacing(path) as temporary:
            if not self._is_sound(digest, read):
                self.folder.delete([name])
                raise StoreError(f"store: {self.folder.url(name)} was damaged and has been removed; {REMEDY}")

    def _is_sound(self, digest: str, read: Callable[[], str]) -> bool:
        """Whether reading gives this digest. Read twice before a blob that others share is called damaged."""
        try:
            return read() == digest or read() == digest
        except S3MissingError:
            raise StoreError(f"store: {self.folder.url(_blob_name(digest))} is gone; {REMEDY}") from None

    def holds(self, digest: str) -> bool:
        """Whether there is a blob of this digest."""
        return self.folder.facts(_blob_name(digest)) is not None

    def _records(self) -> Iterator[list[ObjectFacts]]:
        for page in self.folder.list("actions/"):
            yield [facts for facts in page if _RECORD.fullmatch(facts.name)]

    def _blobs(self) -> Iterator[list[ObjectFacts]]:
        for page in self.folder.list("blobs/"):
            yield [facts for facts in page if _BLOB.fullmatch(facts.name)]

    def _read_page(self, page: list[ObjectFacts]) -> Iterator[tuple[str, bytes]]:
        """Name and content of the records of a page, without those that were removed since the listing."""

        def read(facts: ObjectFacts) -> bytes | None:
            try:
                return self.folder.read(facts.name)[0]
            except S3MissingError:
                return None

        contents = zip(page, parallel(read, page), strict=True)
        return ((facts.name, content) for facts, content in contents if content is not None)

    def statistics(self) -> StoreStatistics:
        """Count records by step, blobs and bytes. Reads every record: the step stands nowhere else."""
        records: Counter[str] = Counter()
        for page in self._records():
            records.update(_step(content) for _, content in self._read_page(page))
        blobs = size = 0
        for page in self._blobs():
            blobs += len(page)
            size += sum(facts.size for facts in page)
        return StoreStatistics(records=dict(sorted(records.items())), blobs=blobs, size=size)

    def verify(self) -> list[str]:
        """Hash every blob and follow every record; remove what is damaged. Nothing is written to disk."""
        # Records first: one that is committed meanwhile would name blobs that are not in the listing yet.
        records = {name: _parse(content) for page in self._records() for name, content in self._read_page(page)}
        faults, sound = [], set()
        for page in self._blobs():
            digests = [facts.name.rpartition("/")[2] for facts in page]
            for digest, intact in zip(digests, parallel(self._verify_blob, digests), strict=True):
                if intact:
                    sound.add(digest)
                else:
                    self.folder.delete([_blob_name(digest)])
                    faults.append(f"{self.folder.url(_blob_name(digest))}: damaged; removed")
        removed = []
        for name, record in records.items():
            if record is None:
                removed.append(name)
                faults.append(f"{self.folder.url(name)}: unreadable; removed")
            elif missing := [file for file, digest in record.files.items() if digest not in sound]:
                removed.append(name)
                what = f"{', '.join(missing)} missing; removed, will be computed again when asked for"
                faults.append(f"{self.folder.url(name)}: {what}")
        self.folder.delete(removed)
        return faults

    def _verify_blob(self, digest: str) -> bool:
        def read() -> str:
            found = hashlib.sha256()
            self.folder.stream(_blob_name(digest), found.update)
            return found.hexdigest()

        try:
            return self._is_sound(digest, read)
        except StoreError:
            return True  # removed by somebody since the listing: the records that name it say so next time

    def collect_garbage(self, keep_days: float) -> tuple[int, int]:
        """Remove what was not used for `keep_days` (and up to `RENEW_DAYS` more), and unfinished uploads.

        Where S3 gives no answer nothing is removed on a guess: the error ends it.
        """
        used: set[str] = set()
        removed = 0
        for page in self._records():
            old = [facts for facts in page if _age(facts) > _kept(keep_days)]
            self.folder.delete(facts.name for facts in old)
            removed += len(old)
            young = [facts for facts in page if _age(facts) <= _kept(keep_days)]
            unreadable = []
            for name, content in self._read_page(young):
                try:
                    # Not parsed further: a later version's record may say more, and its files are in use all the same.
                    used.update(json.loads(content)["files"].values())
                except (ValueError, TypeError, KeyError, AttributeError):
                    unreadable.append(name)
            self.folder.delete(unreadable)
        freed = 0
        # Page by page: the less time between looking and deleting, the less can be made young in between.
        for page in self._blobs():
            unused = [
                facts for facts in page if facts.name.rpartition("/")[2] not in used and _age(facts) > GRACE_DAYS * DAY
            ]
            self.folder.delete(facts.name for facts in unused)
            freed += sum(facts.size for facts in unused)
        self.folder.abort_uploads(time.time() - GRACE_DAYS * DAY)
        return removed, freed


def _parse(content: bytes) -> Record | None:
    """A record, or None if it is unreadable: then it counts as absent, and is computed and written again."""
    try:
        return record_from_json(json.loads(content))
    except (ValueError, TypeError, KeyError):
        return None


def _step(content: bytes) -> str:
    record = _parse(content)
    return "unreadable" if record is None else record.step


def _record_name(key: str) -> str:
    return f"actions/{key[:2]}/{key}.json"


def _blob_name(digest: str) -> str:
    return f"blobs/{digest[:2]}/{digest}"


def _age(facts: ObjectFacts) -> float:
    return time.time() - facts.modified


def _kept(keep_days: float) -> float:
    """Seconds since its last renewal after which a record is certain not to have been used for `keep_days`."""
    return (keep_days + RENEW_DAYS) * DAY
