"""RoseTTAFold2's own code through driver, supervisor, store, relaxation, scores and report. Its weights are random.

`rosettafold.txt` beside this has what the tests compare with, and no prediction needs: dgl.
"""

import json
import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.rosettafold import RoseTTAFold
from tests.engines.sheet_to_report import files_of, run_sheet_to_report
from tests.engines.taken import Taken, predict

ONE = "MKTAYIAHQRQISFV"
OTHER = "GSHMRYFYTSX"
TARGETS = {"one": [ONE], "again": [ONE], "tails": [ONE], "trimer": [ONE, OTHER, ONE]}
PARAMETERS = {"recycles": 2, "seeds": 1, "max_msa": 4, "max_extra_msa": 12, "pair": False, "neighbours": 1536}
# More than may be used.
ROWS = 30
SEED = 7
DRIVERS = Path(__file__).parents[2] / "snakefold" / "engines" / "drivers"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    maker = Path(__file__).with_name("tiny_rosettafold.py")
    subprocess.run([os.environ["SNAKEFOLD_PYTHON_ROSETTAFOLD"], str(maker), str(folder)], check=True)
    return folder / "weights"


@pytest.fixture(scope="module")
def dgl() -> None:
    """Leaves out what compares with dgl where the engine's Python has none."""
    program = "import importlib.util, sys; sys.exit(importlib.util.find_spec('dgl') is None)"
    if subprocess.run([os.environ["SNAKEFOLD_PYTHON_ROSETTAFOLD"], "-c", program], check=False).returncode:
        pytest.skip("no dgl in the engine's Python (tests/engines/rosettafold.txt)")


