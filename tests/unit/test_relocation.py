"""Sheets reach a machine that has only the packed sources."""

import os
from pathlib import Path

import pytest

from snakefold.errors import SnakefoldError
from snakefold.sheet import Travelling, files_of_sheets, read_targets, relocated
from snakefold.sheet.relocation import MAX_BYTES, place_of

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sheet and its FASTA file, outside the working directory."""
    work, folder = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    (folder / "fasta").mkdir(parents=True)
    (folder / "sheet.tsv").write_text(f"id\tsequence\tfasta\nx\t{SEQUENCE}\t\ny\t\tfasta/y.fa\n")
    (folder / "fasta/y.fa").write_text(f">y\n{SEQUENCE[::-1]}\n")
    monkeypatch.chdir(work)
    return folder


def read(sheet: Path) -> list[str]:
    targets = read_targets([sheet], engines=["template"], seed=0, check_files=False)
    return [target.chains[0].sequence for target in targets]


def test_a_sheet_and_its_fasta_files_are_read_where_only_their_copies_are(elsewhere: Path) -> None:
    sheet = elsewhere / "sheet.tsv"
    expected = read(sheet)
    files = files_of_sheets([sheet])
    assert files == [sheet, elsewhere / "fasta/y.fa"]
    for file in files:
        place = os.path.relpath(Travelling(file))
        assert not place.startswith("..")
        file.unlink()
    assert read(sheet) == expected


def test_nothing_is_written_before_somebody_asks_for_the_path(elsewhere: Path) -> None:
    travelling = Travelling(elsewhere / "sheet.tsv")
    assert not Path(".snakefold").exists()
    os.fspath(travelling)
    assert place_of(elsewhere / "sheet.tsv").is_file()


def test_the_file_itself_is_read_where_there_is_one_and_never_an_old_copy(elsewhere: Path) -> None:
    sheet = elsewhere / "sheet.tsv"
    os.fspath(Travelling(sheet))
    assert relocated(sheet) == sheet
    sheet.write_text(f"id\tsequence\nz\t{SEQUENCE}\n")
    assert read(sheet) == [SEQUENCE]
    os.fspath(Travelling(sheet))
    sheet.unlink()
    assert read(sheet) == [SEQUENCE]


def test_a_copy_travels_on_from_a_machine_that_got_nothing_else(elsewhere: Path) -> None:
    sheet = elsewhere / "sheet.tsv"
    place = os.fspath(Travelling(sheet))
    sheet.unlink()
    assert os.fspath(Travelling(sheet)) == place


def test_a_sheet_that_snakemake_would_leave_out_is_refused(elsewhere: Path) -> None:
    sheet = elsewhere / "sheet.tsv"
    sheet.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SnakefoldError, match="over 10 MB"):
        os.fspath(Travelling(sheet))
