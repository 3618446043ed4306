"""What the user sees of each fault of AWS, with workflows of a few tiny jobs; what is left running, what comes twice.

Where the fault is one of the service, jobs are the fake's null jobs, which run nothing; where what a tool prints
matters, they are processes. The real workflow under the same faults is in test_aws.py.
"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import environment
from tests.e2e.aws import BUCKET, Account

LIVE = {"SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"}
SNAKEFILE = """
rule all:
    localrule: True
    input: expand("out/{i}.txt", i=range(int(config.get("parts", 2))))

rule part:
    output: "out/{i}.txt"
    retries: int(config.get("retries", 0))
    resources: mem_mb=600, runtime=5
    shell: "bash part.sh {wildcards.i} {output}"
"""
# A rule for each fault.
RULES = """
rule all:
    localrule: True
    input: expand("out/{{rule}}.txt", rule={rules})

for each in {rules}:
    rule:
        name: each
        output: f"out/{{each}}.txt"
        resources: mem_mb=600, runtime=60
        shell: "touch {{output}}"
"""


@dataclass(frozen=True)
class Flow:
    """A tiny workflow in a folder, with a run of its own in the account."""

    account: Account
    folder: Path
    name: str

    def null_jobs(self, seconds: float = 0.0, **more: Any) -> None:
        """Let jobs run nothing for a time and have their output."""
        key = f"runs/{self.name}/out/\\1.txt"
        # The number of a part, or the name of a rule without wildcards.
        pattern = r"--target-jobs '(?:part:i=)?(\w+):?'"
        output = {"pattern": pattern, "bucket": BUCKET, "key": key, "body": "x"}
        # Times of the service's own, such as a job's limit, are those of AWS here.
        settings = {"engine": "null", "slots": None, "null_seconds": seconds, "null_outputs": [output], "time_scale": 1}
        self.account.aws.configure(**{**settings, **more})

    def tool(self, script: str) -> None:
        """What a job runs, a shell script; $1 is its number, $2 its output."""
        (self.folder / "part.sh").write_text(script)

    def faults(self, *faults: dict[str, Any]) -> None:
        """The faults of this run's jobs and of calls, as of now."""
        self.account.aws.faults(faults)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a run. A shell in the background may have let us ignore Ctrl-C; the run must not."""
        command = f"""snakemake --executor aws-batch-fleet --aws-batch-fleet-file {self.account.folder}/fleet.yaml
            --default-storage-provider s3-inventory --default-storage-prefix s3://{BUCKET}/runs/{self.name}
            --jobs 1000 --nolock --keep-going --shared-fs-usage none --scheduler greedy --rerun-incomplete
            --seconds-between-status-checks 1 --max-jobs-per-timespan 1000/1s
            --default-resources mem_mb=600 disk_mb=500""".split()
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(command[0])), *command[1:], *arguments],
            cwd=self.folder,
            env={**environment(), **self.account.variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def finish(self, process: subprocess.Popen[str], code: int) -> str:
        """What a run prints to its end; nothing of it may be a traceback, and nothing may be left or come twice."""
        try:
            output, _ = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(output) from None
        assert process.returncode == code, output
        assert "Traceback" not in output, output
        assert not re.search(r'^  File ".*", line', output, re.MULTILINE), output
        if shown := os.environ.get("SNAKEFOLD_SHOW_FAULTS"):
            (Path(shown) / f"{self.name}.txt").write_text(output)
        return output

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Run to the end; leaves no job running."""
        output = self.finish(self.start(*arguments, **variables), code)
        assert not [job["jobName"] for job in self.jobs() if job["status"] in LIVE]
        return output

    def jobs(self) -> list[dict[str, Any]]:
        """This run's Batch jobs in the order of their submission."""
        prefix = f"s3://{BUCKET}/runs/{self.name}"
        return [job for job in self.account.aws.jobs() if job["tags"].get("snakemake-prefix") == f"{prefix}/"]

    def outputs(self) -> set[str]:
        """The numbers of the parts that are there."""
        return {Path(key).stem for key in self.account.objects(f"runs/{self.name}/out/")}

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        """Wait until something holds."""
        self.account.aws.wait_for(condition, seconds)


