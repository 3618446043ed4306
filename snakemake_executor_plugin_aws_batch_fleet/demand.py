"""What a Snakemake job, or a group of jobs, asks for."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.routing import Need

DEFAULT_MEMORY_MB = 2048
LEAST_MEMORY_MB = 512
"""A job's container runs Snakemake, too, whatever little its tool needs."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Everything that a request is made of.

    `memory_mib` is in MiB, as AWS Batch counts; `need.memory_mb` in MB, as Snakemake and the queue table count.
    """

    need: Need
    memory_mib: int
    minutes: float | None = None
    image: str | None = None
    queue: str | None = None
    mounts: tuple[str, ...] = ()
    shm_mib: int = 0

    def with_gpu_memory(self, gpu_memory_mb: int) -> "Demand":
        """The same with at least this much memory (MB) of one GPU."""
        more = max(self.need.gpu_memory_mb, gpu_memory_mb)
        return replace(self, need=replace(self.need, gpu_memory_mb=more))


def of_job(threads: int, resources: Mapping[str, Any]) -> Demand:
    """The demand of a single job. ValueError names a resource of the wrong kind."""
    memory_mb = max(_number(resources, "mem_mb", DEFAULT_MEMORY_MB), LEAST_MEMORY_MB)
    return Demand(
        need=Need(
            vcpus=max(1, threads),
            memory_mb=memory_mb,
            gpus=_number(resources, "gpu", 0),
            gpu_memory_mb=_number(resources, "gpu_mem_mb", 0),
        ),
        memory_mib=mib(memory_mb),
        minutes=_number(resources, "runtime", 0) or None,
        image=_text(resources, "batch_image"),
        queue=_text(resources, "batch_queue"),
        mounts=tuple(part.strip() for part in (_text(resources, "batch_mounts") or "").split(",") if part.strip()),
        shm_mib=mib(_number(resources, "shm_mb", 0)),
    )


def of_group(levels: Sequence[Sequence[Demand]]) -> Demand:
    """The demand of a group, from its members by level (a level depends on the ones before it).

    A group runs in one container, where the inner Snakemake runs members side by side as far as `--cores` and
    `--resources mem_mb` allow. Both are set to what is asked for here:
    - vCPU: the most threads of any member (Snakemake's own sum over a level would ask for a huge machine);
    - memory: the most that members of one level can take that fit into that many cores together;
    - GPUs and the memory of one: the most of any member;
    - time: level by level, since members queue for the cores: Graham's bound of list scheduling, sum(threads x minutes)
      / cores + (1 - 1 / cores) x longest. Snakemake's figure assumes that a level runs all at once.
    """
    members = [member for level in levels for member in level]
    cores = max(member.need.vcpus for member in members)
    memory_mb = max(_most_memory(level, cores) for level in levels if level)
    need = Need(
        vcpus=cores,
        memory_mb=memory_mb,
        gpus=max(member.need.gpus for member in members),
        gpu_memory_mb=max(member.need.gpu_memory_mb for member in members),
    )
    # One member without a limit means that the group has none.
    unlimited = any(member.minutes is None for member in members)
    minutes = None if unlimited else math.ceil(sum(_minutes(level, cores) for level in levels if level))
    return Demand(
        need=need,
        memory_mib=mib(memory_mb),
        minutes=minutes,
        image=_agreed(members, "image"),
        queue=_agreed(members, "queue"),
        mounts=_agreed(members, "mounts"),
        shm_mib=max(member.shm_mib for member in members),
    )


def mib(megabytes: float) -> int:
    """MB (10**6 bytes) in MiB (2**20 bytes), rounded up."""
    return math.ceil(megabytes * 10**6 / 2**20)


def _most_memory(level: Iterable[Demand], cores: int) -> int:
    """The most memory (MB) that members whose threads fit into the cores take together: a knapsack, solved exactly."""
    best = [0] * (cores + 1)
    for member in level:
        for room in range(cores, member.need.vcpus - 1, -1):
            best[room] = max(best[room], best[room - member.need.vcpus] + member.need.memory_mb)
    return best[cores]


def _minutes(level: Sequence[Demand], cores: int) -> float:
    work = sum(member.need.vcpus * (member.minutes or 0) for member in level)
    return work / cores + (1 - 1 / cores) * max(member.minutes or 0 for member in level)


def _agreed(members: Sequence[Demand], name: str) -> Any:
    values = {getattr(member, name) for member in members}
    if len(values) > 1:
        listed = ", ".join(sorted(str(value) for value in values))
        raise ValueError(f"the members of a group run in one container, but differ in batch_{name}: {listed}")
    return values.pop()


def _number(resources: Mapping[str, Any], name: str, default: int) -> int:
    value = resources.get(name, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        # Snakemake puts a placeholder where a function could not be evaluated yet.
        if "TBD" in type(value).__name__ or "TBD" in str(value):
            return default
        raise ValueError(f"resource {name} must be a number, not {value!r}")
    if value < 0:
        raise ValueError(f"resource {name} must not be negative, but is {value}")
    return math.ceil(value)


def _text(resources: Mapping[str, Any], name: str) -> str | None:
    value = resources.get(name)
    return str(value) if value not in (None, "") else None
