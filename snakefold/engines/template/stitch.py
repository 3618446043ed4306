"""Further templates of a chain: what they give where the main one has nothing.

A chain's main template may lack a loop, an end or a domain that another one shows. Such a piece is superposed by the
residues around it that both templates have, and taken over if those agree in how it lies. A piece that no template
shows together with the rest is not placed at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.backbone import Backbone, copy_backbone
from snakefold.engines.template.building import Array
from snakefold.engines.template.realign import realigned
from snakefold.engines.template.templates import (
    ChainTemplate,
    Hits,
    TemplateHit,
    chains_of_entry,
    expected_quality,
    trust,
)
from snakefold.structures.compare import Superposition, superpose
from snakefold.structures.io import PolymerChain

MOST_TEMPLATES = 4
"""Pieces of one chain that may come from other templates than the main one."""

_MOST_ENTRIES = 5
_MOST_CANDIDATES = 6

# A loop: inner residues without template, and the flanks on either side by which it is laid on.
_LONGEST_LOOP = 40
_FLANK = 5
_LOOP_RMSD = 1.5
_CUT = 4
_CUT_COST = 0.2
_BOND, _CA_STEP = 1.33, 3.8

# An end or a domain: the residues next to it that both templates have.
_SHORTEST_END = 4
_FEWEST_SHARED = 15
_MOST_SHARED = 40
_DOMAIN_RMSD = 2.5

_LEAST_DOMAIN = 20.0
"""Residues, each counted by its posterior, that make a domain worth a word when it cannot be placed."""

_LEAST_POSTERIOR = 0.3
_CLASH = 3.6
_CLASHES_ALLOWED = 0.05


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A range (half-open) of the target that a candidate can give, moved by `placed`; `gain` the more the better."""

    start: int
    end: int
    placed: Superposition
    gain: float


def stitched(task: FoldTask, mains: Sequence[ChainTemplate], hits: Hits) -> tuple[tuple[ChainTemplate, ...], ...]:
    """Every chain's templates, the main one first, then those that give what it lacks, in its frame."""
    sequences = [chain.sequence for chain in task.chains]
    bases = [copy_backbone(sequence, [main]) for sequence, main in zip(sequences, mains, strict=True)]
    result: list[tuple[ChainTemplate, ...]] = []
    for number, (chain, main) in enumerate(zip(task.chains, mains, strict=True)):
        others = [base.atoms[base.modelled, 1] for index, base in enumerate(bases) if index != number]
        surroundings = np.concatenate([*others, np.zeros((0, 3))])
        templates = _completed(task, chain, main, bases[number], hits[chain], surroundings)
        bases[number] = copy_backbone(chain.sequence, templates)
        result.append(templates)
    return tuple(result)


def unplaced(backbone: Backbone, hits: Sequence[TemplateHit]) -> Iterator[tuple[int, int, TemplateHit]]:
    """Long ranges (half-open) that a chain lacks although a hit covers them, and the best such hit of each.

    They are domains of which no template shows how they lie to the rest.
    """
    for start, end in _defects(backbone):
        best: tuple[float, int, int, TemplateHit] | None = None
        for hit in hits:
            alignment = hit.alignment
            inside = (alignment.target >= start) & (alignment.target < end)
            weight = float(alignment.posterior[inside].sum())
            if weight >= _LEAST_DOMAIN and (best is None or weight > best[0]):
                covered = alignment.target[inside]
                best = weight, int(covered[0]), int(covered[-1]) + 1, hit
        if best is not None:
            yield best[1:]


def _completed(
    task: FoldTask,
    chain: ChainInputs,
    main: ChainTemplate,
    base: Backbone,
    hits: Sequence[TemplateHit],
    surroundings: Array,
) -> tuple[ChainTemplate, ...]:
    """The chain's templates: the main one, and those of the others whose pieces it takes, best piece first."""
    if not list(_wanted(base)):
        return (main,)
    candidates = [
        (candidate, copy_backbone(chain.sequence, [candidate]))
        for candidate in _candidates(task, chain, main, base, hits)
    ]
    templates = [main]
    while len(templates) <= MOST_TEMPLATES:
        best: tuple[_Piece, ChainTemplate] | None = None
        for candidate, other in candidates:
            worth = trust(candidate.alignment.identity(chain.sequence, candidate.chain.sequence))
            for piece in _pieces(base, other, worth, surroundings):
                if best is None or piece.gain > best[0].gain:
                    best = piece, candidate
        if best is None:
            break
        piece, candidate = best
        templates.append(
            replace(candidate, chain=_moved(candidate.chain, piece.placed), gives=((piece.start, piece.end),))
        )
        base = copy_backbone(chain.sequence, templates)
    return tuple(templates)


