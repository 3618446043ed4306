import gzip
import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pyhmmer.easel import MSAFile

from snakefold.errors import MemberError
from snakefold.search.depth import coverage, effective_sequences
from snakefold.search.formats import Row, parse_alignment, read_text, to_a3m, to_matrix, to_stockholm, unique_rows

ROWS = [
    Row(name="query", aligned="MKVLA"),
    Row(name="a/3-9", aligned="-KVgghLA", description="with an insert"),
    Row(name="b/1-4", aligned="aMK--Ac"),
    Row(name="c", aligned="--V--"),
]


def test_stockholm_and_a3m_say_the_same() -> None:
    assert parse_alignment(to_stockholm(ROWS), "x.sto") == ROWS
    assert parse_alignment(to_a3m(ROWS), "x.a3m") == ROWS


def test_stockholm_is_read_by_easel_with_the_query_as_reference() -> None:
    with closing(MSAFile(io.BytesIO(to_stockholm(ROWS).encode()), format="stockholm")) as file:
        msa = file.read()
    assert msa is not None
    reference = msa.reference
    assert isinstance(reference, str)
    assert reference.count("x") == 5
    aligned = {str(name): str(row) for name, row in zip(msa.names, msa.alignment, strict=True)}
    columns = [i for i, mark in enumerate(reference) if mark == "x"]
    assert "".join(aligned["query"][i] for i in columns) == "MKVLA"
    assert "".join(aligned["a/3-9"][i] for i in columns) == "-KVLA"


def test_equal_names_stay_apart_in_stockholm() -> None:
    rows = [Row(name="query", aligned="MK"), Row(name="x", aligned="M-"), Row(name="x", aligned="-K")]
    assert [(row.name, row.aligned) for row in parse_alignment(to_stockholm(rows), "x")] == [
        ("query", "MK"),
        ("x", "M-"),
        ("x_2", "-K"),
    ]


def test_gaps_of_the_query_become_inserts() -> None:
    rows = parse_alignment(">q\nM-KV.\n>a\nMGK-W\n>b\n-GKV-\n", "x.fasta")
    assert [row.aligned for row in rows] == ["MKV", "MgK-w", "-gKV"]


def test_interleaved_stockholm_is_joined() -> None:
    text = "# STOCKHOLM 1.0\n\nq   MK.\na   mkw\n\nq   VL\na   -L\n#=GC RF xx\n//\n"
    assert [row.aligned for row in parse_alignment(text, "x")] == ["MKVL", "MKw-L"]


def test_dots_pad_inserts_in_a3m() -> None:
    rows = parse_alignment(">q\nMK..V\n>a\nMKghV\n", "x.a3m")
    assert [row.aligned for row in rows] == ["MKV", "MKghV"]


def test_colabfold_comments_and_nul_bytes_are_no_residues() -> None:
    assert [row.aligned for row in parse_alignment("#3\t1\n>101\nMKV\n>a\nM-V\n\0", "x")] == ["MKV", "M-V"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (">q\nMKV\n>a\nMK\n", "row 2 (a): 2 columns, but the first row has 3"),
        (">q\nMKV\n>a\nM1V\n", "row 2 (a): '1' is no residue or gap"),
        ("MKV\n", "neither A3M nor Stockholm"),
        ("", "neither A3M nor Stockholm"),
        ("# STOCKHOLM 1.0\nq MKV\n", "ends without '//'"),
        ("# STOCKHOLM 1.0\nq MKV junk\n//\n", "line 2: expected a name and an aligned sequence"),
        ("# STOCKHOLM 1.0\n//\n", "holds no sequences"),
        ("#x\nMKV\n>a\nMKV\n", "line 2: residues before the first '>' line"),
    ],
)
def test_faults_are_said_in_one_line_with_their_place(text: str, reason: str) -> None:
    with pytest.raises(MemberError) as caught:
        parse_alignment(text, "given.a3m")
    assert caught.value.kind == "bad_msa"
    assert reason in str(caught.value)
    assert "given.a3m" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [gzip.compress(b">q\nMKV\n" * 1000, mtime=0)[:-20], b"not packed", b""])
def test_damaged_gzip_is_a_bad_msa(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.a3m.gz"
    path.write_bytes(content)
    with pytest.raises(MemberError, match=r"x\.a3m\.gz"):
        parse_alignment(read_text(path), "x.a3m.gz")


def test_unique_rows_keep_the_first_of_equal_columns() -> None:
    rows = [
        Row(name="query", aligned="MKV"),
        Row(name="same as the query", aligned="MKaaV"),
        Row(name="first", aligned="M-V"),
        Row(name="second", aligned="M-gV"),
        Row(name="nothing", aligned="--aa-"),
    ]
    assert [row.name for row in unique_rows(rows)] == ["query", "first"]


def test_coverage_counts_residues_per_column() -> None:
    assert coverage(to_matrix(ROWS)) == [2, 3, 3, 2, 3]


def test_neff_equals_the_definition() -> None:
    rng = np.random.default_rng(5)
    # 130 columns are three words of bits, the last one partly filled.
    matrix = np.tile(rng.integers(65, 91, 130), (80, 1)).astype(np.uint8)
    # Steps of 0.02 around 80 % identity.
    for i, row in enumerate(matrix):
        row[rng.random(130) < 0.02 * (i % 15)] = ord("-") if i % 3 else ord("A")
    different = 0.0
    for a in matrix:
        similar = 0
        for b in matrix:
            union = (a != ord("-")) | (b != ord("-"))
            similar += ((a == b) & union).sum() >= 0.8 * union.sum() - 1e-9
        different += 1 / similar
    assert 2 < different < 79
    assert effective_sequences(matrix) == pytest.approx(different, abs=1e-3)


def test_neff_of_equal_rows_is_one_and_of_unlike_rows_their_number() -> None:
    assert effective_sequences(to_matrix([Row(name="a", aligned="MKVLA")] * 7)) == 1.0
    unlike = [Row(name=letter, aligned=letter * 70) for letter in "ACDEF"]
    assert effective_sequences(to_matrix(unlike)) == 5.0


def test_exactly_the_threshold_counts_as_similar() -> None:
    rows = [
        Row(name="a", aligned="A" * 10),
        Row(name="b", aligned="A" * 8 + "CC"),
        Row(name="c", aligned="A" * 7 + "DDD"),
    ]
    # a-b agree in 8 of 10, a-c and b-c in 7 of 10.
    assert effective_sequences(to_matrix(rows)) == 2.0
