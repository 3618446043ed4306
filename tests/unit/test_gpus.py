"""Each batch on a GPU of its own, as far as there are any."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from snakefold.engines.gpus import own_gpu, visible_gpus

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-1)
  MIG 3g.20gb     Device  0: (UUID: MIG-bbbb-1)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbbb-2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-2)
"""


class MustWaitError(Exception):
    """There is no GPU left."""


def refuse(what: str) -> None:
    raise MustWaitError(what)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an `nvidia-smi` that answers as one with two GPUs, the first of them divided."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("machine")
def test_each_batch_gets_a_gpu_of_its_own_and_the_next_waits() -> None:
    with ExitStack() as batches:
        got = [batches.enter_context(own_gpu(refuse))["CUDA_VISIBLE_DEVICES"] for _ in range(3)]
        assert got == ["MIG-bbbb-1", "MIG-bbbb-2", "GPU-aaaa-2"]
        with pytest.raises(MustWaitError, match=r"all GPUs of this machine \(3\) are at work for other batches"):
            batches.enter_context(own_gpu(refuse))
    with own_gpu(refuse) as again:
        assert again == {"CUDA_VISIBLE_DEVICES": "MIG-bbbb-1"}


@pytest.mark.usefixtures("machine")
def test_who_chose_gpus_gets_one_of_those(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,MIG-bbbb-2")
    with own_gpu(refuse) as first, own_gpu(refuse) as second:
        assert (first, second) == ({"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "MIG-bbbb-2"})
    for none in ("", "-1", "7,0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert not visible_gpus()


def test_jobs_that_are_shown_different_gpus_under_one_number_do_not_wait(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with own_gpu(refuse):
        (machine / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-cccc-1)'\n")
        with own_gpu(refuse) as other:
            assert other == {"CUDA_VISIBLE_DEVICES": "0"}
            with pytest.raises(MustWaitError), own_gpu(refuse):
                pass


def test_without_the_driver_there_is_nothing_to_choose(machine: Path) -> None:
    (machine / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    with own_gpu(refuse) as environment:
        assert environment == {}
    assert not list(machine.glob("snakefold-gpus-*"))
