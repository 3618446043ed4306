"""The doctor names what is wrong and what to do, asks on when a right lacks, and takes seconds."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.stub import ANY, Stubber

from snakefold.cli import main
from snakefold.doctor.account import Account, Clients, _rights, examine_account
from snakefold.doctor.findings import Finding
from snakefold.doctor.machine import examine_machine
from snakefold.doctor.queues import queue_checks
from snakefold.doctor.quotas import quota_of
from snakefold.fleet import load_fleet as load_place
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet
from tests.conftest import ROOT
from tests.fake_aws import FakeAws

Examine = Callable[..., list[Finding]]


@pytest.fixture(scope="module")
def aws() -> Iterator[FakeAws]:
    with FakeAws() as fake:
        yield fake


@pytest.fixture(scope="module")
def fleet(aws: FakeAws) -> dict[str, Any]:
    """A fleet in which all that moto can tell is well, but for databases."""
    fleet = aws.set_up(events=True)
    everything = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    aws.client("s3").put_public_access_block(
        Bucket=fleet["bucket"], PublicAccessBlockConfiguration=dict.fromkeys(everything, True)
    )
    ecr = aws.client("ecr")
    repository = ecr.create_repository(repositoryName="snakefold/worker")["repository"]["repositoryUri"]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": {"size": 1}, "layers": []})
    image = ecr.put_image(repositoryName="snakefold/worker", imageManifest=manifest)
    return {**fleet, "images": {"worker": f"{repository}@{image['image']['imageId']['imageDigest']}"}}


@pytest.fixture
def examine(aws: FakeAws, fleet: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Examine]:
    """Examine the fake account by a fleet file with changes."""
    monkeypatch.chdir(ROOT)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SNAKEFOLD_FLEET", str(tmp_path / "fleet.yaml"))
    aws.faults([])

    def examined(*config: str, **changes: Any) -> list[Finding]:
        (tmp_path / "fleet.yaml").write_text(yaml.safe_dump({**fleet, **changes}))
        return examine_account("doctored", config)

    yield examined
    aws.faults([])
    aws.configure(compute_environments={}, job_queues={})


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def the(findings: list[Finding], check: str, level: str) -> Finding:
    (finding,) = [each for each in of(findings, check) if each.level == level]
    assert level == "ok" or finding.remedy or check == "databases"
    return finding


def test_a_good_account_has_no_fault_and_the_bucket_is_left_as_it_was(aws: FakeAws, examine: Examine) -> None:
    before = aws.client("s3").list_objects_v2(Bucket="fake-bucket").get("KeyCount")
    started = time.monotonic()
    found = examine()
    assert time.monotonic() - started < 20
    assert [finding for finding in found if finding.level == "fault"] == []
    # What moto does not have, and databases that the run will bring.
    assert {finding.check for finding in found if finding.level == "warning"} == {"quotas", "rights", "databases"}
    assert {finding.check for finding in found if finding.level == "ok"} >= {
        "credentials", "clock", "account", "bucket", "privacy", "bucket use", "queues", "images", "roles", "log group",
        "events",
    }  # fmt: skip
    assert len(of(found, "queues")) == 6
    assert aws.client("s3").list_objects_v2(Bucket="fake-bucket").get("KeyCount") == before


def test_what_does_not_exist_is_a_fault_each(aws: FakeAws, examine: Examine, fleet: dict[str, Any]) -> None:
    queues = [{**fleet["queues"][0], "name": "no-such-queue"}, *fleet["queues"][1:]]
    reference = fleet["images"]["worker"].partition("@")[0]
    found = examine(
        bucket="no-such-bucket",
        queues=queues,
        job_role_arn="arn:aws:iam::123456789012:role/no-such-role",
        execution_role_arn="arn:aws:iam::123456789012:role/instance-role",
        database_role_arn="arn:aws:iam::123456789012:role/job-role",
        log_group="/no/such/group",
        events_queue_url=fleet["events_queue_url"] + "-not",
        images={"worker": f"{reference}@sha256:{'0' * 64}"},
    )
    assert "no bucket no-such-bucket" in the(found, "bucket", "fault").text
    assert "no queue no-such-queue" in the(found, "queues", "fault").text
    roles = [finding.text for finding in of(found, "roles") if finding.level == "fault"]
    assert "there is no role no-such-role (job_role_arn)" in roles
    assert "instance-role (execution_role_arn) cannot be used by containers" in roles
    assert "/no/such/group" in the(found, "log group", "fault").text
    assert "batch-events-not" in the(found, "events", "fault").text
    assert "ECR does not have" in the(found, "images", "fault").text


def test_an_engine_of_the_config_without_an_image_is_a_fault(examine: Examine) -> None:
    finding = the(examine("engines=[template, boltz]"), "images", "fault")
    assert "no image `boltz`, which the engine boltz needs" in finding.text
    assert "make push-images ARGS=boltz" in finding.remedy


def test_a_queue_must_be_able_to_run_what_the_fleet_file_sends_to_it(
    aws: FakeAws, examine: Examine, fleet: dict[str, Any]
) -> None:
    aws.configure(
        job_queues={"cpu-spot": {"state": "DISABLED"}},
        compute_environments={
            "cpu-environment": {"status": "INVALID", "statusReason": "CLIENT_ERROR - no such subnet"},
        },
    )
    queues = {queue["name"]: dict(queue) for queue in fleet["queues"]}
    queues["gpu"] |= {"gpus": 8}
    queues["gpu-spot"] |= {"purchase": "on_demand"}
    queues["gpu-large"] |= {"share_identifier": "me"}
    queues["cpu-fair"] |= {"vcpus": 512}
    said = [finding.text for finding in of(examine(queues=list(queues.values())), "queues")]
    for queue, what in {
        "cpu-spot": "is DISABLED and VALID",
        "cpu": "compute environment cpu-environment is ENABLED and INVALID (CLIENT_ERROR - no such subnet)",
        "gpu": "gpus is 8 in the fleet file, and 1 at most of its machines",
        "gpu-spot": "is no queue of on_demand machines",
        "gpu-large": "has no fair-share policy",
        "cpu-fair": "may have 256 vCPU at once, but jobs of 512 are sent to it",
    }.items():
        assert [text for text in said if text.startswith(f"{queue}: {what}")], said


@pytest.mark.parametrize(
    ("service", "operation", "check", "right"),
    [
        ("batch", "DescribeJobQueues", "queues", "batch:DescribeJobQueues"),
        ("s3", "HeadBucket", "bucket", "s3:ListBucket"),
        ("s3", "GetBucket:publicAccessBlock", "privacy", "s3:GetBucketPublicAccessBlock"),
        ("iam", "GetRole", "roles", "iam:GetRole"),
        ("ecr", "DescribeImages", "images", "ecr:DescribeImages"),
        ("logs", "DescribeLogGroups", "log group", "logs:DescribeLogGroups"),
        ("servicequotas", "GetServiceQuota", "quotas", "servicequotas:GetServiceQuota"),
    ],
)
def test_a_right_that_lacks_is_a_warning_and_stops_nothing_else(
    aws: FakeAws, examine: Examine, service: str, operation: str, check: str, right: str
) -> None:
    aws.faults([{"kind": "access_denied", "service": service, "operation": operation}])
    found = examine()
    (finding,) = of(found, check)
    assert (finding.level, right in finding.text) == ("warning", True), finding
    assert {"credentials", "events"} <= {each.check for each in found if each.level == "ok"}


@pytest.mark.parametrize("right", ["PutObject", "GetObject", "DeleteObject"])
def test_who_may_not_use_the_bucket_is_told_which_right(aws: FakeAws, examine: Examine, right: str) -> None:
    operation = "DeleteObjects" if right == "DeleteObject" else right
    aws.faults([{"kind": "access_denied", "service": "s3", "operation": operation, "key": "fake-bucket*"}])
    (finding,) = of(examine(), "bucket use")
    assert finding.level == "fault"
    assert f"s3:{right} below s3://fake-bucket/runs/doctored" in finding.remedy


def test_without_credentials_there_is_one_line(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (finding,) = [each for each in examine() if each.level != "ok"]
    assert "No AWS credentials found" in finding.text


def test_expired_credentials_end_it_with_what_to_do(aws: FakeAws, examine: Examine) -> None:
    aws.faults([{"kind": "expired_token"}])
    (finding,) = [each for each in examine() if each.level != "ok"]
    assert (finding.check, finding.level) == ("credentials", "fault")
    assert "aws sso login" in finding.remedy


def test_a_fleet_file_of_another_account_is_a_fault(examine: Examine) -> None:
    other = "0" * 12
    found = examine(job_role_arn=f"arn:aws:iam::{other}:role/job-role")
    assert f"the fleet file is of {other}" in the(found, "account", "fault").text


@pytest.mark.parametrize(("minutes", "level"), [(2, "warning"), (10, "fault"), (-10, "fault")])
def test_a_wrong_clock_is_told(examine: Examine, monkeypatch: pytest.MonkeyPatch, minutes: int, level: str) -> None:
    def shifted(date: str) -> Any:
        return parsedate_to_datetime(date) - timedelta(minutes=minutes)

    monkeypatch.setattr("snakefold.doctor.account.parsedate_to_datetime", shifted)
    said = "ahead of" if minutes > 0 else "behind"
    assert f"s {said} that of AWS" in the(examine(), "clock", level).text


def test_databases_that_jobs_may_not_bring_are_faults(examine: Examine, fleet: dict[str, Any]) -> None:
    found = of(examine(database_role_arn=fleet["job_role_arn"]), "databases")
    assert [finding.level for finding in found] == ["fault"] * 4
    assert "databases sync" in found[0].remedy
    (wrong,) = of(examine("databases={preset: none_such}"), "databases")
    assert (wrong.level, "there is no preset" in wrong.text) == ("fault", True)


def test_the_command_has_exit_codes_and_json(examine: Examine, capsys: pytest.CaptureFixture[str]) -> None:
    examine()
    assert main(["doctor", "--profile", "aws-batch", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    assert {"check", "level", "text", "remedy"} == set(said["findings"][0])
    examine(bucket="no-such-bucket")
    assert main(["doctor", "--profile", "aws-batch"]) == 1
    text = capsys.readouterr().out
    assert "FAULT    bucket       there is no bucket no-such-bucket; correct its name" in text


def test_a_broken_fleet_file_is_told_and_nobody_asked(examine: Examine, aws: FakeAws) -> None:
    aws.reset_stats()
    found = examine(oops=1)
    assert [(each.check, each.level) for each in found] == [("fleet file", "fault")]
    assert aws.stats() == {}


# Quotas: moto has those of VPC alone, so the answers are botocore's stubs.


def quotas(aws: FakeAws, fleet: dict[str, Any], values: dict[str, float | None]) -> list[Finding]:
    """What the doctor says of quotas that have these values; None: never changed, AWS's default of 0 holds."""
    stubbed = boto3.client("service-quotas", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    clients = Clients("eu-west-1")

    def ask(service: str, operation: str, **arguments: Any) -> Any:
        if service != "service-quotas":
            return clients.ask(service, operation, **arguments)
        with Stubber(stubbed) as stub:
            value = values[arguments["QuotaCode"]]
            method = "get_service_quota" if operation == "GetServiceQuota" else "get_aws_default_service_quota"
            if value is None and operation == "GetServiceQuota":
                stub.add_client_error(method, "NoSuchResourceException")
            else:
                expected = {"ServiceCode": "ec2", "QuotaCode": arguments["QuotaCode"]}
                stub.add_response(method, {"Quota": {"Value": value or 0.0}}, expected)
            clients._clients["service-quotas", "eu-west-1"] = stubbed
            return clients.ask(service, operation, **arguments)

    return list(queue_checks(Fleet.model_validate(fleet), ask)["quotas"]())


@pytest.mark.usefixtures("examine")
def test_a_quota_too_small_for_a_queue_says_which_and_how_to_raise_it(aws: FakeAws, fleet: dict[str, Any]) -> None:
    values = {"L-1216C47A": 640.0, "L-34B43A08": 32.0, "L-DB2E81BA": 0.0, "L-3819A6DF": None}
    found = {finding.text: finding for finding in quotas(aws, fleet, values)}
    assert {text: each.level for text, each in found.items()} == {
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances: 640 vCPU": "ok",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests: 32 vCPU": "warning",
        "Running On-Demand G and VT instances: 0 vCPU": "fault",
        "All G and VT Spot Instance Requests: 0 vCPU": "fault",
    }
    remedy = found["Running On-Demand G and VT instances: 0 vCPU"].remedy
    assert remedy.startswith("gpu, gpu-large may start machines of 8")
    assert "--quota-code L-DB2E81BA --desired-value 8 --region eu-west-1" in remedy


@pytest.mark.parametrize(
    ("instance", "on_demand", "spot"),
    [
        ("g6e.xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p5.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("r6id", "L-1216C47A", "L-34B43A08"),
        ("i4i.large", "L-1216C47A", "L-34B43A08"),
        ("inf2.xlarge", None, None),
        ("x2idn.metal", None, None),
    ],
)
def test_each_family_counts_to_its_quota(instance: str, on_demand: str | None, spot: str | None) -> None:
    found = [quota_of(instance, spot=each) for each in (False, True)]
    assert [quota and quota.code for quota in found] == [on_demand, spot]


# Rights: moto has no simulator either.


@pytest.mark.parametrize(("decision", "level"), [("allowed", "ok"), ("implicitDeny", "warning")])
def test_who_may_not_pass_a_role_is_told(
    aws: FakeAws, examine: Examine, fleet: dict[str, Any], decision: str, level: str
) -> None:
    examine()
    clients = Clients("eu-west-1")
    iam = boto3.client("iam", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    clients._clients["iam", "eu-west-1"] = iam
    role = {
        "Path": "/people/",
        "RoleName": "developer",
        "RoleId": "A" * 16,
        "CreateDate": datetime(2026, 1, 1, tzinfo=UTC),
    }
    role["Arn"] = arn = "arn:aws:iam::123456789012:role/people/developer"
    caller = "arn:aws:sts::123456789012:assumed-role/developer/me"
    table = Fleet.model_validate(fleet)
    account = Account(place=load_place(), fleet=table, clients=clients, id="123456789012", caller=caller)
    allowed = {"EvalActionName": "batch:SubmitJob", "EvalResourceName": "*", "EvalDecision": "allowed"}
    asked = {"EvalActionName": "iam:PassRole", "EvalResourceName": fleet["job_role_arn"], "EvalDecision": decision}
    with Stubber(iam) as stub:
        stub.add_response("get_role", {"Role": role}, {"RoleName": "developer"})
        expected = {"PolicySourceArn": arn, "ActionNames": ANY}
        stub.add_response("simulate_principal_policy", {"EvaluationResults": [allowed]}, expected)
        expected = {**expected, "ResourceArns": ANY}
        for _ in ("RegisterJobDefinition", "TerminateJob", "SubmitJob"):
            stub.add_response("simulate_principal_policy", {"EvaluationResults": [allowed]}, expected)
        expected = {**expected, "ResourceArns": [fleet["job_role_arn"]], "ContextEntries": ANY}
        stub.add_response("simulate_principal_policy", {"EvaluationResults": [asked]}, expected)
        (finding,) = _rights(account)
    assert finding.level == level
    assert (f"iam:PassRole of {fleet['job_role_arn']}" in finding.text) == (level == "warning")


# This machine


def test_this_machine_is_examined_without_an_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    found = examine_machine([f"databases={{folder: {tmp_path}}}"])
    assert {finding.check for finding in found} == {"python", "tools", "memory", "sheet", "databases", "disk"}
    assert [finding for finding in found if finding.level == "fault"] == []
    found = examine_machine([f"samples={tmp_path / 'none.tsv'}", "databases={preset: none_such}"])
    assert {finding.check for finding in found if finding.level == "fault"} == {"sheet", "databases", "disk"}
    (wrong,) = [finding for finding in examine_machine(["oops=1"]) if finding.level == "fault"]
    assert wrong.check == "config"
    assert "oops" in wrong.text
