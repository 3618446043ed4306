"""Fetching a database: download, verify, unpack, put in place, write down.

A database's folder, while and after it is made:

    <name>/.partial/download/<key>/   what has come so far of one file
    <name>/.partial/ready/<key>/      one file, verified and unpacked, with `<key>.json` written when it is complete
    <name>/.placed.json               what has been put in place, so that a lost manifest costs no download
    <name>/<files>
    <name>/manifest.json              last

Nothing is put in place before everything is verified. From then on files are only renamed, and the manifest appears
when all are there. A process that is killed at any moment leaves what the next one continues.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from snakefold.databases.fetch import Fetch, Transfer, usual_transfer
from snakefold.databases.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    SourceRecord,
    read_manifest,
    write_manifest,
)
from snakefold.databases.progress import DownloadProgress
from snakefold.databases.registry import Database, DatabaseFile, in_units, load_registry
from snakefold.databases.sources import SourceError
from snakefold.databases.unpack import unpack
from snakefold.errors import SnakefoldError
from snakefold.files import read_json, sha256_of_file, sha256_of_json, write_json
from snakefold.locking import locked

_BLOCK = 1 << 20


class _Member(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    record: FileRecord
    mtime_ns: int


class _Placed(BaseModel):
    """What became of one file of the registry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: SourceRecord
    md5: str | None
    strip_components: int
    version: str
    members: dict[str, _Member]

    def fits(self, file: DatabaseFile, version: str) -> bool:
        """Whether this is what the registry now asks for. The checksum decides where there is one, else the version."""
        if self.source.unpack != file.unpack or self.strip_components != file.strip_components:
            return False
        if file.sha256 is not None:
            return self.source.sha256 == file.sha256
        if file.md5 is not None:
            return self.md5 == file.md5
        return self.version == version and self.source.url in file.urls


def download(name: str, registry_path: Path, folder: Path, *, log: Path | None = None, plain: bool = False) -> Manifest:
    """Fetch the database `name` of a registry into `<folder>/<name>`; see `download_database`."""
    database = load_registry(registry_path).database(name)
    with DownloadProgress(name, log=log, plain=plain) as progress:
        return download_database(database, folder, base=registry_path.parent, progress=progress)


