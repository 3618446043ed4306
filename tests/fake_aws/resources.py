"""A small account, made through the API: a bucket, roles, compute environments and queues."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from boto3.session import Session
from botocore.config import Config

REGION = "eu-west-1"


@dataclass(frozen=True, kw_only=True)
class QueuePlan:
    """A queue with one compute environment of one machine type. Memory in MiB."""

    name: str
    instance_type: str
    vcpus: int
    memory_mb: int
    purchase: str
    price_per_hour: float
    gpus: int = 0
    gpu_memory_mb: int = 0
    fair_share: bool = False


QUEUES = (
    QueuePlan(
        name="cpu-spot", instance_type="r6i.24xlarge", vcpus=96, memory_mb=768000, purchase="spot", price_per_hour=2.1
    ),
    QueuePlan(
        name="cpu", instance_type="r6i.24xlarge", vcpus=96, memory_mb=768000, purchase="on_demand", price_per_hour=6.05
    ),
    QueuePlan(
        name="cpu-fair", instance_type="r6i.24xlarge", vcpus=96, memory_mb=768000, purchase="on_demand",
        price_per_hour=6.1, fair_share=True,
    ),
    QueuePlan(
        name="gpu-spot", instance_type="g5.2xlarge", vcpus=8, memory_mb=31000, gpus=1, gpu_memory_mb=22888,
        purchase="spot", price_per_hour=0.45,
    ),
    QueuePlan(
        name="gpu", instance_type="g5.2xlarge", vcpus=8, memory_mb=31000, gpus=1, gpu_memory_mb=22888,
        purchase="on_demand", price_per_hour=1.21,
    ),
    QueuePlan(
        name="gpu-large", instance_type="g6e.2xlarge", vcpus=8, memory_mb=62000, gpus=1, gpu_memory_mb=45776,
        purchase="on_demand", price_per_hour=2.24,
    ),
)  # fmt: skip


class Clients:
    """boto3 clients of the fake that take nothing from this process's environment and retry nothing."""

    def __init__(
        self,
        endpoint: str,
        region: str = REGION,
        access_key: str = "AKIAFAKE",
        secret_key: str = "fake",
        token: str | None = None,
    ) -> None:
        self.endpoint, self.region = endpoint, region
        # One session for all: each new one would read the services' models again, 0.2 s a client.
        self._session = Session(access_key, secret_key, token, region_name=region)
        self._lock = threading.Lock()

    def client(self, service: str) -> Any:
        """A client of a service."""
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
        with self._lock:  # sessions are not made for threads, clients are
            return self._session.client(service, endpoint_url=self.endpoint, config=config)


def set_up(
    clients: Clients, *, bucket: str = "fake-bucket", max_vcpus: int = 256, events: bool = False
) -> dict[str, Any]:
    """Makes everything a run needs and returns the fleet in its file's form.

    With `events`, EventBridge's "Batch Job State Change" go to an SQS queue that the fleet names.
    """
    iam, ec2, batch, s3 = (clients.client(name) for name in ("iam", "ec2", "batch", "s3"))
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": clients.region})
    service_role = _role(iam, "batch-service", "batch.amazonaws.com")
    job_role = _role(iam, "job-role", "ecs-tasks.amazonaws.com")
    _role(iam, "instance-role", "ec2.amazonaws.com")
    profile = iam.create_instance_profile(InstanceProfileName="instance-role")["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName="instance-role", RoleName="instance-role")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    policy = batch.create_scheduling_policy(name="fair", fairsharePolicy={"shareDistribution": []})["arn"]
    for plan in QUEUES:
        spot = plan.purchase == "spot"
        strategy = "SPOT_PRICE_CAPACITY_OPTIMIZED" if spot else "BEST_FIT_PROGRESSIVE"
        environment = batch.create_compute_environment(
            computeEnvironmentName=f"{plan.name}-environment",
            type="MANAGED",
            state="ENABLED",
            serviceRole=service_role,
            computeResources={
                "type": "SPOT" if spot else "EC2",
                "allocationStrategy": strategy,
                "minvCpus": 0,
                "maxvCpus": max_vcpus,
                "desiredvCpus": 0,
                "instanceTypes": [plan.instance_type],
                "subnets": [subnet],
                "securityGroupIds": [group],
                "instanceRole": profile,
            },
        )["computeEnvironmentArn"]
        batch.create_job_queue(
            jobQueueName=plan.name,
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
            **({"schedulingPolicyArn": policy} if plan.fair_share else {}),
        )
    fleet: dict[str, Any] = {
        "region": clients.region,
        "bucket": bucket,
        "job_role_arn": job_role,
        "log_group": "/aws/batch/job",
        "tags": {"Project": "fake"},
        "images": {"worker": "worker:latest"},
        "queues": [
            {
                "name": plan.name,
                "vcpus": plan.vcpus,
                "memory_mb": plan.memory_mb,
                "gpus": plan.gpus,
                "gpu_memory_mb": plan.gpu_memory_mb,
                "purchase": plan.purchase,
                "price_per_hour": plan.price_per_hour,
                "share_identifier": "default" if plan.fair_share else None,
            }
            for plan in QUEUES
        ],
    }
    if events:
        fleet["events_queue_url"] = _events_queue(clients)
    return fleet


def _role(iam: Any, name: str, service: str) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
    }
    return iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]


def _events_queue(clients: Clients) -> str:
    sqs, events = clients.client("sqs"), clients.client("events")
    url = sqs.create_queue(QueueName="batch-events")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    pattern = {"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]}
    events.put_rule(Name="batch-events", EventPattern=json.dumps(pattern), State="ENABLED")
    events.put_targets(Rule="batch-events", Targets=[{"Id": "queue", "Arn": attributes["QueueArn"]}])
    return url
