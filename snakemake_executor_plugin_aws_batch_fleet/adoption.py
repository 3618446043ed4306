"""Jobs of the run that a former controller left, found by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws
from snakemake_executor_plugin_aws_batch_fleet.identity import JobName, parse_job_name

LIVE = frozenset(("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"))


@dataclass(frozen=True, kw_only=True)
class Found:
    """A job of this run that AWS Batch knows."""

    job_id: str
    name: JobName
    queue: str
    status: str
    created: float
    stopped: float | None
    ending: bool
    """Whether it was told to end, but lives yet."""

    @property
    def live(self) -> bool:
        """Whether it may still do its work."""
        return self.status in LIVE and not self.ending


class Verdict(Enum):
    """What to do about a job that was found."""

    ADOPT = "adopt"
    """It does this work: follow it."""
    REPLACE = "replace"
    """It does work that is out of date (other sources, command or image): end it and submit anew."""
    IGNORE = "ignore"
    """It has ended, and without a trace that its outputs are this run's."""


def judge(found: Found, wanted: JobName, *, began: float, in_flight: Iterable[str]) -> Verdict:
    """Whether a job that was found does the work wanted.

    A live one is adopted when its work is the same, and replaced otherwise. One that has succeeded is adopted only if
    Snakemake's own marks say that it was in flight (`in_flight`: job ids), or if it ended after this controller began
    (`began`, seconds since 1970) and thus after Snakemake looked for outputs: an older one may have had its outputs
    removed since.
    """
    same_work = found.name.work == wanted.work
    if found.live:
        return Verdict.ADOPT if same_work else Verdict.REPLACE
    if found.status == "SUCCEEDED" and same_work:
        recent = found.stopped is not None and found.stopped >= began
        if recent or found.job_id in in_flight:
            return Verdict.ADOPT
    return Verdict.IGNORE


def find_jobs(aws: Aws, queues: Iterable[str], run: str) -> list[Found]:
    """All jobs of a run that AWS Batch remembers (a week or so), by name, from every queue."""
    found = []
    for queue in queues:
        pages = aws.batch.get_paginator("list_jobs").paginate(
            jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [f"{run}-*"]}]
        )
        for page in pages:
            for summary in page["jobSummaryList"]:
                name = parse_job_name(summary["jobName"])
                # A name that only looks alike (the job of a controller, say) is none of ours.
                if name is not None and name.run == run:
                    found.append(_found(summary, name, queue))
    return found


class Census:
    """The jobs found at the start, by job digest; each is handed out once."""

    def __init__(self, found: Iterable[Found]) -> None:
        self._by_job: dict[str, list[Found]] = {}
        # The newest first, the live before the ended: of two that do the same, follow the one that lives.
        for entry in sorted(found, key=lambda entry: (not entry.live, -entry.created)):
            self._by_job.setdefault(entry.name.job, []).append(entry)

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._by_job.values())

    def claim(self, job: str) -> list[Found]:
        """All that was found of a job; asked again, nothing: a second attempt of the job adopts no more."""
        return self._by_job.pop(job, [])

    def unclaimed(self) -> list[Found]:
        """Those living that no job of the workflow asked for."""
        return [entry for entries in self._by_job.values() for entry in entries if entry.live]


def _found(summary: dict[str, Any], name: JobName, queue: str) -> Found:
    stopped = summary.get("stoppedAt")
    return Found(
        job_id=summary["jobId"],
        name=name,
        queue=queue,
        status=summary["status"],
        created=summary.get("createdAt", 0) / 1000,
        stopped=stopped / 1000 if stopped else None,
        ending=bool(summary.get("isTerminated") or summary.get("isCancelled")),
    )
