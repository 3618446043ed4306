"""AlphaFold 2: the monomer models for one chain, AlphaFold-Multimer for several."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.prediction import chains_of_atom37, read_arrays, write_prediction
from snakefold.engines.used_templates import UsedTemplate
from snakefold.errors import MemberError
from snakefold.files import read_json
from snakefold.outcome import Outcome
from snakefold.structures.io import chain_name, read_chains


class AlphaFold2(DrivenEngine):
    """AlphaFold 2 by ColabFold's package, with MSAs of ours and, if its parameters say so, our templates."""

    name = "alphafold2"
    version = "3"
    packages = ("alphafold-colabfold", "colabfold", "jax")
    licence = "Apache-2.0 (code), CC BY 4.0 (weights)"
    weights = "alphafold_params_2022_12_06"
    needs_msa = True
    needs_templates = False
    limits = Limits(
        min_length=16, max_length=3000, max_chains=26, letters=STANDARD_LETTERS | frozenset("X"), msa_of_each_copy=False
    )

    def work_of(self, parameters: Mapping[str, Any]) -> float:
        """Predictions, each of as many passes as one chain goes through by default."""
        recycles = 3 if parameters["recycles"] is None else parameters["recycles"]
        return parameters["seeds"] * len(parameters["models"]) / 5 * (recycles + 1) / 4

    def least_templated_of(self, parameters: Mapping[str, Any]) -> int:
        """Of the models of one chain, 1 and 2 take templates; of several, all do."""
        return 1 if {1, 2} & set(parameters["models"]) else 2

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Write the prediction of `prediction.npz` (see drivers/alphafold2.py) in the common form."""
        values = read_arrays(
            made / "prediction.npz",
            ("positions", "exists", "plddt", "pae", "ptm", "model", "seed", "candidates"),
        )
        notes = [f"Model {values['model']} with seed {values['seed']}, the best of {values['candidates']} predictions."]
        if "crop" in values:
            clusters, further = values["crop"].tolist()
            notes.append(
                f"For want of GPU memory at most {clusters} clusters and {further} further rows of the MSA were used."
            )
        places = values.get("templates", np.zeros((0, 2), dtype=int)).tolist()
        return write_prediction(
            folder,
            chains_of_atom37(task, values),
            ptm=float(values["ptm"]),
            iptm=float(values["iptm"]) if "iptm" in values else None,
            pae=values["pae"],
            templates=_used_templates(task, places),
            notes=notes,
        )


def _used_templates(task: FoldTask, places: Sequence[tuple[int, int]]) -> list[UsedTemplate]:
    """The hits that the model had, as numbers of chains and places among the hits of each."""
    # Equal chains share their files: of 26 copies with four templates each, four entries are read and not 104.
    hits_of, sequences_of = cache(_hits), cache(_sequences)
    used = []
    for number, place in places:
        folder = task.chains[number].templates
        if folder is None:
            raise MemberError("bad_output", f"AlphaFold 2 had a template of chain {chain_name(number)}, which has none")
        hit = hits_of(folder)[place]
        used.append(
            UsedTemplate(
                chain_index=number,
                entry=hit["entry"],
                chain=hit["chain"],
                copy=hit["chain"],
                sequence=sequences_of(folder / hit["file"])[hit["chain"]],
                pairs=[(first, second) for first, second, _ in hit["pairs"]],
                evalue=hit["evalue"],
            )
        )
    return used


def _hits(folder: Path) -> list[Any]:
    return read_json(folder / "hits.json")["hits"]


def _sequences(entry: Path) -> dict[str, str]:
    """Those of an entry's chains, by name."""
    return {chain.name: chain.sequence for chain in read_chains(entry)}
