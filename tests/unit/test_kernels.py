"""Where compiled kernels go: to the machine's folder if it has one, each kind apart."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snakefold.kernels import JAX_VARIABLE, share_kernels, share_networks
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


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that what the test's subject sets goes with the test.
    monkeypatch.setenv(JAX_VARIABLE, "")


@pytest.mark.usefixtures("no_networks")
def test_networks_that_jax_compiled_outlive_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEFOLD_DATABASE_CACHE", str(tmp_path / "machine"))
    share_networks()
    folder = Path(os.environ[JAX_VARIABLE])
    assert folder == tmp_path / "machine/.kernels/jax"
    assert folder.is_dir()


@pytest.mark.usefixtures("no_networks")
def test_networks_stay_with_the_job_where_the_machine_has_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNAKEFOLD_DATABASE_CACHE", raising=False)
    share_networks()
    (tmp_path / "file").touch()
    monkeypatch.setenv("SNAKEFOLD_DATABASE_CACHE", str(tmp_path / "file"))
    share_networks()
    assert os.environ[JAX_VARIABLE] == ""


def test_a_folder_for_networks_that_the_user_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEFOLD_DATABASE_CACHE", str(tmp_path))
    monkeypatch.setenv(JAX_VARIABLE, "/elsewhere")
    share_networks()
    assert os.environ[JAX_VARIABLE] == "/elsewhere"
