"""Keeps one warm driver at work on the members of a batch: restarts it, finds the member that kills it, ends in order.

The driver (`drivers/driver_protocol.py`) is a process in the engine's own Python. What it does to itself (out of
memory, crash, hang) must cost the member that caused it, and nobody else.
"""

import contextlib
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from snakefold.engines.base import FoldTask
from snakefold.engines.gpus import OwnGpu
from snakefold.errors import SnakefoldError, Terminated

GRACE_SECONDS = 100.0
"""How long the member in flight may go on after SIGTERM: a Spot machine is gone two minutes after its notice."""

SILENCE_SECONDS = 120.0
"""A driver that has given no sign for so long stands still, even its threads."""

LOAD_SECONDS = 1800.0
"""The longest that an engine may take to import and to read its weights."""

_STARTS_IN_VAIN = 2
_LOG_BYTES = 20_000


@dataclass(frozen=True, kw_only=True)
class DriverCommand:
    """How to start a driver: its command, and what it gets to know when it loads."""

    command: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What the driver says of a member that it predicted. `gpu_memory_mb` is None where there is no GPU."""

    seconds: float
    memory_mb: float
    gpu_memory_mb: float | None
    device: str | None


class Ends(Protocol):
    """Where members end. Each ends once, as soon as it is known how."""

    def done(self, member: str, finished: Finished) -> None:
        """The member's files lie in its folder."""
        ...

    def failed(self, member: str, kind: str, reason: str, log: Sequence[str]) -> None:
        """The member cannot be predicted."""
        ...


@dataclass(kw_only=True)
class _Life:
    """One driver process, from its start to its end."""

    ready: bool = False
    finished: bool = False
    device: str | None = None
    in_flight: list[str] = field(default_factory=list)
    log_start: int = 0
    must_sign_by: float
    must_end_by: float
    hung: str | None = None


