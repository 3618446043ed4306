"""Clones of this working tree, and Snakemake run in them as a user would."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


# Who starts the tests in the background of a shell may have them ignore Ctrl-C, and every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Clone:
    """A copy of the files that git knows or would add, and nothing else of the working tree."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of what is run here."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake here, as the leader of a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env={**environment(), **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str) -> list[str]:
        """The command line of a run with two cores."""
        return [str(Path(sys.executable).with_name("snakemake")), "--cores", "2", "--rerun-incomplete", *arguments]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run Snakemake here to its end; returns what it printed. Fails if the exit code is another."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == code, output
        return output

    def snakefold(self, *arguments: str, code: int = 0) -> str:
        """Run one of our commands here."""
        command = [sys.executable, "-m", "snakefold", *arguments]
        variables = {**environment(), **self.variables}
        result = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=300)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr


def environment() -> dict[str, str]:
    """The environment of a user who has not activated the virtual environment."""
    return {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}


def clone_into(folder: Path) -> Clone:
    """Copy the project into a folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() or source.is_symlink():
            destination = folder / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, destination, follow_symlinks=False)
    return Clone(folder)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A fresh clone for one test."""
    return clone_into(tmp_path / "clone")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the shipped example has run. Tests read it; those that change it copy it first."""
    clone = clone_into(tmp_path_factory.mktemp("finished") / "clone")
    clone.run()
    return clone


@pytest.fixture
def copy_of_finished(finished: Clone, tmp_path: Path) -> Clone:
    """A copy of the finished clone, free to be changed."""
    # Times are kept: Snakemake looks at them.
    return Clone(Path(shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)))


@pytest.fixture
def write_sheet(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sample sheet from rows of dicts, outside any clone."""

    def write(*rows: dict[str, str], name: str = "sheet.tsv") -> Path:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = ["\t".join(columns), *("\t".join(row.get(key, "") for key in columns) for row in rows)]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
