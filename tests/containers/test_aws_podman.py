"""The workflow through `--profile aws-batch` with every job in the worker image, as AWS Batch would run it.

The fake AWS starts a container of podman for each attempt. Nothing of this machine's file system is in it but one
folder, where the machine keeps databases and compiled kernels for all its jobs.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Clone
from tests.containers.podman import build_worker
from tests.e2e.aws import BUCKET, Account, AwsClone, bring, make_aws_clone
from tests.e2e.test_aws import short_rows
from tests.e2e.test_example import TIMES, digests
from tests.fake_aws import FakeAws

pytestmark = pytest.mark.podman

MOUNTED = "/mnt/databases"
DATABASES = ("mini_metagenome", "mini_proteins", "mini_swissprot", "mini_templates")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the machine that runs all jobs, to be mounted in them; whoever they run as may write there."""
    folder = tmp_path_factory.mktemp("machine") / "databases"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="module")
def podman_account(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account whose jobs are containers of the worker image, two at a time."""
    folder = tmp_path_factory.mktemp("account")
    worker = build_worker(folder)
    environment = dict(worker.podman.environment)
    images = {"worker:latest": worker.image}
    with FakeAws(engine="podman", podman_images=images, podman_environment=environment, slots=2) as aws:
        fleet = aws.set_up(bucket=BUCKET) | {"mounts": [f"{machine}:{MOUNTED}"]}
        (folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))
        yield Account(aws, folder)


@pytest.fixture
def start_clone(podman_account: Account, tmp_path: Path) -> Callable[[str], AwsClone]:
    """Makes fresh clones whose runs have a name."""
    return lambda name: make_aws_clone(podman_account, tmp_path / name, name)


def owners(machine: Path) -> set[int]:
    """Whose the files are that jobs left on the machine."""
    return {path.stat().st_uid for path in machine.rglob("*")}


def kernels(machine: Path) -> dict[str, int]:
    """The compiled kernels that the machine keeps, and which file each is: a new one has another number."""
    return {str(path.relative_to(machine)): path.stat().st_ino for path in machine.rglob("*.nbc")}


def stagings(clone: AwsClone) -> Counter[str]:
    """The databases that jobs have brought to their machine from S3, and how often, by the jobs' logs."""
    text = "\n".join(clone.log_of(job) for job in clone.jobs())
    return Counter(re.findall(r"staging \d+ files, .*/databases/(\w+)", text))


def test_the_example_in_the_image_gives_the_same_files_as_a_run_on_one_machine(
    start_clone: Callable[[str], AwsClone],
    finished: Clone,
    machine: Path,
    write_sheet: Callable[..., Path],
    tmp_path: Path,
) -> None:
    clone = start_clone("example")
    # The sheet lies where no worker could find it, with the files that it names.
    away = tmp_path / "away"
    shutil.copytree(ROOT / "data/mini/targets", away / "data/mini/targets")
    sheet = Path(shutil.copytree(ROOT / "config", away / "config")) / "samples.tsv"
    output = clone.run("--config", f"samples={sheet}")
    assert "5 done, 1 skipped, 0 failed" in output
    assert {job["status"] for job in clone.jobs()} == {"SUCCEEDED"}
    assert os.getuid() not in owners(machine)

    clone.snakefold("pull", "--all", "--to", str(tmp_path / "home/results"))
    here, there = digests(finished), digests(Clone(tmp_path / "home"))
    assert here.keys() == there.keys()
    assert {name for name in here if here[name] != there[name]} <= {TIMES}
    # More than one overload would be more than one writer of a kernel's index: see snakefold/kernels.py.
    assert kernels(machine)
    assert all(name.endswith(".1.nbc") for name in kernels(machine))

    # The next job of the machine finds them compiled, in another container and another run.
    before = kernels(machine)
    other = start_clone("other")
    bring(other.account, other.name, of="example", steps=("databases",))
    seed = ["seed=1", f"samples={write_sheet(*short_rows('tcr_vbeta'))}"]
    other.run("--config", *seed, "--until", "fold")
    assert len(other.jobs("fold")) == 1
    assert kernels(machine) == before


def test_a_new_machine_gets_each_database_once_and_a_kill_for_memory_is_cured_by_more_of_it(
    start_clone: Callable[[str], AwsClone], write_sheet: Callable[..., Path], machine: Path
) -> None:
    clone = start_clone("short")
    if clone.account.objects("runs/example/"):  # else, run alone, it downloads them itself
        bring(clone.account, clone.name, of="example", steps=("databases",))
    else:
        clone.run("--until", "download_database")
    shutil.rmtree(machine / ".staged")
    # The sources travel with the jobs. Folding itself, at its limit, would struggle for minutes before it is killed.
    with (clone.folder / "snakefold/engines/template/loops.py").open("a") as source:
        source.write("\n_HUNGER = len(bytearray(800_000_000))\n")
    # A batch for each target: two searches at a time want the same databases.
    arguments = ["store=stores/short", "plan={max_members: 1}", f"samples={write_sheet(*short_rows())}"]
    memory = ["--set-resources", "fold:mem_mb=600 * attempt ** 2"]
    output = clone.run("--config", *arguments, "--until", "fold", *memory)
    assert len(clone.jobs("search_msa")) == 2
    assert stagings(clone) == dict.fromkeys(DATABASES, 1)

    assert "(out_of_memory)" in output
    folds = clone.jobs("fold")
    assert Counter(job["status"] for job in folds) == {"FAILED": 2, "SUCCEEDED": 2}
    for job in folds:
        limit = next(each["value"] for each in job["container"]["resourceRequirements"] if each["type"] == "MEMORY")
        assert (job["status"] == "FAILED") == (int(limit) < 800)