class Supervisor:
    """Predicts the members of one batch by as few driver processes as they let live."""

    def __init__(
        self,
        start: DriverCommand,
        tasks: Mapping[str, tuple[FoldTask, Path]],
        *,
        ends: Ends,
        scratch: Path,
        limit: Callable[[FoldTask], float],
        gpu: OwnGpu | None = None,
        deadline: float | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            start: the driver.
            tasks: what to predict, with a folder for the files of each, in the order to be kept.
            ends: told of each member's end.
            scratch: where the log may lie.
            limit: seconds after which a member hangs; a group may take the sum of its members'.
            gpu: what the driver is to be started with, to have a GPU of its own.
            deadline: when (`time.monotonic`) members that are not finished are given up.
            say: told what a person should know.

        """
        self._start = start
        self._tasks = tasks
        self._ends = ends
        self._log = scratch / "driver.log"
        self._limit = limit
        self._gpu = gpu or OwnGpu()
        self._deadline = math.inf if deadline is None else deadline
        self._say = say
        self._waiting = list(tasks)
        self._suspects: list[str] = []

    def run(self) -> None:
        """Work until every member has ended.

        Members that were in flight when a driver died are tried once more, one by one, when the others are through:
        that shows which of them is to blame, and that one fails.

        Raises SnakefoldError if the driver cannot be started at all; Terminated or KeyboardInterrupt when told to stop,
        after the driver has ended. Members that have not ended by then were not begun, or are dropped.
        """
        in_vain = 0
        while self._waiting or self._suspects:
            alone = not self._waiting
            members = list(self._suspects if alone else self._waiting)
            code, life = self._live(members, alone=alone)
            if time.monotonic() >= self._deadline:
                for member in (*self._waiting, *self._suspects):
                    self._fail(member, "timeout", "not finished when the time limit of its job was near", life)
            elif life.finished:
                # What a driver passes over without a word would be sent for ever.
                for member in [each for each in members if each in self._waiting or each in self._suspects]:
                    self._fail(member, "error", "the driver left it out; please report this", life)
            elif not life.in_flight:
                in_vain += 1
                if in_vain == _STARTS_IN_VAIN:
                    raise SnakefoldError(self._why_in_vain(code, life))
            else:
                in_vain = 0
                kind, reason = _cause(code, life)
                if alone:
                    self._fail(life.in_flight[0], kind, reason, life)
                else:
                    self._say(f"{reason}; {', '.join(life.in_flight)}: to be tried alone, when the others are through")
                    self._suspects += life.in_flight
                    self._waiting = [each for each in self._waiting if each not in life.in_flight]

    # ------------------------------------------------------------------ one driver

    def _live(self, members: Sequence[str], *, alone: bool) -> tuple[int, _Life]:
        """Start a driver, send it the members, take in what it says until its end; returns its exit code."""
        now = time.monotonic()
        life = _Life(must_sign_by=now + SILENCE_SECONDS, must_end_by=now + LOAD_SECONDS)
        with self._log.open("ab") as log:
            life.log_start = log.tell()
            process = subprocess.Popen(
                [*self._start.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._gpu.environment},
                # Should this process die, the GPU is its driver's until that has ended too.
                pass_fds=self._gpu.descriptors,
                # Whatever it starts ends with it, and Ctrl-C at a terminal is ours to answer.
                start_new_session=True,
            )
        try:
            said = _lines_of(process)
            _tell(process, self._start.settings)
            _tell(process, {"alone": alone, "tasks": [self._as_json(member) for member in members]})
            try:
                self._attend(process, said, life)
            except Terminated:
                if life.in_flight:
                    self._say(f"told to end: {', '.join(life.in_flight)} may finish for {GRACE_SECONDS:.0f} s")
                    _tell(process, {"stop": True})
                    self._attend(process, said, life, until=time.monotonic() + GRACE_SECONDS)
                raise
            return process.wait(), life
        finally:
            _end(process)

    def _attend(
        self, process: "subprocess.Popen[bytes]", said: "queue.Queue[bytes]", life: _Life, until: float = math.inf
    ) -> None:
        """Take in what the driver says until it has ended, or until then. A driver that hangs is killed."""
        while True:
            now = time.monotonic()
            if now >= until:
                return
            if life.hung is None and now < self._deadline and now >= min(life.must_sign_by, life.must_end_by):
                silent = life.must_sign_by <= life.must_end_by
                life.hung = "gave no sign of life" if silent else "took far longer than it should"
                _kill(process)
            elif now >= self._deadline:
                _kill(process)
            next_limit = min(life.must_sign_by, life.must_end_by, self._deadline, until)
            try:
                line = said.get(timeout=min(max(next_limit - now, 0.05), 60))
            except queue.Empty:
                continue
            if not line:
                return
            life.must_sign_by = time.monotonic() + SILENCE_SECONDS
            self._take(json.loads(line), life)

    def _take(self, event: Mapping[str, Any], life: _Life) -> None:
        what = event["event"]
        if what == "ready":
            life.ready, life.device = True, event["device"]
            life.must_end_by = math.inf
            self._say(f"ready after {event['seconds']:.0f} s on {life.device or 'the CPU'}")
        elif what == "started":
            life.in_flight = list(event["members"])
            life.must_end_by = time.monotonic() + sum(self._limit(self._tasks[each][0]) for each in life.in_flight)
            if event["ease"]:
                self._say(f"{life.in_flight[0]}: out of GPU memory, measure {event['ease']} against it")
            else:
                life.log_start = event["log"]
        elif what == "done":
            member = self._ended(event, life)
            self._ends.done(
                member,
                Finished(
                    seconds=event["seconds"],
                    memory_mb=event["memory_mb"],
                    gpu_memory_mb=event["gpu_memory_mb"],
                    device=life.device,
                ),
            )
        elif what == "failed":
            self._fail(self._ended(event, life), event["kind"], event["reason"], life)
        elif what == "finished":
            life.finished = True

    def _ended(self, event: Mapping[str, Any], life: _Life) -> str:
        member = event["member"]
        life.in_flight.remove(member)
        if not life.in_flight:
            life.must_end_by = math.inf
        self._close(member)
        return member

    def _close(self, member: str) -> None:
        self._waiting = [each for each in self._waiting if each != member]
        self._suspects = [each for each in self._suspects if each != member]

    def _fail(self, member: str, kind: str, reason: str, life: _Life) -> None:
        self._close(member)
        self._ends.failed(member, kind, reason, self._log_lines(life))

    def _as_json(self, member: str) -> dict[str, Any]:
        task, folder = self._tasks[member]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return {
            "id": member,
            "folder": str(folder),
            "chains": [
                {
                    "sequence": chain.sequence,
                    "msa": None if chain.msa is None else str(chain.msa),
                    "templates": None if chain.templates is None else str(chain.templates),
                }
                for chain in task.chains
            ],
            "template": None if task.template is None else str(task.template),
            "seed": task.seed,
            "parameters": dict(task.parameters),
        }

    def _log_lines(self, life: _Life) -> list[str]:
        """What the driver printed since the members in flight were begun, its end if that is much."""
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(life.log_start, end - _LOG_BYTES))
            return log.read().decode(errors="replace").splitlines()

    def _why_in_vain(self, code: int, life: _Life) -> str:
        lines = [line for line in self._log_lines(life) if line.strip()]
        when = "when nothing was in flight" if life.ready else "while it loaded"
        return (
            f"{_cause(code, life)[1]}, {_STARTS_IN_VAIN} times, {when}; "
            f"its last line: {lines[-1].strip() if lines else 'none'}"
        )


def _cause(code: int, life: _Life) -> tuple[str, str]:
    """Kind and reason of a driver's death."""
    if life.hung is not None:
        return "timeout", f"the engine {life.hung}, and was ended"
    if code == -signal.SIGKILL:
        return "out_of_memory", "the engine was killed, most likely for want of memory"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return "crash", f"the engine died ({how})"


def _lines_of(process: "subprocess.Popen[bytes]") -> "queue.Queue[bytes]":
    """What a process says, line by line, as it comes; an empty one is the end."""
    said: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put(line)
        said.put(b"")

    threading.Thread(target=read, daemon=True).start()
    return said


def _tell(process: "subprocess.Popen[bytes]", message: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    # One that has died already is found out by its silence.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Whatever there is of a driver must be gone: the next one needs its memory."""
    _kill(process)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        # What was written to one that died is lost, and may be.
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
