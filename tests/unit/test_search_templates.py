import gzip
import json
import random
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import gemmi
import pytest

from snakefold.errors import MemberError, SnakefoldError
from snakefold.search.entries import Library, UnusableEntryError, place
from snakefold.search.templates import search_templates

from .search_helpers import Results, files_of, random_protein

MINI = Path(__file__).parents[2] / "data" / "mini"
ENTRIES = ("4zhl", "1hvr", "1bd2", "3pwp", "1fki", "3enl")


def sequences_of(path: Path) -> dict[str, str]:
    """The sequences listed in a seqres file, by name."""
    with gzip.open(path, "rt") as handle:
        records = handle.read().split(">")[1:]
    return {record.split()[0]: "".join(record.splitlines()[1:]) for record in records}


SEQRES = sequences_of(MINI / "templates" / "seqres.fasta.gz")
UROKINASE = SEQRES["4zhl_U"]


def target(name: str) -> str:
    structure = gemmi.read_structure(str(MINI / "targets" / f"{name}.cif.gz"))
    (entity,) = [entity for entity in structure.entities if entity.full_sequence]
    return gemmi.one_letter_code([gemmi.Entity.first_mon(monomer) for monomer in entity.full_sequence]).upper()


@pytest.fixture
def make_library(tmp_path: Path) -> Callable[..., Path]:
    """Makes a library of a few entries with a list of sequences of one's own, divided as the PDB's archive is."""

    def make(
        sequences: dict[str, str], *, description: str = "mol:protein", change: tuple[str, str] = ("", "")
    ) -> Path:
        folder = tmp_path / "library"
        for entry in ENTRIES:
            text = gzip.decompress((MINI / "templates" / f"{entry}.cif.gz").read_bytes()).decode()
            path = folder / "mmcif" / entry[1:3] / f"{entry}.cif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(*change) if change[0] else text)
        lines = [f">{name} {description} length:{len(letters)}\n{letters}\n" for name, letters in sequences.items()]
        (folder / "pdb_seqres.txt").write_text("".join(lines))
        return folder

    return make


def search(sequence: str, folder: Path, library: Path = MINI / "templates", **options: Any) -> dict[str, Any]:
    """Templates of one chain whose MSA is nothing but the chain: the content of its hits.json."""
    msa = folder / "msa.a3m"
    msa.write_text(f">query\n{sequence}\n")
    results = Results()
    search_templates(
        {"chain": msa}, {"chain": sequence}, library, scratch=folder / "out", on_result=results.on_result, **options
    )
    outcome = results.outcomes["chain"]
    assert outcome.status == "done"
    found = json.loads((folder / "out" / "chain" / "hits.json").read_text())
    assert outcome.facts["hits"] == len(found["hits"])
    return found


def names(found: dict[str, Any]) -> list[str]:
    return [f"{hit['entry']}_{hit['chain']}" for hit in found["hits"]]


def reasons(found: dict[str, Any]) -> dict[str, str]:
    return {f"{item['entry']}_{item['chain']}": item["reason"] for item in found["rejected"]}


def test_trypsin_finds_urokinase(tmp_path: Path) -> None:
    trypsin = target("trypsin")
    found = search(trypsin, tmp_path)
    assert names(found) == ["4zhl_U"]
    (hit,) = found["hits"]
    assert hit["evalue"] < 1e-30
    assert 0.38 < hit["identity"] < 0.46
    assert hit["coverage"] == pytest.approx(len(hit["pairs"]) / len(trypsin), abs=1e-4) and hit["coverage"] > 0.8
    assert (hit["release_date"], hit["resolution"]) == ("2015-09-16", 2.06)
    assert "mupain" in hit["title"]


