"""Targets and their chains: what a sample sheet says, checked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from snakefold.engines.base import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One polypeptide: its sequence in upper-case one-letter codes, and the MSA that the user gives for it, if any.

    `id` names the sequence: the first 16 hex digits of its SHA-256. `search_id` names the search: it is `id` where
    homologues are searched for, and differs for every given MSA. It is computed from the MSA's path and not from its
    content, because reading a workflow must not open data files.
    """

    sequence: str
    msa: Path | None = None
    id: str = field(init=False)
    search_id: str = field(init=False)

    def __post_init__(self) -> None:
        identity = _short_digest(self.sequence)
        object.__setattr__(self, "id", identity)
        search = identity if self.msa is None else _short_digest(f"{identity}\n{self.msa.as_posix()}")
        object.__setattr__(self, "search_id", search)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of a sample sheet.

    `chains` are all copies, in the order of the model's chains A, B, C ... `engines` are those that shall predict
    it, in the order of the sheet; at least one accepts it (see `refusal`). Paths are relative to the working
    directory or absolute. `row` is the 1-based line of `file`, as an editor counts.
    """

    id: str
    chains: tuple[Chain, ...]
    engines: tuple[str, ...]
    seed: int
    template: Path | None
    reference: Path | None
    file: Path
    row: int

    @property
    def length(self) -> int:
        """Residues of all chains together."""
        return sum(len(chain.sequence) for chain in self.chains)


def refusal(limits: Limits, chains: Sequence[Chain]) -> str | None:
    """Why an engine with these limits cannot take a target of these chains (all copies), or None if it can.

    The reason reads on after "the engine", such as "takes at most 3000 residues, the target has 4100".
    """
    length = sum(len(chain.sequence) for chain in chains)
    if length < limits.min_length:
        return f"takes at least {limits.min_length} residues, the target has {length}"
    if length > limits.max_length:
        return f"takes at most {limits.max_length} residues, the target has {length}"
    if len(chains) > limits.max_chains:
        return f"takes at most {limits.max_chains} chains, the target has {len(chains)}"
    for number, chain in enumerate(chains, start=1):
        position = first_letter_outside(chain.sequence, limits.letters)
        if position is not None:
            return f"does not accept {chain.sequence[position]!r} (position {position + 1} of chain {number})"
    if not limits.msa_of_each_copy:
        first: dict[str, tuple[int, str]] = {}
        for number, chain in enumerate(chains, start=1):
            former, search = first.setdefault(chain.sequence, (number, chain.search_id))
            if search != chain.search_id:
                return f"reads one MSA for equal chains, chains {former} and {number} have different ones"
    return None


def first_letter_outside(sequence: str, letters: frozenset[str]) -> int | None:
    """0-based position of the first letter of a sequence that is not among `letters`, or None."""
    # Stripping runs in C: a scan in Python would take most of the time in which a large sheet is read.
    rest = sequence.lstrip(_joined(letters))
    return len(sequence) - len(rest) if rest else None


@lru_cache(maxsize=64)
def _joined(letters: frozenset[str]) -> str:
    return "".join(letters)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
