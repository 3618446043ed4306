"""The configuration applied, to the fake AWS: what comes out of it is a platform on which the example runs.

One apply serves all tests of this module. moto answers at once, but the provider waits for changes to settle, as on
AWS: most of the time here is spent waiting.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet
from tests.conftest import Clone, clone_into
from tests.fake_aws import FakeAws
from tests.fake_aws.resources import REGION, Clients
from tests.infra.policies import Statement, allowed
from tests.infra.terraform import MODULE, NONE_FOUND, ROOT, Terraform, find_mirror, initialised

SERVICES = ("batch", "budgets", "cloudwatch", "ec2", "ecr", "events", "iam", "logs", "s3", "sqs", "sts")
ACCOUNT = "123456789012"


@dataclass(frozen=True)
class Platform:
    """What an apply made, on a fake AWS."""

    aws: FakeAws
    terraform: Terraform
    arguments: tuple[str, ...]
    before: dict[str, set[str]]
    """What was in the account before, by service."""
    outputs: dict[str, Any]

    @property
    def fleet(self) -> dict[str, Any]:
        """The output that is the fleet file."""
        return self.outputs["fleet"]


def say(text: str) -> None:
    """Print in spite of pytest: these seconds are asked for."""
    print(text, file=sys.__stderr__, flush=True)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    if find_mirror() is None:
        pytest.skip(NONE_FOUND)
    folder = tmp_path_factory.mktemp("platform")
    image = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "SNAKEFOLD_DATABASE_CACHE": str(folder / "databases"),
    }
    with pytest.MonkeyPatch.context() as patch:
        # AWS's own policies, of which one is attached to the instance role.
        patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        fake = FakeAws(images={"*": image}, slots=os.cpu_count() or 2)
        fake.__enter__()
    try:
        # moto does not have the service-linked role that AWS Batch makes for itself.
        trust = {"Version": "2012-10-17", "Statement": []}
        role = fake.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        arguments = (
            "-no-color",
            "-input=false",
            "-auto-approve",
            "-refresh=false",
            "-parallelism=30",
            f"-var=region={REGION}",
            f"-var=batch_service_role_arn={role['Arn']}",
            "-var=delete_data_on_destroy=true",
            '-var=images={worker="worker:latest"}',
        )
        before = inventory(fake)
        terraform = initialised(folder, **fake.environment)
        (terraform.folder / "fake_override.tf").write_text(override(fake.endpoint))
        started = time.monotonic()
        terraform.run("apply", *arguments)
        say(f"\nterraform apply on moto: {time.monotonic() - started:.0f} s")
        raw = json.loads(terraform.run("output", "-json"))
        yield Platform(fake, terraform, arguments, before, {name: each["value"] for name, each in raw.items()})
    finally:
        fake.__exit__(None, None, None)


def override(endpoint: str) -> str:
    """The provider's block, so that it asks the fake, and gives up soon."""
    endpoints = "".join(f'    {service} = "{endpoint}"\n' for service in SERVICES)
    return (
        'provider "aws" {\n  region = var.region\n  max_retries = 2\n  skip_credentials_validation = true\n'
        "  skip_metadata_api_check = true\n  s3_use_path_style = true\n"
        f"  default_tags {{\n    tags = local.tags\n  }}\n  endpoints {{\n{endpoints}  }}\n}}\n"
    )


def test_the_fleet_file_is_what_the_executor_accepts(platform: Platform) -> None:
    fleet = Fleet.model_validate(platform.fleet)
    assert {queue.name for queue in fleet.queues} == {
        f"snakefold-{name}"
        for name in ("cpu-small", "cpu-spot", "cpu", "cpu-nvme-spot", "gpu-spot", "gpu", "gpu-48gb-spot", "gpu-48gb")
    }
    gpu = fleet.queue("snakefold-gpu-spot")
    assert gpu is not None and (gpu.vcpus, gpu.gpus, gpu.gpu_memory_mb, gpu.purchase) == (16, 1, 23999, "spot")
    assert 0.9 * 64 * 1073.7 < gpu.memory_mb < 64 * 1073.7
    large = fleet.queue("snakefold-gpu-48gb")
    assert large is not None and large.gpu_memory_mb > 45000
    assert {name for name, value in platform.fleet.items() if not value} == set(), "every key has a value"
    assert platform.outputs["repositories"]["worker"].endswith("/snakefold/worker")
    assert platform.outputs["database_role_arn"] == fleet.database_role_arn


