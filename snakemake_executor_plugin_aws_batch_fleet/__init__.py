"""Snakemake executor for AWS Batch: a table of queues, restarts that adopt running jobs, failures explained.

Snakemake imports every installed plugin at each start, also in workers and dry runs. So nothing heavy is imported
here: boto3 and pydantic come when an executor is really made.
"""

from snakemake_executor_plugin_aws_batch_fleet.executor import Executor
from snakemake_executor_plugin_aws_batch_fleet.settings import ExecutorSettings, common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
