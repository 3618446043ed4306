import gzip
import json
import random
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyhmmer import jackhmmer
from pyhmmer.easel import Alphabet, DigitalSequenceBlock, SequenceFile, TextSequence
from pyhmmer.plan7 import HMM, Pipeline

from snakefold.errors import MemberError, SnakefoldError
from snakefold.search import stream
from snakefold.search.formats import parse_alignment, without_inserts
from snakefold.search.msa import import_msa, model_of_sequence, search_msas

from .search_helpers import Results, family_database, files_of, mutated, random_protein, write_fasta

QUERY = random_protein(random.Random(1), 90)
OTHER = random_protein(random.Random(2), 70)
ALPHAFOLD_FLAGS = ["--F1", "0.0005", "--F2", "0.00005", "--F3", "0.0000005", "-E", "0.0001", "--incE", "0.0001"]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family_database(tmp_path_factory.mktemp("database") / "family.fasta", QUERY, size=1200)


def search(
    folder: Path, databases: dict[str, Path], queries: dict[str, str] | None = None, **options: Any
) -> dict[str, dict[str, bytes]]:
    """Search and return the files of each chain."""
    results = Results()
    search_msas(queries or {"chain": QUERY}, databases, scratch=folder, on_result=results.on_result, **options)
    return {chain: files_of(folder / chain) for chain in results.outcomes}


def found_names(files: dict[str, dict[str, bytes]]) -> set[str]:
    rows = parse_alignment(files["chain"]["family.sto"].decode(), "family.sto")
    return {row.name.split("/")[0] for row in rows[1:]}


def search_model(alphabet: Alphabet) -> HMM:
    return model_of_sequence(QUERY, alphabet)


@pytest.mark.parametrize("iterations", [1, 3])
def test_rows_are_those_of_the_jackhmmer_command_line(tmp_path: Path, database: Path, iterations: int) -> None:
    program = shutil.which("jackhmmer")
    assert program, "jackhmmer is missing: run `make system-deps`"
    fasta = write_fasta(tmp_path / "query.fasta", {"query": QUERY})
    command = [program, "-N", str(iterations), *ALPHAFOLD_FLAGS, "--noali", "-o", "/dev/null", "-A", "cli.sto"]
    subprocess.run([*command, str(fasta), str(database)], check=True, cwd=tmp_path)
    theirs = parse_alignment((tmp_path / "cli.sto").read_text(), "cli.sto")
    files = search(tmp_path / "ours", {"family": database}, iterations=iterations, block_residues=20_000)
    ours = parse_alignment(files["chain"]["family.sto"].decode(), "ours")
    assert len(ours) > 150
    assert [(row.name, without_inserts(row.aligned)) for row in ours] == [
        (row.name, without_inserts(row.aligned)) for row in theirs
    ]


def test_further_iterations_find_what_pyhmmer_finds_with_the_whole_database_in_memory(
    tmp_path: Path, database: Path
) -> None:
    alphabet: Any = Alphabet.amino()
    query = TextSequence(name="query", sequence=QUERY).digitize(alphabet)
    with closing(SequenceFile(database, digital=True, alphabet=alphabet)) as file:
        results = jackhmmer([query], file, max_iterations=3, cpus=1, E=1e-4, incE=1e-4, F1=5e-4, F2=5e-5, F3=5e-7)
        result: Any = next(results)
    theirs = {hit.name for hit in result.hits.included}
    files = search(tmp_path, {"family": database}, iterations=3, block_residues=15_000)
    assert found_names(files) == theirs
    assert len(theirs) > len(found_names(search(tmp_path / "one", {"family": database}, iterations=1)))


def test_bytes_depend_neither_on_blocks_nor_on_threads_nor_on_packing(tmp_path: Path, database: Path) -> None:
    packed = tmp_path / "family.fasta.gz"
    packed.write_bytes(gzip.compress(database.read_bytes()))
    reference = search(tmp_path / "a", {"family": database}, threads=1)
    assert search(tmp_path / "b", {"family": database}, threads=3, block_residues=3_000) == reference
    assert search(tmp_path / "c", {"family": packed}, threads=2, block_residues=50_000) == reference
    assert set(reference["chain"]) == {"family.sto", "msa.a3m", "msa.json"}


def test_several_queries_in_a_pass_get_what_each_gets_alone(tmp_path: Path, database: Path) -> None:
    queries = {"one": QUERY, "two": OTHER, "three": mutated(random.Random(3), QUERY, 0.3), "four": OTHER[::-1]}
    alone: dict[str, dict[str, bytes]] = {}
    for name, sequence in queries.items():
        alone |= search(tmp_path / "alone", {"family": database}, {name: sequence})
    together = search(tmp_path / "together", {"family": database}, queries, threads=2, block_residues=10_000)
    assert together == alone
    in_pairs = search(tmp_path / "pairs", {"family": database}, queries, queries_per_pass=2)
    assert in_pairs == alone
    assert list(in_pairs) == list(queries)


