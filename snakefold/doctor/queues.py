"""Queues, the machines behind them, and the quotas that let these start."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from snakefold.doctor.findings import Check, Finding
from snakefold.doctor.quotas import Quota, quota_of
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet, Queue

Ask = Callable[..., Any]
"""Calls an operation: service, operation, arguments."""

_MIB = 1.048576
"""Megabytes in a mebibyte."""


_LEAST = 4
"""vCPU of the smallest machine with a GPU, and of the smallest that is of use for a search."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An instance type as EC2 tells of it; memory in MB."""

    name: str
    vcpus: int
    memory_mb: int
    gpus: int
    gpu_memory_mb: int


def queue_checks(fleet: Fleet, ask: Ask) -> dict[str, Check]:
    """The checks of queues and quotas."""
    return {"queues": partial(_queues, fleet, ask), "quotas": partial(_quotas, fleet, ask)}


def _queues(fleet: Fleet, ask: Ask) -> Iterator[Finding]:
    described = _described(fleet, ask)
    environments = _environments(described, ask)
    for queue in fleet.queues:
        there = described.get(queue.name)
        if there is None:
            remedy = f"correct the fleet file (`make aws-config`); is {fleet.region} the right region?"
            yield Finding(check="queues", level="fault", text=f"there is no queue {queue.name}", remedy=remedy)
            continue
        own = [environments[arn] for arn in _order(there) if arn in environments]
        faults = _faults_of_queue(queue, there, own)
        if not faults and own:
            faults = _false_claims(queue, own, ask)
        for text, remedy in faults:
            yield Finding(check="queues", level="fault", text=f"{queue.name}: {text}", remedy=remedy)
        if not faults:
            types = ", ".join(dict.fromkeys(name for each in own for name in _types(each)))
            yield Finding(check="queues", level="ok", text=f"{queue.name}: {queue.purchase}, {types}")


def _described(fleet: Fleet, ask: Ask) -> dict[str, Any]:
    names = [queue.name for queue in fleet.queues]
    answers = [ask("batch", "DescribeJobQueues", jobQueues=names[at : at + 100]) for at in range(0, len(names), 100)]
    return {each["jobQueueName"]: each for answer in answers for each in answer["jobQueues"]}


