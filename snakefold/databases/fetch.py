"""Downloading one file over several connections, so that a break costs little and a restart goes on.

aria2c does it where it is installed: it is made for this. Otherwise `_Ranges` does, on top of requests (a dependency
anyway): the maintained Python packages for downloading lack ranges over several connections, or start from nothing
after a restart, so a hundred lines of our own are the smaller burden.
"""

import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from snakefold.databases.progress import DownloadProgress
from snakefold.databases.sources import Facts, Interrupted, Source, SourceError, open_source, patiently
from snakefold.files import read_json, write_json, write_text

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How to download.

    `connections` at once; `segment` bytes are asked for at a time, and lost at most for each connection when the
    process is killed; `retries` failures without a byte in between are borne, after `wait` seconds, then twice as many,
    and so on.
    `aria2c` is the path of the program, None to do without.
    """

    connections: int = 4
    segment: int = 16 << 20
    retries: int = 5
    wait: float = 2.0
    aria2c: str | None = None


def usual_transfer() -> Transfer:
    """The defaults, with aria2c where it is installed."""
    return Transfer(aria2c=shutil.which("aria2c"))


class Fetch:
    """One download from one address into the folder `partial`, which may hold the beginning of it.

    `pinned` says that a checksum will decide about the content: only then may parts from another mirror, which tags its
    files differently, be continued.
    """

    def __init__(self, url: str, partial: Path, *, pinned: bool, transfer: Transfer) -> None:
        self.url = url
        self.facts: Facts = _ask(open_source(url), transfer)
        self._pinned = pinned
        self._transfer = transfer
        self._aria2c = transfer.aria2c if urlsplit(url).scheme in ("http", "https") else None
        # Each method keeps its own: aria2c's holes and ours are not the same.
        self._folder = partial / ("aria2" if self._aria2c else "ranges")
        self._file = self._folder / "content"

    @property
    def received(self) -> int:
        """Bytes that are here from earlier."""
        return _allocated(self._file)

    def run(self, name: str, progress: DownloadProgress, *, sink: Callable[[bytes], object] | None = None) -> Path:
        """Download; return the path of the file. Raises SourceError.

        `sink` gets all bytes in order, of what came earlier as well, and mostly while the later ones are on their way:
        a digest of a large file is ready soon after its last byte.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        handed_on = False
        if self._aria2c:
            self._forget_if_changed()
            progress.start(name, self.facts.size, self.received)
            _run_aria2c(self._aria2c, self.url, self._file, self.facts.size, self._transfer, progress)
        elif self.facts.ranges and self.facts.size:
            ranges = _Ranges(self.url, self.facts, self._file, pinned=self._pinned, transfer=self._transfer)
            ranges.run(name, progress, sink)
            handed_on = True
        else:
            progress.start(name, self.facts.size)
            _read_whole(open_source(self.url), self._file, self._transfer, progress)
        if self.facts.size is not None and self._file.stat().st_size != self.facts.size:
            found = self._file.stat().st_size
            shutil.rmtree(self._folder)
            raise SourceError(f"ended after {found} of {self.facts.size} bytes", lasting=True)
        if sink and not handed_on:
            _hand_on(self._file, sink)
        return self._file

    def _forget_if_changed(self) -> None:
        """Aria2c continues whatever lies there; begin again if the server has another file by now."""
        note = self._folder / "tag"
        tag = f"{self.facts.size} {'' if self._pinned else self.facts.tag}"
        if not note.is_file() or note.read_text() != tag:
            shutil.rmtree(self._folder)
            self._folder.mkdir()
            write_text(note, tag)


