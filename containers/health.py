"""Imports what jobs need and prints its versions; runs in an image's own Python, with nothing but that image.

In an engine's image it also asks the engine's Python, which has nothing of the worker's, by a second run of this file.
"""

import importlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

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

ENGINE = Path("/opt/engine")
"""Where an engine's image has the engine: its Python, and in the file `modules` what that must be able to import."""


def main(names: list[str]) -> int:
    """Print a line for each module; the exit code is 1 if any cannot be imported.

    `names` are modules to import in place of the worker's and the engine's.
    """
    print(f"python {platform.python_version()}", flush=True)
    if names:
        return 1 if faults_of(owners_of(names)) else 0
    faults = faults_of(MODULES)
    modules = ENGINE / "modules"
    if modules.exists():
        command = [str(ENGINE / "bin/python"), "-I", __file__, *modules.read_text().split()]
        faults += subprocess.run(command, check=False).returncode != 0
    return 1 if faults else 0


def owners_of(names: list[str]) -> dict[str, str | None]:
    """The distribution that each module belongs to."""
    found = importlib.metadata.packages_distributions()
    return {name: next(iter(found.get(name.partition(".")[0], ())), None) for name in names}


def faults_of(modules: Mapping[str, str | None]) -> int:
    """How many of the modules cannot be imported."""
    faults = 0
    for module, distribution in modules.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # an import can fail in any way, and each is a finding
            print(f"{module}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            faults += 1
        else:
            print(f"{module} {importlib.metadata.version(distribution) if distribution else 'ok'}", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