def test_pairs_point_at_residues_with_coordinates(tmp_path: Path) -> None:
    trypsin = target("trypsin")
    (hit,) = search(trypsin, tmp_path)["hits"]
    structure = gemmi.read_structure(str(tmp_path / "out" / "chain" / hit["file"]))
    residues = {residue.label_seq: residue for residue in structure[0]["U"].get_polymer()}
    pairs = hit["pairs"]
    assert [pair[0] for pair in pairs] == sorted({pair[0] for pair in pairs})
    assert [pair[1] for pair in pairs] == sorted({pair[1] for pair in pairs})
    same = 0
    for query, template, posterior in pairs:
        residue = residues[template + 1]
        assert residue.find_atom("CA", "*") is not None
        assert 0 < posterior <= 1
        same += gemmi.find_tabulated_residue(residue.name).one_letter_code.upper() == trypsin[query]
    assert same / len(pairs) == pytest.approx(hit["identity"], abs=1e-4)
    # The catalytic triad is where both proteins have it: His57, Asp102, Ser195 of chymotrypsin.
    template_of = {query: template for query, template, _ in pairs}
    for motif, offset in (("AAHC", 2), ("NDIML", 1), ("GDSGG", 2)):
        index = trypsin.index(motif) + offset
        assert UROKINASE[template_of[index]] == trypsin[index]


def test_files_are_the_entries_as_the_library_has_them(tmp_path: Path) -> None:
    search(target("trypsin"), tmp_path)
    files = files_of(tmp_path / "out" / "chain")
    assert set(files) == {"hits.json", "4zhl.cif.gz"}
    assert gzip.decompress(files["4zhl.cif.gz"]) == gzip.decompress((MINI / "templates" / "4zhl.cif.gz").read_bytes())
    assert files["4zhl.cif.gz"][4:8] == b"\0\0\0\0"


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name, threads in (("a", 1), ("b", 3)):
        (tmp_path / name).mkdir()
        search(target("tcr_vbeta"), tmp_path / name, threads=threads)
    assert files_of(tmp_path / "a/out/chain") == files_of(tmp_path / "b/out/chain")


def test_a_chain_without_relatives_has_no_hits(tmp_path: Path) -> None:
    found = search(target("ubiquitin"), tmp_path)
    assert found["hits"] == []
    assert found["rejected_total"] == len(found["rejected"]) > 0
    assert all("E-value" in reason for reason in reasons(found).values())


def test_excluded_entries_are_not_used(tmp_path: Path) -> None:
    found = search(UROKINASE, tmp_path, exclude=["4ZHL"])
    assert "4zhl_U" not in names(found)
    assert reasons(found)["4zhl_U"] == "excluded"


def test_the_template_date_is_a_cut_off(tmp_path: Path) -> None:
    trypsin = target("trypsin")
    assert names(search(trypsin, tmp_path, max_template_date=date(2015, 9, 16))) == ["4zhl_U"]
    found = search(trypsin, tmp_path, max_template_date=date(2015, 9, 15))
    assert names(found) == []
    assert reasons(found)["4zhl_U"] == "released on 2015-09-16, after 2015-09-15"


def test_an_entry_without_a_date_is_used_only_without_a_cut_off(
    tmp_path: Path, make_library: Callable[..., Path]
) -> None:
    library = make_library({"4zhl_U": UROKINASE}, change=("2015-09-16", "?"))
    deposited = Library(library).summary("4zhl").released
    trypsin = target("trypsin")
    assert search(trypsin, tmp_path, library)["hits"][0]["release_date"] == (deposited and deposited.isoformat())
    for path in (library / "mmcif").rglob("4zhl.cif"):
        path.write_text(path.read_text().replace("recvd_initial_deposition_date", "not_a_date"))
    assert search(trypsin, tmp_path, library)["hits"][0]["release_date"] is None
    found = search(trypsin, tmp_path, library, max_template_date=date(2030, 1, 1))
    assert names(found) == []
    assert reasons(found)["4zhl_U"] == "has no release date, and max_template_date is set"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"min_coverage": 0.95}, "covers 88% of the chain, below 95%"),
        ({"min_identity": 0.6}, "identity 43%, below 60%"),
        ({"max_identity": 0.3}, "identity 43%, above 30%"),
        ({"max_evalue": 1e-100}, "above 1e-100"),
    ],
)
def test_limits_reject_with_their_reason(tmp_path: Path, limits: dict[str, Any], reason: str) -> None:
    found = search(target("trypsin"), tmp_path, **limits)
    assert names(found) == []
    assert reason in reasons(found)["4zhl_U"]


