"""What becomes of a job's command: nothing, a process on this machine, or a container of podman."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.fake_aws import processes
from tests.fake_aws.settings import JobFault, Settings

STOP_SECONDS = 30
_EXITED = "Essential container in task exited"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended, in Batch's words. `final`: Batch does not retry it, whatever the rules say."""

    exit_code: int | None
    reason: str | None
    status_reason: str
    final: bool = False

    @property
    def succeeded(self) -> bool:
        """A job that was stopped has failed, whatever it returned."""
        return self.exit_code == 0 and not self.final


def not_started(reason: str) -> Outcome:
    """The container did not start."""
    return Outcome(exit_code=None, reason=reason, status_reason="Task failed to start")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One attempt, as an engine gets it. Memory in bytes; `limit` in seconds, already scaled."""

    id: str
    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    container: dict[str, Any]
    memory: int
    limit: float | None
    fault: JobFault | None
    log: Callable[[bytes], None]
    running: Callable[[], None]
    ended: Callable[[Outcome], None]
    stop_reason: Callable[[], str]


class Handle(Protocol):
    """An attempt under way."""

    def stop(self) -> None:
        """Asks it to end: SIGTERM, then SIGKILL after 30 s. Returns at once."""


class Engine(Protocol):
    """Runs attempts."""

    def start(self, task: Task) -> Handle:
        """Starts an attempt. Returns at once; the task's callbacks tell what happens."""
        ...


def end_of(verdict: str, exit_code: int | None, task: Task) -> Outcome:
    """The outcome in Batch's words of an attempt that ended because of `verdict`."""
    if verdict == "spot":
        # A machine that goes leaves no exit code behind.
        reason = f"Host EC2 (instance i-{os.urandom(9).hex()[:17]}) terminated."
        return Outcome(exit_code=None, reason=None, status_reason=reason)
    if verdict == "oom":
        return Outcome(
            exit_code=137, reason="OutOfMemoryError: Container killed due to memory usage", status_reason=_EXITED
        )
    if verdict == "timeout":
        return Outcome(
            exit_code=exit_code, reason=None, status_reason="Job attempt duration exceeded timeout", final=True
        )
    if verdict == "stopped":
        return Outcome(exit_code=exit_code, reason=None, status_reason=task.stop_reason(), final=True)
    return Outcome(exit_code=exit_code, reason=None, status_reason=_EXITED)


# ---------------------------------------------------------------- nothing runs
class NullEngine:
    """Jobs that take a set time and do nothing: for measuring whoever submits them."""

    def __init__(
        self,
        settings: Settings,
        call_later: Callable[[float, Callable[[], None]], None],
        put_object: Callable[[str, str, bytes], None],
    ) -> None:
        self._settings, self._call_later, self._put_object = settings, call_later, put_object

    def start(self, task: Task) -> Handle:
        """Plans the end: the first of its own time, its time-out and its fault."""
        ends = [(self._settings.null_seconds, "exited", 0)]
        if task.limit is not None:
            ends.append((task.limit, "timeout", 143))
        if task.fault and task.fault.after_line is None:  # null jobs print nothing
            verdict = task.fault.kind if task.fault.kind in ("spot", "oom") else "exited"
            ends.insert(0, (task.fault.after, verdict, task.fault.exit_code))
        seconds, verdict, exit_code = min(ends, key=lambda end: end[0])
        handle = _NullHandle(task)
        task.running()

        def end() -> None:
            if handle.claim():
                if verdict == "exited" and exit_code == 0:
                    self._write_outputs(task)
                task.ended(end_of(verdict, exit_code, task))

        self._call_later(seconds, end)
        return handle

    def _write_outputs(self, task: Task) -> None:
        text = " ".join(task.command)
        for output in self._settings.null_outputs:
            for match in re.finditer(output.pattern, text):
                self._put_object(output.bucket, match.expand(output.key), output.body.encode())


@dataclass
class _NullHandle:
    task: Task
    _open: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """True for the first caller only: an attempt ends once."""
        with self._lock:
            was, self._open = self._open, False
            return was

    def stop(self) -> None:
        if self.claim():
            self.task.ended(end_of("stopped", 143, self.task))


