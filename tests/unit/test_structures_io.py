"""Entries are read as the world writes them, and models survive the way through a file."""

import gzip
import warnings
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from snakefold.errors import SnakefoldError
from snakefold.structures.io import (
    ModelChain,
    chain_name,
    modelled_ranges,
    read_assembly,
    read_chains,
    read_model,
    write_model,
    write_pdb,
)

from .structure_helpers import HELIX, MINI, peptide

PDB_TEXT = """\
SEQRES   1 A    7  GLY MSE SER ALA LYS SER GLY
MODEL        1
ATOM      1  N   MSE A  10       1.000   2.000   3.000  1.00 20.00           N
ATOM      2  CA  MSE A  10       2.400   2.000   3.000  1.00 20.00           C
HETATM    3 SE   MSE A  10       3.400   2.000   5.000  1.00 20.00          SE
ATOM      4  H   MSE A  10       0.500   2.500   3.500  1.00 20.00           H
ATOM      5  N   SER A  10A      3.000   3.000   3.000  1.00 20.00           N
ATOM      6  CA ASER A  10A      4.000   4.000   4.000  0.30 20.00           C
ATOM      7  CA BSER A  10A      5.000   5.000   5.000  0.70 20.00           C
ATOM      8  OG ASER A  10A      6.000   6.000   6.000  0.30 20.00           O
ATOM      9  CA  LYS A  12       7.500   7.000   7.000  1.00 20.00           C
ATOM     10  CA  SEP A  13       9.500   9.000   7.000  1.00 20.00           C
ATOM     11  P   SEP A  13       9.500   9.000   9.000  1.00 20.00           P
TER      12      SEP A  13
ENDMDL
MODEL        2
ATOM      1  N   MSE A  10      91.000   2.000   3.000  1.00 20.00           N
TER       2      MSE A  10
ENDMDL
END
"""

CIF_TEXT = """\
data_test
_entry.id test
loop_
_entity.id
_entity.type
1 polymer
2 polymer
loop_
_entity_poly.entity_id
_entity_poly.type
1 'polypeptide(L)'
2 polyribonucleotide
loop_
_entity_poly_seq.entity_id
_entity_poly_seq.num
_entity_poly_seq.mon_id
1 1 ALA
1 2 TYR
1 3 UNK
2 1 A
loop_
_struct_asym.id
_struct_asym.entity_id
A 1
B 2
loop_
_pdbx_struct_assembly.id
_pdbx_struct_assembly.details
1 x
loop_
_pdbx_struct_assembly_gen.assembly_id
_pdbx_struct_assembly_gen.oper_expression
_pdbx_struct_assembly_gen.asym_id_list
1 1,2 A,B
loop_
_pdbx_struct_oper_list.id
_pdbx_struct_oper_list.type
_pdbx_struct_oper_list.matrix[1][1]
_pdbx_struct_oper_list.matrix[1][2]
_pdbx_struct_oper_list.matrix[1][3]
_pdbx_struct_oper_list.vector[1]
_pdbx_struct_oper_list.matrix[2][1]
_pdbx_struct_oper_list.matrix[2][2]
_pdbx_struct_oper_list.matrix[2][3]
_pdbx_struct_oper_list.vector[2]
_pdbx_struct_oper_list.matrix[3][1]
_pdbx_struct_oper_list.matrix[3][2]
_pdbx_struct_oper_list.matrix[3][3]
_pdbx_struct_oper_list.vector[3]
1 'identity operation' 1 0 0 0 0 1 0 0 0 0 1 0
2 'crystal symmetry operation' -1 0 0 10 0 -1 0 0 0 0 1 0.5
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_comp_id
_atom_site.auth_asym_id
_atom_site.auth_atom_id
_atom_site.pdbx_PDB_model_num
ATOM 1 C CA . TYR A 1 2 ? 1 2 3 1.0 5 100 TYR LONG CA 1
ATOM 2 C CA . UNK A 1 3 ? 4 5 6 1.0 5 101 UNK LONG CA 1
ATOM 3 P P  . A   B 2 1 ? 7 8 9 1.0 5 1   A   RNA P 1
"""


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_pdb_entry_is_read_by_its_seqres_with_one_conformation_and_parent_atoms(tmp_path):
    (chain,) = read_chains(written(tmp_path, "entry.pdb", PDB_TEXT))
    assert (chain.name, chain.sequence) == ("A", "GMSAKSG")
    assert {index: sorted(atoms) for index, atoms in chain.residues.items()} == {
        1: ["CA", "N", "SD"],
        2: ["CA", "N", "OG"],
        4: ["CA"],
        5: ["CA"],
    }
    assert chain.residues[1]["N"].tolist() == [1, 2, 3]
    assert chain.residues[2]["CA"].tolist() == [5, 5, 5]
    assert chain.residues[1]["SD"].dtype == np.float64


def test_without_seqres_the_sequence_is_that_of_the_residues(tmp_path):
    text = "\n".join(line for line in PDB_TEXT.splitlines() if not line.startswith("SEQRES"))
    (chain,) = read_chains(written(tmp_path, "entry.pdb", text))
    assert chain.sequence == "MSKS"
    assert sorted(chain.residues) == [0, 1, 2, 3]


