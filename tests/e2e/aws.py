"""Clones whose jobs run on the fake AWS, as `snakemake --profile aws-batch` would run them on the real one."""

import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from snakemake_executor_plugin_aws_batch_fleet.identity import run_id
from tests.conftest import Clone, clone_into
from tests.fake_aws import FakeAws

BUCKET = "fake-bucket"


@dataclass(frozen=True)
class Account:
    """A fake AWS with bucket and queues, whose machines share a folder for databases, and its fleet file."""

    aws: FakeAws
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """What makes Snakemake and our commands work in this account."""
        return {**self.aws.environment, "SNAKEFOLD_FLEET": str(self.folder / "fleet.yaml")}

    def objects(self, prefix: str) -> list[str]:
        """Keys of the objects below a prefix."""
        pages = self.aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def text(self, key: str) -> str:
        """The content of an object."""
        return self.aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()


@dataclass(frozen=True)
class AwsClone(Clone):
    """A clone that runs with the profile `aws-batch`, under a run name of its own."""

    account: Account = field(kw_only=True)
    name: str = field(kw_only=True)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a run on the fake; what is quiet locally is told, for tests read it."""
        snakemake = str(Path(sys.executable).with_name("snakemake"))
        return [snakemake, "--profile", "aws-batch", "--seconds-between-status-checks", "1", *arguments]

    def prefix(self, below: str = "") -> str:
        """A key below the run's prefix."""
        return f"runs/{self.name}/{below}"

    def jobs(self, rule: str = "") -> list[dict]:
        """The Batch jobs of this run, of one rule or all, in the order of their submission."""
        start = run_id(f"s3://{BUCKET}/runs/{self.name}")
        return [job for job in self.account.aws.jobs() if job["jobName"].startswith(f"{start}-{rule}")]

    def log_of(self, job: dict) -> str:
        """All that a job printed."""
        return "\n".join(self.account.aws.logs(job))


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One account for all tests of a session; every test has a run and a store of its own in it."""
    folder = tmp_path_factory.mktemp("account")
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    image = {"PATH": path, "SNAKEFOLD_DATABASE_CACHE": str(folder / "databases")}
    with FakeAws(images={"*": image}, slots=os.cpu_count() or 2, time_scale=1.0) as aws:
        (folder / "fleet.yaml").write_text(yaml.safe_dump(aws.set_up(bucket=BUCKET)))
        yield Account(aws, folder)


@pytest.fixture
def aws_clone(account: Account, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AwsClone]:
    """A fresh clone, a git repository as a user's is."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    clone = make_aws_clone(account, tmp_path, f"{words[:40]}-{zlib.crc32(words.encode()):08x}")
    yield clone
    account.aws.faults([])
    account.aws.configure(rates={}, oom_kills="container", time_scale=1.0)


def make_aws_clone(account: Account, folder: Path, name: str) -> AwsClone:
    """A clone with the run name `name`."""
    copy = clone_into(folder / "clone").folder
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=copy, check=True)
    variables = {**account.variables, "SNAKEFOLD_RUN": name}
    return AwsClone(copy, variables, account=account, name=name)


def bring(account: Account, run: str, *, of: str, steps: Sequence[str]) -> None:
    """Copy what another run has of some steps: a test of something else need not wait for them."""
    client = account.aws.client("s3")
    for step in steps:
        for key in account.objects(f"runs/{of}/.snakefold/work/{step}/"):
            copy = key.replace(f"runs/{of}/", f"runs/{run}/", 1)
            client.copy_object(Bucket=BUCKET, Key=copy, CopySource={"Bucket": BUCKET, "Key": key})
