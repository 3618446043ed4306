"""The folder of one prediction holds what was promised, whole, and the same bytes each time."""

import gzip
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakefold.engines.used_templates import GIVEN_TEMPLATE
from snakefold.errors import SnakefoldError
from snakefold.files import read_json, write_json
from snakefold.score import Prediction, aligned_errors, confidence_json, pae_json, score_prediction, write_status
from snakefold.structures.io import ModelChain, chain_name, read_assembly, read_chains, read_model, write_model

from .structure_helpers import MINI, model, moved, rotation

UBIQUITIN = MINI / "targets" / "ubiquitin.cif.gz"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Prediction]:
    """A finished prediction of ubiquitin without its last four residues; keyword arguments change it."""

    def build(**changes: Any) -> Prediction:
        inputs = tmp_path / "inputs"
        inputs.mkdir(exist_ok=True)
        (chain,) = read_chains(UBIQUITIN)
        sequence = chain.sequence
        atoms = {index: residue for index, residue in chain.residues.items() if index < 72}
        confidence = [40.0 + index * 0.8 if index < 72 else None for index in range(76)]
        write_model(inputs / "model.cif", [ModelChain(sequence=sequence, atoms=atoms, confidence=confidence)])
        (inputs / "msa.a3m").write_text(f">query\n{sequence}\n")
        (inputs / "alignment.fasta").write_text(f">target A\n{sequence}\n>1ubi A\n{sequence[:72]}----\n")
        (inputs / "1ubi.cif.gz").write_bytes(gzip.compress(gzip.decompress(UBIQUITIN.read_bytes()), mtime=12345))
        fields: dict[str, Any] = {
            "target_id": "ubiquitin",
            "sequences": (sequence,),
            "chain_ids": ("0123456789abcdef",),
            "engine": "template",
            "seed": 7,
            "model": inputs / "model.cif",
            "prediction": {
                "confidence_kind": "estimated lDDT",
                "confidence": [confidence],
                "mean_confidence": 68.4,
                "ptm": None,
                "iptm": None,
                "templates": [
                    {
                        "chain_index": 0,
                        "entry": "1ubi",
                        "chain": "A",
                        "identity": 1.0,
                        "coverage": 0.95,
                        "evalue": 1e-40,
                    }
                ],
                "invented": [[[10, 12]]],
                "unmodelled": [[[72, 76]]],
                "notes": ["residues 73-76 were left out"],
            },
            "msas": (inputs / "msa.a3m",),
            "msa_facts": ({"depth": 1, "neff": 1.0, "coverage": [1] * 76},),
            "alignment": inputs / "alignment.fasta",
            "templates": (inputs / "1ubi.cif.gz",),
            "software": {"snakefold": "0.1.0"},
            "databases": [{"name": "mini", "version": "1", "digest": "d", "licence": "CC0"}],
        }
        return Prediction(**{**fields, **changes})

    return build


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_folder_holds_every_file_and_the_same_bytes_again(make, tmp_path):
    score_prediction(make(reference=UBIQUITIN), tmp_path / "first")
    score_prediction(make(reference=UBIQUITIN), tmp_path / "second")
    assert set(digests(tmp_path / "first")) == {
        "alignment.fasta",
        "confidence.json",
        "model.cif",
        "model.pdb",
        "msa/0123456789abcdef.a3m",
        "reference.cif",
        "scores.json",
        "status.json",
        "template/1ubi.cif.gz",
        "templates.cif",
    }
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_nothing_names_the_folders_of_this_machine(make, tmp_path):
    score_prediction(make(reference=UBIQUITIN), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.suffix != ".gz":
            assert str(tmp_path) not in path.read_text(), path


def test_scores_say_what_is_in_the_model(make, tmp_path):
    score_prediction(make(), tmp_path / "out")
    scores = read_json(tmp_path / "out" / "scores.json")
    (chain,) = scores["chains"]
    assert (scores["target"], scores["engine"], scores["seed"], scores["length"]) == ("ubiquitin", "template", 7, 76)
    assert (chain["name"], chain["chain"], chain["length"]) == ("A", "0123456789abcdef", 76)
    assert (chain["modelled"], chain["invented"]) == ([[0, 72]], [[10, 12]])
    assert (chain["msa_depth"], chain["msa_neff"], chain["msa_coverage"]) == (1, 1.0, [1] * 76)
    assert scores["confidence"] == {"kind": "estimated lDDT", "mean": 68.4}
    assert scores["templates"][0]["entry"] == "1ubi"
    assert (scores["relaxed"], scores["clashes"]["after"], scores["violations"]["after"]) == (False, None, None)
    assert isinstance(scores["clashes"]["before"], int)
    plot = scores["ramachandran"]
    assert plot["favoured"] + plot["allowed"] + plot["outliers"] == 70
    assert len(plot["outlier_residues"]) == plot["outliers"]
    assert len(plot["torsions"][0]) == 70
    assert all(-180 <= angle <= 180 for _, *angles in plot["torsions"][0] for angle in angles)
    assert scores["too_far"] is False
    assert len(scores["clashes"]["worst"]) == min(50, scores["clashes"]["before"])
    assert (scores["software"], scores["databases"][0]["name"]) == ({"snakefold": "0.1.0"}, "mini")
    assert scores["reference"] is None
    assert scores["notes"] == ["residues 73-76 were left out"]
    assert read_json(tmp_path / "out" / "status.json")["status"] == "done"


def test_the_reference_is_compared_and_put_beside_the_model(make, tmp_path):
    score_prediction(make(reference=UBIQUITIN), tmp_path / "out")
    reference = read_json(tmp_path / "out" / "scores.json")["reference"]
    assert (reference["name"], reference["dockq"]) == ("ubiquitin.cif.gz", None)
    assert reference["coverage"] == pytest.approx(72 / 76, abs=1e-4)
    assert reference["tm_score"] == pytest.approx(72 / 76, abs=1e-3)
    assert reference["rmsd_ca"] == 0
    assert len(reference["per_residue_lddt"][0]) == 76
    (model,), (moved,) = read_model(tmp_path / "out" / "model.cif"), read_model(tmp_path / "out" / "reference.cif")
    assert moved.atoms[30]["CA"] == pytest.approx(model.atoms[30]["CA"], abs=0.002)


@pytest.mark.parametrize("content", [None, "nonsense", "other protein"])
def test_an_unfit_reference_is_a_note_and_no_failure(make, tmp_path, content):
    path = tmp_path / "reference.pdb"
    if content == "nonsense":
        path.write_text("nonsense\n")
    if content == "other protein":
        path.write_bytes((MINI / "targets" / "trypsin.cif.gz").read_bytes())
    score_prediction(make(reference=path), tmp_path / "out")
    scores = read_json(tmp_path / "out" / "scores.json")
    assert scores["reference"] is None
    assert scores["notes"][-1].startswith("Not compared with the reference reference.pdb: ")
    assert str(tmp_path) not in json.dumps(scores)
    assert not (tmp_path / "out" / "reference.cif").exists()
    assert read_json(tmp_path / "out" / "status.json")["status"] == "done"


def test_the_relaxed_model_is_the_one_handed_out(make, tmp_path):
    plain = make()
    (chain,) = read_model(plain.model)
    atoms = {index: {name: xyz + 1.0 for name, xyz in residue.items()} for index, residue in chain.atoms.items()}
    write_model(
        tmp_path / "relaxed.cif", [ModelChain(sequence=chain.sequence, atoms=atoms, confidence=chain.confidence)]
    )
    relax = {"relaxed": True, "reason": None, "violations_before": {"bonds": 3}, "violations_after": {"bonds": 0}}
    score_prediction(make(relaxed=tmp_path / "relaxed.cif", relax=relax), tmp_path / "out")
    scores = read_json(tmp_path / "out" / "scores.json")
    assert scores["relaxed"] is True
    assert scores["violations"] == {"before": {"bonds": 3}, "after": {"bonds": 0}}
    assert scores["clashes"]["before"] == scores["clashes"]["after"]
    (handed_out,) = read_model(tmp_path / "out" / "model.cif")
    assert handed_out.atoms[0]["CA"] == pytest.approx(chain.atoms[0]["CA"] + 1.0, abs=0.0011)
    assert "model refinement" in (tmp_path / "out" / "model.cif").read_text()


def test_a_model_that_was_not_relaxed_says_why(make, tmp_path):
    relax = {"relaxed": False, "reason": "OpenMM has no parameters for it"}
    score_prediction(make(relax=relax), tmp_path / "out")
    scores = read_json(tmp_path / "out" / "scores.json")
    assert scores["relaxed"] is False
    assert "Not relaxed: OpenMM has no parameters for it" in scores["notes"]


def test_a_model_of_another_target_is_refused(make, tmp_path):
    with pytest.raises(SnakefoldError, match="sequences"):
        score_prediction(make(sequences=("ACDEFGHIK",)), tmp_path / "out")
    assert not (tmp_path / "out" / "status.json").exists()


def test_a_model_too_large_for_pdb_has_none_and_says_so(make, tmp_path):
    plain = make()
    (chain,) = read_model(plain.model)
    atoms = {index: {name: xyz + 9_990.0 for name, xyz in residue.items()} for index, residue in chain.atoms.items()}
    write_model(plain.model, [ModelChain(sequence=chain.sequence, atoms=atoms, confidence=chain.confidence)])
    score_prediction(plain, tmp_path / "out")
    assert not (tmp_path / "out" / "model.pdb").exists()
    assert any("PDB format" in note for note in read_json(tmp_path / "out" / "scores.json")["notes"])


def test_confidence_has_the_form_and_categories_of_alphafold_db():
    values = [49.994, 50.0, 69.99, 70.0, 89.99, 90.0, None]
    atoms: dict[int, dict[str, Any]] = {index: {} for index in range(6)}
    chain = ModelChain(sequence="A" * 7, atoms=atoms, confidence=values)
    assert confidence_json([chain]) == {
        "residueNumber": [1, 2, 3, 4, 5, 6],
        "confidenceScore": [49.99, 50.0, 69.99, 70.0, 89.99, 90.0],
        "confidenceCategory": ["D", "L", "L", "M", "M", "H"],
    }
    both = confidence_json([chain, chain])
    assert both["residueNumber"] == [1, 2, 3, 4, 5, 6] * 2
    assert both["chainId"] == ["A"] * 6 + ["B"] * 6


def test_aligned_errors_take_the_form_of_alphafold_db():
    text = pae_json(*aligned_errors({"pae": [[0.1234, 5], [6.5, 0]]}))
    assert json.loads(text) == [
        {"predicted_aligned_error": [[0.12, 5.0], [6.5, 0.0]], "max_predicted_aligned_error": 6.5}
    ]
    assert pae_json(*aligned_errors(json.loads(text))) == text


@pytest.mark.parametrize("value", [{"pae": [[1, 2]]}, {"other": 1}, [], {"pae": [[float("nan")]]}, {"pae": "text"}])
def test_an_unfit_matrix_of_errors_is_a_note(make, tmp_path, value):
    (tmp_path / "pae.json").write_text(json.dumps(value))
    score_prediction(make(pae=tmp_path / "pae.json"), tmp_path / "out")
    assert not (tmp_path / "out" / "pae.json").exists()
    assert any(note.startswith("No pae.json") for note in read_json(tmp_path / "out" / "scores.json")["notes"])


def test_aligned_errors_are_written_where_given(make, tmp_path):
    write_json(tmp_path / "pae.json", {"predicted_aligned_error": [[0.5]], "max_predicted_aligned_error": 31.75})
    score_prediction(make(pae=tmp_path / "pae.json"), tmp_path / "out")
    assert read_json(tmp_path / "out" / "pae.json") == [
        {"predicted_aligned_error": [[0.5]], "max_predicted_aligned_error": 31.75}
    ]


def test_interfaces_of_a_complex_are_scored_by_what_the_engine_gives(make, tmp_path):
    chains = read_chains(MINI / "templates" / "1hvr.cif.gz")[:2]
    confidence = [[80.0] * 99, [90.0] * 99]
    models = [
        ModelChain(sequence=chain.sequence, atoms=chain.residues, confidence=values)
        for chain, values in zip(chains, confidence, strict=True)
    ]
    write_model(tmp_path / "model.cif", models)
    write_json(tmp_path / "pae.json", {"pae": [[2.0] * 198] * 198})
    common = {"confidence": confidence, "templates": [], "ptm": 0.9, "iptm": 0.8}
    for kind, pae in (("pLDDT", tmp_path / "pae.json"), ("estimated lDDT", None)):
        made = make(
            sequences=tuple(chain.sequence for chain in chains),
            chain_ids=("0123456789abcdef",) * 2,
            model=tmp_path / "model.cif",
            prediction={"confidence_kind": kind, **common},
            msas=(), msa_facts=(), alignment=None, templates=(), pae=pae,
        )  # fmt: skip
        score_prediction(made, tmp_path / kind)
    [found] = read_json(tmp_path / "pLDDT" / "scores.json")["interfaces"]
    assert found["chains"] == ["A", "B"] and found["contacts"] == 143
    # By hand: x = 85 log10(143), and 1 / (1 + (2 / d0)^2) with d0 of 99 residues.
    assert found["pdockq"] == pytest.approx(
        0.724 / (1 + math.exp(-0.052 * (85 * math.log10(143) - 152.611))) + 0.018, abs=0.02
    )
    assert found["ipsae"] == pytest.approx(1 / (1 + (2 / (1.24 * 84 ** (1 / 3) - 1.8)) ** 2), abs=1e-4)
    [found] = read_json(tmp_path / "estimated lDDT" / "scores.json")["interfaces"]
    assert (found["pdockq"], found["ipsae"]) == (None, None)


def test_copied_templates_hold_no_time(make, tmp_path):
    score_prediction(make(), tmp_path / "out")
    content = (tmp_path / "out" / "template" / "1ubi.cif.gz").read_bytes()
    assert content[4:8] == bytes(4)
    assert gzip.decompress(content) == gzip.decompress(UBIQUITIN.read_bytes())


@pytest.mark.parametrize("given", [False, True])
def test_templates_are_laid_over_the_model(make, tmp_path, given):
    (chain,) = read_chains(UBIQUITIN)
    prediction = make()
    if given:
        own = Path(shutil.copy(prediction.templates[0], tmp_path / "my_structure.cif.gz"))
        facts = [{**each, "entry": GIVEN_TEMPLATE} for each in prediction.prediction["templates"]]
        prediction = replace(
            prediction,
            templates=(own,),
            given_template=own,
            prediction={**prediction.prediction, "templates": facts},
        )
    # The model stands elsewhere than the entry.
    turned = {
        index: {name: position[[1, 2, 0]] + 30.0 for name, position in atoms.items()}
        for index, atoms in chain.residues.items()
        if index < 72
    }
    write_model(
        prediction.model, [ModelChain(sequence=chain.sequence, atoms=turned, confidence=[50.0] * len(chain.sequence))]
    )
    score_prediction(prediction, tmp_path / "out")
    (model,), (moved,) = read_model(tmp_path / "out/model.cif"), read_model(tmp_path / "out/templates.cif")
    assert moved.atoms[30]["CA"] == pytest.approx(model.atoms[30]["CA"], abs=0.01)
    assert set(moved.atoms[30]) == {"N", "CA", "C", "O"}
    assert read_json(tmp_path / "out/scores.json")["templates"][0]["overlay"] == "A"


def complex_on(make, path: Path, chains: list[ModelChain], used: list[tuple[str, str]], copied: bool) -> Prediction:
    """A prediction of `chains`, each with one template of the whole length: the author's chain and the copy of it."""
    whole = [[0, len(chains[0].sequence)]]
    rows, listed = "", []
    for number, (chain, (author, copy)) in enumerate(zip(chains, used, strict=True)):
        rows += f">target {chain_name(number)}\n{chain.sequence}\n>1a7g {copy}\n{chain.sequence}\n"
        listed.append({"chain_index": number, "entry": "1a7g", "chain": author, "ranges": whole if copied else []})
    prediction = make(
        sequences=tuple(chain.sequence for chain in chains),
        chain_ids=tuple(f"{number:016x}" for number in range(len(chains))),
        prediction={"confidence_kind": "pLDDT", "mean_confidence": 50.0, "templates": listed},
        msas=(), msa_facts=(), templates=(path,),
    )  # fmt: skip
    assert prediction.alignment is not None
    prediction.alignment.write_text(rows)
    write_model(prediction.model, chains)
    return prediction


def overlay_distances(folder: Path) -> list[float]:
    """From each chain of the model to its template's, the mean over CA atoms, in angstrom."""
    pairs = zip(read_model(folder / "model.cif"), read_model(folder / "templates.cif"), strict=True)
    return [
        float(np.mean([np.linalg.norm(chain.atoms[index]["CA"] - laid.atoms[index]["CA"]) for index in chain.atoms]))
        for chain, laid in pairs
    ]


DIMER = MINI / "templates" / "1a7g.cif.gz"
"""One chain, E, whose assembly has a copy of it, E-2."""


def test_one_chain_that_equal_chains_learned_from_is_laid_over_each(make, tmp_path):
    (chain,) = read_chains(DIMER)
    chains = [moved(model(chain), rotation(number), np.array([40.0 * number, 0.0, 0.0])) for number in range(2)]
    score_prediction(complex_on(make, DIMER, chains, [("E", "E")] * 2, copied=False), tmp_path / "out")
    assert overlay_distances(tmp_path / "out") == pytest.approx([0.0, 0.0], abs=0.01)
    assert [each["overlay"] for each in read_json(tmp_path / "out/scores.json")["templates"]] == ["A", "B"]
    assert "Ab initio model" in (tmp_path / "out/model.cif").read_text()


def test_copies_of_a_chain_that_the_model_was_built_on_move_as_the_complex_that_they_are(make, tmp_path):
    chains = [moved(model(chain), rotation(1), np.array([9.0, 8.0, 7.0])) for chain in read_assembly(DIMER)]
    used = [("E", "E"), ("E", "E-2")]
    score_prediction(complex_on(make, DIMER, chains, used, copied=True), tmp_path / "whole")
    assert overlay_distances(tmp_path / "whole") == pytest.approx([0.0, 0.0], abs=0.01)
    # Two chains that went 4 angstrom apart lie 2 from the rigid complex.
    axis = chains[1].atoms[40]["CA"] - chains[0].atoms[40]["CA"]
    chains[1] = moved(chains[1], np.eye(3), 4 * axis / np.linalg.norm(axis))
    score_prediction(complex_on(make, DIMER, chains, used, copied=True), tmp_path / "apart")
    assert min(overlay_distances(tmp_path / "apart")) > 1
    assert "Homology model" in (tmp_path / "apart/model.cif").read_text()


def test_a_template_whose_chain_is_not_in_its_file_has_no_overlay(make, tmp_path):
    prediction = make()
    listed = [{**prediction.prediction["templates"][0], "chain": "Z"}]
    assert prediction.alignment is not None
    prediction.alignment.write_text(prediction.alignment.read_text().replace(">1ubi A", ">1ubi Z"))
    score_prediction(replace(prediction, prediction={**prediction.prediction, "templates": listed}), tmp_path / "out")
    assert not (tmp_path / "out/templates.cif").exists()
    assert read_json(tmp_path / "out/scores.json")["templates"][0]["overlay"] is None


def test_the_template_and_its_alignment_are_in_the_model_file(make, tmp_path):
    score_prediction(make(), tmp_path / "out")
    text = (tmp_path / "out" / "model.cif").read_text()
    assert "1UBI" in text
    assert "_ma_template_poly_segment" in text
    assert "_ma_alignment.sequence" in text


def test_a_failed_prediction_is_its_status(tmp_path):
    log = [f"line {number}" for number in range(100)]
    write_status(
        tmp_path, "t1", "template", "failed", step="fold", kind="bad_template", reason="no coordinates", log=log
    )
    assert read_json(tmp_path / "status.json") == {
        "target": "t1",
        "engine": "template",
        "status": "failed",
        "step": "fold",
        "kind": "bad_template",
        "reason": "no coordinates",
        "log": log[-20:],
    }
