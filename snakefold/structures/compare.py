"""How near a model comes to an experimental structure: TM-score, RMSD, lDDT, DockQ.

Model and reference are matched by sequence, so the TM-score is the sequence-dependent one and no structural alignment
hides a register shift. Only residues resolved in the reference can be judged, and all of them count: a residue that the
model lacks scores 0 in TM-score and lDDT.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from snakefold.errors import SnakefoldError
from snakefold.structures.io import ModelChain, PolymerChain, read_assembly, read_chains
from snakefold.structures.residues import BACKBONE, NAME_OF_LETTER, SYMMETRIC_ATOMS, element_of, output_order

LDDT_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)
"""Differences of distance that count as preserved, angstrom."""
LDDT_RADIUS = 15.0
"""Distances in the reference up to this are judged, angstrom."""

_LEAST_IDENTITY = 0.7
_LEAST_ALIGNED = 8
_MAX_PERMUTATIONS = 120
_MAX_ASSIGNMENTS_SEARCHED = 16
_RESIDUES_SEARCHED = 10_000
_SEARCH_ROUNDS = 20
_LEAST_GAIN = 0.005
_SEARCH_LEVELS = 6


@dataclass(frozen=True, kw_only=True)
class Superposition:
    """`moved = positions @ rotation.T + shift` puts positions (shape (n, 3), angstrom) onto the other structure."""

    rotation: np.ndarray
    shift: np.ndarray

    def apply(self, positions: np.ndarray) -> np.ndarray:
        """Move positions of shape (n, 3) or (3,)."""
        return positions @ self.rotation.T + self.shift


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model against a reference.

    All scores are 0-1 except `rmsd_ca` (angstrom, over the CA atoms that both have, after superposition of them all).
    `coverage` is the share of judged residues that the model has; `per_residue_lddt` holds lDDT-CA for every residue of
    every model chain, None where the reference says nothing. `chain_map` names the reference chain of each model chain.
    `dockq` is the mean over the reference's interfaces, None for single chains and where no two mapped chains touch.
    `reference` is the whole reference moved onto the model; the chains of the model come first and in its order.
    """

    tm_score: float
    rmsd_ca: float
    lddt: float
    lddt_ca: float
    coverage: float
    dockq: float | None
    per_residue_lddt: tuple[tuple[float | None, ...], ...]
    chain_map: tuple[str | None, ...]
    reference: tuple[PolymerChain, ...]


Alignments = Mapping[tuple[int, int], Sequence[tuple[int, int]]]
"""For (model chain, reference chain) that are one protein, the pairs of residues that are the same."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The residues to judge under one assignment of chains: (model chain, residue, reference chain, residue).

    CA positions have shape (n, 3), in angstrom; those of residues that the model lacks are NaN.
    """

    residues: list[tuple[int, int, int, int]]
    model_ca: np.ndarray
    reference_ca: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """Which of them the model has too, shape (n,)."""
        return np.asarray(np.isfinite(self.model_ca).all(axis=1))


@dataclass(frozen=True, kw_only=True)
class Match:
    """The assignment (model chain -> reference chain) of the best TM-score, and the superposition that gives it.

    `superposition` puts the reference on the model.
    """

    tm_score: float
    assignment: Mapping[int, int]
    superposition: Superposition
    judged: Judged


