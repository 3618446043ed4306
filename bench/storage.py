"""Calls to S3 and seconds of `snakemake -n` with files in S3: ours against the stock plugin `s3`, and without storage.

    python -m bench.storage [--targets 1000 10000] [--limit 150] [--latency 0]

The workflow has the shape of ours: batches whose receipts depend on each other, one directory output per target, a
summary. S3 is moto's server on this machine, which answers in a few milliseconds; `--latency` adds milliseconds to
each call (S3 itself takes 20 to 50), and more the more objects there are. A run of the stock plugin that takes longer
than `--limit` seconds is stopped, and its figures marked with ">".
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from moto.s3.models import s3_backends

from tests.unit.storage_server import CREDENTIALS, Server, running

ROOT = Path(__file__).parents[1]
BUCKET = "bench"
BATCH = 30
FILES = ("model.cif", "pae.json", "scores.json", "status.json", ".snakemake_timestamp")
SNAKEFILE = f"""
TARGETS = [f"t{{n}}" for n in range(int(config["targets"]))]
BATCHES = [f"b{{n}}" for n in range((len(TARGETS) + {BATCH - 1}) // {BATCH})]

def batch_of(wildcards):
    return f"work/relax/b{{int(wildcards.target[1:]) // {BATCH}}}.json"

rule all:
    input:
        expand("results/{{target}}/template", target=TARGETS),
        "results/summary.tsv",

rule search:
    output: "work/search/{{batch}}.json"
    shell: "true"

rule fold:
    input: rules.search.output
    output: "work/fold/{{batch}}.json"
    shell: "true"

rule relax:
    input: rules.fold.output
    output: "work/relax/{{batch}}.json"
    shell: "true"

rule score:
    input: batch_of
    output: directory("results/{{target}}/template")
    shell: "true"

rule summary:
    input: expand("results/{{target}}/template", target=TARGETS)
    output: "results/summary.tsv"
    shell: "true"
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One dry run."""

    seconds: float
    cpu_seconds: float
    calls: dict[str, int]
    finished: bool
    jobs: int

    @property
    def total(self) -> int:
        """Calls of all kinds."""
        return sum(self.calls.values())


def fill(targets: int) -> int:
    """Put the outputs of a finished run into moto's memory, oldest first; returns their number."""
    backend = s3_backends["123456789012"]["aws"]
    batches = range((targets + BATCH - 1) // BATCH)
    keys = [f"work/{step}/b{batch}.json" for step in ("search", "fold", "relax") for batch in batches]
    keys += [f"results/t{target}/template/{name}" for target in range(targets) for name in FILES]
    keys.append("results/summary.tsv")
    for key in keys:
        backend.put_object(BUCKET, f"runs/{targets}/{key}", b"x")
    return len(keys)


def dry_run(
    server: Server, folder: Path, targets: int, *options: str, limit: float | None, endpoint: str = ""
) -> Measured:
    """One `snakemake -n` in a process of its own."""
    # Snakemake keeps what it knows of files between runs below the working directory.
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [str(Path(sys.executable).with_name("snakemake")), "-n", "--quiet", "rules", "--snakefile"]
        command += [str(folder / "Snakefile"), "--directory", work, "--config", f"targets={targets}"]
        command += ["--default-resources", "mem_mb=1000", "disk_mb=1000", *options]
        environment = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT)}
        environment["AWS_ENDPOINT_URL"] = endpoint or server.url
        server.take()
        cpu_before = cpu_of_children()
        started = time.monotonic()
        text, finished = "", True
        try:
            output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=True)
            text = output.stdout + output.stderr
        except subprocess.TimeoutExpired:
            finished = False
        seconds = time.monotonic() - started
        totals = re.findall(r"^total +(\d+)$", text, re.MULTILINE)
        if finished and not totals and "Nothing to be done" not in text:
            raise SystemExit(f"unexpected output of snakemake:\n{text}")
        return Measured(
            seconds=seconds,
            cpu_seconds=cpu_of_children() - cpu_before,
            calls=dict(server.take()),
            finished=finished,
            jobs=int(totals[-1]) if totals else 0,
        )


def cpu_of_children() -> float:
    """Seconds of CPU that all ended child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--limit", type=float, default=150, help="seconds after which a run is stopped")
    parser.add_argument("--latency", type=float, default=0, help="milliseconds added to each call")
    arguments = parser.parse_args()
    columns = "{:>8} {:>8} {:<20} {:>7} {:>9} {:>7} {:>9} {:>12} {:>14}  {}"
    print(
        f"Runs of the stock plugin (s3) are stopped after {arguments.limit:.0f} s (>). "
        f"S3 is moto + {arguments.latency:.0f} ms a call."
    )
    print(
        columns.format(
            "targets",
            "outputs",
            "storage",
            "jobs",
            "seconds",
            "CPU s",
            "calls",
            "fewer calls",
            "times as fast",
            "by kind",
        )
    )
    with tempfile.TemporaryDirectory() as name, running(delay=arguments.latency / 1000) as server:
        folder = Path(name)
        (folder / "Snakefile").write_text(SNAKEFILE)
        s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")
        for targets in sorted(arguments.targets):
            prefix = ("--default-storage-prefix", f"s3://{BUCKET}/runs/{targets}", "--default-storage-provider")
            for outputs in ("absent", "present"):
                stored = fill(targets) if outputs == "present" else 0
                cases = {"s3": (*prefix, "s3"), "s3-inventory": (*prefix, "s3-inventory")}
                if outputs == "absent":
                    cases = {"none": (), "s3-inventory, no S3": cases["s3-inventory"], **cases}
                stock = None
                for storage, options in cases.items():
                    endpoint = "http://127.0.0.1:9" if "no S3" in storage else ""
                    measured = dry_run(
                        server,
                        folder,
                        targets,
                        *options,
                        limit=arguments.limit if storage == "s3" else None,
                        endpoint=endpoint,
                    )
                    more = "" if measured.finished else ">"
                    ratios = ("", "")
                    if storage == "s3":
                        stock = measured
                    elif storage == "s3-inventory" and stock is not None:
                        least = "" if stock.finished else ">"
                        ratios = (
                            f"{least}{stock.total / max(measured.total, 1):.0f}",
                            f"{least}{stock.seconds / measured.seconds:.1f}",
                        )
                    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(measured.calls.items()))
                    print(
                        columns.format(
                            targets,
                            stored,
                            storage,
                            measured.jobs,
                            f"{more}{measured.seconds:.1f}",
                            f"{measured.cpu_seconds:.1f}",
                            f"{more}{measured.total}",
                            *ratios,
                            kinds,
                        ),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
