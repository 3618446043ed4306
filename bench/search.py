"""Streaming MSA search against the jackhmmer command line: seconds, peak memory, and whether the hits are the same.

    python -m bench.search [--sizes 20000 200000] [--queries 1 8] [--threads 2] [--iterations 1]

The database is made of the real proteins of data/mini and of shuffled and mutated copies of them, with a fixed seed.
Each side runs as a process of its own, start-up and imports included, and its peak memory is the kernel's figure for
it. jackhmmer comes from Debian's package `hmmer`.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
SEQUENCES = ROOT / "data" / "mini" / "sequences"
AMINO_ACIDS = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
FLAGS = ("--F1", "0.0005", "--F2", "0.00005", "--F3", "0.0000005", "-E", "0.0001", "--incE", "0.0001", "--noali")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one process took: seconds by the clock, seconds of all its threads on a core, MiB at its peak."""

    seconds: float
    cpu: float
    memory: float


def main() -> None:
    """Run the comparison, or one side of it when called for that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000], help="sequences in the database")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 8], help="chains searched at a time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--stream", type=Path, nargs=3, help=argparse.SUPPRESS, metavar=("QUERIES", "DATABASE", "OUT"))
    arguments = parser.parse_args()
    if arguments.stream:
        stream(*arguments.stream, threads=arguments.threads, iterations=arguments.iterations)
        return
    jackhmmer = shutil.which("jackhmmer")
    if jackhmmer is None:
        sys.exit("jackhmmer is missing: run `make system-deps`")
    print("                          jackhmmer                 snakefold      ratio of")
    print("sequences queries   clock    CPU     peak    clock    CPU     peak clock   CPU  peak    rows  hits")
    same = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in arguments.sizes:
            database = folder / f"{size}.fasta"
            queries = make_database(database, size)
            for count in arguments.queries:
                same &= compare(jackhmmer, folder, database, size, queries[:count], arguments)
    if not same:
        sys.exit("the hits differ")


def compare(
    jackhmmer: str, folder: Path, database: Path, size: int, queries: list[str], arguments: argparse.Namespace
) -> bool:
    """Run both sides on the same queries, print a line, say whether all rows of all alignments are equal."""
    fasta = folder / "queries.fasta"
    fasta.write_text("".join(f">chain{i}\n{sequence}\n" for i, sequence in enumerate(queries)))
    options = ["--iterations", str(arguments.iterations), "--threads", str(arguments.threads)]
    settings = ["-N", str(arguments.iterations), "--cpu", str(arguments.threads), "-o", os.devnull]
    theirs = run([jackhmmer, *FLAGS, *settings, "-A", str(folder / "theirs.sto"), str(fasta), str(database)])
    out = folder / "ours"
    shutil.rmtree(out, ignore_errors=True)
    ours = run([sys.executable, "-m", "bench.search", "--stream", str(fasta), str(database), str(out), *options])
    expected = alignments(folder / "theirs.sto", queries)
    found = [rows((out / f"chain{i}" / "database.sto").read_text()) for i in range(len(queries))]
    verdict = "the same" if expected == found else "DIFFERENT"
    print(
        f"{size:9,} {len(queries):7} {theirs.seconds:5.1f} s {theirs.cpu:4.1f} s {theirs.memory:4.0f} MiB"
        f"  {ours.seconds:5.1f} s {ours.cpu:4.1f} s {ours.memory:4.0f} MiB {ours.seconds / theirs.seconds:5.2f}"
        f" {ours.cpu / theirs.cpu:5.2f} {ours.memory / theirs.memory:5.2f} {sum(map(len, expected)):7,}  {verdict}",
        flush=True,
    )
    return expected == found


def run(command: list[str]) -> Run:
    """Run a process to its end and measure it."""
    started = time.monotonic()
    process = subprocess.Popen(command)
    # wait4 gives the figures of this child alone; getrusage would give the maximum over all so far.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    return Run(seconds=time.monotonic() - started, cpu=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss / 1024)


def stream(queries: Path, database: Path, out: Path, *, threads: int, iterations: int) -> None:
    """Our side, in its own process."""
    from snakefold.search.msa import search_msas

    records = [record.split("\n") for record in queries.read_text().split(">")[1:]]
    search_msas(
        {lines[0]: lines[1] for lines in records},
        {"database": database},
        scratch=out,
        on_result=lambda *_: None,
        iterations=iterations,
        # As many as there are: jackhmmer has no limit.
        max_sequences=10**9,
        threads=threads,
    )


def alignments(path: Path, queries: list[str]) -> list[dict[str, str]]:
    """The alignments of jackhmmer, one for each query; it writes none where it found nothing."""
    by_query = {
        next(iter(found.values())): found for part in path.read_text().split("//\n") if (found := rows(part + "//\n"))
    }
    return [by_query.get(sequence, {"query": sequence}) for sequence in queries]


def rows(stockholm: str) -> dict[str, str]:
    """Rows of a Stockholm alignment by name, in the columns of the query; the first is called `query`."""
    from snakefold.search.formats import parse_alignment, without_inserts

    if not stockholm.strip("/\n"):
        return {}
    first, *others = parse_alignment(stockholm, "alignment")
    return {"query": first.aligned} | {row.name: without_inserts(row.aligned) for row in others}


def make_database(path: Path, size: int) -> list[str]:
    """Write `size` sequences, the real ones and relatives and shuffled copies; return real ones as queries."""
    rng = np.random.default_rng(20)
    real = [
        np.frombuffer("".join(record.splitlines()[1:]).encode(), dtype=np.uint8)
        for file in sorted(SEQUENCES.glob("*.fasta.gz"))
        for record in gzip.decompress(file.read_bytes()).decode().split(">")[1:]
    ]
    real = [sequence for sequence in real if 50 <= len(sequence) <= 600]
    queries = [real[i].tobytes().decode() for i in rng.permutation(len(real)) if 100 <= len(real[i]) <= 350]
    with path.open("wb") as handle:
        for index in range(size):
            sequence = real[index % len(real)]
            if index >= len(real):
                # One in ten is a relative, the others have nothing but the composition in common.
                sequence = mutated(rng, sequence) if index % 10 == 0 else rng.permutation(sequence)
            handle.write(b">s%d\n%s\n" % (index, sequence.tobytes()))
    return list(dict.fromkeys(queries))


def mutated(rng: np.random.Generator, sequence: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A relative that differs in 10-80 % of its residues, a few of them deleted."""
    changed = sequence.copy()
    places = rng.random(len(sequence)) < rng.uniform(0.1, 0.8)
    changed[places] = rng.choice(AMINO_ACIDS, places.sum())
    return changed[rng.random(len(sequence)) > 0.01]


if __name__ == "__main__":
    main()
