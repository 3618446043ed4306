"""Rows of MSAs are read, find those of other chains by species, and reach the engines as they want them."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import snakefold.engines.drivers
from snakefold.engines.drivers.msa_rows import UNPAIRED, Row, a3m_text, pair_by_species, read_a3m, species_of_rows


def msa(*names: str) -> list[Row]:
    """A row for each species, its letters a word for it; `-` has no species."""
    return [
        ("query", "QUERY"),
        *(
            (f"sp|P0000{n}|PROT_{name}" if name != "-" else f"UniRef90_{n}", f"{n}{name}")
            for n, name in enumerate(names)
        ),
    ]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("tr|A0A146SKV9|A0A146SKV9_FUNHE", "FUNHE"),
        ("sp|P69905|HBA_HUMAN", "HUMAN"),
        ("sp|P69905_1|HBA_HUMAN", "HUMAN"),
        ("tr|A0A146SKV9|A0A146SKV9_9BACT_12", "9BACT"),
        ("sp|P69905-2|HBA_HUMAN Isoform 2 of Hemoglobin", "HUMAN"),
        ("tr|A0A146SKV9|A0A146SKV9_FUNHE/26-204 unreviewed", "FUNHE"),
        ("sp|P69905|HBA_HUMAN/2-99 Hemoglobin OS=Homo sapiens OX=9606 GN=HBA1 PE=1 SV=2", "9606"),
        ("UniRef100_P69905/2-99 Hemoglobin n=7 Tax=Hominidae TaxID=9604 RepID=HBA_HUMAN", "HUMAN"),
        ("UniRef90_A0A5A9P0L4 Fragment n=1 Tax=Triplophysa tibetana TaxID=1572043 RepID=A0A5A9P0L4_9TELE", "1572043"),
        ("UniRef90_A0A5A9P0L4 Fragment n=12 Tax=Triplophysa TaxID=992332 RepID=A0A5A9P0L4_9TELE", "9TELE"),
        ("UniRef90_UPI00 Fragment n=12 Tax=Triplophysa TaxID=992332 RepID=UPI00", None),
        ("tr|Q1|Q1_9BACT x OS=uncultured bacterium OX=77133", "9BACT"),
        ("UniRef90_A0A146SKV9 Fragment n=2 Tax=Bacteria TaxID=2 RepID=X", None),
        ("UniRef90_A0A146SKV9", None),
        ("MGYP000123_HUMAN", None),
        ("MYG_HORSE hmmer/globins45", None),
        ("xyz BOX=3 NoTaxID=4", None),
        ("1hvr_A", None),
        ("query", None),
    ],
)
def test_the_species_is_read_from_headers_of_uniprot_and_uniref(header: str, expected: str | None) -> None:
    assert species_of_rows([[(header, "")]]) == [[expected]]


def test_rows_are_read_whatever_the_lines_and_written_with_one_each(tmp_path: Path) -> None:
    path = tmp_path / "msa.a3m"
    path.write_bytes(b"#5\t1\r\n>query\nMKT\r\nAY\n\n>sp|P69905|HBA_HUMAN/26-204 a >b\xe2\x80\xa8c\n#note\nMkKT-Y")
    rows = read_a3m(path)
    assert rows == [("query", "MKTAY"), ("sp|P69905|HBA_HUMAN/26-204 a >b\u2028c", "MkKT-Y")]
    assert a3m_text(rows) == ">query\nMKTAY\n>sp|P69905|HBA_HUMAN/26-204 a >b\u2028c\nMkKT-Y\n"
    (tmp_path / "again.a3m").write_text(a3m_text(rows))
    assert read_a3m(tmp_path / "again.a3m") == rows


def test_rows_of_uniref_and_uniprot_are_of_one_species() -> None:
    first = [("query", "QUERY"), ("UniRef90_A n=3 Tax=Hominidae TaxID=9604 RepID=A_HUMAN", "FIRST")]
    second = [("query", "QUERY"), ("sp|P1|A_HUMAN OS=Homo sapiens OX=9606 PE=1", "OTHER"), ("sp|P2|B_HUMAN", "THIRD")]
    assert pair_by_species([first, second], 9)[1] == [(UNPAIRED, "QUERY"), (0, "OTHER"), (UNPAIRED, "THIRD")]


def test_the_number_of_a_cluster_counts_if_some_row_has_it_for_its_own() -> None:
    first = [("UniRef90_A n=9 TaxID=562 RepID=UPI1", ""), ("UniRef90_B n=4 TaxID=40674 RepID=UPI2", "")]
    second = [("UniRef90_C n=1 TaxID=562 RepID=UPI3", ""), ("UniRef90_D n=2 TaxID=40674 RepID=UPI4", "")]
    assert species_of_rows([first, second]) == [["562", None], ["562", None]]


def test_a_code_without_a_number_has_that_of_rows_with_both() -> None:
    first = [("sp|P1|A_HUMAN x OX=9606", ""), ("tr|Q1|Q1_9BACT x OX=1913989", ""), ("tr|Q2|Q2_MOUSE", "")]
    second = [("tr|Q3|Q3_HUMAN_12", ""), ("tr|Q4|Q4_9BACT", ""), ("tr|Q5|Q5_MOUSE", ""), ("query", "")]
    assert species_of_rows([first, second]) == [["9606", "1913989", "MOUSE"], ["9606", "9BACT", "MOUSE", None]]


def test_the_best_rows_of_a_species_that_is_in_several_msas_get_a_key() -> None:
    first, second = pair_by_species([msa("YEAST", "-", "HUMAN", "HUMAN"), msa("HUMAN", "-", "MOUSE", "HUMAN")], 100)
    assert first == [
        (UNPAIRED, "QUERY"),
        (0, "2HUMAN"),
        (UNPAIRED, "0YEAST"),
        (UNPAIRED, "1-"),
        (UNPAIRED, "3HUMAN"),
    ]
    assert [(key, row) for key, row in second if key != UNPAIRED] == [(0, "0HUMAN")]
    assert [row for _, row in second] == ["QUERY", "0HUMAN", "1-", "2MOUSE", "3HUMAN"]


def test_species_of_more_msas_and_of_higher_rows_come_first_and_cutting_parts_no_pair() -> None:
    msas = [msa("RAT", "MOUSE", "HUMAN", "YEAST"), msa("MOUSE", "RAT", "HUMAN"), msa("HUMAN", "YEAST")]
    first, second, third = pair_by_species(msas, 100)
    assert [(key, row[1:]) for key, row in first[1:]] == [(0, "HUMAN"), (1, "MOUSE"), (2, "RAT"), (3, "YEAST")]
    assert [(key, row[1:]) for key, row in second[1:]] == [(0, "HUMAN"), (1, "MOUSE"), (2, "RAT")]
    assert [(key, row[1:]) for key, row in third[1:]] == [(0, "HUMAN"), (3, "YEAST")]
    for cut in pair_by_species(msas, 3):
        assert {key for key, _ in cut[1:3] if key != UNPAIRED} <= {0, 1}
        assert all(key == UNPAIRED for key, _ in cut[3:])


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A driver by its name: they need nothing of their engines before they load."""
    monkeypatch.syspath_prepend(str(next(iter(snakefold.engines.drivers.__path__))))
    return lambda name: importlib.import_module(f"snakefold.engines.drivers.{name}")