def test_identical_chains_of_an_entry_are_one_hit(tmp_path: Path) -> None:
    found = search(target("hiv_protease"), tmp_path)
    assert names(found) == ["1hvr_A"]
    assert found["hits"][0]["chains"] == ["A", "B"]


def test_equal_scores_are_ranked_by_resolution(tmp_path: Path, make_library: Callable[..., Path]) -> None:
    heavy = SEQRES["1bd2_A"]
    assert SEQRES["3pwp_A"] == heavy
    # In the list the worse one comes first.
    library = make_library({"3pwp_A": heavy, "1bd2_A": heavy})
    found = search(heavy, tmp_path, library)
    assert [(hit["entry"], hit["resolution"]) for hit in found["hits"]] == [("1bd2", 2.5), ("3pwp", 2.69)]
    assert names(search(heavy, tmp_path, library, max_hits=1)) == ["1bd2_A"]


def test_hits_are_ranked_by_score(tmp_path: Path) -> None:
    found = search(target("tcr_vbeta"), tmp_path)
    scores = [hit["score"] for hit in found["hits"]]
    assert len(scores) >= 4
    assert scores == sorted(scores, reverse=True)
    assert names(found)[0] == "1bd2_E"


def test_nucleic_acids_are_no_templates(tmp_path: Path, make_library: Callable[..., Path]) -> None:
    library = make_library({"4zhl_U": UROKINASE}, description="mol:na")
    with pytest.raises(SnakefoldError, match="holds no protein sequences"):
        search(target("trypsin"), tmp_path, library)
    library = make_library({"1abc_A": "ACGU" * 20, "4zhl_U": UROKINASE}, description="")
    assert names(search(target("trypsin"), tmp_path, library)) == ["4zhl_U"]


def test_a_list_that_differs_from_the_coordinates_is_aligned(tmp_path: Path, make_library: Callable[..., Path]) -> None:
    trypsin = target("trypsin")
    expected = search(trypsin, tmp_path)["hits"][0]["pairs"]
    library = make_library({"4zhl_U": "MGSSHHHHHHSSG" + UROKINASE})
    shifted = search(trypsin, tmp_path, library)["hits"][0]["pairs"]
    assert [pair[:2] for pair in shifted] == [pair[:2] for pair in expected]


def test_a_list_of_another_protein_is_rejected(tmp_path: Path, make_library: Callable[..., Path]) -> None:
    trypsin = target("trypsin")
    library = make_library({"3enl_A": UROKINASE, "4zhl_Z": UROKINASE, "9xyz_A": UROKINASE, "4zhl_U": UROKINASE})
    found = search(trypsin, tmp_path, library)
    assert names(found) == ["4zhl_U"]
    assert reasons(found) == {
        "3enl_A": "its coordinates have another sequence than the library's list",
        "9xyz_A": "the library has no mmCIF file of it",
    }
    # Chain Z is not in the entry; chain U, which aligns in the same way, stands for both.
    assert found["hits"][0]["chains"] == ["U", "Z"]


def test_a_damaged_entry_is_passed_over(tmp_path: Path) -> None:
    library = tmp_path / "library"
    shutil.copytree(MINI / "templates", library)
    path = library / "4zhl.cif.gz"
    path.write_bytes(path.read_bytes()[:20_000])
    found = search(target("trypsin"), tmp_path, library)
    assert names(found) == []
    assert "cannot be read" in reasons(found)["4zhl_U"]


def test_domains_on_both_sides_of_an_insertion_are_joined(tmp_path: Path) -> None:
    insertion = random_protein(random.Random(4), 150)
    found = search(UROKINASE[:120] + insertion + UROKINASE[120:], tmp_path)
    (hit,) = [hit for hit in found["hits"] if hit["entry"] == "4zhl"]
    observed = Library(MINI / "templates").chain("4zhl", "U").observed
    assert len(hit["pairs"]) > 0.95 * len(observed)
    template_of = {query: template for query, template, _ in hit["pairs"]}
    assert template_of[50] == 50
    assert template_of[200 + 150] == 200
    assert hit["identity"] > 0.97


