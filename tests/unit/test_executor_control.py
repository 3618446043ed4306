"""The life of jobs on AWS Batch: submitted, adopted, followed, moved, ended. AWS is a stand-in in memory."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_aws_batch_fleet.adoption import Census, Found, Verdict, judge
from snakemake_executor_plugin_aws_batch_fleet.aws import is_passing_trouble
from snakemake_executor_plugin_aws_batch_fleet.backlog import record_backlog
from snakemake_executor_plugin_aws_batch_fleet.control import Control, Limits, Place, Work, duration
from snakemake_executor_plugin_aws_batch_fleet.definitions import ContainerSpec, Definitions
from snakemake_executor_plugin_aws_batch_fleet.demand import of_job
from snakemake_executor_plugin_aws_batch_fleet.events import Events, event_detail
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet, Queue
from snakemake_executor_plugin_aws_batch_fleet.identity import job_name
from snakemake_executor_plugin_aws_batch_fleet.ledger import Ledger
from snakemake_executor_plugin_aws_batch_fleet.limiter import RateLimiter
from snakemake_executor_plugin_aws_batch_fleet.patience import Patience
from snakemake_executor_plugin_aws_batch_fleet.request import Plan
from snakemake_executor_plugin_aws_batch_fleet.routing import Need
from snakemake_executor_plugin_aws_batch_fleet.status import Interval, Selection, describe_jobs
from snakemake_executor_plugin_aws_batch_fleet.waiting import explain_queue
from tests.unit.executor_stubs import StubAws, client_error

RUN = "0123abcd"
FLEET = Fleet(
    region="eu-west-1",
    queues=[
        Queue(name="spot", vcpus=8, memory_mb=32_000, purchase="spot", price_per_hour=1),
        Queue(name="cpu", vcpus=8, memory_mb=32_000, purchase="on_demand", price_per_hour=3),
        Queue(name="gpu", vcpus=8, memory_mb=32_000, gpus=1, gpu_memory_mb=16_000, price_per_hour=3),
        Queue(name="gpu-large", vcpus=8, memory_mb=32_000, gpus=1, gpu_memory_mb=40_000, price_per_hour=9),
    ],
)


class Notes:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.jobs: dict[str, Work] = {}
        self.good: list[Work] = []
        self.bad: list[tuple[Work, str]] = []
        self.said: list[str] = []
        self.warned: list[str] = []

    def submitted(self, work: Work) -> None:
        self.jobs[work.job_id] = work

    def succeeded(self, work: Work) -> None:
        self.good.append(work)

    def failed(self, work: Work, text: str) -> None:
        self.bad.append((work, text))

    def info(self, text: str) -> None:
        self.said.append(text)

    def warning(self, text: str) -> None:
        self.warned.append(text)


class Bench:
    """A `Control` and what is around it."""

    def __init__(self, folder: Path, found: list[Found] = [], **limits: Any) -> None:  # noqa: B006
        self.aws: Any = StubAws()
        self.notes = Notes()
        self.ledger = Ledger(folder / "ledger.jsonl", self.aws, "bucket", "run/.fleet/ledger.jsonl")
        self.ledger.restore()
        self.census = Census(found)
        numbers: dict[str, Any] = {"submit_rate": 1e6, "submit_threads": 4, "log_lines": 2, "waiting_warning": 1800}
        self.control = Control(
            aws=self.aws,
            fleet=FLEET,
            place=Place(bucket="bucket", prefix="run/.fleet/"),
            limits=Limits(**{**numbers, "waiting_limit": 86_400, **limits}),
            listener=self.notes,
            ledger=self.ledger,
            definitions=Definitions(self.aws, {}),
            patience=Patience(self.aws, self.notes.warning, 3600),
            selection=Selection(),
            census=self.census,
            began=time.time(),
        )

    def work(self, queue: str = "spot", job: str = "a" * 12, work: str = "b" * 12, **resources: Any) -> Work:
        demand = of_job(1, {"mem_mb": 1000, **resources})
        place = FLEET.queue(queue)
        assert place is not None
        plan = Plan(
            name=job_name(run=RUN, rule="fold", job=job, work=work),
            demand=demand,
            container=ContainerSpec(image="i"),
            command="true",
            environment=(),
            tags=(),
        )
        return Work(job=object(), digest=job, wildcards={"i": "1"}, plan=plan, queue=place)

    def start(self, work: Work) -> Work:
        """Starts a job and waits until it is at AWS."""
        self.control.start(work)
        wait(lambda: work.job_id)
        return work

    def end(self, work: Work, status: str = "FAILED", exit_code: int | None = 1, **more: Any) -> None:
        """Makes a job end."""
        container: dict[str, Any] = {"logStreamName": "s/1"}
        if exit_code is not None:
            container["exitCode"] = exit_code
        attempt = {
            "startedAt": 1_000,
            "stoppedAt": 61_000,
            "container": container,
            "statusReason": more.get("statusReason"),
        }
        self.aws.batch.jobs[work.job_id].update(
            {
                "status": status,
                "startedAt": 1_000,
                "createdAt": 500,
                "container": container,
                "attempts": [attempt],
                **more,
            }
        )

    def records(self) -> list[dict[str, Any]]:
        """The ledger's lines."""
        self.ledger.upload()
        body, _ = self.aws.s3.objects["run/.fleet/ledger.jsonl"]
        return [json.loads(line) for line in body.splitlines()]


