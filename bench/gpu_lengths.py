"""What one target takes by its length, for snakefold/engines/calibration.yaml: seconds, memory of GPU and machine.

    python -m bench.gpu_lengths boltz --weights FOLDER [--lengths 128 256 512 1024] [--rows 4096] [--set recycles=3]

Needs a GPU and, in `$SNAKEFOLD_PYTHON_<ENGINE>` or this very Python, the engine. Weights of full size made at random
will do (`tests/engines/` has scripts that write such): arithmetic takes as long as with real ones. One driver works
through all lengths, the first twice, since the first member of a process pays for what happens once.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from bench.gpu_alphafold2 import LETTERS, make_msa
from bench.gpu_batch import Ends
from snakefold.config import load_config
from snakefold.engines import ENGINES
from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.supervisor import Finished, Supervisor


class Rows(Ends):
    """Prints a row for each target but the first."""

    def done(self, member: str, finished: Finished) -> None:
        """As Ends has it."""
        super().done(member, finished)
        number, _, residues = member.partition("-")
        if number != "0":
            gpu, machine = finished.gpu_memory_mb or 0, finished.memory_mb or 0
            print(f"{residues} | {finished.seconds:.1f} | {gpu:.0f} | {machine:.0f}", flush=True)


def main() -> None:
    """Measure, and print a row for each length."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--set", nargs="*", default=[], metavar="PARAMETER=JSON")
    arguments = parser.parse_args()
    engine = ENGINES[arguments.engine]
    if not isinstance(engine, DrivenEngine):
        raise SystemExit(f"{engine.name} has no driver")
    os.environ.setdefault(f"SNAKEFOLD_PYTHON_{(engine.program or engine.name).upper()}", sys.executable)
    parameters = load_config({"samples": "none"}).parameters_of_engine(engine.name)
    parameters |= {name: json.loads(value) for name, value in (each.split("=", 1) for each in arguments.set)}
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tasks = {}
        for number, length in enumerate([arguments.lengths[0], *arguments.lengths]):
            sequence = "".join(draw.choice(LETTERS) for _ in range(length))
            msa = make_msa(folder / f"{number}.a3m", sequence, arguments.rows, draw) if engine.needs_msa else None
            task = FoldTask(chains=(ChainInputs(sequence=sequence, msa=msa),))
            tasks[f"{number}-{length}"] = task, folder / "members" / f"{number}-{length}"
        ends = Rows(engine=engine, tasks=tasks, folder=folder / "results")
        print(f"{engine.name}, {json.dumps(parameters)}\nresidues | s | GPU MB | MB", flush=True)
        command = engine.command(arguments.weights, parameters, folder)
        Supervisor(command, tasks, ends=ends, scratch=folder, limit=engine.limit).run()


if __name__ == "__main__":
    main()
