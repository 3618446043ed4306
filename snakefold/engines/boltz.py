"""Boltz-1 and Boltz-2: open networks after AlphaFold 3, for proteins and their complexes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import gemmi
import numpy as np

from snakefold.engines.base import STANDARD_LETTERS, FoldTask, Limits
from snakefold.engines.driven import DrivenEngine, work_of_diffusion
from snakefold.engines.prediction import write_prediction
from snakefold.errors import MemberError
from snakefold.files import read_json
from snakefold.outcome import Outcome
from snakefold.structures.io import ModelChain, chain_name
from snakefold.structures.residues import NAME_OF_LETTER

_TAGS = ["label_asym_id", "label_seq_id", "label_comp_id", "label_atom_id", "Cartn_x", "Cartn_y", "Cartn_z"]

# What readers of JSON, npz and mmCIF raise on what is not as it should be.
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, IndexError, BadZipFile)

_Atoms = Mapping[int, Mapping[str, np.ndarray]]


class Boltz(DrivenEngine):
    """Boltz-1 of the package boltz."""

    name = "boltz"
    version = "3"
    packages = ("boltz", "torch")
    licence = "MIT (code and weights)"
    weights = "boltz1"
    needs_msa = True
    needs_templates = False
    # Up to 26 chains, which have names of one letter in Boltz's input.
    limits = Limits(
        min_length=10, max_length=2000, max_chains=26, letters=STANDARD_LETTERS | frozenset("X"), msa_of_each_copy=False
    )

    def work_of(self, parameters: Mapping[str, Any]) -> float:
        """Of the trunk and of a sample of 200 steps by default."""
        return work_of_diffusion(parameters, steps=200)

    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Write the prediction of Boltz's files (see drivers/boltz.py) in the common form."""
        try:
            ours = read_json(made / "made.json")
            order: list[int] = ours["chains"]
            scores = read_json(made / "confidence_member_model_0.json")
            ptm, iptm = float(scores["ptm"]), float(scores["iptm"])
            plddt = _array(made / "plddt_member_model_0.npz", "plddt") * 100
            pae = _array(made / "pae_member_model_0.npz", "pae")
            atoms = _atoms(made / "member_model_0.cif", [chain.sequence for chain in task.chains])
        except _UNREADABLE as error:
            raise MemberError("bad_output", f"Boltz's output cannot be read: {error}") from None
        lengths = [len(chain.sequence) for chain in task.chains]
        total = sum(lengths)
        if sorted(order) != list(range(len(lengths))):
            raise MemberError("bad_output", f"Boltz's chains {order} are not the {len(lengths)} of the target")
        if plddt.shape != (total,) or pae.shape != (total, total):
            raise MemberError(
                "bad_output", f"Boltz's pLDDT {plddt.shape} or PAE {pae.shape} is not of {total} residues"
            )
        places = _places(order, lengths)
        confidence = plddt[places]
        chains = []
        start = 0
        for index, chain in enumerate(task.chains):
            values = [round(float(value), 2) for value in confidence[start : start + lengths[index]]]
            chains.append(ModelChain(sequence=chain.sequence, atoms=atoms[index], confidence=values))
            start += lengths[index]
        return write_prediction(
            folder,
            chains,
            ptm=ptm,
            # Of one chain Boltz says 0.
            iptm=iptm if len(chains) > 1 else None,
            pae=pae[np.ix_(places, places)],
            notes=_notes(ours),
        )


class Boltz2(Boltz):
    """Boltz-2 of the same package, with a driver and a Python in common."""

    name = "boltz2"
    program = "boltz"
    version = "2"
    weights = "boltz2"


def _notes(made: Mapping[str, Any]) -> list[str]:
    if not made["eased"]:
        return []
    return [f"for want of GPU memory, only {made['max_msa_seqs']} rows of each MSA were read"]


def _array(path: Path, name: str) -> np.ndarray:
    with np.load(path) as content:
        return content[name].astype(float)


def _places(order: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
    """Where the target's residues, chain by chain, stand among Boltz's, which has the chains in another order."""
    starts = {}
    start = 0
    for index in order:
        starts[index] = start
        start += lengths[index]
    return np.concatenate([starts[index] + np.arange(length) for index, length in enumerate(lengths)])


def _atoms(path: Path, sequences: Sequence[str]) -> list[_Atoms]:
    """The positions of each chain's atoms in Boltz's mmCIF."""
    found: list[dict[int, dict[str, np.ndarray]]] = [{} for _ in sequences]
    index_of = {chain_name(index): index for index in range(len(sequences))}
    for chain, number, residue, atom, x, y, z in gemmi.cif.read(str(path)).sole_block().find("_atom_site.", _TAGS):
        index, place = index_of[chain], int(number) - 1
        if not 0 <= place < len(sequences[index]) or NAME_OF_LETTER[sequences[index][place]] != residue:
            raise ValueError(f"{residue} {number} of chain {chain} is not in the sequence")
        position = np.array([float(x), float(y), float(z)])
        found[index].setdefault(place, {})[gemmi.cif.as_string(atom)] = position
    return list(found)
