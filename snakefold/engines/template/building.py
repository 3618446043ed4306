"""Ideal geometry of the amino acids, and the building of side chains and hydrogens from it.

Residues go by their three-letter names; positions are angstrom, angles degrees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from snakefold.structures.residues import CHI_ATOMS, LETTER_OF_NAME, NAME_OF_LETTER

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AtomRule:
    """How one atom is placed: at `length` (angstrom) from `parent`, at `angle` (degrees) to `grandparent`.

    Its torsion about grandparent-parent, seen from `great`, is `torsion` degrees, plus the residue's chi number `chi`
    unless that is 0.
    """

    name: str
    parent: str
    grandparent: str
    great: str
    length: float
    angle: float
    chi: int
    torsion: float


@cache
def atom_rules() -> Mapping[str, tuple[AtomRule, ...]]:
    """The rules of every residue (three-letter name), in an order in which they can be applied."""
    text = resources.files("snakefold.engines.template").joinpath("geometry.txt").read_text(encoding="utf-8")
    rules: dict[str, list[AtomRule]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        residue, name, parent, grandparent, great, length, angle, chi, torsion = line.split()
        rules.setdefault(residue, []).append(
            AtomRule(
                name=name,
                parent=parent,
                grandparent=grandparent,
                great=great,
                length=float(length),
                angle=float(angle),
                chi=int(chi),
                torsion=float(torsion),
            )
        )
    return MappingProxyType({residue: tuple(found) for residue, found in rules.items()})


def standard_letter(letter: str) -> str:
    """The standard amino acid that stands in for `letter`: cysteine for U (selenocysteine), alanine for X."""
    return "C" if letter == "U" else letter if letter != "X" and letter in NAME_OF_LETTER else "A"


@cache
def heavy_rules(residue: str) -> tuple[AtomRule, ...]:
    """The rules of the side chain's heavy atoms, CB first."""
    return tuple(rule for rule in atom_rules()[residue] if not rule.name.startswith("H"))


@cache
def side_chain_atoms(residue: str) -> tuple[str, ...]:
    """Names of the side chain's heavy atoms, CB first; empty for glycine."""
    return tuple(rule.name for rule in heavy_rules(residue))


@cache
def chi_atoms(residue: str) -> tuple[tuple[str, str, str, str], ...]:
    """The four atoms of each chi torsion, chi1 first."""
    quartets = (names.split() for names in CHI_ATOMS.get(LETTER_OF_NAME[residue], ()))
    return tuple((a, b, c, d) for a, b, c, d in quartets)


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def dihedral(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Torsion angles in degrees, -180 to 180, of points (..., 3)."""
    axis = unit(c - b)
    first, second = a - b, d - c
    first = first - (first * axis).sum(-1, keepdims=True) * axis
    second = second - (second * axis).sum(-1, keepdims=True) * axis
    return np.degrees(np.arctan2((np.cross(axis, first) * second).sum(-1), (first * second).sum(-1)))


def place(a: Array, b: Array, c: Array, length: float, angle: float, torsion: Array | float) -> Array:
    """The points (..., 3) at `length` angstrom from c, at `angle` degrees to b and `torsion` degrees about b-c from a.

    NeRF: J. Parsons et al., J. Comput. Chem. 26 (2005), 1063.
    """
    theta, phi = np.radians(angle), np.radians(np.asarray(torsion))[..., None]
    axis = unit(c - b)
    normal = unit(np.cross(b - a, axis))
    across = np.cross(normal, axis)
    return c + length * (
        -np.cos(theta) * axis + np.sin(theta) * np.cos(phi) * across + np.sin(theta) * np.sin(phi) * normal
    )


def build_side_chain(residue: str, backbone: Mapping[str, Array], chis: Array) -> Array:
    """Heavy side-chain atoms, in `side_chain_atoms` order, for each row of chi angles.

    `chis` is (conformations, number of chis) in degrees; the result (conformations, atoms, 3).
    """
    count = len(chis)
    atoms = {name: np.broadcast_to(backbone[name], (count, 3)) for name in ("N", "CA", "C")}
    for rule in heavy_rules(residue):
        torsion = np.full(count, rule.torsion) + (chis[:, rule.chi - 1] if rule.chi else 0.0)
        atoms[rule.name] = place(
            atoms[rule.great], atoms[rule.grandparent], atoms[rule.parent], rule.length, rule.angle, torsion
        )
    names = side_chain_atoms(residue)
    if not names:
        return np.zeros((count, 0, 3))
    return np.stack([atoms[name] for name in names], axis=1)


def chi_angles(residue: str, atoms: Mapping[str, Array]) -> Array:
    """The chi torsions (degrees) of a residue's atoms, up to the first that lacks an atom."""
    angles: list[float] = []
    for quartet in chi_atoms(residue):
        if not all(name in atoms for name in quartet):
            break
        a, b, c, d = (np.asarray(atoms[name], dtype=float) for name in quartet)
        angles.append(float(dihedral(a, b, c, d)))
    return np.array(angles)


def is_left_handed(residue: str, atoms: Mapping[str, Array]) -> bool:
    """Whether every chiral centre that `atoms` shows is that of the natural L-amino acid (CA; CB of ILE and THR)."""
    if "CB" in atoms and not 90 < -float(dihedral(*(np.asarray(atoms[n]) for n in ("C", "N", "CA", "CB")))) < 150:
        return False
    branch = {"ILE": ("CG1", "CG2"), "THR": ("OG1", "CG2")}.get(residue)
    if branch is None or not {"CB", *branch} <= set(atoms):
        return True
    first, second = (np.asarray(atoms[name]) for name in branch)
    n, ca, cb = (np.asarray(atoms[name]) for name in ("N", "CA", "CB"))
    turn = (dihedral(n, ca, cb, second) - dihedral(n, ca, cb, first)) % 360
    return bool(200 < turn < 280)


def carbonyl_oxygen(ca: Array, c: Array, next_n: Array) -> Array:
    """The O of a peptide bond, in its plane: 1.231 A from C (Engh and Huber 2001)."""
    return c + 1.231 * unit(unit(c - ca) + unit(c - next_n))


def amide_hydrogen(previous_c: Array, n: Array, ca: Array) -> Array:
    """The H of a peptide bond, in its plane: 1.01 A from N."""
    return n + 1.01 * unit(unit(n - previous_c) + unit(n - ca))


def add_hydrogens(residue: str, atoms: Mapping[str, Array], left_out: Sequence[str] = ()) -> dict[str, Array]:
    """The hydrogens on carbon and side chain, from the heavy atoms as they are; the backbone's amide is not among them.

    Torsions are measured from the heavy sibling where there is one, so that hydrogens follow distorted side chains.
    """
    chis = chi_angles(residue, atoms)
    hydrogens: dict[str, Array] = {}
    for rule in atom_rules()[residue]:
        if not rule.name.startswith("H") or rule.name in left_out:
            continue
        torsion = rule.torsion + (chis[rule.chi - 1] if rule.chi else 0.0)
        hydrogens[rule.name] = place(
            np.asarray(atoms[rule.great]),
            np.asarray(atoms[rule.grandparent]),
            np.asarray(atoms[rule.parent]),
            rule.length,
            rule.angle,
            torsion,
        )
    return hydrogens
