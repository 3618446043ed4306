"""Comparisons of engines, and what the table and the report make of them, on folders that `score` wrote."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakefold.comparison import compare_engines
from snakefold.files import read_json
from snakefold.report.agreement import per_residue_agreement
from snakefold.report.summary import read_predictions, write_summary
from snakefold.score import Prediction, score_prediction, write_status
from snakefold.structures.io import ModelChain, read_chains, write_model

from .structure_helpers import MINI, model, moved, rotation

CHAIN = model(read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0])
ENGINES = ("template", "esmfold", "boltz")
COMPARISON = "comparison.template-esmfold-boltz.json"
SHIFT = np.array([10.0, -20.0, 30.0])


def predicted(results: Path, engine: str, chains: list[ModelChain], target: str = "dimer") -> Path:
    """The folder of one prediction, as `score` writes it."""
    inputs = results.parent / "inputs" / target / engine
    inputs.mkdir(parents=True)
    write_model(inputs / "model.cif", chains)
    confidence = [[50.0 if index in chain.atoms else None for index in range(len(chain.sequence))] for chain in chains]
    score_prediction(
        Prediction(
            target_id=target,
            sequences=tuple(chain.sequence for chain in chains),
            chain_ids=("0123456789abcdef",) * len(chains),
            engine=engine,
            seed=0,
            model=inputs / "model.cif",
            prediction={"confidence_kind": "pLDDT", "confidence": confidence, "mean_confidence": 50.0},
            software={},
        ),
        results / target / engine,
    )
    return results / target / engine


def bent(chain: ModelChain, width: float) -> ModelChain:
    """The chain with its second half moved away."""
    atoms = {
        index: {name: xyz + (width if index > 38 else 0.0) for name, xyz in residue.items()}
        for index, residue in chain.atoms.items()
    }
    return ModelChain(sequence=chain.sequence, atoms=atoms, confidence=chain.confidence)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of three engines, compared.

    The second has the first's homodimer elsewhere and its chains exchanged; the third bent one chain.
    """
    dimer = [CHAIN, moved(bent(CHAIN, 6.0), np.eye(3), np.array([0.0, 22.0, 0.0]))]
    results = tmp_path_factory.mktemp("compared") / "results"
    predicted(results, "template", dimer)
    predicted(results, "esmfold", [moved(chain, rotation(2), SHIFT) for chain in reversed(dimer)])
    predicted(results, "boltz", [bent(dimer[0], 4.0), dimer[1]])
    compare_engines([results / "dimer" / engine for engine in ENGINES], results / "dimer" / COMPARISON)
    return results


@pytest.fixture
def folders(written: Path, tmp_path: Path) -> list[Path]:
    """Copies of their folders, free to be changed."""
    results = Path(shutil.copytree(written, tmp_path / "results"))
    return [results / "dimer" / engine for engine in ENGINES]


def comparison(folders: list[Path]) -> Path:
    return folders[0].parent / COMPARISON


def comparison_of(folders: list[Path]) -> dict[str, Any]:
    return read_json(comparison(folders))


