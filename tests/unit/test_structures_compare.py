"""Scores against a reference: 1 for the same structure, and as computed by hand for known differences."""

from pathlib import Path

import biotite.structure as biotite_structure
import numpy as np
import pytest

from snakefold.errors import SnakefoldError
from snakefold.structures.compare import compare, lddt, superpose, tm_d0, tm_score
from snakefold.structures.io import ModelChain, read_assembly, read_chains, write_model

from .structure_helpers import HELIX, MINI, model, moved, peptide, rotation

TRYPSIN = MINI / "targets" / "trypsin.cif.gz"
PROTEASE = MINI / "targets" / "hiv_protease.cif.gz"
UBIQUITIN = MINI / "targets" / "ubiquitin.cif.gz"
DIMER = MINI / "templates" / "1a7g.cif.gz"
SHIFT = np.array([10.0, -20.0, 30.0])


def ca_trace(path: Path) -> np.ndarray:
    chain = read_chains(path)[0]
    return np.array([chain.residues[index]["CA"] for index in sorted(chain.residues) if "CA" in chain.residues[index]])


def atom_array(positions: np.ndarray) -> biotite_structure.AtomArray:
    array = biotite_structure.AtomArray(len(positions))
    array.coord = positions.astype(np.float32)
    array.res_name = np.full(len(positions), "ALA")
    array.atom_name = np.full(len(positions), "CA")
    array.res_id = np.arange(len(positions))
    return array


@pytest.mark.parametrize("path", [TRYPSIN, UBIQUITIN, PROTEASE, DIMER], ids=lambda path: path.name)
def test_the_same_structure_elsewhere_in_space_scores_one(path):
    chains = read_chains(path) if path in (TRYPSIN, UBIQUITIN) else read_assembly(path)
    result = compare([moved(model(chain), rotation(1), SHIFT) for chain in chains], path)
    assert result.tm_score == pytest.approx(1, abs=1e-6)
    assert result.rmsd_ca == pytest.approx(0, abs=1e-4)
    assert (result.lddt, result.lddt_ca, result.coverage) == (1, 1, 1)
    assert result.dockq == (None if len(chains) == 1 else pytest.approx(1, abs=1e-4))
    assert {value for values in result.per_residue_lddt for value in values} <= {1.0, None}


def test_the_reference_is_moved_onto_the_model():
    chain = moved(model(read_chains(UBIQUITIN)[0]), rotation(2), SHIFT)
    (reference,) = compare([chain], UBIQUITIN).reference
    for index, residue in reference.residues.items():
        assert residue["CA"] == pytest.approx(chain.atoms[index]["CA"], abs=1e-4)


def test_missing_residues_lower_every_score_but_rmsd():
    chain = read_chains(UBIQUITIN)[0]
    kept = {index: atoms for index, atoms in chain.residues.items() if index < 57}
    result = compare([model(kept, chain.sequence)], UBIQUITIN)
    assert result.coverage == pytest.approx(57 / 76)
    assert result.tm_score == pytest.approx(57 / 76, abs=1e-6)
    assert result.rmsd_ca == pytest.approx(0, abs=1e-4)
    assert 0.5 < result.lddt_ca < 57 / 76
    assert result.per_residue_lddt[0][60:] == (0.0,) * 16


def test_residues_absent_from_the_reference_are_not_judged(tmp_path):
    chain = read_chains(UBIQUITIN)[0]
    kept = {index: atoms for index, atoms in chain.residues.items() if index >= 10}
    write_model(tmp_path / "reference.cif", [model(kept, chain.sequence)])
    result = compare([model(chain)], tmp_path / "reference.cif")
    assert result.tm_score == pytest.approx(1, abs=1e-6)
    assert result.coverage == 1
    assert result.per_residue_lddt[0][:10] == (None,) * 10


