"""Backbone, loops, side chains and minimisation of the template engine, one by one."""

import numpy as np
import pytest

from snakefold.engines.template.align import Alignment
from snakefold.engines.template.backbone import Backbone, copy_backbone
from snakefold.engines.template.loops import LONGEST_LOOP, close_gaps, grow_tails
from snakefold.engines.template.minimise import RawChain, minimise
from snakefold.engines.template.sidechains import pack_side_chains, suggestions
from snakefold.engines.template.templates import ChainTemplate, TemplateHit
from snakefold.structures.geometry import chi_angles, find_clashes, wrong_chirality
from snakefold.structures.io import ModelChain, PolymerChain, read_chains
from snakefold.structures.ramachandran import Region, region
from snakefold.structures.residues import BACKBONE
from tests.unit.structure_helpers import MINI, STRAND, peptide

INHIBITOR = MINI / "templates" / "5pti.cif.gz"


def template_of(chain: PolymerChain, pairs: list[tuple[int, int]]) -> ChainTemplate:
    alignment = Alignment.from_pairs([(target, index, 0.9) for target, index in pairs])
    hit = TemplateHit(
        entry="1abc", chain="A", evalue=0, score=1, identity=1, coverage=1, resolution=1.5, title="", file=INHIBITOR,
        alignment=alignment,
    )  # fmt: skip
    return ChainTemplate(hit=hit, chain=chain, alignment=alignment)


def itself(chain: PolymerChain) -> ChainTemplate:
    return template_of(chain, [(index, index) for index in range(len(chain.sequence))])


def peptide_bonds(backbone: Backbone) -> np.ndarray:
    return np.linalg.norm(backbone.atoms[1:, 0] - backbone.atoms[:-1, 2], axis=1)


@pytest.fixture(scope="module")
def inhibitor() -> PolymerChain:
    return read_chains(INHIBITOR)[0]


def test_the_backbone_is_the_templates_where_aligned_and_empty_elsewhere(inhibitor: PolymerChain) -> None:
    backbone = copy_backbone("G" * 60, [template_of(inhibitor, [(2, 10), (3, 11), (7, 12)])])
    assert np.flatnonzero(backbone.modelled).tolist() == [2, 3, 7]
    assert np.array_equal(backbone.atoms[3, 1], inhibitor.residues[11]["CA"])
    assert backbone.bonded(2) and not backbone.bonded(3)


def test_residues_without_a_whole_backbone_or_of_the_wrong_hand_are_left_out(inhibitor: PolymerChain) -> None:
    residues = {index: dict(atoms) for index, atoms in inhibitor.residues.items()}
    del residues[5]["C"]
    del residues[8]["O"]
    residues[20]["CB"] = 2 * residues[20]["CA"] - residues[20]["CB"]
    backbone = copy_backbone(
        inhibitor.sequence, [itself(PolymerChain(name="A", sequence=inhibitor.sequence, residues=residues))]
    )
    assert np.flatnonzero(~backbone.modelled).tolist() == [5, 20]
    # A missing oxygen is put back where it was.
    assert np.linalg.norm(backbone.atoms[8, 3] - inhibitor.residues[8]["O"]) < 0.2


def test_cis_bonds_are_kept_before_proline_only() -> None:
    residues = peptide("AAAPAAA", [STRAND] * 7, omegas={3: 0.0})
    chain = PolymerChain(name="A", sequence="AAAPAAA", residues=residues)
    assert copy_backbone("GGGPGGG", [itself(chain)]).modelled.all()
    assert np.flatnonzero(~copy_backbone("GGGGGGG", [itself(chain)]).modelled).tolist() == [2, 3]


@pytest.mark.parametrize(("start", "end", "inserted"), [(24, 28, 4), (24, 28, 7), (25, 25, 2), (38, 40, 0)])
def test_gaps_are_closed_by_loops_with_sound_bonds(
    inhibitor: PolymerChain, start: int, end: int, inserted: int
) -> None:
    """Residues start to end of the template are replaced by `inserted` ones, or joined where there are none."""
    sequence = inhibitor.sequence[:start] + "G" * inserted + inhibitor.sequence[end:]
    shift = inserted - (end - start)
    pairs = [(i, i) for i in range(start)] + [(i + shift, i) for i in range(end, len(inhibitor.sequence))]
    backbone = copy_backbone(sequence, [template_of(inhibitor, pairs)])
    [ranges] = close_gaps([backbone], seed=0)
    assert backbone.modelled.all()
    assert ranges and ranges[0][0] <= start and ranges[0][1] >= start + inserted
    # The last bond may be off by what the minimisation mends with ease.
    assert np.all((peptide_bonds(backbone) > 1.1) & (peptide_bonds(backbone) < 1.7))
    built = [index for a, b in ranges for index in range(a, b)]
    assert len(built) <= inserted + 12
    assert np.flatnonzero(backbone.template_index < 0).tolist() == built


def test_loops_depend_on_the_seed_alone(inhibitor: PolymerChain) -> None:
    def close(seed: int) -> np.ndarray:
        backbone = copy_backbone(inhibitor.sequence, [itself(inhibitor)])
        backbone.clear(24, 28)
        close_gaps([backbone], seed)
        return backbone.atoms

    assert np.array_equal(close(0), close(0))
    assert not np.array_equal(close(0), close(1))


