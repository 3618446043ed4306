"""The storage plugin inside Snakemake itself: what a dry run, a run with remote jobs and a second run ask of S3."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.unit.storage_server import CREDENTIALS, Server, running

ROOT = Path(__file__).parents[2]
TARGETS = 2

SNAKEFILE = """
TARGETS = [f"t{n}" for n in range(int(config["targets"]))]
WHILE_PARSING = exists("results/not-there")

rule all:
    input: "results/summary.txt", expand("results/{target}/whole", target=TARGETS)

rule batch:
    output: "work/{batch}.txt"
    log: "logs/{batch}.log"
    shell: "echo {wildcards.batch} > {output}; echo told > {log}"

rule score:
    input: "work/one.txt"
    output: directory("results/{target}/whole")
    shell: "mkdir -p {output}/deep; cp {input} {output}/deep/copy.txt"

rule summary:
    input: expand("results/{target}/whole", target=TARGETS)
    output: "results/summary.txt"
    shell: "cat {input[0]}/deep/copy.txt > {output}"
"""

EXECUTOR = '''
import os, subprocess
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True, implies_no_shared_fs=True, job_deploy_sources=False, init_seconds_before_status_checks=0,
    pass_default_storage_provider_args=True, pass_default_resources_args=True, pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
)

class Executor(RemoteExecutor):
    """Each job is a process with a working copy and an address of S3 of its own."""

    def run_job(self, job):
        environment = dict(os.environ, AWS_ENDPOINT_URL=os.environ["JOBS_ENDPOINT"])
        process = subprocess.Popen(self.format_job_exec(job), shell=True, env=environment)
        self.report_job_submission(SubmittedJobInfo(job=job, external_jobid=str(process.pid), aux={"process": process}))

    async def check_active_jobs(self, active_jobs):
        for info in active_jobs:
            code = info.aux["process"].poll()
            if code is None:
                yield info
            elif code:
                self.report_job_error(info)
            else:
                self.report_job_success(info)

    def cancel_jobs(self, active_jobs):
        for info in active_jobs:
            info.aux["process"].kill()
'''


class Runner:
    """Runs Snakemake on the workflow above."""

    def __init__(self, folder: Path, main: Server, jobs: Server) -> None:
        self.folder = folder
        self.main = main
        self.jobs = jobs
        package = folder / "plugins" / "snakemake_executor_plugin_processes"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(EXECUTOR)
        (folder / "Snakefile").write_text(SNAKEFILE)

    def __call__(self, *options: str, targets: int = TARGETS, **environment: str | None) -> str:
        command = [str(Path(sys.executable).with_name("snakemake")), "--config", f"targets={targets}"]
        command += ["--default-storage-provider", "s3-inventory", "--default-storage-prefix", "s3://bucket/runs/a"]
        command += ["--default-resources", "mem_mb=100", "disk_mb=100", "--nolock", *options]
        variables: dict[str, str | None] = {
            **os.environ,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": self.main.url,
            "JOBS_ENDPOINT": self.jobs.url,
            # Jobs are started as `python -m snakemake`.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{self.folder / 'plugins'}",
            **environment,
        }
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={name: value for name, value in variables.items() if value is not None},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return f"{done.stdout}\nexit {done.returncode}"


@pytest.fixture
def snakemake(tmp_path: Path) -> Iterator[Runner]:
    # moto keeps its state per process, so these two are two doors to one S3.
    with running() as main, running() as jobs:
        client = boto3.client(
            "s3",
            endpoint_url=main.url,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="bucket")
        main.take()
        try:
            yield Runner(tmp_path, main, jobs)
        finally:
            for item in client.list_objects_v2(Bucket="bucket").get("Contents", []):
                client.delete_object(Bucket="bucket", Key=item["Key"])
            client.delete_bucket(Bucket="bucket")


def test_a_dry_run_without_credentials_warns_once(snakemake: Runner) -> None:
    said = snakemake(
        "-n",
        AWS_ACCESS_KEY_ID=None,
        AWS_SECRET_ACCESS_KEY=None,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_SHARED_CREDENTIALS_FILE=str(snakemake.folder / "none"),
    )
    assert said.endswith("exit 0"), said
    assert said.count("S3 cannot be asked (S3: no AWS credentials found") == 1
    assert "score          2" in said
    assert snakemake.main.take() == {}


def test_a_real_run_without_s3_ends_with_one_line(snakemake: Runner) -> None:
    said = snakemake("--cores", "1", "--storage-s3-inventory-retries", "1", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert said.endswith("exit 1"), said
    lines = [line for line in said.splitlines() if "cannot be reached" in line]
    assert len(lines) == 1, said


def test_outputs_of_remote_jobs_are_seen_and_a_second_run_has_nothing_to_do(snakemake: Runner) -> None:
    # One at a time: jobs of this executor share a folder, and each removes its local copies when it ends.
    remote = ("--executor", "processes", "--jobs", "1", "--seconds-between-status-checks", "1", "--latency-wait", "5")
    local_copies = ("--remote-job-local-storage-prefix", str(snakemake.folder / "of-jobs"))
    said = snakemake(*remote, *local_copies)
    assert said.endswith("exit 0"), said
    assert "Waiting at most" not in said, "an output that was there was not seen at once"
    main, jobs = snakemake.main.take(), snakemake.jobs.take()
    # One listing, the question while parsing, and one question for each output of a finished job.
    outputs = 1 + TARGETS + 1
    assert main == {"ListObjectsV2": 2 + outputs}
    # Two processes per job ask for an input and an output; uploads of a directory list what was there before.
    assert jobs["PutObject"] == 2 + 2 * TARGETS + 1
    assert jobs["ListObjectsV2"] <= 8 * outputs

    said = snakemake("-n")
    assert "Nothing to be done" in said
    assert snakemake.main.take() == {"ListObjectsV2": 2}

    said = snakemake(*remote, *local_copies, "--forcerun", "summary")
    assert said.endswith("exit 0"), said
    assert "2 of 2 steps" in said
    assert "Waiting at most" not in said
