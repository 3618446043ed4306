"""Progress of a download: a bar for a person at a terminal, a plain line now and then for a log."""

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from snakefold.databases.registry import in_units

_SECONDS_BETWEEN_LINES = 30


class DownloadProgress:
    """Counts bytes. All methods may be called from several threads.

    Lines go to standard error and, if given, to the file `log`. `plain` forbids the bar, as does a missing terminal.
    """

    def __init__(self, title: str, *, log: Path | None = None, plain: bool = False) -> None:
        self.title = title
        self._log = log
        self._lock = threading.Lock()
        self._done = self._total = 0
        self._last_line = time.monotonic()
        self._bar = None
        self._task = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("")
        if not plain and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def start(self, name: str, total: int | None, done: int = 0) -> None:
        """A file's download begins, `done` of `total` bytes being here from earlier."""
        with self._lock:
            self._done, self._total = done, total or 0
            self._last_line = time.monotonic()
            if self._bar:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(f"{self.title}: {name}", total=total, completed=done)

    def add(self, size: int) -> None:
        """`size` more bytes have come (fewer, if negative: a part is fetched again)."""
        with self._lock:
            self._done += size
            if self._bar and self._task is not None:
                self._bar.update(self._task, completed=self._done)
            elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
                self._last_line = time.monotonic()
                of = f" of {in_units(self._total)}" if self._total else ""
                self._write(f"{self.title}: {in_units(self._done)}{of}")

    def note(self, text: str) -> None:
        """Say something."""
        with self._lock:
            self._write(f"{self.title}: {text}")

    def _write(self, line: str) -> None:
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            sys.stderr.write(line + "\n")
