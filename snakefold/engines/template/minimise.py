"""Restrained minimisation of a raw model: repairs the seams of loops and the overlaps of side chains, and moves little.

Amber99sb (V. Hornak et al., Proteins 65 (2006), 712) in vacuum, with OpenMM. The `relax` step, with its own loop over
violations, comes later and is another matter.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from openmm import (
    CustomExternalForce,
    CustomNonbondedForce,
    CustomTorsionForce,
    NonbondedForce,
    OpenMMException,
    Platform,
    VerletIntegrator,
)
from openmm.app import CutoffNonPeriodic, Element, ForceField, Simulation, Topology

from snakefold.engines.template.building import Array, add_hydrogens, amide_hydrogen, place
from snakefold.engines.template.building import unit as unit_vector
from snakefold.errors import MemberError
from snakefold.structures.residues import NAME_OF_LETTER, element_of

_DISULFIDE = 2.6
_PEPTIDE_BOND = 2.5
_RESTRAINT = 10.0 * 418.4  # 10 kcal/mol/A2 in kJ/mol/nm2
_TOLERANCE = 100.0  # kJ/mol/nm
_SOFT_ITERATIONS = 100
_MAX_ITERATIONS = 400
_CUTOFF = 1.0  # nm
_SOFT_STIFFNESS = 2.0e5  # kJ/mol/nm2
_CHIRALITY_WALL = 2000.0  # kJ/mol/rad2
_BONDED, _REAL_CONTACTS, _SOFT_CONTACTS = 0, 1, 2  # force groups

Atoms = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class RawChain:
    """One chain to minimise: standard residues, heavy atoms (angstrom) by residue index, and which to hold in place.

    `restrained` are the residues whose N, CA and C came from the template.
    """

    sequence: str
    atoms: Mapping[int, Mapping[str, Array]]
    restrained: frozenset[int]


def minimise(chains: Sequence[RawChain]) -> list[dict[int, Atoms]]:
    """Heavy atoms (angstrom) of every residue after minimisation, by chain and residue index.

    One thread and deterministic forces: the same input gives the same bytes on the same machine.

    Raises MemberError ("cannot_minimise") if atoms lie on one another, so that forces are no numbers.
    """
    topology = Topology()
    positions: list[Array] = []
    restrained: list[int] = []
    owners: list[tuple[int, int, str]] = []
    disulfides = dict(_disulfides(chains))
    sulphurs: dict[tuple[int, int], object] = {}
    for number, chain in enumerate(chains):
        for segment in _segments(chain):
            part = topology.addChain()
            for index in segment:
                residue = topology.addResidue(NAME_OF_LETTER[chain.sequence[index]], part)
                atoms = _complete(chain, index, segment, bridged=(number, index) in disulfides)
                for name, position in atoms.items():
                    atom = topology.addAtom(name, Element.getBySymbol(element_of(name)), residue)
                    if name in ("N", "CA", "C") and index in chain.restrained:
                        restrained.append(len(positions))
                    if name == "SG":
                        sulphurs[number, index] = atom
                    positions.append(position)
                    owners.append((number, index, name))
    topology.createStandardBonds()
    for first, second in disulfides.items():
        if first < second:
            topology.addBond(sulphurs[first], sulphurs[second])
    try:
        moved = _minimise(topology, np.array(positions), restrained)
    except OpenMMException as error:
        raise MemberError("cannot_minimise", f"the model cannot be minimised ({error}); try another template") from None
    result: list[dict[int, Atoms]] = [{} for _ in chains]
    for (number, index, name), position in zip(owners, moved, strict=True):
        if name in chains[number].atoms[index]:
            result[number].setdefault(index, {})[name] = position
    return result


def _segments(chain: RawChain) -> Iterator[list[int]]:
    """Stretches of residues joined by peptide bonds."""
    segment: list[int] = []
    for index in sorted(chain.atoms):
        if segment:
            bond = np.linalg.norm(chain.atoms[index]["N"] - chain.atoms[segment[-1]]["C"])
            if index != segment[-1] + 1 or bond > _PEPTIDE_BOND:
                yield segment
                segment = []
        segment.append(index)
    if segment:
        yield segment


def _disulfides(chains: Sequence[RawChain]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Cysteines whose sulphurs are within bonding distance, each with its partner, both ways; nearest pairs first."""
    sulphurs = [(n, i, a["SG"]) for n, chain in enumerate(chains) for i, a in chain.atoms.items() if "SG" in a]
    pairs = sorted(
        (float(np.linalg.norm(p - q)), (n, i), (m, j))
        for a, (n, i, p) in enumerate(sulphurs)
        for m, j, q in sulphurs[a + 1 :]
        if np.linalg.norm(p - q) < _DISULFIDE
    )
    taken: set[tuple[int, int]] = set()
    for _, first, second in pairs:
        if first not in taken and second not in taken:
            taken |= {first, second}
            yield first, second
            yield second, first