def wait(condition: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        threading.Event().wait(0.005)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_job_is_submitted_followed_and_told(bench: Bench) -> None:
    work = bench.start(bench.work())
    request = bench.aws.batch.submitted[0]
    assert request["jobQueue"] == "spot" and request["jobName"] == str(work.plan.name)
    assert bench.control.look([work]) == ([work], False)
    bench.end(work, "SUCCEEDED", 0)
    assert bench.control.look([work]) == ([], True)
    assert bench.notes.good == [work] and not bench.notes.bad
    (record,) = bench.records()
    assert record["class"] == "succeeded" and record["seconds"] == 60 and record["queue"] == "spot"
    assert record["price_per_hour"] == pytest.approx(0.125)


def test_a_refused_job_fails_alone(bench: Bench) -> None:
    bench.aws.batch.errors = [client_error("ClientException")]
    bench.control.start(first := bench.work())
    wait(lambda: bench.notes.bad)
    second = bench.start(bench.work(job="c" * 12))
    assert [work for work, _ in bench.notes.bad] == [first]
    assert "ClientException" in bench.notes.bad[0][1] and second.job_id in bench.notes.jobs


def test_a_network_that_is_down_refuses_no_job_and_doubles_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first request came through, but not its answer.
    now = round(time.time() * 1000)
    twin = {"jobId": "twin", "status": "RUNNABLE", "createdAt": now}
    pages = SimpleNamespace(paginate=lambda **_: [{"jobSummaryList": [twin]}])
    monkeypatch.setattr(bench.aws.batch, "get_paginator", lambda _: pages, raising=False)
    bench.aws.batch.errors = [client_error("InternalError", 500)]
    work = bench.start(bench.work())
    wait(lambda: bench.notes.jobs)
    assert not bench.notes.bad and list(bench.aws.batch.terminated) == ["twin"]
    assert (
        "AWS does not answer as it should" in bench.notes.warned[0] and bench.notes.warned[-1] == "AWS answers again."
    )
    assert bench.control.look([work]) == ([work], False)


def test_credentials_that_cannot_be_renewed_end_the_run_and_fail_no_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.aws, "renew", lambda: "they are those of the environment")
    bench.aws.batch.errors = [client_error("ExpiredTokenException")]
    bench.control.start(bench.work())
    with pytest.raises(WorkflowError, match=r"those of the environment\. This controller ends; its jobs go on"):
        wait(lambda: bench.control.look([]) is None)
    assert not bench.notes.bad


def test_a_failure_shows_class_advice_and_the_end_of_the_log(bench: Bench) -> None:
    bench.aws.log = ["one", "two", "Killed"]
    work = bench.start(bench.work())
    bench.end(work, statusReason="Essential container in task exited")
    bench.control.look([work])
    ((failed, text),) = bench.notes.bad
    assert failed is work
    assert "(out_of_memory)" in text and "mem_mb" in text and "exit code 1" in text
    # Two lines are shown; more are read.
    assert text.endswith("    | two\n    | Killed") and "| one" not in text


def test_after_spot_reclaims_a_job_moves_on_demand_once(bench: Bench) -> None:
    work = bench.start(bench.work())
    bench.end(work, exit_code=None, statusReason="Host EC2 (instance i-1) terminated.")
    assert bench.control.look([work])[0] == []
    wait(lambda: len(bench.notes.jobs) == 2)
    moved = bench.notes.jobs["id2"]
    assert moved.queue.name == "cpu" and moved.job is work.job and not bench.notes.bad
    bench.end(moved, exit_code=None, statusReason="Host EC2 (instance i-2) terminated.")
    bench.control.look([moved])
    assert len(bench.aws.batch.submitted) == 2 and len(bench.notes.bad) == 1
    assert [record["class"] for record in bench.records()] == ["spot_reclaim", "spot_reclaim"]


