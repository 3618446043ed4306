"""Imports what every job needs and prints its versions; runs in the worker image, with nothing but that image."""

import importlib
import importlib.metadata
import platform
import sys

MODULES = {
    "snakemake": "snakemake",
    "snakemake_executor_plugin_aws_batch_fleet": None,
    "snakemake_storage_plugin_s3_inventory": None,
    "boto3": "boto3",
    "openmm": "openmm",
    "pyhmmer": "pyhmmer",
    "numba": "numba",
}
"""Module to the distribution that knows its version; None for what is copied into the image and has none of its own."""


def main() -> int:
    """Print a line for each module; the exit code is 1 if any cannot be imported."""
    print(f"python {platform.python_version()}")
    faults = 0
    for module, distribution in MODULES.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # an import can fail in any way, and each is a finding
            print(f"{module}: {type(error).__name__}: {error}", file=sys.stderr)
            faults += 1
        else:
            print(f"{module} {importlib.metadata.version(distribution) if distribution else 'ok'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
