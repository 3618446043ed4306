"""Progress of a long step: a bar for a person at a terminal, plain lines for a log or a terminal that jobs share."""

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_SECONDS_BETWEEN_SHARES = 10.0


class Reporter:
    """Says lines: to standard error, and to the file `log` where one is given.

    At a terminal there is a bar of rich's as well, above which the lines appear; not if `plain`, as in a workflow whose
    jobs share the terminal.
    """

    def __init__(self, title: str, *columns: ProgressColumn, log: Path | None, plain: bool) -> None:
        self.title = title
        self.lock = threading.RLock()
        self._log = log
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("")
        self.bar: Bar | None = None
        if not plain and sys.stderr.isatty():
            self.bar = Bar(TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True))

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def note(self, text: str) -> None:
        """Say a line, headed by the title."""
        line = f"[{self.title}] {text}"
        with self.lock:
            if self._log is not None:
                with self._log.open("a", encoding="utf-8") as handle:
                    handle.write(line + "\n")
            if self.bar:
                self.bar.console.print(line, highlight=False, markup=False)
            else:
                print(line, file=sys.stderr, flush=True)  # noqa: T201


class Progress(Reporter):
    """Counts the finished members of one job."""

    def __init__(self, title: str, total: int, *, log: Path | None = None, plain: bool = False) -> None:
        super().__init__(title, MofNCompleteColumn(), TimeElapsedColumn(), log=log, plain=plain)
        self.total = total
        self.finished = 0
        self._started = self._shared = time.monotonic()
        self._task = self.bar.add_task(title, total=total) if self.bar else None

    def advance(self, text: str) -> None:
        """One more member has ended."""
        self.finished += 1
        self.note(f"{self.finished}/{self.total} {text}")
        if self.bar and self._task is not None:
            self.bar.update(self._task, completed=self.finished)

    def share(self, what: str, fraction: float) -> None:
        """How far a work of many members has come (0-1), such as the reading of a database; said every few seconds."""
        now = time.monotonic()
        if now - self._shared > _SECONDS_BETWEEN_SHARES:
            self._shared = now
            self.note(f"{what} {fraction:.0%}")

    def finish(self, text: str) -> None:
        """The last line: what the job did, and the seconds it took."""
        self.note(f"{text}, {time.monotonic() - self._started:.1f} s")
