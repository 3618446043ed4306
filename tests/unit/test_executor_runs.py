"""Real Snakemake runs of a tiny workflow through the executor plugin, against the fake AWS."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.common.tests import TestWorkflowsBase
from snakemake_interface_common.plugin_registry.plugin import TaggedSettings
from snakemake_storage_plugin_s3 import StorageProviderSettings

from snakemake_executor_plugin_aws_batch_fleet import ExecutorSettings
from tests.fake_aws.fake import FakeAws

ROOT = Path(__file__).parents[2]
# Held until the test puts `go` into the bucket: no run ends before it was looked at.
SNAKEFILE = """
rule all:
    input: "all.txt"

rule part:
    output: "part_{i}.txt"
    resources: mem_mb=500, runtime=5
    shell: "python {workflow.basedir}/work.py {wildcards.i} > {output}"

rule whole:
    input: expand("part_{i}.txt", i=range(2))
    output: "all.txt"
    resources: mem_mb=500, runtime=5
    shell: "cat {input} > {output}"
"""
WORK = """
import boto3, sys, time
s3 = boto3.client("s3")
while not s3.list_objects_v2(Bucket="fake-bucket", Prefix="go")["KeyCount"]:
    time.sleep(0.05)
print(sys.argv[1])
"""


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeAws]:
    images = {"*": {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}}
    with FakeAws(images=images) as running:
        running.set_up()
        yield running


class Flow:
    """The tiny workflow in a folder, and its bucket."""

    def __init__(self, fake: FakeAws, folder: Path, fleet: dict[str, Any]) -> None:
        self.fake = fake
        self.folder = folder
        (folder / "Snakefile").write_text(SNAKEFILE)
        (folder / "work.py").write_text(WORK)
        (folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))
        subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
        subprocess.run(["git", "add", "Snakefile", "work.py"], cwd=folder, check=True)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        prefix = f"s3://fake-bucket/runs/{self.folder.name}"
        command = f"""snakemake --executor aws-batch-fleet --aws-batch-fleet-file fleet.yaml --jobs 10 --nolock
            --default-storage-provider s3 --default-storage-prefix {prefix} --shared-fs-usage none --scheduler greedy
            --rerun-incomplete --seconds-between-status-checks 1 --default-resources mem_mb=500 disk_mb=500""".split()
        environment = {**os.environ, **self.fake.environment, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [str(Path(sys.executable).parent / command[0]), *command[1:], *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def go(self) -> None:
        self.fake.client("s3").put_object(Bucket="fake-bucket", Key="go", Body=b"")

    def finish(self, process: subprocess.Popen[str], code: int) -> str:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def text(self, name: str) -> str:
        key = f"runs/{self.folder.name}/{name}"
        return self.fake.client("s3").get_object(Bucket="fake-bucket", Key=key)["Body"].read().decode()


@pytest.fixture
def flow(fake: FakeAws, tmp_path: Path) -> Flow:
    fake.reset()
    # The stock storage plugin deletes a bucket that it finds empty.
    fake.client("s3").put_object(Bucket="fake-bucket", Key="keep", Body=b"")
    return Flow(fake, tmp_path, fleet_of(fake))


def fleet_of(fake: FakeAws) -> dict[str, Any]:
    queues = [
        {"name": "cpu-spot", "vcpus": 96, "memory_mb": 768_000, "purchase": "spot", "price_per_hour": 2.0},
        {"name": "cpu", "vcpus": 96, "memory_mb": 768_000, "purchase": "on_demand", "price_per_hour": 6.0},
    ]
    region = fake.environment["AWS_DEFAULT_REGION"]
    return {
        "region": region,
        "queues": queues,
        "images": {"worker": "w"},
        "job_role_arn": "arn:aws:iam::123456789012:role/job-role",
    }


def test_a_controller_killed_and_started_again_follows_its_jobs(flow: Flow) -> None:
    first = flow.start()
    flow.fake.wait_for(lambda: flow.fake.counts().get("RUNNING") == 2, 60)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    second = flow.start()
    # A third one, while the second holds the run.
    flow.fake.wait_for(lambda: flow.text(".fleet/lock.json").count(f'"pid": {second.pid},'), 60)
    assert "This run is already controlled by" in flow.finish(flow.start(), 1)
    flow.go()
    output = flow.finish(second, 0)
    assert output.count("Following AWS Batch job") == 2 and "its process has ended" in output
    jobs = flow.fake.jobs()
    assert len(jobs) == 3 and {job["status"] for job in jobs} == {"SUCCEEDED"}
    assert flow.text("all.txt") == "0\n1\n"
    records = [json.loads(line) for line in flow.text(".fleet/ledger.jsonl").splitlines()]
    assert sorted(record["rule"] for record in records) == ["part", "part", "whole"]
    listed = flow.fake.client("s3").list_objects_v2(Bucket="fake-bucket", Prefix=f"runs/{flow.folder.name}/.fleet/")
    assert [entry["Key"].rpartition("/")[2] for entry in listed["Contents"]] == ["ledger.jsonl"]


def test_ctrl_c_leaves_no_job(flow: Flow) -> None:
    process = flow.start()
    flow.fake.wait_for(lambda: flow.fake.counts().get("RUNNING") == 2, 60)
    os.kill(process.pid, signal.SIGINT)
    # A job can run before the reply to its submission has come: such a one ends itself and is not counted.
    assert re.search(r"Ending [12] AWS Batch jobs", flow.finish(process, 1))
    flow.fake.wait_for(lambda: {job["status"] for job in flow.fake.jobs()} == {"FAILED"}, 60)
    assert {job["statusReason"] for job in flow.fake.jobs()} == {"Terminated by Snakemake: the run was cancelled"}


def test_a_controller_that_lost_its_lock_leaves_the_jobs_and_their_sources(flow: Flow) -> None:
    process = flow.start("--aws-batch-fleet-heartbeat", "1")
    flow.fake.wait_for(lambda: flow.fake.counts().get("RUNNING") == 2, 60)
    key = f"runs/{flow.folder.name}/.fleet/lock.json"
    other = {**json.loads(flow.text(".fleet/lock.json")), "token": "other"}
    flow.fake.client("s3").put_object(Bucket="fake-bucket", Key=key, Body=json.dumps(other).encode())
    assert "Another controller has taken this run over" in flow.finish(process, 1)
    assert json.loads(flow.text(".fleet/lock.json")) == other
    assert flow.fake.counts().get("RUNNING") == 2
    listed = flow.fake.client("s3").list_objects_v2(Bucket="fake-bucket", Prefix=f"runs/{flow.folder.name}/snakemake-")
    assert listed["KeyCount"] == 1


def test_what_cannot_work_is_one_line_before_anything_is_submitted(flow: Flow) -> None:
    (flow.folder / "fleet.yaml").unlink()
    output = flow.finish(flow.start(), 1)
    assert "Fleet file fleet.yaml: cannot be read" in output and "Traceback" not in output
    assert not flow.fake.jobs()


class TestSnakemakesOwn(TestWorkflowsBase):
    """Snakemake's own tests of executors: a simple workflow, and one with groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _prepare(self, fake: FakeAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake.reset()
        self._fake = fake
        self._fleet = tmp_path / "fleet.yaml"
        self._fleet.write_text(yaml.safe_dump(fleet_of(fake)))
        self._prefix = f"s3://fake-bucket/own/{tmp_path.name}"
        fake.client("s3").put_object(Bucket="fake-bucket", Key="keep", Body=b"")
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        # Snakemake asks git for the sources in the working directory.
        monkeypatch.chdir(tmp_path)

    def get_executor(self) -> str:
        return "aws-batch-fleet"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(file=str(self._fleet))

    def get_default_storage_provider(self) -> str:
        return "s3"

    def get_default_storage_prefix(self) -> str:
        return self._prefix

    def get_default_storage_provider_settings(self) -> dict[str, TaggedSettings]:
        settings = TaggedSettings()
        settings.register_settings(StorageProviderSettings())
        return {"s3": settings}

    def get_assume_shared_fs(self) -> bool:
        return False

    def cleanup_test(self) -> None:
        """Every job that was submitted has succeeded; it is checked here, where the base class ends a test."""
        jobs = self._fake.jobs()
        assert jobs and {job["status"] for job in jobs} == {"SUCCEEDED"}
