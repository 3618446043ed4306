"""`snakefold stop`: an end to the controller and all jobs of a run. What is finished stays."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from snakefold.away.jobs import CONTROLLER, BatchJob, list_jobs
from snakefold.away.run import LOCK, Run, asking
from snakefold.errors import SnakefoldError
from snakemake_executor_plugin_aws_batch_fleet.aws import error_code, is_credentials_error
from snakemake_executor_plugin_aws_batch_fleet.classify import TERMINATED_BY_US

_AT_ONCE = 32
_REASON = f"{TERMINATED_BY_US}: snakefold stop"
_SECONDS_BETWEEN_LOOKS = 2.0


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What was ended, and the words of AWS for jobs that could not be."""

    controllers: int
    jobs: int
    failures: tuple[str, ...]


def stop(run: Run, say: Callable[[str], None]) -> Stopped:
    """End everything that lives of a run. Does nothing, and that well, when nothing does.

    The lock goes first: a controller on some machine that this command cannot end finds that it has lost the run,
    within its heartbeat, and submits nothing more. Until then what it submits is ended here.
    """
    lock = run.lock()
    run.own.delete([LOCK])
    deadline = time.monotonic()
    if lock is not None and lock.stale is None and lock.owner is not None and lock.owner.batch_job_id is None:
        # Its heartbeat may just have been, and takes a moment itself.
        deadline += lock.owner.heartbeat_seconds + _SECONDS_BETWEEN_LOOKS
        say(f"waiting {deadline - time.monotonic():.0f} s until the controller on {lock.owner.host} has noticed")
    ended: dict[str, BatchJob] = {}
    failures: dict[str, str] = {}
    while True:
        # Twice at least: a controller may have submitted while its own end was under way.
        todo = [job for job in list_jobs(run) if job.live and not job.ending and job.id not in ended]
        todo.sort(key=lambda job: job.rule != CONTROLLER)
        new = [job for job in todo if job.id not in failures]
        for job, fault in zip(new, _terminate(run, new), strict=True):
            if fault is None:
                ended[job.id] = job
            else:
                failures[job.id] = fault
        if not new:
            if time.monotonic() >= deadline:
                break
            time.sleep(min(_SECONDS_BETWEEN_LOOKS, max(0.0, deadline - time.monotonic())))
    controllers = sum(job.rule == CONTROLLER for job in ended.values())
    return Stopped(controllers=controllers, jobs=len(ended) - controllers, failures=tuple(failures.values()))


def _terminate(run: Run, jobs: list[BatchJob]) -> list[str | None]:
    """End jobs side by side; for each None, or why it could not be ended."""

    def one(job: BatchJob) -> str | None:
        try:
            run.aws.batch.terminate_job(jobId=job.id, reason=_REASON)
        except Exception as error:
            if is_credentials_error(error):
                raise
            return f"job {job.id} ({job.rule}) could not be ended: {error_code(error)}"
        return None

    with asking("AWS Batch (batch:TerminateJob)"), ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, jobs))


def refuse_failures(stopped: Stopped) -> None:
    """Raises SnakefoldError that names what could not be ended."""
    if stopped.failures:
        raise SnakefoldError(
            f"{'; '.join(stopped.failures[:3])}; {len(stopped.failures)} jobs may go on: run `stop` again"
        )
