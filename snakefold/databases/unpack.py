"""Unpacking of downloads: gz, zst and tar, never outside the folder that was meant."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

from snakefold.databases.manifest import FileRecord
from snakefold.databases.registry import RESERVED_NAMES, Unpacking
from snakefold.errors import SnakefoldError

_BLOCK = 1 << 20
_ZSTD_BLOCK = 1 << 17


def unpack(
    archive: Path, how: Unpacking, target: Path, path: str, *, strip_components: int = 0
) -> dict[str, FileRecord]:
    """Unpack `archive` into the folder `target`, which must be new: nobody else may put links there.

    `path` is the file (gz, zst) or the folder (tar) below `target`. Returns the files by their paths below `target`.
    Raises SnakefoldError if the archive is damaged, or a member is absolute, has `..`, is a link or a device, occurs
    twice, or would overwrite a file of the downloader's.
    """
    try:
        with _decompressed(archive, how) as stream:
            if how.startswith("tar"):
                return _unpack_tar(stream, target, PurePosixPath(path), strip_components)
            return {path: _write(stream, target / path)}
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, tarfile.TarError) as error:
        raise SnakefoldError(f"the archive is damaged ({error})") from None


@contextmanager
def _decompressed(archive: Path, how: Unpacking) -> Iterator[BinaryIO]:
    with archive.open("rb") as raw:
        if how.endswith("gz"):
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast(BinaryIO, stream)
        elif how.endswith("zst"):
            yield cast(BinaryIO, io.BufferedReader(_ZstdReader(raw)))
        else:
            yield raw


class _ZstdReader(io.RawIOBase):
    """Decompresses frame after frame. zstandard's own reader takes a file that ends within a frame for complete."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        # Large collections are compressed with windows beyond the 128 MiB that zstd takes by default.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._compressed:
                self._compressed = self._raw.read(_ZSTD_BLOCK)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("it ends before its time")
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(self._compressed))
            self._compressed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _unpack_tar(stream: BinaryIO, target: Path, folder: PurePosixPath, strip_components: int) -> dict[str, FileRecord]:
    files: dict[str, FileRecord] = {}
    # "r|": one pass, so an archive of a terabyte is not indexed first.
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            parts = _safe_parts(member)[strip_components:]
            if member.isdir() or not parts:
                continue
            place = folder.joinpath(*parts)
            if place.parts[0] in RESERVED_NAMES:
                raise SnakefoldError(f"the archive has {member.name!r}, a name that the downloader needs")
            content = tar.extractfile(member)
            if content is None:
                raise SnakefoldError(f"the archive's member {member.name!r} is not a file")
            try:
                files[place.as_posix()] = _write(cast(BinaryIO, content), target / place)
            except (FileExistsError, NotADirectoryError):
                raise SnakefoldError(f"the archive has {member.name!r} twice") from None
    return files


def _safe_parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    """The member's path in parts. Raises SnakefoldError for one that could lead outside the folder."""
    path = PurePosixPath(member.name)
    if path.is_absolute():
        raise SnakefoldError(f"the archive's member {member.name!r} has an absolute path; it was not unpacked")
    if ".." in path.parts:
        raise SnakefoldError(f"the archive's member {member.name!r} leads out of its folder; it was not unpacked")
    if not (member.isfile() or member.isdir()):
        raise SnakefoldError(f"the archive's member {member.name!r} is a link or a device; it was not unpacked")
    return path.parts


def _write(stream: BinaryIO, path: Path) -> FileRecord:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    with path.open("xb") as out:
        while block := stream.read(_BLOCK):
            out.write(block)
            digest.update(block)
            size += len(block)
    return FileRecord(size=size, sha256=digest.hexdigest())