# ---------------------------------------------------------------- something runs
class _Supervised(ABC):
    """One attempt that is a process here, watched by a thread of its own."""

    POLL_SECONDS = 0.1
    MEMORY_SECONDS = 0.25

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self.settings = task, settings
        self._stop = threading.Event()
        self._printed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"attempt-{task.name}", daemon=True)

    def begin(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to stop the process."""
        self._stop.set()

    @abstractmethod
    def launch(self, scratch: Path) -> subprocess.Popen[bytes] | Outcome:
        """Starts the process, or says why it cannot be."""

    @abstractmethod
    def out_of_memory(self) -> bool:
        """Whether the job has grown over its limit and has been, or must be, killed for it."""

    @abstractmethod
    def terminate(self) -> None:
        """Sends SIGTERM to the job's first process."""

    @abstractmethod
    def kill(self) -> None:
        """Kills all that belongs to the job."""

    def ended_otherwise(self, exit_code: int) -> Outcome | None:
        """What an end that looks like the command's own really was, where that shows only afterwards."""
        return None

    def clean(self) -> None:
        """Removes what the attempt leaves behind."""
        return

    def _run(self) -> None:
        scratch = Path(tempfile.mkdtemp(prefix=f"{self.task.id[:8]}-"))
        try:
            outcome = self._attempt(scratch)
        except Exception as error:  # a fault of this fake, never of the job: it must show in the job, not vanish
            outcome = Outcome(exit_code=None, reason=None, status_reason=f"fault of tests.fake_aws: {error!r}")
        finally:
            self.clean()
            if not self.settings.keep_scratch:
                shutil.rmtree(scratch, ignore_errors=True)
        self.task.ended(outcome)

    def _attempt(self, scratch: Path) -> Outcome:
        process = self.launch(scratch)
        if isinstance(process, Outcome):
            return process
        self.process = process
        self.task.running()
        pump = threading.Thread(target=self._pump, args=(process,), daemon=True)
        pump.start()
        verdict = self._supervise(process)
        exit_code = process.wait()
        if exit_code < 0:
            exit_code = 128 - exit_code
        self.kill()  # the first process is the container: nothing outlives it
        pump.join(timeout=10)
        if verdict == "exited" and (outcome := self.ended_otherwise(exit_code)):
            return outcome
        if verdict == "fault" and self.task.fault:
            verdict, exit_code = "exited", self.task.fault.exit_code
        return end_of(verdict, exit_code, self.task)

    def _supervise(self, process: subprocess.Popen[bytes]) -> str:
        """Waits for the end, brings it about where it must come, and says why it came."""
        fault, started, next_look = self.task.fault, time.monotonic(), 0.0
        while True:
            age = time.monotonic() - started
            if self._stop.is_set():
                self._end_gracefully(process)
                return "stopped"
            if self.task.limit is not None and age >= self.task.limit:
                self._end_gracefully(process)
                return "timeout"
            if fault and self._strikes(fault, age):
                self.kill()
                return fault.kind if fault.kind in ("spot", "oom") else "fault"
            if age >= next_look:
                next_look = age + self.MEMORY_SECONDS
                if self.out_of_memory():
                    self.kill()
                    return "oom"
            try:
                process.wait(self.POLL_SECONDS)
                return "exited"
            except subprocess.TimeoutExpired:
                continue

    def _strikes(self, fault: JobFault, age: float) -> bool:
        return age >= fault.after if fault.after_line is None else self._printed.is_set()

    def _end_gracefully(self, process: subprocess.Popen[bytes]) -> None:
        self.terminate()
        try:
            process.wait(STOP_SECONDS * self.settings.time_scale)
        except subprocess.TimeoutExpired:
            self.kill()

    def _pump(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := os.read(process.stdout.fileno(), 1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                self.task.log(b"\n".join(lines))
                self._notice(lines)
        if rest:
            self.task.log(rest)

    def _notice(self, lines: list[bytes]) -> None:
        fault = self.task.fault
        if fault and fault.after_line and any(fault.after_line.encode() in line for line in lines):
            self._printed.set()


class ProcessEngine:
    """Runs the command as a process here, with the image's and the job's environment and nothing else.

    The image is a name for an environment. Mounts work only where both paths are equal, since there is no file system
    of its own. The memory limit is held by looking at the processes four times a second.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self, task: Task) -> Handle:
        """Starts the process."""
        attempt = _ProcessAttempt(task, self._settings)
        attempt.begin()
        return attempt


class _ProcessAttempt(_Supervised):
    def launch(self, scratch: Path) -> subprocess.Popen[bytes] | Outcome:
        task = self.task
        image = self.settings.images.get(task.image, self.settings.images.get("*"))
        if image is None:
            return not_started(
                f"CannotPullContainerError: pull image manifest has been retried 1 time(s): {task.image} not found"
            )
        for source, target, _ in mounts(task.container):
            if source != target:
                return not_started(f"CannotStartContainerError: the process engine cannot mount {source} at {target}")
        home = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch), "LANG": "C.UTF-8"}
        try:
            return subprocess.Popen(
                task.command,
                cwd=scratch,
                env={**home, **image, **task.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, IndexError) as error:
            return not_started(f"CannotStartContainerError: Error response from daemon: failed to create task: {error}")

    def out_of_memory(self) -> bool:
        found = processes.family(self.process.pid)
        if sum(process.memory for process in found) <= self.task.memory:
            return False
        if self.settings.oom_kills == "container":
            return True
        # The kernel takes the largest process only. Its parent sees a child killed by signal 9 and goes on.
        processes.kill([max(found, key=lambda process: process.memory)])
        return False

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        processes.kill_family(self.process.pid)


class PodmanEngine:
    """Runs the command in a container of podman, in the host's network, from an image that is here already."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self, task: Task) -> Handle:
        """Starts the container."""
        attempt = _PodmanAttempt(task, self._settings)
        attempt.begin()
        return attempt


class _PodmanAttempt(_Supervised):
    def _podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=_podman_environment(self.settings),
        )

    @property
    def container(self) -> str:
        return f"fake-aws-{self.task.id}"

    def launch(self, scratch: Path) -> subprocess.Popen[bytes] | Outcome:
        task = self.task
        image = self.settings.podman_images.get(task.image, task.image)
        if self._podman("image", "exists", image).returncode:
            return not_started(f"CannotPullContainerError: Error response from daemon: {image} does not exist here")
        # ECS passes over the health check of an image, too.
        argv = ["podman", "run", "--name", self.container, "--network=host", "--pull=never", "--no-healthcheck"]
        argv += [f"--memory={task.memory}b", f"--memory-swap={task.memory}b"]
        if shared := task.container.get("linuxParameters", {}).get("sharedMemorySize"):
            argv.append(f"--shm-size={shared}m")
        if task.container.get("privileged"):
            argv.append("--privileged")
        for source, target, read_only in mounts(task.container):
            argv += ["--volume", f"{source}:{target}" + (":ro" if read_only else "")]
        for name, value in task.environment.items():
            argv += ["--env", f"{name}={value}"]
        argv += [image, *task.command]
        try:
            return subprocess.Popen(
                argv,
                cwd=scratch,
                env=_podman_environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return not_started(f"CannotStartContainerError: Error response from daemon: {error}")

    def out_of_memory(self) -> bool:
        # Where podman cannot limit memory (no cgroup to write to), this look is the limit.
        state = self._podman("inspect", "--format", "{{.State.Pid}}", self.container).stdout.strip()
        if not state.isdigit() or state == "0":
            return False
        return sum(process.memory for process in processes.family(int(state))) > self.task.memory

    def terminate(self) -> None:
        self._podman("kill", "--signal", "TERM", self.container)

    def kill(self) -> None:
        self._podman("kill", "--signal", "KILL", self.container)

    def ended_otherwise(self, exit_code: int) -> Outcome | None:
        if exit_code == 137:
            # Nobody else kills in there. podman's own OOMKilled stays false with cgroups of version 1.
            return end_of("oom", 137, self.task)
        # podman's own failures share their exit codes with those of a shell.
        if exit_code in (125, 126, 127):
            state = self._podman("inspect", "--format", "{{.State.StartedAt.IsZero}}", self.container).stdout.strip()
            if state != "false":
                return not_started(f"CannotStartContainerError: Error response from daemon: podman exits {exit_code}")
        return None

    def clean(self) -> None:
        self._podman("rm", "--force", "--time", "0", self.container)


def mounts(container: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(path of the host, path in the container, read-only) of a job's mounts."""
    hosts = {volume["name"]: volume.get("host", {}).get("sourcePath", "") for volume in container.get("volumes", [])}
    return [
        (hosts[mount["sourceVolume"]], mount["containerPath"], bool(mount.get("readOnly")))
        for mount in container.get("mountPoints", [])
    ]


def _podman_environment(settings: Settings) -> dict[str, str]:
    kept = ("PATH", "HOME", "XDG_RUNTIME_DIR", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "STORAGE_OPTS", "TMPDIR")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **settings.podman_environment}
