"""The contact energies of side-chain packing: a function of distance for each pair of atom types.

The table contacts.txt was fitted by bench/contacts.py, which says how; its header has the format.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

KNOTS = np.array([2.2, 2.6, 2.9, 3.2, 3.5, 3.8, 4.2, 4.8, 5.6, 6.6])
"""Distances (angstrom) at which an energy is tabled; it is linear between them, constant below, 0 from the last on."""
REACH = float(KNOTS[-1])
BINS_PER_SQUARE_ANGSTROM = 10.0

TYPES = (
    "aliphatic", "aromatic", "planar-carbon", "carboxylate", "amide-oxygen", "hydroxyl", "amide-nitrogen", "cation",
    "ring-nitrogen", "sulphur", "N", "CA", "C", "O",
)  # fmt: skip
"""Atom types; the last four are the backbone's."""

_NEAREST_SULPHURS, _FORBIDDEN = 3.0, 30.0

_NAMED = MappingProxyType(
    {
        **dict.fromkeys(("ASP OD1", "ASP OD2", "GLU OE1", "GLU OE2"), "carboxylate"),
        **dict.fromkeys(("ASN OD1", "GLN OE1"), "amide-oxygen"),
        **dict.fromkeys(("SER OG", "THR OG1", "TYR OH"), "hydroxyl"),
        **dict.fromkeys(("ASN ND2", "GLN NE2"), "amide-nitrogen"),
        **dict.fromkeys(("LYS NZ", "ARG NE", "ARG NH1", "ARG NH2"), "cation"),
        **dict.fromkeys(("HIS ND1", "HIS NE2", "TRP NE1"), "ring-nitrogen"),
        **dict.fromkeys(("ASP CG", "ASN CG", "GLU CD", "GLN CD", "ARG CZ"), "planar-carbon"),
        **dict.fromkeys(("CYS SG", "MET SD"), "sulphur"),
    }
)
_AROMATIC = frozenset({"PHE", "TYR", "TRP", "HIS"})


@cache
def atom_types(residue: str, names: Sequence[str]) -> NDArray[np.int64]:
    """(atoms,): indices into TYPES of a residue's heavy atoms."""
    return np.array([TYPES.index(_type(residue, name)) for name in names], dtype=np.int64)


def _type(residue: str, name: str) -> str:
    if name in TYPES:
        return name
    if f"{residue} {name}" in _NAMED:
        return _NAMED[f"{residue} {name}"]
    return "aromatic" if residue in _AROMATIC and name != "CB" else "aliphatic"


@cache
def energies() -> NDArray[np.float32]:
    """(types, types, bins): contact energies in kT by squared distance, BINS_PER_SQUARE_ANGSTROM bins each A2."""
    text = resources.files("snakefold.engines.template").joinpath("contacts.txt").read_text(encoding="utf-8")
    distances = np.sqrt((np.arange(int(REACH**2 * BINS_PER_SQUARE_ANGSTROM)) + 0.5) / BINS_PER_SQUARE_ANGSTROM)
    table = np.zeros((len(TYPES), len(TYPES), len(distances)), dtype=np.float32)
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind != "contact":
            continue
        first, second, *values = fields
        curve = np.interp(distances, KNOTS, [*(float(value) for value in values), 0.0])
        a, b = TYPES.index(first), TYPES.index(second)
        table[a, b] = table[b, a] = curve
    # Disulfides are settled before packing; other sulphurs so near would be taken for one.
    sulphur = TYPES.index("sulphur")
    table[sulphur, sulphur, distances < _NEAREST_SULPHURS] = _FORBIDDEN
    table.setflags(write=False)
    return table


@cache
def rotamer_weights() -> Mapping[str, tuple[float, float]]:
    """By three-letter name: the weight of a rotamer's -ln(share), and the cost (kT) of varying it."""
    text = resources.files("snakefold.engines.template").joinpath("contacts.txt").read_text(encoding="utf-8")
    fields = [line.split() for line in text.splitlines() if line.startswith("rotamer ")]
    return MappingProxyType({residue: (float(weight), float(cost)) for _, residue, weight, cost in fields})
