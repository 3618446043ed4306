from pathlib import Path

import pytest
import yaml

from snakefold.databases.registry import describe, in_units, load_registry
from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_file

SHIPPED = Path("config/databases.yaml")

FILE = {"path": "a.fasta", "urls": ["https://example.org/a.fasta"]}


def registry_with(
    tmp_path: Path, *, file: dict | None = None, database: dict | None = None, preset: dict | None = None
):
    entry = {
        "kind": "sequences",
        "version": "1",
        "licence": "CC0",
        "description": "x",
        "files": [{**FILE, **(file or {})}],
        **(database or {}),
    }
    templates = {**entry, "kind": "templates", "files": [FILE]}
    content = {
        "databases": {"one": entry, "pdb": templates},
        "presets": {"small": preset or {"msa": ["one"], "templates": "pdb"}},
    }
    path = tmp_path / "databases.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fault(path: Path) -> str:
    with pytest.raises(SnakefoldError) as caught:
        load_registry(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text


def test_shipped_registry_is_valid_and_has_the_four_presets():
    registry = load_registry(SHIPPED)
    assert set(registry.presets) == {"mini", "reduced", "full", "colabfold"}
    for database in registry.databases.values():
        assert all(url.startswith(("https:", "file:")) for file in database.files for url in file.urls)


def test_shipped_mini_files_are_those_of_the_registry():
    registry = load_registry(SHIPPED)
    preset = registry.preset("mini")
    files = [file for name in (*preset.msa, preset.templates) for file in registry.database(name).files]
    shipped = set(Path("data/mini").glob("sequences/*.gz")) | set(Path("data/mini").glob("templates/*.gz"))
    listed = {Path("config") / file.urls[0].removeprefix("file:") for file in files}
    assert {path.resolve() for path in listed} == {path.resolve() for path in shipped}
    for file in files:
        path = Path("config") / file.urls[0].removeprefix("file:")
        assert (path.stat().st_size, sha256_of_file(path)) == (file.size, file.sha256), path


def test_a_good_registry_is_read(tmp_path: Path):
    registry = load_registry(registry_with(tmp_path, file={"size": 7, "sha256": "a" * 64}))
    assert registry.database("one").name == "one"
    assert registry.database("one").download_size == 7
    assert "one" in describe(registry)
    with pytest.raises(SnakefoldError, match=r"no database 'two'; there are one, pdb"):
        registry.database("two")
    with pytest.raises(SnakefoldError, match=r"no preset 'large'; there are small"):
        registry.preset("large")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"sha512": "x"}, "databases.one.files.1.sha512: there is no such key"),
        ({"sha256": "abc"}, "databases.one.files.1.sha256"),
        ({"path": "../a"}, "leaves the database's folder"),
        ({"path": "/a"}, "leaves the database's folder"),
        ({"path": "manifest.json"}, "downloader's own"),
        ({"path": "."}, "path is empty"),
        ({"urls": []}, "databases.one.files.1.urls"),
        ({"urls": ["ftp://example.org/a"]}, "none of https, s3 and file"),
        ({"urls": ["http://example.org/a"]}, "use https or pin sha256"),
        ({"unpack": "rar"}, "databases.one.files.1.unpack"),
        ({"strip_components": 1}, "strip_components is for tar"),
    ],
)
def test_a_wrong_file_entry_is_named(tmp_path: Path, file: dict, words: str):
    assert words in fault(registry_with(tmp_path, file=file))


def test_two_files_of_one_path_are_refused(tmp_path: Path):
    assert "two downloads have the path 'a.fasta'" in fault(registry_with(tmp_path, database={"files": [FILE, FILE]}))


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ({"msa": ["two"], "templates": "pdb"}, "names database 'two', which there is not"),
        ({"msa": ["pdb"], "templates": "pdb"}, "has 'pdb' in `msa`, but it holds templates"),
        ({"msa": ["one"], "templates": "one"}, "has 'one' in `templates`, but it holds sequences"),
        ({"msa": ["one", "one"], "templates": "pdb"}, "names a database twice"),
    ],
)
def test_a_wrong_preset_is_named(tmp_path: Path, preset: dict, words: str):
    assert words in fault(registry_with(tmp_path, preset=preset))


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path):
    path = registry_with(tmp_path)
    path.write_text(path.read_text() + "presets: {}\n")
    assert "'presets' occurs twice" in fault(path)


def test_an_unreadable_registry_is_one_line(tmp_path: Path):
    assert "cannot be read" in fault(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("databases: [\n")
    fault(tmp_path / "bad.yaml")


def test_sizes_are_in_decimal_units():
    assert [in_units(size) for size in (0, 999, 1500, 71_900_000_000, 2.6e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "71.9 GB",
        "2.6 TB",
    ]
