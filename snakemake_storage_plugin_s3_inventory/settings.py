"""Settings of the plugin, which Snakemake offers as `--storage-s3-inventory-...`."""

from dataclasses import dataclass, field

from snakemake_interface_storage_plugins.settings import StorageProviderSettingsBase


@dataclass
class StorageProviderSettings(StorageProviderSettingsBase):
    """Where the objects lie and how patiently S3 is asked.

    There is no setting for keys or tokens, on purpose: Snakemake hands the settings of a storage plugin to its remote
    jobs, where secrets would stand in clear text in job definitions. Credentials come from AWS's usual chain.
    """

    prefix: str | None = field(
        default=None,
        metadata={
            "help": "Prefix below which files are known from one listing, like s3://bucket/runs/a. By default the "
            "default storage prefix; without one, the first part of each file's key.",
            "type": str,
        },
    )
    endpoint_url: str | None = field(
        default=None,
        metadata={"help": "S3 endpoint (by default AWS's own, or AWS_ENDPOINT_URL).", "type": str},
    )
    region: str | None = field(
        default=None,
        metadata={
            "help": "Region of the bucket (by default that of the AWS configuration).",
            "type": str,
        },
    )
    retries: int = field(
        default=10,
        metadata={"help": "How often a call that S3 throttles or that a network cuts is made in all.", "type": int},
    )
    credentials_grace: float = field(
        default=60.0,
        metadata={
            "help": "Minutes to wait for new credentials when they expire during a run (jobs wait for five at most).",
            "type": float,
        },
    )
