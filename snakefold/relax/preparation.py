"""From a model's chains to an all-atom OpenMM system: segments, missing heavy atoms, disulfides, hydrogens."""

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit
from pdbfixer import PDBFixer

from snakefold.errors import MemberError
from snakefold.structures.geometry import ResidueId
from snakefold.structures.io import ModelChain, chain_name, modelled_ranges
from snakefold.structures.residues import NAME_OF_LETTER, element_of, heavy_atoms_of, output_order

FORCE_FIELD = "amber99sb.xml"

CUTOFF = 12.0
"""Angstrom beyond which no forces act (reaction field). AlphaFold computes all pairs. The cutoff moves the result by
less than 0.05 angstrom RMSD, a tenth of what relaxation itself moves, and turns the cost from quadratic to linear."""

MAX_MISSING_FRACTION = 0.2
"""A model that lacks more of its heavy atoms is a trace, not a structure to relax."""

CLOSABLE = 5.0
"""Angstrom between C and N of neighbours up to which their bond is made and the gap closed. Farther apart, a residue is
missing, or a loop was never closed, and the pull would ruin what is sound on both sides."""

_ESSENTIAL = ("N", "CA", "C")

AtomKey = tuple[int, int, str]
"""0-based chain index, 0-based residue index in the chain's sequence, atom name."""

_Segment = tuple[int, int, int]
"""Chain index, first residue, last + 1."""


@dataclass(frozen=True, kw_only=True)
class AllAtomModel:
    """A model ready for minimisation, hydrogens included. N atoms.

    `positions` (N, 3) in angstrom; `given` (N,) marks the atoms of the input; `keys` name each heavy atom in the
    input's terms (None for hydrogens); `residues` name each residue of the topology.
    """

    topology: app.Topology
    positions: np.ndarray
    given: np.ndarray
    keys: tuple[AtomKey | None, ...]
    residues: tuple[ResidueId, ...]


def prepare(
    chains: Sequence[ModelChain], *, ph: float, seed: int, cut: frozenset[ResidueId] = frozenset()
) -> AllAtomModel:
    """Complete a model with its missing heavy atoms, its disulfides and hydrogens.

    `cut` are residues that are not to be bonded to their predecessor, as those are not that lie beyond CLOSABLE of it.
    Each unbroken stretch of residues becomes a molecule of its own, with charged ends, so nothing is bonded across
    residues that were not modelled or across a cut. A residue with no neighbour at either side is left out: it has no
    template in the force field, and nothing that relaxation could mend.

    The same input and seed give the same positions in every process.
    Raises MemberError("cannot_relax") if the model holds what the force field does not know, or too little.
    """
    segments = _segments(chains, cut)
    atoms = {
        (chain_index, index, name): np.asarray(xyz, dtype=float)
        for chain_index, index, names in _relaxable_residues(chains, segments)
        for name, xyz in names.items()
    }
    if not atoms:
        raise MemberError("cannot_relax", "no two neighbouring residues were modelled")
    given = set(atoms)
    missing = _missing_atoms(chains, atoms)
    if missing:
        needed = len(atoms) + len(missing)
        if len(missing) > MAX_MISSING_FRACTION * needed:
            raise MemberError("cannot_relax", f"{len(missing)} of {needed} heavy atoms are missing")
        atoms |= _placed_by_pdbfixer(chains, segments, atoms, seed)
    atoms |= _terminal_oxygens(segments, atoms)

    topology, positions = _topology(chains, segments, atoms)
    # The digits beyond those of a model file come from numpy's products: they are those of the processor's BLAS, and a
    # minimisation amplifies them.
    modeller = app.Modeller(topology, _quantity(positions.round(3)))
    with _one_thread() as platform, _seeded(seed):
        # addHydrogens draws its first guesses from Python's global generator.
        modeller.addHydrogens(app.ForceField(FORCE_FIELD), pH=ph, platform=platform)
    placed = list(modeller.topology.atoms())
    residues = _places(segments)
    keys = tuple(
        None if atom.element is app.element.hydrogen else (*residues[atom.residue.index], atom.name) for atom in placed
    )
    return AllAtomModel(
        topology=modeller.topology,
        positions=np.array(modeller.positions.value_in_unit(unit.angstrom)),
        given=np.array([key in given for key in keys]),
        keys=keys,
        residues=residues,
    )


