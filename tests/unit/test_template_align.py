"""Alignments, their merging and extension, and the choice of templates by them."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.align import Alignment, align_to_chains, build_profile, extend_ends, merge, read_a3m
from snakefold.engines.template.environment import AMINO_ACIDS, Environment
from snakefold.engines.template.profiles import Profile, Relatives, near_and_diverse
from snakefold.engines.template.realign import realign, realigned
from snakefold.engines.template.templates import (
    ChainTemplate,
    NoTemplateError,
    TemplateHit,
    expected_quality,
    read_hits,
)
from snakefold.errors import MemberError
from snakefold.structures.io import PolymerChain, read_chains
from tests.unit.structure_helpers import MINI, chosen_templates

PROTEASE = MINI / "templates" / "1hvr.cif.gz"


def hit(entry: str, pairs: list[tuple[int, int, float]], **changes: object) -> dict[str, object]:
    return {
        "entry": entry,
        "chain": "A",
        "evalue": 1e-20,
        "score": 100.0,
        "identity": 0.5,
        "coverage": 0.9,
        "release_date": "2000-01-01",
        "resolution": 2.0,
        "title": "",
        "pairs": pairs,
        "file": f"{entry}.cif.gz",
    } | changes


def folder_of(folder: Path, hits: list[dict[str, object]]) -> Path:
    folder.mkdir(exist_ok=True)
    for found in hits:
        source = MINI / "templates" / str(found["file"])
        if source.exists():
            shutil.copy(source, folder)
    (folder / "hits.json").write_text(json.dumps({"hits": hits}))
    return folder


def straight(count: int, offset: int = 0, posterior: float = 0.9) -> list[tuple[int, int, float]]:
    return [(index, index + offset, posterior) for index in range(count)]


def test_pairs_that_cross_are_left_out() -> None:
    alignment = Alignment.from_pairs([(5, 9, 1), (3, 4, 1), (4, 12, 1), (6, 13, 0.5)])
    assert alignment.target.tolist() == [3, 4, 6]
    assert alignment.template.tolist() == [4, 12, 13]


def test_domains_in_order_are_merged_and_others_are_not() -> None:
    first = [(10, 110, 0.9), (11, 111, 0.9)]
    behind = [(30, 150, 0.8), (31, 151, 0.8)]
    crossing = [(40, 20, 0.9), (41, 21, 0.9)]
    merged = merge([first, crossing, behind])
    assert merged.target.tolist() == [10, 11, 30, 31]
    assert merged.template.tolist() == [110, 111, 150, 151]


def test_ends_are_extended_by_five_residues_or_to_the_end_of_the_coordinates() -> None:
    alignment = Alignment.from_pairs([(12, 20, 0.9), (13, 21, 0.9)])
    extended = extend_ends(alignment, "A" * 16, "W" * 40, range(5, 40))
    assert extended.target.tolist() == list(range(7, 16))
    assert extended.template.tolist() == list(range(15, 24))
    assert extended.posterior[0] < 0.5
    assert extend_ends(alignment, "A" * 16, "W" * 40, [20, 21, 22]).target.tolist() == [12, 13, 14]


@pytest.mark.parametrize("at_start", [True, False])
def test_a_conserved_segment_beyond_a_gap_joins_the_alignment(at_start: bool) -> None:
    block, segment = "CGGSLISPCWVI", "IVGGWKCEKHS"
    # The template has five residues more between the two.
    target = segment + block if at_start else block + segment
    template = segment + "NDNDN" + block if at_start else block + "NDNDN" + segment
    start, shift = (len(segment), 5) if at_start else (0, 0)
    pairs = [(i, i + shift, 0.9) for i in range(start, start + len(block))]
    extended = extend_ends(Alignment.from_pairs(pairs), target, template, range(len(template)))
    assert len(extended) == len(target)
    assert all(target[i] == template[j] for i, j in zip(extended.target, extended.template, strict=True))


def test_a_profile_has_a_state_for_each_residue_of_the_query(tmp_path: Path) -> None:
    query = read_chains(PROTEASE)[0].sequence
    msa = tmp_path / "msa.a3m"
    msa.write_text(f">query\n{query}\n>a\n{query[:40]}ggg{query[40:]}\n>b\n{'-' * 20}{query[20:]}\n")
    assert build_profile(query, msa).M == build_profile(query, None).M == len(query)
    [found] = align_to_chains(build_profile(query, msa), {"x": "GSGSGS" + query + "GSGSGS"})
    assert np.array_equal(found.alignment.template - found.alignment.target, np.full(len(found.alignment), 6))
    assert len(found.alignment) >= len(query) - 2
    assert found.alignment.posterior.min() > 0.5


def test_an_msa_of_another_query_is_refused(tmp_path: Path) -> None:
    msa = tmp_path / "msa.a3m"
    msa.write_text(">query\nACDEFGHIKL\n>a\nACDEF\n")
    with pytest.raises(MemberError, match="10 residues") as error:
        read_a3m(msa, "ACDEFGHIKL")
    assert error.value.kind == "bad_msa"


def test_a_description_may_hold_the_sign_that_begins_a_record(tmp_path: Path) -> None:
    msa = tmp_path / "msa.a3m"
    msa.write_text(">query\nACDEFGHIKL\n>P1 Alpha-(1->3)-fucosyltransferase\nACDEFwwGHI-L\n")
    assert read_a3m(msa, "ACDEFGHIKL") == ["ACDEFGHIKL", "ACDEFGHI-L"]


def test_quality_prefers_coverage_then_identity_then_resolution(tmp_path: Path) -> None:
    short, full = read_hits(
        folder_of(tmp_path, [hit("1aaa", straight(40), identity=0.6), hit("1bbb", straight(95), identity=0.4)])
    )
    assert expected_quality(full, 99) > expected_quality(short, 99)
    assert expected_quality(replace(full, identity=0.7), 99) > expected_quality(full, 99)
    assert expected_quality(replace(full, resolution=1.5), 99) > expected_quality(replace(full, resolution=3.5), 99)
    assert expected_quality(replace(full, resolution=None), 99) < expected_quality(full, 99)


def test_the_best_hit_is_chosen_wherever_it_stands(tmp_path: Path) -> None:
    sequence = read_chains(PROTEASE)[0].sequence
    folder = folder_of(
        tmp_path,
        [hit("5pti", straight(20), identity=0.3), hit("1hvr", straight(99), identity=0.95)],
    )
    [chosen] = chosen_templates(FoldTask(chains=(ChainInputs(sequence=sequence, templates=folder),)))
    assert (chosen.hit.entry, chosen.chain.name, len(chosen.alignment)) == ("1hvr", "A", 99)


def test_a_dimer_takes_two_chains_that_touch(tmp_path: Path) -> None:
    sequence = read_chains(PROTEASE)[0].sequence
    folder = folder_of(tmp_path, [hit("1hvr", straight(99), identity=0.95)])
    chain = ChainInputs(sequence=sequence, templates=folder)
    first, second = chosen_templates(FoldTask(chains=(chain, chain)))
    assert {first.chain.name, second.chain.name} == {"A", "B"}
    with pytest.raises(NoTemplateError, match="in contact") as error:
        chosen_templates(FoldTask(chains=(chain,) * 3))
    assert error.value.kind == "no_complex_template"


def test_a_complex_without_a_common_entry_has_no_template(tmp_path: Path) -> None:
    first = ChainInputs(sequence="A" * 99, templates=folder_of(tmp_path / "a", [hit("1hvr", straight(99))]))
    second = ChainInputs(sequence="G" * 58, templates=folder_of(tmp_path / "b", [hit("5pti", straight(58))]))
    with pytest.raises(NoTemplateError, match="no entry has a template for every chain") as error:
        chosen_templates(FoldTask(chains=(first, second)))
    assert error.value.kind == "no_complex_template"


def test_a_broken_hits_file_is_a_members_error(tmp_path: Path) -> None:
    (tmp_path / "hits.json").write_text('{"hits": [{"entry": "1abc"}]}')
    with pytest.raises(MemberError) as error:
        read_hits(tmp_path)
    assert error.value.kind == "bad_hits"


def test_a_given_template_that_cannot_be_read_is_a_members_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.cif.gz"
    path.write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(MemberError) as error:
        chosen_templates(FoldTask(chains=(ChainInputs(sequence="ACDEFGHIKLMNPQRSTVWY"),), template=path))
    assert error.value.kind == "bad_template"


def test_a_given_template_that_does_not_align_is_a_members_error_that_names_the_chain() -> None:
    sequences = (read_chains(PROTEASE)[0].sequence, "GSGSGSGSGSGSGSGSGSGSGSGSGSGSGS")
    task = FoldTask(chains=tuple(ChainInputs(sequence=sequence) for sequence in sequences), template=PROTEASE)
    with pytest.raises(MemberError, match=r"given template does not align with chain 2 \(30 residues\); give") as error:
        chosen_templates(task)
    assert error.value.kind == "bad_template"


def test_a_given_template_with_too_few_chains_is_a_members_error() -> None:
    chain = ChainInputs(sequence=read_chains(PROTEASE)[0].sequence)
    with pytest.raises(MemberError, match="has not all 3 chains of the target in contact") as error:
        chosen_templates(FoldTask(chains=(chain, chain, chain), template=PROTEASE))
    assert error.value.kind == "bad_template"


def without_coordinates(chain: PolymerChain) -> PolymerChain:
    """The chain without coordinates: neither environments nor prices of gaps."""
    return replace(chain, residues={})


def profile_of(sequence: str) -> Profile:
    """The profile of a sequence alone."""
    return Profile.of(build_profile(sequence, None))


def test_realigning_a_sequence_with_itself_pairs_every_residue_from_end_to_end() -> None:
    chain = read_chains(PROTEASE)[0]
    known = Alignment.from_pairs([(index, index, 0.9) for index in range(30, 60)])
    profile = profile_of(chain.sequence)
    found = realign(profile, profile, chain, known)
    assert found.target.tolist() == found.template.tolist() == list(range(len(chain.sequence)))
    assert found.posterior.min() > 0.5 and found.posterior.max() <= 1 + 1e-9


def test_target_and_template_may_be_exchanged() -> None:
    chain = without_coordinates(read_chains(PROTEASE)[0])
    whole, short = profile_of(chain.sequence), profile_of(chain.sequence[:40] + chain.sequence[47:])
    cut = replace(chain, sequence=chain.sequence[:40] + chain.sequence[47:])
    one = realign(whole, short, cut, Alignment.from_pairs([(index, index, 0.9) for index in range(30)]))
    two = realign(short, whole, chain, Alignment.from_pairs([(index, index, 0.9) for index in range(30)]))
    assert one.target.tolist() == two.template.tolist() and one.template.tolist() == two.target.tolist()
    assert np.allclose(one.posterior, two.posterior, atol=0.02)


def test_realigning_keeps_gaps_out_of_helices() -> None:
    chain = read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0]
    # Residues 18-33 all alike: as far as the sequences tell, two may be missing anywhere. The helix is 22-33.
    chain = replace(chain, sequence=chain.sequence[:18] + "A" * 16 + chain.sequence[34:])
    sequence = chain.sequence[:18] + "A" * 14 + chain.sequence[34:]
    known = Alignment.from_pairs([(index, index, 0.9) for index in range(18)])
    target, template = profile_of(sequence), profile_of(chain.sequence)
    bent, free = realign(target, template, chain, known), realign(target, template, without_coordinates(chain), known)

    def in_step(found: Alignment) -> float:
        helical = (found.template >= 23) & (found.template < 32) & (found.template - found.target == 2)
        return float(found.posterior[helical].sum())

    assert in_step(bent) > in_step(free) + 1
    for found in (bent, free):
        assert np.all(np.diff(found.target) > 0) and np.all(np.diff(found.template) > 0)
        assert (found.target[-1], found.template[-1]) == (len(sequence) - 1, len(chain.sequence) - 1)


def test_a_gap_of_forty_residues_is_found_on_either_side() -> None:
    chain = read_chains(MINI / "targets" / "trypsin.cif.gz")[0]
    sequence = chain.sequence[:90] + chain.sequence[135:]
    known = [(index, index, 0.9) for index in range(80)] + [(index, index + 45, 0.9) for index in range(100, 170)]
    cut, whole = profile_of(sequence), profile_of(chain.sequence)
    lost = realign(cut, whole, chain, Alignment.from_pairs(known))
    assert np.mean((lost.template - lost.target)[lost.target >= 95] == 45) == 1.0
    shorter = PolymerChain(name="A", sequence=sequence, residues={})
    added = realign(whole, cut, shorter, Alignment.from_pairs([(b, a, posterior) for a, b, posterior in known]))
    assert np.mean((added.target - added.template)[added.template >= 95] == 45) == 1.0


def test_an_alignment_that_is_too_large_or_far_less_certain_stays() -> None:
    chain = read_chains(PROTEASE)[0]
    foreign = profile_of("GSGSGSGSGSGSGSGSGSGSGSGSGSGSGS")
    known = Alignment.from_pairs([(index, index, 1.0) for index in range(30)])
    assert realign(foreign, profile_of(chain.sequence), chain, known) is known
    # 99 states by 20,790 residues.
    long = replace(chain, sequence=chain.sequence * 210)
    whole = Alignment.from_pairs([(index, 210 * index, 1.0) for index in range(99)])
    assert realign(profile_of(chain.sequence), profile_of(long.sequence), long, whole) is whole


def test_unknown_residues_and_selenocysteine_are_aligned_like_others() -> None:
    chain = read_chains(PROTEASE)[0]
    odd = "U" + chain.sequence[1:40] + "XXX" + chain.sequence[43:]
    chain_input = ChainInputs(sequence=odd)
    template = replace(chain, sequence=chain.sequence[:60] + "X" + chain.sequence[61:])
    known = Alignment.from_pairs([(index, index, 0.9) for index in range(len(odd))])
    given = TemplateHit(
        entry="x",
        chain="A",
        evalue=1e-9,
        score=100.0,
        identity=0.9,
        coverage=1.0,
        resolution=None,
        title="",
        file=PROTEASE,
        alignment=known,
    )
    one = ChainTemplate(hit=given, chain=template, alignment=known)
    [found] = realigned(FoldTask(chains=(chain_input,)), [one])
    assert found.alignment.target.tolist() == found.alignment.template.tolist() == list(range(len(odd)))


def test_a_templates_profile_comes_from_rows_near_it_alone(tmp_path: Path) -> None:
    template = read_chains(PROTEASE)[0].sequence
    other = read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0].sequence
    near = template[:50] + "A" * 10 + template[60:]
    msa = tmp_path / "msa.a3m"
    msa.write_text(f">query\n{other}\n>near\n{near.lower()[:30]}-{near[30:]}\n>far\n{other}\n>short\nACDEF\n")
    alone = Relatives.read(None).profile(template)
    found = Relatives.read(msa).profile(template)
    assert len(Relatives.read(msa).sequences) == 2
    alanine = found.emissions[52:58, 0] - alone.emissions[52:58, 0]
    assert alanine.min() > 0.05
    msa.write_text(f">query\n{other}\n>far\n{other}\n")
    assert np.array_equal(Relatives.read(msa).profile(template).emissions, alone.emissions)


def test_relatives_are_near_and_differ_from_one_another() -> None:
    sequence = "ACDEFGHIKLMNPQRSTVWY" * 3
    half = "".join(letter if index % 2 else "W" for index, letter in enumerate(sequence))
    far = "".join(letter if index % 4 == 0 else "W" for index, letter in enumerate(sequence))
    short = sequence[:20] + "-" * 40
    assert near_and_diverse(sequence, [sequence, half, half, far, short]) == [half]
    assert near_and_diverse(sequence, []) == []


def test_environments_tell_core_from_surface_and_helix_from_coil() -> None:
    chain = read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0]
    environment = Environment.of(chain)
    odds = environment.propensities()
    leucine, lysine, glycine = (AMINO_ACIDS.index(letter) for letter in "LKG")
    # I30 and L43 lie in the core, K11 and K63 do not; G47 has a positive phi.
    for index in (29, 42):
        assert odds[index, leucine] > odds[index, lysine] + 0.2
    for index in (10, 62):
        assert odds[index, leucine] < odds[index, lysine]
    assert odds[46, glycine] > 1.5
    prices = environment.gap_prices()
    assert len(prices) == len(chain.sequence) + 1 and prices[0] == prices[-1] == 0
    assert prices[26:33].min() >= 1.0 > prices[8:10].max()
    blank = Environment.of(without_coordinates(chain))
    assert not blank.propensities().any() and not blank.gap_prices().any()
