"""Each batch on a GPU of its own, as far as there are any."""

import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from snakefold.engines.gpus import own_gpu, visible_gpus
from snakefold.locking import NoLocksError

LISTED = """\
GPU 0: NVIDIA T400 4GB (UUID: GPU-aaaa-1)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-2)
  MIG 3g.20gb     Device  0: (UUID: MIG-bbbb-1)
  MIG 4g.20gb     Device  1: (UUID: MIG-GPU-bbbb/7/0)
GPU 2: NVIDIA GeForce RTX 4090 (UUID: GPU-aaaa-3)
"""
MEMORY = "GPU-aaaa-1, 4096\nGPU-aaaa-2, 40960\nGPU-aaaa-3, 24564\n"


class MustWaitError(Exception):
    """There is no GPU left."""


def refuse(what: str) -> None:
    raise MustWaitError(what)


def answering(folder: Path, listed: str, memory: str, code: int = 0) -> None:
    """Put an `nvidia-smi` into a folder."""
    program = folder / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\nif [ $1 = -L ]; then cat <<'END'\n{listed}END\nelse cat <<'END'\n{memory}END\nfi\nexit {code}\n"
    )
    program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a small GPU, one that is divided, and a large one."""
    answering(tmp_path, LISTED, MEMORY)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def chosen(batches: ExitStack, needed_mb: int = 0) -> str:
    return batches.enter_context(own_gpu(needed_mb, refuse)).environment["CUDA_VISIBLE_DEVICES"]


@pytest.mark.usefixtures("machine")
def test_each_batch_gets_the_largest_gpu_that_is_free_and_the_next_waits() -> None:
    with ExitStack() as batches:
        got = [chosen(batches) for _ in range(4)]
        assert got == ["GPU-aaaa-3", "MIG-bbbb-1", "MIG-GPU-bbbb/7/0", "GPU-aaaa-1"]
        with pytest.raises(MustWaitError, match=r"all GPUs of this machine that will do \(4\) are at work"):
            chosen(batches)
    with ExitStack() as batches:
        assert chosen(batches, 8000) == "GPU-aaaa-3"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("needed_mb", [25_000, 80_000])
def test_a_gpu_that_is_too_small_is_left_alone_unless_all_are(needed_mb: int) -> None:
    with ExitStack() as batches:
        assert chosen(batches, needed_mb) == "GPU-aaaa-3"
        with pytest.raises(MustWaitError, match=r"\(1\)"):
            chosen(batches, needed_mb)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2,MIG-bbbb-1", ["2", "MIG-bbbb-1"]),
        ("GPU-aaaa-3", ["GPU-aaaa-3"]),
        ("MIG-GPU-bbbb/7/0", ["MIG-GPU-bbbb/7/0"]),
        ("1", ["1"]),
        ("MIG-b", ["MIG-b"]),
        ("0,-1,2", ["0"]),
        ("", []),
        ("7", []),
    ],
)
def test_who_chose_gpus_gets_those(given: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert [gpu.name for gpu in visible_gpus()] == expected


@pytest.mark.usefixtures("machine")
def test_the_first_part_of_a_divided_gpu_is_the_same_by_either_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as batches:
        for name in ("1", "MIG-bbbb-1"):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
            if name == "1":
                assert chosen(batches) == "1"
            else:
                with pytest.raises(MustWaitError):
                    chosen(batches)


def test_jobs_that_are_shown_different_gpus_under_one_number_do_not_wait(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with ExitStack() as batches:
        assert chosen(batches) == "0"
        answering(machine, "GPU 0: NVIDIA L4 (UUID: GPU-cccc-1)\n", "GPU-cccc-1, 23034\n")
        assert chosen(batches) == "0"
        with pytest.raises(MustWaitError):
            chosen(batches)


@pytest.mark.usefixtures("machine")
def test_a_program_that_outlives_the_batch_keeps_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with own_gpu(0, refuse) as gpu:
        program = subprocess.Popen(["/bin/sleep", "600"], pass_fds=gpu.descriptors)
    with pytest.raises(MustWaitError), own_gpu(0, refuse):
        pass
    program.kill()
    program.wait()
    with own_gpu(0, refuse) as again:
        assert again.environment == {"CUDA_VISIBLE_DEVICES": "0"}


def test_gpus_whose_memory_nobody_tells_are_taken_like_others(machine: Path) -> None:
    listed = "GPU 0: NVIDIA GB10 (UUID: GPU-dddd-1)\nGPU 1: NVIDIA GB10 (UUID: GPU-dddd-2)\n"
    answering(machine, listed, "GPU-dddd-1, [N/A]\nGPU-dddd-2, [N/A]\n")
    with ExitStack() as batches:
        assert [chosen(batches, 20_000) for _ in range(2)] == ["GPU-dddd-1", "GPU-dddd-2"]


def test_without_the_driver_there_is_nothing_to_have(machine: Path) -> None:
    answering(machine, "NVIDIA-SMI has failed\n", "", code=9)
    with own_gpu(0, refuse) as gpu:
        assert (gpu.environment, gpu.descriptors) == ({}, ())
    assert not list(machine.glob("snakefold-gpus-*"))


@pytest.mark.usefixtures("machine")
def test_without_locks_the_batch_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise NoLocksError("no locks")

    monkeypatch.setattr("snakefold.engines.gpus.one_locked", no_locks)
    said: list[str] = []
    with own_gpu(0, said.append) as gpu:
        assert gpu.environment == {}
    (line,) = said
    assert "other batches may take the same GPU" in line
