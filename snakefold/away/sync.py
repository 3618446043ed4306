"""`snakefold databases sync`: a job near S3 brings databases into the bucket; this machine only watches.

The job belongs to a run of its own name, so that `status`, `logs` and `stop` know it, and no run's controller takes it
for one of its jobs.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from snakefold import workflow
from snakefold.away.jobs import BatchJob, describe, list_jobs
from snakefold.away.logs import ENDED, LogSource, NoLogYetError, follow
from snakefold.away.pack import pack_files
from snakefold.away.run import COMMAND, Run
from snakefold.away.submit import safest_queue, send, submit
from snakefold.config import Config
from snakefold.databases.obtain import mend
from snakefold.databases.progress import DownloadProgress
from snakefold.databases.registry import Database, in_units, load_registry
from snakefold.databases.remote import RemoteDatabase
from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_json
from snakefold.s3 import S3Folder, is_s3
from snakefold.sheet import relocated
from snakemake_executor_plugin_aws_batch_fleet.fleet import Queue
from snakemake_executor_plugin_aws_batch_fleet.routing import Need

RUN = "databases-sync"
"""The name of the run to which the job belongs."""

RULE = "sync_databases"

NEED = Need(vcpus=4, memory_mb=8000)
"""Unpacking and digests take a core each, several connections the rest; zstd's largest window takes 2 GB."""

_SMALL = 5e9
"""Bytes for which any machine has room."""

