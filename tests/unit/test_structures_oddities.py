"""Every oddity that entries have is read for what it is, and survives the way through our files and others' readers."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import biotite.structure.io.pdb as biotite_pdb
import biotite.structure.io.pdbx as biotite_pdbx
import gemmi
import numpy as np
import pytest
from Bio.PDB.MMCIFParser import MMCIFParser
from Bio.PDB.PDBParser import PDBParser

from snakefold.structures.io import (
    ModelChain,
    PolymerChain,
    chain_name,
    read_chains,
    read_model,
    write_model,
    write_pdb,
)
from snakefold.structures.modelcif import write_modelcif

BACKBONE = ("N", "CA", "C", "O")
PLACES = {
    "N": (0.0, 0.0, 0.0),
    "CA": (1.46, 0.0, 0.0),
    "C": (2.0, 1.4, 0.0),
    "O": (1.3, 2.4, 0.0),
    "CB": (2.0, -0.8, 1.2),
    "SE": (3.0, -2.0, 2.0),
    "H": (-0.5, 0.5, 0.5),
    "D": (-0.5, 0.5, -0.5),
}
WATER = ("O",)


def residue(
    name: str,
    number: int | str,
    *,
    chain: str = "A",
    code: str = " ",
    alt: str = " ",
    occupancy: float = 1.0,
    z: float = 0.0,
    atoms: Sequence[str] = BACKBONE,
    record: str = "ATOM",
    serial: str = "1",
) -> list[str]:
    """Lines of one residue in the PDB format. Chain names of two letters take the column before, as gemmi reads it."""
    lines = []
    x = 3.3 * (int(str(number), 36) % 500)
    for atom in atoms:
        element = "SE" if atom == "SE" else atom[0]
        padded = f"{atom:<4s}" if len(element) == 2 else f" {atom:<3s}"
        first, second, third = PLACES[atom]
        lines.append(
            f"{record:<6s}{serial:>5s} {padded}{alt}{name:>3s}{chain:>2s}{number:>4}{code}   "
            f"{first + x:8.3f}{second:8.3f}{third + z:8.3f}{occupancy:6.2f} 20.00          {element:>2s}"
        )
    return lines


def entry(*parts: list[str] | str) -> str:
    return "".join(f"{line}\n" for part in parts for line in ([part] if isinstance(part, str) else part))


Expected = dict[str, tuple[str, dict[int, str]]]
"""Chain name -> sequence, and the atoms of each residue."""
N4 = "C CA N O"

PDB_ODDITIES: dict[str, tuple[str, Expected]] = {
    "many models": (
        entry("MODEL        5", residue("ALA", 1), "ENDMDL", "MODEL        2", residue("ALA", 1, z=9), "ENDMDL"),
        {"A": ("A", {0: N4})},
    ),
    "gaps in the numbers": (
        entry("SEQRES   1 A    4  ALA GLY SER TRP", residue("ALA", 1), residue("TRP", 9), "TER"),
        {"A": ("AGSW", {0: N4, 3: N4})},
    ),
    "gaps without a sequence": (
        entry(residue("ALA", 1), residue("TRP", 9)),
        {"A": ("AW", {0: N4, 1: N4})},
    ),
    "insertion codes": (
        entry(residue("ALA", 52), residue("GLY", 52, code="A", z=4), residue("SER", 52, code="B", z=8)),
        {"A": ("AGS", {0: N4, 1: N4, 2: N4})},
    ),
    "negative numbers": (
        entry(residue("ALA", -1), residue("GLY", 0), residue("SER", 1)),
        {"A": ("AGS", {0: N4, 1: N4, 2: N4})},
    ),
    "two-letter chain names": (
        entry(residue("ALA", 1, chain="AB"), "TER", residue("GLY", 1, chain="AC"), "TER"),
        {"AB": ("A", {0: N4}), "AC": ("G", {0: N4})},
    ),
    "no chain name": (
        entry(residue("ALA", 1, chain=" "), residue("GLY", 2, chain=" ")),
        {"_": ("AG", {0: N4, 1: N4})},
    ),
    "no chain name, with a sequence": (
        entry("SEQRES   1      3  ALA GLY SER", residue("ALA", 1, chain=" "), residue("GLY", 2, chain=" ")),
        {"_": ("AGS", {0: N4, 1: N4})},
    ),
    "modified residues": (
        entry(
            residue("MSE", 1, atoms=(*BACKBONE, "CB", "SE"), record="HETATM"),
            *(
                residue(name, number, record="HETATM")
                for number, name in enumerate(("SEP", "CSO", "TPO", "PTR", "HYP", "MLY", "LLP", "SEC"), start=2)
            ),
        ),
        {"A": ("MSCTYPKKC", {0: "C CA CB N O SD"} | dict.fromkeys(range(1, 9), N4))},
    ),
    "protonation states": (
        entry(*(residue(name, n) for n, name in enumerate(("HIP", "HSD", "CYX", "ASH", "GLH", "LYN", "ALA"), start=1))),
        {"A": ("HHCDEKA", dict.fromkeys(range(7), N4))},
    ),
    "unknown residues": (
        entry(residue("ALA", 1), residue("UNK", 2, atoms=(*BACKBONE, "CB")), residue("ASX", 3)),
        {"A": ("AXX", {0: N4, 1: "C CA CB N O", 2: N4})},
    ),
    "D-amino acids": (
        entry(
            residue("DAL", 1, atoms=(*BACKBONE, "CB"), record="HETATM"),
            residue("GLY", 2),
            residue("DPN", 3, atoms=(*BACKBONE, "CB"), record="HETATM"),
            residue("ALA", 4, atoms=(*BACKBONE, "CB")),
        ),
        {"A": ("AGFA", {0: N4, 1: N4, 2: N4, 3: "C CA CB N O"})},
    ),
    "hydrogens and deuterium": (
        entry(residue("ALA", 1, atoms=(*BACKBONE, "H", "D")), residue("GLY", 2)),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "missing atoms": (
        entry(residue("ALA", 1, atoms=("CA",)), residue("GLY", 2, atoms=("N", "CA"))),
        {"A": ("AG", {0: "CA", 1: "CA N"})},
    ),
    "no occupancy": (
        entry(residue("ALA", 1, occupancy=0.0), residue("GLY", 2, occupancy=0.0)),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "ligands and waters": (
        entry(
            residue("ALA", 1),
            "TER",
            residue("HEM", 201, atoms=("C",), record="HETATM"),
            residue("HOH", 301, atoms=WATER, record="HETATM"),
            residue("HOH", 301, atoms=WATER, record="HETATM", chain="W"),
        ),
        {"A": ("A", {0: N4})},
    ),
    "no TER": (
        entry(
            residue("ALA", 1),
            residue("GLY", 1, chain="B"),
            residue("HOH", 301, atoms=WATER, record="HETATM"),
            residue("HOH", 301, atoms=WATER, record="HETATM", chain="B"),
        ),
        {"A": ("A", {0: N4}), "B": ("G", {0: N4})},
    ),
    "TER at a gap": (
        entry(residue("ALA", -1), "TER", residue("GLY", 7), "TER", residue("HOH", 99, atoms=WATER, record="HETATM")),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "two chains of one name": (
        entry(residue("ALA", 1), residue("GLY", 2), "TER", residue("ALA", 1, z=20), residue("TRP", 2, z=20), "TER"),
        {"A": ("AG", {0: N4, 1: N4}), "A+2": ("AW", {0: N4, 1: N4})},
    ),
    "a chain without coordinates": (
        entry("SEQRES   1 A    1  ALA", "SEQRES   1 B    1  ALA", residue("ALA", 1)),
        {"A": ("A", {0: N4})},
    ),
    "hybrid-36": (
        entry(residue("ALA", 9999, serial="99999"), residue("GLY", "A000", serial="A0000")),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "serial numbers overflown": (
        entry(residue("ALA", 1, serial="*****"), residue("GLY", 2, serial="*****")),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "no elements": (
        "".join(f"{line[:66]}\n" for line in entry(residue("ALA", 1), residue("GLY", 2)).splitlines()),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "nothing after the coordinates": (
        "".join(f"{line[:54]}\n" for line in entry(residue("ALA", 1), residue("GLY", 2)).splitlines()),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "no numbers for positions": (
        entry(residue("ALA", 1), residue("GLY", 2)).replace("   0.000   0.000", "     nan     nan", 1),
        {"A": ("AG", {0: "C CA O", 1: N4})},
    ),
}


def check(chains: Sequence[PolymerChain], expected: Expected) -> None:
    found = {
        chain.name: (chain.sequence, {index: " ".join(sorted(atoms)) for index, atoms in chain.residues.items()})
        for chain in chains
        if chain.residues
    }
    assert found == expected


@pytest.mark.parametrize("oddity", PDB_ODDITIES)
@pytest.mark.parametrize("pack", [str.encode, lambda text: text.replace("\n", "\r\n").encode()], ids=["LF", "CRLF"])
def test_pdb(tmp_path: Path, oddity: str, pack: Callable[[str], bytes]) -> None:
    text, expected = PDB_ODDITIES[oddity]
    path = tmp_path / "entry.pdb"
    path.write_bytes(pack(text))
    check(read_chains(path), expected)
    packed = tmp_path / "entry.ent.gz"
    packed.write_bytes(gzip.compress(pack(text)))
    check(read_chains(packed), expected)


def test_the_first_model_is_read(tmp_path: Path) -> None:
    path = tmp_path / "entry.pdb"
    path.write_text(PDB_ODDITIES["many models"][0])
    assert read_chains(path)[0].residues[0]["N"][2] == 0


def test_of_conformations_the_one_with_most_occupancy_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "entry.pdb"
    # The backbone is not split; CB of A has gone missing, and O is split evenly: the first of equals.
    lines = [
        *residue("ALA", 1, atoms=("N", "CA")),
        *residue("ALA", 1, alt="A", occupancy=0.4, atoms=("C", "O")),
        *residue("ALA", 1, alt="B", occupancy=0.6, z=1, atoms=("C", "O", "CB")),
        *residue("SER", 2, alt="A", occupancy=0.5),
        *residue("SER", 2, alt="B", occupancy=0.5, z=1),
    ]
    path.write_text(entry(lines))
    (chain,) = read_chains(path)
    assert [chain.residues[0][name][2] for name in ("N", "C", "O", "CB")] == [0, 1, 1, pytest.approx(2.2)]
    assert [chain.residues[1][name][2] for name in BACKBONE] == [0, 0, 0, 0]


CIF_COLUMNS = {
    "group_PDB": "ATOM", "id": "1", "type_symbol": None, "label_atom_id": None, "label_alt_id": ".",
    "label_comp_id": None, "label_asym_id": None, "label_entity_id": "1", "label_seq_id": None,
    "pdbx_PDB_ins_code": "?", "Cartn_x": None, "Cartn_y": None, "Cartn_z": None, "occupancy": "1.0",
    "B_iso_or_equiv": "20", "auth_seq_id": None, "auth_comp_id": None, "auth_asym_id": None, "auth_atom_id": None,
    "pdbx_PDB_model_num": "1",
}  # fmt: skip


def mmcif(rows: Sequence[tuple[str, str, int, dict[str, str]]], *, without: Sequence[str] = (), head: str = "") -> str:
    """An mmCIF entry: chain, residue name, number, and what differs from the rule in this residue's rows."""
    columns = [name for name in CIF_COLUMNS if name not in without]
    lines = ["data_odd", head, "loop_", *(f"_atom_site.{name}" for name in columns)]
    for chain, name, number, changes in rows:
        for atom in BACKBONE:
            x, y, z = PLACES[atom]
            values = {
                **CIF_COLUMNS, "type_symbol": atom[0], "label_atom_id": atom, "label_comp_id": name,
                "label_asym_id": chain, "label_seq_id": str(number), "Cartn_x": f"{x + 3.3 * number:.3f}",
                "Cartn_y": f"{y + 9 * sum(map(ord, chain)):.3f}", "Cartn_z": f"{z:.3f}",
                "auth_seq_id": str(number + 100), "auth_comp_id": name, "auth_asym_id": f"X{chain}",
                "auth_atom_id": atom, **changes,
            }  # fmt: skip
            lines.append(" ".join(str(values[column]) for column in columns))
    return "\n".join([*lines, ""])


