"""Wheels of engines' sources, as far as it needs no real one."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from containers import source
from containers.images import ContainerError
from containers.source import Source, digest, make_wheel, read_sources
from snakefold.engines import ENGINES
from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    contents = {"net/model.py": "ANSWER = 42\n", "net/deep/part.py": "", "lib/graphs/__init__.py": "", "LICENSE": "MIT"}
    for name, content in {**contents, "net/weights.bin": "not taken", "setup.py": "raise SystemExit(1)"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def entry(given: Path) -> Source:
    folders = {"net": "engine/net", "lib/graphs": "graphs"}
    modules = {(root, str(path.relative_to(given / root))): path.read_bytes() for root in folders
               for path in (given / root).rglob("*.py")}  # fmt: skip
    return Source(
        distribution="engine",
        repository="someone/engine",
        commit=COMMIT,
        digest=digest(modules),
        folders=folders,
        path=("engine/net",),
        licences=("LICENSE",),
    )


def test_a_wheel_holds_the_modules_and_says_which_commit_they_are_of(given: Path, tmp_path: Path) -> None:
    wheel = make_wheel(entry(given), given, tmp_path)
    assert wheel.name == "engine-0+g0123456789ab-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert {"engine/net/model.py", "engine/net/deep/part.py", "graphs/__init__.py"} < set(archive.namelist())
        assert not any(name.endswith((".bin", "setup.py")) for name in archive.namelist())
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True)
    program = (
        "import json, site, sys\nsite.addsitedir(sys.argv[1])\nimport graphs, model\n"
        "from importlib.metadata import distribution as found\n"
        "print(json.dumps([model.ANSWER, found('engine').version, found('engine').metadata['Summary']]))"
    )
    asked = subprocess.run([sys.executable, "-c", program, str(site)], check=True, capture_output=True, text=True)
    assert json.loads(asked.stdout) == [42, "0+g0123456789ab", f"someone/engine at commit {COMMIT}"]


def test_an_archive_gives_the_same_bytes_as_its_folder(given: Path, tmp_path: Path) -> None:
    first = make_wheel(entry(given), given, tmp_path / "first")
    with tarfile.open(tmp_path / "engine.tar.gz", "w:gz") as tar:
        tar.add(given, f"engine-{COMMIT}")
    second = make_wheel(entry(given), tmp_path / "engine.tar.gz", tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("change", ["changed", "added", "lost", "nothing there"])
def test_another_source_is_refused(change: str, given: Path, tmp_path: Path) -> None:
    meant = entry(given)
    if change == "changed":
        (given / "net/model.py").write_text("ANSWER = 43\n")
    elif change == "added":
        (given / "net/more.py").touch()
    elif change == "lost":
        (given / "net/deep/part.py").unlink()
    else:
        shutil.rmtree(given)
        given.mkdir()
    with pytest.raises(ContainerError, match=r"is not someone/engine at 0123456789ab: .* check out that commit"):
        make_wheel(meant, given, tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()


def test_what_is_no_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn.tar").write_bytes(b"nothing")
    for path in (tmp_path / "torn.tar", tmp_path / "nowhere"):
        assert source.main(["omegafold", str(path), "--to", str(tmp_path)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "cannot be read as a folder or a tar archive" in lines[0]


def test_what_is_listed_is_what_the_engines_look_for() -> None:
    for name, listed in read_sources().items():
        assert listed.distribution in ENGINES[name].packages
        pinned = (ROOT / "envs/engines" / f"{name}.txt").read_text()
        assert listed.commit in pinned and listed.repository in pinned
