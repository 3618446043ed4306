"""`snakefold status`: how a run fares, from any machine, and what to do next."""

import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from snakefold.away.jobs import CONTROLLER, BatchJob, describe, is_ending, list_jobs
from snakefold.away.run import COMMAND, LEDGER, Launch, Run
from snakefold.s3 import S3MissingError
from snakemake_executor_plugin_aws_batch_fleet.lock import LockState

STATES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
_FAILURES = 5
_SUCCEEDED = "succeeded"


@dataclass(frozen=True, kw_only=True)
class Controller:
    """Who runs Snakemake for the run. `alive` says that jobs are being submitted and followed, or soon will be."""

    alive: bool
    what: str
    job_id: str | None


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """What the ledger tells of one class of attempts."""

    count: int
    hours: float
    dollars: float


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """An attempt that failed, of a job that has not succeeded since."""

    rule: str
    wildcards: Mapping[str, str]
    kind: str
    reason: str
    job_id: str
    time: str
    """UTC, ISO 8601; empty if it never ran."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything that `status` says."""

    run: str
    prefix: str
    controller: Controller
    jobs: Mapping[str, Mapping[str, int]]
    """Rule -> state -> number; ended jobs for a week."""
    attempts: Mapping[str, Attempts]
    """By class; as of the last upload of the ledger, minutes ago at most while the controller lives."""
    failures: Sequence[FailedAttempt]
    """The newest first."""
    predictions: Mapping[str, int] | None
    """How many ended in which way; None before the summary is written."""
    concluded: bool
    next: str


def status(run: Run) -> Status:
    """Ask S3 and AWS Batch how a run fares. Raises SnakefoldError for a run that is not there."""
    launch = run.launch()
    lock = run.lock()
    if launch is None and lock is None:
        run.refuse_unknown()
    jobs = list_jobs(run)
    controller = _controller(run, launch, lock, jobs)
    ledger = _ledger(run)
    results = run.results(launch)
    predictions = _predictions(run, f"{results}/summary.tsv")
    concluded = run.folder.facts(f"{results}/outcome.json") is not None
    failures = _failures(ledger, {job.digest for job in jobs if job.state == "SUCCEEDED"})
    return Status(
        run=run.name,
        prefix=run.place.prefix,
        controller=controller,
        jobs=_count(jobs),
        attempts=_attempts(ledger),
        failures=failures,
        predictions=predictions,
        concluded=concluded,
        next=_next(
            run,
            launch=launch,
            controller=controller,
            living=sum(job.live and not job.ending for job in jobs if job.rule != CONTROLLER),
            concluded=concluded,
            failed=(predictions or {}).get("failed", 0),
            troubles=bool(failures),
        ),
    )


def as_json(found: Status) -> str:
    """A status as JSON for programs."""
    return json.dumps(asdict(found), indent=1, ensure_ascii=False)


def as_text(found: Status) -> str:
    """A status for people."""
    lines = [f"run {found.run} at {found.prefix}", f"controller: {found.controller.what}"]
    rules = {rule: states for rule, states in found.jobs.items() if rule != CONTROLLER}
    width = max(map(len, rules), default=0)
    for rule, states in rules.items():
        counts = ", ".join(f"{count} {state.lower()}" for state, count in states.items())
        lines.append(f"  {rule:{width}}  {counts}")
    for kind, attempts in found.attempts.items():
        cost = f", {attempts.dollars:.2f} USD" if attempts.dollars else ""
        lines.append(f"attempts {kind}: {attempts.count}, {attempts.hours:.2f} h{cost}")
    for failure in found.failures[:_FAILURES]:
        which = " ".join(failure.wildcards.values())
        lines.append(f"  {failure.time or 'never ran'} {failure.rule} {which}: {failure.kind}: {failure.reason}")
        lines.append(f"    {COMMAND} logs {failure.job_id}")
    if len(found.failures) > _FAILURES:
        lines.append(f"  ... and {len(found.failures) - _FAILURES} more: --json lists all")
    if found.predictions is not None:
        counts = ", ".join(f"{count} {state}" for state, count in found.predictions.items())
        lines.append(f"{'outcome' if found.concluded else 'last summary'}: {counts}")
    lines.append(f"next: {found.next}")
    return "\n".join(lines)


