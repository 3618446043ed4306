"""The fleet file: what the profile `aws-batch` and our commands must know of an AWS account.

docs/aws.md tells how to write it. The queues, roles, images and mounts in it are the executor plugin's concern (its
README describes them); here stands where a run's files lie.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from snakefold.errors import SnakefoldError

VARIABLE = "SNAKEFOLD_FLEET"
"""Environment variable with the path of a fleet file, where it is not the usual one."""

RUN_VARIABLE = "SNAKEFOLD_RUN"
"""Environment variable with the name of a run: runs of different names in one bucket do not meet."""

USUAL_PATH = Path("profiles/aws-batch/fleet.yaml")

_UNKNOWN = "no-fleet-file-yet"
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Where runs keep their files."""

    path: Path
    region: str
    bucket: str
    run: str
    images: tuple[str, ...] = ()
    """Names of the images that are listed."""

    @property
    def prefix(self) -> str:
        """Below this lie the files of the run."""
        return f"s3://{self.bucket}/runs/{self.run}"


def load_fleet(run: str | None = None) -> Fleet:
    """The fleet file of the environment. Raises SnakefoldError that says what is missing and what to do.

    `run` is a run's name; by default the environment has it.
    """
    path = fleet_path()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SnakefoldError(
            f"{path}: there is no fleet file, which says where your bucket and queues are; `make aws-config` writes it "
            f"from Terraform, or write it from {USUAL_PATH.with_name('fleet.example.yaml')}, or name one in {VARIABLE}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SnakefoldError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SnakefoldError(f"{path}: is not a list of keys and values; see docs/aws.md")
    region, bucket = check_content(content, path)
    images = content.get("images")
    listed = tuple(map(str, images)) if isinstance(images, dict) else ()
    return Fleet(path=path, region=region, bucket=bucket, run=_run(run), images=listed)


def fleet_of_run(prefix: str) -> Fleet | None:
    """The fleet whose run has its files below a storage prefix; None if that is not the profile's doing."""
    try:
        fleet = load_fleet()
    except SnakefoldError:
        return None
    return fleet if fleet.prefix == prefix.rstrip("/") else None


def check_content(content: dict[str, Any], path: Path) -> tuple[str, str]:
    """Region and bucket that a fleet file at `path` names. Raises SnakefoldError."""
    return _text(content, "region", path), _bucket(_text(content, "bucket", path), path)


def fleet_of_profile(arguments: list[str]) -> Fleet:
    """The fleet as the profile needs it, by Snakemake's command line.

    A dry run, and whatever else submits nothing, works without an account: it gets a fleet of no bucket. A run without
    a fleet file ends here, in one line.
    """
    try:
        if _submits_nothing(arguments) and not fleet_path().exists():
            return Fleet(path=fleet_path(), region="us-east-1", bucket=_UNKNOWN, run=_run())
        return load_fleet()
    except SnakefoldError as error:
        sys.exit(f"snakefold: {error}")


def _submits_nothing(arguments: list[str]) -> bool:
    """Whether a command line of Snakemake's starts no job: dry runs, and questions about the workflow."""
    quiet = {"--dry-run", "--dryrun", "--lint", "--list", "--list-rules", "--list-target-rules", "--summary"}
    quiet |= {"--detailed-summary", "--dag", "--d3dag", "--rulegraph", "--filegraph", "--unlock", "--help", "--version"}
    return any(each in quiet or re.fullmatch(r"-[FRpqk]*n[FRpqk]*", each) for each in arguments)


def fleet_path() -> Path:
    """Where the fleet file is, or would be."""
    return Path(os.environ.get(VARIABLE) or USUAL_PATH)


def _run(given: str | None = None) -> str:
    name = given or os.environ.get(RUN_VARIABLE) or "default"
    if not _RUN_NAME.fullmatch(name):
        where = "--run" if given else RUN_VARIABLE
        raise SnakefoldError(f"{where}: {name!r} cannot name a run; use letters, digits, '.', '_' and '-'")
    return name


def _text(content: dict[str, Any], key: str, path: Path) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise SnakefoldError(f"{path}: {key}: is missing; see {USUAL_PATH.with_name('fleet.example.yaml')}")
    return value


def _bucket(name: str, path: Path) -> str:
    if not _BUCKET_NAME.fullmatch(name):
        raise SnakefoldError(f"{path}: bucket: {name!r} is not a bucket's name; write it without s3:// and prefix")
    return name
