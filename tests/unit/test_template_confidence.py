"""The estimated lDDT: what it goes by, where it is low, and when a template is too far."""

from dataclasses import replace

import numpy as np
import pytest

from snakefold.engines.template.align import Alignment
from snakefold.engines.template.backbone import Backbone, copy_backbone
from snakefold.engines.template.confidence import FEATURES, estimated_lddt, features, is_end, is_loop, too_far
from snakefold.engines.template.loops import close_gaps
from snakefold.engines.template.templates import ChainTemplate, TemplateHit
from snakefold.structures.io import PolymerChain, read_chains
from tests.unit.structure_helpers import MINI

INHIBITOR = MINI / "templates" / "5pti.cif.gz"


@pytest.fixture(scope="module")
def inhibitor() -> PolymerChain:
    return read_chains(INHIBITOR)[0]


def template_of(chain: PolymerChain, indices: range, posterior: float = 0.95) -> ChainTemplate:
    alignment = Alignment.from_pairs([(index, index, posterior) for index in indices])
    hit = TemplateHit(
        entry="1abc", chain="A", evalue=0, score=1, identity=1, coverage=1, resolution=1.5, title="", file=INHIBITOR,
        alignment=alignment,
    )  # fmt: skip
    return ChainTemplate(hit=hit, chain=chain, alignment=alignment)


def copied(chain: PolymerChain, sequence: str | None = None, posterior: float = 0.95) -> Backbone:
    template = template_of(chain, range(len(chain.sequence)), posterior)
    return copy_backbone(sequence or chain.sequence, [template])


def values(backbone: Backbone) -> np.ndarray:
    [found] = estimated_lddt([backbone])
    return np.array(found, dtype=float)


def changed(sequence: str, every: int) -> str:
    """The sequence, every so-manyth residue by one that is unlike it."""
    return "".join(
        ("W" if letter in "AGSTDN" else "D") if index % every == 0 else letter for index, letter in enumerate(sequence)
    )


def test_a_model_on_its_own_structure_is_believed_and_one_on_a_stranger_is_not(inhibitor: PolymerChain) -> None:
    itself = copied(inhibitor)
    stranger = copied(inhibitor, changed(inhibitor.sequence, 1), posterior=0.1)
    assert values(itself).mean() > 85
    assert values(stranger).mean() < 40
    assert not too_far(estimated_lddt([itself]))
    assert too_far(estimated_lddt([stranger]))
    assert too_far(estimated_lddt([itself, stranger])), "one chain that is wrong spoils a complex"


def test_estimates_fall_with_identity_and_never_leave_their_range(inhibitor: PolymerChain) -> None:
    means = [values(copied(inhibitor, changed(inhibitor.sequence, every))).mean() for every in (100, 8, 4, 2, 1)]
    assert means == sorted(means, reverse=True)
    assert 0 < min(means) < max(means) < 100


def test_estimates_fall_with_the_posterior_of_the_alignment(inhibitor: PolymerChain) -> None:
    sure, unsure = copied(inhibitor), copied(inhibitor)
    unsure.posterior[20:30] = 0.1
    there = values(sure)[20:30] - values(unsure)[20:30]
    elsewhere = values(sure)[45:] - values(unsure)[45:]
    assert there.min() > 2
    assert there.mean() > 3 * elsewhere.mean()


def test_a_loop_that_was_built_is_believed_less_than_what_was_copied(inhibitor: PolymerChain) -> None:
    backbone = copied(inhibitor)
    backbone.clear(24, 30)
    close_gaps([backbone], seed=0)
    built = backbone.template_index < 0
    found = features(backbone, backbone.atoms[:, 1])
    assert is_loop(found).tolist() == built.tolist()
    assert not is_end(found).any()
    assert values(backbone)[built].max() < values(backbone)[~built].mean() - 10


def test_ends_that_were_built_are_believed_less_the_further_out(inhibitor: PolymerChain) -> None:
    backbone = copied(inhibitor)
    backbone.source[:6] = backbone.template_index[:6] = -1
    backbone.posterior[:6] = 0
    backbone.template_letters = "-" * 6 + backbone.template_letters[6:]
    found = values(backbone)
    assert is_end(features(backbone, backbone.atoms[:, 1])).tolist() == [True] * 6 + [False] * 52
    assert np.all(np.diff(found[:6]) > 0), "the end itself is the furthest"
    assert found[:6].max() < found[10:].min()


def test_features_are_known_for_modelled_residues_only(inhibitor: PolymerChain) -> None:
    backbone = copy_backbone(inhibitor.sequence, [template_of(inhibitor, range(10, 50))])
    found = features(backbone, backbone.atoms[backbone.modelled, 1])
    assert found.shape == (58, len(FEATURES))
    assert np.flatnonzero(np.isfinite(found).all(axis=1)).tolist() == list(range(10, 50))
    [confidence] = estimated_lddt([backbone])
    assert [index for index, value in enumerate(confidence) if value is not None] == list(range(10, 50))


def test_other_chains_around_count_as_burial(inhibitor: PolymerChain) -> None:
    backbone = copied(inhibitor)
    apart = replace(backbone, atoms=backbone.atoms + 500)
    beside = replace(backbone, atoms=backbone.atoms + np.array([8.0, 0, 0]))
    near, far = (np.array(estimated_lddt([backbone, other])[0], dtype=float) for other in (beside, apart))
    assert near.mean() > far.mean() + 0.5
    assert np.all(near >= far)


def test_too_far_asks_for_something_modelled() -> None:
    assert too_far([[None, None]])
    assert too_far([[49.0, None]])
    assert not too_far([[51.0, None], [80.0]])
