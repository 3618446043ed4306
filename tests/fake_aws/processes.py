"""The processes that belong to one job, found in /proc: its descendants and whatever shares a session with them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process; memory in bytes: what is resident and not shared with a file."""

    pid: int
    parent: int
    session: int
    memory: int


def family(leader: int) -> list[Process]:
    """`leader`, all its descendants, and the members of their sessions, which keep orphans in sight."""
    everything = _all_processes()
    members, sessions = {leader}, {leader}
    while True:
        found = {p.pid for p in everything if p.pid in members or p.parent in members or p.session in sessions}
        if found == members:
            return [p for p in everything if p.pid in members]
        members = found
        sessions |= {p.session for p in everything if p.pid in members and p.session == p.pid}


def kill(found: Iterable[Process]) -> None:
    """SIGKILL to each."""
    for process in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def kill_family(leader: int) -> None:
    """SIGKILL to all of them, again until none is left that could start another."""
    deadline = time.monotonic() + 5
    while found := family(leader):
        if time.monotonic() > deadline:
            return
        kill(found)
        time.sleep(0.005)


def _all_processes() -> list[Process]:
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a Path for each process would cost more than the reading
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name may hold spaces and brackets: the fields begin behind the last bracket.
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            _, resident, shared, *_ = Path(f"/proc/{entry}/statm").read_text().split()
            found.append(
                Process(
                    pid=int(entry),
                    parent=int(fields[1]),
                    session=int(fields[3]),
                    memory=(int(resident) - int(shared)) * _PAGE,
                )
            )
    return found
