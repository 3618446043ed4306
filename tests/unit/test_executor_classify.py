"""Failures of jobs on AWS Batch, as AWS words them and as logs show them."""

from typing import Any

import pytest

from snakemake_executor_plugin_aws_batch_fleet.classify import _ADVICE, _WHAT, FailureClass, classify, classify_parts

ESSENTIAL = "Essential container in task exited"


@pytest.mark.parametrize(
    ("kind", "status_reason", "reason", "exit_code", "log"),
    [
        ("spot_reclaim", "Host EC2 (instance i-0123) terminated.", "", None, ()),
        ("spot_reclaim", "Host EC2 (instance i-0123) terminated.", "", 137, ("Killed",)),
        ("out_of_memory", ESSENTIAL, "OutOfMemoryError: Container killed due to memory usage", 137, ()),
        ("out_of_memory", ESSENTIAL, "", 137, ()),
        # The kernel took the tool, Snakemake lived on and left with 1.
        ("out_of_memory", ESSENTIAL, "", 1, ("Command '...' died with <Signals.SIGKILL: 9>.",)),
        ("out_of_memory", ESSENTIAL, "", 1, ("/bin/bash: line 1:    42 Killed                  jackhmmer",)),
        ("out_of_memory", ESSENTIAL, "", 1, ("Killed",)),
        ("out_of_memory", ESSENTIAL, "", 1, ("MemoryError: Unable to allocate 3 GiB",)),
        ("out_of_memory", ESSENTIAL, "", 1, ("oom-kill:constraint=CONSTRAINT_MEMCG",)),
        ("timeout", "Job attempt duration exceeded timeout", "", 137, ()),
        ("image_pull", "Task failed to start", "CannotPullContainerError: pull access denied", None, ()),
        ("start_failure", "Task failed to start", "CannotStartContainerError: no such device", None, ()),
        ("start_failure", "Container Overrides length must be at most 8192", "", None, ()),
        ("user_error", ESSENTIAL, "", 1, ("KeyError: 'a'",)),
        ("user_error", ESSENTIAL, "", 3, ()),
        ("cancelled", "Terminated by Snakemake: the run was cancelled", "", 143, ()),
        ("cancelled", ESSENTIAL, "", 143, ()),
        ("cancelled", "not needed any more", "", None, ()),
        ("stuck", "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", "", None, ()),
    ],
)
def test_every_failure_has_its_class(
    kind: str, status_reason: str, reason: str, exit_code: int | None, log: tuple[str, ...]
) -> None:
    started = exit_code is not None or kind in ("spot_reclaim",)
    found = classify_parts(
        status_reason=status_reason, reason=reason, exit_code=exit_code, started=started, log_tail=log
    )
    assert found.kind.value == kind
    assert not found.gpu
    if exit_code is not None:
        assert f"exit code {exit_code}" in found.detail


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: CUDA error: CUDA_ERROR_OUT_OF_MEMORY",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes",
        "RuntimeError: CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_a_full_gpu_is_told_from_a_full_machine(line: str) -> None:
    found = classify_parts(status_reason=ESSENTIAL, reason="", exit_code=1, log_tail=[line])
    assert found.kind is FailureClass.OUT_OF_MEMORY and found.gpu
    assert "GPU" in found.advice


def test_a_vague_message_means_the_gpu_only_where_there_is_one() -> None:
    job: dict[str, Any] = {"statusReason": ESSENTIAL, "startedAt": 1, "container": {"exitCode": 1}}
    assert not classify(job, ["out of memory"]).gpu
    job["container"]["resourceRequirements"] = [{"type": "GPU", "value": "1"}]
    assert classify(job, ["out of memory"]).gpu
    # 137 is the machine's doing, GPU or not.
    job["container"]["exitCode"] = 137
    assert not classify(job, ["out of memory"]).gpu


def test_a_job_that_someone_ended_is_cancelled_whatever_the_reason() -> None:
    job = {"statusReason": "Error in my head", "isTerminated": True, "container": {"exitCode": 1}, "startedAt": 1}
    assert classify(job).kind is FailureClass.CANCELLED


def test_every_class_says_what_happened_and_what_to_do() -> None:
    for kind in FailureClass:
        assert _WHAT[kind].endswith(".") and len(_WHAT[kind].splitlines()) == 1
        assert _ADVICE[kind].endswith(".") and len(_ADVICE[kind].splitlines()) == 1
