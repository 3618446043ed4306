"""Stand-ins for AWS in tests of the executor plugin that need no server."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from typing import Any

from botocore.exceptions import ClientError


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Operation")  # type: ignore[typeddict-item]


class StubS3:
    """Objects in memory with ETags, conditional puts and a clock that tests move."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.after_put: Callable[[], None] | None = None

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def put_object(self, *, Key: str, Body: bytes, **more: Any) -> dict[str, Any]:  # noqa: N803
        current = self.objects.get(Key)
        if more.get("IfNoneMatch") == "*" and current is not None:
            raise client_error("PreconditionFailed", 412)
        if "IfMatch" in more and (current is None or self._etag(current) != more["IfMatch"]):
            raise client_error("PreconditionFailed" if current else "NoSuchKey", 412)
        self.objects[Key] = (Body, self.now)
        if self.after_put is not None:
            self.after_put()
        return {"ETag": self._etag(self.objects[Key])}

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise client_error("NoSuchKey", 404)
        body, modified = self.objects[Key]
        date = format_datetime(self.now, usegmt=True)
        return {
            "Body": BytesIO(body),
            "ETag": self._etag(self.objects[Key]),
            "LastModified": modified,
            "ResponseMetadata": {"HTTPHeaders": {"date": date}},
        }

    def delete_object(self, *, Key: str, **_: Any) -> None:  # noqa: N803
        self.objects.pop(Key, None)

    @staticmethod
    def _etag(entry: tuple[bytes, datetime]) -> str:
        return hashlib.md5(entry[0] + entry[1].isoformat().encode()).hexdigest()


class StubBatch:
    """Jobs in memory; a test sets their descriptions. `errors` are raised by the next calls, one each."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.submitted: list[dict[str, Any]] = []
        self.terminated: dict[str, str] = {}
        self.errors: list[Exception] = []
        self.before_submit: Callable[[], None] | None = None
        self.queues: list[dict[str, Any]] = []
        self.environments: list[dict[str, Any]] = []

    def describe_jobs(self, *, jobs: list[str]) -> dict[str, Any]:
        assert len(jobs) <= 100
        if self.errors:
            raise self.errors.pop(0)
        return {"jobs": [self.jobs[job] for job in jobs if job in self.jobs]}

    def submit_job(self, **request: Any) -> dict[str, str]:
        if self.before_submit is not None:
            self.before_submit()
        if self.errors:
            raise self.errors.pop(0)
        self.submitted.append(request)
        job_id = f"id{len(self.submitted)}"
        self.jobs[job_id] = {"jobId": job_id, "jobName": request["jobName"], "status": "RUNNABLE"}
        return {"jobId": job_id}

    def terminate_job(self, *, jobId: str, reason: str) -> None:  # noqa: N803
        self.terminated[jobId] = reason

    def describe_job_definitions(self, **_: Any) -> dict[str, Any]:
        return {"jobDefinitions": [{"revision": 1, "jobDefinitionArn": "definition:1"}]}

    def describe_job_queues(self, **_: Any) -> dict[str, Any]:
        return {"jobQueues": self.queues}

    def describe_compute_environments(self, **_: Any) -> dict[str, Any]:
        return {"computeEnvironments": self.environments}


class StubAws:
    """What the plugin uses of `Aws`."""

    def __init__(self) -> None:
        self.s3 = StubS3()
        self.batch = StubBatch()
        self.ending = self.batch
        self.renewed = 0
        self.log: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.returned: list[str] = []

    def client(self, service: str) -> Any:
        if service == "logs":
            return self
        if service == "sqs":
            return self
        raise client_error("AccessDeniedException")

    def get_log_events(self, **_: Any) -> dict[str, Any]:
        return {"events": [{"message": line} for line in self.log]}

    def receive_message(self, **_: Any) -> dict[str, Any]:
        batch, self.messages = self.messages[:10], self.messages[10:]
        return {"Messages": batch}

    def delete_message_batch(self, *, Entries: list[dict[str, str]], **_: Any) -> None:  # noqa: N803
        self.deleted += [entry["ReceiptHandle"] for entry in Entries]

    def change_message_visibility_batch(self, *, Entries: list[dict[str, Any]], **_: Any) -> None:  # noqa: N803
        self.returned += [entry["ReceiptHandle"] for entry in Entries]

    def unambiguous(self, call: Callable[[], Any]) -> tuple[Any, bool]:
        return call(), True

    def renew(self) -> None:
        self.renewed += 1
