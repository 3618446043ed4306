"""Structural violations, which no protein has: bonds, angles, contacts as AlphaFold's relaxation counts them, hands.

The tolerances are AlphaFold's (Jumper et al. 2021, suppl. 1.9.11 and its model configuration): 12 standard deviations
for bond lengths and angles, 1.5 angstrom overlap of van der Waals spheres for everything else. The ideal values are
those of the force field that the minimisation moves towards; they differ from the literature's by some 0.03 angstrom
and 3 degrees, small against tolerances of 0.2 angstrom and 24 degrees.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import openmm
from openmm import app
from scipy.spatial import KDTree

TOLERANCE_SIGMAS = 12.0
OVERLAP_TOLERANCE = 1.5
"""Angstrom by which two van der Waals spheres may overlap before the contact counts as a clash."""

# Standard deviations: of the peptide bond as in AlphaFold (Engh & Huber 1991), else typical values of the same table.
_PEPTIDE_BOND_SIGMA = 0.014
_PEPTIDE_BOND_SIGMA_PROLINE = 0.016
_BOND_SIGMA = 0.02
_ANGLE_SIGMA = float(np.radians(2.0))

# Bondi radii, angstrom, as in AlphaFold.
_VAN_DER_WAALS_RADII = {"C": 1.7, "N": 1.55, "O": 1.52, "S": 1.8}

# Three neighbours of a stereocentre and the centre, in the order of a positive volume in L-amino acids.
_ALPHA_CENTRE = ("N", "C", "CB", "CA")
_BETA_CENTRES = {"ILE": ("CA", "CG1", "CG2", "CB"), "THR": ("CA", "OG1", "CG2", "CB")}

_NANOMETER = 10.0  # angstrom


@dataclass(frozen=True, kw_only=True)
class Violations:
    """What is wrong with a structure: counts, and the residues (indices in the topology) that take part.

    `inverted` are stereocentres (CA; CB of isoleucine and threonine) of the wrong hand; AlphaFold does not count them.
    """

    bonds: int
    angles: int
    clashes: int
    inverted: int
    residues: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Stereochemistry:
    """The ideal covalent geometry of the heavy atoms of a topology. Indices are those of its atoms (N).

    `bonds` (B, 2) with `lengths` and `length_tolerances` (B,) in angstrom; `angles` (A, 3), vertex in the middle, with
    `ideal_angles` (A,) in radians; `centres` (C, 4): three neighbours of a stereocentre, then the centre,
    in the order of a positive volume; `heavy` (H,) atom indices with their `radii` (H,) in angstrom; `residue_of` (N,)
    the residue index of each atom.
    """

    bonds: np.ndarray
    lengths: np.ndarray
    length_tolerances: np.ndarray
    angles: np.ndarray
    ideal_angles: np.ndarray
    centres: np.ndarray
    heavy: np.ndarray
    radii: np.ndarray
    residue_of: np.ndarray

    @cached_property
    def _near_pairs(self) -> np.ndarray:
        """Sorted codes of the pairs of atoms one or two bonds apart, which are no clash however close."""
        pairs = np.concatenate([self.bonds, self.angles[:, [0, 2]]])
        return np.unique(self._codes(pairs))

    def _codes(self, pairs: np.ndarray) -> np.ndarray:
        return pairs.min(axis=1) * len(self.residue_of) + pairs.max(axis=1)

    def violations(self, positions: np.ndarray, known: np.ndarray | None = None) -> Violations:
        """Violations of a structure with `positions` (N, 3) in angstrom; only among `known` (N,) atoms if given."""
        known = np.ones(len(positions), dtype=bool) if known is None else known

        bonds = known[self.bonds].all(axis=1)
        lengths = np.linalg.norm(positions[self.bonds[:, 0]] - positions[self.bonds[:, 1]], axis=1)
        bonds &= np.abs(lengths - self.lengths) > self.length_tolerances

        angles = known[self.angles].all(axis=1)
        first = positions[self.angles[:, 0]] - positions[self.angles[:, 1]]
        second = positions[self.angles[:, 2]] - positions[self.angles[:, 1]]
        # arctan2 stays accurate, and defined, where arccos of a rounded cosine does not.
        values = np.arctan2(np.linalg.norm(np.cross(first, second), axis=1), np.einsum("ij,ij->i", first, second))
        angles &= np.abs(values - self.ideal_angles) > TOLERANCE_SIGMAS * _ANGLE_SIGMA

        clashes = self._clashes(positions, known)

        centres = self.centres[known[self.centres].all(axis=1)]
        one, two, three, centre = (positions[centres[:, column]] for column in range(4))
        volumes = np.einsum("ij,ij->i", one - centre, np.cross(two - centre, three - centre))
        inverted = centres[volumes < 0]

        atoms = [self.bonds[bonds].ravel(), self.angles[angles].ravel(), clashes.ravel(), inverted.ravel()]
        residues = np.unique(self.residue_of[np.concatenate(atoms)])
        return Violations(
            bonds=int(bonds.sum()),
            angles=int(angles.sum()),
            clashes=len(clashes),
            inverted=len(inverted),
            residues=tuple(int(residue) for residue in residues),
        )

    def _clashes(self, positions: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Pairs (K, 2) of atoms that overlap too much and are more than two bonds apart."""
        chosen = known[self.heavy]
        atoms, radii = self.heavy[chosen], self.radii[chosen]
        if not len(atoms):
            return np.empty((0, 2), dtype=int)
        reach = 2 * max(_VAN_DER_WAALS_RADII.values()) - OVERLAP_TOLERANCE
        close = KDTree(positions[atoms]).query_pairs(reach, output_type="ndarray")
        pairs = atoms[close]
        distances = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
        overlapping = distances < radii[close].sum(axis=1) - OVERLAP_TOLERANCE
        return pairs[overlapping & ~np.isin(self._codes(pairs), self._near_pairs)]


