"""The operations of AWS Batch that concern jobs. Everything else of Batch stays moto's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.fake_aws.account import ACCOUNT, Account
from tests.fake_aws.jobs import STATUSES, Job
from tests.fake_aws.limits import MAX_DESCRIBED, check_definition, check_submission, client_error
from tests.fake_aws.scheduler import Scheduler
from tests.fake_aws.settings import Faults

PAGE = 100


class BatchApi:
    """SubmitJob, DescribeJobs, ListJobs, TerminateJob, CancelJob, and the tags of jobs."""

    def __init__(self, scheduler: Scheduler, account: Account, faults: Faults) -> None:
        self._scheduler, self._account, self._faults = scheduler, account, faults
        self._operations: dict[str, Callable[[str, dict[str, Any], int], dict[str, Any]]] = {
            "SubmitJob": self._submit,
            "DescribeJobs": self._describe,
            "ListJobs": self._list,
            "TerminateJob": self._terminate,
            "CancelJob": self._cancel,
        }

    def answer(self, operation: str, region: str, body: bytes) -> dict[str, Any] | None:
        """The answer to a call, or None when moto is to answer it. Raises `ServiceError`."""
        if operation == "RegisterJobDefinition":
            check_definition(json.loads(body), len(body))
            return None
        handler = self._operations.get(operation)
        return handler(region, json.loads(body or b"{}"), len(body)) if handler else None

    def _submit(self, region: str, request: dict[str, Any], size: int) -> dict[str, Any]:
        queue = self._account.queue(region, request.get("jobQueue", ""))
        takes_jobs, fair_share = self._account.queue_state(region, queue.arn)
        check_submission(request, size, fair_share)
        if not takes_jobs:
            raise client_error(f"Error executing request, Exception : JobQueue {queue.arn} is not ENABLED and VALID.")
        definition = self._account.definition(region, request.get("jobDefinition", ""))
        if fault := self._faults.for_submission(request["jobName"], queue.name):
            raise client_error(fault.reason or "Error executing request, Exception : refused by a fault.")
        job = Job(region=region, account=ACCOUNT, request=request, definition=definition, queue=queue)
        self._scheduler.submit(job)
        return {"jobArn": job.arn, "jobName": job.name, "jobId": job.id}

    def _describe(self, region: str, request: dict[str, Any], size: int) -> dict[str, Any]:
        wanted = request.get("jobs")
        if not wanted:
            raise client_error("Error executing request, Exception : jobs must not be empty.")
        if len(wanted) > MAX_DESCRIBED:
            raise client_error(f"Error executing request, Exception : at most {MAX_DESCRIBED} jobs, got {len(wanted)}.")
        found = [self._scheduler.jobs.get(identifier.rpartition("/")[2]) for identifier in wanted]
        return {"jobs": [job.description() for job in found if job and self._shown(job, region)]}

    def _list(self, region: str, request: dict[str, Any], size: int) -> dict[str, Any]:
        if not request.get("jobQueue"):
            raise client_error("Error executing request, Exception : jobQueue must be given.")
        queue = self._account.queue(region, request["jobQueue"])
        filters = request.get("filters") or []
        if len(filters) > 1:
            raise client_error("Error executing request, Exception : at most one filter may be given.")
        jobs = [job for job in self._scheduler.by_queue.get(queue.arn, []) if self._shown(job, region)]
        if filters:
            # A filter overrules jobStatus, and the newest come first.
            jobs = [job for job in reversed(jobs) if _passes(job, filters[0])]
        else:
            status = request.get("jobStatus") or "RUNNING"
            if status not in STATUSES:
                raise client_error(f"Error executing request, Exception : jobStatus {status} is none of {STATUSES}.")
            jobs = [job for job in jobs if job.status == status]
        # The token is where to go on, so that jobs that come meanwhile shift no page but the first.
        start = int(request.get("nextToken") or 0)
        page = min(int(request.get("maxResults") or PAGE), PAGE)
        answer: dict[str, Any] = {"jobSummaryList": [job.summary() for job in jobs[start : start + page]]}
        if start + page < len(jobs):
            answer["nextToken"] = str(start + page)
        return answer

    def _terminate(self, region: str, request: dict[str, Any], size: int) -> dict[str, Any]:
        job_id, reason = _job_and_reason(request)
        self._scheduler.terminate(job_id, reason)
        return {}

    def _cancel(self, region: str, request: dict[str, Any], size: int) -> dict[str, Any]:
        job_id, reason = _job_and_reason(request)
        self._scheduler.cancel(job_id, reason)
        return {}

    def _shown(self, job: Job, region: str) -> bool:
        return job.region == region and not self._scheduler.hidden(job)


def _job_and_reason(request: dict[str, Any]) -> tuple[str, str]:
    for name in ("jobId", "reason"):
        if not request.get(name):
            raise client_error(f"Error executing request, Exception : {name} must not be empty.")
    return request["jobId"].rpartition("/")[2], request["reason"]


def _passes(job: Job, condition: dict[str, Any]) -> bool:
    values = condition.get("values", [])
    match condition.get("name"):
        case "JOB_NAME":
            return any(_name_matches(job.name.lower(), value.lower()) for value in values)
        case "JOB_DEFINITION":
            name, _, _ = job.definition.arn.rpartition("/")[2].partition(":")
            return any(_name_matches(name, value.rpartition("/")[2]) for value in values)
        case "BEFORE_CREATED_AT":
            return job.created * 1000 < float(values[0])
        case "AFTER_CREATED_AT":
            return job.created * 1000 > float(values[0])
    raise client_error(f"Error executing request, Exception : filter {condition.get('name')} is not known.")


def _name_matches(name: str, value: str) -> bool:
    return name.startswith(value[:-1]) if value.endswith("*") else name == value