def download_database(
    database: Database,
    folder: Path,
    *,
    base: Path,
    progress: DownloadProgress | None = None,
    transfer: Transfer | None = None,
) -> Manifest:
    """Bring `<folder>/<database.name>` to the state that the registry describes, and return its manifest.

    With everything in place that is a look at sizes and times. `base` is where relative `file:` addresses begin. Two
    processes that want the same database take turns. Raises SnakefoldError if the disk is too small, or if no address
    gives a file with the right size and checksum; then what was in place before still is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if progress is None:
        with DownloadProgress(database.name, plain=True) as progress:
            return _Download(database, folder, base, progress, transfer or usual_transfer()).run()
    return _Download(database, folder, base, progress, transfer or usual_transfer()).run()


class _Download:
    def __init__(
        self, database: Database, folder: Path, base: Path, progress: DownloadProgress, transfer: Transfer
    ) -> None:
        self._database = database
        self._base = base
        self._progress = progress
        self._transfer = transfer
        self._folder = folder
        self._place = folder / database.name
        self._partial = self._place / ".partial"

    def run(self) -> Manifest:
        with self._locked():
            self._place.mkdir(exist_ok=True)
            before = self._read_placed()
            kept = {
                file.path: found
                for file in self._database.files
                if (found := self._still_there(file, before.get(file.path))) is not None
            }
            missing = [file for file in self._database.files if file.path not in kept]
            if missing:
                self._check_disk(missing)
                for file in missing:
                    self._prepare(file)
            placed = {file.path: kept.get(file.path) or self._ready(file) for file in self._database.files}
            return self._put_in_place(
                before, {path: each for path, each in placed.items() if each is not None}, missing
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Beside the folder, not in it: deleting a database must not delete the lock of a running download.
        with locked(self._folder / f".{self._database.name}.lock", self._progress.note, "downloads this database"):
            yield

    # What is there

    def _read_placed(self) -> dict[str, _Placed]:
        try:
            content = read_json(self._place / ".placed.json")
            return {path: _Placed.model_validate(entry) for path, entry in content.items()}
        except (OSError, ValueError, AttributeError, ValidationError):
            return {}

    def _still_there(self, file: DatabaseFile, placed: _Placed | None) -> _Placed | None:
        """What was put in place for this file, if it still is and is still what the registry asks for."""
        if placed is None or not placed.fits(file, self._database.version):
            return self._adopted(file)
        intact = all(_is_intact(self._place / name, member) for name, member in placed.members.items())
        return placed if intact else None

    def _adopted(self, file: DatabaseFile) -> _Placed | None:
        """A file that somebody copied here, if its checksum is the pinned one."""
        path = self._place / file.path
        if file.sha256 is None or file.unpack != "none" or not path.is_file():
            return None
        size = path.stat().st_size
        if file.size not in (None, size) or sha256_of_file(path) != file.sha256:
            return None
        source = SourceRecord(url=file.urls[0], size=size, sha256=file.sha256, unpack=file.unpack)
        return self._describe(file, source, None, {file.path: FileRecord(size=size, sha256=file.sha256)}, self._place)

    def _describe(
        self,
        file: DatabaseFile,
        source: SourceRecord,
        md5: str | None,
        records: dict[str, FileRecord],
        root: Path,
    ) -> _Placed:
        members = {
            name: _Member(record=record, mtime_ns=(root / name).stat().st_mtime_ns) for name, record in records.items()
        }
        return _Placed(
            source=source,
            md5=md5,
            strip_components=file.strip_components,
            version=self._database.version,
            members=members,
        )

    def _key(self, file: DatabaseFile) -> str:
        """Name of the file's folders in `.partial`; another for another version, so that they never mix."""
        content = file.model_dump(exclude={"urls"} if file.pinned else set())
        return sha256_of_json([self._database.version, content])[:16]

    # Download and unpack

    def _check_disk(self, missing: list[DatabaseFile]) -> None:
        """Refuse to start what cannot end. Counts what is still to come: downloads, and what they unpack to."""
        to_come = [file for file in missing if self._ready(file) is None]
        name = self._database.name
        needed = sum(max(0, self._size(file) - self._received(file)) for file in to_come)
        if any(file.unpack != "none" for file in to_come):
            needed += self._database.unpacked_size or 0
        free = shutil.disk_usage(self._place).free
        if needed > free:
            raise SnakefoldError(
                f"{name}: needs {in_units(needed)} in {self._folder}, but only {in_units(free)} are free;"
                " free some space, or set databases.folder in the config to another disk"
            )

    def _size(self, file: DatabaseFile) -> int:
        if file.size is not None:
            return file.size
        for url in file.urls:
            try:
                if urlsplit(url).scheme == "file":
                    return _local_path(url, self._base).stat().st_size
                facts = Fetch(url, self._partial, pinned=file.pinned, transfer=self._transfer).facts
            except (SourceError, OSError):
                continue
            if facts.size is not None:
                return facts.size
        return 0

    def _received(self, file: DatabaseFile) -> int:
        contents = (self._partial / "download" / self._key(file)).glob("*/content")
        return max((each.stat().st_blocks * 512 for each in contents), default=0)

    def _prepare(self, file: DatabaseFile) -> None:
        """Have the file, verified and unpacked, in `.partial/ready`."""
        if self._ready(file) is not None:
            return
        reasons: list[str] = []
        for url in file.urls:
            try:
                path, source, md5 = self._fetch(file, url)
            except SourceError as error:
                reasons.append(f"{url}: {error}")
                continue
            self._unpack(file, path, source, md5)
            return
        raise SnakefoldError(f"{self._database.name}: {file.path}: could not be downloaded; {'; '.join(reasons)}")

    def _fetch(self, file: DatabaseFile, url: str) -> tuple[Path, SourceRecord, str | None]:
        """Download from one address and check size and checksum. Raises SourceError; a wrong file is thrown away."""
        folder = self._partial / "download" / self._key(file)
        if urlsplit(url).scheme == "file":
            path = folder / "copy"
            folder.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(_local_path(url, self._base), path)
            except OSError as error:
                raise SourceError(f"cannot be read ({error.strerror})", lasting=True) from None
        else:
            fetch = Fetch(url, folder, pinned=file.pinned, transfer=self._transfer)
            if file.size is not None and fetch.facts.size not in (None, file.size):
                raise SourceError(f"has {fetch.facts.size} bytes instead of {file.size}", lasting=True)
            path = fetch.run(file.path, self._progress)
        size = path.stat().st_size
        sha256, md5 = _hashes(path, with_md5=file.md5 is not None)
        fault = None
        if file.size not in (None, size):
            fault = f"has {size} bytes instead of {file.size}"
        elif file.sha256 not in (None, sha256):
            fault = f"has SHA-256 {sha256} instead of {file.sha256}"
        elif file.md5 not in (None, md5):
            fault = f"has MD5 {md5} instead of {file.md5}"
        if fault:
            shutil.rmtree(folder)
            raise SourceError(fault, lasting=True)
        return path, SourceRecord(url=url, size=size, sha256=sha256, unpack=file.unpack), md5

    def _unpack(self, file: DatabaseFile, path: Path, source: SourceRecord, md5: str | None) -> None:
        ready = self._partial / "ready" / self._key(file)
        # Half unpacked by a process that was killed.
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(parents=True)
        if file.unpack == "none":
            (ready / file.path).parent.mkdir(parents=True, exist_ok=True)
            path.rename(ready / file.path)
            records = {file.path: FileRecord(size=source.size, sha256=source.sha256)}
        else:
            self._progress.note(f"unpacking {file.path}")
            try:
                records = unpack(path, file.unpack, ready, file.path, strip_components=file.strip_components)
            except SnakefoldError as error:
                shutil.rmtree(ready)
                raise SnakefoldError(f"{self._database.name}: {source.url}: {error}") from None
        placed = self._describe(file, source, md5, records, ready)
        write_json(ready.with_suffix(".json"), placed.model_dump())
        shutil.rmtree(self._partial / "download" / self._key(file), ignore_errors=True)

    def _ready(self, file: DatabaseFile) -> _Placed | None:
        """What lies verified in `.partial/ready`, perhaps partly put in place by a process that was killed."""
        ready = self._partial / "ready" / self._key(file)
        try:
            placed = _Placed.model_validate(read_json(ready.with_suffix(".json")))
        except (OSError, ValueError, ValidationError):
            return None
        there = all(
            _is_intact(ready / name, member) or _is_intact(self._place / name, member)
            for name, member in placed.members.items()
        )
        return placed if there else None

    # Put in place

    def _put_in_place(
        self, before: dict[str, _Placed], placed: dict[str, _Placed], missing: list[DatabaseFile]
    ) -> Manifest:
        manifest = self._manifest(placed)
        manifest_path = self._place / MANIFEST_NAME
        try:
            if not missing and before == placed and read_manifest(manifest_path) == manifest:
                return manifest
        except SnakefoldError:
            pass
        # From here until the new manifest nobody must take the folder for complete.
        manifest_path.unlink(missing_ok=True)
        for old in before.values():
            for name in old.members.keys() - manifest.files.keys():
                (self._place / name).unlink(missing_ok=True)
        for file in missing:
            ready = self._partial / "ready" / self._key(file)
            for name in placed[file.path].members:
                if (ready / name).exists():
                    (self._place / name).parent.mkdir(parents=True, exist_ok=True)
                    (ready / name).rename(self._place / name)
        write_json(self._place / ".placed.json", {path: each.model_dump() for path, each in placed.items()})
        write_manifest(manifest, self._place)
        shutil.rmtree(self._partial, ignore_errors=True)
        size = sum(record.size for record in manifest.files.values())
        self._progress.note(f"{len(manifest.files)} files, {in_units(size)}, in {self._place}")
        return manifest

    def _manifest(self, placed: dict[str, _Placed]) -> Manifest:
        files: dict[str, FileRecord] = {}
        for each in placed.values():
            for name, member in each.members.items():
                if name in files:
                    raise SnakefoldError(f"{self._database.name}: two downloads hold {name!r}; correct the registry")
                files[name] = member.record
        return Manifest(
            name=self._database.name,
            version=self._database.version,
            kind=self._database.kind,
            licence=self._database.licence,
            sources={path: each.source for path, each in placed.items()},
            files=dict(sorted(files.items())),
        )


def _is_intact(path: Path, member: _Member) -> bool:
    """Whether a file is as it was left: by size and time if they agree, else by its digest."""
    try:
        facts = path.stat()
    except OSError:
        return False
    if facts.st_size != member.record.size:
        return False
    return facts.st_mtime_ns == member.mtime_ns or sha256_of_file(path) == member.record.sha256


def _local_path(url: str, base: Path) -> Path:
    """The path of a `file:` address; relative ones begin at `base`."""
    return base / unquote(urlsplit(url).path)


def _hashes(path: Path, *, with_md5: bool) -> tuple[str, str | None]:
    """SHA-256 and, if wanted, MD5, in one reading."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            sha256.update(block)
            if with_md5:
                md5.update(block)
    return sha256.hexdigest(), md5.hexdigest() if with_md5 else None