@pytest.fixture
def flow(account: Account, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Flow]:
    """The workflow in a git repository; afterwards the account is as before."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "part.sh").write_text("echo $1 > $2\n")
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    before = account.aws.settings
    account.aws.reset_stats()
    flow = Flow(account, tmp_path, name)
    yield flow
    account.aws.faults([])
    for job in (job for job in flow.jobs() if job["status"] in LIVE):
        account.aws.client("batch").terminate_job(jobId=job["jobId"], reason="the test has ended")
    account.aws.configure(**before.model_dump())


def block(output: str, rule: str) -> list[str]:
    """The message about a failed job of a rule: its headline and the lines below that belong to it."""
    lines = output.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith(f"{rule}: ")), None)
    assert first is not None, output
    last = next(number for number in range(first + 1, len(lines)) if not lines[number].startswith("  "))
    return lines[first:last]


def assert_told(output: str, rule: str, kind: str, what: str, advice: str) -> list[str]:
    """One clear block: the class, what happened, what to do, AWS's words."""
    told = block(output, rule)
    assert f"failed ({kind}" in told[0], told
    assert what in told[0], told
    assert told[1].startswith("  What to do: ") and advice in told[1], told
    assert told[2].startswith("  AWS says: "), told
    return told


def assert_none_twice(flow: Flow, jobs: int) -> None:
    """No job of the workflow was submitted twice."""
    names = Counter(job["jobName"] for job in flow.jobs())
    assert len(names) == jobs and set(names.values()) == {1}, names


# ---------------------------------------------------------------- jobs that fail


def test_each_failure_says_what_happened_and_what_to_do_and_the_rest_goes_on(flow: Flow) -> None:
    rules = ("pulled", "unstarted", "forgotten", "refused", "slow", "fine")
    (flow.folder / "Snakefile").write_text(RULES.format(rules=rules))
    # The fake's minute takes 1.2 seconds, and jobs take three.
    flow.null_jobs(seconds=3, time_scale=0.02)
    flow.faults(
        {"kind": "pull", "match": "*-pulled-*", "times": None},
        {"kind": "start", "match": "*-unstarted-*"},
        {"kind": "vanished", "match": "*-forgotten-*"},
        {"kind": "refuse", "match": "*-refused-*", "reason": "Share identifier is required"},
    )
    output = flow.run("--set-resources", "slow:runtime=1", code=1)

    told = assert_told(output, "pulled", "image_pull, 3 attempts", "Its image could not be pulled.", "name and digest")
    assert "CannotPullContainerError" in told[2] and "worker:latest" in told[2]
    assert told[3] == "  No log: the container did not start."
    told = assert_told(output, "unstarted", "start_failure", "Its container could not be started.", "Check mounts")
    assert "CannotStartContainerError" in told[2]
    assert_told(output, "forgotten", "vanished", "AWS Batch does not know it any more.", "Run again")
    told = assert_told(output, "refused", "refused", "AWS Batch did not accept it.", "the other jobs go on")
    assert "Share identifier is required" in told[2]
    told = assert_told(output, "slow", "timeout", "It ran longer than it may.", "runtime (minutes)")
    assert "Job attempt duration exceeded timeout" in told[2]
    assert output.count("What to do: ") == 5
    assert "fine" in flow.outputs()
    assert_none_twice(flow, 5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"job_queues": {"cpu-spot": {"state": "DISABLED"}}}, "queue cpu-spot is disabled"),
        (
            {"compute_environments": {"cpu-spot-environment": {"computeResources": {"maxvCpus": 2}}}},
            "compute environment cpu-spot-environment may have 2 vCPUs, the job needs 4",
        ),
    ],
    ids=["disabled", "small"],
)
def test_a_job_that_never_starts(flow: Flow, settings: dict[str, Any], reason: str) -> None:
    flow.null_jobs(seconds=1000)
    flow.faults({"kind": "stuck", "match": "*-part-*"})
    process = flow.start(
        *("--aws-batch-fleet-waiting-warning", "0.02", "--aws-batch-fleet-waiting-limit", "0.05"),
        *("--set-threads", "part=4"),
    )
    flow.wait(lambda: len(flow.jobs()) == 2)
    # Only now: a queue that is shut takes no jobs.
    flow.account.aws.configure(**settings)
    output = flow.finish(process, 1)
    (warning,) = [line for line in output.splitlines() if "have waited for more than" in line]
    assert warning.startswith("2 job(s) in queue cpu-spot") and reason in warning, warning
    told = assert_told(output, "part", "stuck", "It never started.", "Mend the queue or its compute environment")
    assert reason in told[2]
    assert {job["status"] for job in flow.jobs()} == {"FAILED"}
    assert_none_twice(flow, 2)


