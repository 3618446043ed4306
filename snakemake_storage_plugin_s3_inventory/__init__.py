"""Snakemake storage plugin `s3-inventory`: files in S3, known from one listing of the run instead of calls per file."""

from snakemake_storage_plugin_s3_inventory.provider import StorageObject, StorageProvider
from snakemake_storage_plugin_s3_inventory.settings import StorageProviderSettings

__all__ = ["StorageObject", "StorageProvider", "StorageProviderSettings"]
