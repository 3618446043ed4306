"""The rest of the account, which is moto's: queues, definitions, logs, events, S3, from inside the server."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from typing import Any

from tests.fake_aws.jobs import Definition, Job, Queue, milliseconds
from tests.fake_aws.limits import client_error
from tests.fake_aws.machines import fitting, machines
from tests.fake_aws.settings import Settings

ACCOUNT = "123456789012"
DEFAULT_LOG_GROUP = "/aws/batch/job"


class Account:
    """What jobs need of the services around them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._events: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._send_events, name="events", daemon=True).start()

    def preload(self) -> None:
        """Imports what moto takes seconds for, so that the first caller need not wait for it."""
        for _ in self._batch("us-east-1").ec2_backend.describe_subnets():
            return

    # -- Batch's own records
    def definition(self, region: str, identifier: str) -> Definition:
        """The active job definition of a name, a name with revision, or an ARN."""
        found = self._batch(region).get_job_definition(identifier)
        if found is None:
            raise client_error(f"Error executing request, Exception : JobDefinition {identifier} does not exist.")
        if found.status != "ACTIVE":
            raise client_error(f"Error executing request, Exception : JobDefinition {identifier} is not ACTIVE.")
        return Definition(
            arn=found.arn,
            name=found.name,
            container=found.container_properties or {},
            parameters=found.parameters,
            retry_strategy=found.retry_strategy or {},
            timeout=found.timeout or {},
            propagate_tags=bool(found.propagate_tags),
            tags=self._batch(region).list_tags_for_resource(found.arn),
        )

    def queue(self, region: str, identifier: str) -> Queue:
        """The queue of a name or an ARN."""
        found = self._moto_queue(region, identifier)
        return Queue(arn=found.arn, name=found.name)

    def queue_state(self, region: str, identifier: str) -> tuple[bool, bool]:
        """Whether the queue takes jobs, and whether it has a fair-share policy."""
        found = self._moto_queue(region, identifier)
        laid_over = self._settings.job_queues.get(found.name, {})
        takes = laid_over.get("state", found.state) == "ENABLED" and laid_over.get("status", found.status) == "VALID"
        return takes, bool(found.schedule_policy)

    def capacity(self, region: str, queue_arn: str) -> tuple[int, int]:
        """vCPUs and GPUs that the queue's compute environments may have at once."""
        vcpus = gpus = 0
        for resources in self._usable(region, queue_arn):
            most = int(resources["maxvCpus"])
            vcpus += most
            gpus += max((most // m.vcpus * m.gpus for t in resources["instanceTypes"] for m in machines(t)), default=0)
        return vcpus, gpus

    def why_never(self, job: Job) -> str | None:
        """Why a queue can never run a job, as DescribeJobs says it; None when it can."""
        usable = self._usable(job.region, job.queue.arn)
        if not usable:
            return "MISCONFIGURATION:COMPUTE_ENVIRONMENT - All CEs attached to the job queue are disabled or invalid."
        types = [name for resources in usable for name in resources["instanceTypes"]]
        needs = job.requirements
        if fitting(types, needs.vcpus, needs.memory, needs.gpus) is None:
            return (
                "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher "
                "than that can be met by the CE(s) attached to the job queue."
            )
        if needs.vcpus > max(int(resources["maxvCpus"]) for resources in usable):
            return (
                "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue cannot meet "
                "the job requirement."
            )
        return None

    def instance_type(self, region: str, queue_name: str) -> str:
        """The first machine type of a queue, which its container instances are said to be."""
        types = [name for r in self._usable(region, queue_name) for name in r["instanceTypes"]]
        found = [machine.name for name in types for machine in machines(name)]
        return found[0] if found else "m5.large"

    # -- logs
    def open_log(self, region: str, group: str, stream: str) -> bool:
        """Makes a log stream. False when the group does not exist; Batch makes only its own default group."""
        logs = self._logs(region)
        if group == DEFAULT_LOG_GROUP:
            logs.ensure_log_group(group)
        if group not in logs.groups:
            return False
        logs.ensure_log_stream(group, stream)
        return True

    def log(self, region: str, group: str, stream: str, text: bytes) -> None:
        """Appends lines to a log stream."""
        now = milliseconds(time.time())
        # CloudWatch takes no empty message; the agent sends a space.
        lines = [line or " " for line in text.decode(errors="replace").replace("\r", "").split("\n")]
        self._logs(region).put_log_events(group, stream, [{"timestamp": now, "message": line} for line in lines])

    def read_log(self, region: str, group: str, stream: str) -> list[str]:
        """All lines of a log stream; none when it does not exist."""
        found = self._logs(region).groups.get(group)
        if found is None or stream not in found.streams:
            return []
        return [event.message for event in found.streams[stream].events]

    # -- events
    def announce(self, job: Job) -> None:
        """Sends EventBridge's "Batch Job State Change" to whatever rule asks for it."""
        if self._rules(job.region):
            self._events.put((job.region, job.description()))

    def _send_events(self) -> None:
        while True:
            region, detail = self._events.get()
            event = {
                "version": "0",
                "id": str(uuid.uuid4()),
                "detail-type": "Batch Job State Change",
                "source": "aws.batch",
                "account": ACCOUNT,
                "time": time.time(),  # moto writes it as a date
                "region": region,
                "resources": [detail["jobArn"]],
                "detail": json.loads(json.dumps(detail)),
            }
            for rule in self._rules(region):
                # moto's templates break on quotation marks in an event, hence untransformed.
                rule.send_to_targets(event, transform_input=False)

    def _rules(self, region: str) -> list[Any]:
        from moto.events.models import events_backends

        buses = events_backends[ACCOUNT][region].event_buses
        return list(buses["default"].rules.values()) if "default" in buses else []

    # -- S3
    def empty(self) -> None:
        """Deletes all objects and all messages."""
        from moto.s3.models import s3_backends
        from moto.sqs.models import sqs_backends

        for backend in sqs_backends[ACCOUNT].values():
            for messages in backend.queues.values():
                messages.last_purged_at = None  # SQS purges once a minute
                backend.purge_queue(messages.name)
        for bucket in s3_backends[ACCOUNT]["aws"].buckets.values():
            bucket.keys.clear()
            bucket.multiparts.clear()

    def put_object(self, bucket: str, key: str, body: bytes) -> None:
        """Writes an object, past the API and its counts."""
        from moto.s3.models import s3_backends

        s3_backends[ACCOUNT]["aws"].put_object(bucket, key, body)

    # -- moto's backends
    def _usable(self, region: str, queue_identifier: str) -> list[dict[str, Any]]:
        """computeResources of the queue's environments that are enabled and valid."""
        usable = []
        for environment in self._moto_queue(region, queue_identifier).environments:
            laid_over = self._settings.compute_environments.get(environment.name, {})
            if laid_over.get("state", environment.state) != "ENABLED" or laid_over.get("status", "VALID") != "VALID":
                continue
            usable.append({**(environment.compute_resources or {}), **laid_over.get("computeResources", {})})
        return usable

    def _moto_queue(self, region: str, identifier: str) -> Any:
        found = self._batch(region).get_job_queue(identifier)
        if found is None:
            raise client_error(f"Error executing request, Exception : JobQueue {identifier} does not exist.")
        return found

    def _batch(self, region: str) -> Any:
        from moto.batch.models import batch_backends

        return batch_backends[ACCOUNT][region]

    def _logs(self, region: str) -> Any:
        from moto.logs.models import logs_backends

        return logs_backends[ACCOUNT][region]