@pytest.fixture(scope="module")
def msas(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Relatives of both chains, with gaps and inserts."""
    draw = random.Random(0)
    paths = {}
    for sequence, number in ((ONE, ROWS), (OTHER, 2)):
        paths[sequence] = tmp_path_factory.mktemp("msa") / "msa.a3m"
        rows = ["".join(draw.choice((letter, letter, "-", "Aal", "K")) for letter in sequence) for _ in range(number)]
        # At an insertion behind the last residue RoseTTAFold2's parser fails.
        rows = [row.rstrip("al") for row in rows]
        paths[sequence].write_text("".join(f">{number}\n{row}\n" for number, row in enumerate([sequence, *rows])))
    return paths


def with_tails(msa: Path, folder: Path) -> Path:
    """The same MSA with insertions behind the last residue, and rows in two lines."""
    records = msa.read_text().split(">")[1:]
    path = folder / "tails.a3m"
    path.write_text(">" + ">".join([records[0], *(f"{each[:-5]}\n{each[-5:-1]}ggk\n" for each in records[1:])]))
    return path


def of_targets(
    weights: Path,
    msas: Mapping[str, Path],
    folder: Path,
    names: list[str],
    *,
    driver: Path | None = None,
    **changed: Any,
) -> Taken:
    folder.mkdir(exist_ok=True)
    tasks = {}
    for name in names:
        given = {ONE: with_tails(msas[ONE], folder)} if name == "tails" else msas
        chains = tuple(ChainInputs(sequence=chain, msa=given.get(chain)) for chain in TARGETS[name])
        tasks[name] = FoldTask(chains=chains, seed=SEED)
    return predict(RoseTTAFold(), weights, tasks, folder / "run", PARAMETERS | changed, driver=driver)


@pytest.fixture(scope="module")
def ours(weights: Path, msas: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return of_targets(weights, msas, tmp_path_factory.mktemp("ours"), list(TARGETS))


def compare_operations(other: str, folder: Path) -> None:
    script = Path(__file__).with_name("graph_operations.py")
    subprocess.run([os.environ["SNAKEFOLD_PYTHON_ROSETTAFOLD"], str(script), other, str(folder)], check=True)


def test_operations_on_graphs_give_what_whole_matrices_give(tmp_path: Path) -> None:
    compare_operations("dense", tmp_path)


@pytest.mark.usefixtures("dgl")
def test_operations_on_graphs_give_what_dgl_gives(tmp_path: Path) -> None:
    compare_operations("dgl", tmp_path)


# The driver, which takes graphs from dgl itself.
WITH_DGL = """
import os, sys
sys.path.insert(0, {drivers!r})
os.environ.update(DGLBACKEND="pytorch", DGLDEFAULTDIR={folder!r})
import dgl, driver_protocol, graphs, rosettafold
graphs.install = lambda: None
driver_protocol.serve(rosettafold.RoseTTAFold())
"""


@pytest.mark.usefixtures("dgl")
def test_the_network_gives_what_it_gives_with_dgl(
    ours: Taken, weights: Path, msas: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "driver.py").write_text(WITH_DGL.format(drivers=str(DRIVERS), folder=str(tmp_path)))
    with_dgl = of_targets(weights, msas, tmp_path, ["one", "trimer"], driver=tmp_path / "driver.py")
    for name in ("one", "trimer"):
        for values in ("positions", "plddt", "pae"):
            np.testing.assert_allclose(ours.arrays(name)[values], with_dgl.arrays(name)[values], atol=2e-4)


# predict.py as its authors wrote it, but for numbers of 16 bits and the measuring of a GPU's memory, which a CPU lacks,
# and, where there is no dgl, with our graphs.
STOCK = """
import contextlib, json, sys
try:
    import dgl
except ModuleNotFoundError:
    sys.path.append(sys.argv.pop())
    import graphs
    graphs.install()
import torch
torch.cuda.nvtx.range = lambda *_: contextlib.nullcontext()
torch.Tensor.half = torch.Tensor.float
torch.nn.Module.half = lambda self: self
torch.cuda.reset_peak_memory_stats = lambda: None
torch.cuda.max_memory_allocated = lambda: 0
read = torch.load
torch.load = lambda path, **options: read(path, weights_only=False, **options)
import numpy as np, predict
weights, folder, targets = sys.argv[1:4]
predict.MODEL_PARAM.update(json.load(open(f"{weights}/config.json")))
predictor = predict.Predictor(f"{weights}/RF2_jan24.pt", torch.device("cpu"))
for name, paths in json.loads(targets).items():
    np.random.seed(7)
    torch.manual_seed(7)
    predictor.predict(paths, f"{folder}/{name}", n_recycles=2, topk=1536, nseqs=4, nseqs_full=12)
"""


def test_it_is_what_the_authors_predict_py_gives(
    ours: Taken, weights: Path, msas: Mapping[str, Path], tmp_path: Path
) -> None:
    targets = {name: [str(msas[chain]) for chain in TARGETS[name]] for name in ("one", "trimer")}
    python = os.environ["SNAKEFOLD_PYTHON_ROSETTAFOLD"]
    environment = {**os.environ, "DGLBACKEND": "pytorch", "DGLDEFAULTDIR": str(tmp_path / "dgl")}
    arguments = [python, "-c", STOCK, str(weights), str(tmp_path), json.dumps(targets), str(DRIVERS)]
    subprocess.run(arguments, check=True, env=environment)
    for name in targets:
        found = ours.arrays(name)
        with np.load(tmp_path / f"{name}_00.npz") as content:
            # It writes them in 16 bits.
            np.testing.assert_allclose(found["plddt"], content["lddt"] * 100.0, atol=0.06)
            np.testing.assert_allclose(found["pae"], content["pae"], atol=0.02)
        model = gemmi.read_structure(str(tmp_path / f"{name}_00_pred.pdb"))[0]
        residues = [residue for chain in model for residue in chain]
        assert len(model) == len(TARGETS[name]) and len(residues) == len(found["plddt"])
        for place, residue in enumerate(residues):
            atoms = {atom.name: atom.pos.tolist() for atom in residue if not atom.is_hydrogen()}
            names = [each for each in found["names"][place] if each]
            assert names == list(atoms)
            np.testing.assert_allclose(found["positions"][place][: len(names)], list(atoms.values()), atol=0.005)
        assert found["positions"].std() > 1 and np.ptp(found["plddt"]) > 1 and np.ptp(found["pae"]) > 1


def test_a_seed_gives_the_same_whatever_came_before_and_the_best_seed_is_kept(
    ours: Taken, weights: Path, msas: Mapping[str, Path], tmp_path: Path
) -> None:
    for name, values in ours.arrays("one").items():
        np.testing.assert_array_equal(values, ours.arrays("again")[name])
        np.testing.assert_array_equal(values, ours.arrays("tails")[name])
    assert ours.prediction("one")["notes"] == []
    several = of_targets(weights, msas, tmp_path, ["one"], seeds=3, recycles=0)
    best = several.arrays("one")
    assert best["candidates"] == 3 and SEED <= best["seed"] < SEED + 3
    assert several.prediction("one")["notes"] == [f"Seed {best['seed']}, the best of 3 predictions."]


def test_a_chain_without_an_msa_goes_in_with_its_sequence(weights: Path, tmp_path: Path) -> None:
    found = of_targets(weights, {}, tmp_path, ["trimer"], recycles=0).arrays("trimer")
    assert found["positions"].shape == (2 * len(ONE) + len(OTHER), 14, 3)


# A driver whose network has no memory for more rows than `rows`.
SHORT_OF_MEMORY = """
import sys
sys.path.insert(0, {drivers!r})
import driver_protocol, rosettafold
class Short(rosettafold.RoseTTAFold):
    def load(self, settings):
        super().load(settings)
        stock = self.model.forward
        def forward(seeds, extra, sequence, **options):
            if extra.shape[1] > {rows} or not options["low_vram"]:
                raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return stock(seeds, extra, sequence, **options)
        self.model.forward = forward
driver_protocol.serve(Short())
"""


@pytest.mark.parametrize(("rows", "note"), [(12, None), (3, "at most 1 and 3 further rows"), (0, "out_of_memory")])
def test_want_of_memory_is_answered_with_smaller_pieces_and_then_fewer_rows(
    rows: int, note: str | None, weights: Path, msas: Mapping[str, Path], tmp_path: Path, ours: Taken
) -> None:
    (tmp_path / "short.py").write_text(SHORT_OF_MEMORY.format(drivers=str(DRIVERS), rows=rows))
    ends = of_targets(weights, msas, tmp_path, ["one"], driver=tmp_path / "short.py")
    if rows == 0:
        assert ends.failures == {"one": note}
    elif note is None:
        assert ends.prediction("one")["notes"] == []
        np.testing.assert_allclose(ends.arrays("one")["positions"], ours.arrays("one")["positions"], atol=1e-2)
    else:
        assert note in ends.prediction("one")["notes"][0]


def test_a_run_from_the_sheet_to_the_report(weights: Path, tmp_path: Path) -> None:
    targets = {name: TARGETS[name] for name in ("one", "trimer")}
    files = files_of(weights, "weights")
    found = run_sheet_to_report(tmp_path, RoseTTAFold(), targets, files, parameters={"recycles": 0}, gives=["pae"])
    for scores in found.values():
        assert scores["software"]["rosettafold2"].startswith("0+g278f4eaad5d8")


PAIRED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import rosettafold
chains = json.loads(sys.argv[2])
print(json.dumps(rosettafold._paired([rosettafold._rows(chain) for chain in chains])))
"""


def test_rows_of_one_species_are_paired_by_the_authors_recipe(
    weights: Path, ours: Taken, msas: Mapping[str, Path], tmp_path: Path
) -> None:
    first = [
        ("a TaxID=11 RepID=x", "MKTAY-AHQRQISFA"),
        ("b n=2 TaxID=11", "MKTAYIAHQRQISFAgg"),
        ("c TaxID=12", "M" * 15),
    ]
    second = [("d", "GSHMRYFYTSG"), ("e TaxID=13", "GSHMaRYFYTSA"), ("f TaxID=11", "GSH--YFYTSA")]
    chains = []
    paired = {}
    for sequence, rows in ((ONE, first), (OTHER, second)):
        paired[sequence] = tmp_path / f"{len(sequence)}.a3m"
        paired[sequence].write_text(f">q\n{sequence}\n" + "".join(f">{name}\n{row}\n" for name, row in rows))
        chains.append({"sequence": sequence, "msa": str(paired[sequence])})
    arguments = [os.environ["SNAKEFOLD_PYTHON_ROSETTAFOLD"], "-c", PAIRED, str(DRIVERS), json.dumps(chains)]
    (text,) = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    assert text.splitlines() == [
        ">query",
        f"{ONE}/{OTHER}",
        ">11",
        "MKTAYIAHQRQISFA/GSH--YFYTSA",
        ">12",
        f"{'M' * 15}/{'-' * 11}",
        ">13",
        f"{'-' * 15}/GSHMaRYFYTSA",
    ]
    # Nothing there to pair: as without.
    alone = of_targets(weights, msas, tmp_path / "alone", ["trimer"], pair=True)
    np.testing.assert_array_equal(alone.arrays("trimer")["positions"], ours.arrays("trimer")["positions"])
    both = of_targets(weights, paired, tmp_path / "both", ["trimer"], pair=True)
    assert both.arrays("trimer")["positions"].shape == (41, 14, 3)