def test_mmcif_keeps_long_chain_names_and_leaves_out_nucleic_acids(tmp_path):
    (chain,) = read_chains(written(tmp_path, "entry.cif", CIF_TEXT))
    assert (chain.name, chain.sequence, sorted(chain.residues)) == ("LONG", "AYX", [1, 2])


def test_the_assembly_applies_operators_and_names_copies(tmp_path):
    first, second = read_assembly(written(tmp_path, "entry.cif", CIF_TEXT))
    assert (first.name, first.copy_of) == ("LONG", None)
    assert (second.name, second.copy_of) == ("LONG-2", "LONG")
    assert first.residues[1]["CA"].tolist() == [1, 2, 3]
    assert second.residues[1]["CA"].tolist() == [9, -2, 3.5]


def test_the_assembly_of_an_entry_with_one_chain_is_its_dimer():
    entry = MINI / "templates" / "1a7g.cif.gz"
    (chain,) = read_chains(entry)
    first, second = read_assembly(entry)
    assert [first.name, second.name] == ["E", "E-2"]
    assert first.sequence == second.sequence == chain.sequence
    inside = [np.linalg.norm(each.residues[0]["CA"] - each.residues[80]["CA"]) for each in (first, second)]
    assert inside[0] == pytest.approx(inside[1], abs=1e-4)
    nearest = min(
        float(np.linalg.norm(one["CA"] - other["CA"]))
        for one in first.residues.values()
        for other in second.residues.values()
    )
    assert 3 < nearest < 8


def test_an_entry_without_assembly_gives_its_asymmetric_unit(tmp_path):
    path = written(tmp_path, "entry.pdb", PDB_TEXT)
    assert [chain.name for chain in read_assembly(path)] == ["A"]