def test_results_are_handed_over_before_the_next_pass_starts(tmp_path: Path, database: Path) -> None:
    events: list[str] = []
    search_msas(
        {"one": QUERY, "two": OTHER},
        {"family": database},
        scratch=tmp_path,
        on_result=lambda chain, *_: events.append(chain),
        progress=lambda name, _: events.append(name),
        queries_per_pass=1,
    )
    assert events.index("one") < len(events) - 1 - events[::-1].index("family")
    assert events[-1] == "two"


def test_the_database_is_read_once_for_all_queries_of_a_pass(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read_blocks = stream.read_blocks

    def counted(path: Path, *args: Any, **options: Any) -> Any:
        reads.append(path)
        return read_blocks(path, *args, **options)

    monkeypatch.setattr(stream, "read_blocks", counted)
    search(tmp_path, {"family": database}, {str(i): QUERY[i:] for i in range(5)})
    assert reads == [database]


def test_few_blocks_are_held_at_a_time(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a search does not hold cannot grow with the database: reading stops while enough blocks wait.
    read, searched = [0], [0]
    read_blocks, search_block = stream.read_blocks, stream._search_block
    ahead: list[int] = []

    def reading(*args: Any, **options: Any) -> Any:
        for block in read_blocks(*args, **options):
            read[0] += 1
            ahead.append(read[0] - searched[0])
            yield block

    def searching(*args: Any) -> Any:
        hits = search_block(*args)
        searched[0] += 1
        return hits

    monkeypatch.setattr(stream, "read_blocks", reading)
    monkeypatch.setattr(stream, "_search_block", searching)
    alphabet: Any = Alphabet.amino()
    model = search_model(alphabet)
    stream.scan(
        [model], database, alphabet=alphabet, thresholds=stream.Thresholds(), threads=2, keep=100, residues=3_000
    )
    assert read[0] > 50
    assert max(ahead) <= 5


def test_the_limit_of_sequences_keeps_the_best(tmp_path: Path, database: Path) -> None:
    everything = search(tmp_path / "all", {"family": database})["chain"]
    # Small blocks: most of the hits are dropped while the database is still being read.
    limited = search(tmp_path / "few", {"family": database}, max_sequences=20, block_residues=3_000)["chain"]
    rows = parse_alignment(everything["msa.a3m"].decode(), "all")
    assert len(rows) > 100
    assert parse_alignment(limited["msa.a3m"].decode(), "few") == rows[:20]
    assert parse_alignment(limited["family.sto"].decode(), "few")[:20] == rows[:20]


def test_msa_merges_databases_best_first_without_duplicates(tmp_path: Path, database: Path) -> None:
    close = write_fasta(
        tmp_path / "close.fasta", {"twin": QUERY, "close": "AA" + QUERY[:40] + "W" + QUERY[41:], "far": OTHER}
    )
    files = search(tmp_path / "out", {"family": database, "close": close, "again": close})["chain"]
    rows = parse_alignment(files["msa.a3m"].decode(), "msa.a3m")
    names = [row.name for row in rows]
    # Sequences that hold two copies score higher; the relatives of the first database mostly score lower.
    assert names.index("close/3-92") < 20 < len(names)
    assert names.count("close/3-92") == 1
    assert "twin/1-90" not in names
    columns = [without_inserts(row.aligned) for row in rows]
    assert len(set(columns)) == len(columns)
    described = json.loads(files["msa.json"])
    assert described["depth"] == len(rows)
    assert [item["name"] for item in described["databases"]] == ["family", "close", "again"]
    assert [item["depth"] for item in described["databases"][1:]] == [3, 3]
    assert described["source"] == "search"
    matrix = np.array([list(row) for row in columns])
    assert described["coverage"] == [int(n) for n in (matrix != "-").sum(axis=0)]
    assert 1 < described["neff"] <= described["depth"]


def test_nothing_found_leaves_the_query_alone(tmp_path: Path, database: Path) -> None:
    files = search(tmp_path, {"family": database}, {"chain": OTHER})["chain"]
    assert files["msa.a3m"].decode() == f">query\n{OTHER}\n"
    described = json.loads(files["msa.json"])
    assert (described["depth"], described["neff"], described["coverage"]) == (1, 1.0, [1] * len(OTHER))


def test_unknown_residues_and_selenocysteine_are_searched(tmp_path: Path, database: Path) -> None:
    sequence = QUERY[:10] + "X" + QUERY[11:30] + "U" + QUERY[31:]
    files = search(tmp_path, {"family": database}, {"odd": sequence, "blank": "X" * 40})
    rows = parse_alignment(files["odd"]["msa.a3m"].decode(), "msa.a3m")
    assert rows[0].aligned == sequence
    assert len(rows) > 100
    assert json.loads(files["blank"]["msa.json"])["depth"] == 1


def test_a_chain_that_cannot_be_searched_does_not_stop_the_others(tmp_path: Path, database: Path) -> None:
    results = Results()
    search_msas(
        {"bad": "MK-V*", "good": QUERY},
        {"family": database},
        scratch=tmp_path,
        on_result=results.on_result,
        on_failure=results.on_failure,
    )
    assert list(results.outcomes) == ["good"]
    failure = results.failures["bad"]
    assert isinstance(failure, MemberError)
    assert failure.kind == "bad_sequence"
    with pytest.raises(MemberError, match="letters A-Z"):
        search_msas({"bad": "MK-V*"}, {"family": database}, scratch=tmp_path, on_result=results.on_result)


def test_a_target_that_overflows_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    alphabet: Any = Alphabet.amino()
    block = DigitalSequenceBlock(
        alphabet,
        [TextSequence(name=f"s{i}", sequence=QUERY).digitize(alphabet) for i in range(7)],
    )

    class Overflowing(Pipeline):
        def search_hmm(self, query: Any, sequences: Any) -> Any:
            if any(sequence.name == "s4" for sequence in sequences):
                raise OverflowError("numerical overflow")
            return super().search_hmm(query, sequences)

    monkeypatch.setattr(stream, "Pipeline", Overflowing)
    hits = stream._search_block(search_model(alphabet), block, alphabet, stream.Thresholds())
    assert {hit.name for hit in hits} == {"s0", "s1", "s2", "s3", "s5", "s6"}


DNA = "".join(f">n{i}\n{'ACGT' * 30}\n" for i in range(5)).encode()
PROTEIN = b"".join(b">s%d\n%s\n" % (i, QUERY.encode()) for i in range(2000))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.fasta", None, "no such database file"),
        ("empty.fasta", b"", "holds no sequences"),
        ("empty.fasta.gz", gzip.compress(b"", mtime=0), "holds no sequences"),
        ("dna.fasta", DNA, "holds nucleotide sequences"),
        ("text.fasta", b"hello\nworld\n", "cannot be read as FASTA"),
        ("letters.fasta", b">a\nMK1V\n", "illegal character 1"),
        ("cut.fasta.gz", gzip.compress(PROTEIN, mtime=0)[:-30], "Compressed file ended"),
        ("plain.fasta.gz", PROTEIN, "Not a gzipped file"),
        ("crc.fasta.gz", gzip.compress(PROTEIN, mtime=0)[:-8] + b"\0" * 8, "CRC check failed"),
    ],
)
def test_bad_databases_are_named_in_one_line(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SnakefoldError) as caught:
        search(tmp_path / "out", {"bad": path})
    assert reason in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_databases_cannot_leave_the_folder(tmp_path: Path, database: Path) -> None:
    with pytest.raises(SnakefoldError, match="database name"):
        search(tmp_path, {"../x": database})


