"""Side-chain rotamers and how frequent they are at each place of the Ramachandran plot.

The statistics in rotamers.txt were counted by bench/rotamers.py, which says from what; its header has the format.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from snakefold.engines.template.building import Array

GRID_STEP = 20.0
"""Degrees between the points of the grid over phi and psi, which starts at -180."""
GRID = round(360 / GRID_STEP)
SYMBOLS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The levels in which the table writes -ln(share)."""
LEVEL = 0.15

CHI_EDGES: Mapping[str, tuple[tuple[float, int, float], ...]] = MappingProxyType(
    {
        **dict.fromkeys(("CYS", "SER", "THR", "VAL"), ((0.0, 3, 360.0),)),
        "PRO": ((-180.0, 2, 360.0),),
        **dict.fromkeys(("ILE", "LEU"), ((0.0, 3, 360.0),) * 2),
        "MET": ((0.0, 3, 360.0),) * 3,
        **dict.fromkeys(("ARG", "LYS"), ((0.0, 3, 360.0),) * 4),
        **dict.fromkeys(("PHE", "TYR"), ((0.0, 3, 360.0), (0.0, 3, 180.0))),
        "ASP": ((0.0, 3, 360.0), (-90.0, 6, 180.0)),
        **dict.fromkeys(("ASN", "HIS", "TRP"), ((0.0, 3, 360.0), (0.0, 6, 360.0))),
        "GLU": ((0.0, 3, 360.0), (0.0, 3, 360.0), (-90.0, 3, 180.0)),
        "GLN": ((0.0, 3, 360.0), (0.0, 3, 360.0), (0.0, 6, 360.0)),
    }
)
"""How each chi is sorted into equal bins, chi1 first: where the first begins (degrees), their number, their period.

Proline has further chis, which its ring couples to chi1.
"""


@dataclass(frozen=True, kw_only=True)
class Rotamers:
    """The rotamers of one residue type.

    `chis` (rotamers, chis) in degrees; `shares` (rotamers,) over all backbones, summing to 1; `stem` (rotamers,) the
    row of `costs` that holds each one's chi1 and chi2; `branch` (rotamers,) -ln of its share among those of its stem;
    `costs` (stems, GRID + 1, GRID + 1) -ln of a stem's share by phi and psi, the last row and column as the first.
    """

    chis: Array
    shares: Array
    stem: NDArray[np.int64]
    branch: Array
    costs: Array

    def costs_at(self, phi: float, psi: float) -> Array:
        """-ln of each rotamer's share (rotamers,) at phi and psi in degrees; over all backbones where one is NaN."""
        if not np.isfinite(phi + psi):
            return -np.log(self.shares)
        x, y = ((phi + 180) % 360) / GRID_STEP, ((psi + 180) % 360) / GRID_STEP
        i, j = int(x), int(y)
        u, v = x - i, y - j
        cell = self.costs[:, i : i + 2, j : j + 2]
        stems = (1 - u) * ((1 - v) * cell[:, 0, 0] + v * cell[:, 0, 1]) + u * (
            (1 - v) * cell[:, 1, 0] + v * cell[:, 1, 1]
        )
        return stems[self.stem] + self.branch


@cache
def rotamers() -> Mapping[str, Rotamers]:
    """The rotamers of each residue type that has any, by three-letter name."""
    text = resources.files("snakefold.engines.template").joinpath("rotamers.txt").read_text(encoding="utf-8")
    grids: dict[str, list[Array]] = {}
    rows: dict[str, list[list[float]]] = {}
    level = np.full(128, np.nan)
    level[np.frombuffer(SYMBOLS.encode(), dtype=np.uint8)] = np.arange(len(SYMBOLS)) * LEVEL
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        residue, _, values = rest.partition(" ")
        if kind == "stem":
            grid = level[np.frombuffer(values.encode(), dtype=np.uint8)].reshape(GRID, GRID)
            grids.setdefault(residue, []).append(np.pad(grid, (0, 1), mode="wrap"))
        elif kind == "rotamer":
            rows.setdefault(residue, []).append([float(value) for value in values.split()])
    return MappingProxyType({residue: _rotamers(np.array(rows[residue]), grids[residue]) for residue in sorted(rows)})


def _rotamers(rows: Array, grids: list[Array]) -> Rotamers:
    """`rows` (rotamers, 2 + chis): stem, share, chi angles."""
    stem, shares = rows[:, 0].astype(np.int64), rows[:, 1] / rows[:, 1].sum()
    of_stem = np.bincount(stem, weights=shares, minlength=len(grids))
    return Rotamers(
        chis=rows[:, 2:], shares=shares, stem=stem, branch=-np.log(shares / of_stem[stem]), costs=np.array(grids)
    )


_HIGHEST_COST = 6.0
_MOST_ROTAMERS = 24
_VARIED_COST = 3.5
_VARIATIONS = MappingProxyType(
    {
        **dict.fromkeys(("PHE", "TYR", "TRP", "HIS", "ASN", "ASP"), (10.0, 20.0)),
        **dict.fromkeys(("LEU", "ILE", "MET"), (10.0, 10.0)),
        "PRO": (),
    }
)


@dataclass(frozen=True, kw_only=True)
class Conformations:
    """Conformations to try for one side chain.

    `chis` (conformations, chis) in degrees; `costs` (conformations,) -ln of the rotamer's share, less that of the most
    frequent; `varied` (conformations,) whether a chi was turned away from the rotamer's.
    """

    chis: Array
    costs: Array
    varied: NDArray[np.bool_]


def conformations(residue: str, phi: float, psi: float) -> Conformations:
    """The rotamers that are not too rare at phi and psi (degrees), and variations of the more frequent ones.

    Chi1 is varied by 10 degrees, and so is chi2, by 20 where rings and planar groups turn more freely.
    """
    table = rotamers()[residue]
    costs = table.costs_at(phi, psi)
    costs = costs - costs.min()
    order = np.argsort(costs, kind="stable")
    order = order[costs[order] < _HIGHEST_COST][:_MOST_ROTAMERS]
    chis, costs = table.chis[order], costs[order]
    near = costs < _VARIED_COST
    sets = [chis]
    for chi, step in enumerate(_VARIATIONS.get(residue, (10.0,))):
        sets += [chis[near] + turn * np.eye(1, chis.shape[1], chi) for turn in (-step, step)]
    return Conformations(
        chis=np.concatenate(sets),
        costs=np.concatenate([costs, *[costs[near]] * (len(sets) - 1)]),
        varied=np.arange(sum(len(own) for own in sets)) >= len(chis),
    )
