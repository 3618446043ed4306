"""`snakefold launch`: the controller itself becomes a small job, and this machine may be switched off."""

import getpass
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snakefold import workflow
from snakefold.away.jobs import describe, is_ending
from snakefold.away.pack import Archive, pack
from snakefold.away.run import RECORD, Launch, Run, asking
from snakefold.errors import FaultsError, SnakefoldError
from snakefold.files import canonical_json
from snakefold.fleet import RUN_VARIABLE, VARIABLE
from snakefold.sheet import Target, check_sheets
from snakefold.workflow import Folding
from snakemake_executor_plugin_aws_batch_fleet.definitions import ContainerSpec, Definitions
from snakemake_executor_plugin_aws_batch_fleet.demand import Demand, mib
from snakemake_executor_plugin_aws_batch_fleet.fleet import Queue
from snakemake_executor_plugin_aws_batch_fleet.identity import job_name
from snakemake_executor_plugin_aws_batch_fleet.request import (
    Plan,
    check_secrets,
    image_reference,
    overrides,
    submission,
    tag_value,
)
from snakemake_executor_plugin_aws_batch_fleet.routing import Need, NoQueueFitsError, choose

NEED = Need(vcpus=2, memory_mb=4000)
"""Of the controller. A run of 10,000 targets takes 1 GB for its jobs."""

ATTEMPTS = 5
"""How often AWS Batch starts the controller when its machine is taken away. The next attempt adopts what runs."""

# For these there is a place before the `--`, so that the sheet is looked through before anything is sent.
_OURS = ("--config", "-C", "--configfile", "--configfiles", "--profile", "--directory", "-d", "--snakefile", "-s")

