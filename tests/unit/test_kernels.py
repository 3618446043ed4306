"""Where compiled kernels go: to the machine's folder if it has one, each kind apart."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snakefold.kernels import share_kernels
from tests.conftest import ROOT

PRINT = "import os; from snakefold.kernels import share_kernels; share_kernels(); print(os.environ['NUMBA_CACHE_DIR'])"


def folder_of(sources: Path, machine: Path) -> Path:
    """Where a snakefold of these sources keeps kernels."""
    variables = {**os.environ, "PYTHONPATH": str(sources), "SNAKEFOLD_DATABASE_CACHE": str(machine)}
    result = subprocess.run([sys.executable, "-c", PRINT], cwd=sources, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


def test_without_a_folder_of_the_machine_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNAKEFOLD_DATABASE_CACHE", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    share_kernels()
    assert os.environ["NUMBA_CACHE_DIR"] == "/elsewhere"


def test_equal_sources_share_a_folder_and_others_have_their_own(tmp_path: Path) -> None:
    ours, same, other = (tmp_path / name for name in ("ours", "same", "other"))
    for copy in (ours, same, other):
        shutil.copytree(ROOT / "snakefold", copy / "snakefold", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "snakefold/engines/template/loops.py").open("a") as source:
        source.write("# another\n")
    folder = folder_of(ours, tmp_path / "machine")
    assert folder.parent == tmp_path / "machine/.kernels"
    assert folder_of(same, tmp_path / "machine") == folder
    assert folder_of(other, tmp_path / "machine") != folder
