"""Progress of a download, counted in bytes."""

import time
from pathlib import Path

from rich.progress import DownloadColumn, TaskID, TimeRemainingColumn, TransferSpeedColumn

from snakefold.databases.registry import in_units
from snakefold.progress import Reporter

_SECONDS_BETWEEN_LINES = 30


class DownloadProgress(Reporter):
    """Counts bytes. All methods may be called from several threads."""

    def __init__(self, title: str, *, log: Path | None = None, plain: bool = False) -> None:
        super().__init__(title, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), log=log, plain=plain)
        self._done = self._total = 0
        self._last_line = time.monotonic()
        self._task: TaskID | None = None

    def start(self, name: str, total: int | None, done: int = 0) -> None:
        """A file's download begins, `done` of `total` bytes being here from earlier."""
        with self.lock:
            self._done, self._total = done, total or 0
            self._last_line = time.monotonic()
            if self.bar:
                if self._task is not None:
                    self.bar.remove_task(self._task)
                self._task = self.bar.add_task(f"{self.title}: {name}", total=total, completed=done)

    def add(self, size: int) -> None:
        """`size` more bytes have come (fewer, if negative: a part is fetched again)."""
        with self.lock:
            self._done += size
            if self.bar and self._task is not None:
                self.bar.update(self._task, completed=self._done)
            elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
                self._last_line = time.monotonic()
                of = f" of {in_units(self._total)}" if self._total else ""
                self.note(f"{in_units(self._done)}{of}")
