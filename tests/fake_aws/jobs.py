"""One Batch job: what was asked for, what became of it, and how DescribeJobs and ListJobs show it."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.fake_aws.engines import Handle, Outcome

WAITING = ("SUBMITTED", "PENDING", "RUNNABLE")
TERMINAL = ("SUCCEEDED", "FAILED")
STATUSES = (*WAITING, "STARTING", "RUNNING", *TERMINAL)


def milliseconds(seconds: float) -> int:
    """Batch gives times in milliseconds since 1970."""
    return int(seconds * 1000)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """The parts of a job definition that a job needs."""

    arn: str
    name: str
    container: dict[str, Any]
    parameters: dict[str, str]
    retry_strategy: dict[str, Any]
    timeout: dict[str, int]
    propagate_tags: bool
    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A job queue, as a job refers to it."""

    arn: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What an attempt takes from its queue. Memory in MiB."""

    vcpus: int
    memory: int
    gpus: int


@dataclass(kw_only=True)
class Job:
    """A job from its submission on. Whoever changes one holds the scheduler's lock."""

    region: str
    account: str
    request: dict[str, Any]
    definition: Definition
    queue: Queue
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: float = field(default_factory=time.time)
    status: str = "SUBMITTED"
    status_reason: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    started: float | None = None
    stopped: float | None = None
    log_stream: str | None = None
    task_arn: str | None = None
    instance_arn: str | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str | None = None
    cancelled: bool = False
    handle: Handle | None = None
    requirements: Requirements = field(init=False)
    container: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        overrides = self.request.get("containerOverrides") or {}
        base = self.definition.container
        needs = {r["type"]: r["value"] for r in base.get("resourceRequirements", [])}
        needs |= {r["type"]: r["value"] for r in overrides.get("resourceRequirements", [])}
        # The fields of definitions from before 2020, which moto and Batch still take.
        vcpus, memory = needs.get("VCPU", base.get("vcpus", 1)), needs.get("MEMORY", base.get("memory", 512))
        self.requirements = Requirements(vcpus=int(float(vcpus)), memory=int(memory), gpus=int(needs.get("GPU", 0)))
        environment = {e["name"]: e["value"] for e in base.get("environment", [])}
        environment |= {e["name"]: e["value"] for e in overrides.get("environment", [])}
        command = overrides.get("command") or base.get("command", [])
        self.container = {
            **{name: value for name, value in base.items() if value not in (None, [], {})},
            "command": [self._with_parameters(part) for part in command],
            "environment": [{"name": name, "value": value} for name, value in environment.items()],
            "resourceRequirements": [{"type": kind, "value": str(value)} for kind, value in needs.items()],
        }

    @property
    def name(self) -> str:
        """The name given at submission."""
        return self.request["jobName"]

    @property
    def arn(self) -> str:
        """The job's ARN."""
        return f"arn:aws:batch:{self.region}:{self.account}:job/{self.id}"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in TERMINAL

    @property
    def retry_strategy(self) -> dict[str, Any]:
        """The job's own strategy, else the definition's."""
        return self.request.get("retryStrategy") or self.definition.retry_strategy

    @property
    def timeout(self) -> dict[str, int]:
        """The job's own time-out, else the definition's."""
        return self.request.get("timeout") or self.definition.timeout

    @property
    def environment(self) -> dict[str, str]:
        """The environment that definition and overrides give."""
        return {entry["name"]: entry["value"] for entry in self.container["environment"]}

    @property
    def tags(self) -> dict[str, str]:
        """The job's tags, with the definition's where they propagate."""
        inherited = self.definition.tags if self.definition.propagate_tags else {}
        return {**inherited, **(self.request.get("tags") or {})}

    def new_attempt(self) -> int:
        """Begins an attempt and returns its number, from 1."""
        self.exit_code = self.reason = self.status_reason = self.started = self.log_stream = None
        task = os.urandom(16).hex()
        cluster = f"arn:aws:ecs:{self.region}:{self.account}"
        self.task_arn = f"{cluster}:task/{self.queue.name}_Batch/{task}"
        # Lets DescribeContainerInstances find the queue, hence the machine, without a table.
        self.instance_arn = f"{cluster}:container-instance/{self.queue.name}_Batch/{task[::-1]}"
        return len(self.attempts) + 1

    def end_attempt(self, outcome: Outcome) -> None:
        """Writes down how the attempt ended."""
        container: dict[str, Any] = {
            "taskArn": self.task_arn,
            "containerInstanceArn": self.instance_arn,
            "networkInterfaces": [],
        }
        if self.log_stream:
            container["logStreamName"] = self.log_stream
        if outcome.exit_code is not None:
            container["exitCode"] = outcome.exit_code
        if outcome.reason:
            container["reason"] = outcome.reason
        attempt = {
            "container": container,
            "stoppedAt": milliseconds(time.time()),
            "statusReason": outcome.status_reason,
        }
        if self.started:
            attempt["startedAt"] = milliseconds(self.started)
        self.attempts.append(attempt)
        self.exit_code, self.reason, self.status_reason = outcome.exit_code, outcome.reason, outcome.status_reason

    def end(self, status: str, reason: str | None) -> None:
        """The job's last state."""
        self.status, self.status_reason, self.stopped, self.handle = status, reason, time.time(), None

    def summary(self) -> dict[str, Any]:
        """As ListJobs shows it."""
        shown: dict[str, Any] = {
            "jobArn": self.arn,
            "jobId": self.id,
            "jobName": self.name,
            "createdAt": milliseconds(self.created),
            "status": self.status,
            "jobDefinition": self.definition.arn,
        }
        if self.status_reason:
            shown["statusReason"] = self.status_reason
        if self.started:
            shown["startedAt"] = milliseconds(self.started)
        if self.stopped:
            shown["stoppedAt"] = milliseconds(self.stopped)
        container: dict[str, Any] = {}
        if self.exit_code is not None:
            container["exitCode"] = self.exit_code
        if self.reason:
            container["reason"] = self.reason
        if container:
            shown["container"] = container
        return shown

    def description(self) -> dict[str, Any]:
        """As DescribeJobs shows it."""
        shown = self.summary()
        ids = {
            "logStreamName": self.log_stream,
            "taskArn": self.task_arn,
            "containerInstanceArn": self.instance_arn,
        }
        container = {**self.container, **shown.get("container", {}), "networkInterfaces": []}
        container |= {name: value for name, value in ids.items() if value}
        shown |= {
            "jobQueue": self.queue.arn,
            "container": container,
            "attempts": list(self.attempts),
            "retryStrategy": self.retry_strategy or {"attempts": 1, "evaluateOnExit": []},
            "dependsOn": [],
            "parameters": {**self.definition.parameters, **(self.request.get("parameters") or {})},
            "tags": self.tags,
            "propagateTags": self.definition.propagate_tags,
            "platformCapabilities": ["EC2"],
            "isCancelled": self.cancelled,
            "isTerminated": self.stop_reason is not None and not self.cancelled,
        }
        if self.timeout:
            shown["timeout"] = self.timeout
        if share := self.request.get("shareIdentifier"):
            shown["shareIdentifier"] = share
        return shown

    def _with_parameters(self, part: str) -> str:
        for name, value in {**self.definition.parameters, **(self.request.get("parameters") or {})}.items():
            part = part.replace(f"Ref::{name}", value)
        return part