def test_tm_score_finds_the_half_that_fits():
    fixed = ca_trace(TRYPSIN)
    half = len(fixed) // 2
    hinged = fixed.copy()
    hinged[half:] = (fixed[half:] - fixed[half]) @ rotation(4).T + fixed[half] + [300, 0, 0]
    score, superposition = tm_score(fixed, hinged)
    assert score == pytest.approx(max(half, len(fixed) - half) / len(fixed), abs=0.01)
    _, rmsd = superpose(fixed, hinged)
    assert rmsd > 50
    assert np.linalg.norm(superposition.apply(fixed)[half:] - hinged[half:], axis=1).max() < 0.1


def test_tm_score_is_not_less_than_that_of_the_best_rmsd_fit_and_agrees_with_biotite():
    fixed = ca_trace(TRYPSIN)
    noisy = fixed + np.random.default_rng(3).normal(size=fixed.shape) * 2.5
    score, superposition = tm_score(fixed, noisy)

    def evaluated(positions: np.ndarray) -> float:
        indices = np.arange(len(fixed))
        return float(
            biotite_structure.tm_score(
                atom_array(noisy), atom_array(positions), indices, indices, reference_length="reference"
            )
        )

    assert evaluated(superposition.apply(fixed)) == pytest.approx(score, abs=1e-5)
    by_rmsd, _ = superpose(fixed, noisy)
    assert score >= evaluated(by_rmsd.apply(fixed)) - 1e-6
    nudges = np.random.default_rng(5)
    for _ in range(50):
        # No small motion away from the result may score better: it is a maximum.
        small = rotation_by(nudges.normal(size=3) * 0.002)
        centre = superposition.apply(fixed).mean(axis=0)
        nudged = (superposition.apply(fixed) - centre) @ small.T + centre + nudges.normal(size=3) * 0.05
        assert evaluated(nudged) <= score + 1e-5


def rotation_by(vector: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def test_tm_d0_has_the_published_values():
    assert tm_d0(100) == pytest.approx(3.652, abs=1e-3)
    assert tm_d0(300) == pytest.approx(6.360, abs=1e-3)
    assert tm_d0(10) == 0.5


def test_rmsd_of_a_known_displacement():
    fixed = ca_trace(UBIQUITIN)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(fixed), 1))
    mobile = fixed + signs * [0.0, 0.0, 1e-3]
    _, rmsd = superpose(mobile, fixed)
    assert rmsd == pytest.approx(1e-3, rel=0.06)
    mirror, rmsd = superpose(fixed * [1, 1, -1], fixed)
    assert np.linalg.det(mirror.rotation) == pytest.approx(1)
    assert rmsd > 5


def test_lddt_of_ca_agrees_with_biotite():
    fixed = ca_trace(TRYPSIN)
    noisy = fixed + np.random.default_rng(3).normal(size=fixed.shape)
    first, second = atom_array(fixed), atom_array(noisy)
    total, per_residue = lddt(fixed, noisy, np.arange(len(fixed)))
    assert total == pytest.approx(float(biotite_structure.lddt(first, second)), abs=1e-3)
    expected = np.asarray(biotite_structure.lddt(first, second, aggregation="residue"))
    assert per_residue == pytest.approx(expected, abs=0.01)
    assert 0.3 < total < 0.9


def test_lddt_counts_each_threshold_once():
    reference = np.array([[0.0, 0, 0], [10.0, 0, 0], [100.0, 0, 0]])
    for change, expected in [(0.4, 1.0), (0.9, 0.75), (1.9, 0.5), (3.9, 0.25), (4.1, 0.0)]:
        found = reference + np.array([[0, 0, 0], [change, 0, 0], [0, 0, 0]])
        total, per_group = lddt(reference, found, np.arange(3))
        assert total == expected
        assert per_group[:2].tolist() == [expected, expected]
        assert np.isnan(per_group[2])


def exchanged(chain: ModelChain, letter: str, pairs: list[tuple[str, str]]) -> ModelChain:
    atoms = {}
    for index, residue in chain.atoms.items():
        atoms[index] = dict(residue)
        if chain.sequence[index] == letter:
            for first, second in pairs:
                atoms[index][first], atoms[index][second] = residue[second], residue[first]
    return ModelChain(sequence=chain.sequence, atoms=atoms, confidence=chain.confidence)


