"""OmegaFold: structures of single chains from a protein language model, without an MSA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.prediction import chains_of_atoms, read_arrays, write_prediction
from snakefold.outcome import Outcome


class OmegaFold(DrivenEngine):
    """OmegaFold by its authors' code, which is on no package index (containers/sources.yaml)."""

    name = "omegafold"
    version = "1"
    packages = ("omegafold", "torch")
    licence = "Apache-2.0 (code); none is stated for the weights"
    weights = "omegafold_release"
    needs_msa = False
    needs_templates = False
    # The README's longest on 80 GB.
    limits = Limits(min_length=10, max_length=4096, max_chains=1, letters=STANDARD_LETTERS | frozenset("X"))

    def work_of(self, parameters: Mapping[str, Any]) -> float:
        """Passes."""
        return parameters["cycles"] / 10

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Write the prediction of `prediction.npz` (see drivers/omegafold.py) in the common form."""
        values = read_arrays(made / "prediction.npz", ("positions", "names", "plddt"))
        return write_prediction(folder, chains_of_atoms(task, values), ptm=None)
