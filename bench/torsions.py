"""Count phi and psi outside helices and strands in known structures, and write the table of the template engine.

    python -m bench.torsions STRUCTURES... [--without STRUCTURES...] > snakefold/engines/template/torsions.txt

Structures as for bench/rotamers.py. Counts are smoothed by a kernel; those of one amino acid are drawn to those of all
others but glycine and proline, and all to a small uniform share.
"""

import argparse
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.rotamers import distinct_chains
from snakefold.engines.template.backbone import secondary_structure
from snakefold.engines.template.rotamers import LEVEL, SYMBOLS
from snakefold.engines.template.torsions import BEFORE_PROLINE, GRID, GRID_STEP
from snakefold.structures.geometry import backbone_torsions
from snakefold.structures.io import ModelChain, PolymerChain

KERNEL = 9.0
"""Width (degrees) of the kernel."""
PRIOR = 300.0
"""How many residues the plot of all amino acids weighs in that of one."""
UNIFORM = 0.002
"""The share that is spread over the whole plot."""


def coil(chains: Iterable[PolymerChain]) -> dict[str, NDArray[np.float64]]:
    """Phi and psi (residues, 2) in degrees of residues outside helices and strands, by letter of the table."""
    found: dict[str, list[tuple[float, float]]] = {}
    for chain in chains:
        model = ModelChain(sequence=chain.sequence, atoms=chain.residues, confidence=[None] * len(chain.sequence))
        torsions = np.full((len(chain.sequence), 3), np.nan)
        for index, angles in backbone_torsions(model).items():
            torsions[index, :2] = angles
        structured = secondary_structure(torsions)
        for index in np.flatnonzero(np.isfinite(torsions[:, 0]) & ~structured).tolist():
            letter, following = chain.sequence[index], chain.sequence[index + 1 : index + 2]
            if letter != "X":
                key = BEFORE_PROLINE if following == "P" and letter not in "GP" else letter
                found.setdefault(key, []).append((float(torsions[index, 0]), float(torsions[index, 1])))
    return {letter: np.array(rows) for letter, rows in found.items()}


def counted(torsions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kernel-smoothed counts at each point of the grid, their sum the number of residues."""
    axis = np.radians(np.arange(GRID) * GRID_STEP - 180)
    points = np.array(list(product(axis, axis)))
    total = np.zeros(len(points))
    for part in np.array_split(torsions, max(len(torsions) // 2000, 1)):
        off = points[:, None] - np.radians(part)[None]
        weights = np.exp((np.cos(off) - 1).sum(axis=2) / np.radians(KERNEL) ** 2)
        total += (weights / weights.sum(axis=0)).sum(axis=1)
    return total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path, nargs="+")
    parser.add_argument("--without", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    seen = coil(distinct_chains(arguments.structures, arguments.without))
    counts = {letter: counted(torsions) for letter, torsions in seen.items()}
    general = sum((counts[letter] for letter in counts if letter not in ("G", "P", BEFORE_PROLINE)), np.zeros(GRID**2))
    print("# Phi and psi outside helices and strands, written by bench/torsions.py, which says how.")
    print(f"# {sum(map(len, seen.values()))} residues of the Protein Data Bank (CC0), from the chains of rotamers.txt.")
    print("# Amino acid (*: any but G and P before a proline), then -ln(frequency / highest) on a grid:")
    print("# phi from -180 in steps of 10 degrees, psi the same, psi fastest; 62 levels of 0.15 written 0-9A-Za-z.")
    for letter in sorted(counts):
        own = counts[letter]
        if letter not in ("G", "P", BEFORE_PROLINE):
            own = own + PRIOR * general / general.sum()
        share = (1 - UNIFORM) * own / own.sum() + UNIFORM / len(own)
        levels = np.clip(np.round(-np.log(share / share.max()) / LEVEL), 0, len(SYMBOLS) - 1).astype(int)
        print(letter, "".join(SYMBOLS[level] for level in levels))


if __name__ == "__main__":
    main()
