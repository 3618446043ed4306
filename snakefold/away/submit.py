"""Sending our sources to the bucket and a job of ours to AWS Batch."""

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snakefold.away.pack import Archive
from snakefold.away.run import Run, asking
from snakefold.errors import SnakefoldError
from snakefold.fleet import RUN_VARIABLE, VARIABLE
from snakemake_executor_plugin_aws_batch_fleet.definitions import ContainerSpec, Definitions
from snakemake_executor_plugin_aws_batch_fleet.demand import Demand, mib
from snakemake_executor_plugin_aws_batch_fleet.fleet import Queue
from snakemake_executor_plugin_aws_batch_fleet.identity import JobName, job_name
from snakemake_executor_plugin_aws_batch_fleet.request import (
    Plan,
    check_secrets,
    image_reference,
    overrides,
    submission,
    tag_value,
)
from snakemake_executor_plugin_aws_batch_fleet.routing import Need, NoQueueFitsError, choose

ATTEMPTS = 5
"""How often AWS Batch starts such a job when its machine is taken away. The next attempt goes on with what is there."""

# Runs in the image, which has Python and boto3 and nothing of ours.
_BOOTSTRAP = """
import boto3, hashlib, os, sys, tarfile
bucket, key, digest, *rest = sys.argv[1:]
os.makedirs("run", exist_ok=True)
os.chdir("run")
boto3.client("s3").download_file(bucket, key, "sources.tar.gz")
with open("sources.tar.gz", "rb") as file:
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
        sys.exit("the sources s3://%s/%s are not those that were uploaded: run the same command again" % (bucket, key))
with tarfile.open("sources.tar.gz") as archive:
    archive.extractall()
os.remove("sources.tar.gz")
os.execv(sys.executable, [sys.executable, "-m", *rest])
""".strip()


def send(run: Run, pack: Callable[[Path], Archive], say: Callable[[str], None]) -> Archive:
    """Have the archive that `pack` makes of our sources in the bucket, once for equal content."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "sources.tar.gz"
        archive = pack(packed)
        facts = run.own.facts(_name(archive))
        if facts is None or facts.size != archive.size:
            say(f"sending {archive.files} files, {archive.size / 1e6:.1f} MB")
            run.own.upload(packed, _name(archive), archive.sha256)
    return archive


def safest_queue(run: Run, need: Need, queues: Sequence[Queue], what: str) -> Queue:
    """The cheapest queue for one long job: on demand if there is one, since to lose the machine costs minutes or more.

    Raises SnakefoldError if none fits `what`.
    """
    try:
        return choose(need, queues, purchase="on_demand")
    except NoQueueFitsError:
        pass
    try:
        return choose(need, queues)
    except NoQueueFitsError as error:
        raise SnakefoldError(f"{run.place.path}: no queue for {what}: {error}") from None


def submit(
    run: Run,
    queue: Queue,
    need: Need,
    archive: Archive,
    command: Sequence[str],
    *,
    rule: str,
    role: str | None,
    name: str | None = None,
    digest: str = "",
    mounts: Sequence[str] = (),
) -> str:
    """Submit a job that unpacks an archive which was sent, and becomes `python -m COMMAND` there; returns its id.

    It stands in lists as a job of `rule`, under a name made of `digest` (hex) unless `name` is given. Raises
    SnakefoldError.
    """
    key = f"{run.own.prefix}/{_name(archive)}"
    line = shlex.join(["exec", "python", "-c", _BOOTSTRAP, run.place.bucket, key, archive.sha256, *command])
    # The fleet file lies in its usual place over there; an image may have been made with another in mind.
    environment = {"AWS_DEFAULT_REGION": run.fleet.region, RUN_VARIABLE: run.name, VARIABLE: ""}
    tags = {
        **{key: tag_value(value) for key, value in run.fleet.tags.items()},
        "snakemake-run": run.id,
        "snakemake-prefix": tag_value(run.place.prefix),
        "snakemake-rule": rule,
    }
    called: JobName = job_name(run=run.id, rule=rule, job=digest, work=archive.sha256)
    try:
        check_secrets(environment, line)
        plan = Plan(
            name=called,
            demand=Demand(need=need, memory_mib=mib(need.memory_mb)),
            container=ContainerSpec(
                image=image_reference(None, run.fleet, None),
                mounts=tuple(mounts),
                job_role_arn=role or run.fleet.job_role_arn,
                execution_role_arn=run.fleet.execution_role_arn,
                log_group=run.fleet.log_group,
                attempts=ATTEMPTS,
            ),
            command=line,
            environment=tuple(environment.items()),
            tags=tuple(tags.items()),
        )
        with asking("AWS Batch (batch:SubmitJob, batch:RegisterJobDefinition, s3:PutObject)"):
            arn = Definitions(run.aws, {key: tags[key] for key in run.fleet.tags}).arn(plan.container)
            body = overrides(plan, run.place.bucket, f"{run.own.prefix}/", lambda key, text: _put(run, key, text))
            request: Mapping[str, Any] = {**submission(plan, queue, arn, body), "jobName": name or str(called)}
            return run.aws.batch.submit_job(**request)["jobId"]
    except ValueError as error:
        raise SnakefoldError(f"the job of {rule} cannot be submitted: {error}") from None


def _name(archive: Archive) -> str:
    return f"launch/{archive.sha256}.tar.gz"


def _put(run: Run, key: str, text: str) -> None:
    run.own.write(key.removeprefix(f"{run.own.prefix}/"), text.encode())
