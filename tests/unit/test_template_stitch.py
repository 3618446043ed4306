"""Several templates of one chain: what further ones give, and what must not be placed."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.align import Alignment
from snakefold.engines.template.backbone import Backbone, copy_backbone
from snakefold.engines.template.stitch import stitched, unplaced
from snakefold.engines.template.templates import ChainTemplate, TemplateHit, hits_of_task
from snakefold.structures.io import ModelChain, PolymerChain, read_chains, write_model
from tests.unit.structure_helpers import MINI, STRAND, chosen_templates, peptide

INHIBITOR = MINI / "templates" / "5pti.cif.gz"
UROKINASE = MINI / "templates" / "4zhl.cif.gz"


QUARTER_TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


def elsewhere(residues: Mapping[int, Mapping[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """The same residues, turned and shifted."""
    return {
        index: {name: QUARTER_TURN @ position + [9, 7, -4] for name, position in atoms.items()}
        for index, atoms in residues.items()
    }


def entry(folder: Path, name: str, chain: PolymerChain, kept: list[range], identity: float = 1.0) -> dict[str, object]:
    """A file of part of a chain (moved, unless it is the first, 1abc), and the hit that aligns it."""
    residues = {index: chain.residues[index] for part in kept for index in part}
    placed = residues if name == "1abc" else elsewhere(residues)
    empty = [None] * len(chain.sequence)
    write_model(folder / f"{name}.cif", [ModelChain(sequence=chain.sequence, atoms=placed, confidence=empty)])
    (folder / f"{name}.cif.gz").write_bytes(gzip.compress((folder / f"{name}.cif").read_bytes(), mtime=0))
    return {
        "entry": name,
        "chain": "A",
        "evalue": 1e-20,
        "score": 100.0,
        "identity": identity,
        "coverage": len(residues) / len(chain.sequence),
        "resolution": 2.0,
        "pairs": [[index, index, 0.9] for index in sorted(residues)],
        "file": f"{name}.cif.gz",
    }


def farthest(backbone: Backbone, truth: PolymerChain) -> float:
    """The largest distance (angstrom) of a modelled CA from where it belongs."""
    places = np.flatnonzero(backbone.modelled).tolist()
    return max(float(np.linalg.norm(backbone.atoms[index, 1] - truth.residues[index]["CA"])) for index in places)


def task_of(folder: Path, sequence: str, hits: list[dict[str, object]]) -> FoldTask:
    (folder / "hits.json").write_text(json.dumps({"hits": hits}))
    return FoldTask(chains=(ChainInputs(sequence=sequence, templates=folder),))


def all_templates(task: FoldTask) -> tuple[tuple[ChainTemplate, ...], ...]:
    return stitched(task, chosen_templates(task), hits_of_task(task))


@pytest.fixture(scope="module")
def inhibitor() -> PolymerChain:
    return read_chains(INHIBITOR)[0]


@pytest.fixture(scope="module")
def urokinase() -> PolymerChain:
    return read_chains(UROKINASE)[0]


@pytest.mark.parametrize(
    ("main", "other", "lacking"),
    [
        ([range(24), range(29, 58)], [range(10, 50)], range(24, 29)),
        ([range(46)], [range(20, 58)], range(46, 58)),
        ([range(9, 58)], [range(40)], range(9)),
    ],
    ids=["loop", "end", "beginning"],
)
def test_what_the_main_template_lacks_comes_from_another_where_it_belongs(
    tmp_path: Path, inhibitor: PolymerChain, main: list[range], other: list[range], lacking: range
) -> None:
    hits = [entry(tmp_path, "1abc", inhibitor, main), entry(tmp_path, "2abc", inhibitor, other)]
    task = task_of(tmp_path, inhibitor.sequence, hits)
    [templates] = all_templates(task)
    assert [template.hit.entry for template in templates] == ["1abc", "2abc"]
    backbone = copy_backbone(inhibitor.sequence, templates)
    assert backbone.modelled.all()
    assert set(lacking) <= set(np.flatnonzero(backbone.source == 1).tolist())
    assert backbone.template_letters == inhibitor.sequence
    assert all(backbone.bonded(index) for index in range(57))
    assert farthest(backbone, inhibitor) < 0.01


def test_a_template_whose_halves_lie_otherwise_gives_nothing(tmp_path: Path, inhibitor: PolymerChain) -> None:
    hinge = inhibitor.residues[30]["CA"]
    swung = {
        index: {
            name: QUARTER_TURN @ (position - hinge) + hinge if index < 30 else position
            for name, position in atoms.items()
        }
        for index, atoms in inhibitor.residues.items()
    }
    other = replace(inhibitor, residues=swung)
    hits = [
        entry(tmp_path, "1abc", inhibitor, [range(46)]),
        entry(tmp_path, "2abc", other, [range(58)], identity=0.1),
    ]
    task = task_of(tmp_path, inhibitor.sequence, hits)
    [templates] = all_templates(task)
    assert [template.hit.entry for template in templates] == ["1abc"]


def test_domains_that_no_template_shows_together_are_not_placed(tmp_path: Path, urokinase: PolymerChain) -> None:
    hits = [entry(tmp_path, "1abc", urokinase, [range(150)]), entry(tmp_path, "2abc", urokinase, [range(152, 240)])]
    task = task_of(tmp_path, urokinase.sequence, hits)
    [templates] = all_templates(task)
    assert [template.hit.entry for template in templates] == ["1abc"]
    backbone = copy_backbone(urokinase.sequence, templates)
    [(start, end, hit)] = unplaced(backbone, hits_of_task(task)[task.chains[0]])
    assert (start, end, hit.entry) == (152, 240, "2abc")


def test_a_third_template_joins_two_that_share_nothing(tmp_path: Path, urokinase: PolymerChain) -> None:
    hits = [
        entry(tmp_path, "1abc", urokinase, [range(120)]),
        entry(tmp_path, "2abc", urokinase, [range(160, 240)]),
        entry(tmp_path, "3abc", urokinase, [range(90, 190)]),
    ]
    task = task_of(tmp_path, urokinase.sequence, hits)
    [templates] = all_templates(task)
    assert [template.hit.entry for template in templates] == ["1abc", "3abc", "2abc"]
    backbone = copy_backbone(urokinase.sequence, templates)
    assert backbone.modelled[:240].all()
    assert farthest(backbone, urokinase) < 0.01
    assert list(unplaced(backbone, hits_of_task(task)[task.chains[0]])) == []


def test_a_piece_that_would_run_through_another_chain_is_refused(tmp_path: Path, inhibitor: PolymerChain) -> None:
    hits = [entry(tmp_path, "1abc", inhibitor, [range(46)]), entry(tmp_path, "2abc", inhibitor, [range(20, 58)])]
    task = task_of(tmp_path, inhibitor.sequence, hits)
    [main] = chosen_templates(task)
    intruder = replace(main, chain=replace(main.chain, residues=inhibitor.residues))
    # Another chain lies where the end would go.
    pair = FoldTask(chains=(*task.chains, ChainInputs(sequence=inhibitor.sequence, templates=tmp_path)))
    shifted = Alignment.from_pairs([(index, index, 0.9) for index in range(46, 58)])
    [templates, _] = stitched(pair, [main, replace(intruder, alignment=shifted)], hits_of_task(pair))
    assert [template.hit.entry for template in templates] == ["1abc"]


def test_the_other_copy_of_a_chain_fills_what_the_first_lacks(tmp_path: Path, inhibitor: PolymerChain) -> None:
    residues = inhibitor.residues
    copies = [
        ModelChain(sequence=inhibitor.sequence, atoms=atoms, confidence=[None] * 58)
        for atoms in (
            {index: atoms for index, atoms in residues.items() if not 24 <= index < 29},
            elsewhere({index: atoms for index, atoms in residues.items() if index < 50}),
        )
    ]
    write_model(tmp_path / "given.cif", copies)
    task = FoldTask(chains=(ChainInputs(sequence=inhibitor.sequence),), template=tmp_path / "given.cif")
    [templates] = all_templates(task)
    assert [template.chain.name for template in templates] == ["A", "B"]
    backbone = copy_backbone(inhibitor.sequence, templates)
    assert backbone.modelled.all()
    assert farthest(backbone, inhibitor) < 0.01


def test_the_backbone_of_a_d_amino_acid_is_not_copied_and_that_of_a_glycine_is() -> None:
    residues = peptide("AAAAAAA", [STRAND, STRAND, STRAND, (70.0, -120.0), STRAND, STRAND, STRAND])
    del residues[3]["CB"]
    hit = TemplateHit(
        entry="1abc", chain="A", evalue=0, score=1, identity=1, coverage=1, resolution=1.5, title="", file=INHIBITOR,
        alignment=Alignment.from_pairs([(index, index, 0.9) for index in range(7)]),
    )  # fmt: skip
    for sequence, lacking in (("AAAAAAA", [3]), ("AAAGAAA", [])):
        chain = PolymerChain(name="A", sequence=sequence, residues=residues)
        backbone = copy_backbone("AAAAAAA", [ChainTemplate(hit=hit, chain=chain, alignment=hit.alignment)])
        assert np.flatnonzero(~backbone.modelled).tolist() == lacking


def test_a_receptor_on_its_peptide_complex_takes_each_chain_from_its_like() -> None:
    """T-cell receptor and HLA: related chains align with one another, and must not be mixed up."""
    chains = {chain.name: chain for chain in read_chains(MINI / "templates" / "1bd2.cif.gz")}
    sequences = [chains[name].sequence for name in "EADB"]
    task = FoldTask(
        chains=tuple(ChainInputs(sequence=sequence) for sequence in sequences),
        template=MINI / "templates" / "3pwp.cif.gz",
    )
    assert [template.chain.name for template in chosen_templates(task)] == list("EADB")
