"""Loops taken out of known structures and built anew: how near they come, and how long it takes.

    python -m bench.loops STRUCTURES... [--each N]

STRUCTURES are folders of mmCIF or PDB files. In the first chain of each, up to N stretches of 4, 6, 8, 10 and 12
residues outside helices and strands are removed one at a time and closed again. The RMSD is that of N, CA, C and O of
the removed residues, where they stand (no superposition); the engine may widen the gap.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.side_chains import true_backbone
from snakefold.engines.template.backbone import Backbone, secondary_structure
from snakefold.engines.template.loops import close_gaps
from snakefold.errors import SnakefoldError
from snakefold.structures.io import read_chains

LENGTHS = (4, 6, 8, 10, 12)


def places(backbone: Backbone, length: int, each: int) -> list[int]:
    """Where loops of that length start: at most a third of their residues lie in a helix or strand."""
    structured = secondary_structure(backbone.torsions())
    starts: list[int] = []
    for start in range(3, len(backbone.sequence) - length - 3):
        whole = backbone.modelled[start - 3 : start + length + 3].all()
        joined = all(backbone.bonded(index) for index in range(start - 3, start + length + 2))
        clear = not starts or start >= starts[-1] + length
        if whole and joined and clear and structured[start : start + length].sum() <= length / 3:
            starts.append(start)
    return [starts[i] for i in np.linspace(0, len(starts) - 1, min(each, len(starts))).round().astype(int).tolist()]


def main() -> None:
    """Print a line for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path, nargs="+")
    parser.add_argument("--each", type=int, default=2)
    arguments = parser.parse_args()
    rmsds: dict[int, list[float]] = defaultdict(list)
    seconds: dict[int, float] = defaultdict(float)
    for path in (path for folder in arguments.structures for path in sorted(folder.glob("*.gz"))):
        try:
            chain = read_chains(path)[0]
        except SnakefoldError:
            continue
        truth = true_backbone(chain).atoms
        for length in LENGTHS:
            for start in places(true_backbone(chain), length, arguments.each):
                backbone = true_backbone(chain)
                backbone.clear(start, start + length)
                begin = time.process_time()
                close_gaps([backbone], seed=0)
                seconds[length] += time.process_time() - begin
                off = (backbone.atoms - truth)[start : start + length]
                rmsds[length].append(float(np.sqrt((off**2).sum(-1).mean())))
    print("length  loops  median  mean  left open  seconds each")
    for length, values in sorted(rmsds.items()):
        closed = np.array([value for value in values if np.isfinite(value)])
        print(
            f"{length:6d} {len(values):6d} {np.median(closed):7.2f} {closed.mean():5.2f} "
            f"{len(values) - len(closed):10d} {seconds[length] / len(values):13.2f}"
        )


if __name__ == "__main__":
    main()
