"""Side chains: copied from the template where they are conserved, packed as rotamers everywhere else.

Every residue has candidate conformations: rotamers, and what the template suggests. One is chosen for each by simulated
annealing of contact energies, rotamer frequencies and the template's word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.template.backbone import Backbone
from snakefold.engines.template.building import (
    Array,
    build_side_chain,
    chi_angles,
    chi_atoms,
    is_left_handed,
    side_chain_atoms,
)
from snakefold.engines.template.templates import ChainTemplate
from snakefold.structures.residues import BACKBONE, NAME_OF_LETTER

_DISULFIDE = 2.6
_MAX_CANDIDATES = 36
_CHI1_STEPS = (0.0, -12.0, 12.0)
_CONTACT_REACH = 6.0

# Set by hand after eleven settings tried on six pairs of bench/template_engine.py, no independent test of them.
# Energies are in units of kT. The template's conformation is favoured, not forced: what it cannot fit gives way.
_COPY_BONUS = 12.0
_SIMILAR_BONUS = 5.0
_CHI1_BONUS = 3.5
_CHI1_WINDOW = 40.0
_STEP_PENALTY = 0.3
_ROTAMER_WEIGHT = 1.8

# Contact radii in angstrom. They are smaller than van der Waals radii, because rotamers and backbones are off by some
# tenths of an angstrom, which the minimisation then mends: with full radii the right rotamer would often be refused.
_RADII = {"C": 1.68, "N": 1.50, "O": 1.40, "S": 1.80}

# Residues whose side chains run alike as far as they both go.
_ALIKE = ("FY", "DN", "EQ", "EQKRM", "VI", "IT", "VT", "SC", "ST", "LM", "DE", "HFY")

_RESTARTS = 4
_COOLING_STEPS = 60
_QUENCH_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What the template says of one side chain.

    `atoms` are its heavy atoms (angstrom), if the residue is conserved and complete. `chis` (degrees) are torsions to
    carry over from another residue. `fixed`: part of a disulfide, not to be moved.
    """

    atoms: Mapping[str, Array] | None = None
    chis: tuple[float, ...] = ()
    alike: bool = False
    fixed: bool = False


