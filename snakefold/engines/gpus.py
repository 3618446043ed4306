"""Which GPU of this machine a batch works on: one that no other batch has.

Elsewhere the batch system sees to it and shows a job its own GPU only. On one machine Snakemake counts GPUs if it is
told to (`--resources gpu=4`), but says to no job which, and two engines that share one run out of its memory.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from snakefold.locking import one_locked

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's variable: the indices or UUIDs of the GPUs that a program sees."""


@contextmanager
def own_gpu(note: Callable[[str], None]) -> Iterator[Mapping[str, str]]:
    """Have one of the visible GPUs for the block, as soon as no other batch of this user has it.

    Yields the environment variables by which a program sees this one alone; none on a machine without NVIDIA's driver.
    `note` is told if there is something to wait for.
    """
    gpus = visible_gpus()
    if not gpus:
        yield {}
        return
    folder = Path(tempfile.gettempdir()) / f"snakefold-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    locks = [folder / re.sub(r"[^\w-]", "_", gpu) for gpu in gpus]
    waiting = f"all GPUs of this machine ({len(gpus)}) are at work for other batches; waiting for one"
    with one_locked(locks, note, waiting) as free:
        yield {VISIBLE: gpus[free]}


def visible_gpus() -> list[str]:
    """The GPUs that programs may use, by what `CUDA_VISIBLE_DEVICES` calls them; parts (MIG) where one is divided."""
    if (given := os.environ.get(VISIBLE)) is not None:
        return [gpu for gpu in given.split(",") if gpu.strip() not in ("", "-1", "NoDevFiles")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    found = re.findall(r"^( *)(?:GPU|MIG) .*\(UUID: ([\w-]+)\)", listed.stdout, re.MULTILINE)
    gpus: list[str] = []
    divided: set[str] = set()
    whole = ""
    for indented, uuid in found:
        if indented:
            divided.add(whole)
        else:
            whole = uuid
        gpus.append(uuid)
    return [gpu for gpu in gpus if gpu not in divided]
