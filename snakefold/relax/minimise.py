"""Restrained minimisation in rounds, freeing what is broken: the loop of AlphaFold's relaxation, on OpenMM."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import openmm
from openmm import unit

from snakefold.errors import MemberError, SnakefoldError
from snakefold.relax.preparation import CUTOFF, AllAtomModel, amber_system
from snakefold.relax.violations import Violations, stereochemistry
from snakefold.structures.geometry import ResidueId, torsion

PlatformChoice = Literal["auto", "CPU", "CUDA", "OpenCL", "HIP", "Reference"]

_KILOCALORIE = 4.184  # kJ
_NANOMETER = 10.0  # angstrom
_RESTRAINT_GROUP = 1

# The torsion (neighbour, neighbour, neighbour, centre) of a stereocentre is about -33 degrees, of its mirror image 33.
_LEAST_CHIRALITY = math.radians(20)
_CHIRALITY_STIFFNESS = 2000.0  # kJ/mol/rad^2: stronger than the angles that hold a mirror image in place

# Torsions of a backbone that is to stay as it is, at the very edge of a region if need be: a degree costs 3 kJ/mol.
_TORSION_STIFFNESS = 2.0e4  # kJ/mol/rad^2

# Where atoms nearly coincide, the forces are too steep for any step downhill. Spheres that push like springs are not:
# they take the place of the contacts until nothing overlaps by much.
_SOFT_STIFFNESS = 2.0e5  # kJ/mol/nm^2
_SOFT_ITERATIONS = 200
_STUCK = 10.0  # times the tolerance

# Same input, same bytes: one thread on the CPU, and sums in a fixed order. CUDA has such a switch too, but on an H200
# two runs still differed in the last digits (models within 0.02 A of the CPU's). OpenCL has none.
_PLATFORM_PROPERTIES = {
    "CPU": {"DeterministicForces": "true", "Threads": "1"},
    "CUDA": {"DeterministicForces": "true", "Precision": "mixed"},
    "HIP": {"DeterministicForces": "true", "Precision": "mixed"},
    "OpenCL": {},
    "Reference": {},
}


@dataclass(frozen=True, kw_only=True)
class RelaxParameters:
    """How to relax; the defaults are AlphaFold's.

    `stiffness` of the restraints on heavy atoms, kcal/mol/angstrom^2; `tolerance`, the root-mean-square force at which
    the minimisation ends, kJ/mol/nm (AlphaFold's 2.39 is in kcal/mol/nm); `max_rounds` of the violation loop;
    `max_iterations` of L-BFGS a round (0: no limit); `ph` decides on hydrogens; `platform`: "auto" is CUDA where it
    works, else CPU.
    """

    stiffness: float = 10.0
    tolerance: float = 10.0
    max_rounds: int = 3
    max_iterations: int = 0
    ph: float = 7.0
    platform: PlatformChoice = "auto"

    def __post_init__(self) -> None:
        if self.stiffness < 0:
            raise SnakefoldError(f"relax: stiffness is {self.stiffness}; it must be 0 or more")
        if self.tolerance <= 0:
            raise SnakefoldError(f"relax: tolerance is {self.tolerance}; it must be above 0")
        if self.max_rounds < 1 or self.max_iterations < 0:
            raise SnakefoldError("relax: max_rounds must be 1 or more, max_iterations 0 or more")
        if self.platform not in get_args(PlatformChoice):
            raise SnakefoldError(f"relax: platform is '{self.platform}'; choose {', '.join(get_args(PlatformChoice))}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "RelaxParameters":
        """Parameters by name. Raises SnakefoldError for names that do not exist and values out of range."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise SnakefoldError(f"relax: unknown parameter '{unknown[0]}'; there are {', '.join(names)}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Minimised:
    """A minimised model: `positions` (N, 3) in angstrom, energies in kJ/mol without the restraints.

    `energy_before` is None if the input's was no finite number. `iterations` are steps of L-BFGS over all `rounds`.
    """

    positions: np.ndarray
    energy_before: float | None
    energy_after: float
    iterations: int
    rounds: int
    violations_before: Violations
    violations_after: Violations
    platform: str


def minimise(model: AllAtomModel, parameters: RelaxParameters, held: frozenset[ResidueId] = frozenset()) -> Minimised:
    """Minimise with the input's heavy atoms restrained, then again with violating residues freed, until none is left.

    In each round the restraints hold the atoms where the round before left them, and residues once freed stay free, as
    in AlphaFold. Atoms that were added in preparation are never restrained: there is nothing that they should resemble.
    Beyond AlphaFold, a force that is zero in good models turns stereocentres of the wrong hand, and keeps others from
    being inverted where atoms are pushed hard. The backbone torsions of `held` residues keep their values. Where atoms
    overlap so much that the minimiser finds no way down, they are first pushed apart as soft spheres.

    Raises MemberError("cannot_relax") if the energy stops being a number.
    """
    system = amber_system(model.topology)
    ideal = stereochemistry(model.topology, system)
    restraint, restrained = _restraint(model)
    system.addForce(restraint)
    system.addForce(_chirality(ideal.centres))
    system.addForce(_torsions(model, held))
    context = _context(system, parameters.platform)
    counter = _IterationCounter()
    stiffness = parameters.stiffness * _KILOCALORIE * _NANOMETER**2

    positions = model.positions
    context.setPositions(positions / _NANOMETER)
    energy_before = _energy(context)
    violations_before = ideal.violations(positions, known=model.given)
    violations = violations_before
    free: set[int] = set()
    rounds = 0
    while rounds < parameters.max_rounds and (rounds == 0 or violations.residues):
        rounds += 1
        for particle, atom in enumerate(restrained):
            strength = 0.0 if ideal.residue_of[atom] in free else stiffness
            restraint.setParticleParameters(particle, atom, [strength, *(positions[atom] / _NANOMETER)])
        restraint.updateParametersInContext(context)
        positions = _minimised_positions(system, context, positions, parameters, counter)
        violations = ideal.violations(positions)
        free |= set(violations.residues)
    energy_after = _energy(context)
    if energy_after is None:
        raise MemberError("cannot_relax", "the energy after minimisation is no number; do atoms coincide?")
    return Minimised(
        positions=positions,
        energy_before=energy_before,
        energy_after=energy_after,
        iterations=counter.iterations,
        rounds=rounds,
        violations_before=violations_before,
        violations_after=violations,
        platform=context.getPlatform().getName(),
    )


def _minimised_positions(
    system: openmm.System,
    context: openmm.Context,
    start: np.ndarray,
    parameters: RelaxParameters,
    counter: "_IterationCounter",
) -> np.ndarray:
    """Positions (N, 3) in angstrom after minimisation, by way of soft contacts where there is no other."""
    try:
        positions = _descend(context, start, parameters, counter)
        if not _is_stuck(context, parameters):
            return positions
        start = positions
    except MemberError:
        # The overlap was beyond numbers; soft spheres have no such limit.
        pass
    softened = _context(_with_soft_contacts(system), parameters.platform)
    soft = replace(parameters, max_iterations=_SOFT_ITERATIONS)
    return _descend(context, _descend(softened, start, soft, counter), parameters, counter)


def _descend(
    context: openmm.Context, start: np.ndarray, parameters: RelaxParameters, counter: "_IterationCounter"
) -> np.ndarray:
    """Positions (N, 3) in angstrom where the minimiser ends. Raises MemberError where it meets what is no number."""
    try:
        context.setPositions(start / _NANOMETER)
        # pyright takes the type of `tolerance` from OpenMM's default, 10.
        openmm.LocalEnergyMinimizer.minimize(context, parameters.tolerance, parameters.max_iterations, counter)  # pyright: ignore[reportArgumentType]
        state = context.getState(positions=True)
    except openmm.OpenMMException as error:
        raise MemberError("cannot_relax", f"the minimisation broke down ({error}); do atoms coincide?") from None
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    if not np.isfinite(positions).all():
        raise MemberError("cannot_relax", "the minimisation left the range of numbers; do atoms coincide?")
    return positions


def _is_stuck(context: openmm.Context, parameters: RelaxParameters) -> bool:
    """Whether the minimiser gave up early: forces far above the tolerance, although its steps were not limited."""
    if parameters.max_iterations:
        return False
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    return not math.sqrt(float((forces**2).sum(axis=1).mean())) < _STUCK * parameters.tolerance


def _with_soft_contacts(system: openmm.System) -> openmm.System:
    """The system with springs between overlapping spheres (nine tenths of the force field's) in place of its contacts.

    Atoms up to three bonds apart do not touch in it; there are no charges.
    """
    softened = copy.deepcopy(system)
    place = next(index for index, force in enumerate(softened.getForces()) if isinstance(force, openmm.NonbondedForce))
    contacts = softened.getForce(place)
    soft = openmm.CustomNonbondedForce(f"{0.5 * _SOFT_STIFFNESS}*max(0, 0.9*(r1+r2)-r)^2")
    soft.addPerParticleParameter("r")
    soft.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    soft.setCutoffDistance(0.5 * CUTOFF / _NANOMETER)
    for particle in range(contacts.getNumParticles()):
        _, sigma, epsilon = contacts.getParticleParameters(particle)
        # Hydrogens of hydroxyls have no sphere of their own.
        soft.addParticle([0.5 * 2 ** (1 / 6) * sigma._value if epsilon._value > 0 else 0.0])
    for exception in range(contacts.getNumExceptions()):
        first, second, *_ = contacts.getExceptionParameters(exception)
        soft.addExclusion(first, second)
    softened.removeForce(place)
    softened.addForce(soft)
    return softened


class _IterationCounter(openmm.MinimizationReporter):
    """Counts the steps of L-BFGS, which OpenMM does not tell otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.iterations = 0

    def report(self, iteration: int, x: Any, grad: Any, args: Any = None) -> bool:  # noqa: ARG002, the interface of OpenMM
        self.iterations += 1
        return False


def _restraint(model: AllAtomModel) -> tuple[openmm.CustomExternalForce, list[int]]:
    """Harmonic springs on the input's atoms, and these atoms' indices. Strengths and places are set in each round."""
    force = openmm.CustomExternalForce("0.5*k*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("k", "x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    atoms = [int(atom) for atom in np.flatnonzero(model.given)]
    for atom in atoms:
        force.addParticle(atom, [0.0, 0.0, 0.0, 0.0])
    force.setForceGroup(_RESTRAINT_GROUP)
    return force, atoms


def _chirality(centres: np.ndarray) -> openmm.CustomTorsionForce:
    """A force that acts only on stereocentres (C, 4) that are flat or of the wrong hand."""
    force = openmm.CustomTorsionForce(f"{0.5 * _CHIRALITY_STIFFNESS}*max(0, theta+{_LEAST_CHIRALITY})^2")
    for atoms in centres.tolist():
        force.addTorsion(*atoms, [])
    force.setForceGroup(_RESTRAINT_GROUP)
    return force


def _torsions(model: AllAtomModel, held: frozenset[ResidueId]) -> openmm.CustomTorsionForce:
    """Springs on phi, psi and the omega before each held residue, at rest where the torsions are now."""
    force = openmm.CustomTorsionForce(f"{0.5 * _TORSION_STIFFNESS}*min(d, {2 * math.pi}-d)^2; d=abs(theta-rest)")
    force.addPerTorsionParameter("rest")
    force.setForceGroup(_RESTRAINT_GROUP)
    residues = list(model.topology.residues())
    named = [{atom.name: atom.index for atom in residue.atoms()} for residue in residues]
    for number, place in enumerate(model.residues):
        if place not in held:
            continue
        own, chain = named[number], residues[number].chain
        before = named[number - 1] if number and residues[number - 1].chain is chain else None
        after = named[number + 1] if number + 1 < len(residues) and residues[number + 1].chain is chain else None
        torsions = []
        if before:
            torsions += [(before["CA"], before["C"], own["N"], own["CA"]), (before["C"], own["N"], own["CA"], own["C"])]
        if after:
            torsions.append((own["N"], own["CA"], own["C"], after["N"]))
        for atoms in torsions:
            rest = torsion(*(model.positions[atom] for atom in atoms))
            # Rounded for the reason given in `prepare`.
            force.addTorsion(*atoms, [math.radians(round(rest, 3))])
    return force


def _context(system: openmm.System, choice: PlatformChoice) -> openmm.Context:
    names = ["CUDA", "CPU"] if choice == "auto" else [choice]
    for name in names:
        # A system holds but one context; the integrator is there for form and never steps.
        integrator = openmm.VerletIntegrator(0.001)
        try:
            platform = openmm.Platform.getPlatform(name)
            return openmm.Context(system, integrator, platform, _PLATFORM_PROPERTIES[name])
        except openmm.OpenMMException as error:
            # The CUDA plugin may be installed where there is no GPU, or no driver that suits it.
            if name == names[-1]:
                raise SnakefoldError(f"relax: OpenMM cannot use the platform {name}: {error}") from None
    raise AssertionError("the last platform either works or raises")


def _energy(context: openmm.Context) -> float | None:
    """Potential energy in kJ/mol without the restraints; None if it is not finite."""
    state = context.getState(energy=True, groups=~(1 << _RESTRAINT_GROUP) & 0xFFFFFFFF)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy if math.isfinite(energy) else None
