"""Engines with a driver: from a batch's members to results in the store, and back to the plan's figures."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakefold.batch import BatchRun, read_receipt, run_in_driver
from snakefold.config import load_config
from snakefold.engines import ENGINES, AnyEngine, alphafold2, engines_for
from snakefold.engines.alphafold2 import AlphaFold2
from snakefold.engines.base import ChainInputs, FoldTask, Limits
from snakefold.engines.boltz import Boltz, Boltz2
from snakefold.engines.driven import DrivenEngine, calibrations
from snakefold.engines.esmfold import EsmFold
from snakefold.engines.gpus import Gpu, OwnGpu
from snakefold.engines.prediction import ATOM37
from snakefold.engines.supervisor import DriverCommand
from snakefold.errors import MemberError, SnakefoldError
from snakefold.files import read_json
from snakefold.outcome import Outcome
from snakefold.progress import Progress
from snakefold.store import Action, open_store
from snakefold.structures.io import read_chains, read_model

DRIVER = Path(__file__).parent / "drivers" / "obedient.py"


class Obedient(DrivenEngine):
    """The engine of the driver that the supervisor's tests use."""

    name = "obedient"
    version = "1"
    packages = ("pytest",)
    licence = "none"
    weights = None
    needs_msa = False
    needs_templates = False
    limits = Limits(min_length=1, max_length=1000, max_chains=1)

    def seconds(self, residues: int) -> float:
        return residues / 100

    def gpu_memory_mb(self, residues: int) -> int:
        return 20_000

    def command(self, weights: Path | None, parameters: Mapping[str, Any], cache: Path) -> DriverCommand:
        settings = {"do": parameters["do"], "marks": str(cache.parent), "weights": str(weights)}
        return DriverCommand(command=[sys.executable, str(DRIVER)], settings=settings)

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        if len(task.chains[0].sequence) == 13:
            raise MemberError("bad_output", "nothing of use")
        how = read_json(made / "result.json")
        assert how["gpu"] == "8"
        (folder / "model.cif").write_text(json.dumps(how["ease"]))
        return Outcome(status="done")


def test_members_end_in_the_store_or_with_their_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu(name="8", uuid="GPU-8", memory_mb=24_000), Gpu(name="7", uuid="GPU-7", memory_mb=4_000)]
    monkeypatch.setattr("snakefold.engines.gpus.visible_gpus", lambda: gpus)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    members = {"a": "A" * 10, "b": "A" * 11, "c": "A" * 12, "d": "A" * 13, "e": "A" * 14}
    parameters = {"do": {"b": "kill", "c": "eased"}}
    actions = {
        name: Action(step="fold", tool="obedient", version="1", parameters=parameters, inputs={"sequence": sequence})
        for name, sequence in members.items()
    }
    tasks = {
        name: FoldTask(chains=(ChainInputs(sequence=sequence),), parameters=parameters)
        for name, sequence in members.items()
    }
    store = open_store(str(tmp_path / "store"))
    with (
        Progress("test", len(members), plain=True) as progress,
        BatchRun("fold", "0" * 12, list(members), store, databases={}, reuse=True, progress=progress) as run,
    ):
        missing = run.find_stored(actions)
        run_in_driver(run, missing, {name: tasks[name] for name in missing}, Obedient(), None)
        run.write_receipt(tmp_path / "receipt.json")
    receipt = read_receipt(tmp_path / "receipt.json")
    assert {name: (end.status, end.kind) for name, end in receipt.items()} == {
        "a": ("done", None),
        "b": ("failed", "out_of_memory"),
        "c": ("done", None),
        "d": ("failed", "bad_output"),
        "e": ("done", None),
    }
    assert receipt["b"].log == ["working on b"]
    record = store.lookup(actions["c"].key)
    assert record is not None and record.gpu_memory_mb is None and record.peak_memory_mb > 1
    store.fetch(receipt["c"].files["model.cif"], tmp_path / "model.cif")
    assert (tmp_path / "model.cif").read_text() == "2"


def test_waiting_for_a_gpu_takes_nothing_of_a_batchs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Recorded:
        def __init__(self, *_: object, **named: object) -> None:
            given.update(named)

        def run(self) -> None:
            pass

    @contextmanager
    def late(*_: object) -> Iterator[OwnGpu]:
        time.sleep(0.2)
        yield OwnGpu()

    monkeypatch.setattr("snakefold.batch.Supervisor", Recorded)
    monkeypatch.setattr("snakefold.batch.own_gpu", late)
    action = Action(step="fold", tool="obedient", version="1", parameters={"do": {}}, inputs={"sequence": "A"})
    task = FoldTask(chains=(ChainInputs(sequence="A"),), parameters={"do": {}})
    store = open_store(str(tmp_path / "store"))
    with (
        Progress("test", 1, plain=True) as progress,
        BatchRun("fold", "0" * 12, ["a"], store, databases={}, reuse=True, progress=progress, minutes=1) as run,
    ):
        run_in_driver(run, {"a": action}, {"a": task}, Obedient(), None)
        assert run.deadline is not None
        assert given["deadline"] >= run.deadline + 0.2


