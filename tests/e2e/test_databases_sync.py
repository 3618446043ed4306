"""Databases come into the bucket by a job, whole, once, and from where they were when something breaks."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.conftest import environment
from tests.e2e.aws import BUCKET, AwsClone
from tests.unit.databases_server import FileServer

ROLE = "arn:aws:iam::123456789012:role/databases"
CONTENT = random.Random(5).randbytes(48 << 20)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer().running() as server:
        server.files["/proteins.fasta"] = CONTENT
        yield server


def started(clone: AwsClone, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "snakefold", "databases", "sync", *arguments],
        cwd=clone.folder,
        env={**environment(), **clone.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def jobs(clone: AwsClone) -> list[dict]:
    return [job for job in clone.account.aws.jobs() if "-sync_databases-" in job["jobName"]]


def served_registry(clone: AwsClone, server: FileServer) -> list[str]:
    """A registry with one database of one large file on a server; returns the arguments that choose it."""
    file = {"path": "proteins.fasta", "urls": [f"{server.address}/proteins.fasta"]}
    file |= {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    database = {"kind": "sequences", "version": "1", "licence": "none", "description": "noise", "files": [file]}
    registry = clone.folder / "registry.yaml"
    registry.write_text(yaml.safe_dump({"databases": {"served": database}, "presets": {}}))
    return ["served", "--config", f"databases={{registry: {registry}}}"]


def test_a_preset_comes_by_a_job_once_and_damage_is_mended(aws_clone: AwsClone, tmp_path: Path) -> None:
    account = aws_clone.account
    fleet = {**yaml.safe_load((account.folder / "fleet.yaml").read_text()), "database_role_arn": ROLE}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    variables = {**aws_clone.variables, "SNAKEFOLD_FLEET": str(tmp_path / "fleet.yaml")}
    aws_clone = replace(aws_clone, variables=variables)
    client = account.aws.client("s3")
    for key in account.objects(".snakefold/databases/mini_"):  # by other tests of this account
        client.delete_object(Bucket=BUCKET, Key=key)
    key, earlier = ".snakefold/databases/mini_proteins/proteins.fasta.gz", len(jobs(aws_clone))
    output = aws_clone.snakefold("databases", "sync")
    assert "4 databases are there and whole" in output
    assert "[mini_templates] 22 files, 1.0 MB: all there, with the digests of the manifest" in output
    (job,) = jobs(aws_clone)[earlier:]
    assert (job["status"], job["container"]["jobRoleArn"]) == ("SUCCEEDED", ROLE)
    manifest = json.loads(account.text(".snakefold/databases/mini_templates/manifest.json"))
    assert {f".snakefold/databases/mini_templates/{name}" for name in (*manifest["files"], "manifest.json")} == set(
        account.objects(".snakefold/databases/mini_templates/")
    )

    assert "nothing to do, 4 databases" in aws_clone.snakefold("databases", "sync")
    assert len(jobs(aws_clone)) == earlier + 1

    right = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(len(right)))
    output = aws_clone.snakefold("databases", "sync")
    assert "mini_proteins: 1 files are damaged, such as proteins.fasta.gz" in output
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == right
    assert len(jobs(aws_clone)) == earlier + 2

    # What no listing shows: the bytes themselves are read, on AWS.
    assert "4 databases are there and whole" in aws_clone.snakefold("databases", "sync", "--read")


def test_a_job_that_dies_is_gone_on_with_and_ctrl_c_leaves_it_running(aws_clone: AwsClone, server: FileServer) -> None:
    aws = aws_clone.account.aws
    chosen = served_registry(aws_clone, server)
    earlier = len(jobs(aws_clone))
    server.hold_after = 36 << 20
    process = started(aws_clone, *chosen)
    assert server.holding.wait(60)
    (job,) = jobs(aws_clone)[earlier:]
    time.sleep(1.5)  # aria2c writes its journal once a second
    aws.client("batch").terminate_job(jobId=job["jobId"], reason="the machine burnt down")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "run the same command again" in output

    server.holding.clear()
    server.hold_after = server.served + (1 << 20)
    server.release.set()
    server.release.clear()
    process = started(aws_clone, *chosen)
    assert server.holding.wait(60)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the job goes on; the same command watches it again" in output
    (_, job) = jobs(aws_clone)[earlier:]
    assert job["status"] == "RUNNING"
    refused = aws_clone.snakefold("databases", "sync", "mini_proteins", code=1)
    assert f"job {job['jobId']} (RUNNING) brings other databases" in refused

    process = started(aws_clone, *chosen)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    reader.start()
    # Not let go on earlier: the job could end before this command has looked for it.
    aws_clone.account.aws.wait_for(lambda: f"job {job['jobId']} is at it already" in "".join(said), 60)
    server.hold_after = None
    server.release.set()
    assert process.wait(timeout=120) == 0, said
    reader.join()
    assert len(jobs(aws_clone)) == earlier + 2
    assert server.served < 1.6 * len(CONTENT)
    found = aws.client("s3").get_object(Bucket=BUCKET, Key=".snakefold/databases/served/proteins.fasta")
    assert found["Body"].read() == CONTENT
    assert not (aws_clone.account.folder / "databases" / ".downloads" / "served").exists()
