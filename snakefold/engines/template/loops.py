"""Loops: the parts of a backbone that the template does not give, closed by cyclic coordinate descent.

A gap is widened, into the template's backbone on both sides, until it closes well; how far is decided by the closure
itself, by clashes, by backbone torsions, and by how much of the template is given up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.template.backbone import Backbone, secondary_structure
from snakefold.engines.template.building import Array, dihedral, place
from snakefold.engines.template.closure import CLOSED, close_batch
from snakefold.structures.ramachandran import ResidueClass, outlines

LONGEST_LOOP = 40
"""Longer insertions are left out: no sampling finds their fold."""

_SAMPLES = 96
_ACCEPTABLE_CLOSURE = 0.6
_MAX_TRIM = 6
_SHORTEST_LOOP = 3
_ENVIRONMENT_MARGIN = 6.0

# Set by hand: four settings were tried on the pairs of bench/template_engine.py, which are no independent test of them.
_CLOSURE_WEIGHT = 25.0
_CLASH_WEIGHT = 2.5
_TORSION_WEIGHT = 0.35
_DRIFT_WEIGHT = 0.5
_TRIM_COST = 0.6
_TRIM_STRUCTURE_COST = 1.2
_SHORT_LOOP_COST = 1.0
_OUTLIER_COST = 2.0
_LEADERS = 8
_LEAST_SAMPLE_SCORE = 3.0
"""What a loop at its best still scores, found by experience: wider gaps that could only win below it are not tried."""

_REGION_STEP = 4.0
"""Degrees between the places where the regions of the Ramachandran plot are looked up."""
_REGION_GRID = round(360 / _REGION_STEP)

# Contact radii (angstrom) of N, CA, C, O, CB: two atoms clash below their sum; N-O may come to 2.75 (hydrogen bonds).
_RADII = np.array([1.45, 1.75, 1.65, 1.30, 1.75])

# Backbone torsion basins (phi, psi in degrees; share), after the maps of S. C. Lovell et al., Proteins 50 (2003), 437.
_BASINS = {
    "general": np.array(
        [(-63, -43, 0.36), (-90, -10, 0.10), (-115, 130, 0.26), (-70, 140, 0.20), (-85, 75, 0.03), (57, 42, 0.05)]
    ),
    "G": np.array(
        [
            (-63, -42, 0.22),
            (-120, 150, 0.12),
            (-70, 150, 0.12),
            (60, 38, 0.14),
            (85, 5, 0.18),
            (85, -175, 0.14),
            (170, 180, 0.08),
        ]
    ),
    "P": np.array([(-62, -33, 0.40), (-68, 148, 0.55), (-75, 65, 0.05)]),
}
_BASIN_WIDTH = 20.0


@dataclass(frozen=True, kw_only=True)
class Closure:
    """How one gap was closed. `start` and `end` (half-open) are the residues built, `score` the lower the better.

    `closure` is the misfit (rmsd, angstrom) of the last anchor's N, CA and C; `atoms` (residues, 4, 3) the loop.
    """

    start: int
    end: int
    score: float
    closure: float
    atoms: Array


def close_gaps(backbones: Sequence[Backbone], seed: int) -> list[list[tuple[int, int]]]:
    """Build the loops of all chains in place; the ranges that were built, by chain.

    Unaligned ends stay unmodelled, and so do insertions of more than LONGEST_LOOP residues and gaps that do not close.
    The same input and seed give the same loops.
    """
    built: list[list[tuple[int, int]]] = []
    for number, backbone in enumerate(backbones):
        ranges: list[tuple[int, int]] = []
        structured = secondary_structure(backbone.torsions())
        torsions = backbone.torsions()
        original = backbone.atoms.copy()
        while (gap := _next_gap(backbone, ranges)) is not None:
            others = [other for index, other in enumerate(backbones) if index != number]
            best = _close(backbone, original, torsions, structured, gap, others, seed)
            if best is None:
                # Unclosable: the residues next to an empty gap go, so that the chain is visibly broken there.
                start, end = gap if gap[1] > gap[0] else (gap[0] - 1, gap[1] + 1)
                backbone.clear(start, end)
                ranges.append((start, end))
                continue
            backbone.clear(best.start, best.end)
            backbone.atoms[best.start : best.end] = best.atoms
            # The anchor's oxygen lies in the plane of the bond to the loop, which has turned.
            backbone.place_oxygen(best.start - 1)
            ranges = [(a, b) for a, b in ranges if b <= best.start or a >= best.end]
            ranges.append((best.start, best.end))
        modelled = backbone.modelled
        built.append(sorted((a, b) for a, b in ranges if modelled[a:b].all()))
    return built


def grow_tails(backbones: Sequence[Backbone], seed: int, longest: int | None = None) -> None:
    """Build the unaligned ends of all chains in place, or only those of up to `longest` residues.

    They are coils of likely torsions that clash little. The conformation of a long one means nothing; it is there
    because some users need every residue.
    """
    for number, backbone in enumerate(backbones):
        modelled = np.flatnonzero(backbone.modelled)
        others = [other for index, other in enumerate(backbones) if index != number]
        first, last = int(modelled[0]), int(modelled[-1])
        most = len(backbone.sequence) if longest is None else longest
        if 0 < len(backbone.sequence) - last - 1 <= most:
            backbone.atoms[last + 1 :] = _tail(backbone, last, 1, others, seed)
            backbone.place_oxygen(last)
        if 0 < first <= most:
            backbone.atoms[:first] = _tail(backbone, first, -1, others, seed)[::-1]


def _tail(backbone: Backbone, anchor: int, step: int, others: Sequence[Backbone], seed: int) -> Array:
    """Residues (residues, 4, 3) from the one next to `anchor` outwards; `step` is 1 towards the C-terminus, else -1."""
    indices = range(anchor + step, len(backbone.sequence) if step > 0 else -1, step)
    rng = np.random.default_rng([seed, anchor, len(backbone.sequence)])
    torsions = np.empty((_SAMPLES, len(indices) + 1, 2))
    for column, index in enumerate([anchor, *indices]):
        basins = _basins(backbone.sequence[index])
        picks = rng.choice(len(basins), _SAMPLES, p=basins[:, 2] / basins[:, 2].sum())
        torsions[:, column] = basins[picks, :2] + rng.normal(0, 15, (_SAMPLES, 2))
    n, ca, c = (np.broadcast_to(atom, (_SAMPLES, 3)) for atom in backbone.atoms[anchor, :3])
    frames: list[Array] = []
    for column in range(1, len(indices) + 1):
        if step > 0:
            n = place(n, ca, c, 1.334, 117.0, torsions[:, column - 1, 1])
            ca_next = place(ca, c, n, 1.459, 121.8, 180.0)
            ca, c = ca_next, place(c, n, ca_next, 1.525, 111.0, torsions[:, column, 0])
        else:
            c = place(c, ca, n, 1.334, 121.8, torsions[:, column - 1, 0])
            ca_before = place(ca, n, c, 1.525, 117.0, 180.0)
            ca, n = ca_before, place(n, c, ca_before, 1.459, 111.0, torsions[:, column, 1])
        frames.append(np.stack([n, ca, c], axis=1))
    ordered = frames if step > 0 else frames[::-1]
    grown = np.stack(ordered, axis=1)
    end = place(grown[:, -1, 0], grown[:, -1, 1], grown[:, -1, 2], 1.334, 117.0, 140.0)
    following = end if step > 0 else np.broadcast_to(backbone.atoms[anchor, 0], (_SAMPLES, 3))
    atoms = _with_oxygens(grown, following)
    low, high = min(indices), max(indices) + 1
    environment, radii = _environment(backbone, others, low, high)
    letters = "".join(backbone.sequence[index] for index in (anchor, *indices))
    strain = _torsion_strain(letters, torsions[..., 0], torsions[..., 1])
    clash = _clashes(_with_betas(atoms), environment, radii)
    best = int(np.argmin(_CLASH_WEIGHT * clash + _TORSION_WEIGHT * strain))
    return atoms[best][::step]


def _next_gap(backbone: Backbone, tried: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The first gap inside the chain that was not tried yet: half-open, empty where two neighbours are not bonded."""
    modelled = np.flatnonzero(backbone.modelled)
    for left, right in zip(modelled[:-1].tolist(), modelled[1:].tolist(), strict=True):
        if right == left + 1 and (backbone.bonded(left) or any(left + 1 in (a, b) for a, b in tried)):
            continue
        if any(a <= left + 1 and right <= b for a, b in tried) and right > left + 1:
            continue
        return left + 1, right
    return None


