"""Count side-chain rotamers by phi and psi in known structures, and write the table of the template engine.

    python -m bench.rotamers STRUCTURES... [--without STRUCTURES...] > snakefold/engines/template/rotamers.txt

STRUCTURES are folders of mmCIF or PDB files, looked through to the bottom. Of chains that share more than a tenth of
their runs of four residues one is counted, and none that shares them with the structures named by --without: those
stay fit for tests. The committed table comes from the unbound proteins of the docking benchmark 5 (T. Vreven et al., J.
Mol. Biol. 427 (2015), 3031; coordinates of the Protein Data Bank, CC0) without relatives of data/mini and of the
development structures.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snakefold.engines.template.building import chi_angles, is_left_handed, side_chain_atoms
from snakefold.engines.template.rotamers import CHI_EDGES, GRID, GRID_STEP, LEVEL, SYMBOLS
from snakefold.errors import SnakefoldError
from snakefold.structures.geometry import backbone_torsions
from snakefold.structures.io import ModelChain, PolymerChain, read_chains
from snakefold.structures.residues import NAME_OF_LETTER

KERNEL = 16.0
"""Width (degrees) of the kernel that smooths counts over phi and psi."""
PRIOR = 12.0
"""How many observations the prior weighs: chi1 by phi and psi, chi2 by chi1 alone."""
LEAST_SHARE = 0.002
"""Rotamers rarer than this over all backbones are not written."""


@dataclass(frozen=True, kw_only=True)
class Observations:
    """All residues of one type: phi and psi (residues, 2) and chis (residues, chis), in degrees."""

    torsions: NDArray[np.float64]
    chis: NDArray[np.float64]


def files(folders: Sequence[Path]) -> Iterator[Path]:
    """The structure files of the folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.name.removesuffix(".gz").endswith((".cif", ".pdb", ".ent")):
                yield path


def words(sequence: str) -> set[str]:
    """Runs of four residues."""
    return {sequence[start : start + 4] for start in range(len(sequence) - 3)}


def distinct_chains(folders: Sequence[Path], without: Sequence[Path]) -> Iterator[PolymerChain]:
    """One chain of each set of relatives."""
    seen = [words(chain.sequence) for path in files(without) for chain in readable(path)]
    for path in files(folders):
        for chain in readable(path):
            own = words(chain.sequence)
            if len(chain.residues) >= 40 and not any(len(own & other) > 0.1 * len(own) for other in seen):
                seen.append(own)
                yield chain


def readable(path: Path) -> Sequence[PolymerChain]:
    """The chains of a file; none if it holds no protein."""
    try:
        return read_chains(path)
    except SnakefoldError:
        return ()


def observe(chains: Iterator[PolymerChain]) -> dict[str, Observations]:
    """Torsions of all complete residues with both neighbours, by three-letter name."""
    found: dict[str, list[tuple[tuple[float, float], NDArray[np.float64]]]] = {}
    for chain in chains:
        model = ModelChain(sequence=chain.sequence, atoms=chain.residues, confidence=[None] * len(chain.sequence))
        for index, torsions in backbone_torsions(model).items():
            residue = NAME_OF_LETTER[chain.sequence[index]]
            atoms = chain.residues[index]
            if residue not in CHI_EDGES or not set(side_chain_atoms(residue)) <= set(atoms):
                continue
            if is_left_handed(residue, atoms):
                found.setdefault(residue, []).append((torsions, chi_angles(residue, atoms)))
    return {
        residue: Observations(torsions=np.array([t for t, _ in rows]), chis=np.array([c for _, c in rows]))
        for residue, rows in found.items()
    }


def sorted_into_bins(residue: str, chis: NDArray[np.float64]) -> NDArray[np.int64]:
    """(residues, chis): the bin of each chi."""
    columns = [
        (((chis[:, k] - start) % period) / (period / count)).astype(np.int64) % count
        for k, (start, count, period) in enumerate(CHI_EDGES[residue])
    ]
    return np.stack(columns, axis=1)


