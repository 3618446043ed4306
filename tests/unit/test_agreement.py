"""Two models of one target: 1 for the same model, and what independent formulas give for different ones."""

import itertools

import numpy as np
import pytest

from snakefold.structures.agreement import agreement
from snakefold.structures.compare import tm_d0
from snakefold.structures.io import ModelChain, PolymerChain, read_assembly, read_chains

from .structure_helpers import HELIX, MINI, STRAND, model, moved, peptide, rotation

UBIQUITIN = MINI / "targets" / "ubiquitin.cif.gz"
TRYPSIN = MINI / "targets" / "trypsin.cif.gz"
DIMER = MINI / "templates" / "1a7g.cif.gz"
SHIFT = np.array([10.0, -20.0, 30.0])


def complete(chain: PolymerChain) -> ModelChain:
    """The stretch of a chain from its first residue with coordinates to its last, as a model."""
    first, last = min(chain.residues), max(chain.residues)
    return model(
        {index - first: atoms for index, atoms in chain.residues.items()},
        chain.sequence[first : last + 1],
    )


def without(chain: ModelChain, residues: set[int]) -> ModelChain:
    kept = {index: atoms for index, atoms in chain.atoms.items() if index not in residues}
    return ModelChain(sequence=chain.sequence, atoms=kept, confidence=chain.confidence)


def shaken(chain: ModelChain, seed: int, width: float) -> ModelChain:
    chance = np.random.default_rng(seed)
    atoms = {
        index: {name: xyz + chance.normal(scale=width, size=3) for name, xyz in residue.items()}
        for index, residue in chain.atoms.items()
    }
    return ModelChain(sequence=chain.sequence, atoms=atoms, confidence=chain.confidence)


def in_a_row(chain: ModelChain, places: list[float]) -> list[ModelChain]:
    """Copies of a chain along an axis: unlike those of a ring, no rotation makes one order of them another."""
    return [moved(chain, np.eye(3), np.array([place, 0.0, 0.0])) for place in places]


def positions(chains: list[ModelChain]) -> np.ndarray:
    return np.array([chain.atoms[index]["CA"] for chain in chains for index in sorted(chain.atoms)])


def lddt_one_way(reference: np.ndarray, other: np.ndarray) -> tuple[float, list[float]]:
    """Mariani et al. 2013, written out over all pairs of CA atoms."""
    shares: dict[int, list[float]] = {index: [] for index in range(len(reference))}
    every = []
    for one, two in itertools.combinations(range(len(reference)), 2):
        wanted = float(np.sqrt(((reference[one] - reference[two]) ** 2).sum()))
        if wanted > 15.0:
            continue
        found = float(np.sqrt(((other[one] - other[two]) ** 2).sum()))
        share = sum(abs(wanted - found) <= limit for limit in (0.5, 1.0, 2.0, 4.0)) / 4
        every.append(share)
        shares[one].append(share)
        shares[two].append(share)
    return float(np.mean(every)), [float(np.mean(values)) for values in shares.values()]


def test_a_model_and_its_copy_elsewhere_in_space_agree_wholly() -> None:
    chain = complete(read_chains(TRYPSIN)[0])
    copy = moved(chain, rotation(4), SHIFT)
    found = agreement([chain], [copy], [chain.sequence])
    assert found is not None
    assert (found.tm_score, found.rmsd_ca) == pytest.approx((1, 0), abs=1e-6)
    assert found.lddt_ca == 1
    assert set(found.per_residue_lddt[0]) == {1.0}
    assert (found.dockq, found.chain_map) == (None, (0,))
    assert (found.residues, found.only_first, found.only_second) == (len(chain.sequence), 0, 0)
    for index, atoms in copy.atoms.items():
        assert found.superposition.apply(atoms["CA"]) == pytest.approx(chain.atoms[index]["CA"], abs=1e-5)


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
def test_lddt_is_that_of_the_formula_written_out(width: float) -> None:
    first = complete(read_chains(UBIQUITIN)[0])
    second = moved(shaken(first, 1, width), rotation(5), SHIFT)
    found = agreement([first], [second], [first.sequence])
    assert found is not None
    one, per_one = lddt_one_way(positions([first]), positions([second]))
    other, per_other = lddt_one_way(positions([second]), positions([first]))
    assert found.lddt_ca == pytest.approx((one + other) / 2, abs=1e-9)
    assert found.per_residue_lddt[0] == pytest.approx(np.mean([per_one, per_other], axis=0), abs=1e-9)


def test_tm_score_is_the_best_that_many_other_superpositions_reach() -> None:
    # One half of a two-domain model is turned: superpositions of either half, of all and of windows are known choices.
    whole = complete(read_chains(TRYPSIN)[0])
    size, half = len(whole.sequence), 130
    turned = moved(whole, rotation(6), SHIFT)
    second = ModelChain(
        sequence=whole.sequence,
        atoms={index: (whole if index < half else turned).atoms[index] for index in whole.atoms},
        confidence=whole.confidence,
    )
    found = agreement([whole], [second], [whole.sequence])
    assert found is not None
    ours, theirs = positions([whole]), positions([second])
    best = 0.0
    for window, start in itertools.product((20, 60, half, size), range(0, size, 5)):
        chosen = slice(start, start + window)
        fixed, mobile = ours[chosen], theirs[chosen]
        if len(fixed) < 3:
            continue
        turn, _, other = np.linalg.svd((mobile - mobile.mean(0)).T @ (fixed - fixed.mean(0)))
        turn[:, 2] *= np.sign(np.linalg.det(turn @ other))
        distances = np.linalg.norm((theirs - mobile.mean(0)) @ turn @ other + fixed.mean(0) - ours, axis=1)
        best = max(best, float((1 / (1 + (distances / tm_d0(size)) ** 2)).sum() / size))
    assert half / size <= best <= found.tm_score + 1e-6
    assert found.tm_score < best + 0.01
    # What lies within a half is preserved, what lies between them is not.
    values = np.array(found.per_residue_lddt[0], dtype=float)
    assert values.max() == 1 and values.min() < 0.8