def compare(model: Sequence[ModelChain], reference: Path) -> Comparison:
    """Compare a model with the reference structure in an mmCIF or PDB file.

    Chains are matched by sequence (at least 70 % identity); among equal chains the assignment with the best TM-score is
    taken. A single chain is sought in the asymmetric unit, a complex in biological assembly 1 unless the asymmetric
    unit has more of its chains. Raises SnakefoldError if the reference cannot be read or nothing matches.
    """
    references, alignments = _matching_chains(model, reference)
    match = best_match(model, references, alignments)
    if match is None:
        raise SnakefoldError(f"{reference}: shares fewer than three residues with coordinates with the model")
    assignment, judged = match.assignment, match.judged
    both = judged.both
    _, rmsd = superpose(judged.reference_ca[both], judged.model_ca[both])
    lddt_ca, per_judged = _lddt_of_ca(judged)
    per_residue: list[list[float | None]] = [[None] * len(chain.sequence) for chain in model]
    for (chain, index, _, _), value in zip(judged.residues, per_judged, strict=True):
        per_residue[chain][index] = None if math.isnan(value) else float(value)
    order = [assignment[index] for index in sorted(assignment)]
    order += [index for index in range(len(references)) if index not in order]
    return Comparison(
        tm_score=match.tm_score,
        rmsd_ca=rmsd,
        lddt=_lddt_of_all_atoms(model, references, judged),
        lddt_ca=lddt_ca,
        coverage=float(both.mean()),
        dockq=mean_dockq(model, references, judged.residues, assignment),
        per_residue_lddt=tuple(tuple(values) for values in per_residue),
        chain_map=tuple(
            references[assignment[index]].name if index in assignment else None for index in range(len(model))
        ),
        reference=tuple(_moved(references[index], match.superposition) for index in order),
    )


def best_match(
    model: Sequence[ModelChain],
    references: Sequence[PolymerChain],
    alignments: Alignments,
    *,
    length: int | None = None,
    preferred: Mapping[int, int] | None = None,
) -> Match | None:
    """The assignment of chains with the best TM-score; None if no three residues are in both.

    `length` normalises the TM-score (see `tm_score`). The assignment `preferred`, of chains that `alignments` pairs, is
    left only for one whose TM-score is better by at least 0.005.
    """
    pairs = {pair: _judged_of_pair(model, references, pair, aligned) for pair, aligned in alignments.items()}
    best: Match | None = None
    for assignment in ([preferred] if preferred else []) + _assignments(model, references, pairs):
        judged = _joined(pairs, assignment)
        if judged.both.sum() < 3:
            continue
        score, superposition = tm_score(judged.reference_ca, judged.model_ca, length=length)
        # Equal scores keep the earlier assignment, so that chance in the last digits does not rename chains.
        least_gain = _LEAST_GAIN if best is not None and best.assignment is preferred else 1e-6
        if best is None or score > best.tm_score + least_gain:
            best = Match(tm_score=score, assignment=assignment, superposition=superposition, judged=judged)
        if score > 1 - 1e-6:
            break
    return best


def superpose(mobile: np.ndarray, fixed: np.ndarray, weights: np.ndarray | None = None) -> tuple[Superposition, float]:
    """Best superposition of `mobile` on `fixed` (both shape (n, 3), angstrom) and its (weighted) RMSD in angstrom.

    Kabsch (1976) Acta Cryst. A32, 922-923.
    """
    weights = np.ones(len(mobile)) if weights is None else weights
    rotations, shifts = _fit_many(mobile, fixed, weights[None, :])
    superposition = Superposition(rotation=rotations[0], shift=shifts[0])
    squares = ((superposition.apply(mobile) - fixed) ** 2).sum(axis=1)
    return superposition, float(np.sqrt((weights * squares).sum() / weights.sum()))


def tm_d0(length: int) -> float:
    """The distance scale of the TM-score in angstrom (Zhang & Skolnick 2004), at least 0.5."""
    return max(0.5, 1.24 * float(np.cbrt(length - 15)) - 1.8)


