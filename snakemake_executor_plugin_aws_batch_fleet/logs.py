"""The last lines of a job's log."""

from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code

_READ_AT_LEAST = 100
"""Lines to read for classification, whatever number is shown."""


def log_tail(aws: Aws, group: str, stream: str | None, lines: int) -> tuple[list[str], str | None]:
    """The last lines of a log stream, at least 100 if it has them, and why there are none."""
    if not stream:
        return [], "it left no log: the container did not start"
    try:
        answer: dict[str, Any] = aws.client("logs").get_log_events(
            logGroupName=group, logStreamName=stream, limit=max(lines, _READ_AT_LEAST), startFromHead=False
        )
    except Exception as error:
        # A log is help for the reader, never a reason to fail.
        code = error_code(error)
        if code == "ResourceNotFoundException":
            return [], "its log is not there (yet)"
        return [], f"its log cannot be read ({code}; the right logs:GetLogEvents is needed)"
    return [event["message"] for event in answer["events"]], None
