"""Which GPU of this machine a batch works on: one that no other batch has.

Elsewhere the batch system sees to it and shows a job its own GPU only. On one machine Snakemake counts GPUs if it is
told to (`--resources gpu=4`), but says to no job which, and two engines that share one run out of its memory.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from snakefold.locking import NoLocksError, one_locked

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's variable: the indices or UUIDs of the GPUs that a program sees."""

_ANSWER_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class OwnGpu:
    """What a batch's program is to be started with: environment variables, and descriptors that hold the lock."""

    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU of this machine, or a part (MIG) of one; `name` is what `CUDA_VISIBLE_DEVICES` calls it.

    `memory_mb` is 0 where the driver does not tell.
    """

    name: str
    uuid: str
    memory_mb: int


@contextmanager
def own_gpu(needed_mb: int, note: Callable[[str], None]) -> Iterator[OwnGpu]:
    """Have a GPU for the block, as soon as there is one that no other batch of this user has.

    It is the largest, of those with `needed_mb` of memory, if there are any. On a machine without NVIDIA's driver there
    is nothing to have. `note` is told if there is something to wait for.
    """
    gpus = sorted(visible_gpus(), key=lambda gpu: -gpu.memory_mb)
    gpus = [gpu for gpu in gpus if gpu.memory_mb >= needed_mb or not gpu.memory_mb] or gpus[:1]
    if not gpus:
        yield OwnGpu()
        return
    folder = Path(tempfile.gettempdir()) / f"snakefold-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    locks = [folder / gpu.uuid.replace("/", "_") for gpu in gpus]
    waiting = f"all GPUs of this machine that will do ({len(gpus)}) are at work for other batches; waiting for one"
    with ExitStack() as stack:
        try:
            held = stack.enter_context(one_locked(locks, note, waiting))
        except NoLocksError:
            note(f"{folder} has no locks (TMPDIR says where it is): other batches may take the same GPU")
            yield OwnGpu()
            return
        yield OwnGpu(environment={VISIBLE: gpus[held.index].name}, descriptors=[held.descriptor])


def visible_gpus() -> list[Gpu]:
    """The GPUs that programs may use, in CUDA's order where `CUDA_VISIBLE_DEVICES` states one.

    Jobs of a batch system on one machine may all be shown "0", and each mean another: only UUIDs tell GPUs apart.
    """
    listed = _listed()
    given = os.environ.get(VISIBLE)
    if given is None:
        return [part for parts in listed for part in parts]
    gpus: list[Gpu] = []
    for name in map(str.strip, given.split(",")):
        # Of a GPU that is divided, CUDA takes the first part; and it takes the beginning of a UUID for the whole.
        first = [parts[0] for index, parts in enumerate(listed) if name == str(index)]
        named = [part for parts in listed for part in parts if len(name) > 4 and part.uuid.startswith(name)]
        if not (found := first or named):
            break  # CUDA looks no further either
        gpus.append(Gpu(name=name, uuid=found[0].uuid, memory_mb=found[0].memory_mb))
    return gpus


def _listed() -> list[list[Gpu]]:
    """The GPUs of this machine, each as its parts, or as itself if it is not divided."""
    if shutil.which("nvidia-smi") is None:
        return []
    memory = dict(
        re.findall(r"(\S+), *([0-9]+)", _asked("--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"))
    )
    gpus: list[list[Gpu]] = []
    whole: list[bool] = []
    for kind, what, uuid in re.findall(r"^ *(GPU|MIG) (.*)\(UUID: ([\w/-]+)\)", _asked("-L"), re.MULTILINE):
        if kind == "GPU":
            gpus.append([Gpu(name=uuid, uuid=uuid, memory_mb=round(float(memory.get(uuid, 0)) * 1.048576))])
            whole.append(True)
            continue
        size = re.search(r"\.([0-9]+)gb", what)
        part = Gpu(name=uuid, uuid=uuid, memory_mb=1000 * int(size[1]) if size else 0)
        gpus[-1] = [part] if whole[-1] else [*gpus[-1], part]
        whole[-1] = False
    return gpus


def _asked(*arguments: str) -> str:
    """What `nvidia-smi` answers; nothing if it fails or does not answer at all."""
    try:
        command = ["nvidia-smi", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ANSWER_SECONDS).stdout
    except (subprocess.SubprocessError, OSError):
        return ""