def test_machines_may_start_and_are_bought_as_the_fleet_file_says(platform: Platform) -> None:
    batch, ec2 = platform.aws.client("batch"), platform.aws.client("ec2")
    environments = {
        each["computeEnvironmentArn"]: each["computeResources"]
        for each in batch.describe_compute_environments()["computeEnvironments"]
    }
    queues = {each["jobQueueName"]: each for each in batch.describe_job_queues()["jobQueues"]}
    templates = {each["LaunchTemplateId"] for each in ec2.describe_launch_templates()["LaunchTemplates"]}
    for queue in platform.fleet["queues"]:
        described = queues[queue["name"]]
        assert (described["state"], described["status"]) == ("ENABLED", "VALID")
        (order,) = described["computeEnvironmentOrder"]
        resources = environments[order["computeEnvironment"]]
        assert resources["minvCpus"] == 0
        assert resources["type"] == {"spot": "SPOT", "on_demand": "EC2"}[queue["purchase"]]
        assert resources["launchTemplate"]["launchTemplateId"] in templates


# ---------------------------------------------------------------- permissions

ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in (MODULE / "README.md").read_text().splitlines()
    if re.search(r"\| (allowed|denied) \|$", line)
]


@dataclass(frozen=True)
class Who:
    """A role (or the submitter's policy): its statements, and its clients."""

    statements: list[Statement]
    clients: Clients


@pytest.fixture
def whos(platform: Platform) -> Iterator[dict[str, Who]]:
    iam = platform.aws.client("iam")

    def managed(arn: str) -> list[Statement]:
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        return iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]["Statement"]

    found = {}
    for name in ("job", "database", "controller", "execution", "instance"):
        role = f"snakefold-{name}"
        statements: list[Statement] = []
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            statements += iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]["Statement"]
        for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            statements += managed(policy["PolicyArn"])
        found[name] = Who(statements, _clients(platform, keys_of_role(platform, name)))
    submitter = platform.outputs["submitter_policy_arn"]
    iam.create_user(UserName="submitter")
    iam.attach_user_policy(UserName="submitter", PolicyArn=submitter)
    keys = iam.create_access_key(UserName="submitter")["AccessKey"]
    found["submitter"] = Who(managed(submitter), _clients(platform, keys))
    yield found
    iam.delete_access_key(UserName="submitter", AccessKeyId=keys["AccessKeyId"])
    iam.detach_user_policy(UserName="submitter", PolicyArn=submitter)
    iam.delete_user(UserName="submitter")


