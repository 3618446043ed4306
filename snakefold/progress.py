"""Progress of a long step: a bar for a person at a terminal, plain lines for a log."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Counts the finished members of one job.

    Every line goes to `log` when one is given. On standard error a person sees one moving bar; where several jobs share
    the terminal (`plain`, as in a workflow), or there is none, finished members appear as lines.
    """

    def __init__(self, title: str, total: int, *, log: Path | None = None, plain: bool = False) -> None:
        self.title = title
        self.total = total
        self.finished = 0
        self._started = time.monotonic()
        self._log = log
        self._bar = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("")
        if not plain and sys.stderr.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[last]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, last="")

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, text: str) -> None:
        """One more member has ended."""
        self.finished += 1
        self._say(f"{self.finished}/{self.total} {text}")
        if self._bar:
            self._bar.update(self._task, completed=self.finished, last=text)

    def note(self, text: str) -> None:
        """Say something that ends no member, such as the share of a database that has been read."""
        self._say(text)
        if self._bar:
            self._bar.update(self._task, last=text)

    def finish(self, text: str) -> None:
        """The last line: what the job did, and the seconds it took."""
        self._say(f"{text}, {time.monotonic() - self._started:.1f} s")

    def _say(self, text: str) -> None:
        line = f"[{self.title}] {text}"
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)  # noqa: T201


def silent(_: str) -> None:
    """A listener that says nothing."""


Listener = Callable[[str], None]