class TestEsmFold:
    TASK = FoldTask(chains=(ChainInputs(sequence="AX"), ChainInputs(sequence="GW")))

    def output(self, folder: Path, **changed: np.ndarray) -> Path:
        """What the driver writes for AX and GW, of two chains; nothing is known of X."""
        exists = np.zeros((4, 37), dtype=bool)
        for row, names in enumerate(("N CA C CB O", "", "N CA C O", "N CA C CB O CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2")):
            exists[row, [ATOM37.index(name) for name in names.split()]] = True
        values = {
            "positions": np.arange(4 * 37 * 3, dtype=np.float32).reshape(4, 37, 3),
            "exists": exists,
            "plddt": np.array([91.234, 50, 70, 30], dtype=np.float32),
            "pae": np.full((4, 4), 3.21, dtype=np.float32),
            "ptm": np.float32(0.75),
        }
        folder.mkdir(parents=True)
        np.savez_compressed(folder / "prediction.npz", allow_pickle=False, **(values | changed))
        return folder

    def test_the_drivers_output_becomes_a_prediction(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        outcome = EsmFold().take_in(self.TASK, self.output(tmp_path / "made"), tmp_path / "out")
        assert outcome.facts == {"mean_confidence": 60.31}
        first, second = read_model(tmp_path / "out" / "model.cif")
        assert (first.sequence, second.sequence) == ("AX", "GW")
        assert set(first.atoms) == {0} and len(second.atoms[1]) == 14
        np.testing.assert_allclose(second.atoms[0]["CA"], [2 * 111 + 3, 2 * 111 + 4, 2 * 111 + 5])
        prediction = read_json(tmp_path / "out" / "prediction.json")
        assert prediction["confidence"] == [[91.23, 50.0], [70.0, 30.0]]
        assert (prediction["ptm"], prediction["unmodelled"]) == (0.75, [[[1, 2]], []])
        assert read_json(tmp_path / "out" / "pae.json")["pae"][3] == [3.21] * 4

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"positions": np.full((4, 37, 3), np.nan)}, "no finite numbers"),
            ({"plddt": np.full(4, np.inf)}, "no finite numbers"),
            ({"pae": np.zeros((3, 3))}, "no 4 x 4 numbers"),
        ],
    )
    def test_what_is_no_prediction_is_the_members_failure(
        self, tmp_path: Path, changed: dict[str, np.ndarray], reason: str
    ) -> None:
        (tmp_path / "out").mkdir()
        with pytest.raises(MemberError, match=reason):
            EsmFold().take_in(self.TASK, self.output(tmp_path / "made", **changed), tmp_path / "out")

    def test_an_output_that_was_cut_off_is_the_members_failure(self, tmp_path: Path) -> None:
        whole = self.output(tmp_path / "made") / "prediction.npz"
        whole.write_bytes(whole.read_bytes()[:-40])
        with pytest.raises(MemberError, match="cannot be read"):
            EsmFold().take_in(self.TASK, tmp_path / "made", tmp_path)

    def test_a_missing_output_is_the_members_failure(self, tmp_path: Path) -> None:
        with pytest.raises(MemberError, match="cannot be read"):
            EsmFold().take_in(self.TASK, tmp_path, tmp_path)


