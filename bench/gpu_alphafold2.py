# pyright: reportMissingImports=false
"""What AlphaFold 2 takes of a GPU: the network by length and kernels, and batches with and without compiled code.

    python -m bench.gpu_alphafold2 network [--lengths 128 256 512 1024]
    python -m bench.gpu_alphafold2 batch [--proteins 64] [--alone 4] [--models 1] [--kernels fused]

Needs a CUDA device and, in this very Python, what envs/engines/alphafold2.txt lists with a JAX for CUDA. Weights of
the published size are made at random: arithmetic does not take longer or shorter for it, but what comes out is no
structure.

`network`: seconds to compile, seconds of one pass and memory of the monomer network with a full MSA, and how far fused
kernels and bf16 are from plain fp32 after one pass.

`batch`: proteins of 60 to 400 residues with 2,000 rows each, by so many models with four passes each. First one warm
process that pads to buckets, with an empty compilation cache; then the same with the cache that the first left; then
the network alone, compiled and with its features made; then processes of their own, each with its own length and an
empty cache, of which `--alone` are run, spread over the lengths, and the others' cost is taken to be alike. The GPU is
held from the start of a process to its end: those are GPU-seconds.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu_batch import LONGEST, SHORTEST, Ends
from snakefold.engines.alphafold2 import AlphaFold2
from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.supervisor import Supervisor

ROOT = Path(__file__).parents[1]
DRIVERS = ROOT / "snakefold" / "engines" / "drivers"
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
PARAMETERS = {
    "models": [1],
    "seeds": 1,
    "recycles": None,
    "max_msa_clusters": None,
    "max_extra_msa": None,
    "bucket": 64,
    "templates": False,
    "kernels": "fused",
}


def make_msa(path: Path, sequence: str, rows: int, draw: random.Random) -> Path:
    """An MSA of relatives, of which each shares three letters in five."""
    lines = [">query", sequence]
    for number in range(rows):
        row = (letter if draw.random() < 0.6 else draw.choice(LETTERS + "-") for letter in sequence)
        lines += [f">{number}", "".join(row)]
    path.write_text("\n".join([*lines, ""]))
    return path


def network(weights: Path, lengths: Sequence[int], folder: Path) -> None:
    """Print a row for each length, kernels and precision."""
    sys.path.insert(0, str(DRIVERS))
    import alphafold2
    import jax
    import numpy as np

    draw = random.Random(1)
    driver = alphafold2.AlphaFold2()
    print("residues | network | compile s | pass s | GPU MB | CA distance A, mean (max) | pLDDT, mean (max)")
    for length in lengths:
        sequence = "".join(draw.choice(LETTERS) for _ in range(length))
        task = {
            "id": "",
            "chains": [
                {"sequence": sequence, "msa": str(make_msa(folder / "msa", sequence, 6000, draw)), "templates": None}
            ],
        }
        expected = None
        for kernels, bf16 in (("plain", False), ("plain", True), ("fused", True)):
            if length > 600 and not bf16:
                continue
            driver.load(
                {
                    "weights": str(weights),
                    "cache": str(folder / "cache"),
                    "parameters": {**PARAMETERS, "kernels": kernels},
                }
            )
            jax.config.update("jax_enable_compilation_cache", False)
            driver.changes = {"monomer": {"model.global_config.bfloat16": bf16}}
            net = driver.network(alphafold2.MonomerNetwork, 0)
            features = net.of_pass(net.features(task["chains"], length, 0), 0)
            state = {
                "prev_msa_first_row": np.zeros((length, 256), np.float16),
                "prev_pair": np.zeros((length, length, 128), np.float16),
                "prev_pos": np.zeros((length, 37, 3), np.float32),
            }
            model = driver.model(alphafold2.MonomerNetwork, 1)
            arguments = model, jax.random.PRNGKey(0), {**features, "prev": state}
            started = time.monotonic()
            compiled = net.runner.apply.lower(*arguments).compile()
            compiling = time.monotonic() - started
            sizes = compiled.memory_analysis()
            memory = (sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes) / 1e6
            arguments = jax.device_put(arguments)
            result = jax.block_until_ready(compiled(*arguments))
            started = time.monotonic()
            for _ in range(2):
                jax.block_until_ready(compiled(*arguments))
            seconds = (time.monotonic() - started) / 2
            found = np.asarray(result["structure_module"]["final_atom_positions"])[:, 1], np.asarray(result["plddt"])
            expected = expected or found
            far = np.linalg.norm(found[0] - expected[0], axis=1)
            off = np.abs(found[1] - expected[1])
            print(
                f"{length} | {kernels}, {'bf16' if bf16 else 'fp32'} | {compiling:.0f} | {seconds:.3f} | {memory:.0f} "
                f"| {far.mean():.3f} ({far.max():.3f}) | {off.mean():.3f} ({off.max():.3f})",
                flush=True,
            )
            jax.clear_caches()


def batch(
    names: Sequence[str], tasks: dict[str, FoldTask], weights: Path, cache: Path, **changed: Any
) -> tuple[float, Ends]:
    """Seconds of one driver from its start to its end, and what it made."""
    engine = AlphaFold2()
    os.environ["SNAKEFOLD_JAX_CACHE"] = str(cache)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        members = {name: (tasks[name], folder / "members" / name) for name in names}
        ends = Ends(engine=engine, tasks=members, folder=folder / "results")
        started = time.monotonic()
        command = engine.command(weights, {**PARAMETERS, **changed}, folder)
        Supervisor(command, members, ends=ends, scratch=folder, limit=engine.limit).run()
        return time.monotonic() - started, ends


def passes_alone(
    tasks: dict[str, FoldTask], weights: Path, cache: Path, parameters: dict[str, Any]
) -> tuple[float, float]:
    """Seconds of the network, compiled, and of making its features, for all proteins."""
    sys.path.insert(0, str(DRIVERS))
    import alphafold2
    import numpy as np

    driver = alphafold2.AlphaFold2()
    driver.load({"weights": str(weights), "cache": str(cache), "parameters": parameters})
    net = driver.network(alphafold2.MonomerNetwork, 0)
    compiled: set[int] = set()
    inside = making = 0.0
    for name, task in tasks.items():
        (chain,) = task.chains
        length = driver.padded({"id": name, "chains": [{"sequence": chain.sequence}]})
        started = time.monotonic()
        features = net.features([{"sequence": chain.sequence, "msa": str(chain.msa), "templates": None}], length, 0)
        making += time.monotonic() - started
        order = np.arange(len(chain.sequence))
        if length not in compiled:
            net.predict(driver.model(alphafold2.MonomerNetwork, 1), features, 0, order)
            compiled.add(length)
        started = time.monotonic()
        for model in parameters["models"]:
            net.predict(driver.model(alphafold2.MonomerNetwork, model), features, 0, order)
        inside += time.monotonic() - started
    return inside, making


def batches(weights: Path, proteins: int, alone: int, models: int, kernels: str, folder: Path) -> None:
    """Print the seconds of each way, and their ratios."""
    changed = {"models": list(range(1, models + 1)), "kernels": kernels}
    draw = random.Random(1)
    tasks = {}
    for number, length in enumerate(sorted(draw.randint(SHORTEST, LONGEST) for _ in range(proteins))):
        sequence = "".join(draw.choice(LETTERS) for _ in range(length))
        msa = make_msa(folder / f"{number}.a3m", sequence, 2000, draw)
        tasks[f"p{number:03d}"] = FoldTask(chains=(ChainInputs(sequence=sequence, msa=msa),))
    names = list(tasks)
    cold, ends = batch(names, tasks, weights, folder / "cache", **changed)
    memory = max(finished.gpu_memory_mb or 0 for finished in ends.finished.values()) / 1000
    print(
        f"{proteins} proteins, buckets of 64, nothing compiled: {cold:.0f} s, {cold / proteins:.2f} s each, "
        f"{memory:.1f} GB",
        flush=True,
    )
    warm, _ = batch(names, tasks, weights, folder / "cache", **changed)
    print(
        f"the same with what that compiled: {warm:.0f} s, {warm / proteins:.2f} s each, {cold / warm:.1f} times fewer",
        flush=True,
    )
    inside, making = passes_alone(tasks, weights, folder / "cache", {**PARAMETERS, **changed})
    print(
        f"the network alone: {inside / proteins:.2f} s each; the batch takes {warm / inside:.2f} times that; features: "
        f"{making / proteins:.2f} s each of one core",
        flush=True,
    )
    seconds = []
    for number, name in enumerate(names[alone // 2 :: -(-proteins // alone)]):
        took, _ = batch([name], tasks, weights, folder / f"cache{number}", **changed, bucket=1)
        length = len(tasks[name].chains[0].sequence)
        print(f"a process of its own, compiled for {length} residues: {took:.1f} s", flush=True)
        seconds.append(took)
    mean = sum(seconds) / len(seconds)
    print(
        f"compile per length, mean of {len(seconds)}: {mean:.1f} s each: {mean * proteins / cold:.1f} times the batch "
        f"with nothing compiled, {mean * proteins / warm:.1f} times the one with a cache",
        flush=True,
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["network", "batch"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--proteins", type=int, default=64)
    parser.add_argument("--alone", type=int, default=4)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--kernels", choices=["fused", "plain"], default="fused")
    arguments = parser.parse_args()
    os.environ.setdefault("SNAKEFOLD_PYTHON_ALPHAFOLD2", sys.executable)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "weights"
        maker = ROOT / "tests" / "engines" / "random_alphafold2.py"
        subprocess.run([sys.executable, str(maker), str(weights), str(DRIVERS), "--full"], check=True)
        for kind in ("ptm", "multimer_v3"):
            for number in (1, 2, 4, 5):
                (weights / "params" / f"params_model_{number}_{kind}.npz").symlink_to(f"params_model_3_{kind}.npz")
        if arguments.what == "network":
            network(weights, arguments.lengths, Path(scratch))
        else:
            batches(weights, arguments.proteins, arguments.alone, arguments.models, arguments.kernels, Path(scratch))


if __name__ == "__main__":
    main()
