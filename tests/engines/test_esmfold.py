"""ESMFold's own code through driver, supervisor, store, relaxation, scores and report. Its weights are random."""

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.esmfold import EsmFold
from snakefold.files import read_json
from snakefold.structures.io import read_chains
from tests.engines.sheet_to_report import clone_with_weights, files_of, run_sheet_to_report
from tests.engines.taken import Arrays, arrays_of, predict

SEQUENCES = {
    "one": ["MKTAYIAKQRQISFVKSHFSRQ"],
    "repeat": ["GSHMRYFYTS" * 3],
    "pair": ["MKTAYIAKQRQISFVK", "GSHMRYFYTSX"],
    "all": ["ACDEFGHIKLMNPQRSTVWYA"],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    maker = Path(__file__).with_name("tiny_esmfold.py")
    subprocess.run([os.environ["SNAKEFOLD_PYTHON_ESMFOLD"], str(maker), str(folder)], check=True)
    return folder


def arrays(weights: Path, folder: Path, **changed: object) -> dict[str, Arrays]:
    parameters = {"recycles": 1, "tokens": 1, "precision": "fp32"} | changed
    tasks = {
        name: FoldTask(chains=tuple(ChainInputs(sequence=chain) for chain in chains))
        for name, chains in SEQUENCES.items()
    }
    return arrays_of(predict(EsmFold(), weights, tasks, folder, parameters))


STOCK = """
import json, sys
import numpy as np, torch
from transformers import EsmForProteinFolding
model = EsmForProteinFolding.from_pretrained(sys.argv[1]).eval().float()
for name, sequence in json.loads(sys.argv[3]).items():
    with torch.inference_mode():
        model.config.esmfold_config.trunk.max_recycles = 2
        model.trunk.config.max_recycles = 2
        output = model.infer(sequence)
    np.savez(
        f"{sys.argv[2]}/{name}.npz",
        ca=output["positions"][-1, 0, :, 1], plddt=output["plddt"][0, :, 1] * 100,
        pae=output["predicted_aligned_error"][0], ptm=output["ptm"],
    )
"""


def test_one_chain_gives_what_transformers_own_code_gives(weights: Path, tmp_path: Path) -> None:
    ours = arrays(weights, tmp_path / "ours")
    single = {name: chains[0] for name, chains in SEQUENCES.items() if len(chains) == 1}
    python = os.environ["SNAKEFOLD_PYTHON_ESMFOLD"]
    subprocess.run([python, "-c", STOCK, str(weights), str(tmp_path), json.dumps(single)], check=True)
    for name in single:
        stock = np.load(tmp_path / f"{name}.npz")
        np.testing.assert_allclose(ours[name]["positions"][:, 1], stock["ca"], atol=2e-3)
        np.testing.assert_allclose(ours[name]["plddt"], stock["plddt"], atol=1e-3)
        np.testing.assert_allclose(ours[name]["pae"], stock["pae"], atol=1e-3)
        np.testing.assert_allclose(ours[name]["ptm"], stock["ptm"], atol=1e-4)


def test_sharing_a_pass_changes_nothing(weights: Path, tmp_path: Path) -> None:
    alone, together = arrays(weights, tmp_path / "alone"), arrays(weights, tmp_path / "together", tokens=400)
    for name, expected in alone.items():
        for array, tolerance in (("positions", 2e-3), ("pae", 1e-3), ("ptm", 1e-4)):
            np.testing.assert_allclose(together[name][array], expected[array], atol=tolerance)


def test_a_run_from_the_sheet_to_the_report(weights: Path, tmp_path: Path) -> None:
    found = run_sheet_to_report(tmp_path, EsmFold(), SEQUENCES, files_of(weights))
    for scores in found.values():
        # Nothing was searched.
        assert {database["name"] for database in scores["databases"]} == {"esmfold_v1"}


def test_two_engines_of_one_target_are_compared(weights: Path, tmp_path: Path) -> None:
    clone = clone_with_weights(tmp_path, EsmFold(), files_of(weights))
    # A fragment, since relaxing random models takes long; with its own structure as the template, the other is right.
    fragment = read_chains(clone.folder / "data/mini/targets/ubiquitin.cif.gz")[0].sequence[:26]
    given = "data/mini/targets/ubiquitin.cif.gz"
    rows = [
        ("id", "sequence", "engines", "template"),
        ("both", fragment, "template,esmfold", given),
        ("alone", SEQUENCES["one"][0], "esmfold", ""),
        ("left", SEQUENCES["all"][0], "esmfold,template", ""),  # no template is like it
    ]
    (clone.folder / "sheet.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    output = clone.run("--config", "samples=sheet.tsv")
    assert "4 done, 1 skipped, 0 failed" in output
    results = clone.folder / "results"
    assert not [*(results / "alone").glob("comparison.*")]
    left = read_json(results / "left" / "comparison.esmfold-template.json")
    assert (left["engines"], left["pairs"], list(left["left_out"])) == (["esmfold"], [], ["template"])
    found = read_json(results / "both" / "comparison.template-esmfold.json")
    (pair,) = found["pairs"]
    assert pair["engines"] == found["engines"] == ["template", "esmfold"]
    assert (found["length"], pair["residues"], pair["only"]) == (26, 26, [0, 0])
    # Random weights fold nothing.
    assert 0 < pair["tm_score"] < 0.4
    assert 0 <= pair["lddt_ca"] < 0.4
    with (results / "summary.tsv").open(newline="") as handle:
        table = {f"{row['target']}/{row['engine']}": row for row in csv.DictReader(handle, delimiter="\t")}
    for engine in found["engines"]:
        assert float(table[f"both/{engine}"]["agreement_lddt"]) == pair["lddt_ca"]
        assert float(table[f"both/{engine}"]["agreement_tm"]) == pair["tm_score"]
    assert table["left/esmfold"]["agreement_lddt"] == table["alone/esmfold"]["agreement_lddt"] == ""
    shown = (results / "report" / "data" / "both.template.js").read_text()
    assert '"pairs":[{' in shown and '"agreement":[' in shown
    assert "Nothing to be done" in clone.run("--config", "samples=sheet.tsv")
