"""Seconds of the shipped example from nothing, and again when results, or results and receipts, have been removed.

    python -m bench.rerun

It runs in a copy of the tracked files, so that neither the store nor the results of this folder are touched.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = ("search_msa", "search_templates", "fold", "relax")


def run(folder: Path) -> tuple[float, int]:
    """Run the example: (seconds, members that a batch job computed)."""
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "2"]
    started = time.monotonic()
    output = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    seconds = time.monotonic() - started
    computed = re.findall(rf"^\[(?:{'|'.join(STEPS)}) .*\] (\d+) computed", output.stderr, re.MULTILINE)
    return seconds, sum(map(int, computed))


def copy_tracked(folder: Path) -> Path:
    """Copy the files that git tracks into `folder`, which is returned."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for path in filter(None, tracked.split("\0")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path, follow_symlinks=False)
    return folder


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = copy_tracked(Path(name) / "clone")
        print(f"{'removed before the run':<42} {'seconds':>8} {'ratio':>6} {'members computed':>17}")
        first = 0.0
        removals: dict[str, Sequence[str]] = {
            "nothing was there": (),
            "results": ("results",),
            "results, receipts, Snakemake's memory": ("results", ".snakefold/work", ".snakemake"),
        }
        for what, places in removals.items():
            for place in places:
                shutil.rmtree(folder / place)
            seconds, computed = run(folder)
            first = first or seconds
            print(f"{what:<42} {seconds:>8.1f} {seconds / first:>6.2f} {computed:>17}")


if __name__ == "__main__":
    main()
