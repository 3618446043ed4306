"""What every structure predictor says of itself, and how it is called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from snakefold.outcome import Outcome

STANDARD_LETTERS = frozenset("ACDEFGHIKLMNPQRSTVWY")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The targets that an engine accepts. Lengths are residues of the whole target."""

    min_length: int
    max_length: int
    max_chains: int
    letters: frozenset[str] = STANDARD_LETTERS
    msa_of_each_copy: bool = True
    """Whether equal chains may have different MSAs."""


@dataclass(frozen=True, kw_only=True)
class ChainInputs:
    """What is known of one chain of a target: its sequence, its MSA (A3M, query first), and its template hits.

    `templates` is a folder that holds `hits.json` and the entries that it names (see docs/architecture.md).
    """

    sequence: str
    msa: Path | None = None
    templates: Path | None = None


@dataclass(frozen=True, kw_only=True)
class FoldTask:
    """One prediction to make. `template` is the user's own template (mmCIF or PDB), used in place of the hits."""

    chains: tuple[ChainInputs, ...]
    seed: int = 0
    template: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def residues(self) -> int:
        """The length of the whole target."""
        return sum(len(chain.sequence) for chain in self.chains)


class Engine(Protocol):
    """A structure predictor, as the plan knows it. Nothing heavy is imported for that."""

    name: str
    version: str
    """Enters the store keys: raise it whenever the same input gives another result."""
    packages: tuple[str, ...]
    """Python packages that compute the result; their versions enter the store keys too."""
    licence: str
    weights: str | None
    """The database (config/databases.yaml) with the weights; None for an engine that has none."""
    needs_msa: bool
    needs_templates: bool
    """Whether it needs the templates of any target; see `reads_templates`."""
    takes_template: bool
    """Whether a template that the sheet gives takes the place of those that are found; else it is not used."""
    gpus: int
    limits: Limits

    def reads_templates(self, chains: int) -> bool:
        """Whether it needs the templates of a target of so many chains."""
        ...

    def seconds(self, residues: int) -> float:
        """Estimated seconds for one target of so many residues, on one core or one GPU."""
        ...

    def memory_mb(self, residues: int) -> int:
        """Estimated peak memory in MB (decimal, as Snakemake counts) for one target of so many residues."""
        ...

    def gpu_memory_mb(self, residues: int) -> int:
        """The same of a GPU's memory; 0 for an engine that takes none."""
        ...


class OwnEngine(Engine, Protocol):
    """An engine of ours, which predicts in snakefold's own processes, one member on each core."""

    def predict(self, task: FoldTask, folder: Path) -> Outcome:
        """Predict one target and write the files of docs/architecture.md ("fold") into `folder`.

        Raises MemberError when this target cannot be predicted; other targets of the batch go on.
        """
        ...