class _Ranges:
    """Downloads segments in any order into a file with holes, and keeps a journal of the finished ones."""

    def __init__(self, url: str, facts: Facts, path: Path, *, pinned: bool, transfer: Transfer) -> None:
        self._url = url
        self._facts = facts
        self._size = facts.size or 0
        self._path = path
        self._journal = path.with_name("journal.json")
        self._pinned = pinned
        self._transfer = transfer
        self._lock = threading.Condition()
        self._stopped = threading.Event()
        self._done: set[int] = set()

    def run(self, name: str, progress: DownloadProgress, sink: Callable[[bytes], object] | None) -> None:
        """Download what is missing. Raises SourceError; what came is kept for the next time."""
        segment = self._transfer.segment
        count = -(-self._size // segment)
        self._done = self._resume()
        progress.start(name, self._size, sum(min(segment, self._size - each * segment) for each in self._done))
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for each in range(count):
            if each not in self._done:
                waiting.put(each)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.ftruncate(descriptor, self._size)
            with ThreadPoolExecutor(self._transfer.connections + 1) as pool:
                followers = [pool.submit(self._follow, count, descriptor, sink)] if sink else []
                workers = [
                    pool.submit(self._work, waiting, descriptor, progress)
                    for _ in range(min(self._transfer.connections, waiting.qsize()))
                ]
                try:
                    for worker in [*workers, *followers]:
                        worker.result()
                finally:
                    self._stopped.set()
        finally:
            os.close(descriptor)

    def _resume(self) -> set[int]:
        """The segments that are here already; none if the file is another one by now."""
        try:
            journal: dict[str, Any] = read_json(self._journal)
        except (OSError, ValueError):
            journal = {}
        same = journal.get("size") == self._size and journal.get("segment") == self._transfer.segment
        # Without a tag, nothing tells a new version of the file from the old one.
        same_content = self._pinned or (bool(self._facts.tag) and journal.get("tag") == self._facts.tag)
        if same and same_content and self._path.is_file() and self._path.stat().st_size == self._size:
            return set(journal["done"])
        self._path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)
        return set()

    def _work(self, waiting: "queue.SimpleQueue[int]", descriptor: int, progress: DownloadProgress) -> None:
        source = open_source(self._url)
        try:
            while not self._stopped.is_set():
                number = waiting.get_nowait()
                start = number * self._transfer.segment
                self._fetch(source, start, min(start + self._transfer.segment, self._size), descriptor, progress)
                if not self._stopped.is_set():
                    self._note(number, descriptor)
        except queue.Empty:
            return
        except BaseException:
            self._stopped.set()
            raise

    def _follow(self, count: int, descriptor: int, sink: Callable[[bytes], object]) -> None:
        """Hand the segments on in order, each when it is here: from the page cache, while the next are on their way."""
        try:
            for number in range(count):
                with self._lock:
                    while number not in self._done:
                        if self._stopped.is_set():
                            return
                        self._lock.wait(0.5)
                start = number * self._transfer.segment
                end = min(start + self._transfer.segment, self._size)
                for position in range(start, end, _BLOCK):
                    sink(os.pread(descriptor, min(_BLOCK, end - position), position))
        except BaseException:
            self._stopped.set()
            raise

    def _fetch(self, source: Source, start: int, end: int, descriptor: int, progress: DownloadProgress) -> None:
        """Read bytes `start` to `end`, going on after each break from where it was."""
        position = start

        def attempt() -> None:
            nonlocal position
            begun = position
            try:
                for block in source.read(position, end, self._facts.tag):
                    if self._stopped.is_set():
                        return
                    wanted = block[: end - position]
                    os.pwrite(descriptor, wanted, position)
                    position += len(wanted)
                    progress.add(len(wanted))
                if position < end:
                    raise SourceError("the connection ended early")
            except SourceError as error:
                raise Interrupted(error, position - begun) from None

        patiently(attempt, self._transfer.retries, self._transfer.wait, lambda: not self._stopped.is_set())

    def _note(self, number: int, descriptor: int) -> None:
        """Write the segment down as finished, after its bytes: never the other way round."""
        os.fdatasync(descriptor)
        with self._lock:
            self._done.add(number)
            journal = {"size": self._size, "segment": self._transfer.segment, "tag": self._facts.tag}
            write_json(self._journal, {**journal, "done": sorted(self._done)})
            self._lock.notify_all()


def _ask(source: Source, transfer: Transfer) -> Facts:
    found: list[Facts] = []

    def attempt() -> None:
        try:
            found.append(source.facts())
        except SourceError as error:
            raise Interrupted(error, 0) from None

    patiently(attempt, transfer.retries, transfer.wait, lambda: True)
    return found[0]


def _hand_on(path: Path, sink: Callable[[bytes], object]) -> None:
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            sink(block)


def _read_whole(source: Source, path: Path, transfer: Transfer, progress: DownloadProgress) -> None:
    """Download from a server without ranges: a break means beginning again."""

    def attempt() -> None:
        received = 0
        try:
            with path.open("wb") as handle:
                for block in source.read_all():
                    handle.write(block)
                    received += len(block)
                    progress.add(len(block))
        except SourceError as error:
            progress.add(-received)
            # Bytes that must be fetched again are no progress: 0, so that a server which always breaks is given up.
            raise Interrupted(error, 0) from None

    patiently(attempt, transfer.retries, transfer.wait, lambda: True)


def _run_aria2c(
    program: str, url: str, path: Path, size: int | None, transfer: Transfer, progress: DownloadProgress
) -> None:
    """Download with aria2c, which keeps its own journal beside the file and goes on from there."""
    control = path.with_name(path.name + ".aria2")
    if path.is_file() and not control.exists():
        # Complete, for then aria2c removes its journal; or killed before it wrote the first: not to be continued.
        if path.stat().st_size == size == _allocated(path):
            return
        path.unlink()
    command = [
        program,
        "--no-conf=true",
        f"--dir={path.parent}",
        f"--out={path.name}",
        "--always-resume=false",
        "--allow-overwrite=true",
        "--auto-file-renaming=false",
        "--file-allocation=none",
        "--auto-save-interval=1",
        f"--split={transfer.connections}",
        f"--max-connection-per-server={min(transfer.connections, 16)}",
        f"--min-split-size={min(max(transfer.segment, 1 << 20), 1 << 30)}",
        f"--max-tries={transfer.retries + 1}",
        f"--retry-wait={round(transfer.wait)}",
        "--connect-timeout=30",
        "--timeout=60",
        "--summary-interval=0",
        "--show-console-readout=false",
        "--console-log-level=error",
        "--download-result=hide",
        # An aria2c that outlives us would write into the file that the next one continues.
        f"--stop-with-process={os.getpid()}",
        url,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            counted = _allocated(path)
            while process.poll() is None:
                time.sleep(0.05)
                received = _allocated(path)
                progress.add(received - counted)
                counted = received
            output = process.stdout.read() if process.stdout else ""
        finally:
            if process.poll() is None:
                process.terminate()
    if process.returncode:
        raise SourceError(_aria2c_reason(output, process.returncode))


def _aria2c_reason(output: str, code: int) -> str:
    """What aria2c says went wrong, without its time stamps and source lines."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if "errorCode=" in line or line.startswith("->")]
    text = re.sub(r"^(->\s*\[[^]]*\]\s*)?(.*errorCode=\d+\s*)?", "", (told or lines or [""])[-1])
    text = re.sub(r"URI=\S+", "", text).strip()
    return f"aria2c ended with {code}" + (f": {text[:200]}" if text else "")


def _allocated(path: Path) -> int:
    """Bytes of a file with holes that are really there."""
    try:
        facts = path.stat()
    except OSError:
        return 0
    return min(facts.st_size, facts.st_blocks * 512)
