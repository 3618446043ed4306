"""Our executor (`aws-batch-fleet`) against the stock one (`aws-batch` 0.2.1), on the same fake AWS.

    python -m bench.executor [--jobs 1000] [--seconds 0] [--storage s3-inventory] [--stock-at-most 900]
    python -m bench.executor --hold 10000

The first form runs, with each executor: a workflow of N jobs that do nothing (wall seconds, seconds from the first
submission to Snakemake's end, API calls by kind), then a fresh run of N jobs that do not end by themselves, interrupted
by Ctrl-C (seconds until all is terminated, jobs left running). The fake throttles as AWS does. The second form holds
jobs with our executor alone: calls a minute, the controller's share of a CPU, its peak memory.

Jobs are the fake's null jobs: nothing runs, so what is measured is the controller. Both executors use the same storage
plugin and Snakemake's same settings; the stock one may ask for 50 states a second (Snakemake's default: 10), the most
that AWS lets it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.fake_aws import FakeAws

ROOT = Path(__file__).parents[1]
AWS_RATES = {"SubmitJob": 50.0, "DescribeJobs": 50.0, "TerminateJob": 50.0}
"""Calls a second. AWS documents only that of SubmitJob; the others are set alike."""
BUCKET, PREFIX = "fake-bucket", "runs/bench"
INTERRUPT_AT_MOST = 120
SNAKEFILE = """
JOBS = range(int(config["jobs"]))

rule all:
    localrule: True
    input: expand("out/{i}.txt", i=JOBS)

rule work:
    output: "out/{i}.txt"
    resources: mem_mb=2048
    shell: "touch {output}"
"""


@dataclass(frozen=True, kw_only=True)
class Executor:
    """How Snakemake is told to use an executor."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run of jobs that do nothing. Seconds."""

    wall: float
    jobs_took: float
    calls: dict[str, int]
    succeeded: int
    in_time: bool


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """A run of held jobs after Ctrl-C. Seconds."""

    held: int
    seconds: float
    left: int
    ended: bool


