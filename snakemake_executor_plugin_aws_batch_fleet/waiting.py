"""Why jobs of a queue do not start, as far as AWS tells."""

from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws, error_code
from snakemake_executor_plugin_aws_batch_fleet.routing import Need


def explain_queue(queue: dict[str, Any], environments: list[dict[str, Any]], need: Need) -> list[str]:
    """Reasons why a job may not start, from the descriptions of its queue and of its compute environments."""
    reasons = []
    name = queue["jobQueueName"]
    if queue.get("state") != "ENABLED":
        reasons.append(f"queue {name} is {str(queue.get('state')).lower()}")
    if queue.get("status") not in ("VALID", "UPDATING"):
        reasons.append(f"queue {name} is {queue.get('status')}: {queue.get('statusReason') or 'no reason given'}")
    usable = False
    for environment in environments:
        label = f"compute environment {environment['computeEnvironmentName']}"
        resources = environment.get("computeResources") or {}
        most = resources.get("maxvCpus")
        if environment.get("state") != "ENABLED":
            reasons.append(f"{label} is {str(environment.get('state')).lower()}")
        elif environment.get("status") not in ("VALID", "UPDATING"):
            why = environment.get("statusReason") or "no reason given"
            reasons.append(f"{label} is {environment.get('status')}: {why}")
        elif most is not None and most < need.vcpus:
            reasons.append(f"{label} may have {most} vCPUs, the job needs {need.vcpus}")
        else:
            usable = True
            if most is not None and resources.get("desiredvCpus", 0) >= most:
                reasons.append(f"{label} is full (all its {most} vCPUs are in use)")
    if not environments:
        reasons.append(f"queue {name} has no compute environment")
    if usable and not reasons:
        reasons.append(
            "queue and compute environments are in order: AWS may have no such machines free, the account's vCPU quota "
            "may be used up, or new machines do not join the cluster (network, instance role)"
        )
    return reasons


def why_waiting(aws: Aws, queue_name: str, need: Need) -> str:
    """The reasons in one line; asks AWS."""
    try:
        queues = aws.batch.describe_job_queues(jobQueues=[queue_name])["jobQueues"]
        if not queues:
            return f"queue {queue_name} does not exist"
        names = [entry["computeEnvironment"] for entry in queues[0].get("computeEnvironmentOrder", [])]
        environments: list[dict[str, Any]] = []
        if names:
            answer = aws.batch.describe_compute_environments(computeEnvironments=names)
            environments = answer["computeEnvironments"]
    except Exception as error:
        return f"AWS could not be asked why ({error_code(error)})"
    return "; ".join(explain_queue(queues[0], environments, need))
