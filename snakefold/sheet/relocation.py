"""Sheets on machines that do not have them: a worker finds its copy below the working directory.

Snakemake sends a worker what git tracks in the working directory, and config files. A sheet may lie anywhere and be
tracked by nobody; so may the FASTA files that it names, without which the workflow cannot be read. Their copies travel
with the sources, in a place that follows from the path alone: both sides know it without telling each other.
"""

import hashlib
import os
from pathlib import Path

from snakefold.errors import SnakefoldError
from snakefold.files import replacing

PLACE = Path(".snakefold/inputs")
"""Where copies lie, relative to the working directory."""

MAX_BYTES = 10_000_000
"""Snakemake leaves larger files out when it packs the sources."""


def place_of(path: Path) -> Path:
    """Where the copy of a file lies on a machine that does not have the file itself."""
    return PLACE / hashlib.sha256(path.as_posix().encode()).hexdigest()[:16] / path.name


def relocated(path: Path) -> Path:
    """The path itself where there is such a file, else that of its copy, if there is one."""
    if path.exists():
        return path
    place = place_of(path)
    return place if place.exists() else path


def refuse_large(source: Path) -> None:
    """Raises SnakefoldError if a file is too large to travel with the sources."""
    if source.stat().st_size > MAX_BYTES:
        raise SnakefoldError(
            f"{source}: over {MAX_BYTES // 1_000_000} MB, too large to be sent to the workers; "
            "divide it and name the parts in `samples`"
        )


class Travelling(os.PathLike[str]):
    """A file that is copied to its place when somebody asks for its path: when Snakemake packs the sources.

    No hook of a workflow runs between its reading, which writes nothing and happens in dry runs as well, and the
    packing; the list of config files is asked just then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return repr(str(self._path))  # Snakemake lists it among the config files

    def __fspath__(self) -> str:
        place = place_of(self._path)
        source = relocated(self._path)
        if source == place:  # this machine got the copy itself: a controller that was launched on Batch
            return str(place)
        refuse_large(source)
        with replacing(place) as temporary:
            temporary.write_bytes(source.read_bytes())
        return str(place)
