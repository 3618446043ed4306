"""Is a model chemically possible? Clashes, backbone and side-chain torsions, chirality, peptide bonds, breaks.

Chains are numbered and residues indexed from 0, as everywhere in snakefold.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree

from snakefold.structures.io import ModelChain
from snakefold.structures.ramachandran import Region, ResidueClass, region
from snakefold.structures.residues import CHI_ATOMS, bonds_of, element_of

CLASH_OVERLAP = 0.6
"""Overlap of van der Waals spheres from which a contact is a clash, angstrom: the default of ChimeraX's `clashes`."""
HYDROGEN_BOND_ALLOWANCE = 0.4
"""Subtracted from the overlap of a donor and an acceptor, angstrom: the default of ChimeraX's `clashes`."""
DISULFIDE_LENGTH = 2.5
"""Two SG atoms nearer than this are taken as bonded, angstrom (the bond is 2.05)."""
PEPTIDE_BOND_LENGTH = 2.0
"""C and N of neighbours farther apart than this are not bonded, angstrom (the bond is 1.33)."""
CA_BREAK_DISTANCE = 4.2
"""CA atoms of neighbours farther apart than this are a break, angstrom (3.80 in a trans, 2.95 in a cis peptide)."""

# Radii of atoms with their hydrogens (angstrom), Tsai, Taylor, Chothia, Gerstein (1999) J. Mol. Biol. 290, 253-266.
_RADIUS_OF_ELEMENT = {"C": 1.88, "N": 1.64, "O": 1.42, "S": 1.77, "SE": 1.90}
_RADIUS_OF_BARE_CARBON = 1.61
_RADIUS_OF_AROMATIC_CH = 1.76
_RADIUS_OF_HYDROXYL = 1.46
_BARE_CARBONS = {
    "N": {"CG"}, "D": {"CG"}, "Q": {"CD"}, "E": {"CD"}, "R": {"CZ"}, "H": {"CG"}, "F": {"CG"}, "Y": {"CG", "CZ"},
    "W": {"CG", "CD2", "CE2"},
}  # fmt: skip
_AROMATIC_CH = {
    "H": {"CD2", "CE1"}, "F": {"CD1", "CD2", "CE1", "CE2", "CZ"}, "Y": {"CD1", "CD2", "CE1", "CE2"},
    "W": {"CD1", "CE3", "CZ2", "CZ3", "CH2"},
}  # fmt: skip
_HYDROXYLS = {"S": "OG", "T": "OG1", "Y": "OH"}
_ACCEPTING_NITROGENS = {("H", "ND1"), ("H", "NE2")}


class AtomId(NamedTuple):
    """An atom of a model: index of its chain, index of its residue in the chain's sequence, its name."""

    chain: int
    residue: int
    atom: str


class ResidueId(NamedTuple):
    """A residue of a model: index of its chain, index in the chain's sequence."""

    chain: int
    residue: int


@dataclass(frozen=True, kw_only=True)
class Clash:
    """Two atoms too near to each other; `distance` and `overlap` (hydrogen-bond allowance subtracted) in angstrom."""

    first: AtomId
    second: AtomId
    distance: float
    overlap: float


@dataclass(frozen=True, kw_only=True)
class Ramachandran:
    """Backbone torsions sorted into regions; residues without both phi and psi are not counted."""

    favoured: int
    allowed: int
    outliers: int
    outlier_residues: tuple[ResidueId, ...]


@dataclass(frozen=True, kw_only=True)
class PeptideBond:
    """The bond before `residue`, with its omega torsion in degrees (-180 to 180)."""

    residue: ResidueId
    omega: float
    kind: Literal["trans", "cis", "twisted"]


