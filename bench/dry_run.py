"""Seconds and memory of `snakemake -n` for large sheets, against the same sheet without batches (one member a job).

    python -m bench.dry_run [--targets 1000 10000]

Sheets hold random proteins of 60-600 residues, a tenth of them as dimers of a second chain. Each run is a process of
its own.
"""

import argparse
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNBATCHED_AT_MOST = 2000
"""Targets up to which the alternative is measured: it takes minutes beyond."""


@dataclass(frozen=True)
class Measured:
    """One dry run."""

    seconds: float
    peak_mb: float
    jobs: int


def write_sheet(path: Path, targets: int) -> None:
    """A sample sheet of random proteins."""
    chance = random.Random(targets)

    def chain() -> str:
        return "".join(chance.choices("ACDEFGHIKLMNPQRSTVWY", k=chance.randint(60, 600)))

    with path.open("w") as handle:
        handle.write("id\tsequence\n")
        for number in range(targets):
            sequence = chain() if chance.random() < 0.9 else f"{chain()}:{chain()}"
            handle.write(f"t{number}\t{sequence}\n")


def dry_run(sheet: Path, folder: Path, *, batched: bool) -> Measured:
    """Run `snakemake -n` in a process of its own."""
    settings = [f"samples={sheet}", *(f"{name}={folder / name}" for name in ("results", "work", "store"))]
    if not batched:
        settings.append("plan={max_members: 1}")
    command = [str(Path(sys.executable).with_name("snakemake")), "-n", "--quiet", "rules", "--config", *settings]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The peak is that of the largest child so far, so runs go from small to large.
    assert after.ru_utime > before.ru_utime
    totals = re.findall(r"^total +(\d+)$", output.stdout + output.stderr, re.MULTILINE)
    return Measured(seconds=seconds, peak_mb=after.ru_maxrss / 1000, jobs=int(totals[-1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=[1000, 10000])
    sizes = sorted(parser.parse_args().targets)
    print(f"{'targets':>8} {'batches':>8} {'jobs':>7} {'seconds':>8} {'peak MB':>8} {'seconds against unbatched':>26}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for targets in sizes:
            sheet = folder / f"{targets}.tsv"
            write_sheet(sheet, targets)
            ours = dry_run(sheet, folder, batched=True)
            ratio = ""
            if targets <= UNBATCHED_AT_MOST:
                alternative = dry_run(sheet, folder, batched=False)
                ratio = f"{ours.seconds / alternative.seconds:.2f}"
                print(
                    f"{targets:>8} {'no':>8} {alternative.jobs:>7} {alternative.seconds:>8.1f} "
                    f"{alternative.peak_mb:>8.0f} {1:>26}"
                )
            print(f"{targets:>8} {'yes':>8} {ours.jobs:>7} {ours.seconds:>8.1f} {ours.peak_mb:>8.0f} {ratio:>26}")


if __name__ == "__main__":
    main()
