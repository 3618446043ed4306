"""OmegaFold's arrays become a prediction in the common form, or the member's failure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakefold.config import load_config
from snakefold.engines import engines_for
from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.omegafold import OmegaFold
from snakefold.errors import MemberError
from snakefold.files import read_json
from snakefold.structures.io import read_model

TASK = FoldTask(chains=(ChainInputs(sequence="AXG"),))
NAMES = {"A": "N CA C O CB", "X": "", "G": "N CA C O"}


def arrays() -> dict[str, Any]:
    """What the driver writes of A, X and G: fourteen places a residue, of which X fills none."""
    names = [NAMES[letter].split() for letter in "AXG"]
    return {
        "positions": np.arange(126, dtype=np.float32).reshape(3, 14, 3),
        "names": np.array([each + [""] * (14 - len(each)) for each in names]),
        "plddt": np.array([90.5, 12.0, 40.25], dtype=np.float32),
    }


def take_in(folder: Path, **changed: Any) -> dict[str, Any]:
    (folder / "made").mkdir()
    kept = {name: value for name, value in (arrays() | changed).items() if value is not None}
    np.savez_compressed(folder / "made/prediction.npz", **kept)
    OmegaFold().take_in(TASK, folder / "made", folder)
    return read_json(folder / "prediction.json")


def test_atoms_bear_their_names_and_x_is_not_modelled(tmp_path: Path) -> None:
    prediction = take_in(tmp_path)
    (chain,) = read_model(tmp_path / "model.cif")
    assert chain.sequence == "AXG"
    assert {place: " ".join(atoms) for place, atoms in chain.atoms.items()} == {0: "N CA C O CB", 2: "N CA C O"}
    assert chain.atoms[2]["CA"].tolist() == [87, 88, 89]
    assert prediction["unmodelled"] == [[[1, 2]]]
    assert prediction["confidence"] == [[90.5, 12.0, 40.25]]
    assert prediction["mean_confidence"] == 47.58
    assert (prediction["ptm"], prediction["iptm"], prediction["notes"]) == (None, None, [])
    assert not (tmp_path / "pae.json").exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"plddt": None}, "cannot be read: it has no plddt"),
        ({"positions": arrays()["positions"][:2]}, r"positions \(2, 14, 3\), .* not of the target's 3 residues"),
        ({"positions": arrays()["positions"][:, :5]}, r"positions \(3, 5, 3\)"),
        ({"names": arrays()["names"][:2]}, r"names \(2, 14\)"),
        ({"plddt": np.zeros(4, np.float32)}, r"pLDDT \(4,\)"),
        ({"names": np.full((3, 14), "QQ")}, "a name that no amino acid has: QQ"),
        ({"plddt": np.array([1, np.nan, 1], np.float32)}, "no finite numbers"),
        ({"positions": np.full((3, 14, 3), np.inf, np.float32)}, "no finite numbers"),
        ({"names": np.full((3, 14), "")}, "no finite numbers"),
    ],
)
def test_what_is_no_prediction_is_the_members_failure(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(MemberError, match=reason) as caught:
        take_in(tmp_path, **changed)
    assert caught.value.kind == "bad_output"
    assert not (tmp_path / "prediction.json").exists()


def damage(content: bytes) -> bytes:
    place = content.index(b"positions.npy") + 200
    return content[:place] + bytes(64) + content[place + 64 :]


@pytest.mark.parametrize("spoil", [lambda content: content[:-40], lambda content: content[:30], lambda _: b"", damage])
def test_a_damaged_file_is_the_members_failure(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    path = tmp_path / "made/prediction.npz"
    np.savez_compressed(path, **arrays())
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(MemberError, match=r"prediction\.npz cannot be read"):
        OmegaFold().take_in(TASK, tmp_path / "made", tmp_path)


def test_it_takes_single_chains_of_the_length_that_its_authors_name() -> None:
    limits = engines_for(load_config({"samples": "s.tsv"}))["omegafold"].limits
    assert limits.max_chains == 1
    assert 4000 <= limits.max_length <= 4096
