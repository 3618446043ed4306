"""The archive of a launch holds all that a bare machine needs, and equal sources give equal bytes."""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from snakefold import workflow
from snakefold.away.controller import make_repository
from snakefold.away.pack import TRACKED, Archive, pack
from snakefold.errors import SnakefoldError
from snakefold.sheet import check_sheets
from snakefold.sheet.relocation import place_of
from tests.conftest import Clone, environment
from tests.dag.test_dag import job_counts

FLEET = Path("profiles/aws-batch/fleet.yaml")
SEQUENCE = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


@pytest.fixture
def repository(clone: Clone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clone:
    """A clone that git tracks, as the working directory; the fleet file lies outside."""
    git(clone.folder, "init", "--quiet")
    git(clone.folder, "add", "--all")
    monkeypatch.chdir(clone.folder)
    (tmp_path / "fleet.yaml").write_text("region: eu-west-1\n")
    return clone


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout


def packed(tmp_path: Path, name: str = "a", samples: str = "config/samples.tsv") -> Archive:
    config = workflow.config_of_this_job([f"samples={samples}"])
    targets, faults = check_sheets([Path(path) for path in config.samples], config)
    assert not faults
    folding = workflow.load(config, check_files=True, prefix="s3://bucket/runs/a")
    return pack(folding, targets, tmp_path / "fleet.yaml", tmp_path / f"{name}.tar.gz")


def unpacked(tmp_path: Path, name: str = "a") -> Path:
    """The archive on another machine, as the controller has it."""
    folder = tmp_path / f"unpacked_{name}"
    with tarfile.open(tmp_path / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    make_repository(folder)
    return folder


@pytest.fixture
def outside(write_sheet: Callable[..., Path], tmp_path: Path) -> Path:
    """A sheet that lies outside the repository, and so do the FASTA file, template, MSA and reference that it names."""
    root = Path(__file__).parents[2]
    shutil.copy(root / "data/mini/targets/ubiquitin.cif.gz", tmp_path / "mine.cif.gz")
    (tmp_path / "mine.fasta").write_text(f">u\n{SEQUENCE}\n")
    (tmp_path / "mine.a3m").write_text(f">u\n{SEQUENCE}\n")
    return write_sheet(
        {"id": "u", "fasta": "mine.fasta", "template": "mine.cif.gz", "reference": "mine.cif.gz", "msa": "mine.a3m"}
    )


def test_a_bare_machine_plans_the_same_jobs(repository: Clone, tmp_path: Path, outside: Path) -> None:
    packed(tmp_path, samples=str(outside))
    folder = unpacked(tmp_path)
    here = repository.run("-n", "--config", f"samples={outside}")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in (outside.name, "mine.fasta", "mine.cif.gz", "mine.a3m"):
        (tmp_path / name).rename(hidden / name)
    there = Clone(folder).run("-n", "--printshellcmds", "--config", f"samples={outside}")
    assert job_counts(here) == job_counts(there)
    assert job_counts(there)["take_inputs"] == 3


def test_git_tracks_there_what_it_tracks_here(repository: Clone, tmp_path: Path, outside: Path) -> None:
    (repository.folder / "untracked.txt").write_text("not sent")
    (repository.folder / "README.md").unlink()
    (repository.folder / "rules/fold.smk").write_text((repository.folder / "rules/fold.smk").read_text() + "# edited\n")
    (repository.folder / ".snakefold").mkdir()
    (repository.folder / ".snakefold/odd *name").write_text("tracked, though ignored")
    (repository.folder / "run.sh").write_text("#!/bin/sh\n")
    (repository.folder / "run.sh").chmod(0o755)
    (repository.folder / "link").symlink_to("rules")
    git(repository.folder, "add", "-f", ".snakefold/odd *name", "run.sh", "link")
    packed(tmp_path, samples=str(outside))
    folder = unpacked(tmp_path)
    here = {name for name in git(repository.folder, "ls-files").splitlines() if name != "README.md"}
    assert set(git(folder, "ls-files").splitlines()) == here
    assert (folder / "rules/fold.smk").read_text().endswith("# edited\n")
    assert os.access(folder / "run.sh", os.X_OK)
    assert (folder / "link").readlink() == Path("rules")
    assert not (folder / "untracked.txt").exists()
    assert (folder / FLEET).read_text() == "region: eu-west-1\n"
    for name in ("mine.fasta", "mine.cif.gz", "mine.a3m", outside.name):
        copy = place_of(tmp_path / name)
        assert (folder / copy).read_bytes() == (tmp_path / name).read_bytes()
        assert copy.as_posix() not in here


def test_equal_sources_give_equal_bytes_and_others_do_not(repository: Clone, tmp_path: Path) -> None:
    first = packed(tmp_path)
    for path in repository.folder.rglob("*.smk"):
        os.utime(path, (0, 0))
    assert packed(tmp_path, "b") == first
    assert hashlib.sha256((tmp_path / "a.tar.gz").read_bytes()).hexdigest() == first.sha256
    with (repository.folder / "Snakefile").open("a") as file:
        file.write("\n")
    assert packed(tmp_path, "c").sha256 != first.sha256
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, "", "")}
    # Of the shipped sheet the references, which have theirs; they are sent once.
    assert all(entry.name.startswith("data/mini/targets/") for entry in entries if entry.mtime)
    assert not any("trypsin" in entry.name and entry.name.startswith(".snakefold") for entry in entries)
    assert str(TRACKED) in {entry.name for entry in entries}


