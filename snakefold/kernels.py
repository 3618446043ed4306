"""Where compiled code lies: jobs of one machine that run in containers need not compile it anew."""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from snakefold.workflow import CACHE_VARIABLE

JAX_VARIABLE = "SNAKEFOLD_JAX_CACHE"
"""Environment variable of the folder in which drivers keep networks that JAX compiled (drivers/alphafold2.py)."""


def share_kernels() -> None:
    """Let processes started from here keep Numba's kernels in the folder of the machine, if there is one.

    Numba takes another folder by itself if this one cannot be written.
    """
    if cache := os.environ.get(CACHE_VARIABLE):
        os.environ["NUMBA_CACHE_DIR"] = str(Path(cache) / ".kernels" / _kind())


def share_networks() -> None:
    """Let drivers keep what JAX compiled there too: a network for each length, which takes minutes.

    JAX names what it keeps by all that it depends on (network, versions, kind of GPU), and compiles anew what it finds
    broken. A folder that the user named stays, and one that cannot be written is not used.
    """
    cache = os.environ.get(CACHE_VARIABLE)
    if not cache or os.environ.get(JAX_VARIABLE):
        return
    folder = Path(cache) / ".kernels" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ[JAX_VARIABLE] = str(folder)


def _kind() -> str:
    """A digest of the sources, the compiler and the processor.

    Numba tells these apart by itself, but reads its index and the code in two steps: of two versions that write at a
    time, one could get the code of the other. In a folder that holds one kind, all writers write the same.
    """
    from llvmlite import binding

    digest = hashlib.sha256()
    for fact in (version("numba"), binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()):
        digest.update(f"{fact}\0".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