def _close(
    backbone: Backbone,
    original: Array,
    torsions: Array,
    structured: NDArray[np.bool_],
    gap: tuple[int, int],
    others: Sequence[Backbone],
    seed: int,
) -> Closure | None:
    """The best closure of one gap over all ways to widen it; None if none is acceptable."""
    start, end = gap
    if end - start > LONGEST_LOOP:
        return None
    modelled = backbone.modelled
    costs: list[tuple[float, int, int]] = []
    for left in range(_MAX_TRIM + 1):
        for right in range(_MAX_TRIM + 1):
            first, last = start - left, end + right
            if (
                first < 1
                or last >= len(modelled)
                or not (modelled[first - 1 : start].all() and modelled[end : last + 1].all())
            ):
                continue
            size = last - first
            span = float(np.linalg.norm(backbone.atoms[first - 1, 1] - backbone.atoms[last, 1]))
            if size < 2 or span > 3.75 * (size + 1):
                continue
            trimmed = [*range(first, start), *range(end, last)]
            cost = sum(_TRIM_COST + _TRIM_STRUCTURE_COST * structured[index] for index in trimmed)
            cost += _SHORT_LOOP_COST * max(0, _SHORTEST_LOOP - size)
            costs.append((float(cost), left, right))
    best: Closure | None = None
    for cost, left, right in sorted(costs):
        if best is not None and cost + _LEAST_SAMPLE_SCORE >= best.score:
            break
        closure = _sample(backbone, original, torsions, start - left, end + right, others, seed)
        score = cost + closure.score
        if best is None or score < best.score:
            best = Closure(
                start=closure.start, end=closure.end, score=score, closure=closure.closure, atoms=closure.atoms
            )
    return best if best is not None and best.closure < _ACCEPTABLE_CLOSURE else None


