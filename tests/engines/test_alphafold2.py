"""AlphaFold 2's own code through driver, supervisor, store, relaxation, scores and report. Its weights are random."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakefold.engines.alphafold2 import AlphaFold2
from snakefold.engines.base import ChainInputs, FoldTask
from tests.engines.sheet_to_report import run_sheet_to_report
from tests.engines.taken import Arrays, arrays_of, predict

DRIVERS = Path(__file__).parents[2] / "snakefold" / "engines" / "drivers"
LIBRARY = Path(__file__).parents[2] / "data" / "mini" / "templates"
FIRST, SECOND = "MKTAYIAKQRQISFVKSHFSRQ", "GSHMRYFYTSVDADACDEFX"
A3M = {
    FIRST: [
        ("sp|P00001|AAAA_HUMAN/1-22", "MKTAYLAKQRQISFVKSHFSKQ"),
        ("sp|P00002|AAAA_MOUSE/3-22", "--TAYVAKQKQISFVrrKSHFTRQ"),
        ("UniRef90_X/1-20", "MKSAYIARQRQLSFVKSHYS--"),
    ],
    SECOND: [
        ("sp|P00003|BBBB_MOUSE/1-20", "GSHMKYFYTSIDADACDEYX"),
        ("MGYP1/1-18", "GAHMRYWYTSVDpADACDE--"),
    ],
}
ENTRY, CHAIN = "1afs", "A"
# HIV-1 protease, of which the miniature library has a structure.
KNOWN = "PQITLWKRPLVTIKIGGQLKEALLDTGADDTVLEEMNLPGRWKPKMIGGIGGFIKVRQYDQILIEICGHKAIGTVLVGPTPVNIIGRNLLTQIGCTLNF"
# Residues of the target and of the template's chain.
PAIRS = [(place, 30 + place + (place > 9)) for place in range(2, len(FIRST) - 1)]
TARGETS = {"one": [FIRST], "other": [SECOND], "pair": [FIRST, SECOND], "mixed": [SECOND[:10], FIRST, SECOND[:10]]}
PARAMETERS = {
    "models": [3],
    "seeds": 1,
    "recycles": 1,
    "max_msa_clusters": 8,
    "max_extra_msa": 8,
    "bucket": 32,
    "templates": False,
    "kernels": "fused",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    maker = Path(__file__).with_name("random_alphafold2.py")
    subprocess.run([os.environ["SNAKEFOLD_PYTHON_ALPHAFOLD2"], str(maker), str(folder), str(DRIVERS)], check=True)
    return folder


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What has been compiled, for all tests: drivers find it by the environment."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNAKEFOLD_JAX_CACHE", str(folder))
        yield folder


def msa_of(sequence: str) -> str:
    rows = [("query", sequence), *A3M.get(sequence, [])]
    return "".join(f">{name}\n{row}\n" for name, row in rows)


def templates_of_first(folder: Path) -> Path:
    """What a template search found for FIRST; the first hit has no atom of the aligned residues."""
    found = folder / "templates"
    found.mkdir(exist_ok=True)
    shutil.copy(LIBRARY / f"{ENTRY}.cif.gz", found)
    hits = [
        {
            "entry": ENTRY,
            "chain": chain,
            "file": f"{ENTRY}.cif.gz",
            "pairs": [[*pair, 1.0] for pair in PAIRS],
            "evalue": 0,
        }
        for chain in ("none", CHAIN)
    ]
    (found / "hits.json").write_text(json.dumps({"hits": hits}))
    return found


def arrays(weights: Path, folder: Path, names: list[str], **changed: Any) -> dict[str, Arrays]:
    folder.mkdir()
    tasks = {}
    for name in names:
        chains = []
        for number, sequence in enumerate(TARGETS[name]):
            msa = folder / f"{name}{number}.a3m"
            msa.write_text(msa_of(sequence))
            found = templates_of_first(folder) if changed.get("templates") and sequence == FIRST else None
            chains.append(ChainInputs(sequence=sequence, msa=msa, templates=found))
        tasks[name] = FoldTask(chains=tuple(chains), seed=5)
    return arrays_of(predict(AlphaFold2(), weights, tasks, folder / "run", PARAMETERS | changed))


def compilations(compiled: Path) -> set[str]:
    """The networks that have been compiled."""
    return {path.name for path in compiled.iterdir() if path.name.startswith("jit_apply") and "atime" not in path.name}


def same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Equal to 0.05 A in positions, 0.05 in pLDDT, 0.03 A in aligned errors, 0.001 in pTM and ipTM.

    The package rounds what it gives, and the positions that it puts in again, to 16 bits: a distance close to the edge
    of its bin may then fall into the next, so a few pairs of residues (2 in 100 at most) may differ by more.
    """
    np.testing.assert_array_equal(found["exists"], expected["exists"])
    for name, tolerance in (("positions", 0.05), ("plddt", 0.05), ("ptm", 0.001), ("iptm", 0.001)):
        if name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=tolerance, rtol=0)
    assert (np.abs(found["pae"] - expected["pae"]) < 0.03).mean() >= 0.98


