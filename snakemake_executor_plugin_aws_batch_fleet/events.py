"""State changes of jobs, as EventBridge writes them to an SQS queue."""

import json
import time
from collections.abc import Callable
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code

_MOST_ROUNDS = 200
_FOREIGN_SECONDS = 300
"""Age at which an event of nobody known is removed, so that it does not come back for ever."""


class Events:
    """Reads the queue. Runs may share it: an event of another run is put back for its controller."""

    def __init__(self, aws: Aws, url: str, run: str, warn: Callable[[str], None]) -> None:
        self._aws = aws
        self._url = url
        self._prefix = f"{run}-"
        self._warn = warn
        self._warned = False

    def changed(self) -> set[str] | None:
        """Ids of this run's jobs whose state changed; None when the queue cannot be read."""
        found: set[str] = set()
        for _ in range(_MOST_ROUNDS):
            try:
                messages = (
                    self._aws.client("sqs")
                    .receive_message(
                        QueueUrl=self._url,
                        MaxNumberOfMessages=10,
                        WaitTimeSeconds=0,
                        MessageSystemAttributeNames=["SentTimestamp"],
                    )
                    .get("Messages", [])
                )
                self._settle(messages, found)
            except Exception as error:
                if not self._warned:
                    self._warn(
                        f"Queue of events {self._url} cannot be read ({error_code(error)}): all jobs are polled."
                    )
                    self._warned = True
                # What was read is gone from the queue, so ask for all jobs.
                return None
            if len(messages) < 10:
                break
        return found

    def _settle(self, messages: list[dict[str, Any]], found: set[str]) -> None:
        done, back = [], []
        for index, message in enumerate(messages):
            entry = {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
            detail = event_detail(message["Body"])
            if detail is None:
                done.append(entry)
            elif str(detail.get("jobName", "")).startswith(self._prefix):
                found.add(str(detail.get("jobId")))
                done.append(entry)
            else:
                sent = int(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000
                (done if time.time() - sent > _FOREIGN_SECONDS else back).append(entry)
        client = self._aws.client("sqs")
        if done:
            client.delete_message_batch(QueueUrl=self._url, Entries=done)
        if back:
            entries = [{**entry, "VisibilityTimeout": 5} for entry in back]
            client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)


def event_detail(body: str) -> dict[str, Any] | None:
    """The detail of a job's state change, None when the message is something else."""
    try:
        event = json.loads(body)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("detail-type") != "Batch Job State Change":
        return None
    detail = event.get("detail")
    return detail if isinstance(detail, dict) else None
