"""What is sent to SubmitJob."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.definitions import ContainerSpec
from snakemake_executor_plugin_aws_batch_fleet.demand import Demand
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet, Queue
from snakemake_executor_plugin_aws_batch_fleet.identity import JobName

MOST_OVERRIDES = 7000
"""Characters of JSON that we send as overrides.

ECS takes 8,192, to which AWS Batch adds variables of its own; it accepts more and fails the job afterwards.
"""
SHORTEST_TIMEOUT = 60
"""Seconds; AWS Batch takes no shorter time-out."""

_SECRET_NAME = re.compile(
    r"(^AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|SECURITY_TOKEN)$)"
    r"|((SECRET_?ACCESS_?KEY|SECRET_?KEY|ACCESS_?KEY(_?ID)?|SESSION_?TOKEN)$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])")
_SECRET_OPTION = re.compile(r"--storage-[a-z0-9-]*(access-key|secret-key|token)\b")

# The image has Python and boto3 (its storage plugin needs them), but perhaps no AWS command line. `exec` leaves the
# fetched command as the container's first process, which gets SIGTERM when AWS Batch ends the job.
_BOOTSTRAP = """
import boto3, hashlib, os, sys
bucket, key, digest = sys.argv[1:]
script = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
if hashlib.sha256(script).hexdigest() != digest:
    sys.exit("the command s3://%s/%s is not the one that was uploaded" % (bucket, key))
os.execvp("/bin/bash", ["/bin/bash", "-c", script.decode()])
""".strip()


class CredentialsInRequestError(ValueError):
    """A request would show credentials to everyone who may describe jobs."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job on its way to AWS Batch. Another queue for it needs nothing but another `queue`."""

    name: JobName
    demand: Demand
    container: ContainerSpec
    command: str
    environment: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str], ...]


def image_reference(name: str | None, fleet: Fleet, default: str | None) -> str:
    """The image for a `batch_image`: a name in the fleet file or a whole reference. ValueError when it is neither."""
    if name is None:
        chosen = fleet.images.get("worker") or default
        if not chosen:
            raise ValueError("no image: add `images: {worker: ...}` to the fleet file, or use --container-image")
        return chosen
    if name in fleet.images:
        return fleet.images[name]
    # A whole reference has a registry or repository path, a tag or a digest.
    if any(mark in name for mark in "/:@"):
        return name
    known = ", ".join(sorted(fleet.images)) or "no images"
    raise ValueError(f"resource batch_image is {name}, but the fleet file lists {known}")


def check_secrets(environment: Mapping[str, str], command: str = "") -> None:
    """Raise CredentialsInRequestError when credentials would end up in a request."""
    for name, value in environment.items():
        if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
            raise CredentialsInRequestError(
                f"environment variable {name} looks like AWS credentials and would be readable in every job: "
                "do not pass it on; jobs get their rights from job_role_arn in the fleet file"
            )
    if option := _SECRET_OPTION.search(command):
        raise CredentialsInRequestError(
            f"option {option[0]} would put credentials into every job: unset it; the storage plugin finds credentials "
            "by itself"
        )


def tag_value(text: str) -> str:
    """A text as AWS takes it for a tag's value."""
    return re.sub(r"[^\w .:/=+@-]", "_", text)[:256]


def overrides(plan: Plan, bucket: str, prefix: str, upload: Callable[[str, str], None]) -> dict[str, Any]:
    """The containerOverrides of a job, never above the limit.

    A long command goes to `<prefix>commands/<sha256>.sh` (by `upload(key, text)`), and the job gets a short one that
    fetches, checks and runs it. ValueError when even that is too long.
    """
    body: dict[str, Any] = {
        "command": ["/bin/bash", "-c", plan.command],
        "resourceRequirements": [
            {"type": "VCPU", "value": str(plan.demand.need.vcpus)},
            {"type": "MEMORY", "value": str(plan.demand.memory_mib)},
        ],
        "environment": [{"name": name, "value": value} for name, value in plan.environment],
    }
    if plan.demand.need.gpus:
        body["resourceRequirements"].append({"type": "GPU", "value": str(plan.demand.need.gpus)})
    if len(json.dumps(body)) > MOST_OVERRIDES:
        digest = hashlib.sha256(plan.command.encode()).hexdigest()
        key = f"{prefix}commands/{digest}.sh"
        upload(key, plan.command)
        body["command"] = ["python", "-c", _BOOTSTRAP, bucket, key, digest]
    if (length := len(json.dumps(body))) > MOST_OVERRIDES:
        raise ValueError(
            f"its environment variables make a request of {length} characters, AWS takes {MOST_OVERRIDES}: pass fewer"
        )
    return body


def submission(plan: Plan, queue: Queue, definition_arn: str, container_overrides: dict[str, Any]) -> dict[str, Any]:
    """The arguments of SubmitJob."""
    request: dict[str, Any] = {
        "jobName": str(plan.name),
        "jobQueue": queue.name,
        "jobDefinition": definition_arn,
        "containerOverrides": container_overrides,
        "propagateTags": True,
        "tags": dict(plan.tags),
    }
    if plan.demand.minutes:
        seconds = max(SHORTEST_TIMEOUT, round(plan.demand.minutes * 60))
        request["timeout"] = {"attemptDurationSeconds": seconds}
    # Required by queues with a fair-share policy, refused by all others.
    if queue.share_identifier:
        request["shareIdentifier"] = queue.share_identifier
    return request
