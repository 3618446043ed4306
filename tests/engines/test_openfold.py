"""OpenFold3's own code through driver, supervisor, store, relaxation, scores and report. Its weights are random."""

import json
import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

import gemmi
import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.openfold import OpenFold
from snakefold.files import read_json
from snakefold.structures.io import read_model
from tests.engines.sheet_to_report import files_of, run_sheet_to_report
from tests.engines.taken import Taken, predict

PYTHON = os.environ["SNAKEFOLD_PYTHON_OPENFOLD"]
DRIVERS = Path(__file__).parents[2] / "snakefold" / "engines" / "drivers"

ONE = "MKTAYIAKQRQISFVKSHFSRQ"
OTHER = "GSHMRYFYTSX"
SEQUENCES = {"one": [ONE], "trimer": [ONE, OTHER, ONE], "again": [ONE], "unknown": [OTHER]}
PARAMETERS = {"recycles": 1, "sampling_steps": 4, "diffusion_samples": 2, "max_msa_rows": 16384}
ROWS = 200
# Of ONE's rows, which state their species as UniProt does; of OTHER's, all.
SPECIES = {ONE: {3: "HUMAN", 7: "MOUSE", 8: "YEAST"}, OTHER: {1: "MOUSE", 2: "HUMAN"}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    subprocess.run([PYTHON, str(Path(__file__).with_name("tiny_openfold.py")), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def msas(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Relatives of both sequences, with gaps and inserts; some with names of UniProt."""
    folder = tmp_path_factory.mktemp("msas")
    draw = random.Random(0)
    paths = {}
    for sequence, count in ((ONE, ROWS), (OTHER, 2)):
        text = f">target\n{sequence}\n"
        for number in range(1, count + 1):
            species = SPECIES[sequence].get(number)
            name = f"tr|A0A{number}|A0A{number}_{species}/1-9 a protein" if species else f"UniRef100_A0A{number}/1-9"
            text += f">{name}\n{''.join(draw.choice((letter, letter, '-', 'Aal', 'K')) for letter in sequence)}\n"
        paths[sequence] = folder / f"{count}.a3m"
        paths[sequence].write_text(text)
    return paths


def task(chains: list[str], msas: Mapping[str, Path], seed: int = 7) -> FoldTask:
    return FoldTask(chains=tuple(ChainInputs(sequence=chain, msa=msas.get(chain)) for chain in chains), seed=seed)


@pytest.fixture(scope="module")
def ours(weights: Path, msas: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("ours")
    tasks = {name: task(chains, {} if name == "unknown" else msas) for name, chains in SEQUENCES.items()}
    (folder / "cut_off.a3m").write_text(f">target\n{ONE}\n>row\n{ONE[:5]}\n")
    tasks["cut_off"] = task([ONE], {ONE: folder / "cut_off.a3m"})
    tasks["otherwise"] = task([ONE], msas, seed=8)
    return predict(OpenFold(), weights, tasks, folder / "run", PARAMETERS)


def test_predictions_have_the_common_form(ours: Taken) -> None:
    assert set(ours.outcomes) == {*SEQUENCES, "otherwise"}
    for name, chains in SEQUENCES.items():
        folder = ours.folder / "taken" / name
        model = read_model(folder / "model.cif")
        assert [chain.sequence for chain in model] == chains
        assert all(set(chain.atoms) == set(range(len(chain.sequence))) for chain in model)
        prediction = ours.prediction(name)
        assert "the best of 2" in prediction["notes"][0]
        assert 0 < prediction["ptm"] < 1
        assert (prediction["iptm"] is None) == (len(chains) == 1)
        assert len(read_json(folder / "pae.json")["pae"]) == sum(map(len, chains))


def test_a_seed_gives_the_same_whatever_came_before(ours: Taken) -> None:
    one, again, otherwise = (ours.folder / "taken" / name for name in ("one", "again", "otherwise"))
    for file in ("model.cif", "prediction.json", "pae.json"):
        assert (one / file).read_bytes() == (again / file).read_bytes()
    assert (one / "model.cif").read_bytes() != (otherwise / "model.cif").read_bytes()


def test_what_openfold_would_pass_over_is_the_members_failure(ours: Taken) -> None:
    assert ours.failures == {"cut_off": "error"}


# The command line seeds the network but not the features, which draw conformers and turn them.
COMMAND_LINE = """
import sys
from openfold3 import run_openfold
from openfold3.core.data.framework.single_datasets.inference import InferenceDataset
from pytorch_lightning import seed_everything
stock = InferenceDataset.__getitem__
def seeded(self, index):
    seed_everything(7)
    return stock(self, index)
InferenceDataset.__getitem__ = seeded
run_openfold.cli(sys.argv[1:])
"""


def test_they_are_what_its_own_command_line_gives(
    ours: Taken, weights: Path, msas: Mapping[str, Path], tmp_path: Path
) -> None:
    folders = {}
    for number, (sequence, msa) in enumerate(msas.items()):
        folder = folders[sequence] = tmp_path / f"chain{number}"
        folder.mkdir()
        (folder / "uniref90_hits.a3m").write_text(msa.read_text())
        records = msa.read_text().split(">")[1:]
        (folder / "uniprot_hits.a3m").write_text(
            "".join(f">{record}" for record in [records[0], *(each for each in records if each.startswith("tr|"))])
        )
    chains = [
        {"molecule_type": "protein", "chain_ids": name, "sequence": each, "main_msa_file_paths": str(folders[each])}
        for name, each in zip("ABC", SEQUENCES["trimer"], strict=True)
    ]
    (tmp_path / "query.json").write_text(json.dumps({"queries": {"trimer": {"chains": chains}}}))
    network = json.loads((weights / "config.json").read_text())
    network["architecture"]["shared"] |= {
        "num_recycles": PARAMETERS["recycles"],
        "diffusion": {"no_full_rollout_steps": PARAMETERS["sampling_steps"]},
    }
    # The command line asks for Triton's kernels, on a CPU too.
    network["settings"] = {"memory": {"eval": {"use_triton_triangle_kernels": False}}}
    runner = {
        "experiment_settings": {"seeds": [7]},
        "model_update": {"presets": ["predict"], "custom": network},
        "pl_trainer_args": {"accelerator": "cpu"},
        "data_module_args": {"num_workers": 0},
    }
    # JSON is YAML.
    (tmp_path / "runner.yml").write_text(json.dumps(runner))
    options = {
        "query-json": tmp_path / "query.json",
        "inference-ckpt-path": next(weights.glob("*.pt")),
        "runner-yaml": tmp_path / "runner.yml",
        "num-diffusion-samples": PARAMETERS["diffusion_samples"],
        "use-msa-server": False,
        "use-templates": False,
        "output-dir": tmp_path / "theirs",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    variables = os.environ | {"OPENFOLD_CACHE": str(tmp_path / "cache")}
    subprocess.run([PYTHON, "-c", COMMAND_LINE, "predict", *flags], check=True, cwd=tmp_path, env=variables)
    found = ours.arrays("trimer")
    theirs = tmp_path / "theirs" / "trimer" / "seed_7"
    samples = [f"trimer_seed_7_sample_{number}" for number in (1, 2)]
    scores = [read_json(theirs / f"{sample}_confidences_aggregated.json") for sample in samples]
    best = int(np.argmax([score["sample_ranking_score"] for score in scores]))
    assert found["sample"] == best + 1
    for name in ("ptm", "iptm"):
        assert found[name] == pytest.approx(scores[best][name], abs=1e-4)
    full = read_json(theirs / f"{samples[best]}_confidences.json")
    np.testing.assert_allclose(found["plddt"], full["plddt"], atol=1e-3)
    np.testing.assert_allclose(found["pae"], full["pae"], atol=1e-3)
    structure = gemmi.read_structure(str(theirs / f"{samples[best]}_model.cif"))
    positions = [atom.atom.pos.tolist() for atom in structure[0].all()]
    np.testing.assert_allclose(found["positions"], positions, atol=2e-3)
    # The means of residues come from atoms in the target's order.
    assert [chain.name for chain in structure[0]] == ["A", "B", "C"]


# A driver whose network has memory for so many rows of the MSA, by member, and for none without the settings for little
# memory; for `plenty` only with the usual ones.
SHORT_OF_MEMORY = """
import sys
sys.path.insert(0, {folder!r})
import openfold, torch
class Short(openfold.OpenFold):
    def load(self, settings):
        super().load(settings)
        network = self.module.model
        stock = network.run_trunk
        def run_trunk(batch, **options):
            low = network.settings.clear_cache_between_steps and network.aux_heads.per_sample_token_cutoff == 0
            if batch["msa"].shape[-3] > self.rows or low == (self.member == "plenty"):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return stock(batch, **options)
        network.run_trunk = run_trunk
    def predict(self, tasks, ease):
        self.member = tasks[0]["id"]
        self.rows = {rows!r}[self.member]
        super().predict(tasks, ease)
openfold.serve(Short())
"""


def test_want_of_memory_is_answered_with_thrift_and_then_with_fewer_rows(
    ours: Taken, weights: Path, msas: Mapping[str, Path], tmp_path: Path
) -> None:
    rows = {"thrift": ROWS + 2, "fewer": 128, "too_few": 100, "plenty": ROWS + 2}
    driver = tmp_path / "short.py"
    driver.write_text(SHORT_OF_MEMORY.format(folder=str(DRIVERS), rows=rows))
    ends = predict(OpenFold(), weights, {name: task([ONE], msas) for name in rows}, tmp_path, PARAMETERS, driver=driver)
    assert ends.failures == {"too_few": "out_of_memory"}
    assert "at most 128 rows" in " ".join(ends.prediction("fewer")["notes"])
    expected = ours.arrays("one")
    for member in ("thrift", "plenty"):
        assert ends.prediction(member)["notes"] == ours.prediction("one")["notes"]
        for name, tolerance in (("positions", 2e-3), ("plddt", 1e-3), ("pae", 1e-3), ("ptm", 1e-4)):
            np.testing.assert_allclose(ends.arrays(member)[name], expected[name], atol=tolerance)


FEATURES = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import openfold
driver = openfold.OpenFold()
driver.load(json.loads(sys.argv[2]))
for number, task in enumerate(json.loads(sys.argv[3])):
    batch = driver._features(task, Path(sys.argv[4]) / str(number), 64)
    letters = "ARNDCQEGHILKMFPSTWYVX"
    rows = batch["msa"][0].argmax(-1).tolist()
    print(json.dumps(["".join(letters[each] if each < 21 else "-" for each in row) for row in rows]))
    print(json.dumps([int(batch["num_paired_seqs"]), batch["template_restype"].shape[1]]))
"""


def test_rows_of_one_species_are_paired(weights: Path, msas: Mapping[str, Path], tmp_path: Path) -> None:
    aligned = {
        sequence: [
            "".join(filter(lambda letter: not letter.islower(), row)) for row in path.read_text().split("\n")[1::2]
        ]
        for sequence, path in msas.items()
    }
    settings = {"weights": str(weights), "parameters": PARAMETERS, "cache": str(tmp_path / "cache")}
    (tmp_path / "own.a3m").write_text(f">target\n{ONE}\n>tr|A0A1|A0A1_YEAST\n{'W' * len(ONE)}\n>x\n{'C' * len(ONE)}\n")
    of_chains = [[(chain, msas[chain]) for chain in chains] for chains in ([ONE, OTHER, ONE], [ONE, ONE])]
    of_chains.append([(ONE, msas[ONE]), (ONE, tmp_path / "own.a3m")])
    tasks = [{"chains": [{"sequence": chain, "msa": str(msa)} for chain, msa in chains]} for chains in of_chains]
    arguments = [str(DRIVERS), json.dumps(settings), json.dumps(tasks), str(tmp_path)]
    output = subprocess.run([PYTHON, "-c", FEATURES, *arguments], check=True, capture_output=True, text=True).stdout
    hetero, facts, homo, facts_of_homo, two_msas, facts_of_two = map(json.loads, output.splitlines()[-6:])
    # The target counts as one.
    assert facts == [3, 1]
    assert facts_of_homo == [1, 1]
    assert len(hetero) == 64
    assert hetero[0] == ONE + OTHER + ONE
    partner = {species: aligned[OTHER][number] for number, species in SPECIES[OTHER].items()}
    assert set(hetero[1:3]) == {
        aligned[ONE][number] + partner[species] + aligned[ONE][number]
        for number, species in SPECIES[ONE].items()
        if species in partner
    }
    # OpenFold3 has the target in the unpaired rows as well.
    assert homo[2] == aligned[ONE][1] * 2
    # Copies with an MSA each are paired as different chains are.
    assert facts_of_two == [2, 1]
    assert two_msas[1] == aligned[ONE][8] + "W" * len(ONE)
    assert two_msas[3:5] == [aligned[ONE][1] + "C" * len(ONE), aligned[ONE][2] + "-" * len(ONE)]


def test_a_run_from_the_sheet_to_the_report(weights: Path, tmp_path: Path) -> None:
    targets = {name: SEQUENCES[name] for name in ("one", "trimer")}
    parameters = PARAMETERS | {"recycles": 0}
    found = run_sheet_to_report(tmp_path, OpenFold(), targets, files_of(weights), parameters=parameters)
    assert (found["one"]["iptm"] is None, found["trimer"]["iptm"] is None) == (True, False)
