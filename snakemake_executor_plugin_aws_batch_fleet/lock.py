"""Who controls a run: `lock.json` in S3, written by conditional puts, so that two controllers cannot both hold it."""

import getpass
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code

MISSED_HEARTBEATS = 3
_TAKEN = frozenset(("PreconditionFailed", "ConditionalRequestConflict", "412", "409"))
_ABSENT = frozenset(("NoSuchKey", "404", "NotFound"))
_ENDED = frozenset(("SUCCEEDED", "FAILED"))


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A controller: a process on a host, perhaps itself a job of AWS Batch."""

    token: str
    """Random; tells two controllers of the same process id apart."""
    host: str
    boot_id: str
    pid: int
    pid_namespace: str
    """Process ids of one host mean different processes in different containers."""
    process_start: str
    """Start time of the process in clock ticks since boot: a process id may be used again."""
    user: str
    batch_job_id: str | None
    since: str
    """UTC, ISO 8601."""
    heartbeat_seconds: float


def this_process(heartbeat_seconds: float) -> Owner:
    """A new owner: this process."""
    return Owner(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        pid=os.getpid(),
        pid_namespace=_pid_namespace(),
        process_start=process_start(os.getpid()) or "",
        user=_user(),
        batch_job_id=os.environ.get("AWS_BATCH_JOB_ID"),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        heartbeat_seconds=heartbeat_seconds,
    )


def process_start(pid: int) -> str | None:
    """When a process of this host began (clock ticks since boot), None when there is none."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    # The second field is the name in brackets and may hold blanks. A zombie is no living controller.
    state, *rest = text.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]


def is_dead_process_of_this_host(owner: Owner) -> bool:
    """Whether the owner was a process of this host, as this process sees it, that has ended."""
    same_host = bool(owner.boot_id) and owner.boot_id == _read("/proc/sys/kernel/random/boot_id")
    if not same_host or owner.pid_namespace != _pid_namespace():
        return False
    return process_start(owner.pid) != owner.process_start


@dataclass(frozen=True, kw_only=True)
class LockState:
    """What a lock says at a moment. `owner` is None when it cannot be read."""

    owner: Owner | None
    age: float
    """Seconds since the last sign of life."""
    stale: str | None
    """Why the owner is dead; None when it may be alive."""

    def __str__(self) -> str:
        return f"{_describe(self.owner)}; last sign of life {self.age:.0f} s ago"


class LockLostError(WorkflowError):
    """Another controller has taken the run over."""