def test_swapped_domains_are_not_joined(tmp_path: Path) -> None:
    found = search(UROKINASE[120:] + random_protein(random.Random(4), 60) + UROKINASE[:120], tmp_path)
    (hit,) = [hit for hit in found["hits"] if hit["entry"] == "4zhl"]
    templates = [pair[1] for pair in hit["pairs"]]
    assert templates == sorted(templates)
    assert len(templates) < 150


def test_several_chains_share_a_pass_and_one_bad_msa_stops_none(tmp_path: Path) -> None:
    sequences = {"trypsin": target("trypsin"), "protease": target("hiv_protease"), "bad": "MKVLA" * 8}
    msas = {name: tmp_path / f"{name}.a3m" for name in sequences}
    for name, path in msas.items():
        path.write_text(f">query\n{sequences[name] if name != 'bad' else 'MKV'}\n")
    results = Results()
    search_templates(
        msas,
        sequences,
        MINI / "templates",
        scratch=tmp_path / "out",
        on_result=results.on_result,
        on_failure=results.on_failure,
    )
    assert list(results.outcomes) == ["trypsin", "protease"]
    best = results.outcomes["trypsin"].facts["best"]
    assert (best["entry"], best["chain"]) == ("4zhl", "U")
    failure = results.failures["bad"]
    assert isinstance(failure, MemberError)
    assert failure.kind == "bad_msa"


def test_a_folder_without_a_list_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(SnakefoldError, match="no template library") as caught:
        search(target("ubiquitin"), tmp_path, tmp_path)
    assert "\n" not in str(caught.value)


def test_dates_come_from_the_first_revision(tmp_path: Path) -> None:
    (tmp_path / "seqres.fasta").write_text(">1abc_A\nMKV\n")
    entries = {
        "1aaa": "loop_\n_pdbx_audit_revision_history.ordinal\n_pdbx_audit_revision_history.revision_date\n"
        "2 2011-07-13\n1 1994-01-31\n_pdbx_database_status.recvd_initial_deposition_date 1991-09-17\n",
        "1bbb": "loop_\n_database_PDB_rev.num\n_database_PDB_rev.date\n1 2015-09-16\n2 2015-10-14\n",
        "1ccc": "_pdbx_database_status.recvd_initial_deposition_date 1991-09-17\n",
        "1ddd": "_pdbx_database_status.recvd_initial_deposition_date ?\n",
    }
    atoms = "loop_\n_atom_site.id\n_atom_site.type_symbol\n1 C\n"
    late = "_pdbx_audit_revision_history.ordinal 1\n_pdbx_audit_revision_history.revision_date 2001-02-03\n"
    for name, text in entries.items():
        (tmp_path / f"{name}.cif").write_text(f"data_{name}\n{text}{atoms}")
    (tmp_path / "1eee.cif").write_text(f"data_1eee\n{entries['1ccc']}{atoms}{late}")
    library = Library(tmp_path)
    dates = {name: library.summary(name).released for name in (*entries, "1eee")}
    assert dates == {
        "1aaa": date(1994, 1, 31),
        "1bbb": date(2015, 9, 16),
        "1ccc": date(1991, 9, 17),
        "1ddd": None,
        "1eee": date(2001, 2, 3),
    }


def test_place_maps_equal_shifted_and_gapped_sequences() -> None:
    letters = random_protein(random.Random(9), 60)
    listed = list(enumerate(letters))
    assert place(listed[10:40], letters) == {i: i for i in range(10, 40)}
    assert place(listed[10:40], "GSHM" + letters) == {i: i + 4 for i in range(10, 40)}
    without = place(listed, letters[:20] + letters[25:])
    assert without[19] == 19
    assert without[25] == 20
    with pytest.raises(UnusableEntryError):
        place(listed, random_protein(random.Random(10), 60))
