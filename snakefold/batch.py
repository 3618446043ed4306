"""Works through the members of one batch: the store first, then the computation, then the receipt.

A result is stored the moment it exists. Whatever ends the process loses at most the members in flight: the next
attempt finds the rest in the store. The receipt is the only output that Snakemake tracks.
"""

import contextlib
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from snakefold.engines.base import FoldTask
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.gpus import own_gpu
from snakefold.engines.supervisor import Finished, Supervisor
from snakefold.errors import MemberError, SnakefoldError, Terminated
from snakefold.files import read_json, sha256_of_file, write_json
from snakefold.outcome import Outcome, Status
from snakefold.progress import Progress
from snakefold.store import Action, Record, Store

WORTH_ANOTHER_ATTEMPT = frozenset({"out_of_memory", "crash", "timeout"})
"""Failures that an attempt with more memory and time may cure."""

USABLE = 0.9
"""The part of a job's time limit after which members are given up: the rest is for ending in order."""

LOG_LINES = 20
"""Lines of a failed member's own output that its receipt keeps."""


@dataclass(frozen=True, kw_only=True)
class MemberReceipt:
    """How one member ended, and where its files are: what the next step and `score` need to know.

    `step` is the step in which the member ended: for a failure that was handed on, the step that failed. `inputs` are
    the digests of what its result was computed from, by the names that its action gives them, `version` is that of the
    step and its packages, and `databases` (name, version, licence, digest) are those behind the result.
    """

    step: str
    status: Status
    kind: str | None = None
    reason: str | None = None
    key: str | None = None
    version: str = ""
    databases: Sequence[Mapping[str, str]] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[str] = ()

    def handed_on(self) -> "MemberReceipt":
        """The same end, as the next step's receipt states it: nothing was computed there."""
        return MemberReceipt(step=self.step, status=self.status, kind=self.kind, reason=self.reason, log=self.log)


def read_receipt(path: Path) -> dict[str, MemberReceipt]:
    """The members of a receipt."""
    return parse_receipt(read_json(path))


def parse_receipt(content: Mapping[str, Any]) -> dict[str, MemberReceipt]:
    """The members of a receipt that has been read."""
    return {name: MemberReceipt(**member) for name, member in content["members"].items()}


def databases_behind(members: Iterable[MemberReceipt]) -> list[Mapping[str, str]]:
    """The databases behind these results, each once, by name."""
    found = {each["name"]: each for member in members for each in member.databases}
    return [found[name] for name in sorted(found)]


def fetch_files(store: Store, member: MemberReceipt, folder: Path) -> Path:
    """Bring a member's files from the store into `folder`; returns the folder."""
    for name, digest in member.files.items():
        store.fetch(digest, folder / name)
    return folder


