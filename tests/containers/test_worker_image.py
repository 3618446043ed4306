"""The worker image, built for real: what is in it, what is not, and the shipped workflow run in it, without network."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from packaging.markers import Marker

from tests.conftest import ROOT, Clone, clone_into
from tests.containers.podman import Worker, build_worker, packed
from tests.e2e import test_golden
from tests.e2e.golden import STEP_VERSIONS, collect

pytestmark = pytest.mark.podman

LIST_PACKAGES = (
    "import importlib.metadata as m, json, packaging.markers as p;"
    "print(json.dumps([{d.name.lower().replace('_', '-').replace('.', '-'): d.version for d in m.distributions()},"
    " p.default_environment()]))"
)
RUN_WORKFLOW = (
    "tar --extract --file - && snakemake --cores 2 --quiet rules host reason progress >&2"
    " && tar --create --file - --dereference results .snakefold"
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return build_worker(tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="module")
def finished_in_container(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """What the shipped example left in a container; the sources came and the results went through pipes."""
    clone = clone_into(tmp_path_factory.mktemp("container") / "clone")
    result = worker.run("sh", "-euc", RUN_WORKFLOW, options=("--memory=4g",), stdin=packed(clone.folder))
    assert result.returncode == 0, result.stderr.decode()[-4000:]
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
        archive.extractall(clone.folder, filter="data")
    return clone


def test_health_check_passes_and_names_the_versions(worker: Worker) -> None:
    check = json.loads(worker.podman.run("image", "inspect", "--format", "{{json .HealthCheck}}", worker.image))
    assert check["Test"][0] == "CMD"
    printed = worker.output(*check["Test"][1:])
    lock = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "envs/requirements.lock").read_text(), re.MULTILINE))
    for name in ("snakemake", "boto3", "openmm", "pyhmmer", "numba"):
        assert f"{name} {lock[name]}\n" in printed
    for plugin in ("snakemake_executor_plugin_aws_batch_fleet", "snakemake_storage_plugin_s3_inventory"):
        assert f"{plugin} ok\n" in printed


def test_health_check_fails_when_a_module_is_broken(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "openmm.py").write_text("raise OSError('libOpenMM.so: cannot open shared object file')\n")
    tmp_path.chmod(0o755)
    options = ("--volume", f"{tmp_path}:/broken:ro", "--env", "PYTHONPATH=/broken")
    result = worker.run("python", "/opt/worker/health.py", options=options)
    assert result.returncode == 1
    assert result.stderr.decode() == "openmm: OSError: libOpenMM.so: cannot open shared object file\n"


def test_packages_are_those_of_the_lock_and_no_others(worker: Worker) -> None:
    installed, environment = json.loads(worker.output("python", "-c", LIST_PACKAGES))
    pins = re.findall(
        r"^([a-z0-9-]+)==(\S+)(?: ; (.*?))? \\$", (ROOT / "envs/requirements.lock").read_text(), re.MULTILINE
    )
    wanted = {name: version for name, version, marker in pins if not marker or Marker(marker).evaluate(environment)}
    assert len(wanted) > 50
    assert installed == wanted


def test_snakemake_finds_the_plugins(worker: Worker) -> None:
    printed = worker.output("snakemake", "--help")
    assert "aws-batch-fleet" in printed
    assert "s3-inventory" in printed


def test_jobs_run_as_a_user_who_can_write_where_a_job_works_and_nowhere_else(worker: Worker) -> None:
    assert worker.output("sh", "-c", "id -u; pwd; echo $HOME").split() == ["1000", "/job", "/home/worker"]
    worker.output("sh", "-euc", "touch file ~/file /tmp/file && mkdir $NUMBA_CACHE_DIR")
    for place in ("/opt/worker/file", "/usr/bin/file", "/etc/file"):
        result = worker.run("touch", place)
        assert b"Permission denied" in result.stderr, place


@pytest.mark.parametrize("command", ["pip", "pip3", "gcc", "cc", "g++", "ld", "make", "activate"])
def test_no_build_tools_are_left(worker: Worker, command: str) -> None:
    assert worker.run("sh", "-c", f"command -v {command}").returncode != 0


def test_no_build_modules_are_left(worker: Worker) -> None:
    for module in ("pip", "setuptools"):
        assert b"No module named" in worker.run("python", "-c", f"import {module}").stderr


def test_nothing_of_the_building_machine_is_left(worker: Worker) -> None:
    gone = "/wheels /tools /build /root/.cache /home/worker/.cache /etc/pip.conf /var/lib/apt/lists/lock"
    assert worker.output("sh", "-c", f"ls -d {gone} 2>/dev/null || true") == ""
    history = worker.podman.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", worker.image)
    assert "pip install" in history
    variables = json.loads(worker.podman.run("image", "inspect", "--format", "{{json .Config.Env}}", worker.image))
    for text in (history, *variables):
        assert "://" not in text
        assert str(ROOT) not in text


def test_python_starts_from_compiled_code(worker: Worker) -> None:
    """Else each of the two or three processes of every job compiles Snakemake anew."""
    script = "import snakemake.cli as c, os; print(os.path.exists(c.__cached__), os.access(c.__cached__, os.W_OK))"
    assert worker.output("python", "-c", script).split() == ["True", "False"]


def test_the_image_says_what_it_is(worker: Worker) -> None:
    labels = json.loads(worker.podman.run("image", "inspect", "--format", "{{json .Labels}}", worker.image))
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert worker.image.endswith(f":{labels['snakefold.content']}")


def test_memory_limit_ends_a_process_with_137(worker: Worker) -> None:
    hungry = worker.run("python", "-c", "bytearray(400_000_000)", options=("--memory=100m", "--memory-swap=100m"))
    assert hungry.returncode == 137


def test_shipped_example_ends_as_on_the_host(finished_in_container: Clone) -> None:
    outcome = json.loads((finished_in_container.folder / "results/outcome.json").read_text())
    assert len(outcome["done"]) == 5
    assert outcome["skipped"] == ["ubiquitin/template"]
    assert outcome["failed"] == []
    assert (finished_in_container.folder / "results/report/index.html").stat().st_size > 1000


def test_shipped_example_gives_the_golden_results(finished_in_container: Clone) -> None:
    found = collect(finished_in_container.folder)
    for step in STEP_VERSIONS:
        test_golden.test_results_are_those_of_the_steps_version(found, step)
