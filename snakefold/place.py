"""The small files of a run, wherever they lie: read and removed in one way in a folder and on S3."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from snakefold.s3 import S3Folder, S3MissingError, parallel


class Place(Protocol):
    """Where the paths of a run begin."""

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The content of those files that exist."""
        ...

    def names(self, folder: str) -> list[str]:
        """Paths of the files directly in a folder; none if there is no such folder."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files."""
        ...

    def delete_folder(self, path: str) -> None:
        """Remove a folder with all in it."""
        ...


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The content of those files that exist."""
        found = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[path] = (self._root / path).read_bytes()
        return found

    def names(self, folder: str) -> list[str]:
        """Paths of the files directly in a folder; none if there is no such folder."""
        return [f"{folder}/{path.name}" for path in (self._root / folder).glob("*") if path.is_file()]

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files."""
        for path in paths:
            (self._root / path).unlink(missing_ok=True)

    def delete_folder(self, path: str) -> None:
        """Remove a folder with all in it."""
        shutil.rmtree(self._root / path)


class S3Place:
    """The objects below an address; many are read at once. All methods raise S3Error where S3 refuses."""

    def __init__(self, url: str) -> None:
        self._folder = S3Folder(url)

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The content of those objects that exist."""

        def content(path: str) -> bytes | None:
            try:
                return self._folder.read(path)[0]
            except S3MissingError:
                return None

        wanted = list(paths)
        contents = zip(wanted, parallel(content, wanted), strict=True)
        return {path: content for path, content in contents if content is not None}

    def names(self, folder: str) -> list[str]:
        """Paths of the objects directly in a folder; none if there is no such folder."""
        found = (facts.name for page in self._folder.list(f"{folder}/") for facts in page)
        return [name for name in found if name.rpartition("/")[0] == folder]

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects."""
        self._folder.delete(paths)

    def delete_folder(self, path: str) -> None:
        """Remove all objects below a path, the marker that makes them a folder first.

        The storage plugin takes a folder without its marker for absent: half of one is never taken for a result.
        """
        marker = f"{path}/.snakemake_timestamp"
        self._folder.delete([marker])
        for page in self._folder.list(f"{path}/"):
            self._folder.delete(facts.name for facts in page)
