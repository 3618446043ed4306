"""The worker image, built once for all tests, and containers of it."""

import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from containers.engine import Engine, podman_environment
from snakefold.locking import locked
from tests.conftest import ROOT


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The worker image and the podman that has it."""

    podman: Engine
    image: str

    def command(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        """A container without network in which a command runs as AWS Batch would run it."""
        # podman would ask a registry for an image that is gone, and complains of health checks where systemd is not.
        fixed = ["--rm", "--interactive", "--pull=never", "--no-healthcheck", "--network=none"]
        return ["podman", "run", *fixed, *options, self.image, *command]

    def run(
        self, *command: str, options: tuple[str, ...] = (), stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*command, options=options),
            env={**os.environ, **self.podman.environment},
            input=stdin,
            capture_output=True,
            timeout=600,
            check=False,
        )

    def output(self, *command: str) -> str:
        """What a command prints; fails if it fails."""
        result = self.run(*command)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode()


def build_worker(folder: Path) -> Worker:
    """Build the image from Debian's packages and this machine's pip, unless an image of the same content is there.

    Of test processes that run side by side, one builds and the others wait for it.
    """
    command = [sys.executable, "-m", "containers.build", "worker", "--engine", "podman"]
    lock = ROOT / ".snakefold/containers/test.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, lambda _: None, "builds the worker image"):
        result = subprocess.run(
            [*command, "--base-from-packages", "--host-packages"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
    assert result.returncode == 0, result.stderr[-4000:]
    reference, _ = result.stdout.splitlines()[-1].split()
    return Worker(podman=Engine(name="podman", environment=podman_environment(folder)), image=reference)


def packed(folder: Path) -> bytes:
    """A folder as a tar archive whose files belong to nobody in particular."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()
