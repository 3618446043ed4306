"""The last lines of a job's log."""

import re
from collections.abc import Iterable
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code

_READ_AT_LEAST = 100
"""Lines to read for classification, whatever number is shown."""

# What Snakemake prints in every job, whatever happens; --quiet leaves these.
_REMARK = re.compile(
    r"Building DAG of jobs\.\.\.|Using shell: .*|Select jobs to execute\.\.\.|Execute \d+ jobs\.\.\."
    r"|Retrieving input from storage\.|Storing output in storage\.|Shutting down, this might take some time\."
    r"|Exiting because a job execution failed\. Look above for error messages|Elapsed time: [\d:.]+"
    r"|At least one job did not complete successfully\."
)


def without_remarks(lines: Iterable[str]) -> list[str]:
    """The lines of a log without Snakemake's usual remarks, so that few lines hold much of the tool's own."""
    kept: list[str] = []
    for line in lines:
        if not _REMARK.fullmatch(line.strip()):
            kept.append(line)
        elif kept and kept[-1] == "WorkflowError:":
            kept.pop()
    return kept


def log_tail(aws: Aws, group: str, stream: str | None, lines: int) -> tuple[list[str], str | None]:
    """The last lines of a log stream, at least 100 if it has them, and why there are none."""
    if not stream:
        return [], "the container did not start"
    try:
        answer: dict[str, Any] = aws.client("logs").get_log_events(
            logGroupName=group, logStreamName=stream, limit=max(lines, _READ_AT_LEAST), startFromHead=False
        )
    except Exception as error:
        # A log is help for the reader, never a reason to fail.
        code = error_code(error)
        if code == "ResourceNotFoundException":
            return [], "it is not there (yet)"
        return [], f"it cannot be read ({code}; the right logs:GetLogEvents is needed)"
    return [event["message"] for event in answer["events"]], None
