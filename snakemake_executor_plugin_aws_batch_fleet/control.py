"""The life of a run's jobs on AWS Batch: submitted, adopted, followed, resubmitted, ended.

Knows nothing of Snakemake but three things to tell it (`Listener`). Three kinds of thread meet here: Snakemake's
scheduler (`start`, `cancel`, `close`), the poll (`look`), and the pool that submits; `_lock` guards what they share.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_aws_batch_fleet.adoption import LIVE, Census, Found, Verdict, judge
from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code, is_credentials_error, is_transient
from snakemake_executor_plugin_aws_batch_fleet.classify import (
    TERMINATED_BY_US,
    Failure,
    FailureClass,
    classify,
    failure,
)
from snakemake_executor_plugin_aws_batch_fleet.definitions import Definitions
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet, Queue, one_line
from snakemake_executor_plugin_aws_batch_fleet.instances import InstanceTypes
from snakemake_executor_plugin_aws_batch_fleet.ledger import Ledger, attempt_records
from snakemake_executor_plugin_aws_batch_fleet.limiter import RateLimiter
from snakemake_executor_plugin_aws_batch_fleet.logs import log_tail, without_remarks
from snakemake_executor_plugin_aws_batch_fleet.patience import Patience
from snakemake_executor_plugin_aws_batch_fleet.request import Plan, overrides, submission
from snakemake_executor_plugin_aws_batch_fleet.routing import NoQueueFitsError, choose, next_gpu_memory
from snakemake_executor_plugin_aws_batch_fleet.status import Selection, describe_jobs
from snakemake_executor_plugin_aws_batch_fleet.waiting import why_waiting

MISSES_UNTIL_VANISHED = 3
_SECONDS_UNTIL_VANISHED = 10.0
"""AWS Batch may need a moment until a new job is visible everywhere."""
_TERMINATIONS_AT_ONCE = 32
_SECONDS_TO_END = 120.0
"""How long to wait for a job that was told to end; AWS Batch kills it after 30 s."""
_LONGEST_RETRY_SECONDS = 10.0


class Listener(Protocol):
    """What wants to know how jobs fare. Called from several threads."""

    def submitted(self, work: "Work") -> None:
        """The job is at AWS Batch, as `work.job_id`."""

    def failed(self, work: "Work", text: str) -> None:
        """The job has failed for good; `text` tells why, in several lines."""

    def succeeded(self, work: "Work") -> None:
        """The job has succeeded."""

    def info(self, text: str) -> None:
        """A remark for the user."""

    def warning(self, text: str) -> None:
        """A warning for the user."""


@dataclass(kw_only=True)
class Work:
    """A job of the workflow on its way through AWS Batch."""

    job: Any
    """The caller's own; not looked at here."""
    digest: str
    wildcards: Mapping[str, str]
    plan: Plan
    queue: Queue
    in_flight: frozenset[str] = frozenset()
    """Job ids under which the caller's own marks say that it was in flight."""
    job_id: str = ""
    adopted: bool = False
    moved: bool = False
    """Whether it was resubmitted after Spot reclaims."""
    waiting_since: float | None = None
    """When it began to wait for a machine (seconds since 1970); None while it runs."""
    warned: bool = False
    misses: int = 0
    last_seen: float = 0.0

    @property
    def rule(self) -> str:
        """The rule's name, as the job's name has it."""
        return self.plan.name.rule


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the run's own files are: `s3://<bucket>/<prefix>`, with `prefix` ending in a slash."""

    bucket: str
    prefix: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Numbers from the settings. Times in seconds."""

    submit_rate: float
    submit_threads: int
    log_lines: int
    waiting_warning: float
    waiting_limit: float


class Control:
    """All jobs of a run, while this controller lives."""

    def __init__(
        self,
        *,
        aws: Aws,
        fleet: Fleet,
        place: Place,
        limits: Limits,
        listener: Listener,
        ledger: Ledger,
        definitions: Definitions,
        patience: Patience,
        selection: Selection,
        census: Census,
        began: float,
    ) -> None:
        self._aws = aws
        self._fleet = fleet
        self._place = place
        self._limits = limits
        self._listener = listener
        self._ledger = ledger
        self._definitions = definitions
        self._patience = patience
        # Of calls on behalf of submissions: they may be throttled while the looks at jobs are not.
        self._submission_patience = patience.of_other_calls()
        self._selection = selection
        self._census = census
        self._began = began
        self._instances = InstanceTypes(aws)
        self._limiter = RateLimiter(limits.submit_rate)
        self._pool = ThreadPoolExecutor(limits.submit_threads, thread_name_prefix="submit")
        self._lock = threading.Lock()
        self._live: dict[str, Work] = {}
        self._uploaded: set[str] = set()
        self._gpu_floor: dict[str, int] = {}
        # Set at Ctrl-C: whatever is submitted from now on must be ended at once.
        self._cancelled = threading.Event()
        # Set when this controller stops without ending its jobs.
        self._stopped = threading.Event()
        self._given_up: WorkflowError | None = None

    # ------------------------------------------------------------------ submission

    def gpu_floor(self, digest: str) -> int:
        """Memory (MB) of one GPU that a job needs at least, as its former attempts have shown; 0 if unknown."""
        with self._lock:
            return self._gpu_floor.get(digest, 0)

    def start(self, work: Work) -> None:
        """Bring a job to AWS Batch, in a thread of the pool: adopt it if it is there already, else submit it."""
        if self._cancelled.is_set() or self._stopped.is_set():
            return
        self._pool.submit(self._start, work)

    def _start(self, work: Work) -> None:
        try:
            if not self._adopt(work):
                self._submit(work)
        except WorkflowError as error:
            # Patience has ended. That is not the job's failure but the run's, which `look` tells.
            self._given_up = error
        except Exception as error:
            if not (self._cancelled.is_set() or self._stopped.is_set()):
                found = failure(FailureClass.REFUSED, one_line(error))
                self._listener.failed(work, headline(work, found))

    def _adopt(self, work: Work) -> bool:
        with self._lock:
            found = self._census.claim(work.plan.name.job)
        adopted: Found | None = None
        for entry in found:
            verdict = judge(entry, work.plan.name, began=self._began, in_flight=work.in_flight)
            if verdict is Verdict.ADOPT and adopted is None:
                adopted = entry
            elif entry.live:
                why = "does the same as another" if verdict is Verdict.ADOPT else "computes something out of date"
                self._listener.info(f"Ending AWS Batch job {entry.job_id} of a former controller: it {why}.")
                self._terminate(entry.job_id, f"{TERMINATED_BY_US}: it {why}")
        if adopted is None:
            # It has up to 30 s to end, and must not write its outputs over those of the new job.
            self._wait_until_ended([entry.job_id for entry in found if entry.status in LIVE])
            return False
        queue = self._fleet.queue(adopted.queue)
        assert queue is not None, "only queues of the table are asked"
        work.adopted, work.queue = True, queue
        self._listener.info(f"Following AWS Batch job {adopted.job_id} ({adopted.status}) of a former controller.")
        self._register(work, adopted.job_id, since=adopted.created)
        return True

    def _wait_until_ended(self, ids: list[str]) -> None:
        deadline = time.monotonic() + _SECONDS_TO_END
        while ids and time.monotonic() < deadline and not self._cancelled.is_set() and not self._stopped.is_set():
            described = self._patiently(partial(describe_jobs, self._aws, ids))
            ids = [job_id for job_id, job in described.items() if job["status"] in LIVE]
            if ids:
                self._cancelled.wait(1.0)

    def _submit(self, work: Work) -> None:
        doubtful = False

        def submit() -> str:
            nonlocal doubtful
            try:
                job_id, certain = self._aws.unambiguous(lambda: self._call_submit(work))
            except Exception as error:
                doubtful = doubtful or is_transient(error)
                raise
            doubtful = doubtful or not certain
            return job_id

        job_id = self._patiently(submit)
        if doubtful:
            self._patiently(lambda: self._end_twins(work, job_id))
        self._register(work, job_id, since=time.time())

    def _call_submit(self, work: Work) -> str:
        arn = self._definitions.arn(work.plan.container)
        body = overrides(work.plan, self._place.bucket, self._place.prefix, self._upload_command)
        self._limiter.wait()
        if self._cancelled.is_set() or self._stopped.is_set():
            raise InterruptedError("the run is ending")
        return self._aws.batch.submit_job(**submission(work.plan, work.queue, arn, body))["jobId"]

    def _patiently(self, call: Any) -> Any:
        """A call's result. What passes (expired credentials, no network) is waited for; the rest is raised."""
        seconds = 1.0
        while True:
            try:
                result = call()
            except Exception as error:
                if is_credentials_error(error):
                    self._patience.trouble(error)
                elif is_transient(error):
                    self._submission_patience.trouble(error)
                else:
                    raise
                if self._cancelled.wait(seconds) or self._stopped.is_set():
                    raise
                seconds = min(2 * seconds, _LONGEST_RETRY_SECONDS)
            else:
                self._submission_patience.well()
                return result

    def _upload_command(self, key: str, text: str) -> None:
        with self._lock:
            if key in self._uploaded:
                return
        self._aws.s3.put_object(Bucket=self._place.bucket, Key=key, Body=text.encode())
        with self._lock:
            self._uploaded.add(key)

    def _register(self, work: Work, job_id: str, *, since: float) -> None:
        work.job_id, work.waiting_since, work.last_seen, work.misses = job_id, since, time.time(), 0
        with self._lock:
            self._live[job_id] = work
        # After it is in the registry: a cancellation sees it either there or here, never nowhere.
        if self._cancelled.is_set():
            self._terminate(job_id, f"{TERMINATED_BY_US}: the run was cancelled")
            return
        self._listener.submitted(work)

    def _end_twins(self, work: Work, job_id: str) -> None:
        """End the second job that a SubmitJob sent twice may have made."""
        pages = self._aws.batch.get_paginator("list_jobs").paginate(
            jobQueue=work.queue.name, filters=[{"name": "JOB_NAME", "values": [str(work.plan.name)]}]
        )
        for page in pages:
            for summary in page["jobSummaryList"]:
                other = summary["jobId"]
                fresh = summary.get("createdAt", 0) / 1000 >= self._began
                with self._lock:
                    known = other in self._live
                if other != job_id and fresh and not known and summary["status"] not in ("SUCCEEDED", "FAILED"):
                    self._terminate(other, f"{TERMINATED_BY_US}: it was submitted twice")

    # ------------------------------------------------------------------ following

    def look(self, works: Sequence[Work]) -> tuple[list[Work], bool]:
        """Ask AWS Batch how jobs fare and tell the listener. Returns those still going, and whether any changed.

        Raises WorkflowError when AWS has not answered for too long.
        """
        if self._given_up is not None:
            raise self._given_up
        by_id = {work.job_id: work for work in works}
        asked = self._selection.choose(by_id)
        if not asked:
            self._watch_waiting(works)
            return list(works), False
        try:
            described = describe_jobs(self._aws, asked)
        except Exception as error:
            self._selection.again(asked)
            self._patience.trouble(error)
            return list(works), False
        self._patience.well()
        now = time.time()
        ended: list[tuple[Work, Mapping[str, Any]]] = []
        gone: set[str] = set()
        changed = False
        for job_id in asked:
            work, job = by_id[job_id], described.get(job_id)
            if job is None:
                self._selection.again([job_id])
                work.misses += 1
                if work.misses >= MISSES_UNTIL_VANISHED and now - work.last_seen >= _SECONDS_UNTIL_VANISHED:
                    gone.add(job_id)
                    self._vanished(work)
                continue
            work.misses, work.last_seen = 0, now
            if job["status"] in ("SUCCEEDED", "FAILED"):
                gone.add(job_id)
                ended.append((work, job))
            elif job["status"] == "RUNNING":
                changed = changed or work.waiting_since is not None
                work.waiting_since, work.warned = None, False
            elif work.waiting_since is None:
                # It ran, and waits again: AWS Batch retries it.
                changed, work.waiting_since = True, now
        self._settle(ended)
        left = [work for work in works if work.job_id not in gone]
        stuck = self._watch_waiting(left)
        return [work for work in left if work.job_id not in stuck], changed or bool(gone)

    def _settle(self, ended: Sequence[tuple[Work, Mapping[str, Any]]]) -> None:
        """Tell how jobs ended; reads the logs of failed ones side by side."""
        if not ended:
            return
        self._instances.learn(
            (attempt.get("container") or {}).get("containerInstanceArn", "")
            for _, job in ended
            for attempt in (job.get("attempts") or [{"container": job.get("container")}])
        )
        with ThreadPoolExecutor(8, thread_name_prefix="settle") as pool:
            list(pool.map(lambda pair: self._settle_one(*pair), ended))

    def _settle_one(self, work: Work, job: Mapping[str, Any]) -> None:
        with self._lock:
            self._live.pop(work.job_id, None)
        if job["status"] == "SUCCEEDED":
            self._record(work, job, "succeeded")
            self._listener.succeeded(work)
            return
        if self._cancelled.is_set():
            self._record(work, job, classify(job).kind.value)
            return
        stream = (job.get("container") or {}).get("logStreamName")
        lines, no_log = log_tail(self._aws, self._fleet.log_group, stream, self._limits.log_lines)
        found = classify(job, lines)
        self._record(work, job, found.kind.value)
        if work.adopted and found.kind is FailureClass.CANCELLED and TERMINATED_BY_US in found.detail:
            # The former controller had told it to end, and nothing showed that yet when it was adopted.
            self.start(replace(work, adopted=False, job_id=""))
            return
        if found.kind is FailureClass.SPOT_RECLAIM and self._move(work):
            return
        if found.gpu:
            self._raise_gpu(work)
        self._listener.failed(work, self._explain(work, job, found, lines, no_log))

    def _move(self, work: Work) -> bool:
        """Submit a job anew on demand, once, after Spot reclaims that AWS Batch's own retries did not cure."""
        if work.moved or work.plan.demand.queue is not None:
            return False
        try:
            queue = choose(work.plan.demand.need, self._fleet.queues, purchase="on_demand")
        except NoQueueFitsError:
            return False
        self._listener.info(
            f"{work.rule}: AWS Batch job {work.job_id} lost its machine too often in queue {work.queue.name}; "
            f"it goes to {queue.name}, on demand."
        )
        self.start(replace(work, queue=queue, moved=True, adopted=False, job_id=""))
        return True

    def _raise_gpu(self, work: Work) -> None:
        more = next_gpu_memory(work.queue.gpu_memory_mb, self._fleet.queues)
        if more is not None:
            with self._lock:
                self._gpu_floor[work.digest] = more

    def _vanished(self, work: Work) -> None:
        with self._lock:
            self._live.pop(work.job_id, None)
        found = failure(FailureClass.VANISHED, f"DescribeJobs has not known it {work.misses} times running")
        self._listener.failed(work, headline(work, found))

    def _watch_waiting(self, works: Iterable[Work]) -> set[str]:
        """Warn of jobs that do not start, and end those that have waited too long. Returns the ids of the latter."""
        now = time.time()
        late: dict[str, list[Work]] = {}
        ended: set[str] = set()
        for work in works:
            waited = now - work.waiting_since if work.waiting_since is not None else 0.0
            if waited > self._limits.waiting_limit:
                ended.add(work.job_id)
                self._end_stuck(work, waited)
            elif waited > self._limits.waiting_warning and not work.warned:
                work.warned = True
                late.setdefault(work.queue.name, []).append(work)
        for name, group in late.items():
            # One warning for all jobs of a queue: a queue that is shut holds up thousands.
            largest = max((work.plan.demand.need for work in group), key=lambda need: (need.vcpus, need.memory_mb))
            some = ", ".join(sorted(work.job_id for work in group)[:3]) + (" ..." if len(group) > 3 else "")
            self._listener.warning(
                f"{len(group)} job(s) in queue {name} have waited for more than "
                f"{duration(self._limits.waiting_warning)} ({some}): {why_waiting(self._aws, name, largest)}. "
                f"They fail after {duration(self._limits.waiting_limit)}."
            )
        return ended

    def _end_stuck(self, work: Work, waited: float) -> None:
        with self._lock:
            self._live.pop(work.job_id, None)
        why = why_waiting(self._aws, work.queue.name, work.plan.demand.need)
        self._terminate(work.job_id, f"{TERMINATED_BY_US}: it never started")
        found = failure(FailureClass.STUCK, f"after {duration(waited)}: {why}")
        self._listener.failed(work, headline(work, found))

    def _record(self, work: Work, job: Mapping[str, Any], final: str) -> None:
        try:
            self._ledger.add(
                attempt_records(
                    job,
                    queue=work.queue,
                    need=work.plan.demand.need,
                    wildcards=work.wildcards,
                    final=final,
                    instance_types=self._instances.known,
                )
            )
        except OSError as error:
            self._listener.warning(f"The ledger cannot be written ({error.strerror}).")

    def _explain(
        self, work: Work, job: Mapping[str, Any], found: Failure, lines: Sequence[str], no_log: str | None
    ) -> str:
        text = [headline(work, found, attempts=len(job.get("attempts") or ()))]
        if no_log:
            text.append(f"  No log: {no_log}.")
        else:
            stream = (job.get("container") or {}).get("logStreamName")
            where = f"group {self._fleet.log_group}, stream {stream}"
            shown = without_remarks(lines)[-self._limits.log_lines :] if self._limits.log_lines > 0 else []
            text.append(f"  End of its log ({where}):" if shown else f"  See its log ({where}).")
            text.extend(f"    | {line}" for line in shown)
        return "\n".join(text)

    # ------------------------------------------------------------------ the end

    def cancel(self) -> None:
        """End everything: what runs, what waits, what is being submitted at this moment, what nobody claimed."""
        self._cancelled.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            ids = set(self._live) | {entry.job_id for entry in self._census.unclaimed()}
        self._listener.info(f"Ending {len(ids)} AWS Batch jobs...")
        left = self._terminate_all(ids)
        # Those that were under way have ended themselves by now: see `_register`.
        self._pool.shutdown(wait=True)
        self._record_ended()
        if left:
            self._listener.warning(
                f"{len(left)} jobs could not be ended and go on ({', '.join(sorted(left)[:3])} ...): start the same "
                "command again to follow them, or end them in the AWS console."
            )

    def _record_ended(self) -> None:
        """Write what has ended by now into the ledger; what takes longer is written by the next controller, if any."""
        with self._lock:
            live = dict(self._live)
        try:
            described = describe_jobs(self._aws, list(live))
        except Exception as error:
            self._listener.warning(f"The ledger lacks jobs that were ended ({error_code(error)}).")
            return
        self._settle([(live[job_id], job) for job_id, job in described.items() if job["status"] not in LIVE])

    def stop(self) -> None:
        """Submit nothing more, and leave the jobs alone."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """The orderly end: jobs of former controllers that no job of the workflow asked for are ended."""
        if self._cancelled.is_set() or self._stopped.is_set():
            return
        self._pool.shutdown(wait=True)
        with self._lock:
            orphans = {entry.job_id for entry in self._census.unclaimed()}
        if orphans:
            self._listener.info(f"Ending {len(orphans)} jobs of a former controller that are no longer wanted.")
            self._terminate_all(orphans)

    def _terminate_all(self, ids: Iterable[str]) -> set[str]:
        """End jobs, many at once. Returns those for which it did not work."""
        todo = list(ids)
        with ThreadPoolExecutor(_TERMINATIONS_AT_ONCE, thread_name_prefix="terminate") as pool:
            reason = f"{TERMINATED_BY_US}: the run was cancelled"
            results = list(pool.map(lambda job_id: self._terminate(job_id, reason), todo))
        return {job_id for job_id, done in zip(todo, results, strict=True) if not done}

    def _terminate(self, job_id: str, reason: str) -> bool:
        try:
            self._aws.ending.terminate_job(jobId=job_id, reason=reason)
        except Exception as error:
            self._listener.warning(f"AWS Batch job {job_id} could not be ended ({error_code(error)}).")
            return False
        return True


def headline(work: Work, found: Failure, *, attempts: int = 1) -> str:
    """What failed, why, what to do and what AWS says, in three lines."""
    what = (
        f"AWS Batch job {work.job_id} in queue {work.queue.name}" if work.job_id else f"job for queue {work.queue.name}"
    )
    tries = f", {attempts} attempts" if attempts > 1 else ""
    return (
        f"{work.rule}: {what} failed ({found.kind}{tries}): {found.what}\n"
        f"  What to do: {found.advice}\n"
        f"  AWS says: {found.detail}"
    )


def duration(seconds: float) -> str:
    """Seconds in a unit that reads well."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