class TestFilesForOpenFold:
    def chains(self, folder: Path, *msas: list[Row] | None) -> list[dict[str, Any]]:
        """Chains of one sequence; those of one MSA read one file, as those of one search do."""
        chains = []
        for rows in msas:
            path = folder / f"{msas.index(rows)}.a3m"
            path.write_text(a3m_text(rows or []))
            chains.append({"sequence": "QUERY", "msa": str(path) if rows else None})
        return chains

    def test_rows_with_a_species_stand_apart_where_msas_differ(
        self, driver: Callable[[str], Any], tmp_path: Path
    ) -> None:
        first, second = msa("YEAST", "-"), [*msa("-"), ("UniRef90_X n=1 TaxID=9606", "HUMAN")]
        task = {"chains": self.chains(tmp_path, first, second, first, None)}
        found = [Path(chain["main_msa_file_paths"][0]) for chain in driver("openfold")._chains(task, tmp_path / "work")]
        assert found[0] == found[2] and len(set(found)) == 3
        assert read_a3m(found[1] / "msa.a3m") == second
        assert read_a3m(found[3] / "msa.a3m") == [("query", "QUERY")]
        assert read_a3m(found[0] / "uniprot_hits.a3m") == [("query", "QUERY"), ("|||YEAST||", "0YEAST")]
        assert read_a3m(found[1] / "uniprot_hits.a3m") == [("query", "QUERY"), ("|||9606||", "HUMAN")]

    def test_copies_of_one_msa_have_nothing_to_pair(self, driver: Callable[[str], Any], tmp_path: Path) -> None:
        task = {"chains": self.chains(tmp_path, msa("YEAST"), msa("YEAST"))}
        first, second = driver("openfold")._chains(task, tmp_path / "work")
        assert first["main_msa_file_paths"] == second["main_msa_file_paths"]
        assert not list((tmp_path / "work").rglob("uniprot_hits.a3m"))