TWO = [("A", "ALA", 1, {}), ("A", "GLY", 2, {})]
AUTH = ("auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id")
ALL_BUT_THE_LEAST = [
    name for name in CIF_COLUMNS if name not in ("label_atom_id", "label_comp_id", "label_asym_id", "label_seq_id")
    and not name.startswith("Cartn")
]  # fmt: skip
HEAD = """\
loop_
_entity.id
_entity.type
1 polymer
loop_
_entity_poly.entity_id
_entity_poly.type
1 'polypeptide(L)'
loop_
_entity_poly_seq.entity_id
_entity_poly_seq.num
_entity_poly_seq.mon_id
_entity_poly_seq.hetero
1 1 ALA n
1 2 SER y
1 2 THR y
1 3 GLY n
1 4 TRP n
loop_
_struct_asym.id
_struct_asym.entity_id
A 1
"""
MIXED = [
    ("A", "ALA", 1, {}),
    ("A", "SER", 2, {"label_alt_id": "A", "occupancy": "0.4"}),
    ("A", "THR", 2, {"label_alt_id": "B", "occupancy": "0.6", "Cartn_z": "7.0"}),
    ("A", "GLY", 3, {}),
]
MMCIF_ODDITIES: dict[str, tuple[str, Expected]] = {
    "no author's names": (mmcif(TWO, without=AUTH), {"A": ("AG", {0: N4, 1: N4})}),
    "author's names unknown": (
        mmcif([(c, n, i, {"auth_asym_id": ".", "auth_seq_id": "."}) for c, n, i, _ in TWO]),
        {"A": ("AG", {0: N4, 1: N4})},
    ),
    "no entities": (mmcif(TWO, without=("label_entity_id",)), {"XA": ("AG", {0: N4, 1: N4})}),
    "no more than names and positions": (mmcif(TWO, without=ALL_BUT_THE_LEAST), {"A": ("AG", {0: N4, 1: N4})}),
    "quotes in a chain name": (
        mmcif([(c, n, i, {"auth_asym_id": '"A\'"'}) for c, n, i, _ in TWO]),
        {"A'": ("AG", {0: N4, 1: N4})},
    ),
    "two residue types in one place": (mmcif(MIXED, head=HEAD), {"XA": ("ASGW", {0: N4, 1: N4, 2: N4})}),
    "long chain names, more than the PDB format holds": (
        mmcif([(chain_name(62 + number), "ALA", 1, {}) for number in range(70)]),
        {f"X{chain_name(62 + number)}": ("A", {0: N4}) for number in range(70)},
    ),
}


