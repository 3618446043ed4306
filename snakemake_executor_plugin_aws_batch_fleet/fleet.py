"""The fleet file: what the account offers to a run."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from snakemake_interface_common.exceptions import WorkflowError

DEFAULT_LOG_GROUP = "/aws/batch/job"


class Queue(BaseModel):
    """A job queue, described by the largest machine behind it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    vcpus: Annotated[int, Field(ge=1)]
    memory_mb: Annotated[int, Field(ge=1)]
    """Megabytes (10**6 bytes, as Snakemake's `mem_mb`) that jobs can have: less than the machine's, ECS keeps some."""
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_memory_mb: Annotated[int, Field(ge=0)] = 0
    """Megabytes of one GPU."""
    purchase: Literal["spot", "on_demand"] = "on_demand"
    price_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """USD for the whole machine."""
    disk_mb: Annotated[int, Field(ge=1)] | None = None
    """Megabytes of disk behind the mounts; null if unknown. Not read here; other readers of the file need it."""
    share_identifier: str | None = None
    """Needed by queues with a fair-share policy, refused by others."""

    @model_validator(mode="after")
    def _gpus_have_memory(self) -> "Queue":
        if self.gpus and not self.gpu_memory_mb:
            raise ValueError("a queue with gpus needs gpu_memory_mb (of one GPU)")
        return self


class Fleet(BaseModel):
    """The whole fleet file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: Annotated[str, Field(min_length=1)]
    queues: Annotated[list[Queue], Field(min_length=1)]
    bucket: str | None = None
    """Not read here; other readers of the file need it."""
    controller_role_arn: str | None = None
    """Not read here either: the role of a job that runs Snakemake itself, whose jobs are made here."""
    database_role_arn: str | None = None
    """Not read here either: the role of a job that writes databases, which other jobs may only read."""
    job_role_arn: str | None = None
    execution_role_arn: str | None = None
    log_group: str = DEFAULT_LOG_GROUP
    events_queue_url: str | None = None
    tags: dict[str, str] = {}
    mounts: list[str] = []
    images: dict[str, str] = {}

    @field_validator("queues")
    @classmethod
    def _names_differ(cls, queues: list[Queue]) -> list[Queue]:
        names = [queue.name for queue in queues]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"queue {', '.join(twice)} is listed twice")
        return queues

    @field_validator("tags")
    @classmethod
    def _no_reserved_tags(cls, tags: dict[str, str]) -> dict[str, str]:
        if reserved := [key for key in tags if key.lower().startswith("aws:")]:
            raise ValueError(f"tag keys may not start with aws: ({', '.join(reserved)})")
        return tags

    @field_validator("mounts")
    @classmethod
    def _mounts_parse(cls, mounts: list[str]) -> list[str]:
        for mount in mounts:
            parse_mount(mount)
        return mounts

    def queue(self, name: str) -> Queue | None:
        """The queue of that name, if the table has it."""
        return next((queue for queue in self.queues if queue.name == name), None)


def parse_mount(text: str) -> tuple[str, str, bool]:
    """Host path, container path, whether it is read-only, of `host:container[:ro]`. ValueError if it is none."""
    parts = text.strip().split(":")
    if len(parts) not in (2, 3) or not all(part.startswith("/") for part in parts[:2]) or parts[2:] not in ([], ["ro"]):
        raise ValueError(f"mount {text!r} is not /host/path:/container/path or /host/path:/container/path:ro")
    return parts[0], parts[1], len(parts) == 3


def load_fleet(path: str | None) -> Fleet:
    """The fleet file's content. WorkflowError with one line for each fault."""
    if not path:
        raise WorkflowError(
            "No fleet file: name it with --aws-batch-fleet-file FILE or the environment variable "
            "SNAKEMAKE_AWS_BATCH_FLEET_FILE."
        )
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise WorkflowError(f"Fleet file {path}: cannot be read ({error.strerror}).") from None
    try:
        raw: Any = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        kind = "JSON" if file.suffix == ".json" else "YAML"
        raise WorkflowError(f"Fleet file {path}: not valid {kind}: {one_line(error)}") from None
    return parse_fleet(raw, f"Fleet file {path}")


def parse_fleet(raw: Any, where: str) -> Fleet:
    """The fleet that YAML or JSON from `where` describes. WorkflowError with one line for each fault."""
    if not isinstance(raw, dict):
        raise WorkflowError(f"{where}: expected keys such as region and queues.")
    try:
        return Fleet.model_validate(raw)
    except ValidationError as error:
        lines = [f"{where}: {_where(fault['loc'], raw)}: {_what(fault)}" for fault in error.errors()]
        raise WorkflowError("\n".join(lines)) from None


def one_line(error: object) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split())


def _what(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown key"
    return fault["msg"].removeprefix("Value error, ")


def _where(location: tuple[Any, ...], raw: dict[str, Any]) -> str:
    """`queues[cpu].vcpus`: a queue by its name, which a reader finds more easily than by its number."""
    parts: list[str] = []
    for index, part in enumerate(location):
        if isinstance(part, int):
            item = raw.get(str(location[index - 1]))
            entry = item[part] if isinstance(item, list) and part < len(item) else None
            name = entry.get("name") if isinstance(entry, dict) else None
            parts[-1] += f"[{name or part + 1}]"
        else:
            parts.append(str(part))
    return ".".join(parts) or "the file"
