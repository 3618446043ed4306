"""A run on AWS as our commands see it, from any machine that has the fleet file."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from snakemake_interface_common.exceptions import WorkflowError

from snakefold.errors import FaultsError, SnakefoldError
from snakefold.fleet import Fleet, load_fleet
from snakefold.s3 import S3Folder, S3MissingError
from snakemake_executor_plugin_aws_batch_fleet import fleet as table
from snakemake_executor_plugin_aws_batch_fleet.aws import RENEW, Aws, error_code, is_credentials_error, preflight
from snakemake_executor_plugin_aws_batch_fleet.identity import run_id
from snakemake_executor_plugin_aws_batch_fleet.lock import LockState, RunLock, this_process

COMMAND = "python -m snakefold"
"""As a user types it."""

OWN = ".fleet"
"""Below the prefix of a run: what the executor and these commands keep there."""

RECORD = "launch.json"
LEDGER = "ledger.jsonl"
LOCK = "lock.json"

_DENIED = frozenset(("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"))


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is noted of the last launch of a run."""

    job_id: str
    queue: str
    time: str
    """UTC, ISO 8601."""
    user: str
    changes: tuple[str, ...]
    """What `--config` changed."""
    arguments: tuple[str, ...]
    """For Snakemake."""
    sources: str
    """SHA-256 of the archive."""
    results: str
    """Where results go, relative to the prefix."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: where its files are, and the clients of its account. Nothing is asked before it is needed."""

    place: Fleet
    fleet: table.Fleet
    aws: Aws
    folder: S3Folder
    """All files of the run."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.place.run

    @property
    def id(self) -> str:
        """Eight hex digits, with which the names of its jobs begin."""
        return run_id(self.place.prefix)

    @property
    def controller_name(self) -> str:
        """Name of the job that runs Snakemake. The executor takes no job of this form for one of its own."""
        return f"{self.id}-controller"

    @cached_property
    def own(self) -> S3Folder:
        """The folder of the executor and of these commands."""
        return self.folder.below(OWN)

    def lock(self) -> LockState | None:
        """Who controls the run, if anybody does."""
        key = f"{self.own.prefix}/{LOCK}"
        with asking("the run's lock (s3:GetObject)"):
            return RunLock(self.aws, self.place.bucket, key, this_process(heartbeat_seconds=30)).state()

    def launch(self) -> Launch | None:
        """The last launch, if there was one."""
        try:
            content, _ = self.own.read(RECORD)
        except S3MissingError:
            return None
        try:
            raw: dict[str, Any] = json.loads(content)
            return Launch(**{**raw, "changes": tuple(raw["changes"]), "arguments": tuple(raw["arguments"])})
        except (ValueError, TypeError, KeyError):
            raise SnakefoldError(
                f"{self.own.url(RECORD)}: cannot be read; remove it if no controller runs, then launch again"
            ) from None

    def results(self, launch: Launch | None) -> str:
        """Where the results are, relative to the prefix: as launched, or as the config here says."""
        if launch is not None:
            return launch.results
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            config = yaml.safe_load(Path("config/config.yaml").read_text(encoding="utf-8"))
            if isinstance(config, dict) and isinstance(config.get("results"), str):
                return config["results"].strip("/")
        return "results"

    def refuse_unknown(self) -> None:
        """Raises SnakefoldError if nothing was ever written for this run, and names those that exist."""
        if any(page for page in self.folder.list()):
            return
        runs = sorted(S3Folder(f"s3://{self.place.bucket}/runs").folders())
        known = f"; there are {', '.join(runs)}: name one by --run" if runs else ""
        raise SnakefoldError(
            f"run {self.name}: there is nothing at {self.folder.url()}{known}; see `{COMMAND} launch --help`"
        )


def open_run(name: str | None) -> Run:
    """The run of a name, by default that of the environment. Raises SnakefoldError, in one line for each fault."""
    place = load_fleet(name)
    try:
        fleet = table.load_fleet(str(place.path))
        aws = Aws(fleet.region)
        preflight(aws)
    except WorkflowError as error:
        raise FaultsError(f"snakefold: {line}" for line in str(error).splitlines()) from None
    return Run(place=place, fleet=fleet, aws=aws, folder=S3Folder(place.prefix))


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """What AWS refuses within becomes one line. `what` names the service and, in brackets, the rights needed."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except WorkflowError as error:
        raise SnakefoldError(" ".join(str(error).split())) from None
    except (BotoCoreError, ClientError) as error:
        if is_credentials_error(error):
            raise SnakefoldError(f"AWS credentials have expired or are not valid: {RENEW}") from None
        if error_code(error) in _DENIED:
            raise SnakefoldError(f"AWS denies access to {what}: give your user or role that right") from None
        text = " ".join(str(error).split())
        raise SnakefoldError(f"{what} cannot be asked: {text}; look at network and region, then try again") from None
