"""What lies on disk of a database: every file with size and digest, and where it came from."""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from snakefold.databases.registry import RESERVED_NAMES, Kind, Unpacking
from snakefold.errors import SnakefoldError
from snakefold.files import read_json, sha256_of_file, sha256_of_json, write_json

MANIFEST_NAME = "manifest.json"


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

    @property
    def digest(self) -> str:
        """SHA-256 of name, version and files as canonical JSON: what a result that used the database depends on."""
        return sha256_of_json(self.model_dump(include={"name", "version", "files"}))


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json` into the database's folder, atomically."""
    write_json(folder / MANIFEST_NAME, {**manifest.model_dump(), "digest": manifest.digest})


def read_manifest(path: Path) -> Manifest:
    """Read a manifest from its path, `<databases>/<name>/manifest.json`.

    Raises SnakefoldError if it is missing, damaged or edited.
    """
    remedy = "download the database again"
    try:
        content = read_json(path)
        digest = content.pop("digest")
        manifest = Manifest.model_validate(content)
    except FileNotFoundError:
        raise SnakefoldError(f"{path}: there is no such manifest; {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "missing or wrong entries" if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise SnakefoldError(f"{path}: not a manifest ({reason}); {remedy}") from None
    if manifest.digest != digest:
        raise SnakefoldError(f"{path}: the content does not match its digest; {remedy}")
    return manifest


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
