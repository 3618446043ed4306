"""A run from its start to its end: checks first, then the lock, then the jobs of former controllers."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_aws_batch_fleet.adoption import Census, find_jobs
from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code, is_credentials_error, preflight
from snakemake_executor_plugin_aws_batch_fleet.backlog import record_backlog
from snakemake_executor_plugin_aws_batch_fleet.control import Control, Limits, Listener, Place, Work
from snakemake_executor_plugin_aws_batch_fleet.definitions import ContainerSpec, Definitions
from snakemake_executor_plugin_aws_batch_fleet.events import Events
from snakemake_executor_plugin_aws_batch_fleet.fleet import load_fleet, one_line
from snakemake_executor_plugin_aws_batch_fleet.identity import job_name, run_id, sources_digest, work_digest
from snakemake_executor_plugin_aws_batch_fleet.ledger import Ledger
from snakemake_executor_plugin_aws_batch_fleet.lock import Heartbeat, LockLostError, RunLock, this_process
from snakemake_executor_plugin_aws_batch_fleet.patience import Patience
from snakemake_executor_plugin_aws_batch_fleet.request import Plan, check_secrets, image_reference, tag_value
from snakemake_executor_plugin_aws_batch_fleet.routing import choose
from snakemake_executor_plugin_aws_batch_fleet.settings import ExecutorSettings
from snakemake_executor_plugin_aws_batch_fleet.snakejobs import (
    demand_of,
    digest_of,
    inputs_of,
    jobs_in_flight,
    wildcards_of,
)
from snakemake_executor_plugin_aws_batch_fleet.status import Interval, Selection

_UPLOAD_LEDGER_SECONDS = 180.0


class Run:
    """Everything that one controller holds of one run."""

    def __init__(
        self, *, workflow: Any, settings: ExecutorSettings, environment: dict[str, str], listener: Listener
    ) -> None:
        began = time.time()
        self._workflow = workflow
        self._settings = settings
        self._listener = listener
        self._fleet = load_fleet(settings.file)
        _check_settings(settings)
        bucket, prefix = storage_place(workflow.storage_settings.default_storage_prefix)
        self.run_id = run_id(f"s3://{bucket}/{prefix}")
        self._environment = _environment(environment, self._fleet.region)
        self._place = Place(bucket=bucket, prefix=f"{prefix}.fleet/")
        self._aws = Aws(self._fleet.region)
        preflight(self._aws)
        self._sources = sources_digest(workflow.dag.get_sources(), Path.cwd())
        archive = getattr(workflow, "_source_archive", None)
        self._archive = (archive.query, archive.checksum) if archive is not None else ()
        self._tags = {
            **{key: tag_value(value) for key, value in self._fleet.tags.items()},
            "snakemake-run": self.run_id,
            "snakemake-prefix": tag_value(f"s3://{bucket}/{prefix}"),
        }
        self._patience = Patience(self._aws, listener.warning, settings.credentials_grace * 60)
        self._interval = Interval(workflow.remote_execution_settings.seconds_between_status_checks)
        self._ledger = Ledger(
            Path(".snakemake") / "aws-batch-fleet" / self.run_id / "ledger.jsonl",
            self._aws,
            bucket,
            f"{self._place.prefix}ledger.jsonl",
        )
        self._lock = RunLock(self._aws, bucket, f"{self._place.prefix}lock.json", this_process(settings.heartbeat))
        self._uploaded_at = time.monotonic()
        self._heartbeat = Heartbeat(settings.heartbeat, self._beat)
        self.control = self._open(began)
        self._heartbeat.start()

    def _open(self, began: float) -> Control:
        """The first calls to AWS: whatever is wrong shows here, in one line, before anything is submitted."""
        what = f"bucket {self._place.bucket} (s3:PutObject, s3:GetObject)"
        try:
            note = self._lock.acquire()
            if note:
                self._listener.warning(note)
            self._ledger.restore()
            what = "AWS Batch (batch:ListJobs)"
            found = find_jobs(self._aws, [queue.name for queue in self._fleet.queues], self.run_id)
        except WorkflowError:
            raise
        except Exception as error:
            self._release()
            hint = " Renew your AWS credentials." if is_credentials_error(error) else ""
            raise WorkflowError(f"Cannot use {what} in {self._fleet.region}: {one_line(error)}.{hint}") from None
        self._backlog = found
        events = None
        if self._fleet.events_queue_url:
            events = Events(self._aws, self._fleet.events_queue_url, self.run_id, self._listener.warning).changed
        return Control(
            aws=self._aws,
            fleet=self._fleet,
            place=self._place,
            limits=Limits(
                submit_rate=self._settings.submit_rate,
                submit_threads=self._settings.submit_threads,
                log_lines=self._settings.log_lines,
                waiting_warning=self._settings.waiting_warning * 60,
                waiting_limit=self._settings.waiting_limit * 60,
            ),
            listener=self._listener,
            ledger=self._ledger,
            definitions=Definitions(self._aws, self._tags),
            patience=self._patience,
            selection=Selection(events),
            census=Census(found),
            began=began,
        )

    def work(self, job: Any, command: str) -> Work:
        """A job as work for AWS Batch. ValueError or NoQueueFitsError when it cannot be."""
        check_secrets({}, command)
        digest = digest_of(job)
        demand = demand_of(job)
        if floor := self.control.gpu_floor(digest):
            demand = demand.with_gpu_memory(floor)
        queue = choose(demand.need, self._fleet.queues, forced=demand.queue)
        default_image = self._workflow.remote_execution_settings.container_image
        spec = ContainerSpec(
            image=image_reference(demand.image, self._fleet, default_image),
            mounts=(*self._fleet.mounts, *demand.mounts),
            job_role_arn=self._fleet.job_role_arn,
            execution_role_arn=self._fleet.execution_role_arn,
            shm_mib=demand.shm_mib,
            log_group=self._fleet.log_group,
            attempts=self._settings.attempts,
        )
        work = work_digest(
            command,
            archive=self._archive,
            sources=self._sources,
            image=spec.image,
            mounts=spec.mounts,
            inputs=inputs_of(job),
        )
        name = job_name(run=self.run_id, rule=job.name, job=digest, work=work)
        plan = Plan(
            name=name,
            demand=demand,
            container=spec,
            command=command,
            environment=tuple(sorted(self._environment.items())),
            tags=tuple({**self._tags, "snakemake-rule": tag_value(job.name)}.items()),
        )
        return Work(
            job=job,
            digest=digest,
            wildcards=wildcards_of(job),
            plan=plan,
            queue=queue,
            in_flight=jobs_in_flight(self._workflow.persistence, job),
        )

    def look(self, works: list[Work]) -> tuple[list[Work], float]:
        """Follow the jobs once. Returns those still going and seconds until the next look."""
        if self._lock.lost.is_set():
            self.stop()
            raise LockLostError(
                "Another controller has taken this run over. This one submits nothing more and leaves the jobs to it."
            )
        try:
            left, changed = self.control.look(works)
        except WorkflowError:
            self.stop()
            raise
        return left, self._interval.after(jobs=len(left), changed=changed)

    def stop(self) -> None:
        """Submit nothing more, and leave the jobs alone."""
        self.control.stop()
        # Snakemake removes the archive of sources at the end of every run; jobs that wait for a machine need it yet.
        self._workflow._source_archive = None

    def close(self) -> None:
        """The end, orderly or not: nothing here may raise, or the run's result would be lost."""
        self._heartbeat.stop()
        for step in (self.control.close, self._ledger.upload, self._release):
            try:
                step()
            except Exception as error:
                if is_credentials_error(error):
                    what = f"Without credentials ({error_code(error)}) the run's lock and ledger in S3 stay as they are"
                    self._listener.warning(f"{what}; the next controller takes them over.")
                    break
                self._listener.warning(f"At the end of the run: {one_line(error)}")
        calls = ", ".join(f"{name} {count}" for name, count in sorted(self._aws.calls.items()))
        self._listener.info(f"Calls to AWS by the executor: {calls}.")

    def _beat(self) -> None:
        try:
            self._lock.beat()
            if self._backlog and not self._lock.lost.is_set():
                # Here, not at the start: thousands of ended jobs must not hold up the run.
                record_backlog(self._aws, self._fleet, self._ledger, self._backlog)
                self._backlog = []
            if time.monotonic() - self._uploaded_at > _UPLOAD_LEDGER_SECONDS:
                self._uploaded_at = time.monotonic()
                self._ledger.upload()
        except Exception as error:
            if is_credentials_error(error):
                self._aws.renew()
            else:
                self._listener.warning(f"The run's lock could not be renewed ({error_code(error)}); trying again.")

    def _release(self) -> None:
        self._lock.release()