def tm_score(reference: np.ndarray, model: np.ndarray, *, length: int | None = None) -> tuple[float, Superposition]:
    """TM-score of paired CA atoms, maximised over superpositions, and the one that puts `reference` on `model`.

    Both have shape (n, 3) in angstrom; rows of NaN in `model` are residues that it lacks. `length` normalises the score
    and sets d0; without it n does, the number of judged residues of the reference. Raises ValueError with fewer than
    three residues in both. Zhang & Skolnick (2004) Proteins 57, 702-710: superpositions of fragments of falling length
    are refined over the residues that they bring together; here the best of them is then improved by weighted fits.
    """
    length = length or len(reference)
    present = ~np.isnan(model).any(axis=1)
    mobile, fixed = reference[present], model[present]
    if len(mobile) < 3:
        raise ValueError("a TM-score needs three residues in both structures")
    d0 = tm_d0(length)
    cutoff = min(max(d0, 4.5), 8.0)
    best_score, best = -1.0, Superposition(rotation=np.eye(3), shift=np.zeros(3))
    for weights in _fragment_weights(len(mobile)):
        for round_number in range(_SEARCH_ROUNDS):
            rotations, shifts = _fit_many(mobile, fixed, weights)
            moved = np.einsum("bij,nj->bni", rotations, mobile, optimize=True) + shifts[:, None, :]
            distances = np.linalg.norm(moved - fixed, axis=2)
            scores = (1 / (1 + (distances / d0) ** 2)).sum(axis=1) / length
            top = int(scores.argmax())
            if scores[top] > best_score:
                best_score, best = float(scores[top]), Superposition(rotation=rotations[top], shift=shifts[top])
            # The first cut is tighter, as in the program of the paper. At least three residues must stay.
            limit = np.maximum(cutoff + (-1 if round_number == 0 else 1), np.partition(distances, 2, axis=1)[:, 2:3])
            selected = (distances <= limit).astype(float)
            if np.array_equal(selected, weights):
                break
            weights = selected
    for _ in range(_SEARCH_ROUNDS):
        # At a maximum of the score, its gradient is that of a least-squares fit with these weights.
        distances = np.linalg.norm(best.apply(mobile) - fixed, axis=1)
        refined, _ = superpose(mobile, fixed, 1 / (1 + (distances / d0) ** 2) ** 2)
        distances = np.linalg.norm(refined.apply(mobile) - fixed, axis=1)
        score = float((1 / (1 + (distances / d0) ** 2)).sum() / length)
        if score <= best_score + 1e-9:
            break
        best_score, best = score, refined
    return best_score, best


def lddt(
    reference: np.ndarray, model: np.ndarray, groups: np.ndarray, *, radius: float = LDDT_RADIUS
) -> tuple[float, np.ndarray]:
    """Local distance difference test: the share of preserved distances, and that of each group's distances.

    `reference` and `model` are paired positions of shape (n, 3) in angstrom; rows of NaN in `model` are atoms that it
    lacks, whose distances are lost. `groups` (int, shape (n,)) number the residues from 0; distances within a residue
    do not count. The second result has one value for each group, NaN where it has no distances; so is the first if
    there are none at all. Mariani et al. (2013) Bioinformatics 29, 2722-2728, without its check of stereochemistry.
    """
    first, second = _distances_to_judge(reference, groups, radius)
    kept = _preserved(reference, model[first], model[second], first, second)
    count = int(groups.max()) + 1 if len(groups) else 0
    owners = np.concatenate([groups[first], groups[second]])
    totals = np.bincount(owners, minlength=count)
    sums = np.bincount(owners, weights=np.concatenate([kept, kept]), minlength=count)
    with np.errstate(invalid="ignore"):
        per_group = sums / totals
    return (float(kept.mean()) if len(kept) else math.nan), per_group