def test_every_two_engines_are_compared_and_the_same_bytes_come_again(folders: list[Path], tmp_path: Path) -> None:
    found = comparison_of(folders)
    content = comparison(folders).read_bytes()
    compare_engines(folders, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == content
    assert str(tmp_path) not in content.decode()
    assert (found["target"], found["length"], found["left_out"], found["notes"]) == ("dimer", 152, {}, [])
    assert found["engines"] == ["template", "esmfold", "boltz"]
    exchanged, bending, both = found["pairs"]
    assert exchanged["engines"] == ["template", "esmfold"]
    # Files hold three decimals.
    assert exchanged["rmsd_ca"] < 0.002
    assert [exchanged[score] for score in ("tm_score", "lddt_ca", "dockq")] == pytest.approx([1, 1, 1], abs=1e-3)
    assert (exchanged["residues"], exchanged["only"], exchanged["chains"]) == (152, [0, 0], ["B", "A"])
    assert bending["chains"] == ["A", "B"]
    for score in ("tm_score", "lddt_ca", "rmsd_ca", "dockq"):
        assert bending[score] == pytest.approx(both[score], abs=0.02)
    assert bending["tm_score"] < 0.99 and bending["dockq"] < 0.99
    assert min(bending["per_residue_lddt"][0]) < 1
    rotated, shift = np.array(exchanged["superposition"]["rotation"]), exchanged["superposition"]["shift"]
    assert rotated @ rotated.T == pytest.approx(np.eye(3), abs=1e-5)
    assert len(shift) == 3


def test_the_table_has_the_mean_over_an_engines_own_comparisons(folders: list[Path], tmp_path: Path) -> None:
    alone = predicted(tmp_path / "results", "template", [CHAIN], target="alone")
    pairs = comparison_of(folders)["pairs"]
    folders = [*folders, alone]
    write_summary(folders, tmp_path / "results" / "summary.tsv", [comparison(folders)])
    with (tmp_path / "results" / "summary.tsv").open(newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    for column, score in (("agreement_lddt", "lddt_ca"), ("agreement_tm", "tm_score")):
        exchanged, bending, both = (pair[score] for pair in pairs)
        means = [(exchanged + bending) / 2, (exchanged + both) / 2, (bending + both) / 2]
        assert [float(row[column]) for row in rows[:3]] == pytest.approx(means, abs=1e-4)
        assert rows[3][column] == ""


def test_residues_are_told_in_the_order_of_each_engines_chains(folders: list[Path]) -> None:
    pairs = comparison_of(folders)["pairs"]
    exchanged, bending, both = (np.array(pair["per_residue_lddt"]) for pair in pairs)
    template, esmfold, boltz = (
        np.array(per_residue_agreement(each)) for each in read_predictions(folders, [comparison(folders)])
    )
    # ESMFold's chain B lies where the others have chain A.
    assert template == pytest.approx((exchanged + bending) / 2)
    assert esmfold == pytest.approx((exchanged[::-1] + both) / 2)
    assert boltz == pytest.approx((bending + both[::-1]) / 2)
    assert abs(template[0, 39] - template[1, 39]) > 0.01


def test_what_did_not_end_well_is_left_out_by_name(folders: list[Path]) -> None:
    write_status(folders[1], "dimer", "esmfold", "failed", step="fold", kind="out_of_memory", reason="too large")
    (folders[2] / "model.cif").write_text("data_model\n")
    compare_engines(folders, comparison(folders))
    found = comparison_of(folders)
    assert (found["engines"], found["pairs"]) == (["template"], [])
    assert found["left_out"]["esmfold"] == "failed: too large"
    assert found["left_out"]["boltz"].startswith("boltz/model.cif: ")
    for folder in folders:
        write_status(folder, "dimer", folder.name, "skipped", reason="no template")
    compare_engines(folders, comparison(folders))
    found = comparison_of(folders)
    assert (found["engines"], found["length"], len(found["left_out"])) == ([], None, 3)


def test_what_cannot_be_compared_is_noted_and_its_traceback_logged(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(folders[2] / "model.cif", [CHAIN])
    compare_engines(folders, comparison(folders))
    found = comparison_of(folders)
    assert [pair["engines"] for pair in found["pairs"]] == [["template", "esmfold"]]
    reason = "were not compared: ValueError: its chains are not those of the target"
    assert found["notes"] == [f"template and boltz {reason}", f"esmfold and boltz {reason}"]
    assert capsys.readouterr().err.count("Traceback") == 2


def test_a_fault_of_dockq_costs_nothing_but_dockq(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise IndexError("no atoms\nat all")

    before = comparison_of(folders)["pairs"][0]
    monkeypatch.setattr("peppr.dockq", fail)
    compare_engines(folders[:2], comparison(folders))
    found = comparison_of(folders)
    assert found["pairs"] == [{**before, "dockq": None}]
    assert found["notes"] == ["template and esmfold have no DockQ: IndexError: no atoms at all"]


def test_a_broken_comparison_costs_the_table_its_two_columns(folders: list[Path], tmp_path: Path) -> None:
    path = comparison(folders)
    for content in ("{", "[]", json.dumps({"pairs": [{"engines": ["template", "esmfold"]}]}), json.dumps({"pairs": 3})):
        path.write_text(content)
        write_summary(folders, tmp_path / "summary.tsv", [path])
        assert len((tmp_path / "summary.tsv").read_text().splitlines()) == 4
        assert [per_residue_agreement(each) for each in read_predictions(folders, [path])] == [[], [], []]