@pytest.mark.parametrize("oddity", MMCIF_ODDITIES)
def test_mmcif(tmp_path: Path, oddity: str) -> None:
    text, expected = MMCIF_ODDITIES[oddity]
    path = tmp_path / "entry.cif"
    path.write_text(text)
    check(read_chains(path), expected)


def test_of_two_residue_types_in_one_place_the_declared_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "entry.cif"
    path.write_text(MMCIF_ODDITIES["two residue types in one place"][0])
    assert read_chains(path)[0].residues[1]["CA"][2] == 0


Atoms = dict[tuple[str, int, str], tuple[float, ...]]


def with_gemmi(path: Path) -> Atoms:
    return {
        (chain.name, residue.seqid.num or 0, atom.name): (*atom.pos.tolist(), atom.b_iso)
        for chain in gemmi.read_structure(str(path))[0]
        for residue in chain
        for atom in residue
    }


def with_biotite(path: Path) -> Atoms:
    array: Any
    if path.suffix == ".pdb":
        array = biotite_pdb.PDBFile.read(path).get_structure(model=1, extra_fields=["b_factor"])
    else:
        array = biotite_pdbx.get_structure(biotite_pdbx.CIFFile.read(path), model=1, extra_fields=["b_factor"])
    return {
        (str(atom.chain_id), int(atom.res_id), str(atom.atom_name)): (*map(float, atom.coord), float(atom.b_factor))
        for atom in array
    }