def lddt_of_same_atoms(reference: Sequence[ModelChain], model: Sequence[ModelChain]) -> tuple[float, float]:
    """LDDT of CA atoms, and of all atoms, between two states of one model: the same chains, moved.

    Atoms of `reference` that `model` lacks lose their distances; atoms that only `model` has are not judged. Names of
    symmetric atoms are not exchanged. NaN where there are no distances.
    """
    missing = np.full(3, np.nan)
    rows = [
        (group, name == "CA", xyz, other.get(name, missing))
        for group, (atoms, other) in enumerate(
            (chain.atoms[index], moved.atoms.get(index, {}))
            for chain, moved in zip(reference, model, strict=True)
            for index in sorted(chain.atoms)
        )
        for name, xyz in atoms.items()
    ]
    groups = np.array([group for group, *_ in rows], dtype=int)
    is_ca = np.array([ca for _, ca, *_ in rows], dtype=bool)
    wanted = np.array([xyz for *_, xyz, _ in rows], dtype=float).reshape(-1, 3)
    found = np.array([xyz for *_, xyz in rows], dtype=float).reshape(-1, 3)
    return lddt(wanted[is_ca], found[is_ca], groups[is_ca])[0], lddt(wanted, found, groups)[0]


def _distances_to_judge(reference: np.ndarray, groups: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    pairs = KDTree(reference).query_pairs(radius, output_type="ndarray") if len(reference) else np.empty((0, 2), int)
    first, second = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]].T
    return first, second


