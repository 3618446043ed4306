"""The sources of a run in one archive: what a machine that has nothing of ours needs to run Snakemake on them.

In it: what git tracks in the working directory, as it is on disk, the config, the fleet file in its usual place, and in
their places (see `snakefold.sheet.relocation`) copies of the sheets, of the registry and of all files that the sheets
name. Equal content gives equal bytes: entries are sorted and have neither owners nor times, save what jobs read:
by its time a controller without records of former runs sees that a file has changed.
"""

import gzip
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from snakefold.errors import SnakefoldError
from snakefold.files import canonical_json, replacing, sha256_of_file
from snakefold.fleet import USUAL_PATH
from snakefold.sheet import Target, files_of_sheets
from snakefold.sheet.relocation import place_of, refuse_large, relocated
from snakefold.workflow import Folding

TRACKED = Path(".snakefold/launch/tracked.json")
"""In the archive: a JSON list of the files that git tracks, which are those that workers get."""

CONFIG = Path("config/config.yaml")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A packed archive: SHA-256 of its bytes, their number, and how many files are in it."""

    sha256: str
    size: int
    files: int


def pack(folding: Folding, targets: Iterable[Target], fleet: Path, archive: Path) -> Archive:
    """Pack the sources of a run in the working directory, its targets' files with them, into the file `archive`.

    Raises SnakefoldError where git tracks nothing here, or a file cannot be read.
    """
    return pack_files(_read_whole(folding), _inputs(targets), fleet, archive)


def pack_files(read_whole: Iterable[Path], inputs: Set[Path], fleet: Path, archive: Path) -> Archive:
    """Pack what git tracks, the config, the fleet file, and copies of other files, into the file `archive`.

    `read_whole` are those that reading the workflow takes, `inputs` those that jobs read. Raises as `pack`.
    """
    tracked = [name for name in _tracked() if _is_packable(Path(name))]
    sources = {Path(name): Path(name) for name in tracked}
    sources.setdefault(CONFIG, CONFIG)
    dated = set()
    for path in (*read_whole, *inputs):
        # What git tracks is found under its own path over there. A sheet's folder comes before its paths: `a/../b`.
        own = Path(os.path.normpath(path))
        place = own if own in sources and own.samefile(path) else place_of(path)
        sources.setdefault(place, relocated(path))
        if path in inputs:
            dated.add(place)
    sources[USUAL_PATH] = fleet
    with replacing(archive) as temporary:
        _write(temporary, sources, {TRACKED: canonical_json(sorted(tracked)).encode()}, dated)
    return Archive(sha256=sha256_of_file(archive), size=archive.stat().st_size, files=len(sources))


def _read_whole(folding: Folding) -> Iterable[Path]:
    """The registry, and the sheets with their FASTA files: what reading the workflow takes."""
    for path in (Path(folding.config.databases.registry), *files_of_sheets(folding.sheets)):
        # The controller would have to send it on, and cannot: better said here.
        refuse_large(relocated(path))
        yield path


def _inputs(targets: Iterable[Target]) -> set[Path]:
    """The files that the sheets name for jobs to read."""
    found: set[Path | None] = set()
    for target in targets:
        found |= {target.template, target.reference, *(chain.msa for chain in target.chains)}
    return {path for path in found if path is not None}


def _tracked() -> list[str]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--recurse-submodules", "."], check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError:
        raise SnakefoldError("git: not found; install it: the sources that git tracks are what is sent") from None
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split())
        raise SnakefoldError(
            f"{Path.cwd()}: git cannot say what to send ({why}); run this in the workflow's repository, or make one: "
            "`git init && git add .`"
        ) from None
    names = [name for name in listed.split("\0") if name]
    if not names:
        raise SnakefoldError(f"{Path.cwd()}: git tracks no file here; `git add` the workflow")
    return names


def _is_packable(path: Path) -> bool:
    """Whether there is a file or link: git still tracks what was deleted on disk."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _write(archive: Path, sources: dict[Path, Path], texts: dict[Path, bytes], dated: Collection[Path]) -> None:
    with (
        archive.open("wb") as raw,
        # Neither a name nor a time in the header.
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for place in sorted({*sources, *texts}):
            if place in texts:
                entry = tarfile.TarInfo(place.as_posix())
                entry.size = len(texts[place])
                entry.mode = 0o644
                tar.addfile(entry, io.BytesIO(texts[place]))
            else:
                _add(tar, place, sources[place], dated=place in dated)


def _add(tar: tarfile.TarFile, place: Path, source: Path, *, dated: bool) -> None:
    entry = tarfile.TarInfo(place.as_posix())
    try:
        # A link that git tracks stays one; a link that a sheet names is followed.
        if place == source and source.is_symlink():
            entry.type = tarfile.SYMTYPE
            entry.linkname = str(source.readlink())
            tar.addfile(entry)
            return
        with source.open("rb") as content:
            status = source.stat()
            entry.size = status.st_size
            entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
            if dated:
                entry.mtime = status.st_mtime
            tar.addfile(entry, content)
    except OSError as error:
        raise SnakefoldError(
            f"{source}: cannot be packed ({error.strerror or error}); see that it is there and that you may read it"
        ) from None


def tracked_files(root: Path) -> list[str]:
    """What git tracked where an archive was made that has been unpacked at `root`."""
    return json.loads((root / TRACKED).read_text(encoding="utf-8"))
