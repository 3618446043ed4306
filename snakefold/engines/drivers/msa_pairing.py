"""Pairs the rows of different chains' MSAs by species, for engines that are told which rows belong together.

Runs in the engine's own Python; needs the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

UNPAIRED = -1
"""The key of a row that belongs to no other."""

# What UniProt calls an entry, after the databank and the accession: protein and species. Small BFD adds a number.
_UNIPROT = re.compile(r"(?:sp|tr)\|[A-Za-z0-9_]+\|[A-Za-z0-9]+_([A-Za-z0-9]{1,5})(?:_\d+)?")

Row = tuple[str, str]
"""A row of an MSA: its name, and its letters as in A3M."""


def read_a3m(path: str | Path) -> list[Row]:
    """The rows of an A3M file, the query first. The residues that they cover (`/26-204`) do not belong to the names."""
    rows: list[Row] = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(">"):
            rows.append((line[1:].partition(" ")[0].partition("/")[0], ""))
        elif line.strip() and not line.startswith("#"):
            name, letters = rows[-1]
            rows[-1] = name, letters + line.strip()
    return rows


def species(name: str) -> str | None:
    """The species in a row's name as UniProt writes it (`tr|A0A146SKV9|A0A146SKV9_FUNHE`: FUNHE); None of others."""
    match = _UNIPROT.fullmatch(name)
    return match[1] if match else None


def pair_by_species(msas: Sequence[Sequence[Row]], most: int) -> list[list[tuple[int, str]]]:
    """Each MSA's rows as (key, letters); rows of different MSAs with one key belong together.

    A species that has rows in several MSAs gets a key, for the best row that it has in each. Rows with a key come
    after the query, in the order of the keys, so that cutting the MSAs parts no pair: first the species that are in
    most MSAs, of these the ones whose rows stand highest. The others keep their order and have the key UNPAIRED. So has
    the query, which everybody pairs. `most` is the number of rows that the MSAs will be cut to: what lies beyond has
    the key UNPAIRED too.
    """
    best: list[dict[str, int]] = []
    for rows in msas:
        of_species: dict[str, int] = {}
        for number, (name, _) in enumerate(rows[1:], start=1):
            found = species(name)
            if found is not None:
                of_species.setdefault(found, number)
        best.append(of_species)
    ranks: dict[str, list[int]] = {}
    for of_species in best:
        for name, number in of_species.items():
            ranks.setdefault(name, []).append(number)
    shared = [name for name, numbers in ranks.items() if len(numbers) > 1]
    shared.sort(key=lambda name: (-len(ranks[name]), sum(ranks[name]), name))
    keys = {name: key for key, name in enumerate(shared[: most - 1])}
    return [_with_keys(rows, of_species, keys) for rows, of_species in zip(msas, best)]  # noqa: B905 (Python 3.9)


def _with_keys(rows: Sequence[Row], best: dict[str, int], keys: dict[str, int]) -> list[tuple[int, str]]:
    paired = {best[name]: key for name, key in keys.items() if name in best}
    rest = [number for number in range(1, len(rows)) if number not in paired]
    order = [0, *sorted(paired, key=lambda number: paired[number]), *rest]
    return [(paired.get(number, UNPAIRED), rows[number][1]) for number in order]
