"""Dry runs with `--profile aws-batch`: the same plan as on one machine, without an account, credentials or network."""

import socket
from pathlib import Path

import pytest

from tests.conftest import Clone
from tests.dag.test_dag import job_counts

FLEET = """
region: eu-west-1
bucket: a-bucket-of-ours
images: {worker: worker@sha256:0}
queues:
  - {name: cpu, vcpus: 96, memory_mb: 768000, purchase: spot, price_per_hour: 2.1}
"""
# Nothing of this machine's may help: no keys, no profile, no role of a machine.
NO_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def on_aws(clone: Clone, **variables: str) -> str:
    """A dry run with the profile. It leaves nothing behind but Snakemake's own folder."""
    known = files(clone.folder)
    with socket.socket() as nobody:
        # A port that is taken and does not listen: whatever is asked there is refused at once.
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        away = Clone(clone.folder, {**NO_CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, **variables})
        output = away.run("--profile", "aws-batch", "--dry-run")
    assert files(clone.folder) == known
    assert "Traceback" not in output
    return output


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if ".snakemake" not in path.parts and "__pycache__" not in path.parts}


def test_without_a_fleet_file_the_plan_is_that_of_a_local_run(clone: Clone) -> None:
    local = job_counts(clone.run("--dry-run"))
    output = on_aws(clone)
    assert job_counts(output) == local


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({}, "no AWS credentials found"),
        ({"AWS_ACCESS_KEY_ID": "AKIAFAKE", "AWS_SECRET_ACCESS_KEY": "fake"}, "cannot be reached"),
    ],
    ids=["no-credentials", "no-network"],
)
def test_with_a_fleet_file_but_no_way_to_aws_the_plan_is_that_of_a_local_run(
    clone: Clone, variables: dict[str, str], why: str
) -> None:
    (clone.folder / "profiles/aws-batch/fleet.yaml").write_text(FLEET)
    local = job_counts(clone.run("--dry-run"))
    output = on_aws(clone, **variables)
    assert job_counts(output) == local
    (warning,) = [line for line in output.splitlines() if "S3 cannot be asked" in line]
    assert why in warning and "everything is shown as still to do" in warning


def test_an_engine_whose_image_was_never_pushed_ends_the_run_in_one_line_before_anything_is_submitted(
    clone: Clone,
) -> None:
    fleet = clone.folder / "profiles/aws-batch/fleet.yaml"
    fleet.write_text(FLEET)
    away = Clone(clone.folder, {**NO_CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    arguments = ["--profile", "aws-batch", "--config", "engines=[template, esmfold, boltz]"]
    output = away.run(*arguments, code=1)
    (said,) = [line for line in output.splitlines() if "lists no image" in line]
    assert "boltz, esmfold: the fleet file profiles/aws-batch/fleet.yaml lists no image" in said
    assert 'make push-images ARGS="boltz esmfold"' in said
    assert "Traceback" not in output
