"""What the report shows of a comparison of engines, seen from one of the engines that it compares."""

from collections.abc import Mapping, Sequence
from typing import Any

from snakefold.report.summary import Prediction
from snakefold.structures.io import chain_name

_SHOWN = ("engines", "tm_score", "lddt_ca", "rmsd_ca", "dockq", "residues", "only", "superposition")


def pair_shown(pair: Mapping[str, Any]) -> Mapping[str, Any]:
    """A comparison of two engines without what is told residue by residue."""
    return {key: pair.get(key) for key in _SHOWN}


def per_residue_agreement(prediction: Prediction) -> list[list[float | None]]:
    """The lDDT-CA (0-1) of each residue to the other engines' models, their mean, chain by chain; none without any."""
    of_pairs = [_of_engine(prediction, pair) for pair in prediction.own_pairs]
    return [[_mean(values) for values in zip(*of_chain, strict=True)] for of_chain in zip(*of_pairs, strict=True)]


def _of_engine(prediction: Prediction, pair: Mapping[str, Any]) -> Sequence[Sequence[float | None]]:
    """A pair's values in the order of this engine's chains: the file has that of its first engine."""
    values: Sequence[Sequence[float | None]] = pair["per_residue_lddt"]
    if pair["engines"][0] == prediction.engine:
        return values
    of_chain = {name: values[index] for index, name in enumerate(pair["chains"]) if name is not None}
    return [
        of_chain.get(chain_name(index)) or [None] * int(chain["length"])
        for index, chain in enumerate(prediction.chains)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
