"""Why a job failed, in one word, in a sentence, and what to do about it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class FailureClass(StrEnum):
    """The kinds of failure."""

    SPOT_RECLAIM = "spot_reclaim"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    IMAGE_PULL = "image_pull"
    START_FAILURE = "start_failure"
    USER_ERROR = "user_error"
    CANCELLED = "cancelled"
    VANISHED = "vanished"
    STUCK = "stuck"
    REFUSED = "refused"


TERMINATED_BY_US = "Terminated by Snakemake"
"""Beginning of the reason that this executor gives to TerminateJob."""

_WHAT = {
    FailureClass.SPOT_RECLAIM: "The machine was taken away (a Spot reclaim, or its host failed).",
    FailureClass.OUT_OF_MEMORY: "It was killed because it used more memory than it had asked for.",
    FailureClass.TIMEOUT: "It ran longer than it may.",
    FailureClass.IMAGE_PULL: "Its image could not be pulled.",
    FailureClass.START_FAILURE: "Its container could not be started.",
    FailureClass.USER_ERROR: "Its command failed.",
    FailureClass.CANCELLED: "Someone, or something, ended it.",
    FailureClass.VANISHED: "AWS Batch does not know it any more.",
    FailureClass.STUCK: "It never started.",
    FailureClass.REFUSED: "AWS Batch did not accept it.",
}
_ADVICE = {
    FailureClass.SPOT_RECLAIM: "Run again; if it happens often, add a queue with purchase on_demand to the fleet file.",
    FailureClass.OUT_OF_MEMORY: "Raise the rule's mem_mb (let it grow with attempt, and set retries).",
    FailureClass.TIMEOUT: "Raise the rule's runtime (minutes).",
    FailureClass.IMAGE_PULL: "Check the image's name and digest, and that the execution role may pull it.",
    FailureClass.START_FAILURE: "Check mounts, GPUs and the image's platform against the queue's machines.",
    FailureClass.USER_ERROR: "Read the log below.",
    FailureClass.CANCELLED: "Run again, unless that was you.",
    FailureClass.VANISHED: "Run again: nothing is known of how it ended.",
    FailureClass.STUCK: "Mend the queue or its compute environment, or choose another by batch_queue; then run again.",
    FailureClass.REFUSED: "Change what AWS objects to; the other jobs go on.",
}

_WHAT_GPU = "The GPU's memory was not enough."
_ADVICE_GPU = "Set retries: the next attempt asks for the next larger GPU; or raise gpu_mem_mb."

# Allocation failures of PyTorch (CUDA), JAX/XLA and TensorFlow, CuPy, and the driver itself.
_GPU_MEMORY = re.compile(
    r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|OutOfMemoryError: CUDA"
    r"|torch\.OutOfMemoryError|RESOURCE_EXHAUSTED: (Out of memory|Failed to allocate)|cuMemAlloc.*failed"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|Failed to allocate request for .* on device",
    re.IGNORECASE,
)
# Enough for a job that has a GPU, where the same words on a CPU would mean the machine's memory.
_GPU_MEMORY_LIKELY = re.compile(r"RESOURCE_EXHAUSTED|(?<!oom-kill: )\bout of memory\b", re.IGNORECASE)
# Often the kernel kills a tool and not Snakemake, so the container exits with 1 and only the log tells.
_MEMORY = re.compile(
    r"SIGKILL|oom-?kill|out of memory|^Killed\b|:\s+\d+ Killed\b|\bMemoryError\b|std::bad_alloc|Cannot allocate memory"
    r"|exit (code|status) 137|signal 9\b|died with <Signals\.SIGKILL",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure, understood."""

    kind: FailureClass
    what: str
    advice: str
    detail: str
    """AWS Batch's own words and the exit code."""
    gpu: bool = False
    """Of out_of_memory: whether it was the GPU's."""


def failure(kind: FailureClass, detail: str) -> Failure:
    """A failure of a known class."""
    return Failure(kind=kind, what=_WHAT[kind], advice=_ADVICE[kind], detail=detail)


def classify(job: Mapping[str, Any], log_tail: Sequence[str] = ()) -> Failure:
    """The failure of a job, from its description (DescribeJobs) and the last lines of its log."""
    container = job.get("container") or {}
    return classify_parts(
        status_reason=job.get("statusReason") or "",
        reason=container.get("reason") or "",
        exit_code=container.get("exitCode"),
        started=bool(job.get("startedAt")),
        terminated=bool(job.get("isTerminated") or job.get("isCancelled")),
        uses_gpu=any(need.get("type") == "GPU" for need in container.get("resourceRequirements") or ()),
        log_tail=log_tail,
    )


def classify_parts(
    *,
    status_reason: str,
    reason: str,
    exit_code: int | None,
    started: bool = True,
    terminated: bool = False,
    uses_gpu: bool = False,
    log_tail: Sequence[str] = (),
) -> Failure:
    """The failure of a job or of one of its attempts. The order matters: AWS's own words first, then the log."""
    words = f"{status_reason} {reason}".strip()
    detail = "; ".join(part for part in (status_reason, reason) if part) or "no reason given"
    if exit_code is not None:
        detail += f"; exit code {exit_code}"
    log = "\n".join(log_tail)
    kind = FailureClass.USER_ERROR
    if status_reason.startswith("Host EC2"):
        kind = FailureClass.SPOT_RECLAIM
    elif "exceeded timeout" in words.lower():
        kind = FailureClass.TIMEOUT
    elif status_reason.startswith(("MISCONFIGURATION:", "CAPACITY:")):
        # The queue's own time limit on jobs that cannot start.
        kind = FailureClass.STUCK
    elif "OutOfMemoryError" in reason:
        kind = FailureClass.OUT_OF_MEMORY
    elif terminated or status_reason.startswith(TERMINATED_BY_US):
        kind = FailureClass.CANCELLED
    elif "CannotPull" in words or "ImagePull" in words or "pull access denied" in words:
        kind = FailureClass.IMAGE_PULL
    elif _GPU_MEMORY.search(log) or (uses_gpu and exit_code != 137 and _GPU_MEMORY_LIKELY.search(log)):
        return Failure(kind=FailureClass.OUT_OF_MEMORY, what=_WHAT_GPU, advice=_ADVICE_GPU, detail=detail, gpu=True)
    elif exit_code == 137 or _MEMORY.search(log):
        kind = FailureClass.OUT_OF_MEMORY
    elif exit_code == 143:
        # SIGTERM that nobody who uses this executor sent.
        kind = FailureClass.CANCELLED
    elif exit_code is None and (not started or _never_started(words)):
        kind = FailureClass.START_FAILURE
        if not started and _ended_by_hand(status_reason):
            kind = FailureClass.CANCELLED
    elif exit_code is None:
        # It ran, left no exit code, and AWS gives a reason that is none of its own: TerminateJob's.
        kind = FailureClass.CANCELLED
    return failure(kind, detail)


def _never_started(words: str) -> bool:
    marks = (
        "failed to start",
        "CannotStartContainer",
        "CannotCreateContainer",
        "CannotInspectContainer",
        "DockerTimeout",
    )
    return any(mark in words for mark in (*marks, "ContainerRuntimeError", "ResourceInitializationError"))


def _ended_by_hand(status_reason: str) -> bool:
    """Whether the reason of a job that never started is one that a person gave to TerminateJob or CancelJob."""
    services_own = ("Task failed", "Container Overrides", "Failed", "Unable", "Error", "Invalid", "Cannot", "Dependent")
    return bool(status_reason) and not status_reason.startswith(services_own) and "Error" not in status_reason