def _candidates(
    task: FoldTask, chain: ChainInputs, main: ChainTemplate, base: Backbone, hits: Sequence[TemplateHit]
) -> list[ChainTemplate]:
    """Other templates whose alignments reach residues that the main one lacks, aligned anew; the best first."""
    length = len(chain.sequence)
    ranked = sorted(hits, key=lambda hit: (-expected_quality(hit, length), hit.entry, hit.chain))
    promising = [hit for hit in ranked if _reaches(hit, base) or hit.entry == main.hit.entry]
    entries = list(dict.fromkeys(hit.entry for hit in promising))[:_MOST_ENTRIES]
    found: list[ChainTemplate] = []
    for entry in entries:
        for option in chains_of_entry(chain.sequence, hits, entry):
            same = (option.hit.entry, option.chain.name) == (main.hit.entry, main.chain.name)
            if not same and _reaches(option.hit, base):
                found.append(option)
    found = found[:_MOST_CANDIDATES]
    return list(realigned(replace(task, chains=(chain,) * len(found)), found))


def _reaches(hit: TemplateHit, base: Backbone) -> bool:
    """Whether an alignment pairs residues that the backbone lacks, or goes on without a gap where it is broken."""
    aligned = np.zeros(len(base.sequence), dtype=bool)
    aligned[hit.alignment.target] = True
    first, last = int(hit.alignment.target[0]), int(hit.alignment.target[-1])
    for start, end in _wanted(base):
        if start == 0 or end == len(aligned):
            # Aligning anew carries the ends of a search's alignment on.
            if first <= end and last >= start:
                return True
        elif aligned[start:end].any() or (start == end and aligned[start - 1 : end + 1].all()):
            return True
    return False


def _defects(backbone: Backbone) -> list[tuple[int, int]]:
    """Half-open ranges without coordinates, and empty ones between neighbours that are not bonded."""
    modelled = backbone.modelled
    found: list[tuple[int, int]] = []
    start = 0
    for index in range(len(modelled) + 1):
        if index < len(modelled) and not modelled[index]:
            continue
        if start < index:
            found.append((start, index))
        elif 0 < index < len(modelled) and not backbone.bonded(index - 1):
            found.append((index, index))
        start = index + 1
    return found


def _wanted(base: Backbone) -> Iterator[tuple[int, int]]:
    """The defects that another template could mend; short ends are built without one."""
    for start, end in _defects(base):
        inner = start > 0 and end < len(base.sequence)
        if inner or end - start >= _SHORTEST_END:
            yield start, end


def _pieces(base: Backbone, other: Backbone, worth: float, surroundings: Array) -> Iterator[_Piece]:
    """What `other` can give where `base` has nothing, placed in its frame and free of clashes."""
    foreign = base.source > 0
    for start, end in _defects(base):
        # What does not fit where a piece was taken before is left to the loops.
        if end - start < _SHORTEST_END and foreign[max(start - 1, 0) : end + 1].any():
            continue
        inner = start > 0 and end < len(base.sequence)
        piece = _loop(base, other, start, end, worth) if inner and end - start <= _LONGEST_LOOP else None
        if piece is None and end - start >= _SHORTEST_END:
            piece = _end_or_domain(base, other, start, end, worth)
        if piece is not None and not _clashes(base, other, piece, surroundings):
            yield piece


def _loop(base: Backbone, other: Backbone, start: int, end: int, worth: float) -> _Piece | None:
    """A loop that runs in `other` without a break from flank to flank."""
    first, last = start - _FLANK, end + _FLANK
    if first < 0 or last > len(base.sequence):
        return None
    if not other.modelled[first:last].all() or not all(other.bonded(index) for index in range(first, last - 1)):
        return None
    flanks = np.array([*range(first, start), *range(end, last)])
    flanks = flanks[base.modelled[flanks]]
    if len(flanks) < 2 * _FLANK - 2:
        return None
    placed, rmsd = superpose(other.atoms[flanks, :3].reshape(-1, 3), base.atoms[flanks, :3].reshape(-1, 3))
    posterior = float(other.posterior[start:end].mean()) if end > start else 1.0
    if rmsd > _LOOP_RMSD or posterior < _LEAST_POSTERIOR:
        return None
    gain = (end - start + 1) * posterior * worth * (1 - 0.5 * rmsd / _LOOP_RMSD)
    return _joined(base, other, start, end, placed, gain)


