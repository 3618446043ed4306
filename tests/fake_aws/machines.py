"""The machines that a compute environment can start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine type. Memory in MiB."""

    name: str
    vcpus: int
    memory: int
    gpus: int


_OPTIMAL = Machine(name="m5.24xlarge", vcpus=96, memory=393216, gpus=0)


@cache
def machines(instance_type: str) -> tuple[Machine, ...]:
    """The machines that an entry of `instanceTypes` means: a type, a family, or `optimal`."""
    if instance_type == "optimal":
        return (_OPTIMAL,)
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    found = [
        Machine(
            name=name,
            vcpus=facts["VCpuInfo"]["DefaultVCpus"],
            memory=facts["MemoryInfo"]["SizeInMiB"],
            gpus=sum(gpu["Count"] for gpu in facts.get("GpuInfo", {}).get("Gpus", [])),
        )
        for name, facts in INSTANCE_TYPES.items()
        if name == instance_type or ("." not in instance_type and name.startswith(f"{instance_type}."))
    ]
    return tuple(found)


def fitting(instance_types: Iterable[str], vcpus: int, memory: int, gpus: int) -> Machine | None:
    """The smallest machine of these types that holds a job, if any does.

    The memory that ECS keeps for itself is not taken off, since it depends on the image and the agent's settings.
    """
    candidates = [
        machine
        for instance_type in instance_types
        for machine in machines(instance_type)
        if machine.vcpus >= vcpus and machine.memory >= memory and machine.gpus >= gpus
    ]
    return min(candidates, key=lambda machine: (machine.gpus, machine.vcpus, machine.memory), default=None)
