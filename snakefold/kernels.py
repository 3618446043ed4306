"""Where compiled kernels lie: jobs of one machine that run in containers need not compile them anew."""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from snakefold.workflow import CACHE_VARIABLE


def share_kernels() -> None:
    """Let processes started from here keep Numba's kernels in the folder of the machine, if there is one.

    Numba takes another folder by itself if this one cannot be written.
    """
    if cache := os.environ.get(CACHE_VARIABLE):
        os.environ["NUMBA_CACHE_DIR"] = str(Path(cache) / ".kernels" / _kind())


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
