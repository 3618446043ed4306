"""Which job runs when: queues, capacity, attempts, retries, and the timers behind them."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tests.fake_aws.account import DEFAULT_LOG_GROUP, Account
from tests.fake_aws.engines import Engine, NullEngine, Outcome, PodmanEngine, ProcessEngine, Task, not_started
from tests.fake_aws.jobs import WAITING, Job
from tests.fake_aws.limits import MAX_OVERRIDES, overrides_too_long
from tests.fake_aws.retries import retried
from tests.fake_aws.settings import Faults, Settings


@dataclass(kw_only=True)
class _Use:
    vcpus: int = 0
    gpus: int = 0


class Scheduler:
    """All jobs of the account. One thread starts attempts; engines report back from threads of their own."""

    def __init__(self, settings: Settings, faults: Faults, account: Account, endpoint: Callable[[], str]) -> None:
        self.jobs: dict[str, Job] = {}
        self.by_queue: dict[str, list[Job]] = {}
        self._settings, self._faults, self._account, self._endpoint = settings, faults, account, endpoint
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._dirty = False
        self._waiting: dict[str, OrderedDict[str, Job]] = {}
        self._held: dict[str, Job] = {}
        self._used: dict[str, _Use] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._engines: dict[str, Engine] = {
            "null": NullEngine(settings, self.call_later, account.put_object),
            "process": ProcessEngine(settings),
            "podman": PodmanEngine(settings),
        }
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
        self._thread.start()

    # -- what the API does
    def submit(self, job: Job) -> None:
        """Takes a job on."""
        with self._lock:
            self.jobs[job.id] = job
            self.by_queue.setdefault(job.queue.arn, []).append(job)
            self._announce(job)
            if overrides_too_long(job.request):
                self._end(job, "FAILED", f"Container Overrides length must be at most {MAX_OVERRIDES}")
            else:
                self._enqueue(job)

    def terminate(self, job_id: str, reason: str) -> None:
        """Ends a job, running or not. Unknown and ended jobs are left alone, as Batch does."""
        with self._lock:
            job = self.jobs.get(job_id)
            if job is None or job.ended or job.stop_reason is not None:
                return
            job.stop_reason = reason
            if job.status in WAITING:
                self._waiting[job.queue.arn].pop(job.id, None)
                self._end(job, "FAILED", reason)
                return
            handle = job.handle
        if handle:
            handle.stop()

    def cancel(self, job_id: str, reason: str) -> None:
        """Ends a job that has not started; one that has is left alone."""
        with self._lock:
            job = self.jobs.get(job_id)
            if job is not None and job.status in WAITING:
                job.cancelled = True
                self.terminate(job_id, reason)

    def hidden(self, job: Job) -> bool:
        """Whether a fault makes the service forget this job."""
        return self._faults.lasting("vanished", job.name, job.queue.name)

    def changed(self) -> None:
        """Looks again at what waits, since settings or queues are others now."""
        with self._lock:
            self._dirty = True
            self._changed.notify()

    def forget(self) -> None:
        """Ends all jobs and forgets them."""
        with self._lock:
            jobs = list(self.jobs.values())
        for job in jobs:
            self.terminate(job.id, "forgotten")
        deadline = time.monotonic() + 10
        while self._held and time.monotonic() < deadline:
            time.sleep(0.01)
        with self._lock:
            self.jobs.clear()
            self.by_queue.clear()

    def close(self) -> None:
        """Ends everything that runs, at once."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._settings.time_scale = 1e-3
            handles = [job.handle for job in self._held.values() if job.handle]
            self._changed.notify()
        for handle in handles:
            handle.stop()
        deadline = time.monotonic() + 5
        while self._held and time.monotonic() < deadline:
            time.sleep(0.01)

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Has the scheduler's thread call `action` after a time."""
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))
            self._changed.notify()

    # -- the thread
    def _loop(self) -> None:
        while True:
            with self._lock:
                while not self._closed:
                    now = time.monotonic()
                    if self._dirty or (self._timers and self._timers[0][0] <= now):
                        break
                    self._changed.wait(self._timers[0][0] - now if self._timers else None)
                if self._closed:
                    return
                due = []
                while self._timers and self._timers[0][0] <= time.monotonic():
                    due.append(heapq.heappop(self._timers)[2])
            for action in due:
                action()
            with self._lock:
                if self._dirty:
                    self._dirty = False
                    self._dispatch()

    def _dispatch(self) -> None:
        for queue_arn, waiting in self._waiting.items():
            if not waiting:
                continue
            first = next(iter(waiting.values()))
            vcpus, gpus = self._account.capacity(first.region, queue_arn)
            used = self._used.setdefault(queue_arn, _Use())
            for job in list(waiting.values()):
                if self._settings.slots is not None and len(self._held) >= self._settings.slots:
                    return
                if used.vcpus >= vcpus and vcpus:
                    break
                needs = job.requirements
                job.status_reason = self._account.why_never(job)
                if job.status_reason is None and self._faults.lasting("stuck", job.name, job.queue.name):
                    job.status_reason = (
                        "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for "
                        f"instance type [{self._account.instance_type(job.region, queue_arn)}]"
                    )
                if job.status_reason or used.vcpus + needs.vcpus > vcpus or used.gpus + needs.gpus > gpus:
                    continue
                del waiting[job.id]
                used.vcpus += needs.vcpus
                used.gpus += needs.gpus
                self._held[job.id] = job
                self._start(job)

    def _start(self, job: Job) -> None:
        attempt = job.new_attempt()
        job.status = "STARTING"
        self._announce(job)
        fault = self._faults.for_attempt(job.name, job.queue.name, attempt)
        if fault and fault.kind in ("pull", "start"):
            usual = {
                "pull": "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve "
                f"ref {job.container.get('image')}: not found",
                "start": "CannotStartContainerError: Error response from daemon: failed to create task for container",
            }
            self.call_later(
                self._settings.starting_seconds,
                lambda: self._attempt_ended(job, not_started(fault.reason or usual[fault.kind])),
            )
            return
        options = (job.container.get("logConfiguration") or {}).get("options", {})
        group = options.get("awslogs-group", DEFAULT_LOG_GROUP)
        prefix = options.get("awslogs-stream-prefix", job.definition.name)
        stream = f"{prefix}/default/{(job.task_arn or '').rpartition('/')[2]}"
        limit = job.timeout.get("attemptDurationSeconds")
        task = Task(
            id=f"{job.id}-{attempt}",
            name=job.name,
            image=job.container.get("image", ""),
            command=job.container["command"],
            environment={**job.environment, **self._service_environment(job, attempt)},
            container=job.container,
            memory=job.requirements.memory * 2**20,
            limit=None if limit is None else limit * self._settings.time_scale,
            fault=fault,
            log=lambda text: self._account.log(job.region, group, stream, text),
            running=lambda: self._attempt_runs(job, stream),
            ended=lambda outcome: self._attempt_ended(job, outcome),
            stop_reason=lambda: job.stop_reason or "",
        )

        def begin() -> None:
            with self._lock:
                if job.stop_reason is not None:
                    stopped = Outcome(exit_code=None, reason=None, status_reason=job.stop_reason, final=True)
                    self._attempt_ended(job, stopped)
                    return
                if not self._account.open_log(job.region, group, stream):
                    reason = (
                        f"ResourceInitializationError: failed to validate logger args: the log group {group} is missing"
                    )
                    self._attempt_ended(job, not_started(reason))
                    return
                handle = self._engines[self._settings.engine].start(task)
                if not job.ended and job.id in self._held:
                    job.handle = handle
                stop_now = job.stop_reason is not None
            if stop_now:
                handle.stop()

        if self._settings.starting_seconds:
            self.call_later(self._settings.starting_seconds, begin)
        else:
            begin()

    def _service_environment(self, job: Job, attempt: int) -> dict[str, str]:
        environment = {
            "AWS_BATCH_JOB_ID": job.id,
            "AWS_BATCH_JOB_ATTEMPT": str(attempt),
            "AWS_BATCH_JQ_NAME": job.queue.name,
            "AWS_BATCH_CE_NAME": f"{job.queue.name}-environment",
            "AWS_EXECUTION_ENV": "AWS_ECS_EC2",
            # Where the services of this "region" are, and that no machine's metadata are to be asked.
            "AWS_ENDPOINT_URL": self._endpoint(),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if job.container.get("jobRoleArn"):
            environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{self._endpoint()}/_fake/credentials"
        return environment

    # -- what engines report
    def _attempt_runs(self, job: Job, stream: str) -> None:
        with self._lock:
            job.status, job.started, job.log_stream = "RUNNING", time.time(), stream
            self._announce(job)

    def _attempt_ended(self, job: Job, outcome: Outcome) -> None:
        with self._lock:
            if self._held.pop(job.id, None) is None:
                return
            job.handle = None
            used = self._used[job.queue.arn]
            used.vcpus -= job.requirements.vcpus
            used.gpus -= job.requirements.gpus
            job.end_attempt(outcome)
            if outcome.succeeded:
                self._end(job, "SUCCEEDED", outcome.status_reason)
            elif job.stop_reason is None and retried(job.retry_strategy, len(job.attempts), outcome):
                self._enqueue(job)
            else:
                self._end(job, "FAILED", job.stop_reason or outcome.status_reason)
            self._dirty = True
            self._changed.notify()

    # -- steps
    def _enqueue(self, job: Job) -> None:
        def runnable() -> None:
            with self._lock:
                if not job.ended:
                    job.status = "RUNNABLE"
                    self._announce(job)
            self.call_later(self._settings.runnable_seconds, ready)

        def ready() -> None:
            with self._lock:
                if not job.ended:
                    self._waiting[job.queue.arn][job.id] = job
                    self.changed()

        self._waiting.setdefault(job.queue.arn, OrderedDict())
        self.call_later(0, runnable)

    def _end(self, job: Job, status: str, reason: str | None) -> None:
        job.end(status, reason)
        self._announce(job)

    def _announce(self, job: Job) -> None:
        self._account.announce(job)
