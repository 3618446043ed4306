"""`comparison.<engines>.json`: how far the engines that predicted one target agree."""

import traceback
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from snakefold.errors import SnakefoldError
from snakefold.files import write_json
from snakefold.report.summary import Prediction, read_prediction
from snakefold.structures.agreement import Agreement, agreement
from snakefold.structures.io import ModelChain, chain_name, read_model


def compare_engines(folders: Sequence[Path], comparison: Path) -> None:
    """Compare every two of the finished predictions `<results>/<target>/<engine>` of one target.

    A prediction that failed or was skipped is left out by name, and so is whatever cannot be compared: one bad model
    must not cost the others their comparison. Equal predictions give equal bytes.
    """
    predictions = [read_prediction(folder) for folder in folders]
    left_out = {
        each.engine: f"{each.outcome}: {each.status.get('reason') or 'no reason was recorded'}"
        for each in predictions
        if each.outcome != "done"
    }
    models: dict[str, tuple[ModelChain, ...]] = {}
    done = [each for each in predictions if each.outcome == "done"]
    for prediction in done:
        try:
            models[prediction.engine] = read_model(prediction.folder / "model.cif")
        except SnakefoldError as error:
            # The path belongs to one machine.
            left_out[prediction.engine] = str(error).replace(str(prediction.folder), prediction.engine)
    pairs, notes = [], []
    for first, second in combinations(models, 2):
        try:
            found = agreement(models[first], models[second], _sequences(done))
        except Exception as error:  # the run goes on with what can be compared, the log tells what went wrong
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            notes.append(f"{first} and {second} were not compared: {reason}")
            continue
        if found is None:
            notes.append(f"{first} and {second} have fewer than three residues in common")
        else:
            pairs.append(_pair(first, second, found))
            if found.dockq_fault:
                notes.append(f"{first} and {second} have no DockQ: {found.dockq_fault}")
    write_json(
        comparison,
        {
            "target": predictions[0].target,
            "engines": list(models),
            "length": sum(map(len, _sequences(done))) if done else None,
            "left_out": left_out,
            "pairs": pairs,
            "notes": notes,
        },
    )


def _sequences(done: Sequence[Prediction]) -> list[str]:
    return [str(chain["sequence"]) for chain in done[0].chains]


def _pair(first: str, second: str, found: Agreement) -> Mapping[str, Any]:
    return {
        "engines": [first, second],
        "tm_score": round(found.tm_score, 4),
        "lddt_ca": round(found.lddt_ca, 4),
        "rmsd_ca": round(found.rmsd_ca, 3),
        "dockq": None if found.dockq is None else round(found.dockq, 4),
        "residues": found.residues,
        "only": [found.only_first, found.only_second],
        "chains": [None if other is None else chain_name(other) for other in found.chain_map],
        "per_residue_lddt": [
            [None if value is None else round(value, 4) for value in values] for values in found.per_residue_lddt
        ],
        "superposition": {
            "rotation": [[round(float(value), 6) for value in row] for row in found.superposition.rotation],
            "shift": [round(float(value), 3) for value in found.superposition.shift],
        },
    }