# Runs in the image, which has Python and boto3 and nothing of ours.
_BOOTSTRAP = """
import boto3, hashlib, os, sys, tarfile
bucket, key, digest, *rest = sys.argv[1:]
os.makedirs("run", exist_ok=True)
os.chdir("run")
boto3.client("s3").download_file(bucket, key, "sources.tar.gz")
with open("sources.tar.gz", "rb") as file:
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
        sys.exit("the sources s3://%s/%s are not those that were uploaded: launch again" % (bucket, key))
with tarfile.open("sources.tar.gz") as archive:
    archive.extractall()
os.remove("sources.tar.gz")
os.execv(sys.executable, [sys.executable, "-m", "snakefold.away.controller", *rest])
""".strip()


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What came of a launch."""

    launch: Launch
    archive: Archive
    targets: int


def launch(run: Run, changes: Sequence[str], arguments: Sequence[str], say: Callable[[str], None]) -> Launched:
    """Check the sheet, send the sources, start the controller.

    `changes` are for `--config`, `arguments` for Snakemake. Raises FaultsError with all faults of the sheet and the
    files that it names, and SnakefoldError if the run is under control already.
    """
    _refuse_arguments(arguments)
    folding, targets = _checked(changes, run.place.prefix)
    refuse_if_controlled(run)
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "sources.tar.gz"
        archive = pack(folding, targets, run.place.path, packed)
        name = f"launch/{archive.sha256}.tar.gz"
        facts = run.own.facts(name)
        if facts is None or facts.size != archive.size:
            say(f"sending {archive.files} files, {archive.size / 1e6:.1f} MB")
            run.own.upload(packed, name, archive.sha256)
    queue = _queue(run)
    job_id = _submit(run, queue, name, archive.sha256, changes, arguments)
    record = Launch(
        job_id=job_id,
        queue=queue.name,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        user=_user(),
        changes=tuple(changes),
        arguments=tuple(arguments),
        sources=archive.sha256,
        results=folding.config.results.strip("/"),
    )
    run.own.write(RECORD, canonical_json(asdict(record)).encode())
    return Launched(launch=record, archive=archive, targets=len(targets))


def refuse_if_controlled(run: Run) -> None:
    """Raises SnakefoldError if a controller lives, or is on its way to."""
    last = run.launch()
    if last is not None:
        job = describe(run, last.job_id)
        # One that was told to end has lost the lock already.
        if job is not None and job["status"] not in ("SUCCEEDED", "FAILED") and not is_ending(job):
            raise SnakefoldError(
                f"run {run.name}: {last.user} launched it at {last.time} and its controller is {job['status']} (job "
                f"{last.job_id}); follow it with `status`, end it with `stop`, or choose another name by --run"
            )
    lock = run.lock()
    if lock is not None and lock.stale is None:
        raise SnakefoldError(
            f"run {run.name}: is controlled by {lock}; wait for it, end it with `stop`, or choose another name by --run"
        )


def _refuse_arguments(arguments: Sequence[str]) -> None:
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in _OURS:
            raise SnakefoldError(
                f"{option}: cannot be given to a launched Snakemake; use the config in config/config.yaml, and "
                "`launch --config KEY=VALUE`"
            )


def _checked(changes: Sequence[str], prefix: str) -> tuple[Folding, tuple[Target, ...]]:
    config = workflow.config_of_this_job(changes)
    targets, faults = check_sheets([Path(path) for path in config.samples], config)
    if faults:
        raise FaultsError(faults)
    return workflow.load(config, check_files=True, prefix=prefix), targets


def _queue(run: Run) -> Queue:
    """On demand if there is such a queue: a controller that loses its machine costs minutes."""
    try:
        return choose(NEED, run.fleet.queues, purchase="on_demand")
    except NoQueueFitsError:
        pass
    try:
        return choose(NEED, run.fleet.queues)
    except NoQueueFitsError as error:
        raise SnakefoldError(f"{run.place.path}: no queue for the controller: {error}") from None


def _submit(run: Run, queue: Queue, name: str, digest: str, changes: Sequence[str], arguments: Sequence[str]) -> str:
    """Submit the controller; returns the job's id."""
    given = [*arguments, *(["--config", *changes] if changes else [])]
    key = f"{run.own.prefix}/{name}"
    command = shlex.join(["exec", "python", "-c", _BOOTSTRAP, run.place.bucket, key, digest, *given])
    # The fleet file lies in its usual place over there; an image may have been made with another in mind.
    environment = {"AWS_DEFAULT_REGION": run.fleet.region, RUN_VARIABLE: run.name, VARIABLE: ""}
    tags = {
        **{key: tag_value(value) for key, value in run.fleet.tags.items()},
        "snakemake-run": run.id,
        "snakemake-prefix": tag_value(run.place.prefix),
        "snakemake-rule": "controller",
    }
    try:
        check_secrets(environment, command)
        plan = Plan(
            name=job_name(run=run.id, rule="controller", job="", work=""),
            demand=Demand(need=NEED, memory_mib=mib(NEED.memory_mb)),
            container=ContainerSpec(
                image=image_reference(None, run.fleet, None),
                job_role_arn=run.fleet.controller_role_arn or run.fleet.job_role_arn,
                execution_role_arn=run.fleet.execution_role_arn,
                log_group=run.fleet.log_group,
                attempts=ATTEMPTS,
            ),
            command=command,
            environment=tuple(environment.items()),
            tags=tuple(tags.items()),
        )
        with asking("AWS Batch (batch:SubmitJob, batch:RegisterJobDefinition, s3:PutObject)"):
            arn = Definitions(run.aws, {key: tags[key] for key in run.fleet.tags}).arn(plan.container)
            body = overrides(plan, run.place.bucket, f"{run.own.prefix}/", lambda key, text: _put(run, key, text))
            request: dict[str, Any] = {**submission(plan, queue, arn, body), "jobName": run.controller_name}
            return run.aws.batch.submit_job(**request)["jobId"]
    except ValueError as error:
        raise SnakefoldError(f"the controller cannot be submitted: {error}") from None


def _put(run: Run, key: str, text: str) -> None:
    run.own.write(key.removeprefix(f"{run.own.prefix}/"), text.encode())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
