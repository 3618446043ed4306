"""Generated proteins for the tests of the search, the same in every run."""

import random
from collections.abc import Mapping
from pathlib import Path

from snakefold.outcome import Outcome

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


def random_protein(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(AMINO_ACIDS, k=length))


def mutated(rng: random.Random, sequence: str, rate: float) -> str:
    """A homologue: substitutions at `rate`, deletions and short insertions at a twentieth of it."""
    letters: list[str] = []
    for letter in sequence:
        chance = rng.random()
        if chance < rate * 0.05:
            continue
        if chance < rate * 0.1:
            letters += rng.choices(AMINO_ACIDS, k=rng.randint(1, 6))
        letters.append(rng.choice(AMINO_ACIDS) if rng.random() < rate else letter)
    return "".join(letters)


def family_database(path: Path, query: str, *, size: int, seed: int = 7) -> Path:
    """A FASTA file in which every fourth sequence descends from `query`, some of them with two copies of it."""
    rng = random.Random(seed)
    with path.open("w") as handle:
        for index in range(size):
            sequence = random_protein(rng, rng.randint(60, 300))
            if index % 4 == 0:
                sequence = sequence[:40] + mutated(rng, query, rng.uniform(0.1, 0.85)) + sequence[40:80]
            if index % 40 == 0:
                sequence += mutated(rng, query, 0.5)
            handle.write(f">s{index} made up, number {index}\n{sequence}\n")
    return path


class Results:
    """Takes the results of a search as `batch.py` does."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, Exception] = {}

    def on_result(self, chain: str, folder: Path, outcome: Outcome) -> None:
        assert folder.is_dir()
        self.outcomes[chain] = outcome

    def on_failure(self, chain: str, error: Exception) -> None:
        self.failures[chain] = error


def write_fasta(path: Path, sequences: Mapping[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