def _environments(queues: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """The compute environments of all queues, by name and by ARN."""
    wanted = sorted({arn for queue in queues.values() for arn in _order(queue)})
    if not wanted:
        return {}
    found = ask("batch", "DescribeComputeEnvironments", computeEnvironments=wanted)["computeEnvironments"]
    return {each[key]: each for each in found for key in ("computeEnvironmentName", "computeEnvironmentArn")}


def _order(queue: Mapping[str, Any]) -> list[str]:
    return [each["computeEnvironment"] for each in queue.get("computeEnvironmentOrder", ())]


def _types(environment: Mapping[str, Any]) -> list[str]:
    return environment.get("computeResources", {}).get("instanceTypes", [])


def _faults_of_queue(
    queue: Queue, there: Mapping[str, Any], environments: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """What keeps the queue from taking and running jobs."""
    faults = []
    if not _works(there):
        reason = f" ({there['statusReason']})" if there.get("statusReason") else ""
        faults.append(
            (f"is {there['state']} and {there['status']}{reason}", "enable it, or take it out of the fleet file")
        )
    usable = [each for each in environments if _works(each)]
    for each in environments:
        if each not in usable:
            reason = f" ({each['statusReason']})" if each.get("statusReason") else ""
            text = (
                f"compute environment {each['computeEnvironmentName']} is {each['state']} and {each['status']}{reason}"
            )
            faults.append((text, "mend it: AWS Batch starts no machine from it"))
    if not environments:
        faults.append(("has no compute environment", "give it one"))
    spot = [each for each in usable if each.get("computeResources", {}).get("type") == "SPOT"]
    if usable and (queue.purchase == "spot") != bool(spot):
        faults.append(
            (f"is no queue of {queue.purchase} machines, as the fleet file says", "correct its purchase there")
        )
    most = max((int(each.get("computeResources", {}).get("maxvCpus", 0)) for each in usable), default=queue.vcpus)
    if most < queue.vcpus:
        text = f"may have {most} vCPU at once, but jobs of {queue.vcpus} are sent to it"
        faults.append((text, "raise maxvCpus of its compute environment, or lower vcpus in the fleet file"))
    fair = bool(there.get("schedulingPolicyArn"))
    if fair != bool(queue.share_identifier):
        text = "has a fair-share policy" if fair else "has no fair-share policy"
        remedy = (
            "give it a share_identifier in the fleet file" if fair else "take share_identifier out of the fleet file"
        )
        faults.append((text, remedy))
    return faults


def _works(thing: Mapping[str, Any]) -> bool:
    """Whether a queue or compute environment takes jobs; while it is updated, it does."""
    return thing["state"] == "ENABLED" and thing["status"] in ("VALID", "UPDATING")


def _false_claims(queue: Queue, environments: Sequence[Mapping[str, Any]], ask: Ask) -> list[tuple[str, str]]:
    """What the fleet file says of the queue's largest machine, and no machine behind it has."""
    names = sorted({name for each in environments for name in _types(each)})
    machines = _machines(names, ask)
    # What `optimal` means, AWS Batch decides.
    if not machines or "optimal" in names:
        return []
    claims = {
        "vcpus": (queue.vcpus, lambda machine: machine.vcpus),
        "memory_mb": (queue.memory_mb, lambda machine: machine.memory_mb),
        "gpus": (queue.gpus, lambda machine: machine.gpus),
        "gpu_memory_mb": (queue.gpu_memory_mb, lambda machine: machine.gpu_memory_mb),
    }
    if any(all(value(machine) >= claim for claim, value in claims.values()) for machine in machines):
        return []
    lacks = [
        f"{key} is {claim} in the fleet file, and {max(map(value, machines))} at most of its machines"
        for key, (claim, value) in claims.items()
        if max(map(value, machines)) < claim
    ]
    text = "; ".join(lacks) or "no machine has all of vcpus, memory_mb, gpus and gpu_memory_mb that the fleet file says"
    return [(text, "correct the fleet file: jobs that only fit the claim would wait for ever")]


def _machines(names: Sequence[str], ask: Ask) -> list[Machine]:
    """All instance types that the names (types and families) mean."""
    found: list[Machine] = []
    wanted = [name if "." in name else f"{name}.*" for name in names if name != "optimal"]
    more: dict[str, str] = {}
    while wanted:
        answer = ask(
            "ec2",
            "DescribeInstanceTypes",
            Filters=[{"Name": "instance-type", "Values": wanted}],
            MaxResults=100,
            **more,
        )
        found += map(_machine, answer["InstanceTypes"])
        if not answer.get("NextToken"):
            break
        more = {"NextToken": answer["NextToken"]}
    return found


def _machine(facts: Mapping[str, Any]) -> Machine:
    gpus = facts.get("GpuInfo", {}).get("Gpus", [])
    return Machine(
        name=facts["InstanceType"],
        vcpus=facts["VCpuInfo"]["DefaultVCpus"],
        memory_mb=int(facts["MemoryInfo"]["SizeInMiB"] * _MIB),
        gpus=sum(gpu["Count"] for gpu in gpus),
        gpu_memory_mb=int(max((gpu["MemoryInfo"]["SizeInMiB"] for gpu in gpus), default=0) * _MIB),
    )


def _quotas(fleet: Fleet, ask: Ask) -> Iterator[Finding]:
    """Each quota that counts the machines of some queue, against what these need to start."""
    described = _described(fleet, ask)
    environments = _environments(described, ask)
    needs: dict[Quota, list[Queue]] = {}
    for queue in fleet.queues:
        own = [environments[arn] for arn in _order(described.get(queue.name, {})) if arn in environments]
        for name in {name for each in own for name in _types(each)}:
            quota = quota_of("m5" if name == "optimal" else name, spot=queue.purchase == "spot")
            if quota is not None and queue not in needs.setdefault(quota, []):
                needs[quota].append(queue)
    for quota, queues in sorted(needs.items(), key=lambda each: each[0].name):
        value = _value(quota, ask)
        largest = max(queue.vcpus for queue in queues)
        names = ", ".join(queue.name for queue in queues)
        if value is None:
            text = f"{quota.name} ({quota.code}): Service Quotas does not know it"
            yield Finding(check="quotas", level="warning", text=text, remedy="look in the console of EC2, under Limits")
            continue
        text = f"{quota.name}: {value:g} vCPU"
        remedy = (
            f"{names} may start machines of {largest}: `aws service-quotas request-service-quota-increase "
            f"--service-code ec2 --quota-code {quota.code} --desired-value {largest} --region {fleet.region}` "
            "(or more; it may take days)"
        )
        if value >= largest:
            yield Finding(check="quotas", level="ok", text=text)
        else:
            yield Finding(check="quotas", level="fault" if value < _LEAST else "warning", text=text, remedy=remedy)


def _value(quota: Quota, ask: Ask) -> float | None:
    """The quota in vCPU; AWS's default where the account never had another."""
    for operation in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
        unchanged = ("NoSuchResourceException",)
        answer = ask("service-quotas", operation, absent=unchanged, ServiceCode="ec2", QuotaCode=quota.code)
        if answer is not None:
            return float(answer["Quota"]["Value"])
    return None
