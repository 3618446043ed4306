"""What every neural engine gives, in the common form of docs/architecture.md ("fold")."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.errors import MemberError
from snakefold.files import write_json
from snakefold.outcome import Outcome
from snakefold.structures.io import ModelChain, modelled_ranges, write_model


def write_prediction(
    folder: Path,
    chains: Sequence[ModelChain],
    *,
    ptm: float | None,
    iptm: float | None = None,
    pae: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> Outcome:
    """Write model.cif, prediction.json and pae.json into `folder`.

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
        "templates": [],
        "invented": [[] for _ in chains],
        "unmodelled": missing,
        "notes": list(notes),
    }
    write_json(folder / "prediction.json", scores)
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
