"""The ledger: one JSON line for every attempt of every job, from which costs and times are computed."""

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code
from snakemake_executor_plugin_aws_batch_fleet.classify import classify_parts
from snakemake_executor_plugin_aws_batch_fleet.fleet import Queue
from snakemake_executor_plugin_aws_batch_fleet.identity import parse_job_name
from snakemake_executor_plugin_aws_batch_fleet.routing import Need, cost_per_hour


def attempt_records(
    job: Mapping[str, Any],
    *,
    queue: Queue,
    need: Need,
    wildcards: Mapping[str, str],
    final: str,
    instance_types: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The ledger's lines of an ended job (from DescribeJobs), oldest attempt first.

    `final` is the class of the last attempt (`succeeded`, or a FailureClass). Times are UTC in seconds since 1970.
    """
    attempts = list(job.get("attempts") or [])
    if not attempts:
        # Ended before it ran: one line without times, so that nothing is missing from the ledger.
        attempts = [{"container": job.get("container") or {}, "statusReason": job.get("statusReason")}]
    name = parse_job_name(job["jobName"])
    records = []
    for number, attempt in enumerate(attempts, start=1):
        container = attempt.get("container") or {}
        last = number == len(attempts)
        reason = "; ".join(part for part in (attempt.get("statusReason"), container.get("reason")) if part)
        started, stopped = _seconds(attempt.get("startedAt")), _seconds(attempt.get("stoppedAt"))
        kind = final
        if not last:
            kind = classify_parts(
                status_reason=attempt.get("statusReason") or "",
                reason=container.get("reason") or "",
                exit_code=container.get("exitCode"),
                started=started is not None,
            ).kind.value
        arn = container.get("containerInstanceArn") or (job.get("container") or {}).get("containerInstanceArn", "")
        records.append(
            {
                "job_id": job["jobId"],
                "attempt": number,
                "job_name": job["jobName"],
                "job": name.job if name else None,
                "rule": name.rule if name else None,
                "wildcards": dict(wildcards),
                "queue": queue.name,
                "purchase": queue.purchase,
                "instance_type": instance_types.get(arn),
                "vcpus": need.vcpus,
                "memory_mb": need.memory_mb,
                "gpus": need.gpus,
                "gpu_memory_mb": need.gpu_memory_mb,
                "price_per_hour": round(cost_per_hour(need, queue), 6),
                "created": _seconds(job.get("createdAt")),
                "started": started,
                "stopped": stopped,
                "seconds": round(stopped - started, 3) if started is not None and stopped is not None else None,
                "exit_code": container.get("exitCode"),
                "reason": reason or None,
                "class": kind,
            }
        )
    return records


class Ledger:
    """A local file of lines and its copy in S3. Safe to use from several threads; no attempt is written twice."""

    def __init__(self, path: Path, aws: Aws, bucket: str, key: str) -> None:
        self._path = path
        self._aws = aws
        self._bucket = bucket
        self._key = key
        self._known: set[tuple[str, int]] = set()
        self._unsent = False
        self._lock = threading.Lock()

    def restore(self) -> None:
        """Continue the ledger of former controllers: what S3 has and what this machine has, together."""
        lines: dict[tuple[str, int], str] = {}
        try:
            stored = self._aws.s3.get_object(Bucket=self._bucket, Key=self._key)["Body"].read().decode()
        except Exception as error:
            if error_code(error) not in ("NoSuchKey", "404"):
                raise
            stored = ""
        local = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        for line in (*stored.splitlines(), *local.splitlines()):
            # A controller killed while it wrote may have left half a line.
            with contextlib.suppress(ValueError, KeyError):
                record = json.loads(line)
                lines.setdefault((record["job_id"], record["attempt"]), line)
        text = "".join(f"{line}\n" for line in lines.values())
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            new.replace(self._path)
            self._known = set(lines)
            self._unsent = text != stored

    def has(self, job_id: str) -> bool:
        """Whether any attempt of a job is there: they come all at once, when the job has ended."""
        with self._lock:
            return (job_id, 1) in self._known

    def add(self, records: list[dict[str, Any]]) -> None:
        """Append the attempts that are not there yet."""
        with self._lock:
            fresh = [record for record in records if (record["job_id"], record["attempt"]) not in self._known]
            if not fresh:
                return
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in fresh)
            self._known.update((record["job_id"], record["attempt"]) for record in fresh)
            self._unsent = True

    def upload(self) -> None:
        """Copy the ledger to S3, if there is anything new."""
        with self._lock:
            if not self._unsent:
                return
            body = self._path.read_bytes()
            self._unsent = False
        try:
            self._aws.s3.put_object(Bucket=self._bucket, Key=self._key, Body=body, ContentType="application/x-ndjson")
        except Exception:
            with self._lock:
                self._unsent = True
            raise


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if milliseconds else None
