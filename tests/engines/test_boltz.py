"""Boltz-1's own code through driver, supervisor, store, relaxation, scores and report. Its weights are random."""

import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.boltz import Boltz
from snakefold.engines.supervisor import DriverCommand, Finished, Supervisor
from snakefold.files import read_json
from snakefold.outcome import Outcome
from snakefold.structures.io import read_model
from tests.engines.sheet_to_report import files_of, run_sheet_to_report

ONE = "MKTAYIAKQRQISFVKSHFSRQ"
OTHER = "GSHMRYFYTSX"
# Boltz brings copies together: its order of the chains is another.
SEQUENCES = {"one": [ONE], "again": [ONE], "trimer": [ONE, OTHER, ONE]}
PARAMETERS = {"recycles": 1, "sampling_steps": 8, "diffusion_samples": 2, "step_scale": 1.638, "max_msa_seqs": 8192}
ROWS = 200


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    maker = Path(__file__).with_name("tiny_boltz.py")
    subprocess.run([os.environ["SNAKEFOLD_PYTHON_BOLTZ"], str(maker), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def msa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Relatives of ONE, with gaps and inserts."""
    path = tmp_path_factory.mktemp("msa") / "msa.a3m"
    draw = random.Random(0)
    rows = ["".join(draw.choice((letter, letter, "-", "Aal", "K")) for letter in ONE) for _ in range(ROWS)]
    path.write_text("".join(f">{number}\n{row}\n" for number, row in enumerate([ONE, *rows])))
    return path


def task(chains: list[str], msa: Path, seed: int = 7) -> FoldTask:
    inputs = [ChainInputs(sequence=chain, msa=msa if chain == ONE else None) for chain in chains]
    return FoldTask(chains=tuple(inputs), seed=seed)


class Taken:
    """Takes in what the driver made."""

    def __init__(self, folder: Path, tasks: Mapping[str, FoldTask]) -> None:
        self.folder, self.tasks = folder, tasks
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}

    def done(self, member: str, finished: Finished) -> None:
        (self.folder / "taken" / member).mkdir(parents=True)
        self.outcomes[member] = Boltz().take_in(
            self.tasks[member], self.folder / "made" / member, self.folder / "taken" / member
        )

    def failed(self, member: str, kind: str, reason: str, log: object) -> None:
        self.failures[member] = kind

    def prediction(self, member: str) -> dict[str, Any]:
        return read_json(self.folder / "taken" / member / "prediction.json")


def predict(weights: Path, tasks: Mapping[str, FoldTask], folder: Path, driver: Path | None = None) -> Taken:
    command = Boltz().command(weights, PARAMETERS, folder)
    if driver is not None:
        command = DriverCommand(command=[command.command[0], str(driver)], settings=command.settings)
    ends = Taken(folder, tasks)
    members = {name: (task, folder / "made" / name) for name, task in tasks.items()}
    Supervisor(command, members, ends=ends, scratch=folder, limit=Boltz().limit).run()
    return ends


@pytest.fixture(scope="module")
def ours(weights: Path, msa: Path, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    tasks = {name: task(chains, msa) for name, chains in SEQUENCES.items()}
    tasks["otherwise"] = task([ONE], msa, seed=8)
    return predict(weights, tasks, tmp_path_factory.mktemp("ours"))


def positions(path: Path) -> np.ndarray:
    return np.array([xyz for chain in read_model(path) for atoms in chain.atoms.values() for xyz in atoms.values()])


def test_predictions_have_the_common_form(ours: Taken) -> None:
    assert set(ours.outcomes) == {"one", "again", "trimer", "otherwise"}
    for name, chains in SEQUENCES.items():
        folder = ours.folder / "taken" / name
        model = read_model(folder / "model.cif")
        assert [chain.sequence for chain in model] == chains
        assert all(set(chain.atoms) == set(range(len(chain.sequence))) for chain in model)
        prediction = ours.prediction(name)
        assert prediction["notes"] == []
        assert 0 < prediction["ptm"] < 1
        assert (prediction["iptm"] is None) == (len(chains) == 1)
        assert len(read_json(folder / "pae.json")["pae"]) == sum(map(len, chains))


def test_a_seed_gives_the_same_whatever_came_before(ours: Taken) -> None:
    one, again, otherwise = (ours.folder / "taken" / name for name in ("one", "again", "otherwise"))
    for file in ("model.cif", "prediction.json", "pae.json"):
        assert (one / file).read_bytes() == (again / file).read_bytes()
    assert (one / "model.cif").read_bytes() != (otherwise / "model.cif").read_bytes()


# The command line seeds once, and then draws the numbers that the weights take the place of.
COMMAND_LINE = """
import sys
import boltz.main
from pytorch_lightning import Trainer, seed_everything
stock = Trainer.predict
def predict(self, *arguments, **options):
    seed_everything(7)
    return stock(self, *arguments, **options)
Trainer.predict = predict
boltz.main.cli(sys.argv[1:])
"""


def test_they_are_what_boltz_own_command_line_gives(ours: Taken, weights: Path, msa: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    trimer = [
        {"protein": {"id": ["A", "C"], "sequence": ONE, "msa": str(msa)}},
        {"protein": {"id": "B", "sequence": OTHER, "msa": "empty"}},
    ]
    (inputs / "trimer.yaml").write_text(yaml.safe_dump({"version": 1, "sequences": trimer}))
    options = {
        "out_dir": tmp_path,
        "cache": weights,
        "model": "boltz1",
        "accelerator": "cpu",
        "num_workers": 0,
        "preprocessing-threads": 1,
        "recycling_steps": PARAMETERS["recycles"],
        "sampling_steps": PARAMETERS["sampling_steps"],
        "diffusion_samples": PARAMETERS["diffusion_samples"],
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [os.environ["SNAKEFOLD_PYTHON_BOLTZ"], "-c", COMMAND_LINE, "predict", str(inputs), *flags]
    subprocess.run([*command, "--write_full_pae", "--no_kernels"], check=True, cwd=tmp_path)
    theirs = tmp_path / "boltz_results_inputs" / "predictions" / "trimer"
    made = ours.folder / "made" / "trimer"
    for kind, name in (("plddt", "plddt"), ("pae", "pae")):
        expected = np.load(theirs / f"{kind}_trimer_model_0.npz")[name]
        np.testing.assert_allclose(np.load(made / f"{kind}_member_model_0.npz")[name], expected, atol=1e-4)
    assert (made / "member_model_0.cif").read_text() == (theirs / "trimer_model_0.cif").read_text()
    expected = read_json(theirs / "confidence_trimer_model_0.json")
    assert ours.prediction("trimer")["ptm"] == pytest.approx(expected["ptm"], abs=1e-4)
    assert ours.prediction("trimer")["iptm"] == pytest.approx(expected["iptm"], abs=1e-4)


# A driver whose network has no memory for more rows than `least`; Boltz's own code catches what it raises.
SHORT_OF_MEMORY = """
import importlib.util, sys
sys.path.append({folder!r})
specification = importlib.util.spec_from_file_location("boltz_driver", {driver!r})
driver = importlib.util.module_from_spec(specification)
specification.loader.exec_module(driver)
class Short(driver.Boltz):
    def load(self, settings):
        super().load(settings)
        stock = self.model.forward
        def forward(batch, **options):
            if batch["msa"].shape[1] > {rows}:
                raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return stock(batch, **options)
        self.model.forward = forward
driver.serve(Short())
"""


@pytest.mark.parametrize(("rows", "fits"), [(128, True), (100, False)])
def test_want_of_memory_is_answered_with_fewer_rows(
    rows: int, fits: bool, weights: Path, msa: Path, tmp_path: Path
) -> None:
    driver = Path(Boltz().command(weights, PARAMETERS, tmp_path).command[1])
    short = tmp_path / "short.py"
    short.write_text(SHORT_OF_MEMORY.format(folder=str(driver.parent), driver=str(driver), rows=rows))
    ends = predict(weights, {"one": task([ONE], msa)}, tmp_path, driver=short)
    if fits:
        assert "only 128 rows" in ends.prediction("one")["notes"][0]
    else:
        assert ends.failures == {"one": "out_of_memory"}


def test_a_run_from_the_sheet_to_the_report(weights: Path, tmp_path: Path) -> None:
    targets = {name: SEQUENCES[name] for name in ("one", "trimer")}
    run_sheet_to_report(tmp_path, Boltz(), targets, files_of(weights), parameters={"recycles": 0, "sampling_steps": 8})
