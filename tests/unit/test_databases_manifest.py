from pathlib import Path

import pytest

from snakefold.databases.manifest import FileRecord, Manifest, SourceRecord, read_manifest, verify, write_manifest
from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_file


def database(folder: Path, url: str = "https://example.org/a") -> Manifest:
    place = folder / "db"
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "a.fasta").write_text(">a\nMKV\n")
    record = FileRecord(size=7, sha256=sha256_of_file(place / "sub" / "a.fasta"))
    source = SourceRecord(url=url, size=7, sha256=record.sha256, unpack="none")
    manifest = Manifest(
        name="db",
        version="1",
        kind="sequences",
        licence="CC0",
        sources={"sub/a.fasta": source},
        files={"sub/a.fasta": record},
    )
    write_manifest(manifest, place)
    return manifest


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path):
    manifest = database(tmp_path)
    assert read_manifest(tmp_path / "db" / "manifest.json") == manifest


def test_the_digest_depends_on_content_and_not_on_the_mirror(tmp_path: Path):
    one, two = database(tmp_path / "1"), database(tmp_path / "2", url="https://mirror.example.org/a")
    assert one.digest == two.digest
    assert one.model_copy(update={"version": "2"}).digest != one.digest
    changed = {"sub/a.fasta": FileRecord(size=7, sha256="0" * 64)}
    assert Manifest(**{**one.model_dump(), "files": changed}).digest != one.digest


def test_a_missing_damaged_or_edited_manifest_is_refused(tmp_path: Path):
    path = tmp_path / "db" / "manifest.json"
    with pytest.raises(SnakefoldError, match="no such manifest"):
        read_manifest(path)
    database(tmp_path)
    text = path.read_text()
    path.write_text(text.replace('"size": 7', '"size": 8'))
    with pytest.raises(SnakefoldError, match="does not match its digest"):
        read_manifest(path)
    for damaged in (text[:40], "[]", "{}", text.replace('"kind"', '"sort"')):
        path.write_text(damaged)
        with pytest.raises(SnakefoldError, match="not a manifest"):
            read_manifest(path)


def test_verify_finds_missing_changed_and_additional_files(tmp_path: Path):
    database(tmp_path)
    path = tmp_path / "db" / "sub" / "a.fasta"
    assert verify(tmp_path) == []
    (tmp_path / "db" / "sub" / "b.fasta").write_text("")
    assert verify(tmp_path) == [f"{tmp_path}/db/sub/b.fasta: not in the manifest"]
    (tmp_path / "db" / "sub" / "b.fasta").unlink()
    path.write_text(">a\nMKL\n")
    assert verify(tmp_path) == [f"{path}: content has changed"]
    path.write_text(">a\n")
    assert verify(tmp_path) == [f"{path}: has 3 bytes instead of 7"]
    path.unlink()
    assert verify(tmp_path) == [f"{path}: missing"]


def test_verify_says_if_there_are_no_databases(tmp_path: Path):
    with pytest.raises(SnakefoldError, match="there are no databases"):
        verify(tmp_path / "none")