def amber_system(topology: app.Topology) -> openmm.System:
    """Amber99sb in vacuum for a topology with hydrogens, without constraints."""
    return app.ForceField(FORCE_FIELD).createSystem(
        topology,
        nonbondedMethod=app.CutoffNonPeriodic,  # pyright: ignore[reportArgumentType] (OpenMM hints at its default's type)
        nonbondedCutoff=unit.Quantity(CUTOFF, unit.angstrom),
        # AlphaFold constrains bonds to hydrogen, a habit of dynamics. A minimiser can only approach constraints by ever
        # stiffer springs, in pass after pass: 10 s against 1 s at 129 residues, for a result 0.02 angstrom away.
        constraints=None,
        removeCMMotion=False,
    )


def _relaxable_residues(
    chains: Sequence[ModelChain], segments: Sequence[_Segment]
) -> Iterator[tuple[int, int, Mapping[str, np.ndarray]]]:
    """Chain index, residue index and atoms of each residue of a segment; OXT only where a segment ends.

    Raises MemberError for residues and atoms that the force field does not know.
    """
    for chain_index, start, end in segments:
        chain = chains[chain_index]
        for index in range(start, end):
            letter, names = chain.sequence[index], chain.atoms[index]
            place = f"residue {chain_name(chain_index)} {index + 1}"
            if letter == "X" or letter not in NAME_OF_LETTER:
                raise MemberError("cannot_relax", f"{place} is '{letter}', which Amber99sb has no parameters for")
            unknown = sorted(set(names) - set(heavy_atoms_of(letter)) - {"OXT"})
            if unknown:
                raise MemberError(
                    "cannot_relax", f"{place} has an atom {unknown[0]} that {NAME_OF_LETTER[letter]} has not"
                )
            lacking = [name for name in _ESSENTIAL if name not in names]
            if lacking:
                raise MemberError("cannot_relax", f"{place} has no {lacking[0]}")
            if not all(np.isfinite(xyz).all() for xyz in names.values()):
                raise MemberError("cannot_relax", f"{place} has a position that is no number")
            yield chain_index, index, {name: xyz for name, xyz in names.items() if name != "OXT" or index == end - 1}


def _segments(chains: Sequence[ModelChain], cut: frozenset[ResidueId]) -> list[_Segment]:
    """Stretches of at least two neighbouring residues, modelled and within reach of each other."""
    segments = []
    for chain_index, chain in enumerate(chains):
        for start, end in modelled_ranges(chain.atoms):
            first = start
            for index in range(start + 1, end + 1):
                if index == end or (chain_index, index) in cut or not _within_reach(chain, index):
                    if index - first > 1:
                        segments.append((chain_index, first, index))
                    first = index
    return segments


def _within_reach(chain: ModelChain, index: int) -> bool:
    before, after = chain.atoms[index - 1], chain.atoms[index]
    # Whether these atoms are there at all is another check's question.
    return "C" not in before or "N" not in after or bool(np.linalg.norm(before["C"] - after["N"]) <= CLOSABLE)


def _places(segments: Sequence[_Segment]) -> tuple[ResidueId, ...]:
    """Each residue of the topology, in its order."""
    return tuple(ResidueId(chain_index, index) for chain_index, start, end in segments for index in range(start, end))


def _missing_atoms(chains: Sequence[ModelChain], atoms: Mapping[AtomKey, np.ndarray]) -> list[AtomKey]:
    residues = dict.fromkeys((chain_index, index) for chain_index, index, _ in atoms)
    return [
        (chain_index, index, name)
        for chain_index, index in residues
        for name in heavy_atoms_of(chains[chain_index].sequence[index])
        if (chain_index, index, name) not in atoms
    ]


