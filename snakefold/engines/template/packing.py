"""The choice of one conformation for each side chain, so that together they fit best.

Contacts of all pairs of candidates are tabled, candidates that can be in no best solution are eliminated (R. F.
Goldstein, Biophys. J. 66 (1994), 1335), and what is left is chosen by simulated annealing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.template.building import Array
from snakefold.engines.template.contacts import BINS_PER_SQUARE_ANGSTROM, REACH, energies

_RESTARTS = 3
_COOLING_STEPS = 40
_QUENCH_STEPS = 20
_HOTTEST, _COOLEST = 3.0, 0.1
_MAX_CANDIDATES = 40
_RIVALS = 5
"""Candidates, the best by themselves, against which the others of a residue must hold out in the elimination."""
_MAX_EXCESS = 14.0
"""Candidates whose own energy (kT) is that much above their residue's best are not tried."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The conformations that one side chain can take.

    `moving` (candidates, atoms, 3) in angstrom; `types` (atoms,) as in contacts.TYPES; `energies` (candidates,) in kT,
    of each by itself; `centre` (3,) is the atom that all of them turn about.
    """

    moving: Array
    types: Indices
    energies: Array
    centre: Array

    @property
    def reach(self) -> float:
        """The largest distance (angstrom) of a moving atom from the centre."""
        return float(np.sqrt(((self.moving - self.centre) ** 2).sum(-1).max())) if self.moving.size else 0.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Atoms that stay: `points` (atoms, 3) in angstrom, `types` (atoms,), and `owner` (atoms,), the residue of each.

    `link` (atoms,) is -1 for an N and 1 for a C: those of the bonds to the neighbours `before` and `after` (residues,)
    of a residue do not count among its contacts, since the frequencies of rotamers account for them.
    """

    points: Array
    types: Indices
    owner: Indices
    link: Indices
    before: Indices
    after: Indices


def choose(candidates: Sequence[Candidates], surroundings: Surroundings, seed: int) -> Indices:
    """The candidate to take for each residue: (residues,). The same input and seed give the same choice."""
    kept = _among(candidates, surroundings)
    reduced = [
        Candidates(moving=own.moving[order], types=own.types, energies=values, centre=own.centre)
        for own, (order, values) in zip(candidates, kept, strict=True)
    ]
    chosen = _choose_together(reduced, seed)
    return np.array([order[choice] for (order, _), choice in zip(kept, chosen, strict=True)], dtype=np.int64)


def _among(candidates: Sequence[Candidates], around: Surroundings) -> list[tuple[Indices, Array]]:
    """For each residue the candidates worth trying and their energies, contacts with the surroundings included."""
    tree = KDTree(around.points)
    result: list[tuple[Indices, Array]] = []
    for number, own in enumerate(candidates):
        total = own.energies
        if own.moving.size and len(total) > 1:
            near = np.array(sorted(tree.query_ball_point(own.centre, own.reach + REACH)), dtype=np.int64)
            owner, link = around.owner[near], around.link[near]
            skipped = (
                (owner == number)
                | ((owner == around.before[number]) & (link == 1))
                | ((owner == around.after[number]) & (link == -1))
            )
            near = near[~skipped]
            total = total + _contacts(own.moving, own.types, around.points[near], around.types[near], energies())
        order = np.argsort(total, kind="stable")[:_MAX_CANDIDATES]
        order = order[total[order] <= total[order[0]] + _MAX_EXCESS]
        result.append((order.astype(np.int64), total[order]))
    return result