def test_alphafold_gets_every_species_as_a_name_that_it_reads(driver: Callable[[str], Any]) -> None:
    first = [("query", "QUERY"), ("UniRef90_X n=1 TaxID=1572043 RepID=Y", "QuERY"), ("MGYP1 x", "-UERY")]
    second = [("query", "AY"), ("sp|P1|A_HUMAN/1-2 x OX=9606", "A-"), ("sp|P2|A_MOUSE", "-Y")]
    assert driver("alphafold2").named_by_species([first, second]) == [
        ">query\nQUERY\n>tr|AAAAAA|A_dllnf\nQuERY\n>MGYP1 x\n-UERY\n",
        ">query\nAY\n>tr|AAAAAA|A_ofm\nA-\n>tr|AAAAAA|A_MOUSE\n-Y\n",
    ]


def test_rosettafold_reads_no_insertion_after_the_last_residue_and_pairs_by_either_species(
    driver: Callable[[str], Any], tmp_path: Path
) -> None:
    rosettafold = driver("rosettafold")
    (tmp_path / "a.a3m").write_text(">q\nMKT\n>sp|P1|A_HUMAN OX=9606\nMkKTgg\n>sp|P2|B_YEAST\nMK-\n")
    (tmp_path / "b.a3m").write_text(">q\nAY\n>UniRef90_X n=1 TaxID=9606 RepID=Y\nA-\n>x\nAA\n")
    chains = [
        {"sequence": sequence, "msa": str(tmp_path / name)} for sequence, name in (("MKT", "a.a3m"), ("AY", "b.a3m"))
    ]
    msas = [rosettafold._rows(chain) for chain in chains]
    assert msas[0][1] == ("sp|P1|A_HUMAN OX=9606", "MkKT")
    assert rosettafold._paired(msas) == [">query\nMKT/AY\n>9606\nMkKT/A-\n>YEAST\nMK-/--\n"]
    assert rosettafold._rows({"sequence": "MKT", "msa": None}) == [("query", "MKT")]


class TestFilesForBoltz:
    @pytest.fixture
    def write(self, driver: Callable[[str], Any]) -> Callable[[Mapping[int, str | None], Path, int], dict[int, str]]:
        return driver("boltz")._msas

    def a3m(self, path: Path, rows: list[Row]) -> str:
        path.write_text("".join(f">{name}/1-5 of some database\n{letters}\n" for name, letters in rows))
        return str(path)

    def test_different_chains_get_keys(self, write: Callable[..., dict[int, str]], tmp_path: Path) -> None:
        given = {
            0: self.a3m(tmp_path / "a", msa("YEAST", "HUMAN")),
            2: self.a3m(tmp_path / "b", msa("HUMAN")),
            3: None,
        }
        found = write(given, tmp_path, 100)
        assert found == {0: str(tmp_path / "0.csv"), 2: str(tmp_path / "2.csv")}
        assert Path(found[0]).read_text() == "key,sequence\n-1,QUERY\n0,1HUMAN\n-1,0YEAST\n"
        assert Path(found[2]).read_text() == "key,sequence\n-1,QUERY\n0,0HUMAN\n"

    def test_what_cannot_be_paired_stays_as_it_is(self, write: Callable[..., dict[int, str]], tmp_path: Path) -> None:
        alone = {1: self.a3m(tmp_path / "a", msa("YEAST", "HUMAN"))}
        strangers = {0: alone[1], 1: self.a3m(tmp_path / "b", msa("MOUSE", "-"))}
        for given in (alone, {**alone, 2: None}, strangers):
            found = write(given, tmp_path, 100)
            for index, path in found.items():
                assert path == str(tmp_path / f"{index}.a3m")
                assert Path(path).read_bytes() == Path(given[index]).read_bytes()