def test_two_hundred_jobs_through_a_throttled_api(flow: Flow) -> None:
    flow.null_jobs(rates={"SubmitJob": 50, "DescribeJobs": 5})
    output = flow.run("--config", "parts=200", "--aws-batch-fleet-submit-rate", "200")
    assert "failed (" not in output
    assert flow.account.aws.stats().get("batch:SubmitJob:throttled"), "nothing was throttled: the test proves nothing"
    assert len(flow.outputs()) == 200
    assert_none_twice(flow, 200)


def test_a_job_that_fits_no_queue(flow: Flow) -> None:
    flow.null_jobs()
    output = flow.run("--set-resources", "part:mem_mb=900000", code=1)
    (line, *_) = [line for line in output.splitlines() if "cannot run on AWS Batch" in line]
    assert "the nearest queue is cpu" in line and "memory: 900000 MB asked, 768000 MB there" in line
    assert "Lower the rule's resources" in line
    assert not flow.jobs()


def test_a_tool_that_fails_has_the_last_word(flow: Flow) -> None:
    flow.tool("seq 40; echo 'part.sh: no such chain: Q' >&2; exit 3\n")
    output = flow.run("--config", "parts=1", code=1)
    told = assert_told(output, "part", "user_error", "Its command failed.", "Read the log below")
    log = [line.removeprefix("    | ") for line in told if line.startswith("    | ")]
    assert len(log) == 30
    assert "part.sh: no such chain: Q" in log[-6:]
    assert "returned non-zero exit status 3" in log[-1]
    # The rest is the tool's: no job statistics, resources or advice of the Snakemake that ran it.
    assert log[0].isdigit()
    assert_none_twice(flow, 1)


def test_a_tool_killed_for_memory_while_snakemake_lives_on(flow: Flow) -> None:
    flow.tool("bash -c 'kill -KILL $$'\n")
    output = flow.run("--config", "parts=1", code=1)
    told = assert_told(output, "part", "out_of_memory", "used more memory than it had asked for", "mem_mb")
    assert "exit code 1" in told[2]
    assert any("Killed" in line or "SIGKILL" in line for line in told[3:]), told


def test_a_full_gpu_moves_to_the_next_larger_one(flow: Flow) -> None:
    # The second attempt is told from the first by its queue.
    flow.tool("""
        [ "$AWS_BATCH_JQ_NAME" = gpu-large ] && exec echo done > $2
        echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB' >&2; exit 1
    """)
    output = flow.run("--config", "parts=1", "retries=1", "--set-resources", "part:gpu=1")
    told = assert_told(output, "part", "out_of_memory", "The GPU's memory was not enough.", "next larger GPU")
    assert any("Tried to allocate" in line for line in told)
    assert [job["jobQueue"].rpartition("/")[2] for job in flow.jobs()] == ["gpu-spot", "gpu-large"]


def test_ctrl_c_while_fifty_jobs_are_asked_for(flow: Flow) -> None:
    flow.null_jobs(seconds=1000)
    process = flow.start("--config", "parts=50")
    flow.wait(lambda: sum(job["status"] == "RUNNING" for job in flow.jobs()) == 50)
    # Snakemake's own list of jobs is empty while a look lasts, which it does for as long as AWS is slow to answer.
    flow.account.aws.configure(rates={"DescribeJobs": 0.001})
    asked = flow.account.aws.stats().get("batch:DescribeJobs:throttled", 0)
    flow.wait(lambda: flow.account.aws.stats().get("batch:DescribeJobs:throttled", 0) > asked)
    os.kill(process.pid, signal.SIGINT)
    # Nor must ending them wait for AWS to be asked less often: with 10,000 jobs that would be an hour.
    flow.wait(lambda: not [job for job in flow.jobs() if job["status"] in LIVE], 5)
    flow.account.aws.configure(rates={})
    output = flow.finish(process, 1)
    assert "Ending 50 AWS Batch jobs" in output
    assert "What to do" not in output
    assert_none_twice(flow, 50)


# ---------------------------------------------------------------- storage and credentials


def test_an_s3_that_fails_now_and_then(flow: Flow) -> None:
    flow.faults(
        {"kind": "slow_down", "service": "s3", "share": 0.2, "times": 30},
        {"kind": "internal_error", "service": "s3", "share": 0.15, "times": 20},
        {"kind": "cut_request", "service": "s3", "share": 0.15, "times": 10},
        {"kind": "cut_reply", "service": "s3", "operation": "GetObject", "share": 0.1, "times": 5},
    )
    output = flow.run()
    assert "failed (" not in output
    stats = flow.account.aws.stats()
    struck = {key.rpartition(":")[2] for key in stats}
    assert {"slow_down", "internal_error", "cut_request"} <= struck, stats
    flow.faults()
    assert flow.outputs() == {"0", "1"}
    assert_none_twice(flow, 2)


