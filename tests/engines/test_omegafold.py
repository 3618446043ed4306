"""OmegaFold's own code through driver, supervisor, store, relaxation, scores and report. Its weights are random."""

import os
import subprocess
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.omegafold import OmegaFold
from tests.engines.sheet_to_report import files_of, run_sheet_to_report
from tests.engines.taken import Arrays, arrays_of, predict

SEQUENCES = {
    "one": "MKTAYIAKQRQISFVKSHFSRQ",
    "again": "MKTAYIAKQRQISFVKSHFSRQ",
    "gap": "GSHMRYFYTSX",
    "all": "ACDEFGHIKLMNPQRSTVWYA",
}
PARAMETERS = {"model": 1, "cycles": 3, "subbatch_size": 128, "precision": "fp32"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    maker = Path(__file__).with_name("tiny_omegafold.py")
    subprocess.run([os.environ["SNAKEFOLD_PYTHON_OMEGAFOLD"], str(maker), str(folder)], check=True)
    return folder


def arrays(
    weights: Path, folder: Path, *, driver: Path | None = None, seed: int = 0, **changed: Any
) -> dict[str, Arrays]:
    tasks = {
        name: FoldTask(chains=(ChainInputs(sequence=sequence),), seed=seed) for name, sequence in SEQUENCES.items()
    }
    return arrays_of(predict(OmegaFold(), weights, tasks, folder, PARAMETERS | changed, driver=driver))


COMMAND_LINE = """
import json, sys
import omegafold
from omegafold import __main__
stock, changes = omegafold.make_config, json.load(open(sys.argv.pop(1)))
def make_config(number):
    config = stock(number)
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section) if section else config, name, value)
    return config
omegafold.make_config = make_config
__main__.main()
"""


@pytest.mark.parametrize("model", [1, 2])
def test_it_is_what_the_authors_command_line_gives(model: int, weights: Path, tmp_path: Path) -> None:
    ours = arrays(weights, tmp_path / "ours", model=model)
    (tmp_path / "all.fasta").write_text("".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    arguments = [weights / "config.json", tmp_path / "all.fasta", tmp_path, "--weights_file"]
    arguments += [weights / f"release{model}.pt", "--model", model, "--num_cycle", 3, "--allow_tf32", False]
    python = os.environ["SNAKEFOLD_PYTHON_OMEGAFOLD"]
    subprocess.run([python, "-c", COMMAND_LINE, *map(str, arguments)], check=True)
    for name, sequence in SEQUENCES.items():
        (chain,) = gemmi.read_structure(str(tmp_path / f"{name}.pdb"))[0]
        # X has no atoms. Their numbers begin with 0.
        numbers = [place for place, letter in enumerate(sequence) if letter != "X"]
        assert [residue.seqid.num for residue in chain] == numbers
        found = ours[name]
        for residue, place in zip(chain, numbers, strict=True):
            assert [atom.name for atom in residue] == [each for each in found["names"][place] if each]
            expected = np.array([atom.pos.tolist() for atom in residue])
            np.testing.assert_allclose(found["positions"][place][: len(expected)], expected, atol=0.002)
            assert residue[0].b_iso == pytest.approx(found["plddt"][place], abs=0.011)
        assert found["positions"].std() > 1


def test_a_seed_gives_the_same_whatever_came_before_and_another_gives_another(weights: Path, tmp_path: Path) -> None:
    found = arrays(weights, tmp_path / "first")
    for name, values in found["one"].items():
        np.testing.assert_array_equal(values, found["again"][name])
    other = arrays(weights, tmp_path / "second", seed=1)
    assert np.abs(other["one"]["positions"] - found["one"]["positions"]).max() > 0.01


# A driver whose network has no memory for more rows than eight at a time.
SHORT_OF_MEMORY = """
import importlib.util, sys
sys.path.append({folder!r})
specification = importlib.util.spec_from_file_location("omegafold_driver", {driver!r})
driver = importlib.util.module_from_spec(specification)
specification.loader.exec_module(driver)
class Short(driver.OmegaFold):
    def load(self, settings):
        super().load(settings)
        stock = self.model.forward
        def forward(inputs, fwd_cfg, **options):
            if fwd_cfg.subbatch_size > 8:
                raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return stock(inputs, fwd_cfg=fwd_cfg, **options)
        self.model.forward = forward
driver.serve(Short())
"""


def test_want_of_memory_is_answered_with_smaller_pieces_that_change_nothing(weights: Path, tmp_path: Path) -> None:
    whole = arrays(weights, tmp_path / "whole", subbatch_size=None)
    driver = Path(OmegaFold().command(weights, PARAMETERS, tmp_path).command[1])
    (tmp_path / "short.py").write_text(SHORT_OF_MEMORY.format(folder=str(driver.parent), driver=str(driver)))
    pieces = arrays(weights, tmp_path / "pieces", driver=tmp_path / "short.py")
    assert "out of memory" in (tmp_path / "pieces/driver.log").read_text()
    for name, values in whole.items():
        np.testing.assert_allclose(pieces[name]["positions"], values["positions"], atol=1e-2)
        np.testing.assert_allclose(pieces[name]["plddt"], values["plddt"], atol=1e-2)


def test_a_run_from_the_sheet_to_the_report(weights: Path, tmp_path: Path) -> None:
    targets = {name: [SEQUENCES[name]] for name in ("one", "gap")}
    found = run_sheet_to_report(tmp_path, OmegaFold(), targets, files_of(weights), parameters={"cycles": 2}, gives=())
    for scores in found.values():
        # Nothing was searched.
        assert {database["name"] for database in scores["databases"]} == {"omegafold_release"}
        assert scores["software"]["omegafold"].startswith("0+g313c873ad190")
    assert found["gap"]["chains"][0]["modelled"] == [[0, 10]]