def keys_of_role(platform: Platform, name: str) -> dict[str, str]:
    """Keys as ECS gives them to a job with that role."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/snakefold-{name}"
    return platform.aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]


def _clients(platform: Platform, keys: dict[str, str]) -> Clients:
    return Clients(
        platform.aws.endpoint,
        access_key=keys["AccessKeyId"],
        secret_key=keys["SecretAccessKey"],
        token=keys.get("SessionToken"),
    )


def arn_and_context(platform: Platform, thing: str) -> tuple[str, dict[str, str]]:
    """What the README's third column means."""
    bucket, here = f"arn:aws:s3:::{platform.fleet['bucket']}", f"{REGION}:{ACCOUNT}"
    role, _, service = thing.partition(", to ")
    context = (
        {"iam:PassedToService": {"containers": "ecs-tasks", "machines": "ec2"}[service] + ".amazonaws.com"}
        if service
        else {}
    )
    if match := re.fullmatch(r"the (\w+) role", role):
        return f"arn:aws:iam::{ACCOUNT}:role/snakefold-{match[1]}", context
    arns = {
        "the bucket": bucket,
        "databases": f"{bucket}/.snakefold/databases/uniref90/manifest.json",
        "runs": f"{bucket}/runs/first/results/summary.tsv",
        "store": f"{bucket}/.snakefold/store/blobs/00",
        "elsewhere in the bucket": f"{bucket}/private/letter.txt",
        "another bucket": "arn:aws:s3:::another-bucket/object",
        "a queue of ours": f"arn:aws:batch:{here}:job-queue/snakefold-cpu-spot",
        "a queue of others": f"arn:aws:batch:{here}:job-queue/render-farm",
        "a job definition of the executor": f"arn:aws:batch:{here}:job-definition/snakemake-0123456789abcdef01234567:1",
        "a job definition of others": f"arn:aws:batch:{here}:job-definition/render:1",
        "a job": f"arn:aws:batch:{here}:job/6081b80c-0000-0000-0000-000000000000",
        "a machine": f"arn:aws:ecs:{here}:container-instance/AWSBatch-snakefold/0123456789abcdef",
        "the log group": f"arn:aws:logs:{here}:log-group:/aws/batch/snakefold:log-stream:job/default/1",
        "a log group of others": f"arn:aws:logs:{here}:log-group:/aws/lambda/payroll:log-stream:1",
        "the events queue": f"arn:aws:sqs:{here}:snakefold-events",
        "the repository": f"arn:aws:ecr:{here}:repository/snakefold/worker",
        "a role of others": f"arn:aws:iam::{ACCOUNT}:role/administrator",
        "everything": "*",
    }
    return arns[role], context


def delete(s3: Any, bucket: str, key: str) -> None:
    """Of several objects at once, as ours are deleted; then faults are in the answer."""
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]})
    for error in answer.get("Errors", []):
        raise ClientError({"Error": error}, "DeleteObjects")


REQUESTS: dict[str, Callable[[Any, str, str], Any]] = {
    "s3:ListBucket": lambda s3, bucket, key: s3.list_objects_v2(Bucket=bucket),
    "s3:GetObject": lambda s3, bucket, key: s3.get_object(Bucket=bucket, Key=key),
    "s3:PutObject": lambda s3, bucket, key: s3.put_object(Bucket=bucket, Key=key, Body=b"new"),
    "s3:DeleteObject": delete,
}