def find_clashes(chains: Sequence[ModelChain], *, threshold: float = CLASH_OVERLAP) -> list[Clash]:
    """Pairs of heavy atoms whose van der Waals spheres overlap by at least `threshold` angstrom, worst first.

    Overlap is r1 + r2 - distance, less 0.4 for a possible hydrogen bond, as ChimeraX computes it (Meng et al. 2023,
    Protein Sci. 32, e4792), with the united-atom radii of Tsai et al. (1999). Atoms up to three bonds apart are left
    out, and so are the atoms around a disulfide bond. 3,000 residues take about a quarter of a second.
    """
    atoms = [
        AtomId(number, index, name)
        for number, chain in enumerate(chains)
        for index in sorted(chain.atoms)
        for name in chain.atoms[index]
    ]
    if len(atoms) < 2:
        return []
    letters = [chains[atom.chain].sequence[atom.residue] for atom in atoms]
    positions = np.array([chains[atom.chain].atoms[atom.residue][atom.atom] for atom in atoms])
    radii = np.array([_radius(letter, atom.atom) for letter, atom in zip(letters, atoms, strict=True)])
    elements = [element_of(atom.atom) for atom in atoms]
    donors = np.array([_is_donor(letter, atom.atom) for letter, atom in zip(letters, atoms, strict=True)])
    acceptors = np.array(
        [
            element == "O" or (letter, atom.atom) in _ACCEPTING_NITROGENS
            for letter, element, atom in zip(letters, elements, atoms, strict=True)
        ]
    )
    reach = 2 * float(radii.max()) - threshold + 1e-6
    pairs = KDTree(positions).query_pairs(reach, output_type="ndarray")
    if len(pairs) == 0:
        return []
    first, second = pairs.T
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    may_bond = (donors[first] & acceptors[second]) | (acceptors[first] & donors[second])
    overlaps = radii[first] + radii[second] - distances - HYDROGEN_BOND_ALLOWANCE * may_bond
    near = _within_three_bonds(chains, atoms, positions)
    # Positions come from text with three decimals: a hair's breadth must not decide on a clash at the threshold.
    clashing = overlaps >= threshold - 1e-9
    clashing[clashing] = ~np.isin(first[clashing] * len(atoms) + second[clashing], near)
    clashes = [
        Clash(
            first=atoms[first[pair]],
            second=atoms[second[pair]],
            distance=float(distances[pair]),
            overlap=float(overlaps[pair]),
        )
        for pair in np.flatnonzero(clashing)
    ]
    return sorted(clashes, key=lambda clash: (-clash.overlap, clash.first, clash.second))


def ramachandran(chains: Sequence[ModelChain]) -> Ramachandran:
    """Count residues by region of the Ramachandran plot of their class (see `snakefold.structures.ramachandran`)."""
    counts = dict.fromkeys(Region, 0)
    outliers = []
    for number, chain in enumerate(chains):
        for index, (phi, psi) in backbone_torsions(chain).items():
            found = region(_class_of(chain, index), phi, psi)
            counts[found] += 1
            if found is Region.OUTLIER:
                outliers.append(ResidueId(number, index))
    return Ramachandran(
        favoured=counts[Region.FAVOURED],
        allowed=counts[Region.ALLOWED],
        outliers=counts[Region.OUTLIER],
        outlier_residues=tuple(outliers),
    )


def backbone_torsions(chain: ModelChain) -> dict[int, tuple[float, float]]:
    """Residue index -> (phi, psi) in degrees (-180 to 180), where both neighbours are bonded to the residue."""
    torsions = {}
    for index, residue in chain.atoms.items():
        before, after = chain.atoms.get(index - 1), chain.atoms.get(index + 1)
        if before is None or after is None or not {"N", "CA", "C"} <= residue.keys():
            continue
        if not _bonded(before, residue) or not _bonded(residue, after):
            continue
        n, ca, c = residue["N"], residue["CA"], residue["C"]
        torsions[index] = (torsion(before["C"], n, ca, c), torsion(n, ca, c, after["N"]))
    return torsions


def chi_angles(chain: ModelChain) -> dict[int, tuple[float | None, ...]]:
    """Residue index -> chi1, chi2 ... in degrees (-180 to 180), None where an atom is missing; no Ala, Gly or X."""
    angles = {}
    for index, residue in chain.atoms.items():
        quartets = CHI_ATOMS.get(chain.sequence[index])
        if quartets:
            angles[index] = tuple(
                torsion(*(residue[atom] for atom in quartet.split()))
                if all(atom in residue for atom in quartet.split())
                else None
                for quartet in quartets
            )
    return angles


def wrong_chirality(chains: Sequence[ModelChain]) -> list[AtomId]:
    """Stereocentres that are not those of L-amino acids: CA of any residue, CB of isoleucine and threonine."""
    centres = {"I": ("CB", "CA", "CG1", "CG2"), "T": ("CB", "CA", "OG1", "CG2")}
    wrong = []
    for number, chain in enumerate(chains):
        for index, residue in chain.atoms.items():
            for atoms in [("CA", "N", "C", "CB"), centres.get(chain.sequence[index])]:
                if atoms and all(atom in residue for atom in atoms):
                    centre, *others = (residue[atom] for atom in atoms)
                    first, second, third = (other - centre for other in others)
                    # Both kinds of centre have a positive volume in this order of atoms in L-amino acids.
                    if np.dot(first, np.cross(second, third)) < 0:
                        wrong.append(AtomId(number, index, atoms[0]))
    return wrong


def peptide_bonds(chains: Sequence[ModelChain]) -> list[PeptideBond]:
    """All peptide bonds: cis within 30 degrees of 0, trans within 30 degrees of 180, twisted between."""
    bonds = []
    for number, chain in enumerate(chains):
        for index, residue in chain.atoms.items():
            before = chain.atoms.get(index - 1)
            if before is None or not {"CA", "C"} <= before.keys() or not {"N", "CA"} <= residue.keys():
                continue
            if not _bonded(before, residue):
                continue
            omega = torsion(before["CA"], before["C"], residue["N"], residue["CA"])
            kind = "cis" if abs(omega) < 30 else "trans" if abs(omega) > 150 else "twisted"
            bonds.append(PeptideBond(residue=ResidueId(number, index), omega=omega, kind=kind))
    return bonds