def test_one_compilation_serves_a_bucket_and_outlives_the_process(
    weights: Path, compiled: Path, tmp_path: Path
) -> None:
    both = arrays(weights, tmp_path / "both", ["one", "other"])
    assert len(compilations(compiled)) == 1
    for name in ("one", "other"):
        length = len(TARGETS[name][0])
        assert both[name]["positions"].shape == (length, 37, 3)
        assert both[name]["pae"].shape == (length, length)
        assert "iptm" not in both[name]
        assert both[name]["exists"].any(axis=1).tolist() == [letter != "X" for letter in TARGETS[name][0]]
    again = arrays(weights, tmp_path / "again", ["one"])
    assert len(compilations(compiled)) == 1
    for name, values in both["one"].items():
        np.testing.assert_array_equal(again["one"][name], values)


def test_padding_changes_nothing_against_the_packages_own_loop(weights: Path, compiled: Path, tmp_path: Path) -> None:
    ours = arrays(weights, tmp_path / "ours", ["one", "pair", "mixed"])
    assert len(compilations(compiled)) == 2
    templated = arrays(weights, tmp_path / "templated", ["one", "pair"], models=[1, 3], templates=True)
    # The second of the first chain's hits. Model 3 of one chain takes none.
    for name, values in templated.items():
        assert values["candidates"] == 2
        if name == "pair" or values["model"] == 1:
            assert values["templates"].tolist() == [[0, 1]]
    only = arrays(weights, tmp_path / "only", ["one", "pair"], models=[1], templates=True)
    ours |= {f"templated {name}": values for name, values in only.items()}
    python = os.environ["SNAKEFOLD_PYTHON_ALPHAFOLD2"]
    targets = {
        name: [[sequence, msa_of(sequence)] for sequence in TARGETS[name.split()[-1]]]
        for name in ("one", "pair", "mixed", "templated one", "templated pair")
    }
    # The network wants chains of one sequence together.
    targets["mixed"] = [targets["mixed"][number] for number in (0, 2, 1)]
    (tmp_path / "targets.json").write_text(json.dumps(targets))
    (tmp_path / "template.json").write_text(json.dumps([str(LIBRARY / f"{ENTRY}.cif.gz"), CHAIN, FIRST, dict(PAIRS)]))
    subprocess.run([python, "-c", STOCK, str(weights), str(tmp_path), str(compiled)], check=True)
    stock = {name: dict(np.load(tmp_path / f"{name}.npz")) for name in targets}
    places = np.r_[0:10, 20:42, 10:20]
    mixed = stock["mixed"]
    stock["mixed"] |= {name: mixed[name][places] for name in ("positions", "exists", "plddt")}
    stock["mixed"]["pae"] = mixed["pae"][places][:, places]
    for name in targets:
        assert ours[name]["positions"].std() > 0.5
        same(ours[name], stock[name])


STOCK = """
import gzip, json, re, sys
import jax, numpy as np
from alphafold.data import feature_processing, mmcif_parsing, parsers, pipeline, pipeline_multimer, templates
from alphafold.model import config, model
from alphafold.notebooks.notebook_utils import empty_placeholder_template_features
from colabfold.alphafold.models import get_model_haiku_params

weights, folder, cache = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", cache)
changes = json.load(open(f"{weights}/config.json"))
entry, chain, query, pairs = json.load(open(f"{folder}/template.json"))
# The package reads no file that leaves out which components are amino acids.
text = re.sub(r"^([A-Z]{3}) [.]$", r"\\1 'L-peptide linking'", gzip.open(entry, "rt").read(), flags=re.M)
parsed = mmcif_parsing.parse(file_id="x", mmcif_string=text).mmcif_object
template, _ = templates._extract_template_features(
    parsed, "x", {int(key): value for key, value in pairs.items()}, parsed.chain_to_seqres[chain], query, chain, "")
for name, chains in json.load(open(f"{folder}/targets.json")).items():
    multimer, templated = len(chains) > 1, name.startswith("templated")
    settings = config.model_config(
        "model_3_multimer_v3" if multimer else "model_1_ptm" if templated else "model_3_ptm")
    settings.update_from_flattened_dict(changes["multimer" if multimer else "monomer"])
    settings.model.num_recycle = 1
    if multimer:
        settings.model.embeddings_and_evoformer.num_msa = settings.model.embeddings_and_evoformer.num_extra_msa = 8
    else:
        settings.data.common.num_recycle = 1
        settings.data.eval.max_msa_clusters = settings.data.common.max_extra_msa = 8
    kind = "alphafold2_multimer_v3" if multimer else "alphafold2_ptm"
    runner = model.RunModel(settings, get_model_haiku_params(weights, kind, "1" if templated else "3"))
    by_chain = {}
    for number, (sequence, text) in enumerate(chains):
        msa = pipeline.make_msa_features([parsers.parse_a3m(text)])
        features = pipeline.make_sequence_features(sequence, "x", len(sequence)) | msa
        features |= {f"{key}_all_seq": value for key, value in msa.items() if key != "num_alignments"}
        features |= empty_placeholder_template_features(0, len(sequence))
        if templated and sequence == query:
            features |= {key: np.array([value]) for key, value in template.items()}
            features["template_sum_probs"] = np.ones((1, 1), np.float32)
        by_chain["ABC"[number]] = pipeline_multimer.convert_monomer_features(features, "ABC"[number])
    if multimer:
        features = feature_processing.pair_and_merge(pipeline_multimer.add_assembly_features(by_chain))
        features = pipeline_multimer.pad_msa(features, 16)
    else:
        features = runner.process_features(features, random_seed=5)
    result, _ = runner.predict(features, random_seed=5)
    np.savez(
        f"{folder}/{name}.npz",
        positions=result["structure_module"]["final_atom_positions"],
        exists=result["structure_module"]["final_atom_mask"] > 0,
        plddt=result["plddt"], pae=result["predicted_aligned_error"], ptm=result["ptm"],
        **({"iptm": result["iptm"]} if multimer else {}),
    )
"""


