"""Side chains: copied from the template where they are conserved, packed as rotamers everywhere else.

Every residue has candidate conformations: rotamers as frequent as they are at its phi and psi, and what the template
suggests. Which of them are taken is decided for all residues together, in packing.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from snakefold.engines.template.contacts import atom_types, rotamer_weights
from snakefold.engines.template.disulfides import bridges
from snakefold.engines.template.packing import Candidates, Surroundings, choose
from snakefold.engines.template.rotamers import conformations, rotamers
from snakefold.engines.template.templates import ChainTemplate
from snakefold.structures.residues import BACKBONE, NAME_OF_LETTER

_DISULFIDE = 2.6
_NEIGHBOURHOOD = 10.0
_CHI_WINDOW = 40.0

# How much the template's chi angles are favoured, in kT: more where the residues around are conserved too.
_IDENTICAL_BONUS = (2.0, 2.5)
_ALIKE_BONUS = (1.5, 1.5)
_OTHER_BONUS = (1.0, 0.5)
_EXACT_BONUS = 1.0
_LATER_CHIS = 0.5

# Residues whose side chains run alike as far as they both go.
_ALIKE = ("FY", "DN", "EQ", "EQKRM", "VI", "IT", "VT", "SC", "ST", "LM", "DE", "HFY")


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What the template says of one side chain.

    `chis` (degrees) are the template's torsions, as they apply to the target's residue; `bonus` (kT) is what each of
    them is worth. `atoms` are the heavy atoms (angstrom) themselves, if the residue is conserved and complete. `fixed`:
    part of a disulfide, not to be moved. `apart`: a cysteine that is none in the template.
    """

    chis: tuple[float, ...] = ()
    bonus: float = 0.0
    atoms: Mapping[str, Array] | None = None
    fixed: bool = False
    apart: bool = False


def suggestions(backbone: Backbone, templates: Sequence[ChainTemplate]) -> dict[int, Suggestion]:
    """What the templates say of each residue whose backbone was copied from one of them."""
    found: dict[int, Suggestion] = {}
    bridged = [_bridged_cysteines(template) for template in templates]
    similarity = _local_identity(backbone)
    for target in np.flatnonzero(backbone.template_index >= 0).tolist():
        source, index = int(backbone.source[target]), int(backbone.template_index[target])
        template = templates[source]
        atoms = template.chain.residues[index]
        letter, other = backbone.sequence[target], template.chain.sequence[index]
        residue = NAME_OF_LETTER[letter]
        names = side_chain_atoms(residue)
        if not names or other not in NAME_OF_LETTER:
            continue
        if letter == other and set(names) <= set(atoms) and is_left_handed(residue, atoms):
            partner = bridged[source].get(index)
            found[target] = Suggestion(
                chis=tuple(chi_angles(residue, atoms).tolist()),
                bonus=_bonus(_IDENTICAL_BONUS, similarity[target]),
                atoms={name: np.asarray(atoms[name], dtype=float) for name in names},
                fixed=letter == "C" and _partner_is_cysteine(backbone, source, partner),
                apart=letter == "C" and partner is None,
            )
        elif chi_atoms(residue) and (chis := _carried_chis(letter, other, atoms)):
            alike = any(letter in group and other in group for group in _ALIKE)
            found[target] = Suggestion(
                chis=chis if alike else chis[:1],
                bonus=_bonus(_ALIKE_BONUS if alike else _OTHER_BONUS, similarity[target]),
            )
    return found


def _bonus(bonus: tuple[float, float], similarity: float) -> float:
    return bonus[0] + bonus[1] * similarity


def _local_identity(backbone: Backbone) -> Array:
    """(residues,): which part of the residues around each one is the same in its template, itself left out."""
    identity = np.zeros(len(backbone.sequence))
    modelled = np.flatnonzero(backbone.modelled)
    same = np.array([backbone.sequence[i] == backbone.template_letters[i] for i in modelled.tolist()], dtype=float)
    around = KDTree(backbone.atoms[modelled, 1]).query_ball_point(backbone.atoms[modelled, 1], _NEIGHBOURHOOD)
    for number, near in enumerate(around):
        others = len(near) - 1
        identity[modelled[number]] = (same[near].sum() - same[number]) / others if others else 0.0
    return identity


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


def pack_side_chains(
    backbones: Sequence[Backbone], suggested: Sequence[Mapping[int, Suggestion]], seed: int
) -> list[dict[int, dict[str, Array]]]:
    """Heavy side-chain atoms (angstrom) of every modelled residue, by chain and residue index.

    `suggested` holds the template's suggestions by chain. The same input and seed give the same result.
    """
    places = [(c, i) for c, backbone in enumerate(backbones) for i in np.flatnonzero(backbone.modelled).tolist()]
    names = [NAME_OF_LETTER[backbones[chain].sequence[index]] for chain, index in places]
    bridged = _new_bridges(places, names, backbones, suggested)
    torsions = [backbone.torsions() for backbone in backbones]
    atoms: list[Array] = []
    candidates: list[Candidates] = []
    for (chain, index), residue in zip(places, names, strict=True):
        backbone = backbones[chain].atoms[index]
        if (chain, index) in bridged:
            own, energies = bridged[chain, index][None], np.zeros(1)
        else:
            phi, psi = torsions[chain][index, :2]
            own, energies = _conformations(residue, backbone, phi, psi, suggested[chain].get(index))
        atoms.append(own)
        candidates.append(
            Candidates(
                moving=np.ascontiguousarray(own[:, 1:]),
                types=atom_types(residue, side_chain_atoms(residue)[1:]),
                energies=energies,
                centre=own[0, 0] if own.shape[1] else backbone[1],
            )
        )
    chosen = choose(candidates, _surroundings(places, names, backbones, atoms), seed)
    packed: list[dict[int, dict[str, Array]]] = [{} for _ in backbones]
    for (chain, index), residue, own, choice in zip(places, names, atoms, chosen, strict=True):
        packed[chain][index] = dict(zip(side_chain_atoms(residue), own[choice], strict=True))
    return packed


