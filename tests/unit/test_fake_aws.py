"""What callers of the fake AWS rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import botocore.exceptions
import psutil
import pytest

from tests.fake_aws import FakeAws

ROOT = Path(__file__).resolve().parents[2]
SPOT_RULES = {
    "attempts": 3,
    "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}],
}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FakeAws, dict[str, Any]]]:
    with FakeAws(slots=8) as aws:
        fleet = aws.set_up(events=True)
        yield aws, fleet
        aws.reset()
        last = Account(aws, fleet)
        aws.wait_for_job(last.submit("sh", "-c", "trap '' TERM; sleep 987.75; true"), ["RUNNING"])
        sleeper = aws.wait_for(lambda: next((p for p in psutil.process_iter() if "987.75" in cmdline(p)), None))
    # A second server with all its queues would take seconds, hence the assertion here.
    # Dead is enough: it is an orphan now, which somebody else has to reap.
    assert not cmdline(sleeper), "a job outlived the server"


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Account:
    """The fake with a job definition, and the calls that most tests make."""

    def __init__(self, aws: FakeAws, fleet: dict[str, Any]) -> None:
        self.aws, self.fleet = aws, fleet
        self.batch = aws.client("batch")
        self.define("job", jobRoleArn=fleet["job_role_arn"])

    def define(self, name: str, *, top: dict[str, Any] | None = None, **container: Any) -> str:
        requirements = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
        properties = {"image": "worker:latest", "command": ["true"], "resourceRequirements": requirements, **container}
        return self.batch.register_job_definition(
            jobDefinitionName=name, type="container", containerProperties=properties, **(top or {})
        )["jobDefinitionArn"]

    def submit(
        self,
        *command: str,
        name: str = "a-job",
        queue: str = "cpu-spot",
        definition: str = "job",
        needs: dict[str, int] | None = None,
        environment: dict[str, str] | None = None,
        **request: Any,
    ) -> str:
        overrides: dict[str, Any] = {"command": list(command)}
        if needs:
            overrides["resourceRequirements"] = [{"type": kind, "value": str(n)} for kind, n in needs.items()]
        if environment:
            overrides["environment"] = [{"name": key, "value": value} for key, value in environment.items()]
        return self.batch.submit_job(
            jobName=name, jobQueue=queue, jobDefinition=definition, containerOverrides=overrides, **request
        )["jobId"]

    def run(self, *command: str, **request: Any) -> dict[str, Any]:
        return self.aws.wait_for_job(self.submit(*command, **request))

    def describe(self, *job_ids: str) -> list[dict[str, Any]]:
        return self.batch.describe_jobs(jobs=list(job_ids))["jobs"]


@pytest.fixture
def account(server: tuple[FakeAws, dict[str, Any]]) -> Iterator[Account]:
    aws, fleet = server
    aws.reset()
    yield Account(aws, fleet)


def error_code(caught: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    return caught.value.response["Error"]["Code"]


# ---------------------------------------------------------------- what a job sees
def test_a_job_sees_its_environment_and_nothing_of_ours(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    job = account.run(
        sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))", environment={"MINE": "1"}
    )
    seen = json.loads(account.aws.logs(job)[0])
    assert seen["MINE"] == "1"
    assert seen["AWS_BATCH_JOB_ID"] == job["jobId"]
    assert seen["AWS_BATCH_JOB_ATTEMPT"] == "1"
    assert seen["AWS_BATCH_JQ_NAME"] == "cpu-spot"
    assert "AWS_ACCESS_KEY_ID" not in seen
    assert not {name for name in os.environ if name in seen} - {"PATH", "HOME", "LANG", "TMPDIR", "LC_CTYPE"}
    assert seen["HOME"] != os.environ.get("HOME")


def test_a_role_gives_credentials_that_work_and_no_role_gives_none(account: Account) -> None:
    code = "import boto3; boto3.client('s3').put_object(Bucket='fake-bucket', Key='from-job', Body=b'x')"
    environment = {"AWS_DEFAULT_REGION": "eu-west-1"}
    assert account.run(sys.executable, "-c", code, environment=environment)["status"] == "SUCCEEDED"
    assert account.aws.client("s3").get_object(Bucket="fake-bucket", Key="from-job")["Body"].read() == b"x"
    account.define("roleless")
    refused = account.run(sys.executable, "-c", code, environment=environment, definition="roleless")
    assert refused["status"] == "FAILED"
    assert "Unable to locate credentials" in account.aws.logs(refused)[-1]


def test_exit_code_and_log_lines_arrive_where_aws_puts_them(account: Account) -> None:
    job = account.run("sh", "-c", "echo one; echo; echo two >&2; exit 3")
    assert (job["status"], job["container"]["exitCode"]) == ("FAILED", 3)
    assert job["statusReason"] == "Essential container in task exited"
    assert "reason" not in job["container"]
    events = account.aws.client("logs").get_log_events(
        logGroupName="/aws/batch/job", logStreamName=job["container"]["logStreamName"], startFromHead=True
    )["events"]
    assert [event["message"] for event in events] == ["one", " ", "two"]


def test_a_log_group_that_is_missing_keeps_the_job_from_starting(account: Account) -> None:
    account.define("logs-elsewhere", logConfiguration={"logDriver": "awslogs", "options": {"awslogs-group": "/other"}})
    job = account.run("true", definition="logs-elsewhere")
    assert "log group" in job["container"]["reason"]
    account.aws.client("logs").create_log_group(logGroupName="/other")
    assert account.run("true", definition="logs-elsewhere")["status"] == "SUCCEEDED"


def test_a_command_that_does_not_exist_is_a_failure_to_start(account: Account) -> None:
    job = account.run("no-such-program")
    assert job["statusReason"] == "Task failed to start"
    assert job["container"]["reason"].startswith("CannotStartContainerError")


def test_an_image_that_is_unknown_cannot_be_pulled(account: Account) -> None:
    account.aws.configure(images={"other": {}})
    assert account.run("true")["container"]["reason"].startswith("CannotPullContainerError")


# ---------------------------------------------------------------- attempts
def test_a_spot_reclaim_is_retried_and_an_exit_is_not(account: Account) -> None:
    account.aws.faults([{"kind": "spot", "match": "a-*", "times": 2}])
    job = account.run("true", retryStrategy=SPOT_RULES)
    assert job["status"] == "SUCCEEDED"
    assert [attempt["container"].get("exitCode") for attempt in job["attempts"]] == [None, None, 0]
    assert job["attempts"][0]["statusReason"].startswith("Host EC2 (instance i-")
    assert len(account.run("false", retryStrategy=SPOT_RULES)["attempts"]) == 1


def test_batch_retries_what_no_rule_matches(account: Account) -> None:
    rules = {"attempts": 2, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}]}
    assert len(account.run("false", retryStrategy=rules)["attempts"]) == 2


def test_faults_strike_the_queue_and_the_attempt_they_name(account: Account) -> None:
    account.aws.faults(
        [{"kind": "spot", "queue": "*-spot", "times": None}, {"kind": "exit", "exit_code": 9, "attempt": 2}]
    )
    assert "Host EC2" in account.run("true")["statusReason"]
    assert account.run("true", queue="cpu")["status"] == "SUCCEEDED"
    job = account.run("false", queue="cpu", retryStrategy={"attempts": 3})
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [1, 9, 1]


def test_a_fault_may_wait_for_a_line_of_the_log(account: Account) -> None:
    account.aws.faults([{"kind": "spot", "after_line": "half"}])
    job = account.run("sh", "-c", "echo begin; echo half way; sleep 60")
    assert job["statusReason"].startswith("Host EC2")
    assert account.aws.logs(job) == ["begin", "half way"]


@pytest.mark.parametrize(("kind", "reason"), [("pull", "CannotPullContainerError"), ("start", "CannotStartContainer")])
def test_a_container_that_does_not_start_has_a_reason_and_no_exit_code(
    account: Account, kind: str, reason: str
) -> None:
    account.aws.faults([{"kind": kind}])
    job = account.run("true")
    assert job["container"]["reason"].startswith(reason)
    assert "exitCode" not in job["container"]
    assert "startedAt" not in job


def test_memory_over_the_limit_ends_the_whole_container(account: Account) -> None:
    hog = "import time; x = b'1' * 300_000_000; time.sleep(60)"
    job = account.run("sh", "-c", f'{sys.executable} -c "{hog}" & sleep 60', needs={"MEMORY": 128})
    assert job["container"]["exitCode"] == 137
    assert job["container"]["reason"].startswith("OutOfMemoryError")


def test_the_kernel_may_take_the_largest_process_only(account: Account) -> None:
    account.aws.configure(oom_kills="largest")
    hog = "import time; x = b'1' * 300_000_000; time.sleep(60)"
    job = account.run(
        "sh", "-c", f'{sys.executable} -c "{hog}"; echo "tool ended with $?"; exit 1', needs={"MEMORY": 128}
    )
    assert job["container"]["exitCode"] == 1
    assert "reason" not in job["container"]
    assert account.aws.logs(job)[-1] == "tool ended with 137"


def test_a_time_out_asks_then_kills_and_is_not_retried(account: Account) -> None:
    account.aws.configure(time_scale=0.005)
    timeout = {"attemptDurationSeconds": 60}
    polite = account.run(
        "sh",
        "-c",
        "trap 'echo asked; exit 5' TERM; while :; do sleep 0.02; done",
        timeout=timeout,
        retryStrategy=SPOT_RULES,
    )
    assert polite["statusReason"] == "Job attempt duration exceeded timeout"
    assert (polite["container"]["exitCode"], len(polite["attempts"])) == (5, 1)
    assert account.aws.logs(polite)[-1] == "asked"
    deaf = account.run("sh", "-c", "trap '' TERM; while :; do sleep 0.02; done", timeout=timeout)
    assert deaf["container"]["exitCode"] == 137


def test_terminating_a_job_ends_all_its_processes(account: Account) -> None:
    # The grandchild is an orphan at once: neither a child of the job nor of its session's leader.
    job_id = account.submit("sh", "-c", "(sleep 987.25 &) ; echo ready; exec sleep 987.5")
    account.aws.wait_for(lambda: "ready" in account.aws.logs(job_id))
    account.batch.terminate_job(jobId=job_id, reason="because")
    job = account.aws.wait_for_job(job_id)
    assert (job["status"], job["statusReason"], job["isTerminated"]) == ("FAILED", "because", True)
    assert not [process for process in psutil.process_iter() if {"987.25", "987.5"} & set(cmdline(process))]


def test_cancelling_ends_what_has_not_started_only(account: Account) -> None:
    account.aws.configure(slots=1)
    running = account.submit("sleep", "60")
    account.aws.wait_for_job(running, ["RUNNING"])
    waiting = account.submit("true")
    for job_id in (running, waiting):
        account.batch.cancel_job(jobId=job_id, reason="not needed")
    assert account.aws.wait_for_job(waiting)["isCancelled"]
    assert account.aws.job(running)["status"] == "RUNNING"


# ---------------------------------------------------------------- queues
def test_a_queue_runs_as_many_jobs_as_its_vcpus_allow(account: Account) -> None:
    account.aws.configure(
        engine="null", null_seconds=600, slots=None,
        compute_environments={"cpu-environment": {"computeResources": {"maxvCpus": 10}}},
    )  # fmt: skip
    jobs = [account.submit("true", queue="cpu", needs={"VCPU": 4}) for _ in range(4)]
    account.aws.wait_for(lambda: account.aws.counts() == {"RUNNING": 2, "RUNNABLE": 2})
    account.batch.terminate_job(jobId=jobs[0], reason="room")
    account.aws.wait_for(lambda: account.aws.counts() == {"FAILED": 1, "RUNNING": 2, "RUNNABLE": 1})


def test_gpus_are_a_capacity_of_their_own(account: Account) -> None:
    account.aws.configure(
        engine="null", null_seconds=600, slots=None,
        compute_environments={"gpu-environment": {"computeResources": {"maxvCpus": 16}}},
    )  # fmt: skip
    for _ in range(3):
        account.submit("true", queue="gpu", needs={"GPU": 1})
    account.aws.wait_for(lambda: account.aws.counts() == {"RUNNING": 2, "RUNNABLE": 1})


@pytest.mark.parametrize(
    ("needs", "environment", "why"),
    [
        ({"VCPU": 97}, {}, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"),
        ({"GPU": 1}, {}, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"),
        ({"VCPU": 8}, {"computeResources": {"maxvCpus": 4}}, "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE"),
        ({}, {"status": "INVALID", "statusReason": "CLIENT_ERROR"}, "MISCONFIGURATION:COMPUTE_ENVIRONMENT"),
    ],
)
def test_a_job_that_can_never_run_says_why(
    account: Account, needs: dict[str, int], environment: dict[str, Any], why: str
) -> None:
    account.aws.configure(compute_environments={"cpu-environment": environment})
    job_id = account.submit("true", queue="cpu", needs=needs)
    account.aws.wait_for(lambda: account.describe(job_id)[0].get("statusReason", "").startswith(why))
    assert account.describe(job_id)[0]["status"] == "RUNNABLE"
    account.aws.configure(compute_environments={})
    if environment:
        assert account.aws.wait_for_job(job_id)["status"] == "SUCCEEDED"


def test_queues_and_environments_show_the_state_they_are_given(account: Account) -> None:
    account.aws.configure(
        compute_environments={"gpu-environment": {"status": "INVALID", "statusReason": "no such subnet"}},
        job_queues={"gpu": {"state": "DISABLED"}},
    )
    found = account.batch.describe_compute_environments(computeEnvironments=["gpu-environment"])
    assert found["computeEnvironments"][0]["statusReason"] == "no such subnet"
    assert account.batch.describe_job_queues(jobQueues=["gpu"])["jobQueues"][0]["state"] == "DISABLED"
    with pytest.raises(botocore.exceptions.ClientError, match="not ENABLED"):
        account.submit("true", queue="gpu")


def test_stuck_and_vanished_last_as_long_as_their_faults(account: Account) -> None:
    account.aws.faults([{"kind": "stuck", "match": "a-*"}])
    job_id = account.submit("true")
    account.aws.wait_for(
        lambda: "INSUFFICIENT_INSTANCE_CAPACITY" in account.describe(job_id)[0].get("statusReason", "")
    )
    account.aws.faults([{"kind": "vanished", "match": "a-*"}])
    assert account.describe(job_id) == []
    assert account.batch.list_jobs(jobQueue="cpu-spot", filters=[{"name": "JOB_NAME", "values": ["*"]}])[
        "jobSummaryList"
    ] == []  # fmt: skip
    account.aws.faults([])
    assert account.aws.wait_for_job(job_id)["status"] == "SUCCEEDED"


def test_a_container_instance_tells_its_machine_type(account: Account) -> None:
    job = account.run("true", queue="gpu-large")
    found = account.aws.client("ecs").describe_container_instances(
        cluster="any", containerInstances=[job["container"]["containerInstanceArn"]]
    )["containerInstances"][0]
    assert {"name": "ecs.instance-type", "value": "g6e.2xlarge"} in found["attributes"]


# ---------------------------------------------------------------- limits
def test_overrides_that_are_too_long_are_accepted_and_fail(account: Account) -> None:
    job = account.run("echo", "x" * 8200)
    assert job["status"] == "FAILED"
    assert job["statusReason"] == "Container Overrides length must be at most 8192"
    assert job["attempts"] == []


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"parameters": {"a": "x" * 31000}}, "30 KiB"),
        ({"environment": {"AWS_BATCH_X": "1"}}, "AWS_BATCH"),
        ({"queue": "cpu-fair"}, "shareIdentifier"),
        ({"shareIdentifier": "x"}, "shareIdentifier"),
        ({"timeout": {"attemptDurationSeconds": 59}}, "60 seconds"),
        ({"retryStrategy": {"attempts": 11}}, "attempts"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "*x", "action": "EXIT"}]}}, "onReason"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "*", "action": "EXIT"}] * 6}}, "At most 5"),
        ({"definition": "unknown"}, "does not exist"),
        ({"queue": "unknown"}, "does not exist"),
        ({"name": "with space"}, "Job name"),
        ({"needs": {"MEMORY": 1}}, "MEMORY=1"),
    ],
)
def test_submissions_at_fault_are_refused(account: Account, request_: dict[str, Any], says: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=says) as caught:
        account.submit("true", **request_)
    assert error_code(caught) == "ClientException"


def test_other_limits_hold(account: Account) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="24 KiB"):
        account.define("large", environment=[{"name": "A", "value": "x" * 25000}])
    with pytest.raises(botocore.exceptions.ClientError, match="100 jobs"):
        account.describe(*map(str, range(101)))
    assert account.run("true", queue="cpu-fair", shareIdentifier="default")["status"] == "SUCCEEDED"


def test_a_fault_makes_submission_refuse_one_job(account: Account) -> None:
    account.aws.faults([{"kind": "refuse", "match": "bad*", "reason": "no thanks"}])
    with pytest.raises(botocore.exceptions.ClientError, match="no thanks"):
        account.submit("true", name="bad-one")
    account.submit("true", name="good-one")


def test_calls_over_the_rate_are_refused_and_counted(account: Account) -> None:
    account.aws.configure(rates={"DescribeJobs": 2})
    codes = []
    for _ in range(5):
        try:
            account.describe("none")
        except botocore.exceptions.ClientError as error:
            codes.append((error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]))
    assert set(codes) == {("TooManyRequestsException", 429)}
    stats = account.aws.stats()
    assert stats["batch:DescribeJobs"] == 5
    assert stats["batch:DescribeJobs:throttled"] == len(codes) >= 2


# ---------------------------------------------------------------- lists
def test_lists_filter_by_name_or_status_and_come_in_pages(account: Account) -> None:
    account.aws.configure(engine="null", null_seconds=600, slots=None)
    ours = [account.submit("true", name=f"run1-{i}") for i in range(7)]
    other = account.submit("true", name="run2-0")
    account.aws.wait_for(lambda: account.aws.counts() == {"RUNNING": 8})
    account.batch.terminate_job(jobId=ours[0], reason="x")
    pages = account.batch.get_paginator("list_jobs").paginate(
        jobQueue="cpu-spot", filters=[{"name": "JOB_NAME", "values": ["RUN1-*"]}], PaginationConfig={"PageSize": 3}
    )
    sizes, found = [], []
    for page in pages:
        sizes.append(len(page["jobSummaryList"]))
        found += [job["jobId"] for job in page["jobSummaryList"]]
    assert (sizes, found) == ([3, 3, 1], ours[::-1])
    running = account.batch.list_jobs(jobQueue="cpu-spot")["jobSummaryList"]
    assert {job["jobId"] for job in running} == {*ours[1:], other}
    assert [j["jobId"] for j in account.batch.list_jobs(jobQueue="cpu-spot", jobStatus="FAILED")["jobSummaryList"]] == [
        ours[0]
    ]


# ---------------------------------------------------------------- S3
def test_of_many_conditional_puts_one_wins(account: Account) -> None:
    s3 = account.aws.client("s3")

    def put(name: int) -> str | None:
        try:
            s3.put_object(Bucket="fake-bucket", Key="lock", Body=str(name).encode(), IfNoneMatch="*")
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"]
        return None

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(put, range(8)))
    assert sorted(map(str, results)) == ["None"] + ["PreconditionFailed"] * 7
    etag = s3.head_object(Bucket="fake-bucket", Key="lock")["ETag"]
    s3.put_object(Bucket="fake-bucket", Key="lock", Body=b"taken over", IfMatch=etag)
    with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="fake-bucket", Key="lock", Body=b"too late", IfMatch=etag)


def test_s3_calls_are_counted_by_operation(account: Account) -> None:
    s3 = account.aws.client("s3")
    s3.put_object(Bucket="fake-bucket", Key="a/b", Body=b"x")
    s3.get_object(Bucket="fake-bucket", Key="a/b")["Body"].read()
    s3.head_object(Bucket="fake-bucket", Key="a/b")
    s3.list_objects_v2(Bucket="fake-bucket", Prefix="a/")
    s3.copy_object(Bucket="fake-bucket", Key="a/c", CopySource="fake-bucket/a/b")
    s3.delete_objects(Bucket="fake-bucket", Delete={"Objects": [{"Key": "a/b"}]})
    s3.delete_object(Bucket="fake-bucket", Key="a/c")
    upload = s3.create_multipart_upload(Bucket="fake-bucket", Key="big")["UploadId"]
    s3.upload_part(Bucket="fake-bucket", Key="big", UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket="fake-bucket", Key="big", UploadId=upload)
    operations = (
        "PutObject GetObject HeadObject ListObjectsV2 CopyObject DeleteObjects DeleteObject CreateMultipartUpload "
        "UploadPart AbortMultipartUpload"
    )
    assert account.aws.stats() == {f"s3:{name}": 1 for name in operations.split()} | {"batch:RegisterJobDefinition": 1}


def test_s3_slows_down_for_a_share_of_calls_or_a_number(account: Account) -> None:
    s3 = account.aws.client("s3")
    account.aws.faults([{"kind": "slow_down", "service": "s3", "operation": "PutObject", "share": 0.5}])
    refused = 0
    for i in range(40):
        try:
            s3.put_object(Bucket="fake-bucket", Key=str(i), Body=b"")
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "SlowDown"
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            refused += 1
    assert 8 <= refused <= 32
    assert account.aws.stats()["s3:PutObject:slow_down"] == refused
    account.aws.faults([{"kind": "internal_error", "key": "fake-bucket/x", "times": 1}])
    with pytest.raises(botocore.exceptions.ClientError, match="InternalError"):
        s3.put_object(Bucket="fake-bucket", Key="x", Body=b"")
    s3.put_object(Bucket="fake-bucket", Key="x", Body=b"")


def test_a_body_may_be_cut_in_the_middle(account: Account) -> None:
    s3 = account.aws.client("s3")
    s3.put_object(Bucket="fake-bucket", Key="x", Body=b"1" * 100_000)
    account.aws.faults([{"kind": "cut_reply", "operation": "GetObject", "times": 1}])
    body = s3.get_object(Bucket="fake-bucket", Key="x")["Body"]
    with pytest.raises((botocore.exceptions.ResponseStreamingError, botocore.exceptions.IncompleteReadError)):
        body.read()
    assert len(s3.get_object(Bucket="fake-bucket", Key="x")["Body"].read()) == 100_000


def test_a_connection_may_be_cut_before_or_after_the_deed(account: Account) -> None:
    for kind, done in (("cut_request", 0), ("cut_reply", 1)):
        account.aws.faults([{"kind": kind, "operation": "SubmitJob", "times": 1}])
        with pytest.raises(botocore.exceptions.HTTPClientError):
            account.submit("true", name=kind)
        assert sum(job["jobName"] == kind for job in account.aws.jobs()) == done
    account.aws.faults([{"kind": "cut_request", "operation": "PutObject", "times": 1}])
    s3 = account.aws.client("s3")
    with pytest.raises(botocore.exceptions.HTTPClientError):
        s3.put_object(Bucket="fake-bucket", Key="cut", Body=b"1" * 100_000)
    assert "Contents" not in s3.list_objects_v2(Bucket="fake-bucket")


def test_one_key_may_expire_while_another_works(account: Account) -> None:
    account.aws.faults([{"kind": "expired_token", "access_key": "AKIAFAKE"}])
    for service, call in (
        ("batch", lambda c: c.describe_jobs(jobs=["x"])),
        ("s3", lambda c: c.list_objects_v2(Bucket="fake-bucket")),
        ("sts", lambda c: c.get_caller_identity()),
        ("logs", lambda c: c.describe_log_groups()),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call(account.aws.client(service))
        assert error_code(caught) in ("ExpiredToken", "ExpiredTokenException")
        call(account.aws.client(service, access_key="AKIARENEWED"))


def test_permission_may_be_missing_for_one_operation(account: Account) -> None:
    account.aws.faults([{"kind": "access_denied", "service": "batch", "operation": "ListJobs"}])
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized to perform: batch:ListJobs"):
        account.batch.list_jobs(jobQueue="cpu")
    account.describe("x")


# ---------------------------------------------------------------- events, the null engine, the process
def test_state_changes_reach_the_events_queue(account: Account) -> None:
    job_id = account.submit("true")
    sqs, url, statuses = account.aws.client("sqs"), account.fleet["events_queue_url"], []

    def all_seen() -> bool:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            event = json.loads(message["Body"])
            if event["detail"]["jobId"] == job_id:
                assert event["detail-type"] == "Batch Job State Change"
                statuses.append(event["detail"]["status"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return "SUCCEEDED" in statuses

    account.aws.wait_for(all_seen)
    assert statuses == ["SUBMITTED", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED"]


def test_the_null_engine_writes_the_outputs_that_commands_name(account: Account) -> None:
    account.aws.configure(
        engine="null",
        null_outputs=[{"pattern": r"i=(\d+)", "bucket": "fake-bucket", "key": r"out/\1.txt", "body": "x"}],
    )
    account.run("snakemake", "--target-jobs", "a:i=17")
    assert account.aws.client("s3").get_object(Bucket="fake-bucket", Key="out/17.txt")["Body"].read() == b"x"


def test_a_hundred_of_many_held_jobs_are_described_at_once(account: Account) -> None:
    account.aws.configure(engine="null", null_seconds=600, slots=None)
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: account.submit("true"), range(150)))
    account.aws.wait_for(lambda: account.aws.counts() == {"RUNNING": 150})
    assert [job["jobId"] for job in account.describe(*jobs[:100])] == jobs[:100]


def test_reset_leaves_no_job_no_object_and_no_count(account: Account) -> None:
    account.submit("sleep", "60")
    account.aws.client("s3").put_object(Bucket="fake-bucket", Key="x", Body=b"")
    account.aws.reset()
    assert (account.aws.jobs(), account.aws.stats()) == ([], {})
    assert "Contents" not in account.aws.client("s3").list_objects_v2(Bucket="fake-bucket")


def test_settings_and_faults_that_do_not_exist_are_refused(account: Account) -> None:
    with pytest.raises(ValueError, match="slot"):
        account.aws.configure(slot=3)
    with pytest.raises(ValueError, match="afterwards"):
        account.aws.faults([{"kind": "spot", "afterwards": 3}])
    with pytest.raises(ValueError, match="engine"):
        FakeAws(engine="docker")


def test_it_dies_with_its_parent() -> None:
    code = """
import sys
from tests.fake_aws import FakeAws
with FakeAws() as aws:
    print(aws.pid, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        gone, _ = psutil.wait_procs([server], timeout=30)
    assert gone == [server]
