"""Loops: the parts of a backbone that the template does not give, closed by cyclic coordinate descent.

A gap is widened, into the template's backbone on both sides, until it closes well; how far is decided by the closure
itself, by clashes, by backbone torsions, and by how much of the template is given up.
Cyclic coordinate descent: A. A. Canutescu and R. L. Dunbrack, Protein Sci. 12 (2003), 963.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.template.backbone import Backbone, secondary_structure
from snakefold.engines.template.building import Array, dihedral, place
from snakefold.structures.ramachandran import Region, ResidueClass, region

LONGEST_LOOP = 40
"""Longer insertions are left out: no sampling finds their fold."""

_SAMPLES = 96
_SWEEPS = 120
_CLOSED = 0.08
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
    frames, misfit = _close_batch(anchors[0], anchors[1], phi, psi, omega, is_proline)
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
        _CLOSURE_WEIGHT * np.maximum(misfit - _CLOSED, 0)
        + _CLASH_WEIGHT * clash
        + _TORSION_WEIGHT * strain
        + _DRIFT_WEIGHT * drift
    )
    # Regions are slow to look up: only the best few are judged by them.
    leaders = np.argsort(score, kind="stable")[:_LEADERS]
    for leader in leaders:
        score[leader] += _OUTLIER_COST * _outliers(sequence, start - 1, phi[leader], psi[leader], omega)
    best = int(leaders[np.argmin(score[leaders])])
    return Closure(start=start, end=end, score=float(score[best]), closure=float(misfit[best]), atoms=atoms[best])


def _outliers(sequence: str, start: int, phi: Array, psi: Array, omega: Array) -> int:
    """Ramachandran outliers among the residues from `start`, given their torsions (residues,); unknown ones pass."""
    count = 0
    for offset in np.flatnonzero(np.isfinite(phi) & np.isfinite(psi)).tolist():
        letter, following = sequence[start + offset], sequence[start + offset + 1 : start + offset + 2]
        residue_class: ResidueClass = "isoleucine-valine" if letter in "IV" else "general"
        if letter == "G":
            residue_class = "glycine"
        elif letter == "P":
            residue_class = "cis-proline" if offset > 0 and abs(omega[offset - 1]) < 90 else "trans-proline"
        elif following == "P":
            residue_class = "pre-proline"
        count += region(residue_class, float(phi[offset]), float(psi[offset])) is Region.OUTLIER
    return count


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


# The kernels below work on plain floats: array expressions would allocate at every step, which costs ten times as much.


@numba.njit(cache=True)
def _extend(points: Array, at: int, length: float, angle: float, torsion: float) -> None:
    """Place points[at] from the three points before it by NeRF (as building.place), angles in radians."""
    ax = points[at - 1, 0] - points[at - 2, 0]
    ay = points[at - 1, 1] - points[at - 2, 1]
    az = points[at - 1, 2] - points[at - 2, 2]
    norm = np.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax / norm, ay / norm, az / norm
    bx = points[at - 2, 0] - points[at - 3, 0]
    by = points[at - 2, 1] - points[at - 3, 1]
    bz = points[at - 2, 2] - points[at - 3, 2]
    nx, ny, nz = by * az - bz * ay, bz * ax - bx * az, bx * ay - by * ax
    norm = np.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx / norm, ny / norm, nz / norm
    mx, my, mz = ny * az - nz * ay, nz * ax - nx * az, nx * ay - ny * ax
    along = -length * np.cos(angle)
    across = length * np.sin(angle) * np.cos(torsion)
    up = length * np.sin(angle) * np.sin(torsion)
    points[at, 0] = points[at - 1, 0] + along * ax + across * mx + up * nx
    points[at, 1] = points[at - 1, 1] + along * ay + across * my + up * ny
    points[at, 2] = points[at - 1, 2] + along * az + across * mz + up * nz


@numba.njit(cache=True)
def _turn_to_goal(points: Array, goal: Array, pivot: int) -> None:
    """Rotate all points after pivot + 1 about the axis pivot -> pivot + 1, so that the last three come closest to goal.

    The optimal angle is equation 11 of Canutescu and Dunbrack (2003), the rotation Rodrigues' formula.
    """
    count = points.shape[0]
    ox, oy, oz = points[pivot, 0], points[pivot, 1], points[pivot, 2]
    kx, ky, kz = points[pivot + 1, 0] - ox, points[pivot + 1, 1] - oy, points[pivot + 1, 2] - oz
    norm = np.sqrt(kx * kx + ky * ky + kz * kz)
    kx, ky, kz = kx / norm, ky / norm, kz / norm
    sine, cosine = 0.0, 0.0
    for atom in range(3):
        x, y, z = points[count - 3 + atom, 0] - ox, points[count - 3 + atom, 1] - oy, points[count - 3 + atom, 2] - oz
        u, v, w = goal[atom, 0] - ox, goal[atom, 1] - oy, goal[atom, 2] - oz
        along = kx * x + ky * y + kz * z
        # The goal's own part along the axis drops out of both sums.
        x, y, z = x - along * kx, y - along * ky, z - along * kz
        cosine += x * u + y * v + z * w
        sine += (ky * z - kz * y) * u + (kz * x - kx * z) * v + (kx * y - ky * x) * w
    norm = np.sqrt(sine * sine + cosine * cosine)
    if norm < 1e-12:
        return
    sine, cosine = sine / norm, cosine / norm
    for index in range(pivot + 2, count):
        x, y, z = points[index, 0] - ox, points[index, 1] - oy, points[index, 2] - oz
        along = (kx * x + ky * y + kz * z) * (1 - cosine)
        points[index, 0] = ox + x * cosine + (ky * z - kz * y) * sine + kx * along
        points[index, 1] = oy + y * cosine + (kz * x - kx * z) * sine + ky * along
        points[index, 2] = oz + z * cosine + (kx * y - ky * x) * sine + kz * along


@numba.njit(cache=True)
def _descend(points: Array, goal: Array, phi: Array, psi: Array, omega: Array, is_proline: Array) -> float:
    """Fill `points` (3 * (size + 2), 3) beyond the first anchor, close the loop; the misfit (rmsd, angstrom).

    `points` holds N, CA, C of the anchor before, of the loop, and of a copy of the anchor after that is to meet `goal`.
    """
    size = len(phi) - 1
    radian = np.pi / 180
    # Bond lengths and angles of the backbone: Engh and Huber (2001).
    for residue in range(1, size + 2):
        at = 3 * residue
        _extend(points, at, 1.334, 117.0 * radian, psi[residue - 1] * radian)
        _extend(points, at + 1, 1.459, 121.8 * radian, omega[residue - 1] * radian)
        _extend(points, at + 2, 1.525, 111.0 * radian, phi[residue - 1] * radian)
    misfit = 1e9
    for sweep in range(_SWEEPS):
        for residue in range(size + 2):
            # Proline's phi is held by its ring.
            if residue > 0 and not is_proline[residue - 1]:
                _turn_to_goal(points, goal, 3 * residue)
            if residue <= size:
                _turn_to_goal(points, goal, 3 * residue + 1)
        squared = 0.0
        for atom in range(3):
            for axis in range(3):
                squared += (points[3 * (size + 1) + atom, axis] - goal[atom, axis]) ** 2
        previous = misfit
        misfit = np.sqrt(squared / 3)
        # Stop where it has closed, where it no longer moves, and where it plainly never will.
        if misfit < _CLOSED or previous - misfit < 1e-3 * misfit or (sweep >= 20 and misfit > 1.0):
            break
    return misfit


@numba.njit(cache=True)
def _close_batch(
    before: Array, after: Array, phi: Array, psi: Array, omega: Array, is_proline: Array
) -> tuple[Array, Array]:
    """Close every sample: loops (samples, size, 3, 3) without the anchors, and their misfits (samples,) in angstrom."""
    samples, size = phi.shape[0], phi.shape[1] - 1
    loops = np.empty((samples, size, 3, 3))
    misfits = np.empty(samples)
    points = np.empty((3 * (size + 2), 3))
    points[:3] = before
    for sample in range(samples):
        misfits[sample] = _descend(points, after, phi[sample], psi[sample], omega, is_proline)
        for residue in range(size):
            for atom in range(3):
                for axis in range(3):
                    loops[sample, residue, atom, axis] = points[3 * (residue + 1) + atom, axis]
    return loops, misfits
