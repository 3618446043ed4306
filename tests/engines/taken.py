"""Predictions by an engine's driver and supervisor alone, taken in as a fold job does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.engines.base import FoldTask
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.supervisor import DriverCommand, Finished, Supervisor
from snakefold.files import read_json
from snakefold.outcome import Outcome

Arrays = dict[str, np.ndarray]


class Taken:
    """What became of the members: their files below `made` (the driver's) and `taken` (the engine's) in `folder`."""

    def __init__(self, engine: DrivenEngine, tasks: Mapping[str, FoldTask], folder: Path) -> None:
        self.engine, self.tasks, self.folder = engine, tasks, folder
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}
        """The kinds of the members' failures; pytest shows the reasons of a test that fails."""

    def done(self, member: str, finished: Finished) -> None:
        assert finished.gpu_memory_mb is None or finished.gpu_memory_mb > 0
        (self.folder / "taken" / member).mkdir(parents=True)
        self.outcomes[member] = self.engine.take_in(
            self.tasks[member], self.folder / "made" / member, self.folder / "taken" / member
        )

    def failed(self, member: str, kind: str, reason: str, log: object) -> None:
        print(f"{member}: {kind}: {reason}: {log}")
        self.failures[member] = kind

    def prediction(self, member: str) -> dict[str, Any]:
        return read_json(self.folder / "taken" / member / "prediction.json")

    def arrays(self, member: str) -> Arrays:
        """What the driver wrote, of one that leaves nothing else behind."""
        (path,) = (self.folder / "made" / member).iterdir()
        assert path.name == "prediction.npz"
        with np.load(path) as content:
            return dict(content)


def predict(
    engine: DrivenEngine,
    weights: Path,
    tasks: Mapping[str, FoldTask],
    folder: Path,
    parameters: Mapping[str, Any],
    *,
    driver: Path | None = None,
) -> Taken:
    """Predict `tasks` in one batch, with `driver` in place of the engine's own, if it is given."""
    (folder / "cache").mkdir(parents=True)
    command = engine.command(weights, parameters, folder / "cache")
    if driver is not None:
        command = DriverCommand(command=[engine.python(), str(driver)], settings=command.settings)
    taken = Taken(engine, tasks, folder)
    members = {name: (task, folder / "made" / name) for name, task in tasks.items()}
    Supervisor(command, members, ends=taken, scratch=folder, limit=engine.limit).run()
    return taken


def arrays_of(taken: Taken) -> dict[str, Arrays]:
    """The arrays of all members, none of which failed."""
    assert not taken.failures
    return {member: taken.arrays(member) for member in taken.tasks}
