"""Geometry checks find the faults that were built in, and find few in crystal structures."""

import numpy as np
import pytest

from snakefold.structures.geometry import (
    backbone_torsions,
    chain_breaks,
    chi_angles,
    find_clashes,
    peptide_bonds,
    ramachandran,
    torsion,
    wrong_chirality,
)
from snakefold.structures.io import ModelChain, read_chains
from snakefold.structures.ramachandran import Region, region
from snakefold.structures.residues import bonds_of, heavy_atoms_of

from .structure_helpers import HELIX, MINI, STRAND, model, moved, peptide


def atoms(sequence: str, **residues: dict[str, tuple[float, float, float]]) -> ModelChain:
    """A chain with the given atoms; residues are named r0, r1, ..."""
    return model(
        {
            int(key[1:]): {name: np.array(xyz, dtype=float) for name, xyz in each.items()}
            for key, each in residues.items()
        },
        sequence,
    )


def test_torsion_has_the_sign_of_iupac():
    x, y, z = np.eye(3)
    assert torsion(x, 0 * x, z, z + x) == pytest.approx(0)
    assert torsion(x, 0 * x, z, z - x) == pytest.approx(180)
    assert torsion(x, 0 * x, -z, -z + y) == pytest.approx(-90)


def test_backbone_torsions_are_those_the_peptide_was_built_with():
    wanted = [(-60.0, -45.0), (-120.0, 130.0), (55.0, 40.0), (-75.0, 160.0), (-90.0, 0.0)]
    found = backbone_torsions(model(peptide("AAAAA", wanted), "AAAAA"))
    assert sorted(found) == [1, 2, 3]
    for index in found:
        assert found[index] == pytest.approx(wanted[index], abs=1e-6)


def test_residues_at_a_break_or_gap_have_no_torsions():
    residues = peptide("AAAAAAA", [HELIX] * 7)
    del residues[3]
    assert sorted(backbone_torsions(model(residues, "A" * 7))) == [1, 5]


@pytest.mark.parametrize(
    ("residue_class", "phi", "psi", "expected"),
    [
        ("general", -63, -43, Region.FAVOURED),
        ("general", -120, 130, Region.FAVOURED),
        ("general", -120, -175, Region.FAVOURED),
        ("general", 57, 45, Region.FAVOURED),
        ("general", 57, 45 - 720, Region.FAVOURED),
        ("general", -150, 60, Region.ALLOWED),
        ("general", 75, -50, Region.ALLOWED),
        ("general", 120, 0, Region.OUTLIER),
        ("general", 0, 0, Region.OUTLIER),
        ("general", 100, -150, Region.OUTLIER),
        ("glycine", 85, 5, Region.FAVOURED),
        ("glycine", 85, -170, Region.FAVOURED),
        ("glycine", 180, 180, Region.FAVOURED),
        ("glycine", 10, 10, Region.OUTLIER),
        ("isoleucine-valine", -120, 130, Region.FAVOURED),
        ("isoleucine-valine", -63, -43, Region.FAVOURED),
        ("isoleucine-valine", 57, 80, Region.OUTLIER),
        ("isoleucine-valine", -80, -150, Region.OUTLIER),
        ("pre-proline", -65, 140, Region.FAVOURED),
        ("pre-proline", -130, 75, Region.FAVOURED),
        ("pre-proline", -90, 30, Region.OUTLIER),
        ("trans-proline", -65, 145, Region.FAVOURED),
        ("trans-proline", -65, -35, Region.FAVOURED),
        ("trans-proline", -130, 145, Region.OUTLIER),
        ("cis-proline", -80, 160, Region.FAVOURED),
        ("cis-proline", -65, 90, Region.OUTLIER),
    ],
)
def test_well_known_conformations_lie_where_the_published_plots_have_them(residue_class, phi, psi, expected):
    assert region(residue_class, phi, psi) is expected


def test_the_plot_of_glycine_is_symmetric_and_most_of_the_general_plot_is_empty():
    grid = np.arange(-177.3, 180, 15)
    assert all(region("glycine", phi, psi) is region("glycine", -phi, -psi) for phi in grid for psi in grid)
    shares = np.mean([[region("general", phi, psi) is Region.OUTLIER for phi in grid] for psi in grid])
    assert 0.55 < shares < 0.66  # the published contours leave 61 % of the general plot to outliers


def test_outliers_are_counted_and_named():
    torsions = [HELIX, HELIX, (120.0, 0.0), HELIX, HELIX]
    found = ramachandran([model(peptide("AAAAA", [HELIX] * 5), "AAAAA"), model(peptide("ASAAA", torsions), "ASAAA")])
    assert (found.favoured, found.allowed, found.outliers) == (5, 0, 1)
    assert found.outlier_residues == ((1, 2),)


def test_glycine_may_be_where_alanine_may_not():
    torsions = [HELIX, HELIX, (95.0, -170.0), HELIX, HELIX]
    assert ramachandran([model(peptide("AAAAA", torsions), "AAAAA")]).outliers == 1
    assert ramachandran([model(peptide("AAGAA", torsions), "AAGAA")]).outliers == 0


def test_a_mirror_image_has_d_amino_acids():
    helix = model(peptide("AGAA", [HELIX] * 4), "AGAA")
    assert wrong_chirality([helix]) == []
    mirror = moved(helix, np.diag([1.0, 1.0, -1.0]), np.zeros(3))
    assert [(atom.residue, atom.atom) for atom in wrong_chirality([mirror])] == [(0, "CA"), (2, "CA"), (3, "CA")]


