"""`snakefold launch`: the controller itself becomes a small job, and this machine may be switched off."""

import getpass
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from snakefold import workflow
from snakefold.away.jobs import CONTROLLER, describe, is_ending
from snakefold.away.pack import Archive, pack
from snakefold.away.run import RECORD, Launch, Run
from snakefold.away.submit import safest_queue, send, submit
from snakefold.errors import FaultsError, SnakefoldError
from snakefold.files import canonical_json
from snakefold.sheet import Target, check_sheets
from snakefold.workflow import Folding
from snakemake_executor_plugin_aws_batch_fleet.routing import Need

NEED = Need(vcpus=2, memory_mb=4000)
"""Of the controller. A run of 10,000 targets takes 1 GB for its jobs."""

# For these there is a place before the `--`, so that the sheet is looked through before anything is sent.
_OURS = ("--config", "-C", "--configfile", "--configfiles", "--profile", "--directory", "-d", "--snakefile", "-s")


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
    folding.check_images(run.fleet.images, run.place.path)
    refuse_if_controlled(run)
    archive = send(run, lambda path: pack(folding, targets, run.place.path, path), say)
    queue = safest_queue(run, NEED, run.fleet.queues, "the controller")
    given = [*arguments, *(["--config", *changes] if changes else [])]
    job_id = submit(
        run,
        queue,
        NEED,
        archive,
        ["snakefold.away.controller", *given],
        rule=CONTROLLER,
        role=run.fleet.controller_role_arn,
        name=run.controller_name,
    )
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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