def stereochemistry(topology: app.Topology, system: openmm.System) -> Stereochemistry:
    """The ideal geometry that a force field gives to a topology (hydrogens may be in it; they are left out).

    `system` must have been made from `topology` without constraints, which would take bonds out of it.
    """
    atoms = list(topology.atoms())
    is_heavy = np.array([atom.element is not app.element.hydrogen for atom in atoms])
    bond_force = next(force for force in system.getForces() if isinstance(force, openmm.HarmonicBondForce))
    angle_force = next(force for force in system.getForces() if isinstance(force, openmm.HarmonicAngleForce))

    bonds, lengths, tolerances = [], [], []
    for index in range(bond_force.getNumBonds()):
        first, second, length, _ = bond_force.getBondParameters(index)
        if is_heavy[first] and is_heavy[second]:
            bonds.append((first, second))
            lengths.append(length._value * _NANOMETER)
            tolerances.append(TOLERANCE_SIGMAS * _bond_sigma(atoms[first], atoms[second]))
    angles, ideal_angles = [], []
    for index in range(angle_force.getNumAngles()):
        first, vertex, second, angle, _ = angle_force.getAngleParameters(index)
        if is_heavy[first] and is_heavy[vertex] and is_heavy[second]:
            angles.append((first, vertex, second))
            ideal_angles.append(angle._value)

    centres = []
    for residue in topology.residues():
        named = {atom.name: atom.index for atom in residue.atoms()}
        candidates = (_ALPHA_CENTRE, _BETA_CENTRES.get(residue.name, ()))
        centres += [[named[name] for name in names] for names in candidates if names and named.keys() >= set(names)]

    heavy = np.flatnonzero(is_heavy)
    return Stereochemistry(
        bonds=np.array(bonds, dtype=int).reshape(-1, 2),
        lengths=np.array(lengths),
        length_tolerances=np.array(tolerances),
        angles=np.array(angles, dtype=int).reshape(-1, 3),
        ideal_angles=np.array(ideal_angles),
        centres=np.array(centres, dtype=int).reshape(-1, 4),
        heavy=heavy,
        radii=np.array([_VAN_DER_WAALS_RADII[atoms[index].element.symbol] for index in heavy]),
        residue_of=np.array([atom.residue.index for atom in atoms]),
    )


def _bond_sigma(first: app.topology.Atom, second: app.topology.Atom) -> float:
    if first.residue is second.residue or {first.name, second.name} != {"C", "N"}:
        return _BOND_SIGMA
    nitrogen = first if first.name == "N" else second
    return _PEPTIDE_BOND_SIGMA_PROLINE if nitrogen.residue.name == "PRO" else _PEPTIDE_BOND_SIGMA
