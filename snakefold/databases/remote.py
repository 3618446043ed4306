"""A database in S3: the same files as in a directory, and the manifest, which comes last."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from snakefold.databases.manifest import MANIFEST_NAME, FileRecord, Manifest, manifest_text, parse_manifest
from snakefold.databases.progress import DownloadProgress
from snakefold.databases.registry import Database, DatabaseFile, in_units
from snakefold.errors import SnakefoldError
from snakefold.s3 import S3Error, S3Folder, S3MissingError, parallel

LARGE = 64 << 20
"""Bytes from which a file is moved on its own, in parts, and not side by side with others."""

_BEGUN = ".partial"


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a bucket holds of a database: its manifest, if it has one, and why that is not enough (None: it is).

    `touched` are files that were written after the manifest, or in its second: what somebody wrote over since is among
    them.
    """

    manifest: Manifest | None = None
    reason: str | None = None
    touched: tuple[str, ...] = ()


class RemoteDatabase:
    """The database `name` below the folder of databases, such as `s3://bucket/databases`."""

    def __init__(self, databases: S3Folder, name: str) -> None:
        self.name = name
        self.folder = databases.below(name)

    def manifest(self) -> Manifest:
        """What lies there. Raises SnakefoldError if that is nothing, or nothing whole."""
        try:
            content, _ = self.folder.read(MANIFEST_NAME)
        except S3MissingError:
            raise SnakefoldError(
                f"{self.folder.url()}: there is no such database, or it is being replaced; "
                f"run `python -m snakefold databases download {self.name}`"
            ) from None
        return parse_manifest(content, self.folder.url(MANIFEST_NAME))

    def sizes(self) -> dict[str, int]:
        """The bytes of every object of the database, by its name."""
        return {facts.name: facts.size for page in self.folder.list() for facts in page}

    def held(self, wanted: Database) -> Manifest | None:
        """The manifest, if what lies there is what the registry asks for and all of it is there, by its size."""
        holding = self.holding(wanted)
        if holding.manifest is None or holding.reason is not None:
            return None
        current = _agreeing(holding.manifest, wanted)
        if current is not None and current != holding.manifest:
            self.folder.write(MANIFEST_NAME, manifest_text(current).encode())
        return current

    def holding(self, wanted: Database) -> "Holding":
        """What lies there, and why it is not what the registry asks for. Looks at sizes alone, and writes nothing."""
        try:
            content, written = self.folder.read(MANIFEST_NAME)
        except S3MissingError:  # anything else, such as no bucket, must be known before hours of downloading
            return Holding(reason="not there, or only in part")
        try:
            manifest = parse_manifest(content, self.folder.url(MANIFEST_NAME))
        except SnakefoldError:
            return Holding(reason="the manifest is damaged")
        if _agreeing(manifest, wanted) is None:
            reason = f"version {manifest.version} is there, the registry asks for {wanted.version} or other files"
            return Holding(manifest=manifest, reason=reason)
        objects = {facts.name: facts for page in self.folder.list() for facts in page}
        missing = lacking(manifest, {name: facts.size for name, facts in objects.items()})
        reason = f"{len(missing)} files are missing or of another size, such as {missing[0]}" if missing else None
        # The manifest was written last. Within its second nobody knows which came first.
        since = int(written.modified)
        touched = tuple(name for name in manifest.files if name in objects and objects[name].modified >= since)
        return Holding(manifest=manifest, reason=reason, touched=touched)

    def altered(self, manifest: Manifest, names: Iterable[str], *, read: bool = False) -> list[str]:
        """Those of these files whose content is not what the manifest says, by the digests that S3 keeps of it.

        Only what S3 knows none of is read, or all, with `read`.
        """

        def is_altered(name: str) -> bool:
            try:
                known = None if read else self.folder.digests(name).sha256
                if known is None:
                    digest = hashlib.sha256()
                    self.folder.stream(name, digest.update)
                    known = digest.hexdigest()
            except S3MissingError:
                return True
            return known != manifest.files[name].sha256

        chosen = sorted(names)
        return [name for name, bad in zip(chosen, parallel(is_altered, chosen), strict=True) if bad]

    def begin(self) -> None:
        """Leave a sign that the database is being brought, which `publish` removes: who may not write learns it now."""
        try:
            self.folder.write(_BEGUN, b"")
        except S3Error as error:
            if not error.denied:
                raise
            raise S3Error(
                f"{error}; where only one role may write databases, `python -m snakefold databases sync {self.name}` "
                "brings this one with that role",
                denied=True,
            ) from None

    def withdraw(self, names: Iterable[str]) -> None:
        """Remove damaged files, the manifest before them: nobody must take the rest for complete."""
        self.folder.delete([MANIFEST_NAME])
        self.folder.delete(names)

    def publish(self, source: Path, manifest: Manifest, progress: DownloadProgress) -> None:
        """Bring the database to S3 that lies in the folder `source`.

        Objects that are there already with the same digest stay, and parts of large ones: an upload that broke off goes
        on. What belonged to an older version goes last.
        """
        before = self.sizes()
        total = sum(record.size for record in manifest.files.values())
        progress.note(f"uploading {len(manifest.files)} files, {in_units(total)}, to {self.folder.url()}")
        progress.start("upload", total)
        # From here until the new manifest nobody must take what lies there for complete.
        self.folder.delete([MANIFEST_NAME])

        def put(name: str) -> None:
            record = manifest.files[name]
            same = before.get(name) == record.size and self.folder.digests(name).sha256 == record.sha256
            if same:
                progress.add(record.size)
            else:
                journal = f"{_BEGUN}.{record.sha256[:16]}"
                self.folder.upload(source / name, name, record.sha256, journal=journal, sent=progress.add)

        each_once(manifest, put)
        if missing := lacking(manifest, self.sizes()):
            raise SnakefoldError(
                f"{self.folder.url(missing[0])}: is not what was written; is somebody else writing there? run again"
            )
        self.folder.write(MANIFEST_NAME, manifest_text(manifest).encode())
        self.folder.delete(name for name in before if name != MANIFEST_NAME and name not in manifest.files)
        self.folder.abort_uploads(time.time())

    def faults(self, objects: dict[str, int]) -> list[str]:
        """Read everything again; a line for each fault. `objects` are the sizes of what lies there."""
        try:
            manifest = self.manifest()
        except SnakefoldError as error:
            return [str(error)]

        def fault(name: str) -> str | None:
            record, url = manifest.files[name], self.folder.url(name)
            if name not in objects:
                return f"{url}: missing"
            if objects[name] != record.size:
                return f"{url}: has {objects[name]} bytes instead of {record.size}"
            digest = hashlib.sha256()
            self.folder.stream(name, digest.update)
            return None if digest.hexdigest() == record.sha256 else f"{url}: content has changed"

        found = [line for line in parallel(fault, sorted(manifest.files)) if line is not None]
        foreign = sorted(objects.keys() - manifest.files.keys() - {MANIFEST_NAME})
        return found + [f"{self.folder.url(name)}: not in the manifest" for name in foreign]