def _sample(
    backbone: Backbone,
    original: Array,
    torsions: Array,
    start: int,
    end: int,
    others: Sequence[Backbone],
    seed: int,
) -> Closure:
    """The best of many random loops from start to end (half-open), each closed by cyclic coordinate descent."""
    rng = np.random.default_rng([seed, start, end])
    size = end - start
    sequence = backbone.sequence
    phi, psi = _starting_torsions(rng, sequence, torsions, start, end)
    omega = np.full(size + 1, 180.0)
    for place_, index in enumerate(range(start, end + 1)):
        # A cis-proline of the template stays one.
        if sequence[index] == "P" and np.isfinite(torsions[index, 2]) and abs(torsions[index, 2]) < 90:
            omega[place_] = 0.0
    is_proline = np.array([letter == "P" for letter in sequence[start : end + 1]])
    anchors = backbone.atoms[[start - 1, end], :3]
    frames, misfit = close_batch(anchors[0], anchors[1], phi, psi, omega, is_proline)
    # What did not close need not be judged further.
    closed = np.argsort(misfit, kind="stable")[: max(int((misfit < _ACCEPTABLE_CLOSURE).sum()), 1)]
    frames, misfit = frames[closed], misfit[closed]
    atoms = _with_oxygens(frames, anchors[1, 0])
    phi, psi = _loop_torsions(
        atoms, backbone.atoms[start - 1], backbone.atoms[end], torsions[start - 1, 0], torsions[end, 1]
    )
    strain = _torsion_strain(sequence[start - 1 : end + 1], phi, psi)
    environment, radii = _environment(backbone, others, start, end)
    clash = _clashes(_with_betas(atoms), environment, radii)
    known = np.isfinite(original[start:end, 1]).all(axis=1)
    drift = np.zeros(len(frames))
    if known.any():
        squared = ((atoms[:, known, 1] - original[start:end][known, 1]) ** 2).sum(-1)
        drift = np.minimum(squared, 9.0).sum(axis=1)
    score = (
        _CLOSURE_WEIGHT * np.maximum(misfit - CLOSED, 0)
        + _CLASH_WEIGHT * clash
        + _TORSION_WEIGHT * strain
        + _DRIFT_WEIGHT * drift
    )
    # Only the best few: among all, a loop that closes badly would win for want of outliers.
    leaders = np.argsort(score, kind="stable")[:_LEADERS]
    score = score[leaders] + _OUTLIER_COST * _outliers(sequence, start - 1, phi[leaders], psi[leaders], omega)
    best, score = int(leaders[np.argmin(score)]), float(score.min())
    return Closure(start=start, end=end, score=score, closure=float(misfit[best]), atoms=atoms[best])


