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
from itertools import chain
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
    names = list(gpus)
    waiting = f"all GPUs of this machine ({len(names)}) are at work for other batches; waiting for one"
    with one_locked([folder / gpus[name] for name in names], note, waiting) as free:
        yield {VISIBLE: names[free]}


def visible_gpus() -> Mapping[str, str]:
    """The UUIDs of the GPUs that programs may use, by what `CUDA_VISIBLE_DEVICES` calls them.

    Jobs of a batch system on one machine may all be shown "0", and each mean another: only UUIDs tell GPUs apart.
    """
    whole, parts = _listed()
    given = os.environ.get(VISIBLE)
    if given is None:
        return {uuid: uuid for gpu in whole for uuid in parts.get(gpu) or [gpu]}
    known = {str(index): uuid for index, uuid in enumerate(whole)}
    known |= {uuid: uuid for uuid in chain(whole, *parts.values())}
    gpus: dict[str, str] = {}
    for name in given.split(","):
        if name.strip() not in known:
            break  # CUDA looks no further either
        gpus[name.strip()] = known[name.strip()]
    return gpus


def _listed() -> tuple[list[str], dict[str, list[str]]]:
    """The UUIDs of this machine's GPUs, and of the parts (MIG) of those that are divided."""
    if shutil.which("nvidia-smi") is None:
        return [], {}
    said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    whole: list[str] = []
    parts: dict[str, list[str]] = {}
    for kind, uuid in re.findall(r"^ *(GPU|MIG) .*\(UUID: ([\w-]+)\)", said, re.MULTILINE):
        if kind == "GPU":
            whole.append(uuid)
        else:
            parts.setdefault(whole[-1], []).append(uuid)
    return whole, parts