def _choose_together(candidates: Sequence[Candidates], seed: int) -> Indices:
    count = len(candidates)
    sizes = np.array([len(own.energies) for own in candidates], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    own_energies = np.concatenate([own.energies for own in candidates])
    widths = np.array([len(own.types) for own in candidates], dtype=np.int64)
    atom_starts = np.concatenate([[0], np.cumsum(sizes * widths)]).astype(np.int64)
    type_starts = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    points = np.concatenate([own.moving.reshape(-1, 3) for own in candidates])
    types = np.concatenate([own.types for own in candidates]).astype(np.int64)
    pairs = _neighbouring_pairs(candidates)
    offsets = np.concatenate([[0], np.cumsum(sizes[pairs[:, 0]] * sizes[pairs[:, 1]])]).astype(np.int64)
    table = _pair_energies(pairs, offsets, sizes, widths, atom_starts, type_starts, points, types, energies())
    # Each residue's pairs, so that a step needs only its own neighbours.
    both = np.concatenate([pairs[:, 0], pairs[:, 1]])
    order = (np.argsort(both, kind="stable") % max(len(pairs), 1)).astype(np.int64)
    list_starts = np.concatenate([[0], np.cumsum(np.bincount(both, minlength=count))]).astype(np.int64)
    alive = _eliminate(sizes, starts, own_energies, pairs, offsets, table, order, list_starts)
    own_energies = np.where(alive, own_energies, np.inf)
    free = np.array([n for n in range(count) if alive[starts[n] : starts[n + 1]].sum() > 1], dtype=np.int64)
    best, best_energy = np.zeros(count, dtype=np.int64), np.inf
    for restart in range(_RESTARTS):
        state, energy = _anneal(
            seed + restart, free, sizes, starts, own_energies, pairs, offsets, table, order, list_starts
        )
        if energy < best_energy:
            best, best_energy = state, energy
    return best


def _neighbouring_pairs(candidates: Sequence[Candidates]) -> Indices:
    """(pairs, 2): residues whose moving atoms can come within reach of each other, first < second."""
    movable = np.array([number for number, own in enumerate(candidates) if own.moving.size], dtype=np.int64)
    if len(movable) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    centres = np.array([candidates[number].centre for number in movable])
    reaches = np.array([candidates[number].reach for number in movable])
    found = KDTree(centres).query_pairs(2 * float(reaches.max()) + REACH, output_type="ndarray")
    distances = np.linalg.norm(centres[found[:, 0]] - centres[found[:, 1]], axis=1)
    found = found[distances < reaches[found[:, 0]] + reaches[found[:, 1]] + REACH]
    pairs = np.sort(movable[found], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64)


@numba.njit(cache=True)
def _contacts(moving: Array, types: Indices, cloud: Array, cloud_types: Indices, table: NDArray[np.float32]) -> Array:
    """Energies (candidates,) of moving atoms (candidates, atoms, 3) among the atoms (cloud, 3) that stay."""
    total = np.zeros(moving.shape[0])
    limit = table.shape[2] / BINS_PER_SQUARE_ANGSTROM
    for candidate in range(moving.shape[0]):
        for atom in range(moving.shape[1]):
            for other in range(cloud.shape[0]):
                dx = moving[candidate, atom, 0] - cloud[other, 0]
                dy = moving[candidate, atom, 1] - cloud[other, 1]
                dz = moving[candidate, atom, 2] - cloud[other, 2]
                squared = dx * dx + dy * dy + dz * dz
                if squared < limit:
                    total[candidate] += table[types[atom], cloud_types[other], int(squared * BINS_PER_SQUARE_ANGSTROM)]
    return total


@numba.njit(cache=True)
def _pair_energies(
    pairs: Indices,
    offsets: Indices,
    sizes: Indices,
    widths: Indices,
    atom_starts: Indices,
    type_starts: Indices,
    points: Array,
    types: Indices,
    contact: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The energy of every candidate of a pair's first residue with every one of its second, pair by pair, flat."""
    table = np.zeros(offsets[-1], dtype=np.float32)
    limit = contact.shape[2] / BINS_PER_SQUARE_ANGSTROM
    for pair in range(pairs.shape[0]):
        first, second = pairs[pair, 0], pairs[pair, 1]
        for a in range(sizes[first]):
            for b in range(sizes[second]):
                energy = 0.0
                for i in range(widths[first]):
                    at = atom_starts[first] + a * widths[first] + i
                    kind = types[type_starts[first] + i]
                    for j in range(widths[second]):
                        other = atom_starts[second] + b * widths[second] + j
                        dx = points[at, 0] - points[other, 0]
                        dy = points[at, 1] - points[other, 1]
                        dz = points[at, 2] - points[other, 2]
                        squared = dx * dx + dy * dy + dz * dz
                        if squared < limit:
                            energy += contact[
                                kind, types[type_starts[second] + j], int(squared * BINS_PER_SQUARE_ANGSTROM)
                            ]
                table[offsets[pair] + a * sizes[second] + b] = energy
    return table


@numba.njit(cache=True)
def _eliminate(
    sizes: Indices,
    starts: Indices,
    energies: Array,
    pairs: Indices,
    offsets: Indices,
    table: NDArray[np.float32],
    order: Indices,
    list_starts: Indices,
) -> NDArray[np.bool_]:
    """Whether each candidate can be part of the best solution: none can that a rival beats whatever the rest does."""
    alive = np.ones(starts[-1], dtype=np.bool_)
    changed = True
    while changed:
        changed = False
        for residue in range(len(sizes)):
            for worse in range(sizes[residue]):
                if not alive[starts[residue] + worse]:
                    continue
                for better in range(min(sizes[residue], _RIVALS)):
                    if better == worse or not alive[starts[residue] + better]:
                        continue
                    gain = energies[starts[residue] + worse] - energies[starts[residue] + better]
                    for entry in range(list_starts[residue], list_starts[residue + 1]):
                        pair = order[entry]
                        first, second = pairs[pair, 0], pairs[pair, 1]
                        if first == residue:
                            other, own_step, other_step = second, sizes[second], 1
                        else:
                            other, own_step, other_step = first, 1, sizes[second]
                        least = np.inf
                        for choice in range(sizes[other]):
                            if alive[starts[other] + choice]:
                                at = offsets[pair] + choice * other_step
                                least = min(least, table[at + worse * own_step] - table[at + better * own_step])
                        gain += least
                    if gain > 0:
                        alive[starts[residue] + worse] = False
                        changed = True
                        break
    return alive


@numba.njit(cache=True)
def _anneal(
    seed: int,
    free: Indices,
    sizes: Indices,
    starts: Indices,
    energies: Array,
    pairs: Indices,
    offsets: Indices,
    table: NDArray[np.float32],
    order: Indices,
    list_starts: Indices,
) -> tuple[Indices, float]:
    """Simulated annealing with heat-bath steps (each residue drawn from its Boltzmann distribution), then a quench."""
    np.random.seed(seed)
    state = np.zeros(len(sizes), dtype=np.int64)
    for residue in range(len(sizes)):
        for choice in range(sizes[residue]):
            if energies[starts[residue] + choice] < energies[starts[residue] + state[residue]]:
                state[residue] = choice
    local = np.empty(max(sizes.max(), 1))
    for step in range(_COOLING_STEPS + _QUENCH_STEPS):
        cooling = step < _COOLING_STEPS
        temperature = _HOTTEST * (_COOLEST / _HOTTEST) ** (step / (_COOLING_STEPS - 1))
        changed = False
        for residue in free:
            lowest, best = np.inf, 0
            for own in range(sizes[residue]):
                local[own] = energies[starts[residue] + own]
            for entry in range(list_starts[residue], list_starts[residue + 1]):
                pair = order[entry]
                first, second = pairs[pair, 0], pairs[pair, 1]
                if first == residue:
                    at, own_step = offsets[pair] + state[second], sizes[second]
                else:
                    at, own_step = offsets[pair] + state[first] * sizes[second], 1
                for own in range(sizes[residue]):
                    local[own] += table[at + own * own_step]
            for own in range(sizes[residue]):
                if local[own] < lowest:
                    lowest, best = local[own], own
            if cooling:
                total: Any = 0.0
                for own in range(sizes[residue]):
                    total += np.exp((lowest - local[own]) / temperature)
                left = np.random.random() * total
                for own in range(sizes[residue]):
                    left -= np.exp((lowest - local[own]) / temperature)
                    if left <= 0:
                        best = own
                        break
            changed |= best != state[residue]
            state[residue] = best
        if not cooling and not changed:
            break
    energy: Any = 0.0
    for residue in range(len(sizes)):
        energy += energies[starts[residue] + state[residue]]
    for pair in range(pairs.shape[0]):
        first, second = pairs[pair, 0], pairs[pair, 1]
        energy += table[offsets[pair] + state[first] * sizes[second] + state[second]]
    return state, energy