def test_a_job_whose_queue_is_forced_does_not_move(bench: Bench) -> None:
    work = bench.start(bench.work(batch_queue="spot"))
    bench.end(work, exit_code=None, statusReason="Host EC2 (instance i-1) terminated.")
    bench.control.look([work])
    assert len(bench.aws.batch.submitted) == 1 and "(spot_reclaim)" in bench.notes.bad[0][1]


def test_a_full_gpu_makes_the_next_attempt_ask_for_the_next_size(bench: Bench) -> None:
    bench.aws.log = ["CUDA out of memory"]
    work = bench.start(bench.work("gpu", gpu=1))
    assert bench.control.gpu_floor(work.digest) == 0
    bench.end(work)
    bench.control.look([work])
    assert bench.control.gpu_floor(work.digest) == 40_000
    assert work.plan.demand.with_gpu_memory(40_000).need.gpu_memory_mb == 40_000


def test_a_job_that_aws_forgot_fails_after_three_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench.start(bench.work())
    bench.aws.batch.jobs.clear()
    now = time.time()
    for seconds in (1, 2):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: now + seconds)
        assert bench.control.look([work])[0] == [work]
    # Three looks in three seconds may be AWS Batch's own delay.
    monkeypatch.setattr(time, "time", lambda: now + 3)
    assert bench.control.look([work])[0] == [work]
    monkeypatch.setattr(time, "time", lambda: now + 12)
    assert bench.control.look([work])[0] == []
    assert "(vanished)" in bench.notes.bad[0][1]


def test_jobs_that_wait_are_warned_of_once_and_end_after_the_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.aws.batch.queues = [{"jobQueueName": "spot", "state": "DISABLED", "status": "VALID"}]
    works = [bench.start(bench.work(job=digit * 12)) for digit in "12345"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2000)
    assert bench.control.look(works)[0] == works
    bench.control.look(works)
    (warning,) = bench.notes.warned
    assert "5 job(s) in queue spot" in warning and "queue spot is disabled" in warning
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    assert bench.control.look(works)[0] == []
    assert len(bench.notes.bad) == 5 and "(stuck)" in bench.notes.bad[0][1]
    assert set(bench.aws.batch.terminated) == {work.job_id for work in works}


def test_a_job_that_runs_does_not_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench.start(bench.work())
    bench.aws.batch.jobs[work.job_id]["status"] = "RUNNING"
    assert bench.control.look([work]) == ([work], True)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    assert bench.control.look([work]) == ([work], False)
    assert not bench.notes.warned
    # Reclaimed and waiting again: the clock starts anew.
    bench.aws.batch.jobs[work.job_id]["status"] = "RUNNABLE"
    assert bench.control.look([work]) == ([work], True)
    assert not bench.notes.bad


def test_trouble_with_aws_loses_no_job(bench: Bench) -> None:
    work = bench.start(bench.work())
    bench.aws.batch.errors = [client_error("ExpiredTokenException"), client_error("InternalError", 500)]
    assert bench.control.look([work])[0] == [work]
    assert bench.aws.renewed == 1 and "credentials are no longer valid" in bench.notes.warned[0]
    assert bench.control.look([work])[0] == [work]
    assert bench.control.look([work])[0] == [work]
    assert bench.notes.warned[-1] == "AWS answers again." and not bench.notes.bad


def test_a_cancelled_run_ends_what_runs_and_what_is_being_submitted(bench: Bench) -> None:
    runs = bench.start(bench.work())
    gate, inside = threading.Event(), threading.Event()

    def submit_slowly() -> None:
        inside.set()
        assert gate.wait(5)

    bench.aws.batch.before_submit = submit_slowly
    late = bench.work(job="c" * 12)
    bench.control.start(late)
    assert inside.wait(5)
    cancel = threading.Thread(target=bench.control.cancel)
    cancel.start()
    wait(lambda: runs.job_id in bench.aws.batch.terminated)
    gate.set()
    cancel.join(5)
    assert not cancel.is_alive()
    assert set(bench.aws.batch.terminated) == {"id1", "id2"}
    assert late.job_id not in bench.notes.jobs
    bench.control.start(bench.work(job="d" * 12))
    assert len(bench.aws.batch.submitted) == 2


