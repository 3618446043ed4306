"""The template engine on pairs of known structures, beside the prototype's figures.

    python -m bench.template_engine STRUCTURES [--sequences FASTA] [--only TEXT]

STRUCTURES is a folder of `<name>.cif.gz` and `<name>.pdb.gz`. With --sequences, alignments use an MSA searched in that
FASTA file; without, the target's sequence alone. Every target is modelled on the first chain of its template.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.model import Model, build_model
from snakefold.engines.template.realign import realigned
from snakefold.engines.template.templates import hits_of_task, select_templates
from snakefold.search.msa import search_msas
from snakefold.structures.compare import Comparison, compare
from snakefold.structures.geometry import chi_angles, find_clashes, ramachandran, wrong_chirality
from snakefold.structures.io import ModelChain, PolymerChain, read_chains


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A target to model on a template, and what the prototype reached: TM, CA RMSD (A), lDDT-CA, seconds."""

    title: str
    target: str
    template: str
    prototype: tuple[float, float, float, float] | None = None


PAIRS = (
    Pair(title="hen lysozyme <- human", target="1aki", template="133l", prototype=(0.979, 0.64, 0.95, 13)),
    Pair(title="Hb beta <- 3bom", target="d2w72b_", template="d3boma_", prototype=(0.936, 1.5, 0.87, 25)),
    Pair(title="lactalbumin <- hen lysozyme", target="1hml", template="1aki", prototype=(0.896, 1.8, 0.85, 47)),
    Pair(title="trypsin <- uPA", target="1gbt", template="4zhl", prototype=(0.915, 2.3, 0.81, 54)),
    Pair(title="uPA <- trypsin", target="4zhl", template="1gbt", prototype=(0.881, 3.3, 0.79, 107)),
    Pair(title="Hb beta <- shark", target="d2w72b_", template="d1cg5a_", prototype=(0.910, 1.9, 0.81, 30)),
    Pair(title="hen lysozyme <- lactalbumin", target="1aki", template="1hml"),
    Pair(title="human lysozyme <- hen", target="133l", template="1aki"),
    Pair(title="Hb <- leghaemoglobin", target="d2w72b_", template="d2gdma_"),
    Pair(title="erythrocruorin <- Hb", target="d1ecaa_", template="d3boma_"),
)


def structure(folder: Path, name: str) -> Path:
    """The file of one structure."""
    return next(path for path in (folder / f"{name}.cif.gz", folder / f"{name}.pdb.gz") if path.exists())


def search(folder: Path, names: Sequence[str], sequences: Path | None, scratch: Path) -> dict[str, Path]:
    """An MSA for each target, by name; none without sequences to search."""
    if sequences is None:
        return {}
    queries = {name: read_chains(structure(folder, name))[0].sequence for name in names}
    found: dict[str, Path] = {}
    search_msas(
        queries,
        {"sequences": sequences},
        scratch=scratch,
        on_result=lambda name, where, _: found.update({name: where / "msa.a3m"}),
        iterations=2,
    )
    return found


def model_pair(folder: Path, target: str, template: str, msa: Path | None) -> tuple[Model, float]:
    """The model of a target on a template, and the CPU seconds it took (of one thread; compiling counts once)."""
    start = time.process_time()
    sequence = read_chains(structure(folder, target))[0].sequence
    chain = ChainInputs(sequence=sequence, msa=msa)
    task = FoldTask(chains=(chain,), template=structure(folder, template))
    templates = tuple((template,) for template in realigned(task, select_templates(task, hits_of_task(task))))
    model = build_model([sequence], templates)
    return model, time.process_time() - start


def as_chain(model: Model) -> ModelChain:
    """The model's only chain."""
    return ModelChain(sequence=model.backbones[0].sequence, atoms=model.atoms[0], confidence=model.confidence[0])


def chi1_right(model: ModelChain, reference: PolymerChain) -> float:
    """The fraction of side chains whose chi1 lies within 40 degrees of the reference's; prolines are not counted."""
    judged = ModelChain(
        sequence=reference.sequence, atoms=reference.residues, confidence=[None] * len(reference.sequence)
    )
    true, found = chi_angles(judged), chi_angles(model)
    right: list[bool] = []
    for index, angles in true.items():
        if index not in found or reference.sequence[index] in "PGA" or not angles or not found[index]:
            continue
        first, second = angles[0], found[index][0]
        if first is not None and second is not None:
            right.append(abs((first - second + 180) % 360 - 180) <= 40)
    return float(np.mean(right)) if right else float("nan")


def row(pair: Pair, folder: Path, msa: Path | None) -> str:
    """One line of the table."""
    model, seconds = model_pair(folder, pair.target, pair.template, msa)
    chain = as_chain(model)
    reference = structure(folder, pair.target)
    scores: Comparison = compare([chain], reference)
    plot = ramachandran([chain])
    was = pair.prototype
    before = f"({was[0]:.3f} {was[1]:4.2f} {was[2]:.2f} {was[3]:3.0f}s)" if was else ""
    identity = model.templates[0][0].hit.identity
    estimate = np.mean([value for value in model.confidence[0] if value is not None]) / 100
    chi1 = chi1_right(chain, read_chains(reference)[0])
    return (
        f"{pair.title:28s} {identity:4.0%} {scores.coverage:4.0%} {scores.tm_score:.3f} {scores.rmsd_ca:5.2f} "
        f"{scores.lddt_ca:.3f} {scores.lddt:.3f} {estimate:.2f} {chi1:.2f} {len(find_clashes([chain])):3d} "
        f"{plot.outliers:3d} {len(wrong_chirality([chain])):1d} {seconds:5.1f}s  {before}"
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path)
    parser.add_argument("--sequences", type=Path)
    parser.add_argument("--only", default="", help="only pairs whose title holds this text")
    arguments = parser.parse_args()
    folder = arguments.structures
    with tempfile.TemporaryDirectory() as scratch:
        pairs = [pair for pair in PAIRS if arguments.only in pair.title]
        msas = search(folder, sorted({pair.target for pair in pairs}), arguments.sequences, Path(scratch))
        print(
            f"{'target <- template':28s}  id  cov    TM  RMSD  lDDT   all  est chi1 clash rama D    time  "
            "(prototype: TM, RMSD, lDDT-CA, time)"
        )
        for pair in pairs:
            print(row(pair, folder, msas.get(pair.target)), flush=True)


if __name__ == "__main__":
    main()
