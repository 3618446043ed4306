"""Packages downloaded by this machine's pip, for builds that reach no package index by themselves."""

import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from containers.images import ContainerError

PYTHON = "3.11"
"""The Python of the image: that of Debian bookworm."""
GLIBC_MINOR = 36
"""Its C library is glibc 2.36."""


def download(locks: Sequence[Path], cache: Path) -> Path:
    """Download what the locks of one image name, with hashes checked; returns the folder, named by the locks' digest.

    This machine's settings of pip (index, certificates, folders) apply here and never reach the image. The build checks
    the hashes again. What the cache, a folder of that image, holds of other locks is removed.

    Raises:
        ContainerError: pip failed.

    """
    name = hashlib.sha256(b"\0".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    folder = cache / name
    complete = cache / f"{name}.complete"
    if complete.exists():
        return folder
    shutil.rmtree(cache, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for lock in locks:
        result = subprocess.run(download_command(lock, folder), capture_output=True, text=True, check=False)
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ["failed"])[-1]
            raise ContainerError(f"pip download of {lock.name}: {last}")
    complete.touch()
    return folder


def download_command(lock: Path, folder: Path) -> list[str]:
    """The call of pip: for the image's Python and C library, whichever this machine has."""
    machine = platform.machine().replace("arm64", "aarch64").replace("AMD64", "x86_64")
    # pip does not conclude from one manylinux tag that the older ones will do as well.
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 4, -1)]
    tags += [f"manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--no-deps", "--implementation", "cp", "--python-version", PYTHON]
    command += [argument for tag in tags for argument in ("--platform", tag)]
    return [*command, "--find-links", str(folder), "--dest", str(folder), "--requirement", str(lock)]