def test_cancelled_jobs_are_in_the_ledger_and_no_failure_is_told(bench: Bench) -> None:
    work = bench.start(bench.work())

    def terminate(**arguments: Any) -> None:
        bench.end(work, exit_code=143, statusReason=arguments["reason"])

    bench.aws.batch.terminate_job = terminate
    bench.control.cancel()
    assert [record["class"] for record in bench.records()] == ["cancelled"]
    assert not bench.notes.bad


def test_jobs_that_could_not_be_ended_are_told(bench: Bench) -> None:
    bench.start(bench.work())

    def refuse(**_: Any) -> None:
        raise client_error("ExpiredTokenException")

    bench.aws.batch.terminate_job = refuse
    bench.control.cancel()
    assert any("1 jobs could not be ended" in text for text in bench.notes.warned)


def test_a_stopped_controller_leaves_its_jobs_and_submits_no_more(bench: Bench) -> None:
    bench.start(bench.work())
    bench.control.stop()
    bench.control.start(bench.work(job="c" * 12))
    bench.control.close()
    assert len(bench.aws.batch.submitted) == 1 and not bench.aws.batch.terminated


def found(job_id: str, job: str = "a" * 12, work: str = "b" * 12, **more: Any) -> Found:
    known: dict[str, Any] = {"queue": "cpu", "status": "RUNNING", "created": 1.0, "stopped": None, "ending": False}
    return Found(job_id=job_id, name=job_name(run=RUN, rule="fold", job=job, work=work), **{**known, **more})


def test_a_former_controllers_job_is_adopted_and_not_submitted_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [found("old")])
    work = bench.start(bench.work())
    assert work.job_id == "old" and work.queue.name == "cpu" and not bench.aws.batch.submitted
    # The next attempt of the same job is submitted.
    again = bench.start(bench.work())
    assert again.job_id == "id1"


def test_a_former_controllers_job_with_old_code_is_ended_and_replaced(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [found("old", work="f" * 12)])
    work = bench.start(bench.work())
    assert work.job_id == "id1" and "out of date" in bench.aws.batch.terminated["old"]


def test_a_new_job_waits_until_the_one_that_it_replaces_has_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [found("old", work="f" * 12)])
    bench.aws.batch.jobs["old"] = {"jobId": "old", "status": "RUNNING"}
    bench.control.start(work := bench.work())
    wait(lambda: "old" in bench.aws.batch.terminated)
    assert not bench.aws.batch.submitted
    bench.aws.batch.jobs["old"]["status"] = "FAILED"
    wait(lambda: work.job_id == "id1")


def test_jobs_that_ended_unseen_come_into_the_ledger(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    work = bench.work()
    needs = [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "1000"}]
    for job_id, status in (("good", "SUCCEEDED"), ("bad", "FAILED"), ("runs", "RUNNING")):
        bench.aws.batch.jobs[job_id] = {
            "jobId": job_id,
            "jobName": str(work.plan.name),
            "status": status,
            "statusReason": "Host EC2 (instance i-1) terminated.",
            "container": {"resourceRequirements": needs},
        }
    entries = [found(job_id, status=job["status"]) for job_id, job in bench.aws.batch.jobs.items()]
    assert record_backlog(bench.aws, FLEET, bench.ledger, entries) == 2
    assert record_backlog(bench.aws, FLEET, bench.ledger, entries) == 0
    records = {record["job_id"]: record for record in bench.records()}
    assert records["good"]["class"] == "succeeded" and records["bad"]["class"] == "spot_reclaim"
    assert records["good"]["vcpus"] == 4 and records["good"]["rule"] == "fold"


def test_of_two_that_do_the_same_one_is_adopted_and_one_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [found("older"), found("newer", created=2.0)])
    work = bench.start(bench.work())
    assert work.job_id == "newer" and list(bench.aws.batch.terminated) == ["older"]


def test_jobs_that_nobody_claims_are_ended_at_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [found("orphan", job="f" * 12), found("done", job="e" * 12, status="SUCCEEDED")])
    bench.start(bench.work())
    bench.control.close()
    assert list(bench.aws.batch.terminated) == ["orphan"]


