"""The jobs of a run that AWS Batch knows: those that live, and those that ended in the last seven days."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from snakefold.away.run import Run, asking
from snakemake_executor_plugin_aws_batch_fleet.adoption import LIVE
from snakemake_executor_plugin_aws_batch_fleet.identity import parse_job_name
from snakemake_executor_plugin_aws_batch_fleet.status import describe_jobs

CONTROLLER = "controller"
"""In place of a rule, for the job that runs Snakemake."""


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """A job as ListJobs tells of it. Times in seconds since 1970."""

    id: str
    name: str
    rule: str
    queue: str
    state: str
    created: float
    ending: bool
    """Whether it was told to end."""
    digest: str | None
    """Which job of the workflow it is, as the ledger has it; None of a controller."""

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE


def list_jobs(run: Run) -> list[BatchJob]:
    """All jobs of a run, the newest first, its controllers among them."""
    names = [queue.name for queue in run.fleet.queues]
    with asking("AWS Batch (batch:ListJobs)"), ThreadPoolExecutor(min(8, len(names))) as pool:
        found = [job for jobs in pool.map(lambda queue: _of_queue(run, queue), names) for job in jobs]
    return sorted(found, key=lambda job: (-job.created, job.id))


def _of_queue(run: Run, queue: str) -> list[BatchJob]:
    pages = run.aws.batch.get_paginator("list_jobs").paginate(
        jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [f"{run.id}-*"]}]
    )
    found = []
    for page in pages:
        for each in page["jobSummaryList"]:
            name = parse_job_name(each["jobName"])
            if name is None and each["jobName"] != run.controller_name:
                continue
            found.append(
                BatchJob(
                    id=each["jobId"],
                    name=each["jobName"],
                    rule=name.rule if name else CONTROLLER,
                    queue=queue,
                    state=each["status"],
                    created=each.get("createdAt", 0) / 1000,
                    ending=is_ending(each),
                    digest=name.job if name else None,
                )
            )
    return found


def is_ending(job: Mapping[str, Any]) -> bool:
    """Whether a job, as AWS Batch tells of it, was told to end."""
    return bool(job.get("isTerminated") or job.get("isCancelled"))


def describe(run: Run, job_id: str) -> Mapping[str, Any] | None:
    """All that AWS Batch knows of a job; None once it has forgotten it."""
    with asking("AWS Batch (batch:DescribeJobs)"):
        return describe_jobs(run.aws, [job_id]).get(job_id)
