"""What every neural engine gives, in the common form of docs/architecture.md ("fold")."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from snakefold.engines.base import FoldTask
from snakefold.engines.used_templates import UsedTemplate, alignment_fasta
from snakefold.errors import MemberError
from snakefold.files import write_json, write_text
from snakefold.outcome import Outcome
from snakefold.structures.io import ModelChain, modelled_ranges, write_model

ATOM37 = tuple(
    "N CA C CB O CG CG1 CG2 OG OG1 SG CD CD1 CD2 ND1 ND2 OD1 OD2 SD CE CE1 CE2 CE3 NE NE1 NE2 OE1 OE2 CH2 NH1 NH2 OH "  # noqa: SIM905
    "CZ CZ2 CZ3 NZ OXT".split()
)
"""AlphaFold's order of atoms."""


def read_arrays(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a driver's .npz. Raises MemberError ("bad_output") if it cannot be read or lacks a needed one."""
    try:
        with np.load(path) as content:
            values = {name: content[name] for name in content.files}
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        raise MemberError("bad_output", f"the engine's {path.name} cannot be read: {error}") from None
    if missing := [name for name in needed if name not in values]:
        raise MemberError("bad_output", f"the engine's {path.name} cannot be read: it has no {', '.join(missing)}")
    return values


def chains_of_atom37(task: FoldTask, values: Mapping[str, np.ndarray]) -> list[ModelChain]:
    """The model's chains, from arrays over all residues of the target.

    `positions` (residues, 37, 3) in angstrom and `exists` (residues, 37) are in the order of ATOM37, `plddt`
    (residues) is 0-100. Residues without atoms count as not modelled. Raises MemberError as `chains_of_atoms` does.
    """
    exists = values["exists"]
    if exists.shape[1:] != (len(ATOM37),):
        raise MemberError("bad_output", f"the engine's {exists.shape} atoms are not {len(ATOM37)} of each residue")
    return chains_of_atoms(task, {**values, "names": np.where(exists, ATOM37, "")})


def chains_of_atoms(task: FoldTask, values: Mapping[str, np.ndarray]) -> list[ModelChain]:
    """The same of atoms that bear their names: `names` (residues, atoms), empty where there is no atom.

    `positions` are (residues, atoms, 3). Raises MemberError ("bad_output") if the arrays are of another target.
    """
    lengths = [len(chain.sequence) for chain in task.chains]
    residues = sum(lengths)
    positions, names, plddt = (values[name] for name in ("positions", "names", "plddt"))
    if plddt.shape != (residues,) or names.shape[:1] != plddt.shape or positions.shape != (*names.shape, 3):
        raise MemberError(
            "bad_output",
            f"the engine's positions {positions.shape}, names {names.shape} and pLDDT {plddt.shape} are not of the "
            f"target's {residues} residues",
        )
    if unknown := sorted(set(names.ravel().tolist()) - {*ATOM37, ""}):
        raise MemberError("bad_output", f"the engine's atoms have a name that no amino acid has: {unknown[0]}")
    ends = np.cumsum(lengths).tolist()
    return [
        _chain(chain.sequence, positions[end - length : end], names[end - length : end], plddt[end - length : end])
        for chain, length, end in zip(task.chains, lengths, ends, strict=True)
    ]


def _chain(sequence: str, positions: np.ndarray, names: np.ndarray, plddt: np.ndarray) -> ModelChain:
    atoms: dict[int, dict[str, np.ndarray]] = {}
    for index in np.flatnonzero((names != "").any(axis=1)).tolist():
        places = np.flatnonzero(names[index] != "").tolist()
        atoms[index] = {str(names[index][place]): positions[index][place].astype(float) for place in places}
    return ModelChain(sequence=sequence, atoms=atoms, confidence=[round(float(value), 2) for value in plddt])


def write_prediction(
    folder: Path,
    chains: Sequence[ModelChain],
    *,
    ptm: float | None,
    iptm: float | None = None,
    pae: np.ndarray | None = None,
    templates: Sequence[UsedTemplate] = (),
    notes: Sequence[str] = (),
) -> Outcome:
    """Write model.cif, prediction.json, pae.json and, with templates, alignment.fasta into `folder`.

    `pae` (residues, residues) is the predicted aligned error in angstrom over all chains, as rows of the aligned
    residue. Confidence is pLDDT, 0-100.

    Raises MemberError ("bad_output") if positions or confidence are no numbers, as of an engine that overflowed.
    """
    values = np.array([value for chain in chains for value in chain.confidence if value is not None], dtype=float)
    positions = np.array([xyz for chain in chains for atoms in chain.atoms.values() for xyz in atoms.values()])
    if not len(positions) or not np.isfinite(positions).all() or not np.isfinite(values).all():
        raise MemberError("bad_output", "the engine's positions or confidence are no finite numbers")
    mean = round(float(values.mean()), 2)
    write_model(folder / "model.cif", chains)
    missing = [
        modelled_ranges([index for index in range(len(chain.sequence)) if index not in chain.atoms]) for chain in chains
    ]
    scores: dict[str, Any] = {
        "confidence_kind": "pLDDT",
        "confidence": [list(chain.confidence) for chain in chains],
        "mean_confidence": mean,
        "too_far": False,
        "ptm": None if ptm is None else round(ptm, 4),
        "iptm": None if iptm is None else round(iptm, 4),
        "templates": [each.facts(chains[each.chain_index].sequence) for each in templates],
        "invented": [[] for _ in chains],
        "unmodelled": missing,
        "notes": list(notes),
    }
    write_json(folder / "prediction.json", scores)
    if templates:
        write_text(folder / "alignment.fasta", alignment_fasta([chain.sequence for chain in chains], templates))
    if pae is not None:
        length = sum(len(chain.sequence) for chain in chains)
        if pae.shape != (length, length) or not np.isfinite(pae).all():
            raise MemberError("bad_output", f"the engine's aligned errors are no {length} x {length} numbers")
        errors = np.round(pae.astype(float), 2)
        # A member's largest error would differ from another's; AlphaFold DB gives the end of the scale.
        write_json(
            folder / "pae.json", {"pae": errors.tolist(), "max_predicted_aligned_error": round(float(errors.max()), 2)}
        )
    return Outcome(status="done", facts={"mean_confidence": mean} | ({} if iptm is None else {"iptm": scores["iptm"]}))