def test_over_long_sequences_of_a_database_are_left_out(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "x.fasta", {"long": "A" * 100_001 + QUERY, "twin": QUERY})
    files = search(tmp_path / "out", {"x": path})["chain"]
    assert [row.name for row in parse_alignment(files["x.sto"].decode(), "x")] == ["query", f"twin/1-{len(QUERY)}"]


A3M = ">me\nMKVLA\n>a\nM-VggLA\n>b\nM-VLA\n>c\n-KV--\n"


@pytest.mark.parametrize("name", ["given.a3m", "given.a3m.gz", "given.sto", "given.sto.gz"])
def test_given_msas_give_the_same_files_in_all_formats(tmp_path: Path, name: str) -> None:
    text = A3M
    if ".sto" in name:
        text = "# STOCKHOLM 1.0\nme MKV..LA\na M-VGGLA\nb M-V..LA\nc -KV..--\n//\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    outcome = import_msa(path, "mkvla", tmp_path / "out")
    files = files_of(tmp_path / "out")
    assert files["msa.a3m"].decode() == ">query\nMKVLA\n>a\nM-VggLA\n>c\n-KV--\n"
    assert set(files) == {"msa.a3m", "msa.json", "given.sto"}
    described = json.loads(files["msa.json"])
    assert described["coverage"] == [2, 2, 3, 2, 2]
    assert described["databases"] == [{"name": "given", "depth": 4}]
    assert described["source"] == "given"
    assert outcome.facts["depth"] == described["depth"] == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (">me\nMKVL\n", "has 4 residues, but the chain has 5"),
        (">me\nMKVWA\n>a\nMKVLA\n", "residue 4 is W, but the chain has L"),
        (">me\nMKVaLA\n", "may not hold inserts"),
        (">me\nMKVLA\n>a\nMKVL\n", "row 2 (a): 4 columns"),
    ],
)
def test_given_msas_that_do_not_belong_to_the_chain_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "given.a3m"
    path.write_text(text)
    with pytest.raises(MemberError) as caught:
        import_msa(path, "MKVLA", tmp_path / "out")
    assert caught.value.kind == "bad_msa"
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
