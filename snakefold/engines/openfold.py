"""OpenFold3: an open network after AlphaFold 3, with open training; here for proteins and their complexes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.engines.driven import DrivenEngine, work_of_diffusion
from snakefold.engines.prediction import read_arrays, write_prediction
from snakefold.errors import MemberError
from snakefold.outcome import Outcome
from snakefold.structures.io import ModelChain

_NEEDED = ("residues", "names", "positions", "plddt", "pae", "ptm", "iptm", "sample", "samples")


class OpenFold(DrivenEngine):
    """OpenFold3 by its own package, with MSAs of ours and without templates."""

    name = "openfold"
    version = "2"
    packages = ("openfold3", "torch")
    licence = "Apache-2.0 (code), not stated for this file (weights)"
    weights = "openfold3_openbind_174k"
    needs_msa = True
    needs_templates = False
    # Up to 26 chains, which have names of one letter in OpenFold3's input.
    limits = Limits(min_length=10, max_length=2000, max_chains=26, letters=STANDARD_LETTERS | frozenset("X"))

    def work_of(self, parameters: Mapping[str, Any]) -> float:
        """Of the trunk and of five samples of 200 steps by default."""
        return work_of_diffusion(parameters, steps=1000)

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Write the prediction of `prediction.npz` (see drivers/openfold.py) in the common form.

        The confidence of a residue is the mean of its atoms' pLDDT.
        """
        values = read_arrays(made / "prediction.npz", _NEEDED)
        chains = _chains(task, values)
        notes = [f"Sample {values['sample']}, the best of {values['samples']}."] if values["samples"] > 1 else []
        if "rows" in values:
            notes.append(f"For want of GPU memory, at most {values['rows']} rows of the MSA were read.")
        return write_prediction(
            folder,
            chains,
            ptm=float(values["ptm"]),
            # Of one chain OpenFold3 says 0.
            iptm=float(values["iptm"]) if len(chains) > 1 else None,
            pae=values["pae"],
            notes=notes,
        )


def _chains(task: FoldTask, values: Mapping[str, np.ndarray]) -> list[ModelChain]:
    """The model's chains, from arrays over all atoms of the target."""
    residues, positions, plddt = values["residues"], values["positions"].astype(float), values["plddt"].astype(float)
    lengths = [len(chain.sequence) for chain in task.chains]
    atoms = len(residues)
    if residues.shape != (atoms,) or positions.shape != (atoms, 3) or not len(values["names"]) == len(plddt) == atoms:
        raise MemberError("bad_output", f"OpenFold3's arrays are not all of {atoms} atoms")
    if not np.array_equal(np.unique(residues), np.arange(sum(lengths))):
        raise MemberError("bad_output", f"OpenFold3's atoms are not those of {sum(lengths)} residues")
    means = np.bincount(residues, weights=plddt) / np.bincount(residues)
    found: list[dict[str, np.ndarray]] = [{} for _ in range(sum(lengths))]
    for residue, name, position in zip(residues.tolist(), values["names"].tolist(), positions, strict=True):
        found[residue][name] = position
    chains = []
    start = 0
    for chain, length in zip(task.chains, lengths, strict=True):
        confidence = [round(float(value), 2) for value in means[start : start + length]]
        atoms_of_chain = dict(enumerate(found[start : start + length]))
        chains.append(ModelChain(sequence=chain.sequence, atoms=atoms_of_chain, confidence=confidence))
        start += length
    return chains
