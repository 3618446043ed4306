"""Boltz's own code through driver, supervisor, store, relaxation, scores and report. Its weights are random."""

import os
import random
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.boltz import Boltz, Boltz2
from snakefold.files import read_json
from snakefold.structures.io import read_model
from snakefold.structures.residues import NAME_OF_LETTER
from tests.engines.sheet_to_report import files_of, run_sheet_to_report
from tests.engines.taken import Taken, predict

PYTHON = os.environ["SNAKEFOLD_PYTHON_BOLTZ"]
ONE = "MKTAYIAKQRQISFVKSHFSRQ"
OTHER = "GSHMRYFYTSX"
# Boltz brings copies together: its order of the chains is another.
SEQUENCES = {"one": [ONE], "again": [ONE], "trimer": [ONE, OTHER, ONE]}
PARAMETERS = {"recycles": 1, "sampling_steps": 8, "diffusion_samples": 2, "step_scale": 1.6, "max_msa_seqs": 8192}
ROWS = 200
# Where the MSAs have rows of a species, and what becomes of it: the two that are in both are paired.
SPECIES = {ONE: {1: "YEAST", 3: "FUNHE", 7: "HUMAN", 9: "FUNHE"}, OTHER: {1: "MOUSE", 2: "HUMAN", 5: "FUNHE"}}
PAIRED = {ONE: [3, 7], OTHER: [5, 2]}

LETTERS = {name: letter for letter, name in NAME_OF_LETTER.items()} | {"-": "-"}

Msas = Mapping[str, Path]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads wait for each other many times as long as such small matrices take, if something else runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(params=[Boltz, Boltz2], ids=["boltz", "boltz2"], scope="module")
def engine(request: pytest.FixtureRequest) -> Boltz:
    return request.param()


