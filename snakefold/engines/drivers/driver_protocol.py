"""The engine's side of a batch: a process that loads the engine once and predicts what it is sent.

It runs in the engine's own Python (3.9 or newer), where there is no snakefold, so this file needs the standard library
alone. `snakefold.engines.supervisor` is the other side. Both talk in lines of JSON (docs/drivers.md): the supervisor
writes to the driver's standard input, the driver to what was its standard output. Whatever the engine prints goes to
standard error, which is the log.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_SIGNS = 5.0
"""A driver that has been silent for many times as long hangs in a way that even its threads stand still."""

Task = dict[str, Any]
"""One member: `id`; `folder` (empty, for its files); `chains`, a list of {`sequence`, `msa`, `templates`} (paths or
None); `template` (path or None); `seed`; `parameters`."""


class RefusedError(Exception):
    """A member that cannot be predicted, whatever is tried. `kind` is a short class for tables."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class Driver:
    """An engine. Only `load` and `predict` must be written; `predict` may raise whatever the engine raises."""

    eases = 0
    """How many measures against want of GPU memory `predict` knows, each stronger than the one before."""

    def load(self, settings: dict[str, Any]) -> None:
        """Get ready: import, read the weights.

        `settings` are `weights` (folder or None), `parameters` of the engine, and `cache`, a folder for what helps the
        next process.
        """
        raise NotImplementedError

    def groups(self, tasks: list[Task]) -> list[list[Task]]:
        """The members in the order in which to predict them, those together that go through the engine at once."""
        return [[task] for task in tasks]

    def predict(self, tasks: list[Task], ease: int) -> None:
        """Predict a group, and write each member's files into its folder.

        `ease` is 0 at first and is raised, up to `eases`, when a single member did not fit in the GPU's memory.
        """
        raise NotImplementedError

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that the GPU's memory did not suffice."""
        return isinstance(error, MemoryError)

    def free(self) -> None:
        """Let go of memory after such an error."""

    def device(self) -> str | None:
        """What computes, such as "NVIDIA H200"; None for the CPU."""
        return None

    def reset_peak(self) -> None:
        """Measure the peak of the GPU's memory from here on."""

    def peak_mb(self) -> float | None:
        """Peak of the GPU's memory since then, MB (10^6 bytes); None if that cannot be told."""
        return None


class TorchDriver(Driver):
    """What all engines on PyTorch have in common."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """As Driver has it."""
        import torch

        # Of the CPU's allocator there is only the text.
        texts = (
            "CUDA out of memory",
            "can't allocate memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
        )
        return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(
            text in str(error) for text in texts
        )

    def free(self) -> None:
        """As Driver has it."""
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def device(self) -> str | None:
        """As Driver has it."""
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None

    def reset_peak(self) -> None:
        """As Driver has it."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def peak_mb(self) -> float | None:
        """As Driver has it."""
        import torch

        return torch.cuda.max_memory_reserved() / 1e6 if torch.cuda.is_available() else None


class JaxDriver(Driver):
    """What all engines on JAX have in common."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """As Driver has it."""
        return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)

    def device(self) -> str | None:
        """As Driver has it."""
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else str(device.device_kind)

    def peak_mb(self) -> float | None:
        """As Driver has it."""
        import jax

        # JAX cannot forget a peak: of members in order of length the largest so far is nearly the last one's.
        statistics = jax.devices()[0].memory_stats() or {}
        return statistics["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in statistics else None


def serve(driver: Driver) -> None:
    """Work through one batch, as the supervisor says, and leave."""
    Service(driver).run()


class Service:
    """The conversation with the supervisor."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # A channel of our own: an engine's prints must not come between the lines.
        self._channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Load, predict, leave."""
        settings = json.loads(sys.stdin.readline())
        threading.Thread(target=self._sign, daemon=True).start()
        started = time.monotonic()
        self._driver.load(settings)
        self._say("ready", seconds=time.monotonic() - started, device=self._driver.device())
        message = json.loads(sys.stdin.readline())
        threading.Thread(target=self._listen, daemon=True).start()
        tasks = message["tasks"]
        for group in [[task] for task in tasks] if message["alone"] else self._driver.groups(tasks):
            if self._stopped.is_set():
                break
            self._work(group)
        self._say("finished")
        # Not by way of the interpreter's end: a thread waits for input, and taking a GPU's context down can fail.
        sys.stderr.flush()
        os._exit(0)

    def _work(self, group: list[Task], ease: int = 0) -> None:
        members = [task["id"] for task in group]
        sys.stdout.flush()
        # Where in the log this begins; standard error is the file itself.
        self._say("started", members=members, ease=ease, log=os.fstat(2).st_size)
        self._driver.reset_peak()
        started = time.monotonic()
        failure = None
        try:
            self._driver.predict(group, ease)
        except RefusedError as error:
            failure = error.kind, str(error)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            traceback.print_exc()
            kind = "out_of_memory" if self._driver.is_out_of_memory(error) else "error"
            failure = kind, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        seconds = time.monotonic() - started
        peak = self._driver.peak_mb()
        if failure is None:
            weights = [sum(len(chain["sequence"]) for chain in task["chains"]) for task in group]
            for task, weight in zip(group, weights):  # noqa: B905 (Python 3.9 has no `strict`)
                share = seconds * weight / sum(weights)
                self._say("done", member=task["id"], seconds=share, gpu_memory_mb=peak, memory_mb=_memory_mb())
            return
        # Outside the `except`: its traceback would hold on to the memory that is to be freed.
        self._driver.free()
        kind, reason = failure
        if len(group) > 1:
            for task in group:
                _empty(task["folder"])
                self._work([task])
        elif kind == "out_of_memory" and ease < self._driver.eases:
            _empty(group[0]["folder"])
            self._work(group, ease + 1)
        else:
            self._say("failed", member=members[0], kind=kind, reason=reason, gpu_memory_mb=peak)

    def _say(self, event: str, **values: Any) -> None:
        with self._lock:
            self._channel.write(json.dumps({"event": event, **values}) + "\n")
            self._channel.flush()

    def _sign(self) -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_SIGNS)
            self._say("alive")

    def _listen(self) -> None:
        for line in sys.stdin:
            if json.loads(line).get("stop"):
                self._stopped.set()
        # The supervisor has gone without a word: nobody will take the results, and the GPU is wanted elsewhere.
        os._exit(1)


def _empty(folder: str) -> None:
    """Remove what an attempt left in a member's folder."""
    shutil.rmtree(folder)
    Path(folder).mkdir()


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
