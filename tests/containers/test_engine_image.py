"""Images of engines: what is in them, and a run from the sheet to the report in one, without network or GPU.

`make test-images ENGINES="esmfold boltz"` tests these, which `make images` has built; runs are in those of `FOLDED`.
Weights are small and random: what comes out tests a code path, and is no structure.
"""

import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from containers.build import REPOSITORY
from containers.engine import Engine as Podman
from containers.engine import podman_environment
from containers.images import read_images
from containers.source import read_sources
from snakefold.engines import ENGINES
from snakefold.engines.driven import DrivenEngine
from tests.conftest import ROOT, clone_into
from tests.containers.podman import Worker, packed

pytestmark = pytest.mark.podman

IMAGES = read_images()
TESTED = os.environ.get("SNAKEFOLD_TEST_IMAGES", "esmfold").split()
FOLDED = ("esmfold", "rosettafold")

# In the container: the engine's Python makes weights, the worker's lets the registry of databases name them, and runs.
NAME_THEM = """
import pathlib, sys, yaml
registry = pathlib.Path("config/databases.yaml")
content = yaml.safe_load(registry.read_text())
weights = sorted(path for path in pathlib.Path("weights").absolute().rglob("*") if path.is_file())
files = [{"path": path.name, "urls": [path.as_uri()]} for path in weights]
content["databases"][sys.argv[1]]["files"] = files
registry.write_text(yaml.safe_dump(content))
"""
RUN_WORKFLOW = """
tar --extract --file -
mkdir weights
/opt/engine/bin/python tests/engines/tiny_$0.py weights >&2
python name_them.py $1 >&2
snakemake --cores 2 --quiet rules host reason progress --config samples=sheet.tsv engines=$0 >&2
tar --create --file - --dereference results
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    return Podman(name="podman", environment=podman_environment(tmp_path_factory.mktemp("podman")))


def image_of(engine: str, podman: Podman) -> Worker:
    image = f"{REPOSITORY}/{engine}:latest"
    if podman.image_id(image) is None:
        pytest.fail(f"{image} is not here; make images ARGS={engine} builds it")
    return Worker(podman=podman, image=image)


@pytest.fixture
def esmfold(podman: Podman) -> Worker:
    return image_of("esmfold", podman)


@pytest.mark.parametrize("engine", TESTED)
def test_health_check_asks_the_engines_python_too(engine: str, podman: Podman) -> None:
    image = image_of(engine, podman)
    check = json.loads(podman.run("image", "inspect", "--format", "{{json .HealthCheck}}", image.image))
    printed = image.output(*check["Test"][1:])
    assert printed.count("python 3.11") == 2
    assert re.search(r"^snakemake \d", printed, re.MULTILINE)
    for module in IMAGES[engine].arguments["MODULES"].split():
        assert re.search(rf"^{module} \d", printed, re.MULTILINE), module


def test_health_check_fails_when_the_engine_is_broken(esmfold: Worker, tmp_path: Path) -> None:
    (tmp_path / "modules").write_text("numpy no_such_module\n")
    tmp_path.chmod(0o755)
    options = ("--volume", f"{tmp_path}/modules:/opt/engine/modules:ro")
    result = esmfold.run("python", "/opt/worker/health.py", options=options)
    assert result.returncode == 1
    assert result.stderr.decode() == "no_such_module: ModuleNotFoundError: No module named 'no_such_module'\n"


def test_worker_and_engine_see_nothing_of_each_other(esmfold: Worker) -> None:
    assert b"No module named 'torch'" in esmfold.run("python", "-c", "import torch").stderr
    assert b"No module named 'snakemake'" in esmfold.run("/opt/engine/bin/python", "-c", "import snakemake").stderr


def test_jobs_cannot_change_the_engine_and_nothing_of_the_build_is_left(esmfold: Worker) -> None:
    assert esmfold.output("sh", "-c", "id -u; pwd").split() == ["1000", "/job"]
    assert b"Permission denied" in esmfold.run("touch", "/opt/engine/file").stderr
    assert esmfold.run("/opt/engine/bin/python", "-c", "import pip").returncode == 1
    assert esmfold.output("sh", "-c", "ls -d /wheels /tools /source /root/.cache 2>/dev/null || true") == ""
    history = esmfold.podman.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", esmfold.image)
    assert "://" not in history


@pytest.mark.parametrize("engine", [ENGINES[name] for name in FOLDED if name in TESTED], ids=lambda each: each.name)
def test_a_run_from_the_sheet_to_the_report(engine: DrivenEngine, podman: Podman, tmp_path: Path) -> None:
    clone = clone_into(tmp_path / "clone")
    (clone.folder / "name_them.py").write_text(NAME_THEM)
    rows = ("id\tsequence", "one\tMKTAYIAKQRQISFVKSHFSRQ", "pair\tMKTAYIAKQRQISFVK:GSHMRYFYTSA", "")
    (clone.folder / "sheet.tsv").write_text("\n".join(rows))
    command = ("sh", "-euc", RUN_WORKFLOW, engine.name, str(engine.weights))
    result = image_of(engine.name, podman).run(*command, options=("--memory=6g",), stdin=packed(clone.folder))
    assert result.returncode == 0, result.stderr.decode()[-4000:]
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    outcome = json.loads((tmp_path / "results/outcome.json").read_text())
    assert (len(outcome["done"]), outcome["skipped"], outcome["failed"]) == (2, [], [])
    lock = (ROOT / f"envs/engines/{engine.name}.lock").read_text()
    sources = {source.distribution: f"0+g{source.commit[:12]}" for source in read_sources().values()}
    for name in ("one", "pair"):
        software = json.loads((tmp_path / "results" / name / engine.name / "scores.json").read_text())["software"]
        for package in engine.packages:
            assert software[package] == sources.get(package) or f"\n{package}=={software[package]} " in lock