def _end_or_domain(base: Backbone, other: Backbone, start: int, end: int, worth: float) -> _Piece | None:
    """Residues beyond an end of `base`, or a domain within it, placed by the residues near it that both have."""
    wanted = np.flatnonzero(other.modelled[start:end] & (other.posterior[start:end] >= _LEAST_POSTERIOR)) + start
    if len(wanted) < _SHORTEST_END:
        return None
    start, end = int(wanted[0]), int(wanted[-1]) + 1
    shared = np.flatnonzero(base.modelled & other.modelled & (other.posterior >= _LEAST_POSTERIOR))
    if len(shared) < _FEWEST_SHARED:
        return None
    far = KDTree(other.atoms[wanted, 1]).query(other.atoms[shared, 1])[0]
    near = shared[np.argsort(far, kind="stable")[: max(_FEWEST_SHARED, min(_MOST_SHARED, 2 * len(wanted)))]]
    placed, rmsd = superpose(other.atoms[near, 1], base.atoms[near, 1])
    if rmsd > _DOMAIN_RMSD:
        return None
    gain = float(other.posterior[wanted].sum()) * worth * (1 - 0.5 * rmsd / _DOMAIN_RMSD)
    return _joined(base, other, start, end, placed, gain)


def _joined(base: Backbone, other: Backbone, start: int, end: int, placed: Superposition, gain: float) -> _Piece:
    """The piece, lengthened on either side to where it joins best."""
    return _Piece(
        start=start - _overlap(base, other, placed, start, -1),
        end=end + _overlap(base, other, placed, end, 1),
        placed=placed,
        gain=gain,
    )


def _overlap(base: Backbone, other: Backbone, placed: Superposition, edge: int, step: int) -> int:
    """How many residues beyond a piece's first (step -1) or last (1) come with it, so that it joins as a bond should.

    `edge` is the start or end of the half-open range.
    """
    best, shift = np.inf, 0
    for more in range(_CUT + 1):
        # The residues on either side of the cut: the one before it, whose C binds the N of the one after it.
        before = edge - more - 1 if step < 0 else edge + more - 1
        after = before + 1
        if before < 0 or after >= len(base.sequence):
            break
        left, right = (base, other) if step < 0 else (other, base)
        if not (left.modelled[before] and right.modelled[after]):
            continue
        ends = left.atoms[before, 1:3], right.atoms[after, :2]
        (ca, c), (n, next_ca) = (placed.apply(ends[0]), ends[1]) if step > 0 else (ends[0], placed.apply(ends[1]))
        strain = (
            _CUT_COST * more
            + abs(float(np.linalg.norm(n - c)) - _BOND)
            + abs(float(np.linalg.norm(next_ca - ca)) - _CA_STEP)
        )
        if strain < best:
            best, shift = strain, more
    return shift


def _clashes(base: Backbone, other: Backbone, piece: _Piece, surroundings: Array) -> bool:
    """Whether the piece runs through the rest of the model."""
    given = np.flatnonzero(other.modelled[piece.start : piece.end]) + piece.start
    rest = np.flatnonzero(base.modelled)
    rest = rest[(rest < piece.start - 2) | (rest >= piece.end + 2)]
    cloud = np.concatenate([base.atoms[rest, 1], surroundings])
    if not len(cloud):
        return False
    near: NDArray[np.float64] = KDTree(cloud).query(piece.placed.apply(other.atoms[given, 1]))[0]
    return int((near < _CLASH).sum()) > max(1, _CLASHES_ALLOWED * len(given))


def _moved(chain: PolymerChain, placed: Superposition) -> PolymerChain:
    residues = {
        index: {name: placed.apply(position) for name, position in atoms.items()}
        for index, atoms in chain.residues.items()
    }
    return replace(chain, residues=residues)
