"""Seconds and memory of one protein from the sheet to its folder, on one core, step by step.

    python -m bench.one_protein [--target tcr_vbeta] [--sheet config/samples.tsv]

Two runs in a copy of the tracked files: one from nothing, which also unpacks the databases and compiles the kernels,
and one with another seed, for which only folding, relaxation and what follows are left to do. All is bound to one core.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.rerun import copy_tracked

STEPS = ("search_msa", "search_templates", "fold", "relax", "score")


def run(folder: Path, *config: str) -> float:
    """Wall seconds of one run of the workflow on this process's only core."""
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "1", "--config", *config]
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - started


def benchmarks(folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds and peak memory (MB) of the newest job of each step."""
    found: dict[str, tuple[float, float]] = {}
    for step in STEPS:
        files = sorted(
            (folder / ".snakefold/benchmarks" / step).rglob("*.jsonl"), key=lambda path: path.stat().st_mtime
        )
        if files:
            last = json.loads(files[-1].read_text().splitlines()[-1])
            found[step] = last["s"], last["max_pss"]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="tcr_vbeta")
    parser.add_argument("--sheet", type=Path, default=Path("config/samples.tsv"))
    arguments = parser.parse_args()
    with arguments.sheet.open(newline="") as handle:
        row = next(row for row in csv.DictReader(handle, delimiter="\t") if row["id"] == arguments.target)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = copy_tracked(Path(name) / "clone")
        (folder / "one.tsv").write_text(f"id\tsequence\n{row['id']}\t{row['sequence']}\n")
        print(f"{row['id']}, {len(row['sequence'])} residues, one core; seconds (peak MB) of the job of each step")
        print(f"{'run':<24} {'wall':>6} " + " ".join(f"{step:>18}" for step in STEPS))
        for title, seed in (("from nothing", 0), ("another seed", 1)):
            before = benchmarks(folder)
            seconds = run(folder, "samples=one.tsv", f"seed={seed}")
            jobs = {step: job for step, job in benchmarks(folder).items() if job != before.get(step)}
            cells = (f"{jobs[step][0]:.1f} ({jobs[step][1]:.0f})" if step in jobs else "-" for step in STEPS)
            print(f"{title:<24} {seconds:>6.1f} " + " ".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