def circular_mean(angles: NDArray[np.float64], period: float) -> float:
    """The mean of angles (degrees) that repeat after `period`, within -180 to 180."""
    turn = 2 * np.pi / period
    mean = np.arctan2(np.sin(angles * turn).mean(), np.cos(angles * turn).mean()) / turn
    return float((mean + 180) % 360 - 180)


def smoothed(bins: NDArray[np.int64], count: int, weights: NDArray[np.float64], prior: NDArray[np.float64]):
    """Shares (count, points) by kernel weights (points, residues), drawn to `prior` (count, points) where few are."""
    counted = np.stack([weights[:, bins == number].sum(axis=1) for number in range(count)])
    return (counted + PRIOR * prior) / (counted.sum(axis=0) + PRIOR)


def lines(residue: str, seen: Observations) -> Iterator[str]:
    """The table's lines for one residue type."""
    bins = sorted_into_bins(residue, seen.chis)
    counts = [count for _, count, _ in CHI_EDGES[residue]]
    axis = np.radians(np.arange(GRID) * GRID_STEP - 180)
    points = np.array(list(product(axis, axis)))
    off = points[:, None] - np.radians(seen.torsions)[None]
    weights = np.exp((np.cos(off) - 1).sum(axis=2) / np.radians(KERNEL) ** 2)
    first = (np.bincount(bins[:, 0], minlength=counts[0]) + 1.0) / (len(bins) + counts[0])
    by_chi1 = smoothed(bins[:, 0], counts[0], weights, np.repeat(first[:, None], len(points), axis=1))
    if len(counts) > 1:
        stem = bins[:, 0] * counts[1] + bins[:, 1]
        joint = np.bincount(stem, minlength=counts[0] * counts[1]).reshape(counts[0], counts[1]) + 0.5
        prior = by_chi1[:, None] * (joint / joint.sum(axis=1, keepdims=True))[:, :, None]
        table = smoothed(stem, counts[0] * counts[1], weights, prior.reshape(-1, len(points)))
    else:
        stem, table = bins[:, 0], by_chi1
    kept: list[int] = []
    rotamers: list[str] = []
    for combination in product(*(range(count) for count in counts)):
        chosen = np.all(bins == combination, axis=1)
        share = chosen.mean()
        if chosen.sum() < 3 or share < LEAST_SHARE:
            continue
        own = combination[0] * (counts[1] if len(counts) > 1 else 1) + (combination[1] if len(counts) > 1 else 0)
        if own not in kept:
            kept.append(own)
        periods = [period for *_, period in CHI_EDGES[residue]]
        periods += [360.0] * (seen.chis.shape[1] - len(periods))
        angles = [circular_mean(seen.chis[chosen, k], period) for k, period in enumerate(periods)]
        rotamers.append(
            f"rotamer {residue} {kept.index(own)} {100 * share:.2f} " + " ".join(f"{angle:.0f}" for angle in angles)
        )
    for own in kept:
        levels = np.clip(np.round(-np.log(table[own]) / LEVEL), 0, len(SYMBOLS) - 1).astype(int)
        yield f"stem {residue} " + "".join(SYMBOLS[level] for level in levels)
    yield from rotamers


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path, nargs="+")
    parser.add_argument("--without", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    observations = observe(distinct_chains(arguments.structures, arguments.without))
    total = sum(len(seen.chis) for seen in observations.values())
    print("# Side-chain rotamers by phi and psi, written by bench/rotamers.py, which says from what.")
    print(f"# {total} residues of chains without common descent, from entries of the Protein Data Bank (CC0).")
    print("# stem: residue, then for each point of the grid (phi from -180 in steps of 20 degrees, psi the same, psi")
    print("#   fastest) -ln(share) of one combination of chi1 and chi2, in 62 levels of 0.15 written 0-9A-Za-z.")
    print("# rotamer: residue, stem it belongs to (from 0), share over all backbones (%), chi angles (degrees).")
    for residue in sorted(observations):
        for line in lines(residue, observations[residue]):
            print(line)


if __name__ == "__main__":
    main()
