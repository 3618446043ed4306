"""RoseTTAFold2's arrays become a prediction in the common form, or the member's failure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.rosettafold import RoseTTAFold
from snakefold.errors import MemberError
from snakefold.files import read_json
from snakefold.structures.io import read_model

TASK = FoldTask(chains=(ChainInputs(sequence="AG"), ChainInputs(sequence="X")))
NAMES = ("N CA C O CB", "N CA C O", "N CA C O CB")


def arrays() -> dict[str, Any]:
    """What the driver writes of two chains, one seed."""
    return {
        "positions": np.arange(126, dtype=np.float32).reshape(3, 14, 3),
        "names": np.array([each.split() + [""] * (14 - len(each.split())) for each in NAMES]),
        "plddt": np.array([90.0, 80.0, 40.0], dtype=np.float32),
        "pae": np.arange(9, dtype=np.float32).reshape(3, 3),
        "seed": np.int64(5),
        "candidates": np.int32(1),
    }


def take_in(folder: Path, **changed: Any) -> dict[str, Any]:
    (folder / "made").mkdir()
    kept = {name: value for name, value in (arrays() | changed).items() if value is not None}
    np.savez_compressed(folder / "made/prediction.npz", **kept)
    outcome = RoseTTAFold().take_in(TASK, folder / "made", folder)
    assert outcome.facts == {"mean_confidence": 70.0}
    return read_json(folder / "prediction.json")


def test_chains_are_told_apart_and_errors_keep_their_rows(tmp_path: Path) -> None:
    prediction = take_in(tmp_path)
    chains = read_model(tmp_path / "model.cif")
    assert [chain.sequence for chain in chains] == ["AG", "X"]
    assert list(chains[1].atoms[0]) == NAMES[2].split()
    assert prediction["confidence"] == [[90.0, 80.0], [40.0]]
    assert (prediction["ptm"], prediction["iptm"], prediction["notes"]) == (None, None, [])
    assert read_json(tmp_path / "pae.json")["pae"] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_the_best_of_several_and_a_smaller_msa_are_noted(tmp_path: Path) -> None:
    notes = take_in(tmp_path, candidates=np.int32(3), rows=np.array([64, 512]))["notes"]
    assert notes[0] == "Seed 5, the best of 3 predictions."
    assert "at most 64 and 512 further rows" in notes[1]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pae": None}, "cannot be read: it has no pae"),
        ({"pae": np.zeros((2, 3), np.float32)}, "no 3 x 3 numbers"),
        ({"pae": np.full((3, 3), np.nan, np.float32)}, "no 3 x 3 numbers"),
        ({"positions": np.full((3, 14, 3), np.nan, np.float32)}, "no finite numbers"),
        ({"plddt": np.zeros(2, np.float32)}, "not of the target's 3 residues"),
    ],
)
def test_what_is_no_prediction_is_the_members_failure(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(MemberError, match=reason) as caught:
        take_in(tmp_path, **changed)
    assert caught.value.kind == "bad_output"
