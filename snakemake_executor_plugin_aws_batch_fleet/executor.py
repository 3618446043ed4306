"""The executor as Snakemake sees it: turns Snakemake's jobs into work for `Control`, and its news into Snakemake's."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

if TYPE_CHECKING:
    from snakemake_executor_plugin_aws_batch_fleet.control import Work
    from snakemake_executor_plugin_aws_batch_fleet.run import Run

_SLICE_SECONDS = 0.2


class AwsBatchError(WorkflowError):
    """An error whose message says it all.

    Snakemake prints, below the message of an error, each frame of plugins that it passed through; a user can do nothing
    with those. Snakemake takes them from this attribute, Python itself does not.
    """

    @property
    def __traceback__(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """None."""

    @__traceback__.setter
    def __traceback__(self, frames: TracebackType | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Context managers set it."""


class Executor(RemoteExecutor):
    """Runs jobs on AWS Batch."""

    # The base class starts its polling thread before `__post_init__` is called.
    _run: "Run | None" = None

    def __post_init__(self) -> None:
        if not len(self.workflow.dag):  # pyright: ignore[reportAttributeAccessIssue]
            # Nothing to be done: Snakemake makes the executor all the same, and never shuts it down.
            return
        if self.workflow.remote_execution_settings.immediate_submit:
            raise WorkflowError(
                "--immediate-submit cannot be used with AWS Batch: the executor has to follow its jobs."
            )
        from snakemake_executor_plugin_aws_batch_fleet.run import Run

        self._leave_out_settings_of_unused_storage()
        self._persistence_lock = threading.Lock()
        try:
            self._run = Run(
                workflow=self.workflow,
                settings=self.workflow.executor_settings,  # pyright: ignore[reportAttributeAccessIssue]
                environment=dict(self.envvars()),
                listener=self,
            )
        except WorkflowError as error:
            raise AwsBatchError(str(error)) from None

    def _leave_out_settings_of_unused_storage(self) -> None:
        """Snakemake sends jobs the settings of all storage plugins installed here; images may lack some of these."""
        workflow: Any = self.workflow
        # By the names of plugins, which are there even if the workflow only uses a tag of one.
        used = workflow.storage_registry._storages
        settings = workflow.storage_provider_settings
        workflow.storage_provider_settings = {name: given for name, given in settings.items() if name in used}

    # ------------------------------------------------------------------ what Snakemake calls

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Hand jobs to the threads that submit; a job that cannot be submitted fails alone."""
        for job in jobs:
            self.run_job_pre(job)
            self.run_job(job)

    def run_job(self, job: JobExecutorInterface) -> None:
        """Hand one job over."""
        from snakemake_executor_plugin_aws_batch_fleet.routing import NoQueueFitsError

        assert self._run is not None
        try:
            work = self._run.work(job, self.format_job_exec(job))
        except (ValueError, NoQueueFitsError, WorkflowError) as error:
            self._fail(job, f"{job.name} cannot run on AWS Batch: {str(error).rstrip('.')}.")
            return
        self._run.control.start(work)

    # The base class declares a coroutine, and iterates over what it calls.
    async def check_active_jobs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """One look at all jobs. Blocks this thread, which has nothing else to do."""
        if self._run is None:
            for info in active_jobs:
                yield info
            return
        # One that was resubmitted meanwhile has another id, and an entry of its own.
        infos = {info.external_jobid: info for info in active_jobs}
        works = [info.aux["work"] for info in active_jobs if info.aux is not None]
        try:
            left, seconds = self._run.look(works)
        except WorkflowError as error:
            scheduler: Any = self.workflow.scheduler
            scheduler.executor_error_callback(AwsBatchError(str(error)))
            left, seconds = [], 1.0
        self.next_seconds_between_status_checks = seconds
        for work in left:
            yield infos[work.job_id]

    async def sleep(self) -> None:
        """Wait until the next look, but not beyond the end of the run."""
        end = time.monotonic() + (self.next_seconds_between_status_checks or 0)
        while self.wait and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _SLICE_SECONDS))

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:  # noqa: ARG002
        """End all jobs. Snakemake's list is empty while it polls, so the registry of `Control` is used instead.

        Snakemake calls this at Ctrl-C, and also when its own look at the storage failed. Jobs are not given up for
        credentials that have run out or an S3 that is slow: the next controller follows them.
        """
        if self._run is None:
            return
        from snakemake_executor_plugin_aws_batch_fleet.aws import is_passing_trouble

        error = sys.exception()
        if isinstance(error, Exception) and is_passing_trouble(error):
            self._run.stop()
            self.warning("The storage does not answer. The jobs go on: start the same command again to follow them.")
        else:
            self._run.control.cancel()

    def shutdown(self) -> None:
        """End in order: the poll first, then the run's own files."""
        super().shutdown()
        if self._run is not None:
            run, self._run = self._run, None
            run.close()

    # ------------------------------------------------------------------ the command of a job

    def get_python_executable(self) -> str:
        """The inner Snakemake takes the shell's place, so that AWS Batch's SIGTERM reaches it."""
        return "exec python"

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        """Cores, and for a group memory and GPUs too, as they are asked of AWS Batch.

        Without this the inner Snakemake takes every core of the machine, of which the container has only a share.
        """
        from snakemake_executor_plugin_aws_batch_fleet.snakejobs import demand_of

        del kwargs
        demand = demand_of(job)
        arguments = RealExecutor.get_job_args(self, job, cores=demand.need.vcpus)
        if job.is_group():
            limits = f"mem_mb={demand.need.memory_mb}" + (f" gpu={demand.need.gpus}" if demand.need.gpus else "")
            arguments += f" --resources {limits}"
        # Rules that set `retries` would have them in the worker, too, each time with the same memory and machine;
        # --retries 0, which Snakemake passes, counts only for the others.
        once = "--preemptible-rules --preemptible-retries 0"
        return f"{arguments} {once} {self._quiet(job)}".rstrip()

    def _quiet(self, job: JobExecutorInterface) -> str:
        """Keep Snakemake's remarks out of a job's log: its end, shown on failure, is for the tool's own words."""
        shown: Any = self.workflow.output_settings  # pyright: ignore[reportAttributeAccessIssue]
        if shown.verbose or shown.printshellcmds:
            return ""
        # In a group, Snakemake's words on rules tell which member is at work. "all" would hide errors, too.
        return "--quiet progress host reason" + ("" if job.is_group() else " rules")

    # ------------------------------------------------------------------ what Control tells

    def submitted(self, work: "Work") -> None:
        """Tell Snakemake, which marks the outputs as under way with the job's id."""
        with self._persistence_lock:
            self.report_job_submission(SubmittedJobInfo(job=work.job, external_jobid=work.job_id, aux={"work": work}))

    def succeeded(self, work: "Work") -> None:
        """Tell Snakemake."""
        self.report_job_success(SubmittedJobInfo(job=work.job, external_jobid=work.job_id))

    def failed(self, work: "Work", text: str) -> None:
        """Tell the user and Snakemake."""
        self._fail(work.job, text, work.job_id or None)

    def info(self, text: str) -> None:
        """A remark for the user."""
        self.logger.info(text)

    def warning(self, text: str) -> None:
        """A warning for the user."""
        self.logger.warning(text)  # pyright: ignore[reportAttributeAccessIssue]

    def _fail(self, job: JobExecutorInterface, text: str, job_id: str | None = None) -> None:
        # Snakemake's own message shows no text for groups, and none at all with --quiet rules.
        self.logger.error(text)
        self.report_job_error(SubmittedJobInfo(job=job, external_jobid=job_id))

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        """Snakemake's message, without its hint at a cluster log: the log's end has been shown."""
        if job_info.external_jobid is not None:
            kwargs["external_jobid"] = job_info.external_jobid
        job_info.job.log_error(msg, **kwargs)
