"""Job definitions: one for each distinct (image, mounts, roles, shared memory, log group), found again by content."""

import hashlib
import json
import threading
from dataclasses import dataclass
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws
from snakemake_executor_plugin_aws_batch_fleet.fleet import DEFAULT_LOG_GROUP, parse_mount


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """What tells one job definition from another."""

    image: str
    mounts: tuple[str, ...] = ()
    job_role_arn: str | None = None
    execution_role_arn: str | None = None
    shm_mib: int = 0
    log_group: str = DEFAULT_LOG_GROUP
    attempts: int = 3


def retry_strategy(attempts: int) -> dict[str, Any]:
    """What AWS Batch itself tries again: only what is no fault of the job."""
    return {
        "attempts": attempts,
        "evaluateOnExit": [
            {"onStatusReason": "Host EC2*", "action": "RETRY"},
            {"onReason": "CannotPullContainerError:*", "action": "RETRY"},
            {"onReason": "CannotInspectContainerError:*", "action": "RETRY"},
            # Needed: AWS Batch retries whatever no rule matches.
            {"onReason": "*", "action": "EXIT"},
            {"onExitCode": "*", "action": "EXIT"},
        ],
    }


def definition_body(spec: ContainerSpec) -> dict[str, Any]:
    """The arguments of RegisterJobDefinition, without name and tags. Never privileged."""
    container: dict[str, Any] = {
        "image": spec.image,
        # Command, vCPU, memory and GPUs come with each job.
        "command": ["true"],
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}],
        "privileged": False,
    }
    if spec.job_role_arn:
        container["jobRoleArn"] = spec.job_role_arn
    if spec.execution_role_arn:
        container["executionRoleArn"] = spec.execution_role_arn
    if spec.mounts:
        parsed = [parse_mount(mount) for mount in spec.mounts]
        container["volumes"] = [
            {"name": f"mount{index}", "host": {"sourcePath": host}} for index, (host, _, _) in enumerate(parsed)
        ]
        container["mountPoints"] = [
            {"sourceVolume": f"mount{index}", "containerPath": path, "readOnly": read_only}
            for index, (_, path, read_only) in enumerate(parsed)
        ]
    if spec.shm_mib:
        container["linuxParameters"] = {"sharedMemorySize": spec.shm_mib}
    if spec.log_group != DEFAULT_LOG_GROUP:
        container["logConfiguration"] = {"logDriver": "awslogs", "options": {"awslogs-group": spec.log_group}}
    return {
        "type": "container",
        "platformCapabilities": ["EC2"],
        "containerProperties": container,
        "retryStrategy": retry_strategy(spec.attempts),
    }


def definition_name(body: dict[str, Any]) -> str:
    """A name that says what the definition holds."""
    return "snakemake-" + hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:24]


class Definitions:
    """Looks definitions up, and registers those that are missing. Safe to use from several threads."""

    def __init__(self, aws: Aws, tags: dict[str, str]) -> None:
        self._aws = aws
        self._tags = tags
        self._arns: dict[str, str] = {}
        self._lock = threading.Lock()

    def arn(self, spec: ContainerSpec) -> str:
        """The ARN of the definition of a container."""
        body = definition_body(spec)
        name = definition_name(body)
        # One lock for all: threads that need the same definition at once must not register it twice.
        with self._lock:
            if name not in self._arns:
                self._arns[name] = self._find(name) or self._register(name, body)
            return self._arns[name]

    def _find(self, name: str) -> str | None:
        answer = self._aws.batch.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")
        found = sorted(answer["jobDefinitions"], key=lambda definition: definition["revision"])
        return found[-1]["jobDefinitionArn"] if found else None

    def _register(self, name: str, body: dict[str, Any]) -> str:
        answer = self._aws.batch.register_job_definition(jobDefinitionName=name, tags=self._tags, **body)
        return answer["jobDefinitionArn"]
