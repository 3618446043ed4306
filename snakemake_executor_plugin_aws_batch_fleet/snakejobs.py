"""Reads Snakemake's jobs: what they ask for, and what they are called."""

from collections.abc import Iterable, Mapping
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.demand import Demand, of_group, of_job
from snakemake_executor_plugin_aws_batch_fleet.identity import group_digest, job_digest

MOST_INPUTS = 500


def demand_of(job: Any) -> Demand:
    """What a job or a group asks for. ValueError when its resources make no sense."""
    if job.is_group():
        return of_group([[of_job(member.threads, member.resources) for member in level] for level in job.toposorted])
    return of_job(job.threads, job.resources)


def digest_of(job: Any) -> str:
    """Which job (or group) of the workflow this is, the same in every controller (hex)."""
    if job.is_group():
        return group_digest(digest_of(member) for member in job.jobs)
    return job_digest(job.rule.name, wildcards_of(job), (_address(file) for file in job.output))


def inputs_of(job: Any) -> list[tuple[str, float]]:
    """Address and time (seconds since 1970) of each input in storage; of a group, of those that it gets from outside.

    None of a job that has very many, such as a summary: it reads the results of jobs for which this was asked.
    """
    stored = [file.storage_object for file in job.input if getattr(file, "is_storage", False)]
    return [(str(each.query), each.mtime()) for each in stored] if len(stored) <= MOST_INPUTS else []


def wildcards_of(job: Any) -> Mapping[str, str]:
    """A job's wildcards; none for a group."""
    return {} if job.is_group() else {name: str(value) for name, value in job.wildcards_dict.items()}


def jobs_in_flight(persistence: Any, job: Any) -> frozenset[str]:
    """Job ids that Snakemake's marks give for outputs that were under way when a former controller died.

    `dag.incomplete_external_jobid` would not tell them with --rerun-incomplete, nor for a group.
    """
    members: Iterable[Any] = job.jobs if job.is_group() else (job,)
    return frozenset(str(job_id) for member in members for job_id in persistence.external_jobids(member) if job_id)


def _address(file: Any) -> str:
    """An output's address in storage, which is the same on every machine, unlike that of its local copy."""
    if getattr(file, "is_storage", False):
        return str(file.storage_object.query)
    return str(file)