def test_agreement_is_the_same_either_way() -> None:
    first = [complete(chain) for chain in read_assembly(DIMER)]
    second = [moved(shaken(chain, seed, 0.7), rotation(7), SHIFT) for seed, chain in enumerate(first)]
    sequences = [chain.sequence for chain in first]
    one, other = agreement(first, second, sequences), agreement(second, first, sequences)
    assert one is not None and other is not None
    for score in ("tm_score", "lddt_ca", "rmsd_ca", "dockq"):
        assert getattr(one, score) == pytest.approx(getattr(other, score), abs=1e-4)
    assert one.dockq is not None and 0.5 < one.dockq < 1


def test_residues_that_one_model_lacks_are_left_out_and_counted() -> None:
    whole = complete(read_chains(UBIQUITIN)[0])
    size = len(whole.sequence)
    first, second = without(whole, set(range(5))), without(whole, {0, 1, *range(60, 70)})
    found = agreement([first], [moved(second, rotation(8), SHIFT)], [whole.sequence])
    assert found is not None
    assert (found.residues, found.only_first, found.only_second) == (size - 15, 10, 3)
    assert found.tm_score == pytest.approx((size - 15) / size, abs=1e-6)
    assert found.rmsd_ca == pytest.approx(0, abs=1e-4)
    assert found.lddt_ca == 1
    compared = [index for index, value in enumerate(found.per_residue_lddt[0]) if value is not None]
    assert compared == [*range(5, 60), *range(70, size)]


def test_equal_chains_are_told_apart_by_where_they_lie() -> None:
    chain = complete(read_chains(UBIQUITIN)[0])
    first = in_a_row(chain, [0.0, 30.0, 80.0])
    second = [moved(first[index], rotation(9), SHIFT) for index in (2, 0, 1)]
    found = agreement(first, second, [chain.sequence] * 3)
    assert found is not None
    assert found.tm_score == pytest.approx(1, abs=1e-6)
    assert found.chain_map == (1, 2, 0)
    assert found.lddt_ca == 1


@pytest.mark.parametrize("seed", range(8))
def test_noise_does_not_exchange_the_chains_of_a_symmetric_dimer(seed: int) -> None:
    chain = complete(read_chains(UBIQUITIN)[0])
    half_turn = np.diag([-1.0, -1.0, 1.0])
    apart = moved(chain, np.eye(3), np.array([40.0, 0.0, 0.0]))
    dimer = [apart, moved(apart, half_turn, np.zeros(3))]
    first = [shaken(each, 4 * seed + number, 0.3) for number, each in enumerate(dimer)]
    second = [moved(shaken(each, 4 * seed + 2 + number, 0.3), rotation(9), SHIFT) for number, each in enumerate(dimer)]
    found = agreement(first, second, [chain.sequence] * 2)
    assert found is not None
    assert found.chain_map == (0, 1)
    assert found.tm_score > 0.95


def test_many_equal_chains_are_told_apart_without_all_permutations() -> None:
    chain = complete(read_chains(UBIQUITIN)[0])
    count = 12
    first = in_a_row(chain, [30.0 * number + number**2 for number in range(count)])
    order = np.random.default_rng(1).permutation(count)
    second = [moved(first[index], rotation(9), SHIFT) for index in order]
    found = agreement(first, second, [chain.sequence] * count)
    assert found is not None
    assert found.chain_map == tuple(np.argsort(order))
    assert found.tm_score == pytest.approx(1, abs=1e-6)


def test_chains_of_different_sequences_are_never_exchanged() -> None:
    chain = complete(read_chains(UBIQUITIN)[0])
    mutant = ModelChain(sequence="A" + chain.sequence[1:], atoms=chain.atoms, confidence=chain.confidence)
    first = [*in_a_row(chain, [0.0, 30.0]), moved(mutant, np.eye(3), np.array([80.0, 0.0, 0.0]))]
    second = [first[1], first[2], first[0]]
    second = [
        ModelChain(sequence=like.sequence, atoms=each.atoms, confidence=each.confidence)
        for each, like in zip(second, first, strict=True)
    ]
    found = agreement(first, second, [each.sequence for each in first])
    assert found is not None
    assert found.chain_map[2] == 2
    assert found.tm_score < 0.9


def test_a_helix_and_a_strand_hardly_agree() -> None:
    sequence = "ARNDCQEGHILKMFPSTWYVARNDCQEGHILKMFPSTWYV"
    found = agreement(
        [model(peptide(sequence, [HELIX] * 40), sequence)],
        [model(peptide(sequence, [STRAND] * 40), sequence)],
        [sequence],
    )
    assert found is not None
    assert found.tm_score < 0.3
    assert found.rmsd_ca > 10


def test_too_little_in_common_is_no_comparison() -> None:
    chain = complete(read_chains(UBIQUITIN)[0])
    size = len(chain.sequence)
    first, second = without(chain, set(range(2, size))), without(chain, set(range(2)))
    assert agreement([first], [second], [chain.sequence]) is None
    with pytest.raises(ValueError, match="not those of the target"):
        agreement([first], [second, second], [chain.sequence])
