"""Terraform as these tests run it: on a copy of the root module, its provider from a mirror on this machine.

Nothing is fetched from a network. A mirror is a folder that holds `<registry>/hashicorp/aws`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "infra/terraform"
NONE_FOUND = (
    "Terraform, or a mirror of the provider hashicorp/aws, is not on this machine: the configuration was only checked "
    "by python-hcl2 against tests/infra/schema.json"
)


@dataclass(frozen=True)
class Terraform:
    """An initialised copy of the root module."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment."""

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        """Run Terraform to its end; returns what it printed. Fails if the exit code is another."""
        result = subprocess.run(
            ["terraform", *arguments],
            cwd=self.folder,
            env={**os.environ, "TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1", **self.variables},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == code, result.stdout[-4000:] + result.stderr[-8000:]
        return result.stdout


@cache
def find_mirror() -> Path | None:
    """A folder with the provider, if Terraform is on PATH and can use it."""
    if shutil.which("terraform") is None:
        return None
    return next((folder for folder in _places() if list(folder.glob("*/hashicorp/aws"))), None)


def _places() -> Iterator[Path]:
    home = Path.home()
    for file in (os.environ.get("TF_CLI_CONFIG_FILE"), home / ".terraformrc"):
        if file and Path(file).is_file():
            yield from (
                Path(path) for path in re.findall(r'^\s*path\s*=\s*"(.+)"', Path(file).read_text(), re.MULTILINE)
            )
    if cached := os.environ.get("TF_PLUGIN_CACHE_DIR"):
        yield Path(cached)
    yield home / ".terraform.d/plugins"
    for shared in ("/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins"):
        yield Path(shared)
    if Path("/opt").is_dir():
        yield from sorted(path for path in Path("/opt").iterdir() if path.is_dir())


def copy_module(folder: Path) -> Path:
    """Copy the root module, and what it reads, below a folder; returns the copy."""
    # Not what belongs to somebody's own platform.
    private = shutil.ignore_patterns(".terraform*", "*.tfstate*", "terraform.tfvars", "*.auto.tfvars", "backend.tf")
    shutil.copytree(MODULE, folder / "infra/terraform", ignore=private)
    (folder / "containers").mkdir()
    shutil.copyfile(ROOT / "containers/images.yaml", folder / "containers/images.yaml")
    return folder / "infra/terraform"


def initialised(folder: Path, **variables: str) -> Terraform:
    """A copy of the root module below a folder, ready for plans. A mirror must have been found."""
    terraform = Terraform(copy_module(folder), variables)
    terraform.run("init", "-no-color", "-input=false", f"-plugin-dir={find_mirror()}")
    return terraform
