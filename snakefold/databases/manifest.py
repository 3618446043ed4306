"""What lies on disk of a database: every file with size and digest, and where it came from."""

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from snakefold.databases.registry import RESERVED_NAMES, Kind, Unpacking
from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_file, sha256_of_json, write_text

MANIFEST_NAME = "manifest.json"

_REMEDY = "download the database again"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Entry):
    """One file on disk: bytes, and SHA-256 as 64 hex digits."""

    size: int
    sha256: str


class SourceRecord(_Entry):
    """One download: where it came from, the size (bytes) and digest of what came, and how it was unpacked."""

    url: str
    size: int
    sha256: str
    unpack: Unpacking


class Manifest(_Entry):
    """A database on disk. Equal content gives equal manifests: no times, no absolute paths.

    `sources` has an entry for each `path` in the registry, `files` one for each file, by its path below the database's
    folder.
    """

    name: str
    version: str
    kind: Kind
    licence: str
    sources: dict[str, SourceRecord]
    files: dict[str, FileRecord]

    @field_validator("files")
    @classmethod
    def _within_the_folder(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        """Manifests come from buckets too: none may name a file outside the folder, or one of the downloader's own."""
        for name in files:
            parts = PurePosixPath(name).parts
            if not parts or name.startswith("/") or ".." in parts or parts[0] in RESERVED_NAMES:
                raise ValueError(f"{name!r} is not a name for a file of a database")
        return files

    @property
    def digest(self) -> str:
        """SHA-256 of name, version and files as canonical JSON: what a result that used the database depends on."""
        return sha256_of_json(self.model_dump(include={"name", "version", "files"}))


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json` into the database's folder, atomically."""
    write_text(folder / MANIFEST_NAME, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """What a manifest's file holds; equal manifests give equal bytes."""
    content = {**manifest.model_dump(), "digest": manifest.digest}
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read a manifest from its path, `<databases>/<name>/manifest.json`.

    Raises SnakefoldError if it is missing, damaged or edited.
    """
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise SnakefoldError(f"{path}: there is no such manifest; {_REMEDY}") from None
    except OSError as error:
        raise SnakefoldError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from None


def parse_manifest(text: bytes, place: str) -> Manifest:
    """The manifest that a file at `place` holds. Raises SnakefoldError if it is damaged or edited."""
    try:
        content = json.loads(text)
        digest = content.pop("digest")
        manifest = Manifest.model_validate(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "missing or wrong entries" if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise SnakefoldError(f"{place}: not a manifest ({reason}); {_REMEDY}") from None
    if manifest.digest != digest:
        raise SnakefoldError(f"{place}: the content does not match its digest; {_REMEDY}")
    return manifest


def is_complete(folder: Path, manifest: Manifest) -> bool:
    """Whether all files of a manifest lie in `folder`, by their sizes. Looks at no content."""
    try:
        return all((folder / name).stat().st_size == record.size for name, record in manifest.files.items())
    except OSError:
        return False


def verify_manifest(folder: Path) -> list[str]:
    """Hash the files of one database again. Returns a line for each fault: missing, changed, or not in the manifest."""
    try:
        manifest = read_manifest(folder / MANIFEST_NAME)
    except SnakefoldError as error:
        return [str(error)]
    faults: list[str] = []
    for name, record in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            faults.append(f"{path}: missing")
        elif path.stat().st_size != record.size:
            faults.append(f"{path}: has {path.stat().st_size} bytes instead of {record.size}")
        elif sha256_of_file(path) != record.sha256:
            faults.append(f"{path}: content has changed")
    faults += [
        f"{folder / name}: not in the manifest" for name in sorted(_files_in(folder)) if name not in manifest.files
    ]
    return faults


def verify(folder: Path) -> list[str]:
    """Verify every database of a databases folder; one line for each fault, none if all is well."""
    if not folder.is_dir():
        raise SnakefoldError(f"{folder}: there are no databases; run `python -m snakefold databases download NAME`")
    manifests = sorted(folder.glob(f"*/{MANIFEST_NAME}"))
    return [fault for manifest in manifests for fault in verify_manifest(manifest.parent)]


def _files_in(folder: Path) -> Iterator[str]:
    """Paths of all files of a database, relative to its folder, without the downloader's own."""
    for parent, folders, names in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        if relative == Path():
            folders[:] = [name for name in folders if name not in RESERVED_NAMES]
            names = [name for name in names if name not in RESERVED_NAMES]
        yield from ((relative / name).as_posix() for name in names)