def _outliers(sequence: str, start: int, phi: Array, psi: Array, omega: Array) -> NDArray[np.int64]:
    """Ramachandran outliers (samples,) among the residues from `start`, by phi and psi (samples, residues) in degrees.

    Torsions that are NaN pass. `omega` (residues - 1,) is that of the bond after each residue.
    """
    known = np.isfinite(phi) & np.isfinite(psi)
    rows, columns = (
        np.floor((np.where(known, angle, 0.0) + 180) % 360 / _REGION_STEP).astype(np.int64) % _REGION_GRID
        for angle in (phi, psi)
    )
    count = np.zeros(len(phi), dtype=np.int64)
    for offset in range(phi.shape[1]):
        letter, following = sequence[start + offset], sequence[start + offset + 1 : start + offset + 2]
        residue_class: ResidueClass = "isoleucine-valine" if letter in "IV" else "general"
        if letter == "G":
            residue_class = "glycine"
        elif letter == "P":
            residue_class = "cis-proline" if offset > 0 and abs(omega[offset - 1]) < 90 else "trans-proline"
        elif following == "P":
            residue_class = "pre-proline"
        count += known[:, offset] & _outlier_map(residue_class)[rows[:, offset], columns[:, offset]]
    return count


@cache
def _outlier_map(residue_class: ResidueClass) -> NDArray[np.bool_]:
    """Where the Ramachandran plot of a class has its outliers: (_REGION_GRID, _REGION_GRID) by phi and psi from -180.

    It tells what `snakefold.structures.ramachandran.region` does, for thousands of residues at once.
    """
    middle = (np.arange(_REGION_GRID) + 0.5) * _REGION_STEP - 180
    inside = np.zeros((_REGION_GRID, _REGION_GRID), dtype=np.bool_)
    for outline in (outline for kind in outlines(residue_class) for outline in kind):
        ends = np.roll(outline, -1, axis=0)
        for turn in (0, 360, -360):
            within = np.zeros_like(inside)
            for (phi, psi), (next_phi, next_psi) in zip(outline.tolist(), ends.tolist(), strict=True):
                spans = (psi > middle + turn) != (next_psi > middle + turn)
                if spans.any():
                    crossing = phi + (middle + turn - psi) * (next_phi - phi) / (next_psi - psi)
                    within ^= spans & (middle[:, None] < crossing)
            inside |= within
    return ~inside


def _basins(letter: str) -> Array:
    return _BASINS.get(letter, _BASINS["general"])


def _starting_torsions(
    rng: np.random.Generator, sequence: str, torsions: Array, start: int, end: int
) -> tuple[Array, Array]:
    """Phi of the loop and its end anchor, psi of its start anchor and the loop: (samples, size + 1) each, degrees.

    Half of the samples start from the template's torsions where it has any: they bend the template's loop rather than
    invent another.
    """
    chosen = np.empty((_SAMPLES, end - start + 2, 2))
    for column, index in enumerate(range(start - 1, end + 1)):
        basins = _basins(sequence[index])
        picks = rng.choice(len(basins), _SAMPLES, p=basins[:, 2] / basins[:, 2].sum())
        chosen[:, column] = basins[picks, :2] + rng.normal(0, 15, (_SAMPLES, 2))
        for angle in range(2):
            noise = rng.normal(0, 12, _SAMPLES)
            if np.isfinite(torsions[index, angle]):
                kept = _SAMPLES if column in (0, end - start + 1) else _SAMPLES // 2
                chosen[:kept, column, angle] = torsions[index, angle] + noise[:kept]
    return np.ascontiguousarray(chosen[:, 1:, 0]), np.ascontiguousarray(chosen[:, :-1, 1])


def _with_oxygens(frames: Array, next_n: Array) -> Array:
    """(samples, residues, 3, 3) of N, CA, C with the O of each peptide plane: (samples, residues, 4, 3)."""
    last = np.broadcast_to(next_n, (len(frames), 3))[:, None]
    following = np.concatenate([frames[:, 1:, 0], last], axis=1)
    ca, c = frames[:, :, 1], frames[:, :, 2]
    direction = (c - ca) / np.linalg.norm(c - ca, axis=-1, keepdims=True)
    direction = direction + (c - following) / np.linalg.norm(c - following, axis=-1, keepdims=True)
    oxygen = c + 1.231 * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.concatenate([frames, oxygen[:, :, None]], axis=2)


def _with_betas(atoms: Array) -> Array:
    """(..., 4, 3) with an ideal CB appended to each residue: (..., 5, 3)."""
    beta = place(atoms[..., 2, :], atoms[..., 0, :], atoms[..., 1, :], 1.53, 110.5, -122.4)
    return np.concatenate([atoms, beta[..., None, :]], axis=-2)


