"""One template against several: every target modelled on its best relative alone, and with what others add to it.

    python -m bench.templates FAMILIES --cache FOLDER [--sequences FASTA] [--only TEXT] [--identity LEAST MOST]
                              [--most TARGETS] [--cut LENGTH]

FAMILIES is a JSON file, {family: [{"file", "chain"}]}, files relative to it. With --sequences, alignments use MSAs
searched in that FASTA file, which --cache keeps between runs. Relatives outside --identity (of the alignment, 0-1) are
not used. --cut takes a stretch of so many residues out of the best template's middle: what others then give can be
told from what is built.
Prints TM-score and lDDT-CA of both models, clashes, CPU seconds, and which ranges came from which template.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.families import Member, members, msas
from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.model import Model, build_model
from snakefold.engines.template.realign import realigned
from snakefold.engines.template.stitch import stitched
from snakefold.engines.template.templates import (
    ChainTemplate,
    NoTemplateError,
    hits_of_given,
    hits_of_task,
    select_templates,
)
from snakefold.structures.compare import compare
from snakefold.structures.geometry import find_clashes
from snakefold.structures.io import ModelChain


def hits_folder(target: Member, others: Sequence[Member], msa: Path | None, where: Path, limits: list[float]) -> Path:
    """The relatives as `search_templates` would hand them on."""
    hits = []
    for other in others:
        if other.read().sequence == target.read().sequence:
            continue
        for hit in hits_of_given(ChainInputs(sequence=target.read().sequence, msa=msa), other.file):
            if hit.chain != other.chain or not limits[0] <= hit.identity <= limits[1] or hit.evalue > 1e-3:
                continue
            path = where / f"{other.name}.gz"
            raw = other.file.read_bytes()
            path.write_bytes(raw if raw[:2] == b"\x1f\x8b" else gzip.compress(raw))
            alignment = hit.alignment
            pairs = zip(alignment.target.tolist(), alignment.template.tolist(), alignment.posterior, strict=True)
            hits.append(
                {
                    "entry": other.name,
                    "chain": hit.chain,
                    "evalue": hit.evalue,
                    "score": hit.score,
                    "identity": hit.identity,
                    "coverage": hit.coverage,
                    "pairs": [list(map(float, pair)) for pair in pairs],
                    "file": path.name,
                }
            )
    (where / "hits.json").write_text(json.dumps({"hits": hits}))
    return where


def without_middle(template: ChainTemplate, length: int) -> ChainTemplate:
    """The template, a stretch of residues taken out of its middle."""
    aligned = template.alignment.template
    start = int(aligned[len(aligned) // 2]) - length // 2
    residues = {i: atoms for i, atoms in template.chain.residues.items() if not start <= i < start + length}
    return replace(template, chain=replace(template.chain, residues=residues))


def scores(model: Model, target: Member) -> tuple[float, float, float, int, np.ndarray]:
    """TM-score, lDDT-CA, coverage, clashes, and lDDT-CA by residue."""
    chain = ModelChain(sequence=model.backbones[0].sequence, atoms=model.atoms[0], confidence=model.confidence[0])
    found = compare([chain], target.file)
    by_residue = np.array([np.nan if value is None else value for value in found.per_residue_lddt[0]], dtype=float)
    return found.tm_score, found.lddt_ca, found.coverage, len(find_clashes([chain])), by_residue


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", type=Path)
    parser.add_argument("--sequences", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--identity", type=float, nargs=2, default=[0.1, 0.9])
    parser.add_argument("--most", type=int, help="targets of a family")
    parser.add_argument("--cut", type=int, default=0)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    everyone = members(arguments.families)
    targets = [
        one
        for family in dict.fromkeys(one.family for one in everyone)
        for one in [each for each in everyone if each.family == family][: arguments.most]
        if arguments.only in f"{one.family} {one.name}"
    ]
    queries = {target.name: target.read().sequence for target in targets}
    found = msas(queries, arguments.sequences, arguments.cache) if arguments.sequences else {}
    changes: dict[str, list[tuple[float, float]]] = {}
    for target in targets:
        others = [one for one in everyone if one.family == target.family and one.name != target.name]
        with tempfile.TemporaryDirectory() as scratch:
            msa = found.get(target.name)
            folder = hits_folder(target, others, msa, Path(scratch), arguments.identity)
            task = FoldTask(chains=(ChainInputs(sequence=target.read().sequence, msa=msa, templates=folder),))
            try:
                hits = hits_of_task(task)
                mains = realigned(task, select_templates(task, hits))
            except NoTemplateError:
                print(f"{target.name:12s} no template")
                continue
            if arguments.cut:
                mains = tuple(without_middle(main, arguments.cut) for main in mains)
            start = time.process_time()
            templates = stitched(task, mains, hits)
            stitching = time.process_time() - start
            if len(templates[0]) == 1:
                print(f"{target.name:12s} {mains[0].hit.entry} is all  {stitching:.1f}s", flush=True)
                changes.setdefault(target.family, []).append((0.0, 0.0))
                continue
            alone = scores(build_model([target.read().sequence], tuple((main,) for main in mains)), target)
            more = scores(build_model([target.read().sequence], templates), target)
        named = ("TM", "lDDT-CA", "coverage", "clashes")
        figures = [f"{what} {was:.3g} -> {now:.3g}" for what, was, now in zip(named, alone, more, strict=False)]
        print(f"{target.name:12s} {mains[0].hit.entry} {'  '.join(figures)}  {stitching:.1f}s")
        for template in templates[0][1:]:
            [(start, end)] = template.gives
            print(
                f"    {start:4d}-{end:<4d} {template.hit.entry} identity {template.hit.identity:.2f}  lDDT there "
                f"{np.nanmean(alone[4][start:end]):.2f} -> {np.nanmean(more[4][start:end]):.2f}",
                flush=True,
            )
        changes.setdefault(target.family, []).append((more[0] - alone[0], more[1] - alone[1]))
    for family, rows in changes.items():
        print(
            f"{family:12s} {len(rows):3d} targets  TM {np.mean([r[0] for r in rows]):+.4f}  "
            f"lDDT-CA {np.mean([r[1] for r in rows]):+.4f}"
        )


if __name__ == "__main__":
    main()
