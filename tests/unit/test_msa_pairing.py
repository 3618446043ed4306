"""Rows of different chains' MSAs find each other by species, and reach Boltz as it wants them."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import snakefold.engines.drivers
from snakefold.engines.drivers.msa_pairing import UNPAIRED, Row, pair_by_species, read_a3m, species


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
    ("name", "expected"),
    [
        ("tr|A0A146SKV9|A0A146SKV9_FUNHE", "FUNHE"),
        ("sp|P69905|HBA_HUMAN", "HUMAN"),
        ("sp|P69905_1|HBA_HUMAN", "HUMAN"),
        ("tr|A0A146SKV9|A0A146SKV9_9BACT_12", "9BACT"),
        ("UniRef90_A0A146SKV9", None),
        ("MGYP000123_HUMAN", None),
        ("1hvr_A", None),
        ("query", None),
    ],
)
def test_the_species_is_read_from_a_name_of_uniprot(name: str, expected: str | None) -> None:
    assert species(name) == expected


def test_names_come_without_the_residues_and_the_description(tmp_path: Path) -> None:
    path = tmp_path / "msa.a3m"
    path.write_text("#5\t1\n>query\nMKT\nAY\n\n>sp|P69905|HBA_HUMAN/26-204 swissprot\nMkKT-Y\n")
    assert read_a3m(path) == [("query", "MKTAY"), ("sp|P69905|HBA_HUMAN", "MkKT-Y")]


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


class TestFilesForBoltz:
    @pytest.fixture
    def write(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[int, str | None], Path, int], dict[int, str]]:
        """The driver needs nothing of Boltz before it loads."""
        monkeypatch.syspath_prepend(str(next(iter(snakefold.engines.drivers.__path__))))
        return importlib.import_module("snakefold.engines.drivers.boltz")._msas

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