def _loop_torsions(
    atoms: Array, before: Array, after: Array, phi_before: float, psi_after: float
) -> tuple[Array, Array]:
    """Phi and psi (degrees) of loops and both their anchors: (samples, residues + 2) each.

    `before` and `after` are the anchors' atoms, of which one torsion each does not depend on the loop (NaN: unknown).
    """
    samples = len(atoms)
    ends = [np.broadcast_to(anchor[None, None], (samples, 1, 4, 3)) for anchor in (before, after)]
    whole = np.concatenate([ends[0], atoms, ends[1]], axis=1)
    n, ca, c = whole[:, :, 0], whole[:, :, 1], whole[:, :, 2]
    phi = dihedral(c[:, :-1], n[:, 1:], ca[:, 1:], c[:, 1:])
    psi = dihedral(n[:, :-1], ca[:, :-1], c[:, :-1], n[:, 1:])
    phi = np.concatenate([np.full((samples, 1), phi_before), phi], axis=1)
    psi = np.concatenate([psi, np.full((samples, 1), psi_after)], axis=1)
    return phi, psi


def _torsion_strain(sequence: str, phi: Array, psi: Array) -> Array:
    """Summed negative log densities of phi and psi (samples, residues), 0 at the centre of the largest basin."""
    strain = np.zeros(len(phi))
    for index, letter in enumerate(sequence):
        basins = _basins(letter)
        off_phi = (phi[:, index, None] - basins[:, 0] + 180) % 360 - 180
        off_psi = (psi[:, index, None] - basins[:, 1] + 180) % 360 - 180
        density = (basins[:, 2] * np.exp(-(off_phi**2 + off_psi**2) / (2 * _BASIN_WIDTH**2))).sum(axis=1)
        strain += np.nan_to_num(np.log(basins[:, 2].max() + 0.003) - np.log(density + 0.003))
    return strain


def _environment(backbone: Backbone, others: Sequence[Backbone], start: int, end: int) -> tuple[Array, Array]:
    """Atoms (atoms, 3) around a loop, and their radii: all modelled residues but the loop and its two anchors."""
    kept = backbone.modelled.copy()
    kept[max(start - 1, 0) : end + 1] = False
    parts = [_with_betas(backbone.atoms[kept])]
    parts += [_with_betas(other.atoms[other.modelled]) for other in others]
    points = np.concatenate(parts).reshape(-1, 3)
    radii = np.tile(_RADII, len(points) // 5)
    finite = np.isfinite(points).all(axis=1)
    points, radii = points[finite], radii[finite]
    anchors = backbone.atoms[[max(start - 1, 0), min(end, len(kept) - 1)], 1]
    anchors = anchors[np.isfinite(anchors).all(axis=1)]
    reach = 3.8 * (end - start + 1) / 2 + _ENVIRONMENT_MARGIN
    middle = anchors.mean(axis=0)
    near = sorted(KDTree(points).query_ball_point(middle, reach + 3.8)) if len(points) else []
    return points[near], radii[near]


def _clashes(loops: Array, environment: Array, radii: Array) -> Array:
    """Squared overlaps (A2) of each loop (samples, residues, 5, 3) with its environment and with itself: (samples,)."""
    return _clash_kernel(np.ascontiguousarray(loops), np.ascontiguousarray(environment), radii, _RADII)


@numba.njit(cache=True)
def _clash_kernel(loops: Array, environment: Array, radii: Array, own: Array) -> Array:
    samples, size = loops.shape[0], loops.shape[1]
    total = np.zeros(samples)
    for sample in range(samples):
        overlap = 0.0
        for residue in range(size):
            for atom in range(5):
                x = loops[sample, residue, atom, 0]
                y = loops[sample, residue, atom, 1]
                z = loops[sample, residue, atom, 2]
                for index in range(environment.shape[0]):
                    # Most atoms are far away: one coordinate tells.
                    dx = x - environment[index, 0]
                    if abs(dx) > 3.5:
                        continue
                    dy = y - environment[index, 1]
                    dz = z - environment[index, 2]
                    reach = own[atom] + radii[index]
                    squared = dx * dx + dy * dy + dz * dz
                    if squared < reach * reach:
                        overlap += (reach - np.sqrt(squared)) ** 2
                for later in range(residue + 2, size):
                    for second in range(5):
                        reach = own[atom] + own[second]
                        dx = x - loops[sample, later, second, 0]
                        dy = y - loops[sample, later, second, 1]
                        dz = z - loops[sample, later, second, 2]
                        squared = dx * dx + dy * dy + dz * dz
                        if squared < reach * reach:
                            overlap += (reach - np.sqrt(squared)) ** 2
        total[sample] = overlap
    return total
