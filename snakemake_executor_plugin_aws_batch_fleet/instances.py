"""Which instance type a job ran on."""

from collections.abc import Iterable, Mapping

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws

_MOST = 100
"""Container instances that one call describes."""


class InstanceTypes:
    """Asks ECS for the types of container instances, once each; without the right to, it stays silent."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._types: dict[str, str] = {}
        self._asked: set[str] = set()
        self._allowed = True

    @property
    def known(self) -> Mapping[str, str]:
        """Container instance's ARN -> instance type."""
        return self._types

    def learn(self, arns: Iterable[str]) -> None:
        """Ask for those that were not asked for yet. An instance that is gone stays unknown."""
        clusters: dict[str, list[str]] = {}
        for arn in {arn for arn in arns if arn} - self._asked:
            self._asked.add(arn)
            # arn:aws:ecs:REGION:ACCOUNT:container-instance/CLUSTER/ID
            parts = arn.split("/")
            if len(parts) == 3:
                clusters.setdefault(parts[1], []).append(arn)
        for cluster, members in clusters.items():
            for start in range(0, len(members), _MOST):
                self._describe(cluster, members[start : start + _MOST])

    def _describe(self, cluster: str, arns: list[str]) -> None:
        if not self._allowed:
            return
        try:
            answer = self._aws.client("ecs").describe_container_instances(cluster=cluster, containerInstances=arns)
        except Exception:
            # The type is a nicety of the ledger; the right ecs:DescribeContainerInstances may be missing.
            self._allowed = False
            return
        for instance in answer.get("containerInstances", []):
            for attribute in instance.get("attributes", []):
                if attribute["name"] == "ecs.instance-type":
                    self._types[instance["containerInstanceArn"]] = attribute["value"]
