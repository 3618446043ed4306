"""What a store is: actions, records, and the questions that any store answers."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_json
from snakefold.outcome import Outcome

DAY = 86_400  # seconds
GRACE_DAYS = 1.0
"""Blobs younger than this are never collected: their record may still be on its way."""

REMEDY = "run `python -m snakefold retry`, then the workflow again"
"""What to do when a result is gone that a receipt promises."""


class StoreError(SnakefoldError):
    """The store lacks a result that a receipt promises, or holds it damaged."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """Everything that determines one result. Equal actions give equal results, so the second is never computed.

    `version` is that of the step's own code together with the tool's; `inputs` maps names to SHA-256 digests;
    `databases` maps names to manifest digests; `parameters` are plain JSON values.
    """

    step: str
    tool: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    databases: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None

    @property
    def key(self) -> str:
        """SHA-256 of the action's canonical JSON."""
        return sha256_of_json(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the store knows of one action: how it ended, its files (name -> SHA-256), and what it took.

    `hardware` is the GPU's name or the processor's kind, `gpu_memory_mb` the peak on a GPU.
    """

    step: str
    outcome: Outcome
    files: Mapping[str, str]
    seconds: float
    peak_memory_mb: float
    hardware: str
    gpu_memory_mb: float | None = None


@dataclass(frozen=True, kw_only=True)
class StoreStatistics:
    """How much a store holds: records by step, blobs, bytes."""

    records: Mapping[str, int]
    blobs: int
    size: int


class Store(Protocol):
    """Where results are kept. The local directory and the S3 prefix behave alike."""

    def lookup(self, key: str) -> Record | None:
        """The record of an action whose files are all there, or None. Counts as a use (see `collect_garbage`)."""
        ...

    def lookup_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """The records of those actions that `lookup` would find. On S3 far faster than one after the other."""
        ...

    def commit(self, key: str, record: Record, folder: Path) -> None:
        """Keep a result: the files that `record.files` names, found in `folder`, then the record itself."""
        ...

    def fetch(self, digest: str, path: Path) -> None:
        """Write the bytes of a digest to `path`, atomically and checked. Raises StoreError."""
        ...

    def holds(self, digest: str) -> bool:
        """Whether there is a blob of this digest (its content is checked on reading)."""
        ...

    def statistics(self) -> StoreStatistics:
        """Count what is there."""
        ...

    def verify(self) -> list[str]:
        """Read everything again; remove what is damaged; return a line for each fault."""
        ...

    def collect_garbage(self, keep_days: float) -> tuple[int, int]:
        """Remove records unused for `keep_days` and the blobs that no record names: (records, bytes) removed."""
        ...


def record_from_json(value: dict[str, Any]) -> Record:
    """A record as read from its file. Raises TypeError, KeyError or ValueError for what is none."""
    files = value["files"]
    if not isinstance(files, dict) or not all(isinstance(each, str) for each in files.values()):
        raise ValueError("files is not a table of digests")
    return Record(**{**value, "outcome": Outcome(**value["outcome"])})
