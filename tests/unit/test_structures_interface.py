"""Scores of interfaces against numbers of the authors' own script (ipsae.py of DunbrackLab/IPSAE, both cutoffs 10)."""

from dataclasses import replace

import numpy as np
import pytest

from snakefold.structures.interface import interfaces
from snakefold.structures.io import ModelChain, read_chains
from tests.unit.structure_helpers import MINI


@pytest.fixture(scope="module")
def dimer() -> tuple[list[ModelChain], np.ndarray]:
    """The HIV protease with a confidence and errors drawn at random, a third of the rows better than the others."""
    chains = read_chains(MINI / "templates" / "1hvr.cif.gz")[:2]
    draw = np.random.default_rng(7)
    length = sum(len(chain.sequence) for chain in chains)
    errors = draw.uniform(1, 30, (length, length)) * np.where(draw.random((length, 1)) < 0.3, 0.3, 1)
    confidence = iter(np.round(draw.uniform(40, 98, length), 2).tolist())
    models = [
        ModelChain(sequence=chain.sequence, atoms=chain.residues, confidence=[next(confidence) for _ in chain.sequence])
        for chain in chains
    ]
    return models, np.round(errors, 2)


def test_the_numbers_are_those_of_the_authors_script(dimer: tuple[list[ModelChain], np.ndarray]) -> None:
    chains, pae = dimer
    [found] = interfaces(chains, is_plddt=True, pae=pae)
    assert (found.first, found.second, found.contacts) == (0, 1, 143)
    assert found.pdockq == pytest.approx(0.3043, abs=5e-5)
    # Its larger direction; the other is 0.520069.
    assert found.ipsae == pytest.approx(0.527155, abs=5e-7)


def test_what_the_engine_does_not_give_is_left_out(dimer: tuple[list[ModelChain], np.ndarray]) -> None:
    [found] = interfaces(dimer[0], is_plddt=False, pae=None)
    assert (found.contacts, found.pdockq, found.ipsae) == (143, None, None)


def test_chains_apart_score_nothing(dimer: tuple[list[ModelChain], np.ndarray]) -> None:
    (first, second), _ = dimer
    apart = {index: {name: xyz + 100 for name, xyz in atoms.items()} for index, atoms in second.atoms.items()}
    [found] = interfaces([first, replace(second, atoms=apart)], is_plddt=True, pae=np.full((198, 198), 25.0))
    assert (found.contacts, found.pdockq, found.ipsae) == (0, 0.0, 0.0)


def test_every_two_chains_are_looked_at_and_one_that_was_not_modelled_touches_none(
    dimer: tuple[list[ModelChain], np.ndarray],
) -> None:
    (first, second), _ = dimer
    absent = replace(first, atoms={})
    found = interfaces([first, absent, second], is_plddt=True, pae=None)
    assert [(each.first, each.second, each.contacts) for each in found] == [(0, 1, 0), (0, 2, 143), (1, 2, 0)]
    assert interfaces([first], is_plddt=True, pae=None) == []