class BatchRun:
    """The state of one batch job. Use as a context manager: it owns the scratch folder.

    Members that need no computation are `hand_on`-ed or found by `find_stored`; the others end in `keep` or `fail`;
    `write_receipt` closes the batch and refuses to leave a member out.
    """

    def __init__(
        self,
        step: str,
        batch: str,
        members: Sequence[str],
        store: Store,
        *,
        engine: str | None = None,
        databases: Mapping[str, Sequence[Mapping[str, str]]],
        reuse: bool,
        progress: Progress,
        attempts_left: int = 0,
        minutes: float | None = None,
    ) -> None:
        self.step = step
        self.engine = engine
        self.databases = databases
        self.batch = batch
        self.store = store
        self.reuse = reuse
        self.progress = progress
        self._attempts_left = attempts_left
        self.deadline = None if minutes is None else time.monotonic() + minutes * 60 * USABLE
        self._order = tuple(members)
        self._ended: dict[str, MemberReceipt] = {}
        self._twins: dict[str, list[str]] = defaultdict(list)
        self._computed = 0

    def __enter__(self) -> "BatchRun":
        self.scratch = Path(tempfile.mkdtemp(prefix=f"snakefold-{self.step}-"))
        # Batch systems announce the end with SIGTERM: leave as for Ctrl-C, so that workers and scratch go too.
        signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def hand_on(self, member: str, former: MemberReceipt) -> None:
        """End a member as the step before ended it."""
        self._end(member, former.handed_on(), f"{former.status} in {former.step}")

    def skip(self, member: str, kind: str, reason: str) -> None:
        """End a member to which this step does not apply."""
        skipped = MemberReceipt(step=self.step, status="skipped", kind=kind, reason=reason)
        self._end(member, skipped, f"skipped: {reason}")

    def find_stored(self, actions: Mapping[str, Action]) -> dict[str, Action]:
        """Take from the store what is there; return the members that must be computed.

        Of members with the same action, such as equal targets of two names, the first stands for all.
        """
        missing: dict[str, Action] = {}
        first: dict[str, str] = {}
        records = self.store.lookup_many(action.key for action in actions.values()) if self.reuse else {}
        for member, action in actions.items():
            record = records.get(action.key)
            if record is not None:
                self._note(member, action, record, "from the store")
            elif action.key in first:
                self._twins[first[action.key]].append(member)
            else:
                first[action.key] = member
                missing[member] = action
        return missing

    def keep(
        self,
        member: str,
        action: Action,
        folder: Path,
        outcome: Outcome,
        seconds: float,
        memory: float,
        *,
        hardware: str | None = None,
        gpu_memory: float | None = None,
    ) -> None:
        """Store the files of `folder` as the result of a member; memory in MB."""
        files = {
            path.relative_to(folder).as_posix(): sha256_of_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        record = Record(
            step=self.step,
            outcome=outcome,
            files=files,
            seconds=round(seconds, 3),
            peak_memory_mb=round(memory, 1),
            hardware=hardware or platform.machine(),
            gpu_memory_mb=None if gpu_memory is None else round(gpu_memory, 1),
        )
        self.store.commit(action.key, record, folder)
        self._computed += 1
        self._note(member, action, record, f"{seconds:.1f} s")
        for twin in self._twins[member]:
            self._note(twin, action, record, f"the same as {member}")
        shutil.rmtree(folder, ignore_errors=True)

    def fail(self, member: str, kind: str, reason: str, log: Sequence[str] = ()) -> None:
        """End a member as failed; the others go on."""
        failed = MemberReceipt(step=self.step, status="failed", kind=kind, reason=reason, log=tuple(log)[-LOG_LINES:])
        self._computed += 1
        for each in (member, *self._twins[member]):
            self._end(each, failed, f"FAILED ({kind}): {reason}")

    def _note(self, member: str, action: Action, record: Record, how: str) -> None:
        outcome = record.outcome
        receipt = MemberReceipt(
            step=self.step,
            status=outcome.status,
            kind=outcome.kind,
            reason=outcome.reason,
            key=action.key,
            version=action.version,
            databases=self.databases.get(member, ()),
            inputs=action.inputs,
            files=record.files,
            facts=outcome.facts,
        )
        self._end(member, receipt, f"{outcome.status}, {how}" + (f": {outcome.reason}" if outcome.reason else ""))

    def _end(self, member: str, receipt: MemberReceipt, text: str) -> None:
        self._ended[member] = receipt
        self.progress.advance(f"{member} {text}")

    def write_receipt(self, path: Path) -> None:
        """Write the receipt. Times differ between runs and so stay out of it: they are in the store's records.

        Raises SnakefoldError instead if members ran out of memory or time and the job has another attempt, with more
        of it: that attempt takes the finished members from the store.
        """
        if left_out := [member for member in self._order if member not in self._ended]:
            raise SnakefoldError(f"{self.step} {self.batch}: no outcome for {', '.join(left_out)}; please report this")
        starved = [name for name, end in self._ended.items() if end.kind in WORTH_ANOTHER_ATTEMPT]
        if starved and self._attempts_left:
            late = all(self._ended[name].kind == "timeout" for name in starved)
            raise SnakefoldError(
                f"{self.step} {self.batch}: out of {'time' if late else 'memory'}: {', '.join(starved)}; the others "
                "are in the store, the next attempt has more memory and time"
            )
        write_json(
            path,
            {
                "step": self.step,
                "engine": self.engine,
                "batch": self.batch,
                "members": {member: asdict(self._ended[member]) for member in self._order},
            },
        )
        self.progress.finish(f"{self._computed} computed, {len(self._order) - self._computed} not")


def run_in_processes(
    run: BatchRun, actions: Mapping[str, Action], calls: Mapping[str, Callable[[Path], Outcome]], *, workers: int
) -> None:
    """Compute members in warm processes of one thread each; keep or fail each in `run`.

    `calls[member]` must be picklable; it gets an empty folder and leaves its files there. A call that raises fails
    its member alone. So does one that takes its process with it (out of memory, crash): the pool starts another.
    """
    if not actions:
        return
    # One thread for every numerical library: parallelism is over members, and results must not depend on cores.
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    os.environ.update(single | {"OPENMM_CPU_THREADS": "1"})
    # spawn: libraries that have started threads of their own do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPool(max_workers=min(workers, len(actions)), context=context) as pool:
        futures = {}
        for member in actions:
            folder = run.scratch / "members" / member
            folder.mkdir(parents=True)
            futures[pool.schedule(_call, args=[calls[member], folder, run.scratch / f"{member}.log"])] = member
        settled: set[str] = set()
        left = None if run.deadline is None else max(0.0, run.deadline - time.monotonic())
        try:
            for future in as_completed(futures, timeout=left):
                member = futures[future]
                settled.add(member)
                _settle(run, member, actions[member], future, run.scratch / "members" / member)
        except TimeoutError:
            pool.stop()
            pool.join()
            for member in actions:
                if member not in settled:
                    run.fail(member, "timeout", "not finished when the time limit of its job was near")
        except BaseException:
            pool.stop()
            pool.join()
            raise


def run_in_driver(
    run: BatchRun,
    actions: Mapping[str, Action],
    tasks: Mapping[str, FoldTask],
    engine: DrivenEngine,
    weights: Path | None,
) -> None:
    """Compute members in one warm process of the engine's own; keep or fail each in `run`.

    Raises SnakefoldError if the engine cannot be started: that is no fault of a member's.
    """
    if not actions:
        return
    made = run.scratch / "made"
    parameters = next(iter(tasks.values())).parameters
    needed = max(engine.gpu_memory_mb(task.residues) for task in tasks.values())
    asked = time.monotonic()
    with own_gpu(needed, run.progress.note) as gpu:
        waited = time.monotonic() - asked
        Supervisor(
            engine.command(weights, parameters, run.scratch / "cache"),
            {member: (task, made / member) for member, task in tasks.items()},
            ends=_Members(run, actions, tasks, engine, made),
            scratch=run.scratch,
            limit=engine.limit,
            gpu=gpu,
            deadline=None if run.deadline is None else run.deadline + waited,
            say=run.progress.note,
        ).run()


@dataclass(frozen=True)
class _Members:
    """Takes in what a driver makes."""

    run: BatchRun
    actions: Mapping[str, Action]
    tasks: Mapping[str, FoldTask]
    engine: DrivenEngine
    made: Path

    def done(self, member: str, finished: Finished) -> None:
        folder = self.run.scratch / "members" / member
        folder.mkdir(parents=True)
        try:
            outcome = self.engine.take_in(self.tasks[member], self.made / member, folder)
        except MemberError as error:
            self.run.fail(member, error.kind, str(error))
            return
        finally:
            shutil.rmtree(self.made / member, ignore_errors=True)
        self.run.keep(
            member,
            self.actions[member],
            folder,
            outcome,
            finished.seconds,
            finished.memory_mb,
            hardware=finished.device,
            gpu_memory=finished.gpu_memory_mb,
        )

    def failed(self, member: str, kind: str, reason: str, log: Sequence[str]) -> None:
        self.run.fail(member, kind, reason, log)


def _settle(run: BatchRun, member: str, action: Action, future: Future[Any], folder: Path) -> None:
    log_path = run.scratch / f"{member}.log"

    def log() -> list[str]:
        return log_path.read_text(errors="replace").splitlines() if log_path.exists() else []

    try:
        result: _Result = future.result()
    except ProcessExpired as error:
        killed = error.exitcode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        kind, what = ("out_of_memory", "was killed, most likely for want of memory") if killed else ("crash", "died")
        run.fail(member, kind, f"the process {what} (exit code {error.exitcode})", log())
    else:
        if isinstance(result, _Failure):
            run.fail(member, result.kind, result.reason, log())
        else:
            run.keep(member, action, folder, result.outcome, result.seconds, result.peak_memory_mb)


@dataclass(frozen=True, kw_only=True)
class _Success:
    outcome: Outcome
    seconds: float
    peak_memory_mb: float


@dataclass(frozen=True, kw_only=True)
class _Failure:
    kind: str
    reason: str


_Result = _Success | _Failure


def _call(call: Callable[[Path], Outcome], folder: Path, log: Path) -> _Result:
    """Run one member in a worker; what it prints goes to `log`. Peak memory is that of the process so far.

    Errors come back as text: an exception of some library may not survive pickling, and would break the whole pool.
    """
    started = time.monotonic()
    with _output_to(log):
        try:
            outcome = call(folder)
        except MemberError as error:
            return _Failure(kind=error.kind, reason=str(error))
        except SnakefoldError as error:
            return _Failure(kind="error", reason=str(error))
        except MemoryError:
            return _Failure(kind="out_of_memory", reason="not enough memory")
        except Exception as error:
            traceback.print_exc()
            return _Failure(kind="error", reason=f"{type(error).__name__}: {error}")
    return _Success(outcome=outcome, seconds=time.monotonic() - started, peak_memory_mb=peak_memory_mb())


def peak_memory_mb() -> float:
    """Peak memory of this process so far, MB."""
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024 / 1e6


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send standard output and error to a file, those of C libraries included."""
    saved = os.dup(1), os.dup(2)
    with log.open("wb") as handle:
        try:
            os.dup2(handle.fileno(), 1)
            os.dup2(handle.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)


def _interrupt(*_: object) -> None:
    raise Terminated
