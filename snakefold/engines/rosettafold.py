"""RoseTTAFold2: the three-track network for chains and complexes, with MSAs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.prediction import chains_of_atoms, read_arrays, write_prediction
from snakefold.outcome import Outcome


class RoseTTAFold(DrivenEngine):
    """RoseTTAFold2 by its authors' code, which is on no package index (containers/sources.yaml)."""

    name = "rosettafold"
    version = "2"
    packages = ("rosettafold2", "e3nn", "torch")
    licence = "MIT (code); none is stated for the weights"
    weights = "rosettafold2_jan24"
    needs_msa = True
    needs_templates = False
    limits = Limits(min_length=10, max_length=2000, max_chains=26, letters=STANDARD_LETTERS | frozenset("X"))

    def work_of(self, parameters: Mapping[str, Any]) -> float:
        """Predictions, each of so many passes."""
        return parameters["seeds"] * (parameters["recycles"] + 1) / 4

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Write the prediction of `prediction.npz` (see drivers/rosettafold.py) in the common form."""
        values = read_arrays(made / "prediction.npz", ("positions", "names", "plddt", "pae", "seed", "candidates"))
        notes = []
        if values["candidates"] > 1:
            notes.append(f"Seed {values['seed']}, the best of {values['candidates']} predictions.")
        if "rows" in values:
            most, further = values["rows"].tolist()
            notes.append(f"For want of GPU memory at most {most} and {further} further rows of the MSA were used.")
        return write_prediction(folder, chains_of_atoms(task, values), ptm=None, pae=values["pae"], notes=notes)