def test_loops_avoid_outliers_of_the_ramachandran_plot(inhibitor: PolymerChain) -> None:
    backbone = copy_backbone("A" * 58, [itself(inhibitor)])
    for start in (12, 24, 38):
        backbone.clear(start, start + 4)
    [ranges] = close_gaps([backbone], seed=0)
    phi, psi, _ = np.array([backbone.torsions()[i] for a, b in ranges for i in range(a, b)]).T
    regions = [region("general", *angles) for angles in zip(phi.tolist(), psi.tolist(), strict=True)]
    assert len(regions) >= 12
    assert regions.count(Region.OUTLIER) <= 1


def test_insertions_beyond_the_longest_loop_are_left_out(inhibitor: PolymerChain) -> None:
    count = LONGEST_LOOP + 1
    sequence = inhibitor.sequence[:25] + "A" * count + inhibitor.sequence[25:]
    pairs = [(i, i) for i in range(25)] + [(i + count, i) for i in range(25, 58)]
    backbone = copy_backbone(sequence, [template_of(inhibitor, pairs)])
    assert close_gaps([backbone], seed=0) == [[]]
    assert np.flatnonzero(~backbone.modelled).tolist() == list(range(25, 25 + count))


def test_tails_are_built_without_broken_bonds_or_moved_atoms(inhibitor: PolymerChain) -> None:
    sequence = "MKTAYIAK" + inhibitor.sequence + "GSHMKL"
    backbone = copy_backbone(sequence, [template_of(inhibitor, [(i + 8, i) for i in range(58)])])
    before = backbone.atoms[8:65].copy()
    grow_tails([backbone], seed=0)
    assert backbone.modelled.all()
    assert np.array_equal(backbone.atoms[8:65], before)
    assert np.all((peptide_bonds(backbone) > 1.2) & (peptide_bonds(backbone) < 1.5))
    omega = backbone.torsions()[1:, 2]
    assert np.abs(omega).min() > 150


def test_conserved_side_chains_and_disulfides_are_copied(inhibitor: PolymerChain) -> None:
    template = itself(inhibitor)
    backbone = copy_backbone(inhibitor.sequence, [template])
    [packed] = pack_side_chains([backbone], [suggestions(backbone, [template])], seed=0)
    same = [
        all(np.array_equal(packed[index][name], inhibitor.residues[index][name]) for name in packed[index])
        for index in packed
        if packed[index]
    ]
    assert np.mean(same) > 0.85
    for first, second in [(4, 54), (13, 37), (29, 50)]:
        assert np.linalg.norm(packed[first]["SG"] - packed[second]["SG"]) < 2.2


def test_side_chains_packed_on_the_true_backbone_find_most_rotamers() -> None:
    chain = read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0]
    backbone = copy_backbone(chain.sequence, [itself(chain)])
    [packed] = pack_side_chains([backbone], [{}], seed=0)
    atoms = {i: dict(zip(BACKBONE, backbone.atoms[i], strict=True)) | packed[i] for i in packed}
    unknown = [None] * len(chain.sequence)
    model = ModelChain(sequence=chain.sequence, atoms=atoms, confidence=unknown)
    truth = chi_angles(ModelChain(sequence=chain.sequence, atoms=chain.residues, confidence=unknown))
    found = chi_angles(model)
    off = [
        abs((found[i][0] - angles[0] + 180) % 360 - 180)  # type: ignore[operator]
        for i, angles in truth.items()
        if angles and angles[0] is not None and chain.sequence[i] not in "P"
    ]
    assert np.mean(np.array(off) < 40) > 0.65
    assert wrong_chirality([model]) == []


def heavy(chain: PolymerChain) -> dict[int, dict[str, np.ndarray]]:
    return {index: {n: xyz for n, xyz in atoms.items() if n != "OXT"} for index, atoms in chain.residues.items()}


def test_minimisation_moves_a_crystal_structure_little_and_keeps_its_disulfides(inhibitor: PolymerChain) -> None:
    chain = RawChain(sequence=inhibitor.sequence, atoms=heavy(inhibitor), restrained=frozenset(inhibitor.residues))
    [moved] = minimise([chain])
    assert {index: set(atoms) for index, atoms in moved.items()} == {i: set(a) for i, a in chain.atoms.items()}
    shifts = [np.linalg.norm(moved[i][n] - chain.atoms[i][n]) for i in moved for n in moved[i]]
    assert np.sqrt(np.mean(np.square(shifts))) < 0.5
    assert np.linalg.norm(moved[4]["SG"] - moved[54]["SG"]) < 2.2


def test_minimisation_parts_overlapping_atoms_without_turning_a_stereocentre(inhibitor: PolymerChain) -> None:
    atoms = {index: dict(residue) for index, residue in heavy(inhibitor).items()}
    # The side chain of Tyr 23 thrown across Phe 33's: nothing but soft forces would part them.
    shift = atoms[32]["CG"] - atoms[22]["CG"]
    for name in ("CG", "CD1", "CD2", "CE1", "CE2", "CZ", "OH"):
        atoms[22][name] = atoms[22][name] + 0.5 * shift
    [moved] = minimise([RawChain(sequence=inhibitor.sequence, atoms=atoms, restrained=frozenset())])
    model = ModelChain(sequence=inhibitor.sequence, atoms=moved, confidence=[None] * len(inhibitor.sequence))
    assert wrong_chirality([model]) == []
    assert len(find_clashes([model])) <= 1


def test_a_chain_with_a_hole_is_minimised_in_two_pieces(inhibitor: PolymerChain) -> None:
    atoms = {index: residue for index, residue in heavy(inhibitor).items() if not 20 <= index < 26}
    [moved] = minimise([RawChain(sequence=inhibitor.sequence, atoms=atoms, restrained=frozenset(atoms))])
    assert set(moved) == set(atoms)
    assert np.linalg.norm(moved[26]["N"] - moved[19]["C"]) > 3
