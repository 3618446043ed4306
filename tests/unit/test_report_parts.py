"""What the report's data hold: alignments with several templates, aligned errors in few bytes."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from snakefold.report.alignment import read_alignments
from snakefold.report.pae import BINS, pae_picture


def test_templates_of_one_chain_become_one_alignment(tmp_path: Path) -> None:
    path = tmp_path / "alignment.fasta"
    path.write_text(">target A\nMK--TAY\n>1abc A\nMRGGTA-\n>target A\nMKTA-Y\n>2xyz B\n--TAWY\n")
    (alignment,) = read_alignments(path, ["MKTAY"], [0, 0])
    assert (alignment.chain, list(alignment.rows)) == (
        0,
        [["target A", "MK--TA-Y"], ["1abc A", "MRGGTA--"], ["2xyz B", "----TAWY"]],
    )


def test_blocks_go_to_their_chains_even_if_chains_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "alignment.fasta"
    path.write_text("".join(f">target {name}\nMKT\n>1abc {name}\nMKT\n" for name in "AB"))
    first, second = read_alignments(path, ["MKT", "MKT"], [0, 1])
    assert [each.chain for each in (first, second)] == [0, 1]
    assert second.rows[1] == ["1abc B", "MKT"]
    assert [each.chain for each in read_alignments(path, ["MKT", "MKT"], [])] == [0, 1]
    assert len(read_alignments(path, ["MKT", "MKT"], [0, 0])) == 1


def test_no_file_is_no_alignment(tmp_path: Path) -> None:
    assert read_alignments(tmp_path / "alignment.fasta", ["MKT"], [0]) == []


@pytest.mark.parametrize("length", [1, 7, BINS, BINS + 1, 2 * BINS + 3])
def test_aligned_errors_keep_their_values_in_few_bytes(tmp_path: Path, length: int) -> None:
    index = np.arange(length)
    matrix = np.minimum(31.0, np.abs(index[:, None] - index[None, :]) * 0.05 + (index[:, None] < length / 2) * 10.0)
    path = tmp_path / "pae.json"
    path.write_text(json.dumps([{"predicted_aligned_error": matrix.tolist(), "max_predicted_aligned_error": 31.75}]))
    picture = pae_picture(path)
    assert (picture["length"], picture["bins"], picture["max"]) == (length, min(length, BINS), 31.75)
    values = np.frombuffer(base64.b64decode(picture["values"]), dtype=np.uint8).reshape(picture["bins"], -1)
    shown = values * (31.75 / 255)
    rows = index * picture["bins"] // length
    assert np.abs(shown[np.ix_(rows, rows)] - matrix).mean() < 0.3


@pytest.mark.parametrize("matrix", [[[1.0, 2.0]], [], "none"])
def test_what_is_no_matrix_is_refused(tmp_path: Path, matrix: object) -> None:
    path = tmp_path / "pae.json"
    path.write_text(json.dumps([{"predicted_aligned_error": matrix}]))
    with pytest.raises((ValueError, TypeError)):
        pae_picture(path)