def test_an_adopted_job_that_was_being_ended_is_submitted_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [found("old")])
    bench.aws.batch.jobs["old"] = {"jobId": "old", "jobName": str(bench.work().plan.name)}
    work = bench.start(bench.work())
    bench.end(work, exit_code=143, statusReason="Terminated by Snakemake: the run was cancelled")
    bench.control.look([work])
    wait(lambda: "id1" in bench.notes.jobs)
    assert not bench.notes.bad


def test_a_job_that_succeeded_is_adopted_only_when_it_is_certainly_of_now() -> None:
    wanted = found("x").name
    done = found("old", status="SUCCEEDED", stopped=50.0)
    assert judge(done, wanted, began=100.0, in_flight=()) is Verdict.IGNORE
    assert judge(done, wanted, began=100.0, in_flight=("old",)) is Verdict.ADOPT
    assert judge(done, wanted, began=40.0, in_flight=()) is Verdict.ADOPT
    other = found("x", work="f" * 12).name
    assert judge(done, other, began=40.0, in_flight=("old",)) is Verdict.IGNORE
    assert judge(found("old", ending=True), wanted, began=0.0, in_flight=("old",)) is Verdict.IGNORE


def test_jobs_are_described_in_hundreds(bench: Bench) -> None:
    ids = [f"j{number}" for number in range(250)]
    bench.aws.batch.jobs = {job_id: {"jobId": job_id} for job_id in ids[:240]}
    assert set(describe_jobs(bench.aws, ids)) == set(ids[:240])


def test_the_interval_grows_while_nothing_happens_and_with_the_number_of_jobs() -> None:
    interval = Interval()
    first = interval.after(jobs=10, changed=True)
    later = [interval.after(jobs=10, changed=False) for _ in range(20)]
    assert first == 1 and later == sorted(later) and later[-1] == 10
    assert interval.after(jobs=10, changed=True) == 1
    assert interval.after(jobs=10_000, changed=True) == 20


def test_events_narrow_what_is_asked_and_a_full_look_comes_now_and_then() -> None:
    clock, told = [0.0], [set[str]()]
    selection = Selection(lambda: told[0], full_every=600, clock=lambda: clock[0])
    assert selection.choose(["a", "b"]) == ["a", "b"]
    assert selection.choose(["a", "b"]) == []
    told[0] = {"b", "new"}
    assert selection.choose(["a", "b"]) == ["b"]
    # An event came before SubmitJob had answered.
    told[0] = set()
    assert selection.choose(["a", "new"]) == ["new"]
    selection.again(["a"])
    assert selection.choose(["a", "new"]) == ["a"]
    clock[0] = 601
    assert selection.choose(["a", "new"]) == ["a", "new"]


def test_events_that_cannot_be_read_mean_that_all_jobs_are_asked_for() -> None:
    selection = Selection(lambda: None)
    assert selection.choose(["a"]) == ["a"] and selection.choose(["a"]) == ["a"]


def message(name: str, job_id: str, sent: float) -> dict[str, Any]:
    body = {"detail-type": "Batch Job State Change", "detail": {"jobName": name, "jobId": job_id, "status": "RUNNING"}}
    return {"Body": json.dumps(body), "ReceiptHandle": job_id, "Attributes": {"SentTimestamp": str(int(sent * 1000))}}


def test_events_of_other_runs_are_put_back_until_they_are_old(bench: Bench) -> None:
    now = time.time()
    mine = [message(f"{RUN}-fold-x", f"mine{number}", now) for number in range(11)]
    bench.aws.messages = [*mine, message("ffffffff-x", "other", now), message("ffffffff-x", "dead", now - 3600)]
    bench.aws.messages.append({"Body": "hello", "ReceiptHandle": "odd"})
    assert Events(bench.aws, "url", RUN, bench.notes.warning).changed() == {f"mine{number}" for number in range(11)}
    assert bench.aws.returned == ["other"]
    assert {"dead", "odd", "mine0"} <= set(bench.aws.deleted) and "other" not in bench.aws.deleted
    assert event_detail("[]") is None


def test_patience_ends(bench: Bench) -> None:
    clock = [0.0]
    patience = Patience(bench.aws, bench.notes.warning, 600, clock=lambda: clock[0])
    for clock[0] in (0.0, 10.0, 599.0):
        patience.trouble(client_error("ExpiredToken"))
    # Once at the beginning, once after five minutes.
    assert len(bench.notes.warned) == 2 and "aws sso login" in bench.notes.warned[0]
    clock[0] = 601.0
    with pytest.raises(WorkflowError, match="its jobs go on"):
        patience.trouble(client_error("ExpiredToken"))