class TestAlphaFold2:
    library = Path(__file__).parents[2] / "data" / "mini" / "templates"

    def output(self, folder: Path, residues: int, **changed: Any) -> Path:
        """What the driver writes: alpha carbons of so many residues."""
        exists = np.zeros((residues, 37), dtype=bool)
        exists[:, ATOM37.index("CA")] = True
        values: dict[str, Any] = {
            "positions": np.arange(residues * 37 * 3, dtype=np.float32).reshape(residues, 37, 3),
            "exists": exists,
            "plddt": np.full(residues, 80, dtype=np.float32),
            "pae": np.full((residues, residues), 5, dtype=np.float32),
            "ptm": np.float32(0.6),
            "model": np.int32(4),
            "seed": np.int64(7),
            "candidates": np.int32(10),
        }
        folder.mkdir()
        kept = {name: value for name, value in (values | changed).items() if value is not None}
        np.savez_compressed(folder / "prediction.npz", allow_pickle=False, **kept)
        return folder

    def take_in(self, task: FoldTask, folder: Path, residues: int, **changed: Any) -> tuple[Outcome, dict[str, Any]]:
        (folder / "out").mkdir()
        outcome = AlphaFold2().take_in(task, self.output(folder / "made", residues, **changed), folder / "out")
        return outcome, read_json(folder / "out" / "prediction.json")

    def test_one_chain_has_no_iptm(self, tmp_path: Path) -> None:
        outcome, prediction = self.take_in(FoldTask(chains=(ChainInputs(sequence="AGW"),)), tmp_path, 3)
        assert outcome.facts == {"mean_confidence": 80.0}
        assert (prediction["ptm"], prediction["iptm"]) == (0.6, None)
        assert prediction["notes"] == ["Model 4 with seed 7, the best of 10 predictions."]
        assert (tmp_path / "out" / "pae.json").exists()

    def test_several_have_one_and_a_smaller_msa_is_noted(self, tmp_path: Path) -> None:
        task = FoldTask(chains=(ChainInputs(sequence="AG"), ChainInputs(sequence="W")))
        outcome, prediction = self.take_in(task, tmp_path, 3, iptm=np.float32(0.25), crop=np.array([127, 512]))
        assert outcome.facts == {"mean_confidence": 80.0, "iptm": 0.25}
        assert [len(chain) for chain in prediction["confidence"]] == [2, 1]
        assert "at most 127 clusters and 512 further rows" in prediction["notes"][1]

    def test_the_templates_that_the_model_had_are_named_as_the_template_engine_does(self, tmp_path: Path) -> None:
        shutil.copy(self.library / "1afs.cif.gz", tmp_path)
        of_entry = next(chain for chain in read_chains(tmp_path / "1afs.cif.gz") if chain.name == "A").sequence
        pairs = [[0, 30, 0.9], [2, 31, 0.9]]
        hit = {"entry": "1afs", "chain": "A", "file": "1afs.cif.gz", "pairs": pairs, "evalue": 1e-5}
        (tmp_path / "hits.json").write_text(json.dumps({"hits": [{"entry": "1abc"}, hit]}))
        second = ChainInputs(sequence=f"{of_entry[30]}WX", templates=tmp_path)
        task = FoldTask(chains=(ChainInputs(sequence="AG"), second))
        _, prediction = self.take_in(task, tmp_path, 5, iptm=np.float32(0.25), templates=np.array([[1, 1]]))
        named = {"chain_index": 1, "entry": "1afs", "chain": "A", "ranges": [], "evalue": 1e-5}
        assert prediction["templates"] == [named | {"identity": 0.5, "coverage": 0.6667}]
        assert len(prediction["notes"]) == 1
        rows = (tmp_path / "out" / "alignment.fasta").read_text().splitlines()
        assert rows == [">target B", second.sequence, ">1afs A", f"{of_entry[30]}-{of_entry[31]}"]

    def test_of_equal_chains_each_entry_is_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copy(self.library / "1afs.cif.gz", tmp_path)
        hits = [
            {"entry": "1afs", "chain": chain, "file": "1afs.cif.gz", "pairs": [[0, 30, 0.9]], "evalue": 1e-5}
            for chain in "AB"
        ]
        (tmp_path / "hits.json").write_text(json.dumps({"hits": hits}))
        read: list[Path] = []
        monkeypatch.setattr(alphafold2, "read_chains", lambda path: read.append(path) or read_chains(path))
        task = FoldTask(chains=(ChainInputs(sequence="AG", templates=tmp_path),) * 3)
        places = np.array([[chain, place] for chain in range(3) for place in range(2)])
        _, prediction = self.take_in(task, tmp_path, 6, iptm=np.float32(0.25), templates=places)
        assert [(each["chain_index"], each["chain"]) for each in prediction["templates"]] == [
            (chain, name) for chain in range(3) for name in "AB"
        ]
        assert read == [tmp_path / "1afs.cif.gz"]

    def test_templates_are_read_by_models_that_take_them_if_the_parameters_say_so(self) -> None:
        for parameters, of_one, of_two in (
            ({"templates": False}, False, False),
            ({"templates": True}, True, True),
            ({"templates": True, "models": [2, 5]}, True, True),
            ({"templates": True, "models": [3, 4, 5]}, False, True),
        ):
            engine = engines_for(load_config({"samples": "s.tsv", "alphafold2": parameters}))["alphafold2"]
            assert engine.needs_templates == parameters["templates"]
            assert (engine.reads_templates(1), engine.reads_templates(2)) == (of_one, of_two)
        assert not ENGINES["alphafold2"].needs_templates

    def test_what_lacks_an_array_is_the_members_failure(self, tmp_path: Path) -> None:
        with pytest.raises(MemberError, match="cannot be read: it has no ptm"):
            self.take_in(FoldTask(chains=(ChainInputs(sequence="AGW"),)), tmp_path, 3, ptm=None)

    @pytest.mark.parametrize(("residues", "changed"), [(2, {}), (4, {}), (3, {"exists": np.ones((3, 36), dtype=bool)})])
    def test_arrays_of_another_target_are_the_members_failure(
        self, residues: int, changed: dict[str, Any], tmp_path: Path
    ) -> None:
        with pytest.raises(
            MemberError, match=r"are not of the target's 3 residues|are not 37 of each residue"
        ) as caught:
            self.take_in(FoldTask(chains=(ChainInputs(sequence="AGW"),)), tmp_path, residues, **changed)
        assert caught.value.kind == "bad_output"