FEATURES = """
import sys
sys.path.insert(0, sys.argv[1])
import alphafold2, json, numpy as np
parameters, chains = json.loads(sys.argv[2])
network = alphafold2.MultimerNetwork(parameters, {}, 4)
assert network.crop == (2, 2) and network.passes == 2
own = alphafold2.MultimerNetwork(parameters | {"max_msa_clusters": None, "recycles": None}, {}, 1)
assert own.crop == (508, 8) and own.passes == 21
features = network.features(chains, 64, 0)
print(json.dumps({name: np.shape(values) for name, values in features.items()}))
letters = "ARNDCQEGHILKMFPSTWYVX-"
rows = features["msa"][features["msa_mask"][:, 0] > 0]
print(json.dumps(["".join(letters[each] for each in row[:42]) for row in rows]))
"""


@pytest.mark.parametrize("name", ["sp|P00002|AAAA_MOUSE/3-22", "UniRef90_P2/3-22 n=5 TaxID=39107 RepID=AAAA_MOUSE"])
def test_rows_of_one_species_are_paired_and_others_stand_alone(name: str, tmp_path: Path) -> None:
    chains = []
    for number, sequence in enumerate(TARGETS["pair"]):
        (tmp_path / f"{number}.a3m").write_text(msa_of(sequence).replace("sp|P00002|AAAA_MOUSE/3-22", name))
        chains.append({"sequence": sequence, "msa": str(tmp_path / f"{number}.a3m"), "templates": None})
    python = os.environ["SNAKEFOLD_PYTHON_ALPHAFOLD2"]
    arguments = [python, "-c", FEATURES, str(DRIVERS), json.dumps([PARAMETERS, chains])]
    lines = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.splitlines()
    shapes, rows = json.loads(lines[-2]), json.loads(lines[-1])
    assert shapes["msa"] == [8, 64] and shapes["aatype"] == [64] and shapes["template_aatype"] == [1, 64]
    gaps = "-" * len(FIRST), "-" * len(SECOND)
    assert rows[:2] == [FIRST + SECOND, "--TAYVAKQKQISFVKSHFTRQ" + "GSHMKYFYTSIDADACDEYX"]
    assert set(rows[2:]) == {
        A3M[FIRST][0][1] + gaps[1],
        A3M[FIRST][2][1] + gaps[1],
        gaps[0] + "GAHMRYWYTSVDADACDE--",
    }


@pytest.mark.usefixtures("compiled")
def test_a_run_from_the_sheet_to_the_report(weights: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "params.tar", "w") as tar:
        for path in sorted((weights / "params").iterdir()):
            tar.add(path, path.name)
    files = [
        {"path": "params", "urls": [(tmp_path / "params.tar").as_uri()], "unpack": "tar"},
        {"path": "config.json", "urls": [(weights / "config.json").as_uri()]},
    ]
    msas = {}
    for name, sequence in (("first", FIRST), ("second", SECOND), ("known", KNOWN)):
        msas[sequence] = tmp_path / f"{name}.a3m"
        msas[sequence].write_text(msa_of(sequence))
    targets = {"one": [FIRST], "known": [KNOWN], "pair": [FIRST, SECOND]}
    parameters = PARAMETERS | {"models": [1], "seeds": 2, "templates": True}
    found = run_sheet_to_report(tmp_path, AlphaFold2(), targets, files, parameters=parameters, msas=msas)
    for name, scores in found.items():
        assert (scores["iptm"] is None) == (len(targets[name]) == 1)
        assert any("the best of 2 predictions" in note for note in scores["notes"])
    # SECOND begins as the heavy chains of HLA do.
    named = {
        name: [(each["chain_index"], each["entry"], each["overlay"]) for each in scores["templates"]]
        for name, scores in found.items()
    }
    assert named == {"one": [], "known": [(0, "1hvr", "A")], "pair": [(1, "1bd2", "A"), (1, "3pwp", "B")]}
