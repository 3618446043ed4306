"""How frequent phi and psi are outside helices and strands, by amino acid: what loops are drawn from and judged by.

The statistics in torsions.txt were counted by bench/torsions.py, which says from what; its header has the format.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

import numpy as np

from snakefold.engines.template.building import Array
from snakefold.engines.template.rotamers import LEVEL, SYMBOLS

GRID_STEP = 10.0
"""Degrees between the points of the grid over phi and psi, which starts at -180."""
GRID = round(360 / GRID_STEP)
BEFORE_PROLINE = "*"
"""The table's letter for residues before a proline, which need another plot than others (glycine and proline apart)."""


@cache
def _costs() -> Mapping[str, Array]:
    """By amino acid: -ln of the frequency of each place (GRID, GRID), relative to the most frequent one."""
    text = resources.files("snakefold.engines.template").joinpath("torsions.txt").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    level = np.zeros(128)
    level[np.frombuffer(SYMBOLS.encode(), dtype=np.uint8)] = np.arange(len(SYMBOLS)) * LEVEL
    return MappingProxyType(
        {letter: level[np.frombuffer(values.encode(), dtype=np.uint8)].reshape(GRID, GRID) for letter, values in rows}
    )


def costs_of(letter: str, following: str) -> Array:
    """-ln(frequency) (GRID, GRID) by phi and psi of amino acid `letter` before `following`, 0 at its most frequent."""
    return _costs()[BEFORE_PROLINE if following == "P" and letter not in "GP" else letter]


def strain(sequence: str, following: str, phi: Array, psi: Array) -> Array:
    """Summed costs (samples,) of phi and psi (samples, residues) in degrees; residues without one of them cost nothing.

    `following` is the amino acid after `sequence` ("" at the end).
    """
    known = np.isfinite(phi) & np.isfinite(psi)
    rows = np.floor(((np.where(known, phi, 0) + 180 + GRID_STEP / 2) % 360) / GRID_STEP).astype(np.int64) % GRID
    columns = np.floor(((np.where(known, psi, 0) + 180 + GRID_STEP / 2) % 360) / GRID_STEP).astype(np.int64) % GRID
    total = np.zeros(len(phi))
    for index, (letter, after) in enumerate(zip(sequence, sequence[1:] + (following or "-"), strict=True)):
        total += np.where(known[:, index], costs_of(letter, after)[rows[:, index], columns[:, index]], 0.0)
    return total


def draw(rng: np.random.Generator, letter: str, following: str, count: int) -> Array:
    """Phi and psi (count, 2) in degrees, as frequent as they are."""
    weights = np.cumsum(np.exp(-costs_of(letter, following).ravel()))
    cells = np.searchsorted(weights, rng.random(count) * weights[-1]).clip(max=GRID * GRID - 1)
    places = np.stack([cells // GRID, cells % GRID], axis=1) * GRID_STEP - 180
    return places + rng.uniform(-GRID_STEP / 2, GRID_STEP / 2, (count, 2))