def _complete(chain: RawChain, index: int, segment: Sequence[int], bridged: bool) -> Atoms:
    """All atoms of a residue, hydrogens and terminal atoms included."""
    letter = chain.sequence[index]
    atoms = {name: np.asarray(position, dtype=float) for name, position in chain.atoms[index].items()}
    n, ca, c = atoms["N"], atoms["CA"], atoms["C"]
    extra = add_hydrogens(NAME_OF_LETTER[letter], atoms, left_out=("HG",) if letter == "C" and bridged else ())
    if index == segment[0]:
        torsions = {"H2": 60.0, "H3": -60.0} if letter == "P" else {"H": 180.0, "H2": 60.0, "H3": -60.0}
        extra |= {name: place(c, ca, n, 1.01, 109.5, torsion) for name, torsion in torsions.items()}
    elif letter != "P":
        extra["H"] = amide_hydrogen(np.asarray(chain.atoms[index - 1]["C"]), n, ca)
    if index == segment[-1]:
        extra["OXT"] = c + 1.25 * unit_vector(unit_vector(c - ca) + unit_vector(c - atoms["O"]))
    return atoms | extra


def _minimise(topology: Topology, positions: Array, restrained: Sequence[int]) -> Array:
    system = ForceField("amber99sb.xml").createSystem(
        topology,
        nonbondedMethod=CutoffNonPeriodic,  # pyright: ignore[reportArgumentType] (annotated as the type of its default)
        nonbondedCutoff=_CUTOFF,
    )
    nonbonded = next(force for force in system.getForces() if isinstance(force, NonbondedForce))
    nonbonded.setForceGroup(_REAL_CONTACTS)
    soft = _soft_contacts(nonbonded)
    soft.setForceGroup(_SOFT_CONTACTS)
    for force in (soft, _restraints(positions, restrained), _chirality(topology)):
        system.addForce(force)
    integrator = VerletIntegrator(0.001)
    # One thread, deterministic forces: sums in another order would differ in the last bits, then in the coordinates.
    platform = Platform.getPlatformByName("CPU")
    simulation = Simulation(topology, system, integrator, platform, {"Threads": "1", "DeterministicForces": "true"})
    simulation.context.setPositions(positions / 10)
    # Overlapping atoms first part under forces that stay finite: under the real ones they would fly through each other,
    # and leave a side chain on the wrong side of its backbone.
    integrator.setIntegrationForceGroups({_BONDED, _SOFT_CONTACTS})
    simulation.minimizeEnergy(tolerance=_TOLERANCE, maxIterations=_SOFT_ITERATIONS)
    integrator.setIntegrationForceGroups({_BONDED, _REAL_CONTACTS})
    simulation.minimizeEnergy(tolerance=_TOLERANCE, maxIterations=_MAX_ITERATIONS)
    state = simulation.context.getState(getPositions=True)
    return 10 * np.array([(xyz.x, xyz.y, xyz.z) for xyz in state.getPositions()._value])


def _soft_contacts(nonbonded: NonbondedForce) -> CustomNonbondedForce:
    """Harmonic repulsion below 0.85 of the van der Waals distance, for the pairs that `nonbonded` counts."""
    soft = CustomNonbondedForce("0.5*stiffness*step(reach-r)*(reach-r)^2; reach=0.85*(radius1+radius2)")
    soft.addGlobalParameter("stiffness", _SOFT_STIFFNESS)
    soft.addPerParticleParameter("radius")
    soft.setNonbondedMethod(CustomNonbondedForce.CutoffNonPeriodic)
    soft.setCutoffDistance(0.4)
    for atom in range(nonbonded.getNumParticles()):
        _, sigma, epsilon = nonbonded.getParticleParameters(atom)
        # The hydrogens of hydroxyls have a sigma in the force field, but no depth: they touch nothing.
        soft.addParticle([0.5 * 2 ** (1 / 6) * sigma._value if epsilon._value > 0 else 0.0])
    for exception in range(nonbonded.getNumExceptions()):
        first, second, *_ = nonbonded.getExceptionParameters(exception)
        soft.addExclusion(first, second)
    return soft


def _restraints(positions: Array, restrained: Sequence[int]) -> CustomExternalForce:
    """Harmonic restraints of atoms to where they are."""
    force = CustomExternalForce("0.5*k*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    force.addGlobalParameter("k", _RESTRAINT)
    for name in ("x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    for atom in restrained:
        force.addParticle(atom, positions[atom] / 10)
    return force


def _chirality(topology: Topology) -> CustomTorsionForce:
    """Walls that keep stereocentres: forces act only where an improper torsion is off by more than 20 degrees.

    Without them an inverted centre is a minimum like any other, since the force field knows no handedness.
    """
    off = "min(abs(theta-center), 6.283185307179586-abs(theta-center))"
    force = CustomTorsionForce(f"wall*max(0, off-0.35)^2; off={off}")
    force.addGlobalParameter("wall", _CHIRALITY_WALL)
    force.addPerTorsionParameter("center")
    for residue in topology.residues():
        atoms = {atom.name: atom.index for atom in residue.atoms()}
        centres = [("C", "N", "CA", "CB", -122.4)]
        if residue.name == "ILE":
            centres.append(("CG1", "CA", "CB", "CG2", -123.5))
        if residue.name == "THR":
            centres.append(("OG1", "CA", "CB", "CG2", -120.5))
        for *names, angle in centres:
            if all(name in atoms for name in names):
                force.addTorsion(*(atoms[name] for name in names), [math.radians(angle)])
    return force