def test_compressed_files_are_read_whatever_their_name(tmp_path):
    path = tmp_path / "entry.unknown"
    path.write_bytes(gzip.compress(CIF_TEXT.encode()))
    assert read_chains(path)[0].sequence == "AYX"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.cif", b""),
        ("words.pdb", b"this is not a structure\n"),
        ("cut.cif.gz", gzip.compress(CIF_TEXT.encode() * 50)[:200]),
        ("broken.cif", CIF_TEXT[:1500].encode()),
        ("binary.cif", bytes(range(256)) * 10),
        ("rna.cif", CIF_TEXT.replace("'polypeptide(L)'", "polyribonucleotide").encode()),
    ],
)
def test_an_unfit_file_is_one_line_that_names_it(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SnakefoldError, match=name) as caught:
        read_chains(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(SnakefoldError, match=r"absent\.cif"):
        read_assembly(tmp_path / "absent.cif")


def two_chains() -> tuple[ModelChain, ...]:
    sequence = "MGSXAW"
    atoms = {index: atoms for index, atoms in peptide(sequence, [HELIX] * 6).items() if index not in (0, 2)}
    atoms[5] = {**atoms[5], "OXT": atoms[5]["O"] + 1.5}
    atoms[1] = {**atoms[1], "N": np.array([-0.0001, -234.5, 0.0004])}
    confidence = [None, 12.345, None, 50.0, 99.999, 100.0]
    other = {index: {name: xyz + 30 for name, xyz in residue.items()} for index, residue in atoms.items()}
    return (
        ModelChain(sequence=sequence, atoms=atoms, confidence=confidence),
        ModelChain(sequence="AAA", atoms={}, confidence=[None] * 3),
        ModelChain(sequence=sequence, atoms=other, confidence=confidence),
    )


def test_a_model_survives_writing_and_reading(tmp_path):
    chains = two_chains()
    write_model(tmp_path / "model.cif", chains)
    back = read_model(tmp_path / "model.cif")
    assert [chain.sequence for chain in back] == [chain.sequence for chain in chains]
    assert [list(chain.confidence) for chain in back] == [list(chain.confidence) for chain in chains]
    for chain, other in zip(chains, back, strict=True):
        assert chain.atoms.keys() == other.atoms.keys()
        for index, residue in chain.atoms.items():
            assert residue.keys() == other.atoms[index].keys()
            for name, xyz in residue.items():
                assert other.atoms[index][name] == pytest.approx(xyz, abs=0.0005001)


def test_a_model_read_and_written_again_is_the_same_bytes(tmp_path):
    write_model(tmp_path / "first.cif", two_chains())
    write_model(tmp_path / "second.cif", read_model(tmp_path / "first.cif"))
    first = (tmp_path / "first.cif").read_bytes()
    assert first == (tmp_path / "second.cif").read_bytes()
    assert b" -0.000 " not in first


def test_atoms_come_in_the_order_of_the_residue_whatever_order_they_were_made_in(tmp_path):
    chains = two_chains()
    shuffled = [
        ModelChain(
            sequence=chain.sequence,
            atoms={index: dict(sorted(chain.atoms[index].items())) for index in sorted(chain.atoms, reverse=True)},
            confidence=chain.confidence,
        )
        for chain in chains
    ]
    write_model(tmp_path / "first.cif", chains)
    write_model(tmp_path / "second.cif", shuffled)
    assert (tmp_path / "first.cif").read_bytes() == (tmp_path / "second.cif").read_bytes()
    names = [row[0] for row in gemmi.cif.read(str(tmp_path / "first.cif"))[0].find("_atom_site.", ["label_atom_id"])]
    assert names[:4] == ["N", "CA", "C", "O"]


def test_numbers_in_a_model_are_places_in_the_sequence(tmp_path):
    write_model(tmp_path / "model.cif", two_chains())
    block = gemmi.cif.read(str(tmp_path / "model.cif"))[0]
    rows = {tuple(row) for row in block.find("_atom_site.", ["label_asym_id", "label_seq_id", "auth_seq_id"])}
    assert rows == {(chain, number, number) for chain in "AC" for number in "2456"}


def test_other_programs_see_the_unmodelled_residues_in_the_sequence(tmp_path):
    write_model(tmp_path / "model.cif", two_chains())
    first, third = read_chains(tmp_path / "model.cif")
    assert (first.name, third.name) == ("A", "C")
    assert first.sequence == "MGSXAW"
    assert sorted(first.residues) == [1, 3, 4, 5]


@pytest.mark.parametrize("text", ["", "data_x\n_entry.id x\n", PDB_TEXT])
def test_a_file_that_is_no_model_is_one_line(tmp_path, text):
    with pytest.raises(SnakefoldError, match=r"model\.cif") as caught:
        read_model(written(tmp_path, "model.cif", text))
    assert "\n" not in str(caught.value)


def test_a_cut_model_is_refused(tmp_path):
    write_model(tmp_path / "model.cif", two_chains())
    content = (tmp_path / "model.cif").read_text()
    (tmp_path / "model.cif").write_text(content[: len(content) - 40])
    with pytest.raises(SnakefoldError, match="cut off"):
        read_model(tmp_path / "model.cif")


def test_a_pdb_file_says_the_same_as_the_mmcif(tmp_path):
    from Bio.PDB.PDBParser import PDBParser

    chains = [two_chains()[0], two_chains()[2]]
    assert write_pdb(tmp_path / "model.pdb", chains)
    back = read_chains(tmp_path / "model.pdb")
    assert [chain.sequence for chain in back] == ["MGSXAW", "MGSXAW"]
    for chain, other in zip(chains, back, strict=True):
        assert {index: set(atoms) for index, atoms in chain.atoms.items()} == {
            index: set(atoms) for index, atoms in other.residues.items()
        }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structure: Any = PDBParser(PERMISSIVE=False).get_structure("x", tmp_path / "model.pdb")
    residue = structure[0]["A"][2]
    assert (residue.get_resname(), residue["CA"].get_bfactor()) == ("GLY", 12.35)
    assert {len(line) for line in (tmp_path / "model.pdb").read_text().splitlines()} == {80}


def one_atom(xyz: tuple[float, float, float] = (0, 0, 0), length: int = 1) -> ModelChain:
    return ModelChain(sequence="A" * length, atoms={0: {"CA": np.array(xyz)}}, confidence=[50.0] * length)


def test_pdb_is_refused_where_its_columns_end(tmp_path):
    path = tmp_path / "model.pdb"
    assert write_pdb(path, [one_atom()] * 62)
    assert write_pdb(path, [one_atom(length=9_999)])
    assert write_pdb(path, [one_atom((9999.999, -999.999, 0))])
    path.unlink()
    assert not write_pdb(path, [one_atom()] * 63)
    assert not write_pdb(path, [one_atom(length=10_000)])
    assert not write_pdb(path, [one_atom((10000.0, 0, 0))])
    assert not write_pdb(path, [one_atom((-1000.0, 0, 0))])
    many = {index: {f"C{number}": np.zeros(3) for number in range(20)} for index in range(5_000)}
    assert not write_pdb(path, [ModelChain(sequence="A" * 5_000, atoms=many, confidence=[1.0] * 5_000)])
    assert not path.exists()


def test_chain_names_go_on_after_the_letters_and_never_repeat():
    names = [chain_name(index) for index in range(5_000)]
    assert names[:2] == ["A", "B"]
    assert names[26] == "a"
    assert names[61:64] == ["9", "AA", "AB"]
    assert len(set(names)) == 5_000


def test_ranges_cover_exactly_the_residues():
    assert modelled_ranges([5, 0, 1, 2, 7, 8]) == [[0, 3], [5, 6], [7, 9]]
    assert modelled_ranges([]) == []


def test_a_model_with_residues_or_confidence_out_of_step_is_refused():
    with pytest.raises(ValueError, match="outside"):
        ModelChain(sequence="AA", atoms={2: {}}, confidence=[None, None])
    with pytest.raises(ValueError, match="confidence"):
        ModelChain(sequence="AA", atoms={}, confidence=[None])
