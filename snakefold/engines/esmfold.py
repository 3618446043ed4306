"""ESMFold: structures from a protein language model, without an MSA."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.prediction import write_prediction
from snakefold.errors import MemberError
from snakefold.outcome import Outcome
from snakefold.structures.io import ModelChain

ATOM37 = tuple(
    "N CA C CB O CG CG1 CG2 OG OG1 SG CD CD1 CD2 ND1 ND2 OD1 OD2 SD CE CE1 CE2 CE3 NE NE1 NE2 OE1 OE2 CH2 NH1 NH2 OH "  # noqa: SIM905
    "CZ CZ2 CZ3 NZ OXT".split()
)
"""AlphaFold's order of atoms."""


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

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Write the prediction of `prediction.npz` (see drivers/esmfold.py) in the common form."""
        try:
            with np.load(made / "prediction.npz") as content:
                values = {name: content[name] for name in ("positions", "exists", "plddt", "pae", "ptm")}
        except (OSError, ValueError, KeyError) as error:
            raise MemberError("bad_output", f"ESMFold's prediction.npz cannot be read: {error}") from None
        chains = []
        start = 0
        for chain in task.chains:
            end = start + len(chain.sequence)
            chains.append(
                _chain(chain.sequence, {name: values[name][start:end] for name in ("positions", "exists", "plddt")})
            )
            start = end
        return write_prediction(folder, chains, ptm=float(values["ptm"]), pae=values["pae"])


def _chain(sequence: str, values: Mapping[str, np.ndarray]) -> ModelChain:
    atoms: dict[int, dict[str, np.ndarray]] = {}
    for index in np.flatnonzero(values["exists"].any(axis=1)).tolist():
        exists, positions = values["exists"][index], values["positions"][index].astype(float)
        atoms[index] = {name: positions[place] for place, name in enumerate(ATOM37) if exists[place]}
    confidence = [round(float(value), 2) for value in values["plddt"]]
    return ModelChain(sequence=sequence, atoms=atoms, confidence=confidence)
