"""What the executor plugin sends to AWS Batch: requests, definitions, names."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakemake_executor_plugin_aws_batch_fleet import identity
from snakemake_executor_plugin_aws_batch_fleet.definitions import ContainerSpec, definition_body, definition_name
from snakemake_executor_plugin_aws_batch_fleet.demand import of_job
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet, Queue
from snakemake_executor_plugin_aws_batch_fleet.request import (
    MOST_OVERRIDES,
    CredentialsInRequestError,
    Plan,
    check_secrets,
    image_reference,
    overrides,
    submission,
)

QUEUE = Queue(name="cpu", vcpus=96, memory_mb=768_000)


def plan(command: str = "true", resources: dict[str, Any] | None = None, environment: tuple = ()) -> Plan:
    return Plan(
        name=identity.job_name(run="0" * 8, rule="fold", job="1" * 12, work="2" * 12),
        demand=of_job(2, {"mem_mb": 1000, **(resources or {})}),
        container=ContainerSpec(image="worker@sha256:0"),
        command=command,
        environment=environment,
        tags=(("Project", "x"),),
    )


def refuse_upload(key: str, text: str) -> None:
    raise AssertionError(f"nothing to upload, but {key} was")


def test_a_request_asks_for_cores_mebibytes_gpus_and_time() -> None:
    asked = plan(resources={"gpu": 1, "runtime": 3})
    body = overrides(asked, "bucket", "run/.fleet/", refuse_upload)
    assert {need["type"]: need["value"] for need in body["resourceRequirements"]} == {
        "VCPU": "2",
        "MEMORY": "954",
        "GPU": "1",
    }
    request = submission(asked, QUEUE, "arn", body)
    assert request["timeout"] == {"attemptDurationSeconds": 180}
    assert request["tags"] == {"Project": "x"} and request["propagateTags"] is True
    assert "shareIdentifier" not in request
    fair = QUEUE.model_copy(update={"share_identifier": "me"})
    assert submission(asked, fair, "arn", body)["shareIdentifier"] == "me"


def test_a_time_out_is_never_shorter_than_aws_allows() -> None:
    asked = plan(resources={"runtime": 1})
    short = replace(asked, demand=replace(asked.demand, minutes=0.5))
    assert submission(short, QUEUE, "arn", {})["timeout"] == {"attemptDurationSeconds": 60}
    assert "timeout" not in submission(plan(), QUEUE, "arn", {})


@pytest.mark.parametrize("length", [6_000, 8_500, 60_000])
def test_overrides_never_exceed_what_ecs_takes(length: int) -> None:
    sent: dict[str, str] = {}
    command = "echo " + "'x' " * (length // 4)
    body = overrides(plan(command), "bucket", "run/.fleet/", sent.__setitem__)
    assert len(json.dumps(body)) <= MOST_OVERRIDES
    if length > MOST_OVERRIDES:
        digest = hashlib.sha256(command.encode()).hexdigest()
        assert sent == {f"run/.fleet/commands/{digest}.sh": command}
        assert body["command"][-3:] == ["bucket", f"run/.fleet/commands/{digest}.sh", digest]
    else:
        assert not sent and body["command"] == ["/bin/bash", "-c", command]


def test_an_environment_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="pass fewer"):
        overrides(plan(environment=(("LONG", "x" * 9000),)), "bucket", "p/", lambda *_: None)


def bootstrap(tmp_path: Path, script: bytes, digest: str) -> subprocess.CompletedProcess[str]:
    """Runs the bootstrap with a stand-in for boto3 that gives `script`."""
    (tmp_path / "boto3.py").write_text(
        "import io\nclass C:\n    def get_object(self, Bucket, Key):\n"
        f"        assert (Bucket, Key) == ('bucket', 'key')\n        return {{'Body': io.BytesIO({script!r})}}\n"
        "def client(name):\n    assert name == 's3'\n    return C()\n"
    )
    command = overrides(plan("x" * 9000), "bucket", "", lambda *_: None)["command"][:3]
    return subprocess.run(
        [sys.executable, *command[1:], "bucket", "key", digest],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )


def test_the_bootstrap_becomes_the_command(tmp_path: Path) -> None:
    script = b"echo pid $$; exit 7"
    result = bootstrap(tmp_path, script, hashlib.sha256(script).hexdigest())
    assert result.returncode == 7 and result.stdout.startswith("pid ")


def test_the_bootstrap_runs_nothing_that_was_changed(tmp_path: Path) -> None:
    result = bootstrap(tmp_path, b"echo changed", hashlib.sha256(b"echo first").hexdigest())
    assert result.returncode == 1 and "changed" not in result.stdout
    assert "is not the one that was uploaded" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_SESSION_TOKEN", "x"),
        ("SNAKEMAKE_STORAGE_S3_SECRET_KEY", "x"),
        ("HARMLESS", "key AKIAABCDEFGHIJKLMNOP"),
    ],
)
def test_credentials_are_never_passed_on(name: str, value: str) -> None:
    with pytest.raises(CredentialsInRequestError, match=name):
        check_secrets({name: value})
    with pytest.raises(CredentialsInRequestError, match="--storage-s3-secret-key"):
        check_secrets({}, "snakemake --storage-s3-secret-key abc")
    check_secrets({"AWS_DEFAULT_REGION": "eu-west-1", "MONKEY": "bananas"}, "snakemake --storage-s3-region x")


def test_definitions_are_unprivileged_and_named_by_content() -> None:
    spec = ContainerSpec(image="i", mounts=("/mnt/db:/db:ro",), job_role_arn="role", shm_mib=64, log_group="/mine")
    body = definition_body(spec)
    container = body["containerProperties"]
    assert container["privileged"] is False
    assert container["mountPoints"] == [{"sourceVolume": "mount0", "containerPath": "/db", "readOnly": True}]
    assert container["linuxParameters"] == {"sharedMemorySize": 64}
    assert container["logConfiguration"]["options"] == {"awslogs-group": "/mine"}
    assert definition_name(body) == definition_name(definition_body(spec))
    names = {
        definition_name(definition_body(replace(spec, **{key: value})))
        for key, value in (
            ("image", "j"),
            ("mounts", ()),
            ("job_role_arn", None),
            ("shm_mib", 0),
            ("attempts", 5),
            ("log_group", "/x"),
        )
    }
    assert len(names | {definition_name(body)}) == 7


def test_only_what_is_no_fault_of_the_job_is_retried_by_batch() -> None:
    rules = definition_body(ContainerSpec(image="i"))["retryStrategy"]["evaluateOnExit"]
    assert len(rules) <= 5
    assert [rule for rule in rules if rule["action"] == "RETRY"] == rules[:3]
    # Without a rule that catches everything, AWS Batch retries whatever no rule matches.
    assert {"onExitCode": "*", "action": "EXIT"} in rules


def test_images_are_named_or_whole() -> None:
    fleet = Fleet(region="r", queues=[QUEUE], images={"worker": "w@sha256:1", "fold": "f@sha256:2"})
    assert image_reference(None, fleet, "default") == "w@sha256:1"
    assert image_reference("fold", fleet, None) == "f@sha256:2"
    assert image_reference("registry/x:1", fleet, None) == "registry/x:1"
    with pytest.raises(ValueError, match="batch_image is fodl, but the fleet file lists fold, worker"):
        image_reference("fodl", fleet, None)


def work(command: str, **changes: Any) -> str:
    known = {"archive": ("s3://b/src.abc.tar.xz", "abc"), "sources": "s", "image": "i", "mounts": ()}
    return identity.work_digest(command, **{**known, **changes})


COMMAND = (
    "python -m snakemake --deploy-sources s3://b/src.abc.tar.xz abc --default-storage-prefix s3://b && "
    "exec python -m snakemake --target-jobs 'a:i=1' 'b:i=1' --cores 2 --attempt 1 --config x=1"
)


def test_work_is_the_same_whatever_differs_between_controllers() -> None:
    other = (
        COMMAND.replace("src.abc.tar.xz abc", "src.def.tar.xz def")
        .replace("--cores 2 --attempt 1", "--cores 4 --attempt 2 --unneeded-temp-files t.txt --verbose")
        .replace("'a:i=1' 'b:i=1'", "'b:i=1' 'a:i=1'")
    )
    assert work(COMMAND) == work(other, archive=("s3://b/src.def.tar.xz", "def"))


@pytest.mark.parametrize(
    "change", [{"sources": "t"}, {"image": "j"}, {"mounts": ("/a:/b",)}, {"inputs": [("s3://b/msa.json", 2.0)]}]
)
def test_work_differs_with_sources_image_mounts_and_inputs_made_anew(change: dict[str, Any]) -> None:
    assert work(COMMAND, inputs=[("s3://b/msa.json", 1.0)]) != work(COMMAND, **change)
    assert work(COMMAND, inputs=[("s3://b/msa.json", 1.0)]) == work(COMMAND, inputs=[("s3://b/msa.json", 1.0)])


def test_work_differs_with_the_command() -> None:
    assert work(COMMAND) != work(COMMAND.replace("x=1", "x=2"))
    assert work(COMMAND) != work(COMMAND.replace("a:i=1", "a:i=3"))


def test_sources_are_compared_by_content_not_by_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = identity.sources_digest(["a"], tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    assert identity.sources_digest(["a", "a"], tmp_path) == first
    (tmp_path / "a").write_text("2")
    assert identity.sources_digest(["a"], tmp_path) != first


def test_job_names_can_be_read_back() -> None:
    name = identity.job_name(run=identity.run_id("s3://b/p/"), rule="g-1 ä", job="a" * 64, work="b" * 64)
    assert str(name) == f"{identity.run_id('s3://b/p')}-g_1__-{'a' * 12}-{'b' * 12}"
    assert identity.parse_job_name(str(name)) == name
    assert identity.parse_job_name("0123abcd-controller") is None
    long = identity.job_name(run="0" * 8, rule="x" * 300, job="a" * 12, work="b" * 12)
    assert len(str(long)) <= 128 and identity.parse_job_name(str(long)) == long


def test_the_job_digest_does_not_depend_on_order() -> None:
    one = identity.job_digest("r", {"a": "1", "b": "2"}, ["x", "y"])
    assert one == identity.job_digest("r", {"b": "2", "a": "1"}, ["y", "x"])
    assert one != identity.job_digest("r", {"a": "1", "b": "3"}, ["x", "y"])
    assert identity.group_digest(["1", "2"]) == identity.group_digest(["2", "1"])