@pytest.fixture(scope="module")
def all_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    subprocess.run([PYTHON, str(Path(__file__).with_name("tiny_boltz.py")), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def weights(all_weights: Path, engine: Boltz) -> Path:
    return all_weights / engine.name


@pytest.fixture(scope="module")
def rows() -> Mapping[str, list[str]]:
    """Relatives of both chains, with gaps and inserts."""
    draw = random.Random(0)
    return {
        query: [
            query,
            *("".join(draw.choice((letter, letter, "-", "Aal", "K")) for letter in query) for _ in range(number)),
        ]
        for query, number in ((ONE, ROWS), (OTHER, 20))
    }


@pytest.fixture(scope="module")
def msas(rows: Mapping[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Msas:
    folder = tmp_path_factory.mktemp("msas")
    paths = {}
    for query, aligned in rows.items():
        names = [
            f"tr|A0A146SK{number}|A0A146SK{number}_{SPECIES[query][number]}/1-9 described"
            if number in SPECIES[query]
            else f"UniRef90_{number}"
            for number in range(len(aligned))
        ]
        paths[query] = folder / f"{len(query)}.a3m"
        paths[query].write_text("".join(f">{name}\n{row}\n" for name, row in zip(names, aligned, strict=True)))
    return paths


def task(chains: list[str], msas: Msas, seed: int = 7) -> FoldTask:
    return FoldTask(chains=tuple(ChainInputs(sequence=chain, msa=msas[chain]) for chain in chains), seed=seed)


@pytest.fixture(scope="module")
def ours(engine: Boltz, weights: Path, msas: Msas, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    tasks = {name: task(chains, msas) for name, chains in SEQUENCES.items()}
    tasks["otherwise"] = task([ONE], msas, seed=8)
    return predict(engine, weights, tasks, tmp_path_factory.mktemp("ours"), PARAMETERS)


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


def as_columns(rows: list[str], paired: list[int]) -> list[str]:
    """The match columns of an MSA in that order, of equal sequences the first."""
    order = [0, *paired, *(number for number in range(1, len(rows)) if number not in paired)]
    unique = {rows[number].replace("-", "").upper(): rows[number] for number in reversed(order)}
    kept = [rows[number] for number in order if unique[rows[number].replace("-", "").upper()] is rows[number]]
    return ["".join(letter for letter in row if not letter.islower()) for row in kept]


def as_csv(rows: list[str], paired: list[int]) -> str:
    """An MSA with keys, as Boltz's own MSA server writes it."""
    keyed = [f"{key},{rows[number]}" for key, number in enumerate(paired)]
    others = [f"-1,{row}" for number, row in enumerate(rows) if number and number not in paired]
    return "\n".join(["key,sequence", f"-1,{rows[0]}", *keyed, *others, ""])


def test_they_are_what_boltz_own_command_line_gives(
    engine: Boltz, ours: Taken, weights: Path, rows: Mapping[str, list[str]], tmp_path: Path
) -> None:
    inputs, cache = tmp_path / "inputs", tmp_path / "cache"
    inputs.mkdir()
    cache.mkdir()
    for path in weights.iterdir():
        (cache / path.name).symlink_to(path)
    # Fetched if it is not there, but read only for affinities.
    (cache / "boltz2_aff.ckpt").touch()
    trimer = []
    for names, query in ((["A", "C"], ONE), (["B"], OTHER)):
        (tmp_path / f"{names[0]}.csv").write_text(as_csv(rows[query], PAIRED[query]))
        trimer.append({"protein": {"id": names, "sequence": query, "msa": str(tmp_path / f"{names[0]}.csv")}})
    (inputs / "trimer.yaml").write_text(yaml.safe_dump({"version": 1, "sequences": trimer}))
    options = {
        "out_dir": tmp_path,
        "cache": cache,
        "model": "boltz1" if engine.name == "boltz" else "boltz2",
        "accelerator": "cpu",
        "num_workers": 0,
        "preprocessing-threads": 1,
        "recycling_steps": PARAMETERS["recycles"],
        "sampling_steps": PARAMETERS["sampling_steps"],
        "diffusion_samples": PARAMETERS["diffusion_samples"],
        "step_scale": PARAMETERS["step_scale"],
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [PYTHON, "-c", COMMAND_LINE, "predict", str(inputs), *flags]
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


# A driver that keeps the MSA which goes into the network, and has no memory for some. Boltz catches what it raises.
WATCHED = """
import importlib.util, sys
import numpy as np
sys.path.append({folder!r})
specification = importlib.util.spec_from_file_location("boltz_driver", {driver!r})
driver = importlib.util.module_from_spec(specification)
specification.loader.exec_module(driver)
class Watched(driver.MODELS[{engine!r}]):
    def load(self, settings):
        super().load(settings)
        stock = self.model.forward
        def forward(batch, **options):
            msa = batch["msa"][0].numpy()
            tokens = np.array(self.constants.tokens)[msa.argmax(-1) if msa.ndim == 3 else msa]
            np.savez({kept!r} + str(tokens.shape[1]), tokens=tokens, paired=batch["msa_paired"][0].numpy())
            if tokens.shape[0] > {most!r}.get(tokens.shape[1], 10_000):
                raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return stock(batch, **options)
        self.model.forward = forward
driver.serve(Watched())
"""


@pytest.fixture(scope="module")
def watched(engine: Boltz, weights: Path, msas: Msas, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("watched")
    driver = Path(engine.command(weights, PARAMETERS, folder).command[1])
    most = {len(ONE): 128, 2 * len(ONE): 100}
    program = WATCHED.format(
        folder=str(driver.parent), driver=str(driver), engine=engine.name, most=most, kept=str(folder / "msa")
    )
    (folder / "watched.py").write_text(program)
    tasks = {"fits": task([ONE], msas), "never": task([ONE, ONE], msas), "pair": task([ONE, OTHER], msas)}
    return predict(engine, weights, tasks, folder, PARAMETERS, driver=folder / "watched.py")


def test_want_of_memory_is_answered_with_fewer_rows(watched: Taken) -> None:
    assert "only 128 rows" in watched.prediction("fits")["notes"][0]
    assert watched.failures == {"never": "out_of_memory"}


def test_rows_of_one_species_become_one_row_of_the_paired_msa(watched: Taken, rows: Mapping[str, list[str]]) -> None:
    with np.load(watched.folder / f"msa{len(ONE) + len(OTHER)}.npz") as content:
        tokens, paired = content["tokens"], content["paired"]
    network = ["".join(LETTERS[token] for token in row) for row in tokens]
    first, second = (as_columns(rows[query], PAIRED[query]) for query in (ONE, OTHER))
    assert network[:3] == [one + other for one, other in zip(first[:3], second[:3], strict=True)]
    # All rows follow side by side. Boltz means to leave out here what it has paired, and does not.
    second += ["-" * len(OTHER)] * (len(first) - len(second))
    assert network[3:] == [one + other for one, other in zip(first[1:], second[1:], strict=True)]
    assert (paired[:3] == 1).all() and (paired[3:] == 0).all()


def test_one_chain_and_copies_of_it_are_not_paired(watched: Taken) -> None:
    for copies in (1, 2):
        with np.load(watched.folder / f"msa{copies * len(ONE)}.npz") as content:
            assert (content["paired"][0] == 1).all() and (content["paired"][1:] == 0).all()


def test_a_run_from_the_sheet_to_the_report(engine: Boltz, weights: Path, tmp_path: Path) -> None:
    targets = {name: SEQUENCES[name] for name in ("one", "trimer")}
    run_sheet_to_report(tmp_path, engine, targets, files_of(weights), parameters={"recycles": 0, "sampling_steps": 8})
