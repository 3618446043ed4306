"""The rows of MSAs: read from A3M, told by species, and paired between chains for engines that want it done.

Runs in the engine's own Python (3.9 or newer); needs the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

UNPAIRED = -1
"""The key of a row that belongs to no other."""

Row = tuple[str, str]
"""A row of an MSA: its header without ">", and its letters as in A3M: gaps are "-", insertions in lower case."""

# NCBI's number of a species: `OX=` in UniProt's headers, `TaxID=` in those of UniRef, for all members of a cluster.
_TAXON = re.compile(r"\b(OX|TaxID)=([0-9]+)\b")
_ONE_MEMBER = re.compile(r"\bn=1\b")

# Numbers that stand for no species though single entries bear them: unclassified, unidentified, synthetic, uncultured
# bacterium and organism.
_NO_SPECIES = frozenset({"12908", "32644", "32630", "77133", "155900"})

# What UniProt calls an entry, after the databank and the accession: protein and species. Small BFD adds a number, a
# search the residues that the row covers. UniRef calls the entry so whose sequence stands for a cluster.
_UNIPROT = re.compile(r"(?:sp|tr)\|[^|\s]+\|[A-Za-z0-9]+_([A-Za-z0-9]{1,5})(?:_[0-9]+)?(?:/\S*)?(?=\s|$)")
_UNIREF = re.compile(r"\bRepID=[A-Za-z0-9]+_([A-Za-z0-9]{1,5})(?=\s|$)")


def read_a3m(path: str | Path) -> list[Row]:
    """The rows of an A3M file, the query first."""
    rows: list[Row] = []
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        if line.startswith(">"):
            rows.append((line[1:].strip(), ""))
        elif rows and not line.startswith("#"):
            header, letters = rows[-1]
            rows[-1] = header, letters + line.strip()
    return rows


def a3m_text(rows: Iterable[Row]) -> str:
    """The text of an A3M file of these rows."""
    return "".join(f">{header}\n{letters}\n" for header, letters in rows)


def species_of_rows(msas: Sequence[Sequence[Row]]) -> list[list[str | None]]:
    """The species that each MSA's rows name in their headers; None for a row that names none.

    It is NCBI's number, where it is the row's own (`OX=` of UniProt; `TaxID=` of a UniRef cluster of one member). Else
    it is the code in UniProt's name of the entry (`tr|A0A146SKV9|A0A146SKV9_FUNHE`: FUNHE; `RepID=A0A146SKV9_FUNHE`
    of UniRef), or the number that rows which have both give with that code. Else it is the number of a cluster of
    several members, if that is some row's own: others are of genera, families and so on. Last come codes such as 9BACT,
    which AlphaFold pairs by.
    """
    named = [[_Named.by(header) for header, _ in rows] for rows in msas]
    taxon_of = {row.code: row.taxon for rows in named for row in rows if row.taxon and row.is_own}
    owned = {row.taxon for rows in named for row in rows if row.taxon and row.is_own}
    return [[row.species(taxon_of, owned) for row in rows] for rows in named]


class _Named(NamedTuple):
    """What a header says of the species: NCBI's number, whether that is the row's own, and UniProt's code."""

    taxon: str | None
    is_own: bool
    code: str | None

    @classmethod
    def by(cls, header: str) -> _Named:
        taxon, entry = _TAXON.search(header), _UNIPROT.match(header) or _UNIREF.search(header)
        return cls(
            taxon=taxon[2] if taxon and taxon[2] not in _NO_SPECIES else None,
            is_own=taxon is not None and (taxon[1] == "OX" or _ONE_MEMBER.search(header) is not None),
            code=entry[1] if entry else None,
        )

    def species(self, taxon_of: Mapping[str | None, str], owned: Collection[str]) -> str | None:
        """The species, by the numbers that rows give with their codes, and those that are some row's own."""
        if self.taxon and self.is_own:
            return self.taxon
        # Codes that begin with 9 are for all that have none of their own.
        if self.code is not None and not self.code.startswith("9"):
            return taxon_of.get(self.code, self.code)
        return self.taxon if self.taxon in owned else self.code


def pair_by_species(msas: Sequence[Sequence[Row]], most: int) -> list[list[tuple[int, str]]]:
    """Each MSA's rows as (key, letters); rows of different MSAs with one key belong together.

    A species that has rows in several MSAs gets a key, for the best row that it has in each. Rows with a key come
    after the query, in the order of the keys, so that cutting the MSAs parts no pair: first the species that are in
    most MSAs, of these the ones whose rows stand highest. The others keep their order and have the key UNPAIRED. So has
    the query, which everybody pairs. `most` is the number of rows that the MSAs will be cut to: what lies beyond has
    the key UNPAIRED too.
    """
    best: list[dict[str, int]] = []
    for named in species_of_rows(msas):
        of_species: dict[str, int] = {}
        for number, name in enumerate(named):
            if number and name is not None:
                of_species.setdefault(name, number)
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