def verify_remote(location: str) -> list[str]:
    """Verify every database below an S3 location, by reading it; one line for each fault, none if all is well."""
    objects: dict[str, dict[str, int]] = {}
    folder = S3Folder(location)
    for page in folder.list():
        for facts in page:
            name, _, rest = facts.name.partition("/")
            objects.setdefault(name, {})[rest] = facts.size
    databases = {name: files for name, files in objects.items() if MANIFEST_NAME in files}
    if not databases:
        raise SnakefoldError(f"{location}: there are no databases; run `python -m snakefold databases download NAME`")
    return [fault for name, files in sorted(databases.items()) for fault in RemoteDatabase(folder, name).faults(files)]


def lacking(manifest: Manifest, sizes: dict[str, int]) -> list[str]:
    """The files of a manifest that are not there, or of another size."""
    return [name for name, record in sorted(manifest.files.items()) if sizes.get(name) != record.size]


def each_once(manifest: Manifest, move: Callable[[str], None], names: list[str] | None = None) -> None:
    """Call `move` for the files of a manifest: small ones side by side, large ones, which use all lines, in turn."""
    chosen = sorted(manifest.files) if names is None else names

    def is_large(record: FileRecord) -> bool:
        return record.size > LARGE

    for _ in parallel(move, (name for name in chosen if not is_large(manifest.files[name]))):
        pass
    for name in chosen:
        if is_large(manifest.files[name]):
            move(name)


def _agreeing(manifest: Manifest, wanted: Database) -> Manifest | None:
    """The manifest as the registry would have it now, if the files it describes are those that the registry pins.

    Where checksums pin every file, the version is but a label.
    """
    if manifest.name != wanted.name or manifest.sources.keys() != {file.path for file in wanted.files}:
        return None
    same_version = manifest.version == wanted.version
    if not all(_is_source_of(manifest, file, same_version=same_version) for file in wanted.files):
        return None
    return manifest.model_copy(update={"version": wanted.version, "kind": wanted.kind, "licence": wanted.licence})


def _is_source_of(manifest: Manifest, file: DatabaseFile, *, same_version: bool) -> bool:
    source = manifest.sources[file.path]
    if source.unpack != file.unpack or file.size not in (None, source.size):
        return False
    if file.sha256 is not None:
        return source.sha256 == file.sha256
    return same_version and source.url in file.urls