@pytest.mark.parametrize("name", [name for name, engine in ENGINES.items() if isinstance(engine, DrivenEngine)])
def test_a_calibration_grows_with_the_length_and_names_its_source(name: str) -> None:
    engine = ENGINES[name]
    assert calibrations()[name].source
    for figure in (engine.seconds, engine.memory_mb, engine.gpu_memory_mb):
        values = [figure(residues) for residues in (50, 100, 400, 1000)]
        assert values == sorted(values) and values[0] > 0


@pytest.mark.parametrize(
    ("name", "parameters", "times"),
    [
        ("esmfold", {"recycles": 7}, 2),
        ("alphafold2", {"seeds": 4, "models": [1], "recycles": 7}, 1.6),
        ("boltz", {"diffusion_samples": 5}, 3),
        ("boltz2", {"sampling_steps": 100, "recycles": 1}, 0.5),
        ("openfold", {"diffusion_samples": 10}, 1.5),
        ("omegafold", {"cycles": 5}, 0.5),
        ("rosettafold", {"seeds": 3, "recycles": 1}, 1.5),
    ],
)
def test_seconds_and_the_time_limit_know_the_parameters(name: str, parameters: dict[str, Any], times: float) -> None:
    usual, changed = (engines_for(load_config({"samples": "s.tsv", name: each}))[name] for each in ({}, parameters))
    assert isinstance(usual, DrivenEngine) and isinstance(changed, DrivenEngine)
    assert usual.seconds(300) == ENGINES[name].seconds(300)
    assert changed.seconds(300) == pytest.approx(times * usual.seconds(300))
    task = FoldTask(chains=(ChainInputs(sequence="A" * 300),))
    assert changed.limit(task) - usual.limit(task) == pytest.approx(10 * (times - 1) * usual.seconds(300))


def test_what_a_gpu_cannot_hold_is_refused_before_anything_runs() -> None:
    engine = ENGINES["esmfold"]

    def on_gpu(memory_mb: int, name: str = "esmfold") -> AnyEngine:
        return engines_for(load_config({"samples": "s.tsv", "plan": {"gpu_memory_mb": memory_mb}}))[name]

    longest = on_gpu(24_000).limits.max_length
    assert engine.limits.min_length < longest < engine.limits.max_length
    assert engine.gpu_memory_mb(longest) <= 24_000 < engine.gpu_memory_mb(longest + 1)
    assert on_gpu(1000).limits.max_length < engine.limits.min_length
    assert on_gpu(10**6).limits == engine.limits
    assert on_gpu(1000, "template").limits == ENGINES["template"].limits


class TestPython:
    def test_it_is_the_one_that_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SNAKEFOLD_PYTHON_OBEDIENT", sys.executable)
        assert Obedient().python() == sys.executable
        assert Obedient().versions() == f"1 pytest-{pytest.__version__}"

    def test_engines_of_one_package_share_driver_and_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SNAKEFOLD_PYTHON_BOLTZ", sys.executable)
        first, second = (engine.command(None, {}, Path("cache")).command for engine in (Boltz(), Boltz2()))
        assert first[:2] == second[:2] and Path(first[1]).name == "boltz.py"
        assert (first[2], second[2]) == ("boltz", "boltz2")

    def test_none_is_one_line_that_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SNAKEFOLD_PYTHON_ESMFOLD", raising=False)
        with pytest.raises(
            SnakefoldError, match=r"esmfold has no Python here; install transformers, torch .* name its"
        ):
            EsmFold().python()

    def test_one_that_does_not_exist_or_lacks_a_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SNAKEFOLD_PYTHON_ESMFOLD", "/nowhere/python")
        with pytest.raises(SnakefoldError, match="SNAKEFOLD_PYTHON_ESMFOLD: /nowhere/python is no program"):
            EsmFold().python()
        monkeypatch.setenv("SNAKEFOLD_PYTHON_ESMFOLD", sys.executable)
        monkeypatch.setattr(EsmFold, "packages", ("no-such-package",))
        with pytest.raises(SnakefoldError, match="lacks no-such-package"):
            EsmFold().versions()