def _placed_by_pdbfixer(
    chains: Sequence[ModelChain], segments: Sequence[_Segment], atoms: Mapping[AtomKey, np.ndarray], seed: int
) -> dict[AtomKey, np.ndarray]:
    """Positions (angstrom) of the atoms that are missing. The given ones stay where they are."""
    topology, positions = _topology(chains, segments, atoms)
    text = io.StringIO()
    app.PDBxFile.writeFile(topology, _quantity(positions), text, keepIds=True)
    text.seek(0)
    with _one_thread() as platform:
        fixer = PDBFixer(pdbxfile=text, platform=platform)
        fixer.missingResidues = {}
        fixer.findMissingAtoms()
        fixer.missingTerminals = {}
        fixer.addMissingAtoms(seed=_openmm_seed(seed))
    completed = np.array(fixer.positions.value_in_unit(unit.angstrom))
    residues = _places(segments)
    keys = [((*residues[atom.residue.index], atom.name), atom.index) for atom in fixer.topology.atoms()]
    return {key: completed[index] for key, index in keys if key not in atoms}


def _terminal_oxygens(segments: Sequence[_Segment], atoms: Mapping[AtomKey, np.ndarray]) -> dict[AtomKey, np.ndarray]:
    """Positions of OXT where a segment ends without one: in the plane of CA, C and O, opposite O."""
    placed = {}
    for chain_index, _, end in segments:
        last = (chain_index, end - 1)
        if (*last, "OXT") in atoms:
            continue
        ca, c, o = (atoms[*last, name] for name in ("CA", "C", "O"))
        axis = (c - ca) / np.linalg.norm(c - ca)
        bond = o - c
        placed[*last, "OXT"] = c + 2 * (bond @ axis) * axis - bond
    return placed


def _topology(
    chains: Sequence[ModelChain], segments: Sequence[_Segment], atoms: Mapping[AtomKey, np.ndarray]
) -> tuple[app.Topology, np.ndarray]:
    """An OpenMM topology, one chain a segment, with its bonds and disulfides; positions (N, 3) in angstrom."""
    names: dict[tuple[int, int], list[str]] = {}
    for chain_index, index, name in atoms:
        names.setdefault((chain_index, index), []).append(name)
    topology = app.Topology()
    positions = []
    for number, (chain_index, start, end) in enumerate(segments):
        segment = topology.addChain(str(number))
        for index in range(start, end):
            letter = chains[chain_index].sequence[index]
            residue = topology.addResidue(NAME_OF_LETTER[letter], segment, str(index + 1), "")
            for name in output_order(letter, names[chain_index, index]):
                topology.addAtom(name, app.Element.getBySymbol(element_of(name)), residue)
                positions.append(atoms[chain_index, index, name])
    topology.createStandardBonds()
    topology.createDisulfideBonds(_quantity(np.array(positions)))
    return topology, np.array(positions)


def _quantity(positions: np.ndarray) -> unit.Quantity:
    """Positions (N, 3) in angstrom as OpenMM wants them: a list of its vectors."""
    return unit.Quantity([openmm.Vec3(*row) for row in positions.tolist()], unit.angstrom)


def _openmm_seed(seed: int) -> int:
    # OpenMM takes 32 bits and reads 0 as "choose one yourself".
    return seed % (2**31 - 1) + 1


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's global random numbers for a while."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _one_thread() -> Iterator[openmm.Platform]:
    """The CPU platform with one thread and sums in a fixed order, for library calls that take no such properties."""
    platform = openmm.Platform.getPlatform("CPU")
    wanted = {"Threads": "1", "DeterministicForces": "true"}
    former = {name: platform.getPropertyDefaultValue(name) for name in wanted}
    for name, value in wanted.items():
        platform.setPropertyDefaultValue(name, value)
    try:
        yield platform
    finally:
        for name, value in former.items():
            platform.setPropertyDefaultValue(name, value)
