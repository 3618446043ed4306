# pyright: reportMissingImports=false
"""GPU-seconds of a structure: a process each against one warm batch against the forward passes alone, for ESMFold.

    python -m bench.gpu_batch [--weights FOLDER] [--proteins 64] [--alone 8] [--precision tf32]

Needs a CUDA device and, in this very Python, torch and transformers. Without `--weights` full-size ones are made at
random: arithmetic does not take longer or shorter for it, but what comes out is no structure. Proteins have 60 to 400
residues; of the processes of their own, `--alone` are run, spread over the lengths, and the others' cost is taken to be
alike. The GPU is held from the start of a process to its end, so that is what counts as GPU-seconds.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.driven import DrivenEngine
from snakefold.engines.esmfold import EsmFold
from snakefold.engines.supervisor import Finished, Supervisor

SHORTEST, LONGEST = 60, 400


@dataclass
class Ends:
    """Takes predictions in as a job does."""

    engine: DrivenEngine
    tasks: dict[str, tuple[FoldTask, Path]]
    folder: Path
    finished: dict[str, Finished] = field(default_factory=dict)

    def done(self, member: str, finished: Finished) -> None:
        """Write the prediction in the common form."""
        task, made = self.tasks[member]
        folder = self.folder / member
        folder.mkdir(parents=True)
        self.engine.take_in(task, made, folder)
        self.finished[member] = finished

    def failed(self, member: str, kind: str, reason: str, log: Sequence[str]) -> None:
        """End the measurement."""
        raise SystemExit(f"{member}: {kind}: {reason}\n" + "\n".join(log))


def make_weights(folder: Path) -> None:
    """ESMFold of the published size (esmfold_v1) with random weights."""
    import torch
    from transformers import EsmConfig, EsmForProteinFolding

    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33,
        hidden_size=2560,
        num_hidden_layers=36,
        num_attention_heads=40,
        intermediate_size=10240,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        is_folding_model=True,
        pad_token_id=1,
        mask_token_id=32,
        token_dropout=True,
        emb_layer_norm_before=False,
        esmfold_config={
            "fp16_esm": True,
            "trunk": {"num_blocks": 48, "sequence_state_dim": 1024, "pairwise_state_dim": 128},
        },
    )
    with torch.device("cuda"):
        model = EsmForProteinFolding(config)
    model.save_pretrained(folder)


def batch(names: Sequence[str], sequences: dict[str, str], weights: Path, parameters: dict) -> tuple[float, Ends]:
    """Seconds of one driver from its start to its end, and what it made."""
    engine = EsmFold()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tasks = {
            name: (FoldTask(chains=(ChainInputs(sequence=sequences[name]),)), folder / "members" / name)
            for name in names
        }
        ends = Ends(engine=engine, tasks=tasks, folder=folder / "results")
        started = time.monotonic()
        command = engine.command(weights, parameters, folder)
        Supervisor(command, tasks, ends=ends, scratch=folder, limit=engine.limit).run()
        return time.monotonic() - started, ends


def forward_passes(sequences: dict[str, str], weights: Path, parameters: dict) -> float:
    """Seconds of the forward passes alone, in the batch's groups, weights loaded and the GPU warm."""
    import torch

    drivers = Path(__file__).parents[1] / "snakefold" / "engines" / "drivers"
    sys.path.insert(0, str(drivers))
    import esmfold

    driver = esmfold.EsmFold()
    driver.load({"weights": str(weights), "parameters": parameters})
    tasks = [
        {"id": name, "folder": "", "chains": [{"sequence": sequence}], "seed": 0}
        for name, sequence in sequences.items()
    ]
    groups = driver.groups(tasks)
    driver.forward(groups[0])
    torch.cuda.synchronize()
    started = time.monotonic()
    with torch.inference_mode():
        for group in groups:
            driver.forward(group)
    torch.cuda.synchronize()
    return time.monotonic() - started


def main() -> None:
    """Measure, and print ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--proteins", type=int, default=64)
    parser.add_argument("--alone", type=int, default=8)
    parser.add_argument("--precision", default="tf32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--tokens", type=int, default=1024)
    arguments = parser.parse_args()
    os.environ.setdefault("SNAKEFOLD_PYTHON_ESMFOLD", sys.executable)
    parameters = {"recycles": None, "tokens": arguments.tokens, "precision": arguments.precision}
    draw = random.Random(1)
    lengths = sorted(draw.randint(SHORTEST, LONGEST) for _ in range(arguments.proteins))
    sequences = {
        f"p{number:03d}": "".join(draw.choice("ACDEFGHIKLMNPQRSTVWY") for _ in range(length))
        for number, length in enumerate(lengths)
    }
    with tempfile.TemporaryDirectory() as scratch:
        weights = arguments.weights or Path(scratch) / "weights"
        if arguments.weights is None:
            make_weights(weights)
        seconds, ends = batch(list(sequences), sequences, weights, parameters)
        warm = seconds / len(sequences)
        memory = max(finished.gpu_memory_mb or 0 for finished in ends.finished.values()) / 1000
        print(f"one warm batch of {len(sequences)}: {seconds:.1f} s, {warm:.2f} s each, {memory:.1f} GB", flush=True)
        chosen = list(sequences)[arguments.alone // 2 :: -(-len(sequences) // arguments.alone)]
        alone = [batch([name], sequences, weights, parameters)[0] for name in chosen]
        mean = sum(alone) / len(alone)
        print(
            f"a process each ({len(alone)} of them run): {mean:.2f} s each, {mean / warm:.1f} times as much", flush=True
        )
        passes = forward_passes(sequences, weights, parameters) / len(sequences)
        print(f"forward passes alone: {passes:.2f} s each; the batch takes {warm / passes:.2f} times that", flush=True)


if __name__ == "__main__":
    main()
