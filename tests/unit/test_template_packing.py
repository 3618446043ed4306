"""Side chains packed together: disulfides, choices that depend on each other, prolines and chirality of loops."""

import numpy as np
import pytest

from snakefold.engines.template.backbone import Backbone
from snakefold.engines.template.disulfides import BOND, bridges
from snakefold.engines.template.loops import close_gaps
from snakefold.engines.template.packing import Candidates, Surroundings, choose
from snakefold.engines.template.sidechains import Suggestion, pack_side_chains
from snakefold.structures.geometry import wrong_chirality
from snakefold.structures.io import ModelChain, PolymerChain, read_chains
from snakefold.structures.residues import BACKBONE
from tests.unit.structure_helpers import MINI, STRAND, peptide

BRIDGES = [(4, 54), (13, 37), (29, 50)]


@pytest.fixture(scope="module")
def inhibitor() -> PolymerChain:
    return read_chains(MINI / "templates" / "5pti.cif.gz")[0]


def bare(sequence: str, residues: dict[int, dict[str, np.ndarray]]) -> Backbone:
    backbone = Backbone.blank(sequence)
    for index, atoms in residues.items():
        backbone.atoms[index] = [atoms[name] for name in BACKBONE]
    return backbone


def sulphur_pairs(packed: dict[int, dict[str, np.ndarray]]) -> list[tuple[int, int]]:
    sulphurs = [(index, atoms["SG"]) for index, atoms in packed.items() if "SG" in atoms]
    return [(i, j) for i, a in sulphurs for j, b in sulphurs if i < j and np.linalg.norm(a - b) < 2.6]


def test_disulfides_are_found_on_a_bare_backbone_and_no_cysteine_has_two(inhibitor: PolymerChain) -> None:
    [packed] = pack_side_chains([bare(inhibitor.sequence, inhibitor.residues)], [{}], seed=0)
    assert sulphur_pairs(packed) == BRIDGES
    for first, second in BRIDGES:
        assert np.linalg.norm(packed[first]["SG"] - packed[second]["SG"]) == pytest.approx(BOND, abs=0.3)


def test_cysteines_that_the_template_leaves_free_stay_free(inhibitor: PolymerChain) -> None:
    free = {index: Suggestion(apart=True) for index in (4, 54)}
    [packed] = pack_side_chains([bare(inhibitor.sequence, inhibitor.residues)], [free], seed=0)
    assert sulphur_pairs(packed) == BRIDGES[1:]


def test_of_three_cysteines_two_are_bridged(inhibitor: PolymerChain) -> None:
    first, second = inhibitor.residues[4], inhibitor.residues[54]
    third = {name: xyz + np.array([0.3, 0.2, 0.1]) for name, xyz in second.items()}
    found = bridges({(0, 4): first, (0, 54): second, (1, 54): third})
    assert len(found) == 2 and (0, 4) in found


def one(points: list[list[float]], energies: list[float], centre: list[float]) -> Candidates:
    """A residue with a single aliphatic atom that has several places."""
    return Candidates(
        moving=np.array(points)[:, None], types=np.array([0]), energies=np.array(energies), centre=np.array(centre)
    )


def test_the_choice_is_the_best_one_together_not_one_by_one() -> None:
    """Two atoms that both prefer the place between them: one of them must give way, the one that loses less."""
    left = one([[0.0, 0, 0], [-4.0, 0, 0]], [0.0, 1.5], [-2.0, 0, 0])
    right = one([[0.3, 0, 0], [4.0, 0, 0]], [0.0, 0.5], [2.0, 0, 0])
    far = np.array([[50.0, 50.0, 50.0]])
    nobody = np.array([-1, -1])
    around = Surroundings(
        points=far, types=np.array([11]), owner=np.array([5]), link=np.array([0]), before=nobody, after=nobody
    )
    assert choose([left, right], around, seed=0).tolist() == [0, 1]


def test_a_cis_proline_in_a_rebuilt_loop_stays_cis_and_nothing_turns_right_handed() -> None:
    sequence = "AAAAPAAAA"
    residues = peptide(sequence, [STRAND] * 9, omegas={4: 0.0})
    backbone = bare(sequence, residues)
    # A break behind the proline: the loop that mends it is widened over the proline.
    backbone.atoms[5:] += 0.8
    backbone.template_index[:] = range(9)
    backbone.source[:] = 0
    close_gaps([backbone], seed=0)
    assert backbone.modelled.all()
    assert abs(backbone.torsions()[4, 2]) < 45
    [packed] = pack_side_chains([backbone], [{}], seed=0)
    atoms = {i: dict(zip(BACKBONE, backbone.atoms[i], strict=True)) | packed[i] for i in packed}
    assert wrong_chirality([ModelChain(sequence=sequence, atoms=atoms, confidence=[None] * 9)]) == []
