"""Jobs that ended while no controller looked: they cost money too, so the ledger must have them."""

from collections.abc import Iterable, Mapping
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.adoption import LIVE, Found
from snakemake_executor_plugin_aws_batch_fleet.aws import Aws
from snakemake_executor_plugin_aws_batch_fleet.classify import classify
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet
from snakemake_executor_plugin_aws_batch_fleet.instances import InstanceTypes
from snakemake_executor_plugin_aws_batch_fleet.ledger import Ledger, attempt_records
from snakemake_executor_plugin_aws_batch_fleet.routing import Need
from snakemake_executor_plugin_aws_batch_fleet.status import describe_jobs


def record_backlog(aws: Aws, fleet: Fleet, ledger: Ledger, found: Iterable[Found]) -> int:
    """Write the jobs that had ended when they were found and that the ledger lacks. Their wildcards are unknown."""
    queues = {entry.job_id: entry.queue for entry in found if entry.status not in LIVE and not ledger.has(entry.job_id)}
    described = describe_jobs(aws, list(queues))
    instances = InstanceTypes(aws)
    instances.learn((job.get("container") or {}).get("containerInstanceArn", "") for job in described.values())
    for job_id, job in described.items():
        queue = fleet.queue(queues[job_id])
        if queue is not None:
            ledger.add(
                attempt_records(
                    job,
                    queue=queue,
                    need=need_of(job),
                    wildcards={},
                    final="succeeded" if job["status"] == "SUCCEEDED" else classify(job).kind.value,
                    instance_types=instances.known,
                )
            )
    return len(described)


def need_of(job: Mapping[str, Any]) -> Need:
    """What a job had asked for, from its description."""
    asked = {
        entry["type"]: float(entry["value"]) for entry in (job.get("container") or {}).get("resourceRequirements") or ()
    }
    return Need(
        vcpus=max(1, int(asked.get("VCPU", 1))),
        memory_mb=round(asked.get("MEMORY", 0) * 2**20 / 10**6),
        gpus=int(asked.get("GPU", 0)),
    )