@dataclass(kw_only=True)
class Controller:
    """A Snakemake process in a folder of its own."""

    aws: FakeAws
    executor: Executor
    jobs: int
    storage: str
    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / "Snakefile").write_text(SNAKEFILE)
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        command = [
            *(sys.executable, "-m", "snakemake", "--executor", self.executor.name, *self.executor.arguments),
            *("--config", f"jobs={self.jobs}", "--jobs", str(2 * self.jobs), "--scheduler", "greedy"),
            *("--max-jobs-per-timespan", "100000/1s", "--max-status-checks-per-second", "50"),
            *("--default-resources", "mem_mb=2048", "disk_mb=1000", "--quiet", "rules", "progress"),
            *("--default-storage-provider", self.storage, "--default-storage-prefix", f"s3://{BUCKET}/{PREFIX}"),
            *("--container-image", "worker:latest"),
        ]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**environment, **self.aws.environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
        )

    def wait(self, condition: Callable[[], bool], at_most: float) -> bool:
        """Polls until the condition holds or the process has ended. False when time ran out before."""
        deadline = time.monotonic() + at_most
        while not condition() and self.process.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.25)
        return True

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def tail(self) -> str:
        """The last lines of what it printed."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-15:])


def null_settings(seconds: float, rates: dict[str, float]) -> dict[str, Any]:
    """Settings of the fake: jobs that take `seconds` and then have their output."""
    output = {"pattern": r"work:i=(\d+)", "bucket": BUCKET, "key": rf"{PREFIX}/out/\1.txt", "body": "x"}
    return {
        "engine": "null",
        "slots": None,
        "null_seconds": seconds,
        "null_outputs": [output],
        "rates": rates,
        # No job of the bench runs into the time-out that the stock executor needs to be given.
        "time_scale": 1000,
    }


def executors(fleet: dict[str, Any], fleet_file: Path, submit_rate: float | None = None) -> dict[str, Executor]:
    """Both executors, for this fleet."""
    fleet_file.write_text(json.dumps(fleet))
    account = f"arn:aws:batch:{fleet['region']}:123456789012"
    ours = ["--aws-batch-fleet-file", str(fleet_file)]
    if submit_rate is not None:
        ours += ["--aws-batch-fleet-submit-rate", str(submit_rate)]
    stock = ("--aws-batch-region", fleet["region"], "--aws-batch-job-role", fleet["job_role_arn"])
    stock += ("--aws-batch-job-queue", f"{account}:job-queue/cpu-spot", "--aws-batch-task-timeout", "86400")
    return {
        "ours": Executor(name="aws-batch-fleet", arguments=tuple(ours)),
        "stock": Executor(name="aws-batch", arguments=stock),
    }


def run_to_the_end(
    aws: FakeAws, executor: Executor, *, jobs: int, seconds: float, storage: str, at_most: float
) -> Finished:
    """Runs jobs that do nothing (for some seconds) until Snakemake ends or time is up."""
    aws.reset()
    aws.configure(**null_settings(seconds, AWS_RATES))
    with tempfile.TemporaryDirectory() as folder:
        controller = Controller(aws=aws, executor=executor, jobs=jobs, storage=storage, folder=Path(folder))
        in_time = controller.wait(lambda: False, at_most)
        wall, ended_at = time.monotonic() - controller.started, time.time()
        controller.stop()
        done = [job for job in aws.jobs() if job["status"] == "SUCCEEDED"]
        if in_time and controller.process.returncode:
            print(f"  {executor.name} ended with {controller.process.returncode}:\n{controller.tail()}")
    took = ended_at - min(job["createdAt"] for job in done) / 1000 if done else 0.0
    return Finished(wall=wall, jobs_took=took, calls=aws.stats(), succeeded=len(done), in_time=in_time)


def interrupt(aws: FakeAws, executor: Executor, *, jobs: int, storage: str, at_most: float) -> Interrupted:
    """Has all jobs running, then sends what Ctrl-C sends, while the controller asks for their states.

    That is the usual moment (with a thousand jobs the stock executor spends four fifths of its time on it) and the hard
    one: Snakemake's own list of active jobs is empty meanwhile.
    """
    aws.reset()
    aws.configure(**null_settings(1e6, AWS_RATES))
    with tempfile.TemporaryDirectory() as folder:
        controller = Controller(aws=aws, executor=executor, jobs=jobs, storage=storage, folder=Path(folder))
        controller.wait(lambda: aws.counts().get("RUNNING", 0) >= jobs, at_most)
        held = aws.counts().get("RUNNING", 0)
        if controller.process.poll() is not None:
            print(f"  {executor.name} ended early with {controller.process.returncode}:\n{controller.tail()}")
        asked = aws.stats().get("batch:DescribeJobs", 0)
        controller.wait(lambda: aws.stats().get("batch:DescribeJobs", 0) > asked, 120)
        sent = time.monotonic()
        controller.process.send_signal(signal.SIGINT)
        gone = 0.0

        def over() -> bool:
            nonlocal gone
            if not gone and not live(aws):
                gone = time.monotonic()
            return False

        ended = controller.wait(over, INTERRUPT_AT_MOST)
        seconds = (gone or time.monotonic()) - sent
        controller.stop()
    return Interrupted(held=held, seconds=seconds, left=live(aws), ended=ended)


def live(aws: FakeAws) -> int:
    """Jobs that have not ended."""
    return sum(number for status, number in aws.counts().items() if status not in ("SUCCEEDED", "FAILED"))


def hold(jobs: int, storage: str, seconds: float) -> None:
    """Measures our controller while it holds that many jobs."""
    with FakeAws() as aws, tempfile.TemporaryDirectory() as folder:
        fleet = aws.set_up(bucket=BUCKET, max_vcpus=4 * jobs)
        # At AWS's rate the submission alone would take jobs / 40 seconds.
        ours = executors(fleet, Path(folder) / "fleet.json", submit_rate=2000)["ours"]
        aws.configure(**null_settings(1e6, {"DescribeJobs": AWS_RATES["DescribeJobs"]}))
        (work := Path(folder) / "work").mkdir()
        controller = Controller(aws=aws, executor=ours, jobs=jobs, storage=storage, folder=work)
        in_time = controller.wait(lambda: aws.counts().get("RUNNING", 0) >= jobs, 1800)
        if not in_time or controller.process.poll() is not None:
            controller.stop()
            print(f"not all of {jobs} jobs came to run: {aws.counts()}\n{controller.tail()}")
            return
        print(f"{jobs} jobs are running {time.monotonic() - controller.started:.0f} s after the start (not throttled)")
        process = psutil.Process(controller.process.pid)
        calls, cpu, began = aws.stats(), process.cpu_times(), time.monotonic()
        controller.wait(lambda: time.monotonic() - began > seconds, 2 * seconds)
        took, after = time.monotonic() - began, process.cpu_times()
        for name, number in sorted(aws.stats().items()):
            if more := number - calls.get(name, 0):
                print(f"  {name}: {more * 60 / took:.1f} calls a minute")
        share = (after.user + after.system - cpu.user - cpu.system) / took
        print(f"  controller: {share:.1%} of a CPU, peak {peak_memory(process.pid) / 1e6:.0f} MB, over {took:.0f} s")
        sent = time.monotonic()
        controller.process.send_signal(signal.SIGINT)
        controller.wait(lambda: not live(aws), INTERRUPT_AT_MOST)
        print(f"  Ctrl-C: {live(aws)} jobs left after {time.monotonic() - sent:.0f} s (TerminateJob not throttled)")
        controller.wait(lambda: False, 60)
        controller.stop()


def peak_memory(pid: int) -> int:
    """Most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def show_calls(calls: dict[str, int]) -> None:
    """Prints the calls by kind."""
    for name, number in sorted(calls.items()):
        print(f"    {name}: {number}")