def _controller(run: Run, launch: Launch | None, lock: LockState | None, jobs: Sequence[BatchJob]) -> Controller:
    if lock is not None and lock.stale is None:
        job_id = lock.owner.batch_job_id if lock.owner else None
        return Controller(alive=True, what=f"alive: {lock}", job_id=job_id)
    dead = f" (its lock is left: {lock.stale})" if lock is not None else ""
    if launch is None:
        waiting = next((job for job in jobs if job.rule == CONTROLLER and job.live), None)
        if waiting is not None:
            return Controller(alive=True, what=f"job {waiting.id} is {waiting.state}", job_id=waiting.id)
        return Controller(alive=False, what=f"none{dead}", job_id=None)
    who = f"job {launch.job_id}, launched by {launch.user} at {launch.time}"
    described = describe(run, launch.job_id)
    if described is None:
        return Controller(alive=False, what=f"{who}, ended over a week ago{dead}", job_id=launch.job_id)
    state = described["status"]
    if state not in ("SUCCEEDED", "FAILED"):
        if is_ending(described):
            return Controller(alive=False, what=f"{who}, was told to end", job_id=launch.job_id)
        why = described.get("statusReason")
        return Controller(alive=True, what=f"{who}, is {state}" + (f": {why}" if why else ""), job_id=launch.job_id)
    why = _why_ended(described)
    ended = _time((described.get("stoppedAt") or 0) / 1000)
    return Controller(alive=False, what=f"{who}, {state} at {ended}: {why}{dead}", job_id=launch.job_id)


def _why_ended(job: Mapping[str, Any]) -> str:
    container = job.get("container") or {}
    parts = [part for part in (job.get("statusReason"), container.get("reason")) if part]
    if (code := container.get("exitCode")) is not None:
        parts.append(f"exit code {code}")
    return "; ".join(parts) or "no reason given"


def _count(jobs: Sequence[BatchJob]) -> dict[str, dict[str, int]]:
    counted: dict[str, Counter[str]] = {}
    for job in jobs:
        counted.setdefault(job.rule, Counter())[job.state] += 1
    return {rule: {state: counted[rule][state] for state in STATES if counted[rule][state]} for rule in sorted(counted)}


def _ledger(run: Run) -> list[dict[str, Any]]:
    try:
        content, _ = run.own.read(LEDGER)
    except S3MissingError:
        return []
    records = []
    for line in content.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                records.append(record)
    return records


def _attempts(ledger: Sequence[Mapping[str, Any]]) -> dict[str, Attempts]:
    found: dict[str, Attempts] = {}
    by_class: dict[str, list[Mapping[str, Any]]] = {}
    for record in ledger:
        by_class.setdefault(str(record.get("class")), []).append(record)
    for kind in sorted(by_class, key=lambda kind: (kind != _SUCCEEDED, kind)):
        records = by_class[kind]
        hours = [(record.get("seconds") or 0) / 3600 for record in records]
        prices = [record.get("price_per_hour") or 0 for record in records]
        dollars = sum(hour * price for hour, price in zip(hours, prices, strict=True))
        found[kind] = Attempts(count=len(records), hours=sum(hours), dollars=dollars)
    return found


def _failures(ledger: Sequence[Mapping[str, Any]], succeeded: Set[str | None]) -> list[FailedAttempt]:
    """Failed attempts of jobs that have not succeeded since, the newest first.

    `succeeded` are digests of jobs; the ledger may not tell of them yet.
    """
    done = succeeded | {record.get("job") for record in ledger if record.get("class") == _SUCCEEDED}
    failed = [record for record in ledger if record.get("class") != _SUCCEEDED and record.get("job") not in done]
    failed.sort(key=lambda record: record.get("stopped") or record.get("created") or 0, reverse=True)
    return [
        FailedAttempt(
            rule=record.get("rule") or "?",
            wildcards=record.get("wildcards") or {},
            kind=record.get("class") or "?",
            reason=record.get("reason") or "no reason given",
            job_id=record.get("job_id") or "?",
            time=_time(record["stopped"]) if record.get("stopped") else "",
        )
        for record in failed
    ]


def _predictions(run: Run, table: str) -> dict[str, int] | None:
    try:
        content, _ = run.folder.read(table)
    except S3MissingError:
        return None
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    counted = Counter(row["status"] for row in rows)
    return {state: counted[state] for state in ("done", "skipped", "failed")}


def _next(
    run: Run,
    *,
    launch: Launch | None,
    controller: Controller,
    living: int,
    concluded: bool,
    failed: int,
    troubles: bool,
) -> str:
    named = f" --run {run.name}" if run.name != "default" else ""
    logs = f"`{COMMAND} logs{named}`" if launch is not None else "its terminal"
    if controller.alive:
        return f"wait; {logs} says what it does, `{COMMAND} stop{named}` ends it"
    again = f"`{COMMAND} launch{named}` with the same --config" if launch is not None else "the same command"
    if concluded and not living:
        return f"`{COMMAND} pull{named}` brings the report and the summary here"
    if failed and not living:
        return (
            f"`{COMMAND} pull{named}` brings the report, which says why predictions failed; mend it, then "
            f"`{COMMAND} retry --profile aws-batch{named}` and {again}"
        )
    if living:
        return f"nobody follows {living} living jobs: {again} goes on with them, `{COMMAND} stop{named}` ends them"
    trouble = " after mending the failures above" if troubles else ""
    return f"see {logs} for why it ended; {again} goes on where it was{trouble}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
