"""Side chains packed on the true backbones of known structures, and how many find their true conformation.

    python -m bench.side_chains STRUCTURES... [--most N]

STRUCTURES are folders of mmCIF or PDB files. From each file the first chain is taken, its side chains are removed and
packed anew among themselves, without a template and without its neighbours in the crystal. Right is a chi within 40
degrees of the true one (chi2 counted where chi1 is right and there is a chi2; names of symmetric atoms do not matter);
prolines are not counted. A residue is buried if 20 or more CB (CA of glycine) lie within 10 A of its own.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.template.backbone import Backbone
from snakefold.engines.template.building import chi_angles, side_chain_atoms
from snakefold.engines.template.sidechains import pack_side_chains
from snakefold.errors import SnakefoldError
from snakefold.structures.io import PolymerChain, read_chains
from snakefold.structures.residues import BACKBONE, NAME_OF_LETTER

BURIED = 20
SYMMETRIC = frozenset({("PHE", 1), ("TYR", 1), ("ASP", 1), ("GLU", 2)})


def true_backbone(chain: PolymerChain) -> Backbone:
    """The backbone of a chain as it is."""
    backbone = Backbone.blank(chain.sequence)
    for index, atoms in chain.residues.items():
        if set(BACKBONE) <= set(atoms):
            backbone.atoms[index] = [atoms[name] for name in BACKBONE]
    return backbone


def neighbours(backbone: Backbone, chain: PolymerChain) -> NDArray[np.int64]:
    """(residues,): how many other residues' CB lie within 10 A of each residue's."""
    modelled = np.flatnonzero(backbone.modelled)
    places = np.array([chain.residues[i].get("CB", chain.residues[i]["CA"]) for i in modelled.tolist()])
    count = np.zeros(len(backbone.sequence), dtype=np.int64)
    count[modelled] = [len(near) - 1 for near in KDTree(places).query_ball_point(places, 10.0)]
    return count


def judged(chain: PolymerChain) -> tuple[list[tuple[str, bool, list[bool]]], float]:
    """For each residue its type, whether it is buried, and which chis are right; and the CPU seconds of packing."""
    backbone = true_backbone(chain)
    start = time.process_time()
    [packed] = pack_side_chains([backbone], [{}], seed=0)
    seconds = time.process_time() - start
    buried = neighbours(backbone, chain) >= BURIED
    rows: list[tuple[str, bool, list[bool]]] = []
    for index, side_chain in packed.items():
        residue = NAME_OF_LETTER[chain.sequence[index]]
        truth = chain.residues[index]
        if residue in ("ALA", "GLY", "PRO", "UNK") or not set(side_chain_atoms(residue)) <= set(truth):
            continue
        atoms = dict(zip(BACKBONE, backbone.atoms[index], strict=True)) | side_chain
        right: list[bool] = []
        for number, (found, true) in enumerate(
            zip(chi_angles(residue, atoms), chi_angles(residue, truth), strict=True)
        ):
            period = 180 if (residue, number) in SYMMETRIC else 360
            right.append(bool(abs((found - true + period / 2) % period - period / 2) <= 40))
        rows.append((residue, bool(buried[index]), right))
    return rows, seconds


def summary(rows: list[tuple[str, bool, list[bool]]]) -> str:
    """Shares of chi1, of chi1 and chi2, and of chi1 in the core and outside it."""
    chi1 = np.array([right[0] for *_, right in rows])
    both = np.array([right[0] and right[1] for *_, right in rows if len(right) > 1])
    core = np.array([buried for _, buried, _ in rows])
    inside = chi1[core].mean() if core.any() else np.nan
    return f"{len(rows):6d} {chi1.mean():.3f} {both.mean():.3f} {inside:.3f} {chi1[~core].mean():.3f}"


def main() -> None:
    """Print a line for each structure, then the sums and the residue types."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path, nargs="+")
    parser.add_argument("--most", type=int, default=10_000, help="stop after so many structures")
    arguments = parser.parse_args()
    everything: list[tuple[str, bool, list[bool]]] = []
    total = 0.0
    print("structure           chi1   chi1+2  core  surface  seconds")
    files = [path for folder in arguments.structures for path in sorted(folder.glob("*.gz"))]
    for path in files[: arguments.most]:
        try:
            chain = read_chains(path)[0]
        except SnakefoldError:
            continue
        rows, seconds = judged(chain)
        if len(rows) < 20:
            continue
        everything += rows
        total += seconds
        print(f"{path.name.split('.')[0]:12s} {summary(rows)} {seconds:6.2f}", flush=True)
    print(f"{'all':12s} {summary(everything)} {total:6.2f}")
    by_type: dict[str, list[bool]] = defaultdict(list)
    for residue, _, right in everything:
        by_type[residue].append(right[0])
    print("  ".join(f"{residue} {np.mean(right):.2f}" for residue, right in sorted(by_type.items())))


if __name__ == "__main__":
    main()