@cache
def rotamers() -> Mapping[str, tuple[Array, Array]]:
    """For each residue with rotamers: chi angles (rotamers, chis) in degrees, and shares (rotamers,) that sum to 1."""
    text = resources.files("snakefold.engines.template").joinpath("rotamers.txt").read_text(encoding="utf-8")
    rows: dict[str, list[list[float]]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            residue, *numbers = line.split()
            rows.setdefault(residue, []).append([float(number) for number in numbers])
    table = {residue: np.array(values) for residue, values in rows.items()}
    return MappingProxyType(
        {name: (values[:, 1:], values[:, 0] / values[:, 0].sum()) for name, values in table.items()}
    )


def suggestions(backbone: Backbone, templates: Sequence[ChainTemplate]) -> dict[int, Suggestion]:
    """What the templates say of each residue whose backbone was copied from one of them."""
    found: dict[int, Suggestion] = {}
    bridged = [_bridged_cysteines(template) for template in templates]
    for target in np.flatnonzero(backbone.template_index >= 0).tolist():
        source, index = int(backbone.source[target]), int(backbone.template_index[target])
        template = templates[source]
        atoms = template.chain.residues[index]
        letter, other = backbone.sequence[target], template.chain.sequence[index]
        residue = NAME_OF_LETTER[letter]
        names = side_chain_atoms(residue)
        if letter == other and names and set(names) <= set(atoms) and is_left_handed(residue, atoms):
            found[target] = Suggestion(
                atoms={name: np.asarray(atoms[name], dtype=float) for name in names},
                fixed=letter == "C" and _partner_is_cysteine(backbone, source, bridged[source].get(index)),
            )
        elif chi_atoms(residue) and other in NAME_OF_LETTER and (chis := _carried_chis(letter, other, atoms)):
            alike = any(letter in group and other in group for group in _ALIKE)
            found[target] = Suggestion(chis=chis if alike else chis[:1], alike=alike)
    return found


def _bridged_cysteines(template: ChainTemplate) -> dict[int, int]:
    """The partner of each cysteine that forms a disulfide within the template chain."""
    sulphurs = {i: atoms["SG"] for i, atoms in template.chain.residues.items() if "SG" in atoms}
    partners: dict[int, int] = {}
    for first, position in sulphurs.items():
        for second, other in sulphurs.items():
            if first != second and np.linalg.norm(position - other) < _DISULFIDE:
                partners[first] = second
    return partners


def _partner_is_cysteine(backbone: Backbone, source: int, partner: int | None) -> bool:
    """Whether residue `partner` of the template `source` became a cysteine of the target too."""
    if partner is None:
        return False
    targets = np.flatnonzero((backbone.source == source) & (backbone.template_index == partner))
    return len(targets) > 0 and backbone.sequence[int(targets[0])] == "C"


def _carried_chis(letter: str, other: str, atoms: Mapping[str, Array]) -> tuple[float, ...]:
    """The template's chi angles as they apply to another residue type.

    Valine's gammas are named the other way round: its CG2 stands where isoleucine has CG1 and threonine OG1.
    """
    chis = list(chi_angles(NAME_OF_LETTER[other], atoms)) if other != "P" else []
    if not chis or letter == "P":
        return ()
    if other == "V":
        chis[0] += 122.9
    if letter == "V":
        chis[0] -= 122.9
    return tuple(float((chi + 180) % 360 - 180) for chi in chis)


@dataclass(frozen=True, kw_only=True)
class _Candidates:
    """The conformations of one side chain: atoms (candidates, atoms, 3) and energies (candidates,) of their own."""

    atoms: Array
    energies: Array


def pack_side_chains(
    backbones: Sequence[Backbone], suggested: Sequence[Mapping[int, Suggestion]], seed: int
) -> list[dict[int, dict[str, Array]]]:
    """Heavy side-chain atoms (angstrom) of every modelled residue, by chain and residue index.

    `suggested` holds the template's suggestions by chain. The same input and seed give the same result.
    """
    places = [(c, i) for c, backbone in enumerate(backbones) for i in np.flatnonzero(backbone.modelled).tolist()]
    names = [NAME_OF_LETTER[backbones[chain].sequence[index]] for chain, index in places]
    candidates = [
        _candidates(names[number], backbones[chain].atoms[index], suggested[chain].get(index))
        for number, (chain, index) in enumerate(places)
    ]
    candidates = _with_surroundings(places, names, backbones, candidates)
    chosen = _anneal_choice(names, candidates, seed)
    packed: list[dict[int, dict[str, Array]]] = [{} for _ in backbones]
    for number, (chain, index) in enumerate(places):
        atoms = candidates[number].atoms[chosen[number]]
        packed[chain][index] = dict(zip(side_chain_atoms(names[number]), atoms, strict=True))
    return packed


def _candidates(residue: str, backbone: Array, suggestion: Suggestion | None) -> _Candidates:
    """Rotamers with variations of chi1, and the template's own conformation, with the energies of both."""
    frame = dict(zip(BACKBONE, backbone, strict=True))
    copied = suggestion.atoms if suggestion is not None else None
    if suggestion is not None and suggestion.fixed and copied is not None:
        return _Candidates(atoms=np.array([list(copied.values())]), energies=np.zeros(1))
    if residue not in rotamers():
        return _Candidates(atoms=build_side_chain(residue, frame, np.zeros((1, 0))), energies=np.zeros(1))
    chis, shares = rotamers()[residue]
    base = -_ROTAMER_WEIGHT * np.log(shares / shares.max())
    steps = _CHI1_STEPS if residue != "PRO" else (0.0,)
    all_chis: Array = np.concatenate([chis + np.eye(1, chis.shape[1]) * step for step in steps])
    energies: Array = np.concatenate([base + (_STEP_PENALTY if step else 0.0) for step in steps])
    if suggestion is not None and suggestion.chis:
        near = _turn(all_chis[:, 0], suggestion.chis[0]) < _CHI1_WINDOW
        energies = energies - _CHI1_BONUS * near
        if suggestion.alike:
            carried = _carried_conformations(chis, shares, suggestion.chis)
            all_chis = np.concatenate([all_chis, carried[0]])
            energies = np.concatenate([energies, carried[1] - _CHI1_BONUS - _SIMILAR_BONUS])
    atoms = build_side_chain(residue, frame, all_chis)
    if copied is not None:
        atoms = np.concatenate([np.array([list(copied.values())]), atoms])
        energies = np.concatenate([[-_COPY_BONUS], energies])
    return _Candidates(atoms=atoms, energies=energies)


def _turn(first: Array, second: Array | float) -> Array:
    """The angle between torsions, 0-180 degrees."""
    return np.abs((first - second + 180) % 360 - 180)


def _carried_conformations(chis: Array, shares: Array, carried: tuple[float, ...]) -> tuple[Array, Array]:
    """Rotamers whose first chis lie near the carried ones, with those put in exactly; their energies."""
    count = min(len(carried), chis.shape[1])
    close = np.all([_turn(chis[:, k], carried[k]) < _CHI1_WINDOW for k in range(count)], axis=0)
    if not close.any():
        close = _turn(chis[:, 0], carried[0]) < _CHI1_WINDOW
        count = 1
    kept = chis[close].copy()
    kept[:, :count] = carried[:count]
    return kept, -_ROTAMER_WEIGHT * np.log(shares[close] / shares.max())


def _radii(atom_names: Sequence[str]) -> Array:
    return np.array([_RADII[name[0]] for name in atom_names])


def _with_surroundings(
    places: Sequence[tuple[int, int]],
    names: Sequence[str],
    backbones: Sequence[Backbone],
    candidates: Sequence[_Candidates],
) -> list[_Candidates]:
    """Add the contacts with all backbones to each candidate's energy, and keep the best candidates.

    CB counts with the backbone, because it does not move. Left out are a side chain's own residue, and C and N of the
    bonds to its neighbours, which rotamer frequencies account for.
    """
    points: list[Array] = []
    radii: list[float] = []
    owners: list[int] = []
    near_bond: list[int] = []
    for number, (chain, index) in enumerate(places):
        for column, atom in enumerate(BACKBONE):
            points.append(backbones[chain].atoms[index, column])
            radii.append(_RADII[atom[0]])
            owners.append(number)
            near_bond.append({"N": -1, "C": 1}.get(atom, 0))
        if names[number] != "GLY":
            points.append(candidates[number].atoms[0, 0])
            radii.append(_RADII["C"])
            owners.append(number)
            near_bond.append(0)
    cloud, cloud_radii = np.array(points), np.array(radii)
    owner, bond = np.array(owners), np.array(near_bond)
    tree = KDTree(cloud)
    neighbours_of = {place: number for number, place in enumerate(places)}
    finished: list[_Candidates] = []
    for number, (chain, index) in enumerate(places):
        own = candidates[number]
        if own.atoms.shape[1] < 2:
            finished.append(own)
            continue
        moving = np.ascontiguousarray(own.atoms[:, 1:])
        centre = own.atoms[0, 0]
        reach = float(np.linalg.norm(moving - centre, axis=-1).max()) + _CONTACT_REACH
        near = np.array(sorted(tree.query_ball_point(centre, reach)), dtype=np.int64)
        before = neighbours_of.get((chain, index - 1), -1)
        after = neighbours_of.get((chain, index + 1), -1)
        skipped = (
            (owner[near] == number)
            | ((owner[near] == before) & (bond[near] == 1))
            | ((owner[near] == after) & (bond[near] == -1))
        )
        near = near[~skipped]
        atom_radii = _radii(side_chain_atoms(names[number])[1:])
        energies = own.energies + _contacts_with(moving, atom_radii, cloud[near], cloud_radii[near])
        order = np.argsort(energies, kind="stable")[:_MAX_CANDIDATES]
        finished.append(_Candidates(atoms=own.atoms[order], energies=energies[order]))
    return finished


def _anneal_choice(names: Sequence[str], candidates: Sequence[_Candidates], seed: int) -> NDArray[np.int64]:
    """The candidate to take for each residue: (residues,)."""
    count = len(candidates)
    sizes = np.array([len(own.energies) for own in candidates], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    energies = np.concatenate([own.energies for own in candidates])
    widths = np.array([own.atoms.shape[1] - 1 if own.atoms.shape[1] else 0 for own in candidates], dtype=np.int64)
    atom_starts = np.concatenate([[0], np.cumsum(sizes * widths)]).astype(np.int64)
    radius_starts = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    moving = [own.atoms[:, 1:].reshape(-1, 3) for own in candidates]
    points = np.concatenate(moving) if moving else np.zeros((0, 3))
    radii = np.concatenate([_radii(side_chain_atoms(name)[1:]) for name in names])
    pairs = _neighbouring_pairs(candidates)
    offsets = np.concatenate([[0], np.cumsum(sizes[pairs[:, 0]] * sizes[pairs[:, 1]])]).astype(np.int64)
    table = _pair_energies(pairs, offsets, sizes, widths, atom_starts, radius_starts, points, radii)
    # Each residue's pairs, so that a step needs only its own neighbours.
    order = np.argsort(np.concatenate([pairs[:, 0], pairs[:, 1]]), kind="stable").astype(np.int64)
    counts = np.bincount(np.concatenate([pairs[:, 0], pairs[:, 1]]), minlength=count)
    list_starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    best, best_energy = np.zeros(count, dtype=np.int64), np.inf
    for restart in range(_RESTARTS):
        state, energy = _anneal(
            seed + restart, restart > 0, sizes, starts, energies, pairs, offsets, table, order, list_starts
        )
        if energy < best_energy:
            best, best_energy = state, energy
    return best


def _neighbouring_pairs(candidates: Sequence[_Candidates]) -> NDArray[np.int64]:
    """(pairs, 2): residues whose moving atoms can come within reach of each other, first < second."""
    movable = [number for number, own in enumerate(candidates) if own.atoms.shape[1] > 1]
    if len(movable) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    centres = np.array([candidates[number].atoms[0, 0] for number in movable])
    reaches = np.array(
        [np.linalg.norm(candidates[n].atoms[:, 1:] - c, axis=-1).max() for n, c in zip(movable, centres, strict=True)]
    )
    found = KDTree(centres).query_pairs(2 * float(reaches.max()) + _CONTACT_REACH, output_type="ndarray")
    distances = np.linalg.norm(centres[found[:, 0]] - centres[found[:, 1]], axis=1)
    found = found[distances < reaches[found[:, 0]] + reaches[found[:, 1]] + _CONTACT_REACH]
    pairs = np.sort(np.array(movable)[found], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64)


@numba.njit(cache=True)
def _contact(squared: Any, reach: Any) -> Any:
    """The energy of two atoms: repulsive below the sum `reach` of their radii, up to 10; weakly attractive to 6 A."""
    if squared >= 36.0:
        return 0.0
    distance = np.sqrt(squared)
    if distance < reach:
        return min(40.0 * (1.0 - distance / reach), 10.0)
    return -0.25 * (6.0 - distance) / (6.0 - reach)


@numba.njit(cache=True)
def _contacts_with(moving: Array, radii: Array, cloud: Array, cloud_radii: Array) -> Array:
    """Energies (candidates,) of moving atoms (candidates, atoms, 3) among the atoms (cloud, 3) that stay."""
    energies = np.zeros(moving.shape[0])
    for candidate in range(moving.shape[0]):
        for atom in range(moving.shape[1]):
            for other in range(cloud.shape[0]):
                dx = moving[candidate, atom, 0] - cloud[other, 0]
                dy = moving[candidate, atom, 1] - cloud[other, 1]
                dz = moving[candidate, atom, 2] - cloud[other, 2]
                energies[candidate] += _contact(dx * dx + dy * dy + dz * dz, radii[atom] + cloud_radii[other])
    return energies


@numba.njit(cache=True)
def _pair_energies(
    pairs: NDArray[np.int64],
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    widths: NDArray[np.int64],
    atom_starts: NDArray[np.int64],
    radius_starts: NDArray[np.int64],
    points: Array,
    radii: Array,
) -> NDArray[np.float32]:
    """The energy of every candidate of a pair's first residue with every one of its second, pair by pair, flat."""
    table = np.zeros(offsets[-1], dtype=np.float32)
    for pair in range(pairs.shape[0]):
        first, second = pairs[pair, 0], pairs[pair, 1]
        for a in range(sizes[first]):
            for b in range(sizes[second]):
                energy = 0.0
                for i in range(widths[first]):
                    at = atom_starts[first] + a * widths[first] + i
                    for j in range(widths[second]):
                        other = atom_starts[second] + b * widths[second] + j
                        dx = points[at, 0] - points[other, 0]
                        dy = points[at, 1] - points[other, 1]
                        dz = points[at, 2] - points[other, 2]
                        reach = radii[radius_starts[first] + i] + radii[radius_starts[second] + j]
                        energy += _contact(dx * dx + dy * dy + dz * dz, reach)
                table[offsets[pair] + a * sizes[second] + b] = energy
    return table


@numba.njit(cache=True)
def _local_energies(
    residue: int,
    state: NDArray[np.int64],
    sizes: NDArray[np.int64],
    starts: NDArray[np.int64],
    energies: Array,
    pairs: NDArray[np.int64],
    offsets: NDArray[np.int64],
    table: NDArray[np.float32],
    order: NDArray[np.int64],
    list_starts: NDArray[np.int64],
) -> Array:
    """The energy of every candidate of one residue, all others as they are."""
    local = energies[starts[residue] : starts[residue + 1]].copy()
    for entry in range(list_starts[residue], list_starts[residue + 1]):
        pair = order[entry] % pairs.shape[0]
        first, second = pairs[pair, 0], pairs[pair, 1]
        if first == residue:
            for own in range(sizes[residue]):
                local[own] += table[offsets[pair] + own * sizes[second] + state[second]]
        else:
            for own in range(sizes[residue]):
                local[own] += table[offsets[pair] + state[first] * sizes[second] + own]
    return local


@numba.njit(cache=True)
def _anneal(
    seed: int,
    from_random: bool,
    sizes: NDArray[np.int64],
    starts: NDArray[np.int64],
    energies: Array,
    pairs: NDArray[np.int64],
    offsets: NDArray[np.int64],
    table: NDArray[np.float32],
    order: NDArray[np.int64],
    list_starts: NDArray[np.int64],
) -> tuple[NDArray[np.int64], float]:
    """Simulated annealing with heat-bath steps (each residue drawn from its Boltzmann distribution), then a quench."""
    np.random.seed(seed)
    count = len(sizes)
    state = np.zeros(count, dtype=np.int64)
    for residue in range(count):
        own = energies[starts[residue] : starts[residue + 1]]
        state[residue] = np.random.randint(0, sizes[residue]) if from_random else np.argmin(own)
    for step in range(_COOLING_STEPS + _QUENCH_STEPS):
        temperature = 3.0 * (0.1 / 3.0) ** (step / (_COOLING_STEPS - 1)) if step < _COOLING_STEPS else 0.0
        changed = False
        for residue in np.random.permutation(count):
            if sizes[residue] == 1:
                continue
            local = _local_energies(residue, state, sizes, starts, energies, pairs, offsets, table, order, list_starts)
            lowest = local.min()
            choice = np.argmin(local)
            if temperature > 0:
                weights = np.cumsum(np.exp(-(local - lowest) / temperature))
                choice = min(np.searchsorted(weights, np.random.random() * weights[-1]), sizes[residue] - 1)
            changed |= choice != state[residue]
            state[residue] = choice
        if temperature == 0.0 and not changed:
            break
    total: Any = 0.0
    for residue in range(count):
        total += energies[starts[residue] + state[residue]]
    for pair in range(pairs.shape[0]):
        first, second = pairs[pair, 0], pairs[pair, 1]
        total += table[offsets[pair] + state[first] * sizes[second] + state[second]]
    return state, total
