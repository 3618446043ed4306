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
from snakefold.engines.template.realign import realign
from snakefold.engines.template.templates import NoTemplateError, expected_quality, read_hits, select_templates
from snakefold.errors import MemberError
from snakefold.structures.io import PolymerChain, read_chains
from tests.unit.structure_helpers import MINI

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
    [chosen] = select_templates(FoldTask(chains=(ChainInputs(sequence=sequence, templates=folder),)))
    assert (chosen.hit.entry, chosen.chain.name, len(chosen.alignment)) == ("1hvr", "A", 99)


def test_a_dimer_takes_two_chains_that_touch(tmp_path: Path) -> None:
    sequence = read_chains(PROTEASE)[0].sequence
    folder = folder_of(tmp_path, [hit("1hvr", straight(99), identity=0.95)])
    chain = ChainInputs(sequence=sequence, templates=folder)
    first, second = select_templates(FoldTask(chains=(chain, chain)))
    assert {first.chain.name, second.chain.name} == {"A", "B"}
    with pytest.raises(NoTemplateError, match="in contact") as error:
        select_templates(FoldTask(chains=(chain,) * 3))
    assert error.value.kind == "no_complex_template"


def test_a_complex_without_a_common_entry_has_no_template(tmp_path: Path) -> None:
    first = ChainInputs(sequence="A" * 99, templates=folder_of(tmp_path / "a", [hit("1hvr", straight(99))]))
    second = ChainInputs(sequence="G" * 58, templates=folder_of(tmp_path / "b", [hit("5pti", straight(58))]))
    with pytest.raises(NoTemplateError, match="no entry has a template for every chain") as error:
        select_templates(FoldTask(chains=(first, second)))
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
        select_templates(FoldTask(chains=(ChainInputs(sequence="ACDEFGHIKLMNPQRSTVWY"),), template=path))
    assert error.value.kind == "bad_template"


def test_a_given_template_that_does_not_align_is_a_members_error_that_names_the_chain() -> None:
    sequences = (read_chains(PROTEASE)[0].sequence, "GSGSGSGSGSGSGSGSGSGSGSGSGSGSGS")
    task = FoldTask(chains=tuple(ChainInputs(sequence=sequence) for sequence in sequences), template=PROTEASE)
    with pytest.raises(MemberError, match=r"given template does not align with chain 2 \(30 residues\); give") as error:
        select_templates(task)
    assert error.value.kind == "bad_template"


def test_a_given_template_with_too_few_chains_is_a_members_error() -> None:
    chain = ChainInputs(sequence=read_chains(PROTEASE)[0].sequence)
    with pytest.raises(MemberError, match="has not all 3 chains of the target in contact") as error:
        select_templates(FoldTask(chains=(chain, chain, chain), template=PROTEASE))
    assert error.value.kind == "bad_template"


def flat_costs(chain: PolymerChain) -> PolymerChain:
    """The chain without coordinates: no helices, so that gaps cost the same everywhere."""
    return replace(chain, residues={})


def test_realigning_a_sequence_with_itself_pairs_every_residue_from_end_to_end() -> None:
    chain = read_chains(PROTEASE)[0]
    known = Alignment.from_pairs([(index, index, 0.9) for index in range(30, 60)])
    found = realign(build_profile(chain.sequence, None), chain, known)
    assert found.target.tolist() == found.template.tolist() == list(range(len(chain.sequence)))
    assert found.posterior.min() > 0.5 and found.posterior.max() <= 1 + 1e-9


def test_realigning_finds_an_insertion_and_keeps_gaps_out_of_helices() -> None:
    chain = read_chains(MINI / "targets" / "ubiquitin.cif.gz")[0]
    # The helix is residues 23-34; two residues are lost within it, as far as the sequence tells.
    sequence = chain.sequence[:28] + chain.sequence[30:]
    known = Alignment.from_pairs([(index, index, 0.9) for index in range(20)])
    profile = build_profile(sequence, None)
    bent, free = realign(profile, chain, known), realign(profile, flat_costs(chain), known)
    for found in (bent, free):
        assert len(found) >= len(sequence) - 6
        assert np.all(np.diff(found.target) > 0) and np.all(np.diff(found.template) > 0)
    assert (free.target[-1], free.template[-1]) == (len(sequence) - 1, len(chain.sequence) - 1)

    def certainty(found: Alignment) -> float:
        return float(found.posterior[(found.target >= 24) & (found.target < 32)].sum())

    assert certainty(bent) < certainty(free)


def test_an_alignment_that_is_too_large_or_far_less_certain_stays() -> None:
    chain = read_chains(PROTEASE)[0]
    foreign = build_profile("GSGSGSGSGSGSGSGSGSGSGSGSGSGSGS", None)
    known = Alignment.from_pairs([(index, index, 1.0) for index in range(30)])
    assert realign(foreign, chain, known) is known
    # 99 states by 20,790 residues.
    long = replace(chain, sequence=chain.sequence * 210)
    whole = Alignment.from_pairs([(index, 210 * index, 1.0) for index in range(99)])
    assert realign(build_profile(chain.sequence, None), long, whole) is whole
