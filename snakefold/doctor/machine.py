"""What a run without a profile needs of the machine."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from snakefold import workflow
from snakefold.config import Config
from snakefold.databases.manifest import MANIFEST_NAME, is_complete, read_manifest
from snakefold.databases.registry import in_units, load_registry
from snakefold.doctor.findings import Finding, run_checks
from snakefold.errors import SnakefoldError
from snakefold.files import is_address
from snakefold.sheet import check_sheets, relocated

_PACKAGES = ("snakemake", "openmm", "pyhmmer", "gemmi", "biotite", "modelcif", "boto3")
_PLUGINS = ("snakemake_executor_plugin_aws_batch_fleet", "snakemake_storage_plugin_s3_inventory")
_LEAST_MEMORY = 4e9
"""Bytes that a search and a relaxation of the shipped example take with room to spare."""


def examine_machine(changes: Sequence[str]) -> list[Finding]:
    """Look at Python, tools, config, sheet, databases, disk and memory; `changes` are for `--config`."""
    try:
        config = workflow.config_of_this_job(changes)
    except SnakefoldError as error:
        return [*_python(), Finding(check="config", level="fault", text=str(error))]
    checks = {
        "python": _python,
        "tools": _tools,
        "memory": _memory,
        "sheet": partial(_sheet, config),
        "databases": partial(_databases, config),
        "disk": partial(_disk, config),
    }
    return run_checks(checks, explain)


def explain(check: str, error: Exception) -> Finding:
    """A fault of what a check raised."""
    return Finding(check=check, level="fault", text=" ".join(str(error).split()) or type(error).__name__)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    missing = [name for name in (*_PACKAGES, *_PLUGINS) if find_spec(name) is None]
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding(check="python", level="fault", text=f"{version}", remedy="use 3.11, 3.12 or 3.13")
    elif missing:
        text = f"{sys.executable} lacks {', '.join(missing)}"
        yield Finding(check="python", level="fault", text=text, remedy="`make .venv/run`, and use .venv/bin")
    else:
        yield Finding(check="python", level="ok", text=f"{version} with all packages and both plugins")


def _tools() -> Iterator[Finding]:
    found = [name for name in ("git", "aria2c", "podman", "docker") if shutil.which(name)]
    if "git" not in found:
        remedy = "install it; runs on AWS send the files that git tracks"
        yield Finding(check="tools", level="warning", text="git is not there", remedy=remedy)
    yield Finding(check="tools", level="ok", text=f"{', '.join(found) or 'none'} (aria2c and containers are optional)")


def _memory() -> Iterator[Finding]:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    text = f"{in_units(size)}, {os.cpu_count()} processors"
    if size < _LEAST_MEMORY:
        yield Finding(check="memory", level="warning", text=text, remedy="large targets will not fit; --cores 1 helps")
    else:
        yield Finding(check="memory", level="ok", text=text)


def _sheet(config: Config) -> Iterator[Finding]:
    targets, faults = check_sheets([Path(path) for path in config.samples], config)
    for fault in faults:
        yield Finding(check="sheet", level="fault", text=fault)
    if not faults:
        yield Finding(check="sheet", level="ok", text=f"{', '.join(config.samples)}: {len(targets)} targets")


def _databases(config: Config) -> Iterator[Finding]:
    registry = load_registry(relocated(Path(config.databases.registry)))
    names = config.databases_of(registry.preset(config.databases.preset))
    folder = config.databases.folder
    if is_address(folder):
        yield Finding(check="databases", level="ok", text=f"in {folder}; `doctor --profile aws-batch` looks there")
        return
    for name in names:
        place = Path(folder) / name
        try:
            whole = is_complete(place, read_manifest(place / MANIFEST_NAME))
        except SnakefoldError:
            whole = False
        size = in_units(registry.database(name).size)
        text = f"{name}: in {folder}" if whole else f"{name}: not in {folder} yet; the first run brings it ({size})"
        yield Finding(check="databases", level="ok", text=text)


def _disk(config: Config) -> Iterator[Finding]:
    """Room for what a run still lacks: downloads and what they unpack to."""
    registry = load_registry(relocated(Path(config.databases.registry)))
    names = config.databases_of(registry.preset(config.databases.preset))
    folder = Path(config.databases.cache if is_address(config.databases.folder) else config.databases.folder)
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    missing = [name for name in names if not (folder / name / MANIFEST_NAME).exists()]
    needed = sum(registry.database(name).size for name in missing)
    text = f"{in_units(free)} free at {there}, {in_units(needed)} needed for databases"
    if free < needed:
        remedy = "free some, or set databases.folder in the config to another disk"
        yield Finding(check="disk", level="fault", text=text, remedy=remedy)
    elif not os.access(there, os.W_OK):
        yield Finding(check="disk", level="fault", text=f"{there} cannot be written", remedy="see its owner and rights")
    else:
        yield Finding(check="disk", level="ok", text=text)
