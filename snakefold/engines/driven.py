"""Engines that are other people's programs: each in its own Python, in a driver that the supervisor keeps at work."""

import copy
import json
import os
import subprocess
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml

from snakefold.engines.base import FoldTask, Limits
from snakefold.engines.supervisor import DriverCommand
from snakefold.errors import SnakefoldError
from snakefold.outcome import Outcome

_IN_IMAGE = Path("/opt/engine/bin/python")

# Members may take so many times what the calibration says, and at least so long, before they count as hung: other GPUs
# are slower, and compiling comes on top.
_SLACK = 10
_LEAST_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a prediction takes: polynomials of the target's residues (calibration.yaml says how they were found)."""

    seconds: Sequence[float]
    gpu_memory_mb: Sequence[float]
    memory_mb: Sequence[float]
    source: str


@lru_cache(maxsize=1)
def calibrations() -> Mapping[str, Calibration]:
    """The calibration of every engine that has one."""
    content = yaml.safe_load(files("snakefold.engines").joinpath("calibration.yaml").read_text(encoding="utf-8"))
    return {name: Calibration(**values) for name, values in content.items()}


class DrivenEngine(ABC):
    """An engine with a driver, `drivers/<program>.py`, which gets the engine's name as its argument.

    Its Python is that of `$SNAKEFOLD_PYTHON_<PROGRAM>`, else the one that images hold; its weights come as a database.
    """

    name: str
    program: str | None = None
    """What driver and Python are called after, if not after the engine: engines of one package share them."""
    version: str
    packages: tuple[str, ...]
    licence: str
    weights: str | None
    needs_msa: bool
    needs_templates: bool
    """Of an engine that can do without them: false, unless its parameter `templates` asks for them."""
    takes_template = False
    gpus = 1
    limits: Limits
    work = 1.0
    """How many times the work of its default parameters an engine does by those of the run (`fitted`)."""
    least_templated = 1
    """Of an engine that needs templates: the fewest chains of a target whose templates it reads (`fitted`)."""

    @abstractmethod
    def take_in(self, task: FoldTask, made: Path, folder: Path) -> Outcome:
        """Turn what the driver made of one member into the files of docs/architecture.md ("fold"), in `folder`.

        Raises MemberError if that is no prediction.
        """

    @property
    def image(self) -> str:
        """Its image's name in containers/images.yaml and in the fleet file."""
        return self.program or self.name

    @property
    def calibration(self) -> Calibration:
        """What a prediction takes."""
        return calibrations()[self.name]

    def seconds(self, residues: int) -> float:
        """Estimated seconds of one GPU for one target of so many residues."""
        return self.work * _polynomial(self.calibration.seconds, residues)

    def work_of(self, parameters: Mapping[str, Any]) -> float:  # noqa: ARG002
        """How many times the work of the default parameters, which were calibrated, these make."""
        return 1.0

    def least_templated_of(self, parameters: Mapping[str, Any]) -> int:  # noqa: ARG002
        """The fewest chains of a target whose templates are read by these parameters."""
        return 1

    def reads_templates(self, chains: int) -> bool:
        """Whether it needs the templates of a target of so many chains."""
        return self.needs_templates and chains >= self.least_templated

    def memory_mb(self, residues: int) -> int:
        """Estimated peak memory of the machine, MB."""
        return round(_polynomial(self.calibration.memory_mb, residues))

    def gpu_memory_mb(self, residues: int) -> int:
        """Estimated peak memory of the GPU, MB."""
        return round(_polynomial(self.calibration.gpu_memory_mb, residues))

    def fitted(self, memory_mb: int, parameters: Mapping[str, Any]) -> Self:
        """The same engine with these parameters, taking no target too long for a GPU of so much memory (MB)."""
        shortest, longest = self.limits.min_length, self.limits.max_length
        fits = bisect_right(range(shortest, longest + 1), memory_mb, key=self.gpu_memory_mb)
        fitted = copy.copy(self)
        # One that cannot take even the shortest says so of each target.
        fitted.limits = replace(self.limits, max_length=max(shortest - 1, shortest + fits - 1))
        fitted.work = self.work_of(parameters)
        fitted.least_templated = self.least_templated_of(parameters)
        fitted.needs_templates = self.needs_templates or bool(parameters.get("templates"))
        return fitted

    def limit(self, task: FoldTask) -> float:
        """Seconds after which a member counts as hung."""
        return _LEAST_SECONDS + _SLACK * self.seconds(task.residues)

    def python(self) -> str:
        """The Python that has the engine. Raises SnakefoldError if this machine has none."""
        variable = f"SNAKEFOLD_PYTHON_{(self.program or self.name).upper()}"
        named = os.environ.get(variable)
        if named:
            if not os.access(named, os.X_OK):
                raise SnakefoldError(f"{variable}: {named} is no program; name the Python that has {self.packages[0]}")
            return named
        if _IN_IMAGE.exists():
            return str(_IN_IMAGE)
        raise SnakefoldError(
            f"the engine {self.name} has no Python here; install {', '.join(self.packages)} into an environment of its "
            f"own (docs/engines.md) and name its Python in {variable}"
        )

    def versions(self) -> str:
        """The version of the engine and of its packages, as they enter store keys.

        Raises SnakefoldError if a package is missing in the engine's Python.
        """
        return " ".join((self.version, *_versions(self.python(), self.packages)))

    def command(self, weights: Path | None, parameters: Mapping[str, Any], cache: Path) -> DriverCommand:
        """How to start the driver."""
        driver = files("snakefold.engines.drivers").joinpath(f"{self.program or self.name}.py")
        return DriverCommand(
            command=[self.python(), str(driver), self.name],
            settings={
                "weights": None if weights is None else str(weights),
                "parameters": dict(parameters),
                "cache": str(cache),
            },
        )


def work_of_diffusion(parameters: Mapping[str, Any], *, steps: int) -> float:
    """`work_of` of an engine that draws samples after four passes and with so many steps of diffusion by default.

    Half of the work is the trunk's passes, half the diffusion's steps of all samples, roughly.
    """
    drawn = parameters["diffusion_samples"] * parameters["sampling_steps"]
    return (parameters["recycles"] + 1) / 4 / 2 + drawn / steps / 2


@lru_cache(maxsize=8)
def _versions(python: str, packages: tuple[str, ...]) -> list[str]:
    program = (
        "import json, sys\nfrom importlib.metadata import PackageNotFoundError, version\nfound = {}\n"
        "for name in sys.argv[1:]:\n    try: found[name] = version(name)\n    except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    asked = subprocess.run([python, "-c", program, *packages], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SnakefoldError(f"{python} does not run: {asked.stderr.strip().splitlines()[-1:]}")
    found = json.loads(asked.stdout)
    missing = [name for name in packages if name not in found]
    if missing:
        raise SnakefoldError(f"{python} lacks {', '.join(missing)}; see docs/engines.md")
    return [f"{name}-{found[name]}" for name in packages]


def _polynomial(coefficients: Sequence[float], residues: int) -> float:
    return float(sum(coefficient * residues**power for power, coefficient in enumerate(coefficients)))
