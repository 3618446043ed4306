"""What a caller can set: how jobs run, which limits hold, what goes wrong and when."""

from __future__ import annotations

import fnmatch
import random
import threading
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tests.fake_aws.calls import Call


class NullOutput(BaseModel):
    """An object that the null engine writes when a job succeeds, so that its caller finds the output it waits for.

    For each match of `pattern` in the job's command (joined by spaces), `key` is expanded with the groups (`\\1`).
    """

    model_config = ConfigDict(extra="forbid")

    pattern: str
    bucket: str
    key: str
    body: str = ""


class Settings(BaseModel):
    """How the fake behaves. All of it can be changed while it runs."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    engine: Literal["process", "podman", "null"] = "process"
    slots: int | None = Field(4, description="attempts that may run at once on this machine; None: no bound")
    null_seconds: float = Field(0.0, ge=0, description="how long a job of the null engine runs")
    null_outputs: list[NullOutput] = Field(default_factory=list)
    time_scale: float = Field(1.0, gt=0, description="factor on the service's own times: time-outs, the 30 s to stop")
    runnable_seconds: float = Field(0.0, ge=0, description="least time in RUNNABLE, as if machines had to start")
    starting_seconds: float = Field(0.0, ge=0, description="time in STARTING, as if images had to be pulled")
    oom_kills: Literal["container", "largest"] = "container"
    images: dict[str, dict[str, str]] = Field(
        default_factory=lambda: {"*": {}},
        description="process engine: image reference (or *) -> environment that the image would bring",
    )
    podman_images: dict[str, str] = Field(default_factory=dict, description="image reference -> name of a local image")
    podman_environment: dict[str, str] = Field(
        default_factory=dict, description="variables for podman itself, such as CONTAINERS_CONF"
    )
    rates: dict[str, float] = Field(default_factory=dict, description="operation -> calls a second, then 429")
    compute_environments: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="name -> fields laid over what DescribeComputeEnvironments says"
    )
    job_queues: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="name -> fields laid over what DescribeJobQueues says"
    )
    keep_scratch: bool = False


class JobFault(BaseModel):
    """Something that goes wrong with jobs.

    kinds: `spot` (the machine is taken `after` seconds), `oom` (killed for memory), `exit` (ends with `exit_code`),
    `pull` and `start` (the container never starts), `refuse` (SubmitJob answers ClientException), and, for as long as
    the fault is set, `stuck` (stays RUNNABLE) and `vanished` (DescribeJobs and ListJobs know nothing of it).
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["spot", "oom", "exit", "pull", "start", "refuse", "stuck", "vanished"]
    match: str = "*"
    queue: str = "*"
    attempt: int | None = None
    times: int | None = 1
    after: float = 0.0
    after_line: str | None = Field(default=None, description="strikes when the job has printed a line with this")
    exit_code: int = 1
    reason: str | None = None


class ServiceFault(BaseModel):
    """Something that goes wrong with calls.

    kinds: `slow_down` (503 of S3, 429 elsewhere), `internal_error` (500), `access_denied`, `expired_token` (of one
    `access_key`, or of all), `cut_request` (connection closed, nothing done), `cut_reply` (done, but the connection
    closes before the answer, of GetObject in the middle of it).
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["slow_down", "internal_error", "access_denied", "expired_token", "cut_request", "cut_reply"]
    service: str = "*"
    operation: str = "*"
    key: str = "*"
    access_key: str = "*"
    share: float = Field(default=1.0, ge=0, le=1)
    times: int | None = None
    seconds: float | None = None


def parse_fault(fault: dict[str, Any]) -> JobFault | ServiceFault:
    """A fault from its JSON form; the kind says which it is."""
    job_kinds = {"spot", "oom", "exit", "pull", "start", "refuse", "stuck", "vanished"}
    return JobFault(**fault) if fault.get("kind") in job_kinds else ServiceFault(**fault)


class Faults:
    """The faults in force, and how often each may still strike."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[JobFault] = []
        self._services: list[tuple[ServiceFault, float]] = []
        self._random = random.Random(0)

    def set(self, faults: list[JobFault | ServiceFault]) -> None:
        """Replaces all faults by these."""
        now = time.monotonic()
        with self._lock:
            self._jobs = [fault.model_copy() for fault in faults if isinstance(fault, JobFault)]
            self._services = [(fault.model_copy(), now) for fault in faults if isinstance(fault, ServiceFault)]
            self._random.seed(0)

    def for_attempt(self, name: str, queue: str, attempt: int) -> JobFault | None:
        """The fault that strikes this attempt, now used up once."""
        return self._take(("spot", "oom", "exit", "pull", "start"), name, queue, attempt)

    def for_submission(self, name: str, queue: str) -> JobFault | None:
        """The fault that makes SubmitJob refuse this job."""
        return self._take(("refuse",), name, queue, None)

    def lasting(self, kind: Literal["stuck", "vanished"], name: str, queue: str) -> bool:
        """Whether a job suffers from a fault that lasts for as long as it is set."""
        if not self._jobs:
            return False
        with self._lock:
            return any(fault.kind == kind and _meets(fault, name, queue) for fault in self._jobs)

    def for_call(self, call: Call) -> ServiceFault | None:
        """The fault that strikes this call."""
        if not self._services:
            return None
        now = time.monotonic()
        with self._lock:
            for fault, since in self._services:
                if (
                    (fault.times is None or fault.times > 0)
                    and (fault.seconds is None or now - since < fault.seconds)
                    and fnmatch.fnmatchcase(call.service, fault.service)
                    and fnmatch.fnmatchcase(call.operation, fault.operation)
                    and fnmatch.fnmatchcase(call.key, fault.key)
                    and fnmatch.fnmatchcase(call.access_key, fault.access_key)
                    and (fault.share >= 1 or self._random.random() < fault.share)
                ):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def _take(self, kinds: tuple[str, ...], name: str, queue: str, attempt: int | None) -> JobFault | None:
        with self._lock:
            for fault in self._jobs:
                if fault.kind not in kinds or not _meets(fault, name, queue):
                    continue
                if fault.attempt not in (None, attempt) or fault.times == 0:
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


def _meets(fault: JobFault, name: str, queue: str) -> bool:
    return fnmatch.fnmatchcase(name, fault.match) and fnmatch.fnmatchcase(queue, fault.queue)
