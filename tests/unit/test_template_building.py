"""Ideal geometry: what is built from it must be the natural amino acids."""

import numpy as np
import pytest

from snakefold.engines.template.backbone import secondary_structure
from snakefold.engines.template.building import (
    add_hydrogens,
    atom_rules,
    build_side_chain,
    chi_angles,
    chi_atoms,
    dihedral,
    is_left_handed,
    place,
    side_chain_atoms,
    standard_letter,
)
from snakefold.engines.template.rotamers import conformations, rotamers
from snakefold.structures.geometry import wrong_chirality
from snakefold.structures.io import ModelChain
from snakefold.structures.residues import NAME_OF_LETTER, bonds_of, heavy_atoms_of
from tests.unit.structure_helpers import HELIX, STRAND, peptide

STANDARD = {letter: name for letter, name in NAME_OF_LETTER.items() if letter != "X"}
# Hydrogens of a residue within a chain without the backbone's amide, histidine with one, acids without theirs.
HYDROGENS = dict(
    zip("ARNDCQEGHILKMFPSTWYV", [4, 12, 5, 3, 4, 7, 5, 2, 6, 10, 10, 12, 8, 8, 7, 4, 6, 9, 8, 8], strict=True)
)


def built(letter: str, chis: np.ndarray) -> dict[str, np.ndarray]:
    backbone = {name: xyz for name, xyz in peptide("AAA", [HELIX] * 3)[1].items() if name in ("N", "CA", "C", "O")}
    residue = STANDARD[letter]
    side_chain = build_side_chain(residue, backbone, chis[None])[0]
    return backbone | dict(zip(side_chain_atoms(residue), side_chain, strict=True))


@pytest.mark.parametrize("letter", STANDARD)
def test_built_residues_have_all_heavy_atoms_bonded_and_are_left_handed(letter: str) -> None:
    chis = np.linspace(-170, 60, len(chi_atoms(STANDARD[letter])))
    if letter == "P":
        chis = np.array([-30.0, 40.0])
    atoms = built(letter, chis)
    assert set(atoms) == set(heavy_atoms_of(letter))
    for first, second in bonds_of(letter):
        if "OXT" not in (first, second):
            assert 1.2 < np.linalg.norm(atoms[first] - atoms[second]) < 1.9, (first, second)
    chain = ModelChain(sequence=letter, atoms={0: atoms}, confidence=[None])
    assert wrong_chirality([chain]) == []
    assert is_left_handed(STANDARD[letter], atoms)
    mirrored = {name: xyz * [1, 1, -1] for name, xyz in atoms.items()}
    assert is_left_handed(STANDARD[letter], mirrored) == (letter == "G")


@pytest.mark.parametrize("letter", [letter for letter in STANDARD if letter not in "AGP"])
def test_chi_angles_are_those_asked_for(letter: str) -> None:
    chis = np.linspace(-150, 100, len(chi_atoms(STANDARD[letter])))
    assert chi_angles(STANDARD[letter], built(letter, chis)) == pytest.approx(chis, abs=1e-6)


@pytest.mark.parametrize("letter", STANDARD)
def test_hydrogens_are_complete_and_sit_on_one_atom_each(letter: str) -> None:
    chis = rotamers()[STANDARD[letter]].chis[0] if STANDARD[letter] in rotamers() else np.zeros(0)
    atoms = built(letter, chis)
    hydrogens = add_hydrogens(STANDARD[letter], atoms)
    longest = 1.36 if letter == "C" else 1.12
    assert len(hydrogens) == HYDROGENS[letter]
    for name, position in hydrogens.items():
        distances = sorted(np.linalg.norm(position - xyz) for xyz in atoms.values())
        assert 0.9 < distances[0] < longest and distances[1] > 1.7, name


def test_every_rotamer_has_an_angle_for_every_chi_and_shares_sum_to_one() -> None:
    assert set(rotamers()) == set(STANDARD.values()) - {"ALA", "GLY"}
    for residue, table in rotamers().items():
        assert table.chis.shape == (len(table.shares), len(chi_atoms(residue)))
        assert table.shares.sum() == pytest.approx(1)
        assert np.all(np.abs(table.chis) <= 180)


def test_rotamers_follow_the_backbone() -> None:
    for residue, likely in [("VAL", 175), ("ILE", -65), ("LEU", -65)]:
        tried = conformations(residue, *HELIX)
        best = tried.chis[int(np.argmin(tried.costs)), 0]
        assert abs((best - likely + 180) % 360 - 180) < 20, residue
        assert tried.costs.min() == 0 and tried.costs.max() < 6
    # In a helix, phenylalanine's ring cannot stand over its own backbone.
    over = np.abs(rotamers()["PHE"].chis[:, 0] - 60) < 40
    assert rotamers()["PHE"].costs_at(*HELIX)[over].min() > rotamers()["PHE"].costs_at(*STRAND)[over].min() + 1
    at_end, inside = rotamers()["LEU"].costs_at(np.nan, -45), rotamers()["LEU"].costs_at(-60, -45)
    assert np.exp(-at_end).sum() == pytest.approx(1) and not np.allclose(at_end, inside)
    wrapped, edge = rotamers()["LEU"].costs_at(180, 180), rotamers()["LEU"].costs_at(-180, -180)
    assert wrapped == pytest.approx(edge)


def test_rules_place_every_atom_after_those_it_is_placed_from() -> None:
    for residue, rules in atom_rules().items():
        known = {"N", "CA", "C"}
        for rule in rules:
            assert {rule.parent, rule.grandparent, rule.great} <= known, (residue, rule.name)
            known.add(rule.name)


def test_place_and_dihedral_agree() -> None:
    a, b, c = np.array([0.0, 1.0, 0.2]), np.array([0.1, 0.0, 0.0]), np.array([1.5, 0.0, 0.3])
    d = place(a, b, c, 1.4, 109.0, -73.0)
    assert np.linalg.norm(d - c) == pytest.approx(1.4)
    assert dihedral(a, b, c, d) == pytest.approx(-73.0)


def test_unknown_letters_have_stand_ins() -> None:
    assert [standard_letter(letter) for letter in "UXAW"] == ["C", "A", "A", "W"]


def test_runs_of_helix_and_strand_are_structure_and_single_residues_are_not() -> None:
    torsions = np.array([HELIX] * 4 + [(60, 60)] + [STRAND] * 3 + [(60, 60), STRAND, STRAND, (np.nan, np.nan)])
    assert secondary_structure(torsions).tolist() == [True] * 4 + [False] + [True] * 3 + [False] * 4