def chain_breaks(chains: Sequence[ModelChain]) -> list[ResidueId]:
    """Residues that follow their modelled predecessor in the sequence but not in space (see CA_BREAK_DISTANCE)."""
    return _apart(chains, "CA", "CA", CA_BREAK_DISTANCE)


def open_peptide_bonds(chains: Sequence[ModelChain], *, longest: float = PEPTIDE_BOND_LENGTH) -> list[ResidueId]:
    """Residues whose N lies farther than `longest` (angstrom) from the C of their modelled predecessor."""
    return _apart(chains, "C", "N", longest)


def _apart(chains: Sequence[ModelChain], before: str, own: str, longest: float) -> list[ResidueId]:
    """Residues whose atom `own` lies farther than `longest` (angstrom) from the atom `before` of their predecessor."""
    return [
        ResidueId(number, index)
        for number, chain in enumerate(chains)
        for index, residue in chain.atoms.items()
        if own in residue
        and before in chain.atoms.get(index - 1, {})
        and float(np.linalg.norm(residue[own] - chain.atoms[index - 1][before])) > longest
    ]


def torsion(first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray) -> float:
    """Torsion of four positions (shape (3,), any unit) in degrees, -180 to 180, positive clockwise (IUPAC)."""
    axis = third - second
    before = np.cross(second - first, axis)
    after = np.cross(axis, fourth - third)
    sine = np.dot(np.cross(before, after), axis) / np.linalg.norm(axis)
    return float(np.degrees(np.arctan2(sine, np.dot(before, after))))


def _class_of(chain: ModelChain, index: int) -> ResidueClass:
    letter = chain.sequence[index]
    if letter == "G":
        return "glycine"
    if letter == "P":
        before, residue = chain.atoms[index - 1], chain.atoms[index]
        omega = torsion(before["CA"], before["C"], residue["N"], residue["CA"]) if "CA" in before else 180.0
        return "cis-proline" if abs(omega) < 90 else "trans-proline"
    if chain.sequence[index + 1] == "P":
        return "pre-proline"
    return "isoleucine-valine" if letter in "IV" else "general"


def _bonded(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> bool:
    if "C" not in before or "N" not in after:
        return False
    return float(np.linalg.norm(before["C"] - after["N"])) < PEPTIDE_BOND_LENGTH


def _radius(letter: str, atom: str) -> float:
    if atom == "C" or atom in _BARE_CARBONS.get(letter, ()):
        return _RADIUS_OF_BARE_CARBON
    if atom in _AROMATIC_CH.get(letter, ()):
        return _RADIUS_OF_AROMATIC_CH
    if atom == _HYDROXYLS.get(letter):
        return _RADIUS_OF_HYDROXYL
    return _RADIUS_OF_ELEMENT.get(element_of(atom), 1.80)


def _is_donor(letter: str, atom: str) -> bool:
    if element_of(atom) == "N":
        return not (letter == "P" and atom == "N")
    return atom == _HYDROXYLS.get(letter) or (letter == "C" and atom == "SG")


def _within_three_bonds(chains: Sequence[ModelChain], atoms: Sequence[AtomId], positions: np.ndarray) -> np.ndarray:
    """Keys (smaller index * number of atoms + larger index) of the pairs of atoms up to three bonds apart."""
    count = len(atoms)
    bonds = np.array(list(_bonds(chains, atoms, positions)), dtype=np.int64).reshape(-1, 2)
    ends = np.concatenate([bonds, bonds[:, ::-1]])
    # An atom is its own neighbour, so that three steps reach one, two and three bonds far.
    own = np.arange(count)
    rows, columns = np.concatenate([ends.T, np.stack([own, own])], axis=1)
    step = csr_array(coo_array((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=(count, count)))
    reachable = coo_array(step @ step @ step)
    rows, columns = reachable.coords
    upper = rows < columns
    return rows[upper].astype(np.int64) * count + columns[upper]


def _bonds(chains: Sequence[ModelChain], atoms: Sequence[AtomId], positions: np.ndarray) -> Iterator[tuple[int, int]]:
    index_of = {atom: index for index, atom in enumerate(atoms)}
    for number, chain in enumerate(chains):
        for residue in chain.atoms:
            pairs = [
                (AtomId(number, residue, first), AtomId(number, residue, second))
                for first, second in bonds_of(chain.sequence[residue])
            ]
            pairs.append((AtomId(number, residue, "C"), AtomId(number, residue + 1, "N")))
            for first, second in pairs:
                if first in index_of and second in index_of:
                    yield index_of[first], index_of[second]
    sulphurs = [index for index, atom in enumerate(atoms) if atom.atom == "SG"]
    if len(sulphurs) > 1:
        for first, second in KDTree(positions[sulphurs]).query_pairs(DISULFIDE_LENGTH):
            yield sulphurs[first], sulphurs[second]