def test_the_rate_limit_holds() -> None:
    clock, slept = [0.0], []
    limiter = RateLimiter(40, clock=lambda: clock[0], sleep=slept.append)
    for _ in range(5):
        limiter.wait()
    assert slept == pytest.approx([0.025, 0.05, 0.075, 0.1])


QUEUE = {"jobQueueName": "q", "state": "ENABLED", "status": "VALID"}
ENVIRONMENT = {
    "computeEnvironmentName": "e",
    "state": "ENABLED",
    "status": "VALID",
    "computeResources": {"maxvCpus": 64, "desiredvCpus": 4},
}


@pytest.mark.parametrize(
    ("queue", "environment", "words"),
    [
        ({"state": "DISABLED"}, {}, "queue q is disabled"),
        ({"status": "INVALID", "statusReason": "no role"}, {}, "queue q is INVALID: no role"),
        ({}, {"state": "DISABLED"}, "compute environment e is disabled"),
        ({}, {"status": "INVALID", "statusReason": "bad subnet"}, "compute environment e is INVALID: bad subnet"),
        ({}, {"computeResources": {"maxvCpus": 0}}, "may have 0 vCPUs, the job needs 8"),
        ({}, {"computeResources": {"maxvCpus": 64, "desiredvCpus": 64}}, "is full (all its 64 vCPUs"),
        ({}, {}, "are in order"),
    ],
)
def test_a_waiting_job_is_explained(queue: dict[str, Any], environment: dict[str, Any], words: str) -> None:
    need = Need(vcpus=8, memory_mb=1000)
    reasons = explain_queue({**QUEUE, **queue}, [{**ENVIRONMENT, **environment}], need)
    assert words in "; ".join(reasons)


def test_the_ledger_goes_on_where_a_former_controller_ended(tmp_path: Path) -> None:
    aws: Any = StubAws()
    stored = [{"job_id": "a", "attempt": 1}, {"job_id": "b", "attempt": 1}]
    aws.s3.put_object(Key="l", Body="".join(json.dumps(record) + "\n" for record in stored).encode())
    local = tmp_path / "ledger.jsonl"
    # The last line was cut when the controller was killed.
    local.write_text(
        json.dumps(stored[1]) + "\n" + json.dumps({"job_id": "c", "attempt": 1}) + '\n{"job_id": "d", "att'
    )
    ledger = Ledger(local, aws, "bucket", "l")
    ledger.restore()
    ledger.add([{"job_id": "c", "attempt": 1}, {"job_id": "c", "attempt": 2}])
    ledger.add([{"job_id": "c", "attempt": 2}])
    ledger.upload()
    lines = [json.loads(line) for line in aws.s3.objects["l"][0].splitlines()]
    assert [(line["job_id"], line["attempt"]) for line in lines] == [("a", 1), ("b", 1), ("c", 1), ("c", 2)]


def test_a_failed_upload_of_the_ledger_is_made_up_for(tmp_path: Path) -> None:
    aws: Any = StubAws()
    ledger = Ledger(tmp_path / "ledger.jsonl", aws, "bucket", "l")
    ledger.restore()
    ledger.add([{"job_id": "a", "attempt": 1}])
    put, aws.s3.put_object = aws.s3.put_object, lambda **_: (_ for _ in ()).throw(client_error("SlowDown", 503))
    with pytest.raises(Exception, match="SlowDown"):
        ledger.upload()
    aws.s3.put_object = put
    ledger.upload()
    assert aws.s3.objects["l"][0]


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (30, 1800, 86_400)] == ["30 seconds", "30 minutes", "24 hours"]


def test_trouble_that_passes_is_found_in_what_storage_plugins_raise() -> None:
    def wrapped(cause: Exception) -> WorkflowError:
        try:
            raise WorkflowError("Failed to check existence of s3://b/k") from cause
        except WorkflowError as error:
            return error

    assert is_passing_trouble(wrapped(client_error("ExpiredToken")))
    assert is_passing_trouble(wrapped(client_error("InternalError", 500)))
    assert is_passing_trouble(ExceptionGroup("several", [ValueError("x"), client_error("SlowDown", 503)]))
    assert is_passing_trouble(WorkflowError("Failed", WorkflowError("if your credentials are invalid")))
    assert not is_passing_trouble(wrapped(client_error("NoSuchBucket", 404)))
    assert not is_passing_trouble(WorkflowError("Missing output files"))
