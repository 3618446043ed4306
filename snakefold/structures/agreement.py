"""How far two models of one target agree: TM-score, lDDT-CA, RMSD, DockQ.

Unlike a model and its reference, neither of two models is right by definition. What judges one structure by the
distances or the interfaces of the other is therefore taken both ways, and the mean is given.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snakefold.structures.compare import (
    Superposition,
    best_match,
    lddt,
    mean_dockq,
    superpose,
)
from snakefold.structures.io import ModelChain, PolymerChain, chain_name


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two models of one target, compared over the residues whose CA atom both have.

    `chain_map` has, for each chain of the target, the chain (0-based) of the second model that lies where the first
    model has that chain, None where one of them has none. `residues` are those compared, `only_first` and `only_second`
    those that the other model lacks. `tm_score` (0-1) is normalised by the length of the whole target, so it is at most
    the share of the residues that were compared. `rmsd_ca` is in angstrom, after superposition of all of these.
    `lddt_ca` (0-1) and `per_residue_lddt` (by residue of the first model's chains, None where nothing was compared) are
    means of both directions. `dockq` (0-1), so too, is None for single chains, where no chains touch, and where it
    could not be computed: then `dockq_fault` says why, in one line. `superposition` is that of the TM-score and puts
    the second model on the first.
    """

    tm_score: float
    rmsd_ca: float
    lddt_ca: float
    per_residue_lddt: tuple[tuple[float | None, ...], ...]
    dockq: float | None
    dockq_fault: str | None
    chain_map: tuple[int | None, ...]
    residues: int
    only_first: int
    only_second: int
    superposition: Superposition


def agreement(first: Sequence[ModelChain], second: Sequence[ModelChain], sequences: Sequence[str]) -> Agreement | None:
    """Compare two models of the target whose chains have these sequences; None with fewer than three common residues.

    Chains of one sequence are interchangeable: the assignment with the best TM-score over the whole complex is taken,
    but the order of the target is only left for a gain of at least 0.005, as noise decides in a symmetric complex.
    Raises ValueError if a model has other chains than the target.
    """
    if any([len(chain.sequence) for chain in model] != list(map(len, sequences)) for model in (first, second)):
        raise ValueError("its chains are not those of the target")
    same = {
        (one, other): [(index, index) for index in range(len(sequence))]
        for one, sequence in enumerate(sequences)
        for other, of_other in enumerate(sequences)
        if sequence == of_other
    }
    in_order = {
        number: number
        for number, (chain, other) in enumerate(zip(first, second, strict=True))
        if chain.atoms.keys() & other.atoms.keys()
    }
    match = best_match(first, _as_reference(second), same, length=sum(map(len, sequences)), preferred=in_order)
    if match is None:
        return None
    judged = match.judged
    both = judged.both
    first_ca, second_ca = judged.model_ca[both], judged.reference_ca[both]
    lddt_ca, per_judged = _lddt_both_ways(first_ca, second_ca)
    per_residue: list[list[float | None]] = [[None] * len(sequence) for sequence in sequences]
    shared = [where for where, is_shared in zip(judged.residues, both, strict=True) if is_shared]
    for (chain, index, _, _), value in zip(shared, per_judged, strict=True):
        per_residue[chain][index] = None if math.isnan(value) else float(value)
    count = len(shared)
    dockq, fault = None, None
    if len(sequences) > 1:
        try:
            dockq = _dockq_both_ways(first, second, shared, match.assignment)
        except Exception as error:  # other packages compute it, and the scores above stand without it
            fault = " ".join(f"{type(error).__name__}: {error}".split())
    return Agreement(
        tm_score=match.tm_score,
        rmsd_ca=superpose(second_ca, first_ca)[1],
        lddt_ca=lddt_ca,
        per_residue_lddt=tuple(map(tuple, per_residue)),
        dockq=dockq,
        dockq_fault=fault,
        chain_map=tuple(match.assignment.get(chain) for chain in range(len(sequences))),
        residues=count,
        only_first=_residues_with_ca(first) - count,
        only_second=_residues_with_ca(second) - count,
        superposition=match.superposition,
    )


def _as_reference(model: Sequence[ModelChain]) -> list[PolymerChain]:
    return [
        PolymerChain(
            name=chain_name(number),
            sequence=chain.sequence,
            residues={index: dict(atoms) for index, atoms in chain.atoms.items()},
        )
        for number, chain in enumerate(model)
    ]


def _residues_with_ca(model: Sequence[ModelChain]) -> int:
    return sum("CA" in atoms for chain in model for atoms in chain.atoms.values())


def _lddt_both_ways(first: np.ndarray, second: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean lDDT with either as the reference, whole and by residue; a residue without neighbours in one counts once."""
    groups = np.arange(len(first))
    (one, per_one), (other, per_other) = lddt(first, second, groups), lddt(second, first, groups)
    values = np.stack([per_one, per_other])
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
    whole = [value for value in (one, other) if not math.isnan(value)]
    return (sum(whole) / len(whole) if whole else 0.0), means


def _dockq_both_ways(
    first: Sequence[ModelChain],
    second: Sequence[ModelChain],
    shared: Sequence[tuple[int, int, int, int]],
    assignment: Mapping[int, int],
) -> float | None:
    """Mean DockQ with the interfaces of either as the right ones; None if neither has any."""
    back = [(other, other_index, chain, index) for chain, index, other, other_index in shared]
    found = [
        mean_dockq(first, _as_reference(second), shared, assignment),
        mean_dockq(second, _as_reference(first), back, {other: chain for chain, other in assignment.items()}),
    ]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None