def test_files_that_jobs_read_keep_their_times(repository: Clone, tmp_path: Path, outside: Path) -> None:
    """Else a launched controller, which has no records of former runs, could not see that one has changed."""
    changed = 1_700_000_000.5
    os.utime(tmp_path / "mine.a3m", (changed, changed))
    tracked = Path("data/mini/targets/ubiquitin.cif.gz")
    os.utime(tracked, (changed, changed))
    sheet = tmp_path / "both.tsv"
    sheet.write_text(outside.read_text() + f"v\tmine.fasta\t{tracked.absolute()}\t\t\n")
    packed(tmp_path, samples=str(outside))
    packed(tmp_path, "b", samples=str(sheet))
    folder = unpacked(tmp_path)
    assert (folder / place_of(tmp_path / "mine.a3m")).stat().st_mtime == changed
    assert (folder / place_of(tmp_path / "mine.fasta")).stat().st_mtime == 0
    assert (unpacked(tmp_path, "b") / place_of(tracked.absolute())).stat().st_mtime == changed


def test_a_sheet_too_large_to_reach_workers_is_refused_at_once(
    repository: Clone, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakefold.sheet.relocation.MAX_BYTES", 1000)
    with outside.open("a") as sheet:
        sheet.write("#" * 1000 + "\n")
    with pytest.raises(SnakefoldError, match=r"too large to be sent to the workers; divide it"):
        packed(tmp_path, samples=str(outside))
    assert not (tmp_path / "a.tar.gz").exists()


def test_where_git_tracks_nothing_one_line_says_so(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(clone.folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "fleet.yaml").write_text("")
    with pytest.raises(SnakefoldError, match=r"git cannot say what to send \(fatal: not a git repository.*`git init"):
        packed(tmp_path)
    git(clone.folder, "init", "--quiet")
    with pytest.raises(SnakefoldError, match="git tracks no file here"):
        packed(tmp_path)


def test_the_command_line_names_all_commands(clone: Clone) -> None:
    output = clone.snakefold("--help")
    for command in ("launch", "status", "logs", "stop", "pull", "retry"):
        assert re.search(rf"^ +{command} ", output, re.MULTILINE)
    # Everything after `--` is for Snakemake, and without a fleet file one line says what to do.
    faults = clone.snakefold("launch", "--run", "x", "--config", "seed=1", "--", "--forceall", "-n", code=1)
    assert faults.startswith("snakefold: profiles/aws-batch/fleet.yaml: there is no fleet file")
    assert "AWS" not in environment()