def test_exchanged_branches_of_threonine_are_found():
    chain = read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0]
    assert wrong_chirality([model(chain)]) == []
    index = chain.sequence.index("T")
    residues = dict(chain.residues)
    threonine = dict(residues[index])
    threonine["OG1"], threonine["CG2"] = threonine["CG2"], threonine["OG1"]
    residues[index] = threonine
    assert [(atom.residue, atom.atom) for atom in wrong_chirality([model(residues, chain.sequence)])] == [(index, "CB")]


def test_cis_and_twisted_peptide_bonds_are_told_apart():
    residues = peptide("AAAAA", [STRAND] * 5, omegas={2: 3.0, 3: -100.0})
    bonds = peptide_bonds([model(residues, "AAAAA")])
    assert [(bond.residue.residue, bond.kind) for bond in bonds] == [
        (1, "trans"), (2, "cis"), (3, "twisted"), (4, "trans"),
    ]  # fmt: skip
    assert bonds[2].omega == pytest.approx(-100, abs=1e-6)


def test_breaks_are_between_neighbours_in_the_sequence_only():
    residues = peptide("AAAAAA", [STRAND] * 6)
    for index in (3, 4, 5):
        residues[index] = {name: xyz + np.array([0, 0, 5.0]) for name, xyz in residues[index].items()}
    assert [tuple(each) for each in chain_breaks([model(residues, "A" * 6)])] == [(0, 3)]
    del residues[3]
    assert chain_breaks([model(residues, "A" * 6)]) == []


def test_chi_angles_of_a_residue_with_missing_atoms_end_where_they_end():
    chain = read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0]
    index = chain.sequence.index("K")
    residues = {index: {name: xyz for name, xyz in chain.residues[index].items() if name not in ("CE", "NZ")}}
    angles = chi_angles(model(residues, chain.sequence))[index]
    assert [angle is None for angle in angles] == [False, False, True, True]
    assert angles[:2] == chi_angles(model(chain))[index][:2]


def test_two_carbons_too_near_are_a_clash_at_the_stated_overlap():
    def pair(distance: float) -> list[ModelChain]:
        return [atoms("A", r0={"CB": (0, 0, 0)}), atoms("A", r0={"CB": (0, 0, distance)})]

    # Two CH3 of radius 1.88 touch at 3.76; a clash begins at an overlap of 0.6.
    (clash,) = find_clashes(pair(3.0))
    assert (clash.first, clash.second) == ((0, 0, "CB"), (1, 0, "CB"))
    assert (clash.distance, clash.overlap) == (pytest.approx(3.0), pytest.approx(0.76))
    assert len(find_clashes(pair(3.16))) == 1
    assert find_clashes(pair(3.17)) == []
    assert len(find_clashes(pair(3.3), threshold=0.4)) == 1


def test_a_hydrogen_bond_is_no_clash():
    def pair(first: str, second: str) -> int:
        one, other = atoms("A", r0={first: (0, 0, 0)}), atoms("A", r0={second: (0, 0, 2.3)})
        return len(find_clashes([one, other]))

    assert pair("N", "O") == 0
    assert pair("N", "N") == 1
    assert len(find_clashes([atoms("P", r0={"N": (0, 0, 0)}), atoms("A", r0={"O": (0, 0, 2.3)})])) == 1


def test_bonded_atoms_and_disulfides_are_no_clashes():
    cysteine = {"CA": (0.0, 0, 0), "CB": (1.5, 0, 0), "SG": (2.1, 1.7, 0)}
    partner = {name: (4.8 - x, 3.6 - y, 0.6) for name, (x, y, _) in cysteine.items()}
    assert find_clashes([atoms("CAC", r0=cysteine, r2=partner)]) == []
    assert len(find_clashes([atoms("CAS", r0=cysteine, r2={"OG": partner["SG"]})])) > 0


def test_the_peptide_bond_joins_neighbours_in_the_bond_graph():
    helix = peptide("AAAAAAAA", [HELIX] * 8)
    assert find_clashes([model(helix, "A" * 8)]) == []
    # Called residues of two chains, the same atoms are not bonded, and the bond is a clash.
    halves = [model({0: helix[3]}, "A"), model({0: helix[4]}, "A")]
    assert find_clashes(halves)[0].distance == pytest.approx(1.329, abs=1e-6)


@pytest.mark.parametrize(
    ("entry", "most_clashes", "most_outliers"),
    [("targets/trypsin", 4, 0), ("targets/ubiquitin", 3, 0), ("templates/4zhl", 3, 1), ("targets/hiv_protease", 4, 1)],
)
def test_crystal_structures_have_few_faults(entry, most_clashes, most_outliers):
    chains = [model(chain) for chain in read_chains(MINI / f"{entry}.cif.gz")]
    assert len(find_clashes(chains)) <= most_clashes
    plot = ramachandran(chains)
    assert plot.outliers <= most_outliers
    assert plot.favoured > 0.9 * (plot.favoured + plot.allowed + plot.outliers)
    assert wrong_chirality(chains) == []
    assert chain_breaks(chains) == []


def test_every_atom_of_the_twenty_residues_is_bonded_to_the_backbone():
    for letter in "ACDEFGHIKLMNPQRSTVWY":
        names = set(heavy_atoms_of(letter))
        reached = {"CA"}
        for _ in names:
            reached |= {end for bond in bonds_of(letter) if reached & set(bond) for end in bond}
        assert reached == names | {"OXT"}, letter


def test_bonds_of_the_table_have_the_length_of_bonds_in_a_crystal_structure():
    for chain in read_chains(MINI / "templates" / "4zhl.cif.gz"):
        for index, residue in chain.residues.items():
            for first, second in bonds_of(chain.sequence[index]):
                if first in residue and second in residue:
                    assert 1.05 < np.linalg.norm(residue[first] - residue[second]) < 1.95, (index, first, second)
