"""The twenty amino acids as structure files write them: names, heavy atoms, bonds and symmetric atoms.

Atom names are those of the wwPDB Chemical Component Dictionary; bonds follow from the covalent structure.
"""

from collections.abc import Iterable

BACKBONE: tuple[str, ...] = ("N", "CA", "C", "O")

NAME_OF_LETTER = {
    "A": "ALA",
    "R": "ARG",
    "N": "ASN",
    "D": "ASP",
    "C": "CYS",
    "Q": "GLN",
    "E": "GLU",
    "G": "GLY",
    "H": "HIS",
    "I": "ILE",
    "L": "LEU",
    "K": "LYS",
    "M": "MET",
    "F": "PHE",
    "P": "PRO",
    "S": "SER",
    "T": "THR",
    "W": "TRP",
    "Y": "TYR",
    "V": "VAL",
    "X": "UNK",
}
LETTER_OF_NAME = {name: letter for letter, name in NAME_OF_LETTER.items()}

# Side chains as bonds, written from the CA outwards; the order in which atoms first appear is the order of output.
_SIDE_CHAIN_BONDS = {
    "A": "CA-CB",
    "R": "CA-CB CB-CG CG-CD CD-NE NE-CZ CZ-NH1 CZ-NH2",
    "N": "CA-CB CB-CG CG-OD1 CG-ND2",
    "D": "CA-CB CB-CG CG-OD1 CG-OD2",
    "C": "CA-CB CB-SG",
    "Q": "CA-CB CB-CG CG-CD CD-OE1 CD-NE2",
    "E": "CA-CB CB-CG CG-CD CD-OE1 CD-OE2",
    "G": "",
    "H": "CA-CB CB-CG CG-ND1 CG-CD2 ND1-CE1 CD2-NE2 CE1-NE2",
    "I": "CA-CB CB-CG1 CB-CG2 CG1-CD1",
    "L": "CA-CB CB-CG CG-CD1 CG-CD2",
    "K": "CA-CB CB-CG CG-CD CD-CE CE-NZ",
    "M": "CA-CB CB-CG CG-SD SD-CE",
    "F": "CA-CB CB-CG CG-CD1 CG-CD2 CD1-CE1 CD2-CE2 CE1-CZ CE2-CZ",
    "P": "CA-CB CB-CG CG-CD CD-N",
    "S": "CA-CB CB-OG",
    "T": "CA-CB CB-OG1 CB-CG2",
    "W": "CA-CB CB-CG CG-CD1 CG-CD2 CD1-NE1 CD2-CE2 CD2-CE3 NE1-CE2 CE2-CZ2 CE3-CZ3 CZ2-CH2 CZ3-CH2",
    "Y": "CA-CB CB-CG CG-CD1 CG-CD2 CD1-CE1 CD2-CE2 CE1-CZ CE2-CZ CZ-OH",
    "V": "CA-CB CB-CG1 CB-CG2",
    "X": "CA-CB",
}

SYMMETRIC_ATOMS = {
    "R": (("NH1", "NH2"),),
    "D": (("OD1", "OD2"),),
    "E": (("OE1", "OE2"),),
    "F": (("CD1", "CD2"), ("CE1", "CE2")),
    "Y": (("CD1", "CD2"), ("CE1", "CE2")),
    "L": (),
    "V": (),
}
"""Pairs of atoms whose names can be exchanged without changing the molecule; all pairs of a residue swap together."""

CHI_ATOMS = {
    "R": ("N CA CB CG", "CA CB CG CD", "CB CG CD NE", "CG CD NE CZ"),
    "N": ("N CA CB CG", "CA CB CG OD1"),
    "D": ("N CA CB CG", "CA CB CG OD1"),
    "C": ("N CA CB SG",),
    "Q": ("N CA CB CG", "CA CB CG CD", "CB CG CD OE1"),
    "E": ("N CA CB CG", "CA CB CG CD", "CB CG CD OE1"),
    "H": ("N CA CB CG", "CA CB CG ND1"),
    "I": ("N CA CB CG1", "CA CB CG1 CD1"),
    "L": ("N CA CB CG", "CA CB CG CD1"),
    "K": ("N CA CB CG", "CA CB CG CD", "CB CG CD CE", "CG CD CE NZ"),
    "M": ("N CA CB CG", "CA CB CG SD", "CB CG SD CE"),
    "F": ("N CA CB CG", "CA CB CG CD1"),
    "P": ("N CA CB CG", "CA CB CG CD"),
    "S": ("N CA CB OG",),
    "T": ("N CA CB OG1",),
    "W": ("N CA CB CG", "CA CB CG CD1"),
    "Y": ("N CA CB CG", "CA CB CG CD1"),
    "V": ("N CA CB CG1",),
}
"""The four atoms of each side-chain torsion, chi1 first (IUPAC-IUB 1970)."""


def bonds_of(letter: str) -> tuple[tuple[str, str], ...]:
    """Covalent bonds between the heavy atoms of one residue, terminal OXT included; letters unknown count as X."""
    side_chain = _SIDE_CHAIN_BONDS.get(letter, _SIDE_CHAIN_BONDS["X"])
    pairs = [tuple(bond.split("-")) for bond in ("N-CA CA-C C-O C-OXT " + side_chain).split()]
    return tuple((first, second) for first, second in pairs)


def heavy_atoms_of(letter: str) -> tuple[str, ...]:
    """Heavy atoms of one residue without OXT, backbone first; letters unknown count as X (backbone and CB)."""
    atoms: dict[str, None] = dict.fromkeys(BACKBONE)
    for first, second in bonds_of(letter):
        atoms[first] = atoms[second] = None
    del atoms["OXT"]
    return tuple(atoms)


def output_order(letter: str, names: Iterable[str]) -> list[str]:
    """Atom names in the order of structure files: the residue's own, then others by name, OXT last."""
    place = {name: index for index, name in enumerate(heavy_atoms_of(letter))}
    return sorted(names, key=lambda name: (name == "OXT", place.get(name, len(place)), name))


def element_of(atom_name: str) -> str:
    """Element symbol of a protein's heavy atom from its name; selenium is the only one of two letters."""
    return "SE" if atom_name == "SE" else atom_name[:1]
