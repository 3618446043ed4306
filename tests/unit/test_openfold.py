"""The arrays that OpenFold3's driver writes become a prediction in the common form, or the member's failure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.openfold import OpenFold
from snakefold.errors import MemberError
from snakefold.files import read_json
from snakefold.structures.io import read_model

TASK = FoldTask(chains=tuple(ChainInputs(sequence=sequence) for sequence in ("AG", "X")))
ATOMS = ["N CA C O CB", "N CA C O", "N CA C O CB CG"]

Arrays = dict[str, Any]


def arrays(**changes: Any) -> Arrays:
    """As the driver writes them; x counts the atoms."""
    residues = [number for number, names in enumerate(ATOMS) for _ in names.split()]
    count = len(residues)
    return {
        "residues": np.array(residues, dtype=np.int32),
        "names": np.array(" ".join(ATOMS).split()),
        "positions": np.stack([np.arange(count), np.full(count, 1.5), np.full(count, -2.0)], axis=1).astype(np.float32),
        "plddt": np.array([90, 90, 90, 90, 80, 70, 70, 70, 70, *[25.5] * 6], dtype=np.float32),
        "pae": np.arange(9, dtype=np.float32).reshape(3, 3),
        "ptm": np.float32(0.61234),
        "iptm": np.float32(0.5),
        "sample": np.int32(3),
        "samples": np.int32(5),
    } | changes


def output(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    np.savez_compressed(folder / "prediction.npz", **arrays(**changes))
    return folder


def test_atoms_become_chains_and_means_of_residues(tmp_path: Path) -> None:
    outcome = OpenFold().take_in(TASK, output(tmp_path / "made"), tmp_path)
    assert outcome.facts == {"mean_confidence": 61.17, "iptm": 0.5}
    chains = read_model(tmp_path / "model.cif")
    assert [chain.sequence for chain in chains] == ["AG", "X"]
    assert [set(atoms) for chain in chains for atoms in chain.atoms.values()] == [set(names.split()) for names in ATOMS]
    assert chains[1].atoms[0]["CA"].tolist() == [10, 1.5, -2]
    prediction = read_json(tmp_path / "prediction.json")
    assert prediction["confidence"] == [[88.0, 70.0], [25.5]]
    assert (prediction["ptm"], prediction["iptm"], prediction["unmodelled"]) == (0.6123, 0.5, [[], []])
    assert prediction["notes"] == ["Sample 3, the best of 5."]
    assert read_json(tmp_path / "pae.json")["pae"][2] == [6, 7, 8]


def test_one_chain_has_no_iptm_and_a_shortened_msa_is_noted(tmp_path: Path) -> None:
    task = FoldTask(chains=(ChainInputs(sequence="AGX"),))
    made = output(tmp_path / "made", samples=np.int32(1), rows=np.int32(128))
    OpenFold().take_in(task, made, tmp_path)
    prediction = read_json(tmp_path / "prediction.json")
    assert prediction["iptm"] is None
    assert prediction["notes"] == ["For want of GPU memory, at most 128 rows of the MSA were read."]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: found.pop("pae"), "has no pae"),
        (lambda found: found.update(plddt=found["plddt"][:-1]), "not all of 15 atoms"),
        (lambda found: found.update(positions=found["positions"][:, :2]), "not all of 15 atoms"),
        (lambda found: found["residues"].__setitem__(slice(9, None), 3), "not those of 3 residues"),
        (lambda found: found["residues"].__setitem__(0, -1), "not those of 3 residues"),
        (lambda found: found["positions"].__setitem__((0, 0), np.nan), "no finite numbers"),
        (lambda found: found.update(pae=np.zeros((2, 2))), "no 3 x 3 numbers"),
    ],
)
def test_what_is_no_prediction_is_the_members_failure(
    change: Callable[[Arrays], object], reason: str, tmp_path: Path
) -> None:
    found = arrays()
    change(found)
    np.savez_compressed(tmp_path / "prediction.npz", **found)
    with pytest.raises(MemberError, match=reason) as caught:
        OpenFold().take_in(TASK, tmp_path, tmp_path)
    assert caught.value.kind == "bad_output"


@pytest.mark.parametrize("kept", [None, 0, 200])
def test_what_is_missing_or_cut_off_is_the_members_failure(kept: int | None, tmp_path: Path) -> None:
    made = output(tmp_path / "made")
    content = (made / "prediction.npz").read_bytes()
    (made / "prediction.npz").unlink()
    if kept is not None:
        (made / "prediction.npz").write_bytes(content[:kept])
    with pytest.raises(MemberError, match="cannot be read"):
        OpenFold().take_in(TASK, made, tmp_path)