def test_names_of_symmetric_atoms_do_not_matter_but_those_of_others_do():
    chain = model(read_chains(TRYPSIN)[0])
    tyrosine = exchanged(chain, "Y", [("CD1", "CD2"), ("CE1", "CE2")])
    assert compare([tyrosine], TRYPSIN).lddt == 1
    assert compare([exchanged(tyrosine, "D", [("OD1", "OD2")])], TRYPSIN).lddt == 1
    # One pair alone cannot be exchanged: the ring would be torn.
    assert compare([exchanged(chain, "Y", [("CD1", "CD2")])], TRYPSIN).lddt < 1
    assert compare([exchanged(chain, "L", [("CD1", "CD2")])], TRYPSIN).lddt < 1


def test_wrong_side_chains_lower_only_the_lddt_of_all_atoms():
    chain = model(read_chains(TRYPSIN)[0])
    backbone = ("N", "CA", "C", "O")
    bare = {index: {name: atoms[name] for name in backbone if name in atoms} for index, atoms in chain.atoms.items()}
    result = compare([model(bare, chain.sequence)], TRYPSIN)
    assert result.lddt_ca == 1
    assert result.lddt < 0.6


def test_equal_chains_are_assigned_whichever_way_fits():
    first, second = (model(chain) for chain in read_assembly(PROTEASE))
    assert compare([first, second], PROTEASE).chain_map == ("A", "B")
    swapped = compare([second, first], PROTEASE)
    assert swapped.tm_score == pytest.approx(1, abs=1e-6)
    assert swapped.dockq == pytest.approx(1, abs=1e-4)


def test_a_wrong_interface_is_seen_in_dockq_and_tm_score():
    first, second = (model(chain) for chain in read_assembly(PROTEASE))
    away = moved(second, rotation(7), np.array([60.0, 0, 0]))
    result = compare([first, away], PROTEASE)
    assert result.dockq is not None
    assert result.dockq < 0.1
    assert 0.45 < result.tm_score < 0.6


def test_one_chain_is_found_among_those_of_a_complex():
    chains = read_chains(MINI / "templates" / "1bd2.cif.gz")
    result = compare([model(chains[1])], MINI / "templates" / "1bd2.cif.gz")
    assert result.chain_map == (chains[1].name,)
    assert result.tm_score == pytest.approx(1, abs=1e-6)
    assert result.reference[0].name == chains[1].name
    assert len(result.reference) == len(chains)


def test_another_construct_of_the_protein_is_aligned():
    chain = read_chains(UBIQUITIN)[0]
    tagged = "MHHHHHHGS" + chain.sequence[:20] + "A" + chain.sequence[21:70]
    atoms = {index + 9: residue for index, residue in chain.residues.items() if index < 70}
    result = compare([model(atoms, tagged)], UBIQUITIN)
    assert result.coverage == pytest.approx(1)
    assert result.rmsd_ca == pytest.approx(0, abs=1e-4)
    assert result.per_residue_lddt[0][:9] == (None,) * 9


def test_the_structure_of_another_protein_is_refused_in_one_line():
    chain = read_chains(UBIQUITIN)[0]
    with pytest.raises(SnakefoldError, match=r"trypsin\.cif\.gz.*another protein") as caught:
        compare([model(chain)], TRYPSIN)
    assert "\n" not in str(caught.value)


def test_a_model_of_two_residues_is_refused(tmp_path):
    write_model(tmp_path / "reference.cif", [model(peptide("AAAA", [HELIX] * 4), "AAAA")])
    two = {index: residue for index, residue in peptide("AAAA", [HELIX] * 4).items() if index < 2}
    with pytest.raises(SnakefoldError, match="fewer than three residues"):
        compare([model(two, "AAAA")], tmp_path / "reference.cif")
