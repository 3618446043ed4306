"""`snakefold pull`: results brought here, checked, in any number of attempts. Nothing is removed."""

import difflib
import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

from snakefold.away.run import Run
from snakefold.errors import FaultsError, SnakefoldError
from snakefold.progress import Reporter
from snakefold.s3 import Digests, ObjectFacts, S3Folder

USUAL = ("summary.tsv", "outcome.json", "report/")
"""What is brought when nothing else is asked for: what opens from disk."""

_MARKER = ".snakemake_timestamp"
_FILES_AT_ONCE = 16
_LINE_EVERY_BYTES = 256 << 20

Check = Literal["sha256", "md5", "size"]


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What came of a pull. `checked` counts all files by the strongest digest that S3 had of them."""

    fetched: int
    kept: int
    size: int
    """Bytes that were fetched."""
    checked: dict[Check, int]


def pull(
    run: Run, folder: Path, targets: Sequence[str] = (), *, everything: bool = False, plain: bool = False
) -> Pulled:
    """Bring results into `folder`: the report and the summary, the predictions of `targets`, or everything.

    A target is `<target>` or `<target>/<engine>`. Files that are here with the right digest are not fetched again, and
    those that were cut off go on where they were. Raises FaultsError that names targets without results, and
    SnakefoldError for damage, for a second pull into the same folder, and where there is nothing yet.
    """
    place = run.results(run.launch())
    source = run.folder.below(place)
    found = _select(run, source, targets, everything=everything)
    total = sum(facts.size for facts in found)
    with (
        _alone_in(folder),
        _Progress(len(found), total, plain=plain) as progress,
        ThreadPoolExecutor(_FILES_AT_ONCE) as pool,
    ):
        pending = [pool.submit(_bring, source, facts, _inside(folder, facts.name), progress) for facts in found]
        try:
            outcomes = [each.result() for each in pending]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    checked = Counter(check for _, check in outcomes)
    return Pulled(
        fetched=sum(size is not None for size, _ in outcomes),
        kept=sum(size is None for size, _ in outcomes),
        size=sum(size or 0 for size, _ in outcomes),
        checked={check: checked[check] for check in ("sha256", "md5", "size") if checked[check]},
    )


def _select(run: Run, source: S3Folder, targets: Sequence[str], *, everything: bool) -> list[ObjectFacts]:
    """The objects that are wanted, each once, by name."""
    below = [""] if everything else [*USUAL, *(f"{target.strip('/')}/" for target in targets)]
    found: dict[str, ObjectFacts] = {}
    missing = []
    for start in below:
        some = [facts for page in source.list(start) for facts in page if _is_result(facts)]
        # A file's name may be the beginning of others'.
        some = [facts for facts in some if start.endswith("/") or not start or facts.name == start]
        found.update((facts.name, facts) for facts in some)
        if not some and start not in USUAL:
            missing.append(start.rstrip("/"))
    if missing:
        known = sorted(set(source.folders()) - {"report", "provenance"})
        raise FaultsError(_no_target(run, name, known) for name in missing)
    if not found:
        run.refuse_unknown()
        raise SnakefoldError(f"run {run.name}: there are no results yet at {source.url()}; see `status`")
    return [found[name] for name in sorted(found)]


def _is_result(facts: ObjectFacts) -> bool:
    return not facts.name.endswith("/") and PurePosixPath(facts.name).name != _MARKER


def _no_target(run: Run, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.partition("/")[0], known, n=1)
    hint = f"did you mean {near[0]}?" if near and near[0] != name else "see `status` and summary.tsv"
    return f"run {run.name}: there are no results of {name!r} (yet); {hint}"


def _inside(folder: Path, name: str) -> Path:
    """Path for an object. Raises SnakefoldError if it would leave the folder: S3 allows ".." in names."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise SnakefoldError(f"{name}: would be written outside of {folder}; rename the object")
    return folder / relative


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second pull out of the folder, where it would write the same unfinished files."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnakefoldError(
                f"{folder}: another pull is writing here; wait for it, or name a folder by --to"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _bring(source: S3Folder, facts: ObjectFacts, path: Path, progress: "_Progress") -> tuple[int | None, Check]:
    """Have an object here; returns the bytes fetched, or None if it was here, and what it was checked by."""
    if path.is_file() and path.stat().st_size == facts.size and "-" not in facts.etag and _md5(path) == facts.etag:
        progress.passed(facts.size)
        return None, "md5"
    known = source.digests(facts.name)
    check = _strongest(known)
    if path.is_file() and path.stat().st_size == known.size and check != "size" and _is_sound(path, known):
        progress.passed(facts.size)
        return None, check
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named by the content: what is left of an earlier pull is continued if it belongs to the same.
    part = path.with_name(f".{path.name}.{hashlib.sha256(known.etag.encode()).hexdigest()[:12]}.partial")
    for leftover in path.parent.glob(f".{_literal(path.name)}.*.partial"):
        if leftover != part:
            leftover.unlink()
    begun = part.stat().st_size if part.exists() else 0
    _fetch(source, facts.name, known, part, progress)
    if not _is_sound(part, known):
        # A part from an earlier pull may have been damaged on this disk, or what came on its way: all of it again.
        part.unlink()
        progress.passed(-known.size)
        begun = 0
        _fetch(source, facts.name, known, part, progress)
        if not _is_sound(part, known):
            part.unlink()
            raise SnakefoldError(
                f"{source.url(facts.name)}: is damaged: its bytes do not have the digest that S3 gives; remove it, and "
                "run the workflow again, which makes it anew"
            )
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(path)
    progress.file()
    return known.size - begun, check


def _fetch(source: S3Folder, name: str, known: Digests, part: Path, progress: "_Progress") -> None:
    """Write the bytes of an object that `part` lacks."""
    with part.open("ab") as out:
        start = out.tell()
        if start > known.size:
            out.truncate(0)
            start = 0
        progress.passed(start)

        def sink(block: bytes) -> None:
            out.write(block)
            progress.passed(len(block))

        if start < known.size:
            source.stream_rest(name, sink, start=start, etag=known.etag)


def _strongest(known: Digests) -> Check:
    if known.sha256 is not None:
        return "sha256"
    return "md5" if known.md5 is not None else "size"


def _is_sound(path: Path, known: Digests) -> bool:
    """Whether a file has the content that S3 says it has, as far as S3 says."""
    with path.open("rb") as handle:
        if known.sha256 is not None:
            return hashlib.file_digest(handle, "sha256").hexdigest() == known.sha256
    if known.md5 is not None:
        return _md5(path) == known.md5
    return path.stat().st_size == known.size


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _literal(name: str) -> str:
    """A name in a pattern that matches only it."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


class _Progress(Reporter):
    """Counts bytes and files; may be called from several threads."""

    def __init__(self, files: int, size: int, *, plain: bool) -> None:
        super().__init__("pull", DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), log=None, plain=plain)
        self._files, self._size = files, size
        self._finished = self._done = self._said = 0
        self._task = self.bar.add_task("pull", total=size) if self.bar else None

    def passed(self, size: int) -> None:
        """So many more bytes are here."""
        with self.lock:
            self._done += size
            if self.bar and self._task is not None:
                self.bar.update(self._task, completed=self._done)
            elif self._done - self._said >= _LINE_EVERY_BYTES:
                self._said = self._done
                come = f"{self._done / 1e6:.0f} of {self._size / 1e6:.0f} MB"
                self.note(f"{come}, {self._finished} of {self._files} files fetched")

    def file(self) -> None:
        """One more file has been fetched."""
        with self.lock:
            self._finished += 1
