"""A run is launched, followed and stopped from anywhere; what is shown is what AWS has."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from snakefold.away import logs
from snakefold.away.launch import launch
from snakefold.away.logs import find, follow, tail
from snakefold.away.run import Run, open_run
from snakefold.away.status import Status, as_json, as_text, status
from snakefold.away.stop import Stopped, stop
from snakefold.errors import FaultsError, SnakefoldError
from snakemake_executor_plugin_aws_batch_fleet.lock import this_process
from tests.conftest import Clone, clone_into
from tests.fake_aws import FakeAws

JOB = "0123456789ab"


@pytest.fixture(scope="module")
def aws() -> Iterator[FakeAws]:
    with FakeAws(time_scale=0.1, slots=None) as fake:
        yield fake


@pytest.fixture(scope="module")
def fleet(aws: FakeAws) -> dict[str, Any]:
    return aws.set_up()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = clone_into(tmp_path_factory.mktemp("away") / "clone")
    subprocess.run("git init --quiet && git add --all", shell=True, cwd=clone.folder, check=True)
    return clone


@pytest.fixture
def run(
    aws: FakeAws,
    fleet: dict[str, Any],
    repository: Clone,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Run]:
    """A run of its own for each test, in a repository; its jobs are ended afterwards."""
    monkeypatch.chdir(repository.folder)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    monkeypatch.setenv("SNAKEFOLD_FLEET", str(tmp_path / "fleet.yaml"))
    monkeypatch.setattr("snakefold.away.stop._SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr("snakefold.away.logs._SECONDS_BETWEEN_LOOKS", 0.1)
    aws.faults([])
    yield open_run(f"r-{abs(hash(request.node.name)) % 10**9}")
    aws.faults([])
    for job in aws.jobs():
        if job["status"] not in ("SUCCEEDED", "FAILED"):
            aws.client("batch").terminate_job(jobId=job["jobId"], reason="the test is over")


def submit(aws: FakeAws, run: Run, rule: str, script: str, job: str = JOB, queue: str = "cpu") -> str:
    """A job of the run that does something; returns its id."""
    return submit_named(aws, f"{run.id}-{rule}-{job}-{'f' * 12}", script, queue)


def submit_named(aws: FakeAws, name: str, script: str, queue: str = "cpu") -> str:
    batch = aws.client("batch")
    container = {
        "image": "worker:latest",
        "command": ["true"],
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "500"}],
    }
    batch.register_job_definition(jobDefinitionName="test", type="container", containerProperties=container)
    overrides = {"command": ["/bin/sh", "-c", script]}
    answer = batch.submit_job(jobName=name, jobQueue=queue, jobDefinition="test", containerOverrides=overrides)
    return answer["jobId"]


def write(run: Run, name: str, text: str) -> None:
    run.folder.write(name, text.encode())


def hold_lock(run: Run, **changes: Any) -> None:
    write(run, ".fleet/lock.json", json.dumps({**asdict(this_process(30)), **changes}))


def quietly(_: str) -> None:
    return


def state(aws: FakeAws, job_id: str) -> str:
    return aws.job(job_id)["status"]


# Status


def test_status_counts_jobs_attempts_and_failures(aws: FakeAws, run: Run) -> None:
    done = submit(aws, run, "search_msa", "true")
    failed = submit(aws, run, "fold", "exit 3", job="b" * 12)
    other = submit_named(aws, f"{run.id[::-1]}-fold-{JOB}-{JOB}", "true")
    waiting = submit(aws, run, "fold", "sleep 60", job="c" * 12, queue="cpu-spot")
    for job in (done, failed, other):
        aws.wait_for_job(job)
    aws.wait_for_job(waiting, ["RUNNING"])
    line = {"job_id": failed, "attempt": 1, "job": "b" * 12, "rule": "fold", "wildcards": {"batch": "x"}}
    line |= {"class": "out_of_memory", "reason": "killed", "seconds": 1800, "price_per_hour": 2.0, "stopped": 1.7e9}
    good = {**line, "job_id": done, "job": JOB, "class": "succeeded", "reason": None, "seconds": 3600}
    # Failed once, and has succeeded meanwhile, of which the ledger does not know yet.
    cured = {**line, "job_id": "old", "job": JOB}
    write(run, ".fleet/ledger.jsonl", "\n".join(json.dumps(each) for each in (line, good, cured)) + "\nhalf a li")
    found = status(run)
    assert found.jobs == {"fold": {"RUNNING": 1, "FAILED": 1}, "search_msa": {"SUCCEEDED": 1}}
    assert {kind: (each.count, each.hours, each.dollars) for kind, each in found.attempts.items()} == {
        "succeeded": (1, 1.0, 2.0),
        "out_of_memory": (2, 1.0, 2.0),
    }
    (failure,) = found.failures
    assert (failure.job_id, failure.kind, failure.time) == (failed, "out_of_memory", "2023-11-14T22:13:20+00:00")
    assert found.predictions is None
    assert not found.controller.alive
    assert "nobody follows 1 living jobs" in found.next
    assert json.loads(as_json(found))["jobs"]["fold"]["RUNNING"] == 1
    assert f"python -m snakefold logs {failed}" in as_text(found)


def test_status_tells_a_living_controller_from_a_dead_one(run: Run) -> None:
    hold_lock(run)
    found = status(run)
    assert found.controller.alive
    assert found.next.startswith("wait; its terminal says")
    hold_lock(run, process_start="1")
    found = status(run)
    assert not found.controller.alive
    assert "its process has ended" in found.controller.what


@pytest.mark.parametrize(
    ("outcome", "statuses", "expected"),
    [
        (True, ("done", "done"), "`python -m snakefold pull --run"),
        (False, ("done", "failed"), "retry --profile aws-batch --run"),
        (False, (), "goes on where it was"),
    ],
)
def test_status_says_what_to_do_next(run: Run, outcome: bool, statuses: tuple[str, ...], expected: str) -> None:
    write(run, ".fleet/ledger.jsonl", "")
    if statuses:
        rows = "".join(f"t\ttemplate\t{each}\n" for each in statuses)
        write(run, "results/summary.tsv", f"target\tengine\tstatus\n{rows}")
    if outcome:
        write(run, "results/outcome.json", "{}")
    found: Status = status(run)
    assert expected in found.next
    assert found.concluded is outcome
    counted = {each: statuses.count(each) for each in ("done", "skipped", "failed")}
    assert found.predictions == (counted if statuses else None)


def test_an_unknown_run_is_refused_in_one_line(run: Run) -> None:
    with pytest.raises(SnakefoldError, match=rf"^run {run.name}: there is nothing at s3://[^\n]*$"):
        status(run)


def test_expired_credentials_and_missing_rights_are_one_line_each(aws: FakeAws, run: Run) -> None:
    write(run, ".fleet/ledger.jsonl", "")
    aws.faults([{"kind": "expired_token", "service": "batch"}])
    with pytest.raises(SnakefoldError, match=r"^AWS credentials have expired[^\n]*aws sso login[^\n]*$"):
        status(run)
    aws.faults([{"kind": "access_denied", "service": "batch"}])
    with pytest.raises(SnakefoldError, match=r"^AWS denies access to AWS Batch \(batch:ListJobs\)[^\n]*$"):
        status(run)


# Logs


def test_logs_are_found_by_rule_id_and_name(aws: FakeAws, run: Run) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done"
    first = submit(aws, run, "fold", f"{script}; exit 1", job="a" * 12)
    second = submit(aws, run, "fold", script, job="b" * 12)
    for job in (first, second):
        aws.wait_for_job(job)
    # Of a rule the one that failed is of interest.
    assert find(run, "fold").job_id == first
    assert find(run, second[:8]).job_id == second
    assert find(run, f"{run.id}-fold-{'b' * 12}-{'f' * 12}").job_id == second
    source = find(run, second)
    aws.wait_for(lambda: len(aws.logs(second)) == 5, what="the log")
    assert tail(run, source, 2)[0] == ["line 4", "line 5"]
    assert tail(run, source, 100)[0] == [f"line {number}" for number in range(1, 6)]
    with pytest.raises(SnakefoldError, match=r"no job or rule 'relax'; a rule of fold, or a job's id"):
        find(run, "relax")
    with pytest.raises(SnakefoldError, match="nobody launched it"):
        find(run, None)


def test_a_log_is_followed_to_the_end_of_the_job_each_line_once(aws: FakeAws, run: Run, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo one; echo two; while [ ! -e {gate} ]; do sleep 0.05; done; echo three"
    job = submit(aws, run, "fold", script)
    aws.wait_for_job(job, ["RUNNING"])
    aws.wait_for(lambda: len(aws.logs(job)) == 2, what="the first lines")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line == "two":
            gate.touch()

    assert follow(run, find(run, job), 50, say) == "SUCCEEDED"
    assert said == ["one", "two", "three"]


def test_a_job_that_has_not_started_has_no_log_and_that_is_said(aws: FakeAws, run: Run) -> None:
    aws.faults([{"kind": "stuck", "match": f"{run.id}-*"}])
    job = submit(aws, run, "fold", "true")
    with pytest.raises(SnakefoldError, match=rf"^job {job} \(fold\) is [A-Z]+ and has no log: "):
        tail(run, find(run, job), 10)


# Stop


def test_stop_ends_all_jobs_of_this_run_and_no_others_and_may_be_repeated(aws: FakeAws, run: Run) -> None:
    aws.faults([{"kind": "stuck", "match": f"{run.id}-relax-*"}])
    mine = [submit(aws, run, "fold", "sleep 60", job=f"{number:012x}") for number in range(3)]
    mine.append(submit(aws, run, "relax", "sleep 60"))
    mine.append(submit_named(aws, run.controller_name, "sleep 60"))
    other = submit_named(aws, f"{run.id[::-1]}-fold-{JOB}-{JOB}", "sleep 60")
    aws.wait_for_job(other, ["RUNNING"])
    hold_lock(run, process_start="1")
    assert stop(run, quietly) == Stopped(controllers=1, jobs=4, failures=())
    for job in mine:
        assert aws.wait_for_job(job)["status"] == "FAILED"
    assert state(aws, other) == "RUNNING"
    assert run.lock() is None
    assert stop(run, quietly) == Stopped(controllers=0, jobs=0, failures=())


def test_what_a_distant_controller_submits_until_it_notices_is_ended_too(aws: FakeAws, run: Run) -> None:
    hold_lock(run, host="far", boot_id="far", heartbeat_seconds=1.0)
    submitted: list[str] = []

    def notice(line: str) -> None:
        assert "the controller on far" in line
        submitted.append(submit(aws, run, "fold", "sleep 60"))

    assert stop(run, notice).jobs == 1
    assert aws.wait_for_job(submitted[0])["status"] == "FAILED"


def test_jobs_that_cannot_be_ended_are_told(aws: FakeAws, run: Run) -> None:
    job = submit(aws, run, "fold", "sleep 60")
    aws.faults([{"kind": "access_denied", "service": "batch", "operation": "TerminateJob"}])
    stopped = stop(run, quietly)
    assert stopped.jobs == 0
    assert stopped.failures == (f"job {job} (fold) could not be ended: AccessDeniedException",)


# Launch


def test_a_launched_controller_has_the_sources_as_a_repository_and_the_runs_name(
    aws: FakeAws, run: Run, repository: Clone, tmp_path: Path
) -> None:
    # In place of Snakemake, something that says what it was given.
    fake = tmp_path / "image"
    (fake / "snakemake").mkdir(parents=True)
    (fake / "snakemake/__init__.py").write_text("")
    (fake / "snakemake/__main__.py").write_text(
        "import os, subprocess, sys\n"
        "print('ARGUMENTS', sys.argv[1:])\n"
        "print('RUN', os.environ['SNAKEFOLD_RUN'], os.environ['AWS_DEFAULT_REGION'])\n"
        "print('FILES', len(subprocess.check_output(['git', 'ls-files'], text=True).splitlines()))\n"
        "print('FLEET', os.path.exists('profiles/aws-batch/fleet.yaml'))\n"
    )
    python = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    aws.configure(images={"*": {"PATH": python, "PYTHONPATH": str(fake)}})
    launched = launch(run, ["seed=3"], ["--forceall", "--rerun-triggers", "code"], quietly)
    assert (launched.targets, launched.launch.queue) == (6, "cpu")
    job = aws.wait_for_job(launched.launch.job_id)
    assert job["jobName"] == run.controller_name
    wanted = {each["type"]: each["value"] for each in job["container"]["resourceRequirements"]}
    assert wanted == {"VCPU": "2", "MEMORY": "3815"}
    tracked = subprocess.check_output(["git", "ls-files"], cwd=repository.folder, text=True).splitlines()
    expected = ["--profile", "profiles/aws-batch", "--forceall", "--rerun-triggers", "code", "--config", "seed=3"]
    aws.wait_for(lambda: len(aws.logs(job)) >= 4, what="the log")
    assert aws.logs(job) == [
        f"ARGUMENTS {expected}",
        f"RUN {run.name} eu-west-1",
        f"FILES {len(tracked)}",
        "FLEET True",
    ]
    assert find(run, None).job_id == launched.launch.job_id
    # Again, now that it has ended: the sources are there already.
    aws.reset_stats()
    again = launch(run, ["seed=3"], ["--forceall"], quietly)
    assert again.archive == launched.archive
    assert aws.stats()["s3:PutObject"] == 1
    assert aws.wait_for_job(again.launch.job_id)["status"] == "SUCCEEDED"


def test_a_run_under_control_is_not_launched_again(aws: FakeAws, run: Run) -> None:
    aws.faults([{"kind": "stuck", "match": run.controller_name}])
    launched = launch(run, [], [], quietly)
    with pytest.raises(
        SnakefoldError, match=rf"launched it at .* its controller is [A-Z]+ \(job {launched.launch.job_id}"
    ):
        launch(run, [], [], quietly)
    assert status(run).controller.alive
    assert stop(run, quietly).controllers == 1
    hold_lock(run, host="far", boot_id="far")
    with pytest.raises(SnakefoldError, match=r"is controlled by .* on far .*; wait for it"):
        launch(run, [], [], quietly)


def test_all_faults_come_before_anything_is_sent(aws: FakeAws, run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("id\tsequence\treference\na\tMKV1\t\nb\tMKVAAAAAAAAAAAAAAAAAA\tgone.pdb\n")
    aws.reset_stats()
    with pytest.raises(FaultsError) as error:
        launch(run, [f"samples={tmp_path}/s.tsv"], [], quietly)
    assert len(error.value.faults) == 2
    with pytest.raises(SnakefoldError, match=r"^--configfile: cannot be given to a launched Snakemake"):
        launch(run, [], ["--configfile", "x.yaml"], quietly)
    assert not aws.stats()


def test_retry_takes_nothing_away_from_a_controller_that_lives(run: Run, repository: Clone) -> None:
    hold_lock(run, host="far", boot_id="far")
    command = ["retry", "--profile", "aws-batch", "--run", run.name]
    refused = repository.snakefold(*command, code=1)
    assert "is controlled by" in refused
    assert "Traceback" not in refused
    run.own.delete(["lock.json"])
    assert "0 results withdrawn" in repository.snakefold(*command)


def test_following_waits_for_a_log_that_is_not_there_yet(
    aws: FakeAws, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(aws, run, "fold", "echo first; sleep 1")
    aws.wait_for_job(job_id, ["RUNNING"])
    asked = iter(range(100))
    events = logs._events

    def late(*arguments: Any, **request: Any) -> Any:
        if next(asked) < 2:
            raise logs.NoLogYetError("not there")
        return events(*arguments, **request)

    monkeypatch.setattr(logs, "_events", late)
    said: list[str] = []
    assert follow(run, find(run, job_id), 50, said.append) == "SUCCEEDED"
    assert said == ["first"]