_SECONDS_BETWEEN_LOOKS = 5.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Databases to be in S3, with the settings that say where."""

    config: Config
    """As on AWS: `databases.folder` is an S3 address."""
    registry: Path
    databases: tuple[Database, ...]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [database.name for database in self.databases]

    def remote(self, database: Database) -> RemoteDatabase:
        """Where one of them lies."""
        return RemoteDatabase(S3Folder(self.config.databases.folder), database.name)


def wanted(names: Sequence[str], preset: str | None, changes: Sequence[str], prefix: str) -> Wanted:
    """The databases of these names, else those of a preset, else those that the config needs.

    `changes` are for `--config`; `prefix` is that of a run in the bucket. Raises SnakefoldError for unknown names.
    """
    config = workflow.on_storage(workflow.config_of_this_job(changes), prefix)
    if not is_s3(config.databases.folder):
        raise SnakefoldError(
            f"config: databases.folder: {config.databases.folder} is not in S3; give s3://... or a path"
        )
    registry = relocated(Path(config.databases.registry))
    known = load_registry(registry)
    chosen = names or (
        known.preset(preset).databases if preset else config.databases_of(known.preset(config.databases.preset))
    )
    databases = tuple(known.database(name) for name in dict.fromkeys(chosen))
    return Wanted(config=config, registry=registry, databases=databases)


def sync_here(wanted: Wanted, *, read: bool) -> None:
    """Bring the databases to S3 from this machine, one after the other: what the job does. Raises SnakefoldError."""
    databases = wanted.config.databases
    for database in wanted.databases:
        with DownloadProgress(database.name, plain=True) as progress:
            mend(database, databases, wanted.registry.parent, progress, read=read)


def lacking(wanted: Wanted, say: Callable[[str], None]) -> list[Database]:
    """The databases that S3 does not hold whole and unaltered, by sizes and digests; says a line for each."""
    missing = []
    for database in wanted.databases:
        remote = wanted.remote(database)
        holding = remote.holding(database)
        reason = holding.reason
        whole = holding.manifest if reason is None else None
        if whole is not None and (damaged := remote.altered(whole, holding.touched)):
            reason = f"{len(damaged)} files are damaged, such as {damaged[0]}"
        say(f"{database.name}: {reason or 'is there'}")
        if reason is not None:
            missing.append(database)
    return missing


def sync(
    run: Run,
    wanted: Wanted,
    changes: Sequence[str],
    *,
    read: bool,
    queue: str | None,
    say: Callable[[str], None],
) -> str | None:
    """Have a job bring the databases; returns its id, or None if nothing is to be done.

    With `read`, the job reads every byte again. A job that is at it already is the one that is returned. Raises
    SnakefoldError if one is at something else, or no queue fits.
    """
    digest = sha256_of_json([wanted.names, list(changes), read])
    at_it = [job for job in list_jobs(run) if job.rule == RULE and job.live and not job.ending]
    if at_it:
        return _joined(at_it[0], digest, say)
    missing = list(wanted.databases) if read else lacking(wanted, say)
    if not missing:
        return None
    chosen = _queue(run, missing, queue, say)
    fleet = run.place.path
    registry = Path(wanted.config.databases.registry)
    archive = send(run, lambda path: pack_files([registry], set(), fleet, path), say)
    command = ["snakefold", "databases", "sync", "--here", *(["--read"] if read else [])]
    given = ["--config", *changes] if changes else []
    job = submit(
        run,
        chosen,
        NEED,
        archive,
        [*command, *(database.name for database in missing), *given],
        rule=RULE,
        role=run.fleet.database_role_arn,
        digest=digest,
        mounts=run.fleet.mounts,
    )
    say(f"job {job} in queue {chosen.name} brings {', '.join(database.name for database in missing)}")
    return job


def watch(run: Run, job_id: str, say: Callable[[str], None]) -> None:
    """Say what the job says until it has ended. Raises SnakefoldError if it failed."""
    told = ""
    source = _job(run, job_id)
    while source.state not in ("RUNNING", *ENDED):
        why = source.described.get("statusReason")
        now = source.state + (f": {why}" if why else "")
        if now != told:
            told = now
            say(f"[job {job_id}: {now}]")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        source = _job(run, job_id)
    # A container that did not start has no log, whatever its name.
    with contextlib.suppress(NoLogYetError):
        follow(run, source, 1000, say)
    source = _job(run, job_id)
    if source.state == "FAILED":
        container = source.described.get("container") or {}
        reasons = [source.described.get("statusReason"), container.get("reason")]
        why = "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or "AWS Batch gives no reason"
        raise SnakefoldError(f"job {job_id} failed ({why}); what it has brought is kept: run the same command again")


def _job(run: Run, job_id: str) -> LogSource:
    described = describe(run, job_id)
    if described is None:
        raise SnakefoldError(f"job {job_id}: AWS Batch does not know it any more; run the same command again")
    return LogSource(job_id=job_id, rule=RULE, described=described)


def how_to_go_on() -> str:
    """For people who stop watching."""
    return (
        f"the job goes on; the same command watches it again, `{COMMAND} logs --run {RUN} {RULE} --follow` too, and "
        f"`{COMMAND} stop --run {RUN}` ends it"
    )


def _joined(job: BatchJob, digest: str, say: Callable[[str], None]) -> str:
    if job.digest == digest[: len(job.digest or "")]:
        say(f"job {job.id} is at it already ({job.state})")
        return job.id
    raise SnakefoldError(
        f"job {job.id} ({job.state}) brings other databases: `{COMMAND} logs --run {RUN} {RULE} --follow` watches it, "
        f"`{COMMAND} stop --run {RUN}` ends it; then run this again"
    )


def _queue(run: Run, databases: Sequence[Database], forced: str | None, say: Callable[[str], None]) -> Queue:
    """A queue with disk for the largest database: they come one after the other, and none stays."""
    room = max(_room(database) for database in databases)
    queues = [queue for queue in run.fleet.queues if forced in (None, queue.name)]
    if not queues:
        names = ", ".join(queue.name for queue in run.fleet.queues)
        raise SnakefoldError(f"--queue {forced}: {run.place.path} has no such queue; there are {names}")
    with_room = [queue for queue in queues if queue.disk_mb is None or queue.disk_mb * 1e6 >= room]
    if not with_room:
        most = max(queue.disk_mb or 0 for queue in queues) * 1e6
        raise SnakefoldError(
            f"{run.place.path}: no queue has the {in_units(room)} of disk that these databases take (the most is "
            f"{in_units(most)}); add one with larger disks, or correct its disk_mb"
        )
    if room > _SMALL:
        with_room = [queue for queue in with_room if queue.disk_mb is not None] or with_room
    chosen = safest_queue(run, NEED, with_room, "the download")
    if room > _SMALL and chosen.disk_mb is None:
        say(
            f"queue {chosen.name}: the fleet file does not say how much disk it has (disk_mb); {in_units(room)} are "
            "needed behind the mount of the databases, and the job refuses to begin without them"
        )
    return chosen


def _room(database: Database) -> int:
    """Bytes of disk: what is downloaded and what it unpacks to lie side by side for a while."""
    packed = any(file.unpack != "none" for file in database.files)
    return database.download_size + (database.size if packed else 0)
