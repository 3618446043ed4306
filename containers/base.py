"""A base image made from the packages of a Debian mirror, for machines that reach no container registry."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from containers.engine import Engine
from containers.images import ContainerError

SUITE = "bookworm"
REFERENCE = f"localhost/snakefold/debian:{SUITE}"


def base_from_packages(engine: Engine, *, afresh: bool = False) -> str:
    """The reference of a minimal Debian, made now unless this machine has it already (or afresh).

    It holds what the slim image of the registry holds: essential packages and apt, no documents. The mirror is
    mmdebstrap's default; it reads the machine's apt settings (proxy, certificates).

    Raises:
        ContainerError: the engine cannot import, mmdebstrap is missing or failed.

    """
    if engine.name == "buildah":
        raise ContainerError("buildah cannot import a base image; use podman or docker for --base-from-packages")
    if not afresh and engine.image_id(REFERENCE):
        return REFERENCE
    if not shutil.which("mmdebstrap"):
        raise ContainerError("mmdebstrap: not found; on Debian: apt-get install mmdebstrap (or give --base)")
    with tempfile.TemporaryDirectory(prefix="snakefold-base-") as folder:
        archive = Path(folder) / "base.tar"
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
        command = ["mmdebstrap", "--quiet", "--variant=minbase", *excluded, SUITE, str(archive)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ContainerError(f"mmdebstrap: {(result.stderr.strip().splitlines() or ['failed'])[-1]}")
        engine.run("import", str(archive), REFERENCE)
    return REFERENCE
