"""ESMFold: structures from a protein language model, without an MSA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.prediction import chains_of_atom37, read_arrays, write_prediction
from snakefold.outcome import Outcome


class EsmFold(DrivenEngine):
    """ESMFold of transformers."""

    name = "esmfold"
    version = "1"
    packages = ("transformers", "torch")
    licence = "MIT (code and weights)"
    weights = "esmfold_v1"
    needs_msa = False
    needs_templates = False
    limits = Limits(min_length=10, max_length=1500, max_chains=10, letters=STANDARD_LETTERS | frozenset("X"))

    def work_of(self, parameters: Mapping[str, Any]) -> float:
        """Passes through the trunk."""
        return (parameters["recycles"] + 1) / 4

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Write the prediction of `prediction.npz` (see drivers/esmfold.py) in the common form."""
        values = read_arrays(made / "prediction.npz", ("positions", "exists", "plddt", "pae", "ptm"))
        return write_prediction(folder, chains_of_atom37(task, values), ptm=float(values["ptm"]), pae=values["pae"])