def test_every_role_may_do_what_the_table_says_and_no_more(platform: Platform, whos: dict[str, Who]) -> None:
    assert len(ROWS) > 60
    s3 = platform.aws.client("s3")
    s3.create_bucket(Bucket="another-bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    wrong, asked = [], 0
    for who, action, thing, wanted in ROWS:
        arn, context = arn_and_context(platform, thing)
        said = {"by its policies": allowed(whos[who].statements, action, arn, context)}
        if action in REQUESTS:
            asked += 1
            bucket, _, key = arn.removeprefix("arn:aws:s3:::").partition("/")
            if key:
                s3.put_object(Bucket=bucket, Key=key, Body=b"here")
            said["by a request"] = request_allowed(platform, whos[who], action, bucket, key)
            if key:
                s3.delete_object(Bucket=bucket, Key=key)
        wrong += [
            f"{who} {action} {thing}: {how}" for how, is_allowed in said.items() if is_allowed != (wanted == "allowed")
        ]
    s3.delete_bucket(Bucket="another-bucket")
    say(f"permissions: {len(ROWS)} rows, {asked} of them also by requests")
    assert wrong == []


def request_allowed(platform: Platform, who: Who, action: str, bucket: str, key: str) -> bool:
    """Whether moto, asked with that role's keys while its authorisation is on, does it."""
    authorise(platform, after=0)
    try:
        REQUESTS[action](who.clients.client("s3"), bucket, key)
    except ClientError as error:
        assert error.response["Error"]["Code"] in ("AccessDenied", "403"), error
        return False
    finally:
        authorise(platform, after=float("inf"))
    return True


def authorise(platform: Platform, after: float) -> None:
    """Let moto ask for permissions after so many calls."""
    url = f"{platform.aws.endpoint}/moto-api/reset-auth"
    request = urllib.request.Request(
        url, data=str(after).encode(), method="POST", headers={"Content-Type": "text/plain"}
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()


def test_jobs_read_databases_that_only_the_databases_own_role_publishes(platform: Platform, tmp_path: Path) -> None:
    """Our commands with the keys of these roles, while moto asks for permissions."""
    folder = f"s3://{platform.fleet['bucket']}/.snakefold/databases"

    def snakefold(role: str, *arguments: str) -> tuple[int, str]:
        settings = f"databases={{folder: '{folder}', cache: '{tmp_path / role}'}}"
        keys = keys_of_role(platform, role)
        variables = {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }
        authorise(platform, after=0)
        try:
            result = subprocess.run(
                [sys.executable, "-m", "snakefold", "databases", *arguments, "--config", settings],
                cwd=ROOT,
                env={**os.environ, **platform.aws.environment, **variables},
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            authorise(platform, after=float("inf"))
        return result.returncode, result.stdout + result.stderr

    def download(role: str) -> tuple[int, str]:
        return snakefold(role, "download", "mini_proteins", "--manifest", str(tmp_path / f"{role}.json"))

    code, said = download("job")
    assert code != 0
    assert "s3:PutObject" in said or "denied" in said.lower(), said
    assert "Traceback" not in said
    code, said = download("database")
    assert code == 0, said
    code, said = download("job")
    assert code == 0, said
    assert (tmp_path / "job.json").read_text() == (tmp_path / "database.json").read_text()
    code, said = snakefold("job", "verify")
    assert code == 0, said


def test_the_bucket_refuses_connections_that_are_not_encrypted(platform: Platform) -> None:
    policy = json.loads(platform.aws.client("s3").get_bucket_policy(Bucket=platform.fleet["bucket"])["Policy"])
    (statement,) = policy["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# ---------------------------------------------------------------- a run


def test_the_example_runs_through_the_queues_that_terraform_made(platform: Platform, tmp_path: Path) -> None:
    """apply -> `make aws-config` -> doctor -> `databases sync` -> `snakemake --profile aws-batch` -> jobs that run."""
    clone = clone_into(tmp_path / "clone")
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=clone.folder, check=True)
    run = RunOnPlatform(clone.folder, {**platform.aws.environment, "SNAKEFOLD_RUN": "applied"})
    # What `make aws-config` calls.
    run.snakefold("aws-config", "--terraform", str(platform.terraform.folder))
    assert yaml.safe_load((clone.folder / "profiles/aws-batch/fleet.yaml").read_text()) == platform.fleet
    assert {each["check"] for each in examined(run, code=1) if each["level"] == "fault"} == {"databases"}
    run.snakefold("databases", "sync")
    # moto has neither quotas nor IAM's simulator; the image is none of ECR's.
    found = examined(run, code=0)
    assert {each["check"] for each in found if each["level"] != "ok"} == {"quotas", "rights", "images"}
    assert sum(each["check"] == "queues" for each in found) == len(platform.fleet["queues"])
    started = time.monotonic()
    output = run.run()
    say(f"the example through Terraform's queues: {time.monotonic() - started:.0f} s")
    assert "5 done, 1 skipped, 0 failed" in output

    sync, *jobs = sorted(platform.aws.jobs(), key=lambda job: "sync_databases" not in job["jobName"])
    assert sync["container"]["jobRoleArn"] == platform.fleet["database_role_arn"]
    assert Counter(job["status"] for job in jobs) == {"SUCCEEDED": 10}
    for job in jobs:
        assert job["jobQueue"].rpartition("/")[2] in {queue["name"] for queue in platform.fleet["queues"]}
        container = job["container"]
        assert container["jobRoleArn"] == platform.fleet["job_role_arn"]
        assert container["executionRoleArn"] == platform.fleet["execution_role_arn"]
        assert container["logConfiguration"]["options"]["awslogs-group"] == "/aws/batch/snakefold"
        assert container["mountPoints"][0]["containerPath"] == "/mnt/databases"
        assert job["tags"]["Project"] == "snakefold"
        assert platform.aws.logs(job)
    stats = platform.aws.stats()
    assert stats["sqs:ReceiveMessage"] > 0, "the executor hears of its jobs by events"


def examined(run: Clone, code: int) -> list[dict[str, str]]:
    """What the doctor finds."""
    return json.loads(run.snakefold("doctor", "--profile", "aws-batch", "--json", code=code))["findings"]


@dataclass(frozen=True)
class RunOnPlatform(Clone):
    """A clone whose runs go through the profile."""

    def command(self, *arguments: str) -> list[str]:
        """The command line of a run."""
        snakemake = str(Path(sys.executable).with_name("snakemake"))
        return [snakemake, "--profile", "aws-batch", "--seconds-between-status-checks", "1", *arguments]


# ---------------------------------------------------------------- the end


def test_destroy_leaves_nothing(platform: Platform) -> None:
    """Not even what a run has put into the bucket. Comes last."""
    started = time.monotonic()
    platform.terraform.run("destroy", *platform.arguments)
    say(f"terraform destroy on moto: {time.monotonic() - started:.0f} s")
    assert platform.terraform.run("state", "list") == ""
    after = inventory(platform.aws)
    assert {name: left - platform.before[name] for name, left in after.items() if left - platform.before[name]} == {}


def inventory(aws: FakeAws) -> dict[str, set[str]]:
    """Everything of the kinds that the module makes, by kind."""
    listings = {
        "buckets": ("s3", "list_buckets", "Buckets", "Name"),
        "queues": ("batch", "describe_job_queues", "jobQueues", "jobQueueName"),
        "compute environments": (
            "batch",
            "describe_compute_environments",
            "computeEnvironments",
            "computeEnvironmentName",
        ),
        "launch templates": ("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
        "VPCs": ("ec2", "describe_vpcs", "Vpcs", "VpcId"),
        "subnets": ("ec2", "describe_subnets", "Subnets", "SubnetId"),
        "addresses": ("ec2", "describe_addresses", "Addresses", "AllocationId"),
        "security groups": ("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
        "volumes": ("ec2", "describe_volumes", "Volumes", "VolumeId"),
        "roles": ("iam", "list_roles", "Roles", "RoleName"),
        "instance profiles": ("iam", "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
        "repositories": ("ecr", "describe_repositories", "repositories", "repositoryName"),
        "log groups": ("logs", "describe_log_groups", "logGroups", "logGroupName"),
        "rules": ("events", "list_rules", "Rules", "Name"),
        "dashboards": ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    }
    found = {
        kind: {each[name] for each in getattr(aws.client(service), operation)()[key]}
        for kind, (service, operation, key, name) in listings.items()
    }
    endpoints = aws.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    # moto goes on to show those that were deleted, as AWS does for a while.
    found["endpoints"] = {each["VpcEndpointId"] for each in endpoints if each["State"] != "deleted"}
    found["policies"] = {each["Arn"] for each in aws.client("iam").list_policies(Scope="Local")["Policies"]}
    found["SQS queues"] = set(aws.client("sqs").list_queues().get("QueueUrls", []))
    budgets = aws.client("budgets").describe_budgets(AccountId=ACCOUNT).get("Budgets", [])
    found["budgets"] = {each["BudgetName"] for each in budgets}
    return found
