"""`snakefold logs`: what a job of a run has said, from CloudWatch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snakefold.away.jobs import CONTROLLER, BatchJob, describe, list_jobs
from snakefold.away.run import Run, asking
from snakefold.errors import SnakefoldError
from snakemake_executor_plugin_aws_batch_fleet.aws import error_code

_PAGE = 10_000
"""Events that one call gives at most."""
_SECONDS_BETWEEN_LOOKS = 3.0
ENDED = ("SUCCEEDED", "FAILED")
"""States of a job that has ended."""


class NoLogYetError(SnakefoldError):
    """CloudWatch does not know a stream: its job has said nothing yet, or the log group is wrong."""


@dataclass(frozen=True, kw_only=True)
class LogSource:
    """A job whose log is wanted, with all that AWS Batch knows of it."""

    job_id: str
    rule: str
    described: Mapping[str, Any]

    @property
    def state(self) -> str:
        """The job's state."""
        return self.described["status"]

    @property
    def stream(self) -> str | None:
        """The log stream of the latest attempt; None before there is one."""
        container = self.described.get("container") or {}
        if name := container.get("logStreamName"):
            return name
        attempts = self.described.get("attempts") or [{}]
        return (attempts[-1].get("container") or {}).get("logStreamName")


def find(run: Run, wanted: str | None) -> LogSource:
    """The job meant by an id, the beginning of one, a name or a rule; by default the controller.

    Of several the newest that runs is taken, else the newest that failed, else the newest. Raises SnakefoldError.
    """
    launch = run.launch() if wanted in (None, CONTROLLER) else None
    if launch is not None:
        described = describe(run, launch.job_id)
        if described is not None:
            return LogSource(job_id=launch.job_id, rule=CONTROLLER, described=described)
    jobs = list_jobs(run)
    name = wanted or CONTROLLER
    meant = [
        job for job in jobs if name in (job.id, job.name, job.rule) or (len(name) >= 6 and job.id.startswith(name))
    ]
    if not meant:
        raise SnakefoldError(_nothing(run, wanted, jobs))
    best = min(meant, key=lambda job: (job.state != "RUNNING", job.state != "FAILED"))
    described = describe(run, best.id)
    if described is None:
        raise SnakefoldError(f"job {best.id}: AWS Batch has forgotten it meanwhile; choose another, see `status`")
    return LogSource(job_id=best.id, rule=best.rule, described=described)


def tail(run: Run, source: LogSource, lines: int) -> tuple[list[str], str | None]:
    """The last lines of a job's log, and the token from which it goes on. Raises SnakefoldError if there is none."""
    stream = source.stream
    if stream is None:
        raise SnakefoldError(_no_log(source))
    found: list[str] = []
    forward: str | None = None
    more: dict[str, Any] = {"startFromHead": False}
    # An answer holds a megabyte at most, perhaps fewer lines than asked for.
    while len(found) < lines:
        answer = _events(run, source, stream, limit=min(_PAGE, lines - len(found)), **more)
        forward = forward or answer["nextForwardToken"]
        if answer["nextBackwardToken"] == more.get("nextToken"):
            break
        more = {"startFromHead": False, "nextToken": answer["nextBackwardToken"]}
        found = [event["message"] for event in answer["events"]] + found
    return found, forward


def follow(run: Run, source: LogSource, lines: int, say: Callable[[str], None]) -> str:
    """Say the last lines of a job's log, and what is added, until the job has ended; returns its state.

    An attempt after a machine was taken away has a log of its own, which is followed next.
    """
    token: str | None = None
    stream: str | None = None
    while True:
        if source.stream is not None and source.stream != stream:
            try:
                begun, token = tail(run, source, lines if stream is None else _PAGE)
            except NoLogYetError:
                if source.state in ENDED:
                    raise
            else:
                stream = source.stream
                for line in begun:
                    say(line)
        elif stream is not None:
            token = _say_new(run, source, stream, token, say)
        if source.state in ENDED:
            if stream is None:
                raise NoLogYetError(_no_log(source))
            _say_new(run, source, stream, token, say)
            return source.state
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        described = describe(run, source.job_id)
        if described is None:
            raise SnakefoldError(f"job {source.job_id}: AWS Batch does not know it any more")
        source = LogSource(job_id=source.job_id, rule=source.rule, described=described)


def _say_new(run: Run, source: LogSource, stream: str, token: str | None, say: Callable[[str], None]) -> str | None:
    """Say what was added since a token; returns the next."""
    while True:
        more = {"nextToken": token} if token else {}
        answer = _events(run, source, stream, limit=_PAGE, startFromHead=True, **more)
        for event in answer["events"]:
            say(event["message"])
        if answer["nextForwardToken"] == token:
            return token
        token = answer["nextForwardToken"]


def _events(run: Run, source: LogSource, stream: str, **request: Any) -> Any:
    group = run.fleet.log_group
    with asking("CloudWatch (logs:GetLogEvents)"):
        try:
            return run.aws.client("logs").get_log_events(logGroupName=group, logStreamName=stream, **request)
        except Exception as error:
            if error_code(error) == "ResourceNotFoundException":
                raise NoLogYetError(
                    f"job {source.job_id} ({source.state}): its log {stream} is not in group {group} (yet); if it "
                    "stays away, see that log_group in the fleet file is right"
                ) from None
            raise


def _no_log(source: LogSource) -> str:
    why = source.described.get("statusReason") or "no machine has taken it yet"
    return f"job {source.job_id} ({source.rule}) is {source.state} and has no log: {why}; see `status`"


def _nothing(run: Run, wanted: str | None, jobs: list[BatchJob]) -> str:
    if wanted is None:
        return f"run {run.name}: nobody launched it, or its controller ended over a week ago; see `status`"
    rules = sorted({job.rule for job in jobs})
    known = f"a rule of {', '.join(rules)}, or a job's id" if rules else "AWS Batch knows no job of this run"
    return f"run {run.name}: no job or rule {wanted!r}; {known}"