def storage_place(prefix: str | None) -> tuple[str, str]:
    """Bucket and key prefix (empty, or ending in a slash) of the default storage prefix. WorkflowError if not on S3."""
    parsed = urlparse(prefix or "")
    if parsed.scheme != "s3" or not parsed.netloc:
        given = f"it is {prefix}" if prefix else "none is set"
        raise WorkflowError(
            f"AWS Batch needs --default-storage-prefix s3://BUCKET/PREFIX, where jobs read and write; {given}."
        )
    key = parsed.path.strip("/")
    return parsed.netloc, f"{key}/" if key else ""


def _environment(passed: dict[str, str], region: str) -> dict[str, str]:
    """Environment variables of every job. WorkflowError for credentials and for names that AWS Batch keeps."""
    try:
        check_secrets(passed)
    except ValueError as error:
        raise WorkflowError(f"{one_line(error)}.") from None
    if kept := sorted(name for name in passed if name.startswith("AWS_BATCH")):
        raise WorkflowError(f"Environment variables that begin with AWS_BATCH cannot be passed on: {', '.join(kept)}.")
    return {"AWS_DEFAULT_REGION": region, **passed}


def _check_settings(settings: ExecutorSettings) -> None:
    faults = []
    if not 1 <= settings.attempts <= 10:
        faults.append(f"attempts must be from 1 to 10, not {settings.attempts}")
    positive = ("submit_rate", "submit_threads", "heartbeat", "waiting_limit")
    faults += [f"{name.replace('_', '-')} must be above 0" for name in positive if getattr(settings, name) <= 0]
    if faults:
        raise WorkflowError("\n".join(f"--aws-batch-fleet-{fault}." for fault in faults))
