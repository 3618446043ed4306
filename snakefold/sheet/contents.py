"""Do the files that a sheet names fit their target? Opens MSAs, templates and references; not for parsing."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import gemmi

from snakefold.errors import SnakefoldError
from snakefold.sheet.relocation import relocated
from snakefold.sheet.tables import UnreadableError, fasta_records, read_text
from snakefold.sheet.targets import Target
from snakefold.structures.io import PolymerChain, read_chains

MIN_IDENTITY = 0.9
"""A reference whose chains differ more than this from the target's is another protein."""

MIN_OVERLAP = 30
"""Residues that a chain of the reference must share with a chain of the target, unless the latter is short."""


def faults_of_files(target: Target) -> Iterator[str]:
    """Yield the faults of a target's MSAs, template and reference: `file:row: column: what is wrong; what to do`."""
    place = f"{target.file}:{target.row}"
    for msa, sequence in {(chain.msa, chain.sequence): None for chain in target.chains}:
        fault = None if msa is None else msa_fault(msa, sequence)
        if fault:
            yield f"{place}: msa: {msa}: {fault}"
    if target.template is not None:
        try:
            read_chains(relocated(target.template))
        except SnakefoldError as error:
            yield f"{place}: template: {error}"
    if target.reference is not None:
        fault = reference_fault(target.reference, [chain.sequence for chain in target.chains])
        if fault:
            yield f"{place}: reference: {fault}"


def msa_fault(path: Path, sequence: str) -> str | None:
    """What keeps a file from being an MSA (A3M or Stockholm) of this sequence, and what to do; None if nothing does."""
    try:
        text = read_text(path)
    except UnreadableError as error:
        return str(error)
    if text.lstrip().startswith("# STOCKHOLM"):
        return _stockholm_fault(text, sequence)
    return _a3m_fault(text, sequence)


def _a3m_fault(text: str, sequence: str) -> str | None:
    for number, (line, header, row) in enumerate(fasta_records(text)):
        if not header:
            return f"line {line} belongs to no sequence; give an MSA in A3M or Stockholm form"
        if number == 0:
            fault = _query_fault(row, sequence)
            if fault:
                return fault
        # In A3M, lower-case letters are insertions relative to the query and take no column.
        columns = sum(not letter.islower() and letter != "." for letter in row)
        if number > 0 and columns != len(sequence):
            return (
                f"the sequence at line {line} has {columns} columns, the query {len(sequence)}; "
                "write insertions in lower case (A3M), or give the MSA in Stockholm form"
            )
    return None if text.strip() else "is empty; leave the entry of this chain empty to have it searched for"


def _stockholm_fault(text: str, sequence: str) -> str | None:
    rows: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if line.strip() and not line.startswith(("#", "//")):
            name, _, row = line.strip().partition(" ")
            rows.setdefault(name, []).append(row.strip())
    if not rows:
        return "holds no sequence; leave the entry of this chain empty to have it searched for"
    widths = {name: sum(map(len, parts)) for name, parts in rows.items()}
    query, width = next(iter(widths.items()))
    for name, other in widths.items():
        if other != width:
            return f"{name} has {other} columns, {query} has {width}; give a complete alignment"
    return _query_fault("".join(rows[query]), sequence)


def _query_fault(row: str, sequence: str) -> str | None:
    query = row.replace("-", "").replace(".", "").replace("~", "").upper()
    if query == sequence:
        return None
    pairs = enumerate(zip_longest(query, sequence, fillvalue="the end"), start=1)
    position, (found, wanted) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
    return (
        f"its first sequence is not the chain's: {found} instead of {wanted} at position {position}; "
        "put the chain first, complete and unchanged"
    )


def reference_fault(path: Path, sequences: list[str]) -> str | None:
    """Why a structure cannot be the reference of a target with these chains, and what to do; None if it can.

    Every chain needs a chain of the reference that is identical in at least 90 % of the residues that both know.
    """
    try:
        chains = read_chains(relocated(path))
    except SnakefoldError as error:
        return str(error)
    for number, sequence in enumerate(sequences, start=1):
        if sequence in sequences[: number - 1]:
            continue
        nearest = max(((*identity_over_overlap(sequence, chain), chain.name) for chain in chains), default=None)
        if nearest is None or nearest[0] < MIN_IDENTITY:
            which = "the target" if len(sequences) == 1 else f"chain {number} of the target"
            found = "none of its chains overlaps"
            if nearest is not None and nearest[1]:
                found = f"the nearest, chain {nearest[2]}, is {nearest[0]:.0%} identical over {nearest[1]} residues"
            return f"{path} does not show {which}: {found}; give a structure of the same protein or none"
    return None


def identity_over_overlap(sequence: str, chain: PolymerChain) -> tuple[float, int]:
    """Identity (0-1) of a sequence and a chain with coordinates, and the residues over which it was counted.

    Both are aligned from end to end; only residues count that have coordinates and are not X. An overlap of less than
    30 residues (or half of a short sequence) is none, (0.0, 0): bound peptides agree with anything by chance.
    """
    scoring = gemmi.AlignmentScoring()
    # Dear gaps: unlike proteins must come out as unlike, not as gaps around chance matches.
    scoring.match, scoring.mismatch, scoring.gapo, scoring.gape = 2, -2, -6, -1
    aligned = gemmi.align_string_sequences(list(sequence), list(chain.sequence), [], scoring)
    index = same = overlap = 0
    for ours, theirs in zip(aligned.add_gaps(sequence, 1), aligned.add_gaps(chain.sequence, 2), strict=True):
        if theirs == "-":
            continue
        if ours not in "-X" and theirs != "X" and index in chain.residues:
            overlap += 1
            same += ours == theirs
        index += 1
    if overlap < max(1, min(MIN_OVERLAP, len(sequence) / 2)):
        return 0.0, 0
    return same / overlap, overlap