def keys(path: Path, access_key: str) -> dict[str, str]:
    """Variables of a user who has keys in a file; the file, whole at any time."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = fake\n")
    fresh.replace(path)
    return {"AWS_SHARED_CREDENTIALS_FILE": str(path), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


def test_credentials_that_expire_and_are_renewed(flow: Flow) -> None:
    flow.null_jobs(seconds=4)
    credentials = flow.folder / "credentials"
    process = flow.start("--config", "parts=20", **keys(credentials, "AKIAOLD"))
    flow.wait(lambda: len([job for job in flow.jobs() if job["status"] == "RUNNING"]) >= 10)
    flow.faults({"kind": "expired_token", "access_key": "AKIAOLD"})
    # The jobs end meanwhile, so that both executor and storage have something to ask.
    flow.wait(lambda: flow.account.aws.stats().get("batch:DescribeJobs:expired_token", 0) >= 2)
    keys(credentials, "AKIANEW")
    output = flow.finish(process, 0)
    assert output.count("AWS credentials are no longer valid (ExpiredTokenException)") == 1
    assert output.count("AWS answers again.") == 1
    assert output.count("S3: the AWS credentials have expired (ExpiredToken). Renew them") == 1
    assert output.count("S3: the new credentials work.") == 1
    assert len(flow.outputs()) == 20
    assert_none_twice(flow, 20)


def test_ctrl_c_while_the_storage_waits_for_credentials(flow: Flow) -> None:
    flow.null_jobs(seconds=3)
    process = flow.start("--config", "parts=4", **keys(flow.folder / "credentials", "AKIAOLD"))
    flow.wait(lambda: len(flow.jobs()) == 4)
    flow.faults({"kind": "expired_token", "service": "s3", "access_key": "AKIAOLD"})
    flow.wait(lambda: flow.account.aws.stats().get("s3:ListObjectsV2:expired_token", 0) >= 2)
    os.kill(process.pid, signal.SIGINT)
    assert flow.finish(process, 1).count("S3: the AWS credentials have expired (ExpiredToken). Renew them") == 1
    assert {job["status"] for job in flow.jobs()} <= {"SUCCEEDED", "FAILED"}


def test_credentials_that_nobody_renews_leave_the_jobs_to_the_next_controller(flow: Flow) -> None:
    flow.null_jobs(seconds=1000)
    variables = keys(flow.folder / "credentials", "AKIAOLD")
    process = flow.start("--aws-batch-fleet-credentials-grace", "0.05", **variables)
    flow.wait(lambda: [job["status"] for job in flow.jobs()] == ["RUNNING"] * 2)
    flow.faults({"kind": "expired_token", "access_key": "AKIAOLD"})
    output = flow.finish(process, 1)
    assert "its jobs go on. Start the same command again to follow them." in " ".join(output.split())
    assert [job["status"] for job in flow.jobs()] == ["RUNNING"] * 2
    flow.faults()
    flow.account.aws.reset_stats()
    second = flow.start(**variables)
    flow.wait(lambda: flow.account.aws.stats().get("batch:DescribeJobs"))
    os.kill(second.pid, signal.SIGINT)
    assert "Ending 2 AWS Batch jobs" in flow.finish(second, 1)
    assert_none_twice(flow, 2)


def test_expired_credentials_in_the_environment_end_the_controller_at_once(flow: Flow) -> None:
    flow.null_jobs(seconds=1000)
    process = flow.start()
    flow.wait(lambda: [job["status"] for job in flow.jobs()] == ["RUNNING"] * 2)
    flow.faults({"kind": "expired_token", "access_key": "AKIAFAKE"})
    output = flow.finish(process, 1)
    assert "they come from environment variables, which a running process never reads again" in output
    assert [job["status"] for job in flow.jobs()] == ["RUNNING"] * 2


def test_no_credentials_at_all(flow: Flow) -> None:
    output = flow.run(code=1, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert output.count("S3: no AWS credentials found: set AWS_PROFILE") == 1
    assert not flow.jobs()


def test_a_bucket_that_is_not_there(flow: Flow) -> None:
    output = flow.run("--default-storage-prefix", "s3://no-such-bucket-here/runs/x", code=1)
    (line,) = [line for line in output.splitlines() if "no-such-bucket-here" in line and line.startswith("S3:")]
    assert "there is no bucket 'no-such-bucket-here'" in line and "create it, or correct the storage prefix" in line
    assert not flow.jobs()