def with_biopython(path: Path) -> Atoms:
    parser: Any = PDBParser(QUIET=True) if path.suffix == ".pdb" else MMCIFParser(QUIET=True)
    return {
        (atom.get_full_id()[2], atom.get_full_id()[3][1], atom.get_name()): (
            *(float(x) for x in atom.get_coord()),
            atom.get_bfactor(),
        )
        for atom in parser.get_structure("model", path)[0].get_atoms()
    }


def local_metrics(path: Path) -> dict[tuple[str, int], float]:
    tags = ["label_asym_id", "label_seq_id", "metric_value"]
    table = gemmi.cif.read(str(path)).sole_block().find("_ma_qa_metric_local.", tags)
    return {(chain, int(number)): float(value) for chain, number, value in table}


@pytest.mark.filterwarnings("ignore:Attribute 'auth_atom_id'")
@pytest.mark.parametrize("oddity", [*PDB_ODDITIES, *MMCIF_ODDITIES])
def test_what_was_read_is_written_and_found_by_every_reader(tmp_path: Path, oddity: str) -> None:
    text, _ = (PDB_ODDITIES | MMCIF_ODDITIES)[oddity]
    source = tmp_path / ("entry.pdb" if oddity in PDB_ODDITIES else "entry.cif")
    source.write_text(text)
    chains = [
        ModelChain(
            sequence=chain.sequence,
            atoms=chain.residues,
            confidence=[
                10.25 + number / 4 + index if index in chain.residues else None for index in range(len(chain.sequence))
            ],
        )
        for number, chain in enumerate(read_chains(source))
        if chain.residues
    ]
    expected = {
        (chain_name(number), index + 1, name): (*(round(float(x), 3) for x in xyz), chain.confidence[index])
        for number, chain in enumerate(chains)
        for index, atoms in chain.atoms.items()
        for name, xyz in atoms.items()
    }
    write_model(tmp_path / "model.cif", chains)
    own = read_model(tmp_path / "model.cif")
    assert [(chain.sequence, list(chain.confidence)) for chain in own] == [
        (chain.sequence, list(chain.confidence)) for chain in chains
    ]
    write_modelcif(
        tmp_path / "modelcif.cif",
        chains,
        title="odd",
        engine="template",
        software={},
        templates=(),
        databases=(),
        confidence_kind="estimated lDDT",
        scores={"mean_confidence": 50.0},
    )
    metrics = local_metrics(tmp_path / "modelcif.cif")
    assert metrics == {(chain, number): values[3] for (chain, number, _), values in expected.items()}
    written = [tmp_path / "model.cif", tmp_path / "modelcif.cif"]
    if write_pdb(tmp_path / "model.pdb", chains):
        written.append(tmp_path / "model.pdb")
    else:
        assert len(chains) > 62
    for path in written:
        for read in (with_gemmi, with_biotite, with_biopython):
            found = read(path)
            assert found.keys() == expected.keys(), (path.name, read.__name__)
            values = np.array([found[key] for key in expected])
            assert values == pytest.approx(np.array(list(expected.values()), dtype=float), abs=2e-3)
