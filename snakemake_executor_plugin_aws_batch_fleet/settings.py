"""What a user can set on Snakemake's command line (`--aws-batch-fleet-...`), in a profile or by the environment."""

from dataclasses import dataclass, field
from typing import Any, Optional

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase


def _option(text: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": text, "env_var": True, "required": False})


# Snakemake's argument parser takes the type from the annotation; it knows `Optional[X]`, not `X | None`.
@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Settings of the executor; what describes the account (queues, roles, images) is in the fleet file."""

    file: Optional[str] = _option("The fleet file (YAML or JSON): region, queues, roles, images")  # noqa: UP045
    attempts: int = _option("Attempts by AWS Batch itself after a Spot reclaim or a failed image pull (1-10)", 3)
    submit_rate: float = _option("SubmitJob calls per second (an account may make 50)", 40.0)
    submit_threads: int = _option("SubmitJob calls in flight", 16)
    log_lines: int = _option("Lines of a failed job's log to show", 30)
    waiting_warning: float = _option("Minutes without a start after which a warning says why", 30.0)
    waiting_limit: float = _option("Minutes without a start after which a job is ended and fails", 1440.0)
    credentials_grace: float = _option("Minutes to wait for new credentials after they expired", 60.0)
    heartbeat: float = _option("Seconds between two signs of life in the run's lock", 30.0)


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=True,
    job_deploy_sources=True,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    # They go into the container's environment, after a look for credentials.
    pass_envvar_declarations_to_cmd=False,
    # The image has the storage plugin. With True every job would start with a pip install.
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)
