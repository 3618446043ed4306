"""Names by which a controller on any machine finds the jobs of a run again, with no state but what AWS Batch keeps.

A job is called `<run>-<rule>-<job>-<work>`:
- run: 8 hex digits of SHA-256 of the storage prefix: all jobs of a run are found by `<run>-*`;
- job: 12 hex digits of rule, wildcards and outputs: which job of the workflow it is;
- work: 12 hex digits of what it computes: the command without what differs from one controller to the next, the
  content of the sources and the image. A job with the same `job` and another `work` computes something out of date.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Options of the inner Snakemake that say how to run, not what to compute. They change with the attempt, with the
# state of the DAG, or with the controller's own options.
_HOW = frozenset(
    (
        "--attempt",
        "--cores",
        "--default-resources",
        "--latency-wait",
        "--local-groupid",
        "--local-storage-prefix",
        "--max-threads",
        "--printshellcmds",
        "--quiet",
        "--resources",
        "--scheduler",
        "--set-resources",
        "--set-resource-scopes",
        "--set-threads",
        "--storage-s3-inventory-credentials-grace",
        "--storage-s3-inventory-retries",
        "--unneeded-temp-files",
        "--verbose",
        "--wait-for-free-local-storage",
    )
)
_NAME = re.compile(r"^([0-9a-f]{8})-([A-Za-z0-9_]+)-([0-9a-f]{12})-([0-9a-f]{12})$")
_LONGEST_RULE = 80


@dataclass(frozen=True, kw_only=True)
class JobName:
    """The parts of a job's name."""

    run: str
    rule: str
    job: str
    work: str

    def __str__(self) -> str:
        return f"{self.run}-{self.rule}-{self.job}-{self.work}"


def run_id(prefix: str) -> str:
    """The run's 8 hex digits, from its storage prefix (without a last slash)."""
    return _digest(prefix.rstrip("/"))[:8]


def job_name(*, run: str, rule: str, job: str, work: str) -> JobName:
    """A job's name; what AWS Batch does not accept in a rule's (or group's) name becomes `_`."""
    return JobName(run=run, rule=re.sub(r"[^A-Za-z0-9_]", "_", rule)[:_LONGEST_RULE], job=job[:12], work=work[:12])


def parse_job_name(text: str) -> JobName | None:
    """The parts of a name, or None when it is not one of ours."""
    match = _NAME.match(text)
    return JobName(run=match[1], rule=match[2], job=match[3], work=match[4]) if match else None


def job_digest(rule: str, wildcards: Mapping[str, str], outputs: Iterable[str]) -> str:
    """Which job of the workflow this is (hex)."""
    return _digest(json.dumps([rule, sorted(wildcards.items()), sorted(outputs)]))


def group_digest(members: Iterable[str]) -> str:
    """Which group this is (hex), from its members' digests in any order."""
    return _digest(json.dumps(sorted(members)))


def work_digest(
    command: str,
    *,
    archive: Iterable[str],
    sources: str,
    image: str,
    mounts: Iterable[str],
    inputs: Iterable[tuple[str, float]] = (),
) -> str:
    """What a job computes (hex).

    `inputs` are addresses and times of what it reads: a job that began before one of them was made anew computes
    something out of date.

    `archive` are the words by which the command names the source archive (its address and checksum). They are left
    out, because an archive's checksum holds times and owners of files; `sources` is the digest of its content.
    """
    unwanted = set(archive)
    options: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("--") or word == "&&":
            options.append([])
        if word not in unwanted:
            options[-1].append(word)
    # Words after an option may come from a set (the members of a group), so their order means nothing.
    what = [[option[0], *sorted(option[1:])] for option in options if option and option[0] not in _HOW]
    return _digest(json.dumps([what, sources, image, sorted(mounts), sorted(inputs)]))


def sources_digest(files: Iterable[str], root: Path) -> str:
    """The content of the source files (hex): names and bytes, no times, so that it is the same on every machine."""
    entries = []
    for name in sorted(set(files)):
        path = root / name
        if path.is_file():
            entries.append([name, hashlib.sha256(path.read_bytes()).hexdigest()])
    return _digest(json.dumps(entries))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