class RunLock:
    """The lock of one run. `lost` is set when another controller has taken it over."""

    def __init__(self, aws: Aws, bucket: str, key: str, owner: Owner) -> None:
        self._aws = aws
        self._bucket = bucket
        self._key = key
        self._owner = owner
        self._etag: str | None = None
        self.lost = threading.Event()

    def acquire(self) -> str | None:
        """Take the lock. Returns a note when it was taken over; WorkflowError when another controller lives."""
        note = None
        # A second round when the lock changed hands or was removed while we looked.
        for _ in range(3):
            if self._put(IfNoneMatch="*"):
                return note
            current = self._current()
            if current is None:
                continue
            owner, etag, age = current
            if owner is not None and owner.token == self._owner.token:
                # Our own put, whose answer was lost and which was sent again.
                self._etag = etag
                return note
            why = self._stale(owner, age)
            if why is None:
                raise WorkflowError(self._refusal(owner, age))
            note = f"Took the run over from {_describe(owner)}: {why}."
            if self._put(IfMatch=etag):
                return note
        raise WorkflowError(
            f"Lock s3://{self._bucket}/{self._key} keeps changing hands: another controller is starting."
        )

    def state(self) -> LockState | None:
        """Who holds the lock, for somebody who does not want it; None when nobody does."""
        current = self._current()
        if current is None:
            return None
        owner, _, age = current
        return LockState(owner=owner, age=age, stale=self._stale(owner, age))

    def beat(self) -> None:
        """Give a sign of life. Sets `lost` when the lock belongs to someone else by now; other errors are raised."""
        if self._etag is None or self.lost.is_set() or self._put(IfMatch=self._etag):
            return
        current = self._current()
        owner, etag, _ = current or (None, None, 0.0)
        if owner is not None and owner.token == self._owner.token:
            self._etag = etag
        else:
            self.lost.set()

    def release(self) -> None:
        """Remove the lock, if it is still ours."""
        if self._etag is None or self.lost.is_set():
            return
        current = self._current()
        if current is not None and current[0] is not None and current[0].token == self._owner.token:
            self._aws.s3.delete_object(Bucket=self._bucket, Key=self._key)
        self._etag = None

    def _put(self, **condition: str) -> bool:
        body = json.dumps(asdict(self._owner), indent=1).encode()
        try:
            answer = self._aws.s3.put_object(
                Bucket=self._bucket, Key=self._key, Body=body, ContentType="application/json", **condition
            )
        except Exception as error:
            # A matching condition on an object that is gone answers 404.
            if error_code(error) in _TAKEN | _ABSENT and error_code(error) != "NoSuchBucket":
                return False
            raise
        self._etag = answer["ETag"]
        return True

    def _current(self) -> tuple[Owner | None, str, float] | None:
        """Owner (None if unreadable), ETag and age in seconds by S3's own clock; None when there is no lock."""
        try:
            answer = self._aws.s3.get_object(Bucket=self._bucket, Key=self._key)
        except Exception as error:
            if error_code(error) in _ABSENT:
                return None
            raise
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer["LastModified"]).total_seconds()
        try:
            raw: dict[str, Any] = json.loads(answer["Body"].read())
            owner = Owner(**{field.name: raw[field.name] for field in fields(Owner)})
        except (ValueError, KeyError, TypeError):
            owner = None
        return owner, answer["ETag"], age

    def _stale(self, owner: Owner | None, age: float) -> str | None:
        """Why the owner is dead, or None when it may be alive."""
        seconds = owner.heartbeat_seconds if owner else self._owner.heartbeat_seconds
        if age > MISSED_HEARTBEATS * seconds:
            return f"its last sign of life was {age:.0f} s ago"
        if owner is None:
            return None
        if owner.batch_job_id is not None and owner.batch_job_id == self._owner.batch_job_id:
            return "it was an earlier attempt of this job"
        if is_dead_process_of_this_host(owner):
            return "its process has ended"
        if owner.batch_job_id is not None and self._job_has_ended(owner.batch_job_id):
            return "its job has ended"
        return None

    def _job_has_ended(self, job_id: str) -> bool:
        try:
            jobs = self._aws.batch.describe_jobs(jobs=[job_id])["jobs"]
        except Exception:
            # Unknown: the heartbeat decides.
            return False
        return bool(jobs) and jobs[0]["status"] in _ENDED

    def _refusal(self, owner: Owner | None, age: float) -> str:
        limit = MISSED_HEARTBEATS * (owner.heartbeat_seconds if owner else self._owner.heartbeat_seconds)
        return (
            f"This run is already controlled by {_describe(owner)}; last sign of life {age:.0f} s ago. Wait for it, or "
            f"stop it there (Ctrl-C); after {limit:.0f} s without a sign of life the run can be taken over. If it is "
            f"certainly gone, remove s3://{self._bucket}/{self._key}."
        )


class Heartbeat:
    """Calls functions at intervals in a thread of its own, until stopped."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self._seconds = seconds
        self._action = action
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the action that may be going on."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._action()


def _describe(owner: Owner | None) -> str:
    if owner is None:
        return "someone whose lock cannot be read"
    job = f", AWS Batch job {owner.batch_job_id}" if owner.batch_job_id else ""
    return f"{owner.user} on {owner.host} (process {owner.pid}{job}) since {owner.since}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a user id that has no name.
        return f"user {os.getuid()}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
