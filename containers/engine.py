"""The program that builds and runs images: podman, docker or buildah, and what it needs to work on this machine."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from containers.images import ContainerError

ENGINES = ("podman", "docker", "buildah")
"""In the order in which they are looked for."""
_NOT_THERE = re.compile(
    r"StatusCode: 404|(manifest|name|repository) unknown|no such manifest|RepositoryNotFound", re.IGNORECASE
)
PROBE = ("run", "--rm", "--network=none", "--rootfs", "/:O", "true")
"""Runs `true` in a container over this machine's own root directory, read through an overlay: no image is needed."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A program that builds images, and the environment it is called with."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, show: bool = False) -> str:
        """Call it; returns what it printed, or shows that on standard error while it works.

        Raises:
            ContainerError: it failed; with the last line that it printed.

        """
        command = [self.name, *arguments]
        environment = {**os.environ, **self.environment}
        if show:
            code = subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
            if code:
                raise ContainerError(f"{self.name} {arguments[0]} failed with exit code {code}; the reason is above")
            return ""
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
            raise ContainerError(f"{self.name} {' '.join(arguments[:2])}: {lines[-1]}")
        return result.stdout.strip()

    def is_pushed(self, reference: str) -> bool:
        """Whether a registry has this image. Raises ContainerError if it does not tell."""
        try:
            self.run("manifest", "inspect", reference)
        except ContainerError as error:
            if _NOT_THERE.search(str(error)):
                return False
            raise
        return True

    def image_id(self, reference: str) -> str | None:
        """The id of a local image, or None if there is none of that name."""
        # buildah calls it an error to be asked for an image that is not there, unless it is asked by a filter.
        asked = ["--filter", f"reference={reference}"] if self.name == "buildah" else [reference]
        listed = self.run("images", "--quiet", "--no-trunc", *asked)
        return listed.splitlines()[0] if listed else None


def find_engine(folder: Path, name: str | None = None) -> Engine:
    """The engine to use.

    Args:
        folder: where settings that podman and buildah need on this machine may be written.
        name: which; by default the first that is there.

    Raises:
        ContainerError: none is there, or it cannot run containers here.

    """
    found = [engine for engine in ([name] if name else ENGINES) if shutil.which(engine)]
    if not found:
        raise ContainerError(f"{name or ', '.join(ENGINES)}: not found; install one of podman, docker and buildah")
    if found[0] == "docker":
        return Engine(name="docker")
    # buildah shares podman's settings and cannot be probed by itself; it only builds.
    environment = podman_environment(folder) if shutil.which("podman") else {}
    return Engine(name=found[0], environment=environment)


def podman_environment(folder: Path) -> dict[str, str]:
    """The variables under which podman can run a container here; empty where it can by itself.

    As root without systemd and with limited rights, podman's defaults fail (limits above the allowed, cgroups in
    hybrid mode, which crun refuses). Then a `containers.conf` in the folder says what works; nothing is changed in the
    settings of the machine or the user.

    Raises:
        ContainerError: it cannot, even so.

    """
    podman = Engine(name="podman")
    try:
        podman.run(*PROBE)
    except ContainerError:
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder.resolve() / "containers.conf"
        settings.write_text(limited_settings())
        podman = Engine(name="podman", environment={"CONTAINERS_CONF": str(settings)})
        podman.run(*PROBE)
    return dict(podman.environment)


def limited_settings() -> str:
    """A containers.conf for a machine that runs no systemd and allows no limits to be raised."""
    # podman lowers its own limit of processes to its default, and may then pass on no more, whatever it was before.
    files, processes = (
        min(ceiling, resource.getrlimit(kind)[1] % 2**64)
        for kind, ceiling in ((resource.RLIMIT_NOFILE, 1048576), (resource.RLIMIT_NPROC, 32768))
    )
    lines = [
        "[containers]",
        f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]',
        "[engine]",
        'cgroup_manager = "cgroupfs"',
        'events_logger = "file"',
    ]
    if shutil.which("runc"):
        lines.append('runtime = "runc"')
    return "\n".join(lines) + "\n"


def main() -> int:
    """Tell by the exit code whether podman can run containers here, and if not, why."""
    try:
        with tempfile.TemporaryDirectory(prefix="snakefold-podman-") as folder:
            find_engine(Path(folder), "podman")
    except ContainerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build_command(
    engine: str,
    *,
    dockerfile: str,
    context: Path,
    tags: Sequence[str],
    base: str,
    labels: Mapping[str, str],
    arguments: Mapping[str, str] | None = None,
    contexts: Mapping[str, Path] | None = None,
    afresh: bool = False,
) -> list[str]:
    """The arguments of a build, without the engine's name.

    Args:
        engine: podman, docker or buildah.
        dockerfile: path below the context.
        context: the repository.
        tags: references that the image gets.
        base: reference of the base image.
        labels: written into the image.
        arguments: of the Dockerfile, beside the base.
        contexts: folders that stand in for stages of the Dockerfile, such as `wheels` for a package index.
        afresh: use no layer of an earlier build.

    """
    command = ["build", "--file", str(context / dockerfile), "--build-arg", f"BASE={base}", "--network", "host"]
    # Health checks exist in docker's format of images only, which podman and buildah do not use by default.
    command += ["--load"] if engine == "docker" else ["--format", "docker"]
    if engine == "buildah":
        command.append("--layers")
    if afresh:
        command.append("--no-cache")
    for tag in tags:
        command += ["--tag", tag]
    for key, value in labels.items():
        command += ["--label", f"{key}={value}"]
    for key, value in (arguments or {}).items():
        command += ["--build-arg", f"{key}={value}"]
    for stage, folder in (contexts or {}).items():
        command += ["--build-context", f"{stage}={folder}"]
    return [*command, str(context)]


if __name__ == "__main__":
    sys.exit(main())