def compare(jobs: int, seconds: float, storage: str, at_most: float) -> None:
    """Runs both executors and prints how they compare."""
    with FakeAws() as aws, tempfile.TemporaryDirectory() as folder:
        both = executors(aws.set_up(bucket=BUCKET, max_vcpus=4 * jobs), Path(folder) / "fleet.json")
        print(
            f"{jobs} jobs that do nothing for {seconds:.0f} s, storage {storage}, calls a second at most: {AWS_RATES}"
        )
        finished: dict[str, Finished] = {}
        interrupted: dict[str, Interrupted] = {}
        for name, executor in both.items():
            run = finished[name] = run_to_the_end(
                aws, executor, jobs=jobs, seconds=seconds, storage=storage, at_most=at_most
            )
            limit = "" if run.in_time else f" (STOPPED: it hit the limit of {at_most:.0f} s)"
            print(f"{name} ({executor.name}): {run.wall:.1f} s{limit}, {run.succeeded} jobs done,")
            print(f"  {run.jobs_took:.1f} s from the first submission to the end; calls:")
            show_calls(run.calls)
            stop = interrupted[name] = interrupt(aws, executor, jobs=jobs, storage=storage, at_most=at_most)
            still = "" if stop.ended else f", the process had not ended after {INTERRUPT_AT_MOST} s"
            print(f"  Ctrl-C with {stop.held} running: {stop.seconds:.1f} s, {stop.left} jobs left{still}")
    ours, stock = finished["ours"], finished["stock"]
    batch = {name: sum(n for call, n in run.calls.items() if is_batch(call)) for name, run in finished.items()}
    bound = "" if stock.in_time else "at least "
    print(f"stock / ours: wall {bound}{stock.wall / ours.wall:.1f},")
    print(f"  from the first submission on {bound}{stock.jobs_took / max(ours.jobs_took, 1e-3):.1f},")
    print(f"  Batch calls {bound}{batch['stock'] / max(batch['ours'], 1):.1f} ({batch['stock']} / {batch['ours']}),")
    print(f"  jobs left by Ctrl-C {interrupted['stock'].left} / {interrupted['ours'].left}")


def is_batch(call: str) -> bool:
    """Whether a count is of calls to AWS Batch (not of how many of them were refused)."""
    return call.startswith("batch:") and call.count(":") == 1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each job takes")
    parser.add_argument("--storage", default="s3-inventory", help="storage plugin of both: s3-inventory or s3")
    parser.add_argument("--stock-at-most", type=float, default=900, help="seconds after which a run is stopped")
    parser.add_argument("--hold", type=int, help="hold this many jobs with our executor instead")
    parser.add_argument("--hold-seconds", type=float, default=120)
    arguments = parser.parse_args()
    # A shell ignores SIGINT in what it puts in the background, and children inherit that: Ctrl-C would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments.hold:
        hold(arguments.hold, arguments.storage, arguments.hold_seconds)
    else:
        compare(arguments.jobs, arguments.seconds, arguments.storage, arguments.stock_at_most)


if __name__ == "__main__":
    main()