def _preserved(
    reference: np.ndarray, model_first: np.ndarray, model_second: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """For each distance the share (0, 0.25 ... 1) of thresholds under which it is preserved; NaN positions give 0."""
    wanted = np.linalg.norm(reference[first] - reference[second], axis=1)
    found = np.linalg.norm(model_first - model_second, axis=1)
    difference = np.abs(wanted - found)
    return np.mean([difference <= threshold for threshold in LDDT_THRESHOLDS], axis=0)


def _lddt_of_ca(judged: Judged) -> tuple[float, np.ndarray]:
    return lddt(judged.reference_ca, judged.model_ca, np.arange(len(judged.residues)))


def _lddt_of_all_atoms(model: Sequence[ModelChain], references: Sequence[PolymerChain], judged: Judged) -> float:
    """LDDT over all heavy atoms; names of symmetric side-chain atoms are exchanged where that agrees better."""
    wanted, found, exchanged, groups, ambiguous = [], [], [], [], []
    missing = np.full(3, np.nan)
    for group, (chain, index, other, other_index) in enumerate(judged.residues):
        atoms = model[chain].atoms.get(index, {})
        letter = model[chain].sequence[index]
        same = references[other].sequence[other_index] == letter
        partner = {}
        for pair in SYMMETRIC_ATOMS.get(letter, ()) if same else ():
            partner[pair[0]], partner[pair[1]] = pair[1], pair[0]
        for name, position in references[other].residues[other_index].items():
            # Of a mutated residue only the backbone and CB can be compared.
            if same or name in (*BACKBONE, "CB"):
                wanted.append(position)
                found.append(atoms.get(name, missing))
                exchanged.append(atoms.get(partner.get(name, name), missing))
                groups.append(group)
                ambiguous.append(name in partner)
    reference_xyz, model_xyz, exchanged_xyz = np.array(wanted), np.array(found), np.array(exchanged)
    group_of, is_ambiguous = np.array(groups), np.array(ambiguous)
    first, second = _distances_to_judge(reference_xyz, group_of, LDDT_RADIUS)
    # One name of the pair is chosen by its distances to atoms that have only one name (Mariani et al. 2013).
    one = is_ambiguous[first] != is_ambiguous[second]
    outer = np.where(is_ambiguous[first[one]], first[one], second[one])
    inner = np.where(is_ambiguous[first[one]], second[one], first[one])
    as_named = _preserved(reference_xyz, model_xyz[outer], model_xyz[inner], outer, inner)
    if_exchanged = _preserved(reference_xyz, exchanged_xyz[outer], model_xyz[inner], outer, inner)
    gain = np.bincount(group_of[outer], weights=if_exchanged - as_named, minlength=len(judged.residues))
    chosen = np.where((gain[group_of] > 1e-9)[:, None], exchanged_xyz, model_xyz)
    return float(_preserved(reference_xyz, chosen[first], chosen[second], first, second).mean()) if len(first) else 0.0


def _fragment_weights(length: int) -> Iterator[np.ndarray]:
    """Batches (shape (seeds, length)) of 0/1 weights that select fragments of falling length along the chain."""
    fragment = length
    for _ in range(_SEARCH_LEVELS):
        step = max(1, fragment // 2)
        starts = sorted({*range(0, length - fragment + 1, step), length - fragment})
        weights = np.zeros((len(starts), length))
        for row, start in enumerate(starts):
            weights[row, start : start + fragment] = 1
        yield weights
        if fragment <= 4:
            return
        fragment = max(4, fragment // 2)


def _fit_many(mobile: np.ndarray, fixed: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kabsch fits for many weightings: weights (b, n) -> rotations (b, 3, 3) and shifts (b, 3)."""
    total = weights.sum(axis=1, keepdims=True)
    mobile_centres, fixed_centres = weights @ mobile / total, weights @ fixed / total
    covariances = np.einsum("bn,ni,nj->bij", weights, mobile, fixed, optimize=True)
    covariances -= total[:, :, None] * mobile_centres[:, :, None] * fixed_centres[:, None, :]
    left, _, right = np.linalg.svd(covariances)
    # A mirror image would fit better: the axis of the smallest singular value is turned back.
    right[:, 2, :] *= np.sign(np.linalg.det(left @ right))[:, None]
    rotations = np.transpose(left @ right, (0, 2, 1))
    return rotations, fixed_centres - np.einsum("bij,bj->bi", rotations, mobile_centres)


def _matching_chains(
    model: Sequence[ModelChain], path: Path
) -> tuple[list[PolymerChain], dict[tuple[int, int], list[tuple[int, int]]]]:
    """Reference chains, and for (model chain, reference chain) of like sequence the pairs of aligned residues."""
    units = [read_chains(path)]
    if len(model) > 1:
        units.insert(0, read_assembly(path))
    known: dict[tuple[str, str], list[tuple[int, int]]] = {}
    best: tuple[int, list[PolymerChain], dict[tuple[int, int], list[tuple[int, int]]]] | None = None
    for unit in units:
        references = [chain for chain in unit if chain.residues]
        alignments = {}
        for (first, chain), (second, other) in itertools.product(enumerate(model), enumerate(references)):
            key = (chain.sequence, other.sequence)
            if key not in known:
                known[key] = _aligned_residues(*key)
            if known[key]:
                alignments[first, second] = known[key]
        possible = np.zeros((len(model), len(references)))
        for pair in alignments:
            possible[pair] = 1
        found = int(possible[linear_sum_assignment(-possible)].sum())
        if best is None or found > best[0]:
            best = (found, references, alignments)
    if best is None or best[0] == 0:
        raise SnakefoldError(f"{path}: no chain has the sequence of the model; is it the structure of another protein?")
    return best[1], best[2]


def _aligned_residues(sequence: str, other: str) -> list[tuple[int, int]]:
    """Pairs of aligned positions of two sequences; none if these are not the same protein."""
    if sequence == other:
        return [(index, index) for index in range(len(sequence))]
    # Imported here: it takes a third of a second and equal sequences do not need it.
    from Bio.Align import PairwiseAligner, substitution_matrices

    aligner = PairwiseAligner(mode="global", open_gap_score=-11, extend_gap_score=-1, end_gap_score=0)
    aligner.substitution_matrix = substitution_matrices.load("BLOSUM62")
    first, second = aligner.align(sequence, other)[0].aligned
    pairs = [
        (start + offset, other_start + offset)
        for (start, end), (other_start, _) in zip(first.tolist(), second.tolist(), strict=True)
        for offset in range(end - start)
    ]
    equal = sum(sequence[index] == other[other_index] for index, other_index in pairs)
    least = min(_LEAST_ALIGNED, len(sequence), len(other))
    return pairs if len(pairs) >= least and equal >= _LEAST_IDENTITY * len(pairs) else []


def _assignments(
    model: Sequence[ModelChain],
    references: Sequence[PolymerChain],
    pairs: Mapping[tuple[int, int], Judged],
) -> list[Mapping[int, int]]:
    """Assignments model chain -> reference chain worth a search for the best TM-score, the most promising first.

    Every superposition of one chain on one of its likenesses proposes that which brings the other chains nearest to
    theirs; for few chains all permutations are looked at as well.
    """
    proposals = _nearest_assignments(len(model), len(references), pairs)
    choices = [[other for other in range(len(references)) if (chain, other) in pairs] for chain in range(len(model))]
    if math.prod(len(choice) or 1 for choice in choices) <= _MAX_PERMUTATIONS:
        for picked in itertools.product(*(choice or [None] for choice in choices)):
            assignment = {chain: other for chain, other in enumerate(picked) if other is not None}
            if len(set(assignment.values())) == len(assignment):
                proposals.append(assignment)
    distinct: dict[tuple[tuple[int, int], ...], Mapping[int, int]] = {
        tuple(sorted(proposal.items())): proposal for proposal in proposals if proposal
    }
    ranked = []
    for key, proposal in distinct.items():
        judged = _joined(pairs, proposal)
        if judged.both.sum() >= 3:
            ranked.append((-len(proposal), -_quick_tm_score(judged), key))
    residues = sum(len(chain.atoms) for chain in model)
    searched = min(_MAX_ASSIGNMENTS_SEARCHED, max(2, _RESIDUES_SEARCHED // max(1, residues)))
    return [distinct[key] for _, _, key in sorted(ranked)[:searched]]


def _quick_tm_score(judged: Judged) -> float:
    """The TM-score when all chains are superposed, or any one of them, whichever is best; rounded against chance."""
    both = judged.both
    chains = np.array([chain for chain, *_ in judged.residues])[both]
    mobile, fixed = judged.reference_ca[both], judged.model_ca[both]
    weights = np.array([np.ones(len(chains))] + [(chains == chain).astype(float) for chain in np.unique(chains)])
    rotations, shifts = _fit_many(mobile, fixed, weights[weights.sum(axis=1) >= 3])
    moved = np.einsum("bij,nj->bni", rotations, mobile, optimize=True) + shifts[:, None, :]
    squares = ((moved - fixed) ** 2).sum(axis=2)
    return round(float((1 / (1 + squares / tm_d0(len(both)) ** 2)).sum(axis=1).max()) / len(both), 6)


def _nearest_assignments(
    chains: int, references: int, pairs: Mapping[tuple[int, int], Judged]
) -> list[Mapping[int, int]]:
    """What each pair of chains proposes when it is superposed: every chain goes to the nearest of its likenesses.

    The costs are mean distances of the CA atoms that both have, in angstrom.
    """
    present = {pair: judged.both for pair, judged in pairs.items() if judged.both.any()}
    if not present:
        return []
    sizes = np.array([both.sum() for both in present.values()])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows, columns = np.array(list(present)).T
    fixed = np.concatenate([pairs[pair].model_ca[both] for pair, both in present.items()])
    mobile = np.concatenate([pairs[pair].reference_ca[both] for pair, both in present.items()])
    far = 1e6
    proposals: list[Mapping[int, int]] = []
    for start, size in zip(starts, sizes, strict=True):
        if size < 3:
            continue
        anchor = slice(start, start + size)
        superposition, _ = superpose(mobile[anchor], fixed[anchor])
        distances = np.linalg.norm(superposition.apply(mobile) - fixed, axis=1)
        costs = np.full((chains, references), far)
        costs[rows, columns] = np.add.reduceat(distances, starts) / sizes
        proposals.append(
            {
                int(chain): int(other)
                for chain, other in zip(*linear_sum_assignment(costs), strict=True)
                if costs[chain, other] < far
            }
        )
    return proposals


def _judged_of_pair(
    model: Sequence[ModelChain],
    references: Sequence[PolymerChain],
    pair: tuple[int, int],
    aligned: Sequence[tuple[int, int]],
) -> Judged:
    missing = np.full(3, np.nan)
    chain, other = pair
    residues, model_ca, reference_ca = [], [], []
    for index, other_index in aligned:
        position = references[other].residues.get(other_index, {}).get("CA")
        if position is not None:
            residues.append((chain, index, other, other_index))
            reference_ca.append(position)
            model_ca.append(model[chain].atoms.get(index, {}).get("CA", missing))
    return Judged(
        residues=residues,
        model_ca=np.array(model_ca, dtype=float).reshape(-1, 3),
        reference_ca=np.array(reference_ca, dtype=float).reshape(-1, 3),
    )


def _joined(pairs: Mapping[tuple[int, int], Judged], assignment: Mapping[int, int]) -> Judged:
    """The residues to judge under an assignment, from those of each of its pairs of chains."""
    parts = [pairs[pair] for pair in sorted(assignment.items())]
    none = np.empty((0, 3))
    return Judged(
        residues=[residue for part in parts for residue in part.residues],
        model_ca=np.concatenate([none, *(part.model_ca for part in parts)]),
        reference_ca=np.concatenate([none, *(part.reference_ca for part in parts)]),
    )


def mean_dockq(
    model: Sequence[ModelChain],
    references: Sequence[PolymerChain],
    residues: Sequence[tuple[int, int, int, int]],
    assignment: Mapping[int, int],
) -> float | None:
    """Mean DockQ over the interfaces of the reference (Mirabello & Wallner 2024, Bioinformatics 40, btae586).

    `residues` are those to judge (see `Judged`). None for single chains and where the reference has no interface.
    """
    if len(assignment) < 2:
        return None
    # Imported here: peppr loads RDKit, which a comparison of single chains need not wait for.
    import biotite.structure as biotite_structure
    import peppr

    arrays = {}
    for chain in assignment:
        rows = [row for row in residues if row[0] == chain]
        atoms: list[tuple[str, str, int, np.ndarray, np.ndarray]] = []
        for _, index, other, other_index in rows:
            letter = model[chain].sequence[index]
            found, wanted = model[chain].atoms.get(index, {}), references[other].residues[other_index]
            atoms += [
                (name, NAME_OF_LETTER.get(letter, "UNK"), index + 1, found[name], wanted[name])
                for name in output_order(letter, found.keys() & wanted.keys())
            ]
        for kind, column in (("pose", 3), ("reference", 4)):
            array = biotite_structure.AtomArray(len(atoms))
            array.coord = np.array([atom[column] for atom in atoms], dtype=np.float32).reshape(-1, 3)
            array.atom_name = np.array([atom[0] for atom in atoms], dtype="U6")
            array.res_name = np.array([atom[1] for atom in atoms], dtype="U5")
            array.res_id = np.array([atom[2] for atom in atoms], dtype=int)
            array.element = np.array([element_of(atom[0]) for atom in atoms], dtype="U2")
            array.chain_id = np.full(len(atoms), str(chain), dtype="U4")
            arrays[kind, chain] = array
    scores = []
    for first, second in itertools.combinations(sorted(assignment), 2):
        if not len(arrays["pose", first]) or not len(arrays["pose", second]):
            continue
        # By convention the longer chain is the receptor.
        if len(arrays["reference", first]) < len(arrays["reference", second]):
            first, second = second, first
        result = peppr.dockq(
            arrays["reference", first], arrays["reference", second], arrays["pose", first], arrays["pose", second]
        )
        if not np.isnan(result.score):
            scores.append(float(result.score))
    return float(np.mean(scores)) if scores else None


def _moved(chain: PolymerChain, superposition: Superposition) -> PolymerChain:
    return PolymerChain(
        name=chain.name,
        sequence=chain.sequence,
        copy_of=chain.copy_of,
        residues={
            index: {atom: superposition.apply(position) for atom, position in atoms.items()}
            for index, atoms in chain.residues.items()
        },
    )