def _new_bridges(
    places: Sequence[tuple[int, int]],
    names: Sequence[str],
    backbones: Sequence[Backbone],
    suggested: Sequence[Mapping[int, Suggestion]],
) -> dict[tuple[int, int], Array]:
    """Side chains of cysteines that the template does not bridge, but that lie as bridged ones do.

    Two cysteines that are cysteines in the template too, and not bridged there, stay free.
    """
    free: dict[tuple[int, int], Mapping[str, Array]] = {}
    apart: set[tuple[int, int]] = set()
    for (chain, index), residue in zip(places, names, strict=True):
        suggestion = suggested[chain].get(index)
        if residue == "CYS" and not (suggestion is not None and suggestion.fixed):
            free[chain, index] = dict(zip(BACKBONE, backbones[chain].atoms[index], strict=True))
            if suggestion is not None and suggestion.apart:
                apart.add((chain, index))
    return bridges(free, apart)


def _conformations(
    residue: str, backbone: Array, phi: float, psi: float, suggestion: Suggestion | None
) -> tuple[Array, Array]:
    """Candidates (candidates, atoms, 3) in angstrom and their own energies (candidates,) in kT."""
    frame = dict(zip(BACKBONE, backbone, strict=True))
    copied = np.array(list(suggestion.atoms.values())) if suggestion is not None and suggestion.atoms else None
    if suggestion is not None and suggestion.fixed and copied is not None:
        return copied[None], np.zeros(1)
    if residue not in rotamers():
        return build_side_chain(residue, frame, np.zeros((1, 0))), np.zeros(1)
    tried = conformations(residue, phi, psi)
    weight, cost = rotamer_weights()[residue]
    energies = weight * tried.costs + cost * tried.varied
    if suggestion is None or not suggestion.chis:
        return build_side_chain(residue, frame, tried.chis), energies
    count = min(len(suggestion.chis), tried.chis.shape[1])
    near = np.abs(_turn(tried.chis[:, :count], suggestion.chis[:count])) < _CHI_WINDOW
    agreeing = np.cumprod(near, axis=1).sum(axis=1)
    # Beside the rotamers stands the template's own conformation, as likely as the rotamer that is nearest to it.
    nearest = int(np.lexsort((energies, -agreeing))[0])
    if copied is not None:
        atoms = np.concatenate([copied[None], build_side_chain(residue, frame, tried.chis)])
        own, agreeing = energies[nearest] - _EXACT_BONUS, np.concatenate([[count], agreeing])
    else:
        exact = tried.chis[nearest].copy()
        exact[: agreeing[nearest]] = suggestion.chis[: agreeing[nearest]]
        atoms = build_side_chain(residue, frame, np.concatenate([exact[None], tried.chis]))
        own, agreeing = energies[nearest], np.concatenate([agreeing[nearest : nearest + 1], agreeing])
    worth = np.where(agreeing > 0, 1 + _LATER_CHIS * (agreeing - 1), 0)
    return atoms, np.concatenate([[own], energies]) - suggestion.bonus * worth


def _turn(first: Array, second: Array | Sequence[float]) -> Array:
    """The turn from one torsion to another, -180 to 180 degrees."""
    return (first - np.asarray(second) + 180) % 360 - 180


def _surroundings(
    places: Sequence[tuple[int, int]], names: Sequence[str], backbones: Sequence[Backbone], atoms: Sequence[Array]
) -> Surroundings:
    """All backbones. CB counts among them, because it does not move."""
    number_of = {place: number for number, place in enumerate(places)}
    points: list[Array] = []
    types: list[NDArray[np.int64]] = []
    owner: list[int] = []
    link: list[int] = []
    for number, ((chain, index), residue) in enumerate(zip(places, names, strict=True)):
        points.append(backbones[chain].atoms[index])
        types.append(atom_types(residue, BACKBONE))
        link += [-1, 0, 1, 0]
        if atoms[number].shape[1]:
            points.append(atoms[number][:1, 0])
            types.append(atom_types(residue, ("CB",)))
            link.append(0)
        owner += [number] * (len(link) - len(owner))
    return Surroundings(
        points=np.concatenate(points),
        types=np.concatenate(types),
        owner=np.array(owner),
        link=np.array(link),
        before=np.array([number_of.get((chain, index - 1), -1) for chain, index in places]),
        after=np.array([number_of.get((chain, index + 1), -1) for chain, index in places]),
    )
