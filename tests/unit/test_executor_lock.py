"""Who controls a run: taking, keeping, taking over and losing the lock."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_aws_batch_fleet.lock import Owner, RunLock, is_dead_process_of_this_host, this_process
from tests.unit.executor_stubs import StubAws

KEY = "run/.fleet/lock.json"


@pytest.fixture
def aws() -> StubAws:
    return StubAws()


def lock(aws: Any, owner: Owner | None = None) -> RunLock:
    return RunLock(aws, "bucket", KEY, owner or replace(this_process(30), host="elsewhere", boot_id="another"))


def test_a_second_controller_is_refused_and_told_by_whom(aws: StubAws) -> None:
    first = replace(this_process(30), host="laptop", boot_id="b", user="ada", pid=77)
    assert lock(aws, first).acquire() is None
    aws.s3.pass_time(40)
    with pytest.raises(WorkflowError) as caught:
        lock(aws).acquire()
    text = str(caught.value)
    assert f"ada on laptop (process 77) since {first.since}; last sign of life 40 s ago" in text
    assert "after 90 s without a sign of life" in text and KEY in text
    assert json.loads(aws.s3.objects[KEY][0])["token"] == first.token


def test_a_lock_without_three_signs_of_life_is_taken_over(aws: StubAws) -> None:
    first, second = lock(aws), lock(aws)
    first.acquire()
    aws.s3.pass_time(91)
    assert "its last sign of life was 91 s ago" in (second.acquire() or "")
    first.beat()
    assert first.lost.is_set() and not second.lost.is_set()
    # The loser removes nothing.
    first.release()
    assert KEY in aws.s3.objects
    second.release()
    assert KEY not in aws.s3.objects


def test_signs_of_life_keep_the_lock(aws: StubAws) -> None:
    first = lock(aws)
    first.acquire()
    for _ in range(4):
        aws.s3.pass_time(80)
        first.beat()
    with pytest.raises(WorkflowError):
        lock(aws).acquire()
    assert not first.lost.is_set()


def test_a_dead_process_of_this_host_holds_nothing(aws: StubAws) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    dead = replace(this_process(30), pid=process.pid)
    assert process.wait() == 0
    lock(aws, dead).acquire()
    assert "its process has ended" in (lock(aws, this_process(30)).acquire() or "")


def test_a_living_process_of_this_host_is_alive_until_its_number_is_used_again() -> None:
    here = this_process(30)
    assert not is_dead_process_of_this_host(here)
    assert is_dead_process_of_this_host(replace(here, process_start="1"))
    # Another machine's process numbers say nothing.
    assert not is_dead_process_of_this_host(replace(here, boot_id="other", process_start="1"))
    assert not is_dead_process_of_this_host(replace(here, pid_namespace="pid:[1]", process_start="1"))
    assert here.pid == os.getpid()


@pytest.mark.parametrize(("status", "taken"), [("SUCCEEDED", True), ("FAILED", True), ("RUNNING", False)])
def test_a_controller_whose_batch_job_has_ended_holds_nothing(aws: StubAws, status: str, taken: bool) -> None:
    aws.batch.jobs["job7"] = {"jobId": "job7", "status": status}
    lock(aws, replace(this_process(30), boot_id="b", batch_job_id="job7")).acquire()
    if taken:
        assert "its job has ended" in (lock(aws).acquire() or "")
    else:
        with pytest.raises(WorkflowError, match="AWS Batch job job7"):
            lock(aws).acquire()


def test_a_second_attempt_of_a_controllers_job_goes_on_at_once(aws: StubAws) -> None:
    owner = replace(this_process(30), boot_id="b", batch_job_id="job7")
    lock(aws, owner).acquire()
    note = lock(aws, replace(owner, token="second", boot_id="c")).acquire()
    assert "earlier attempt of this job" in (note or "")


def test_a_put_whose_answer_was_lost_is_still_ours(aws: StubAws) -> None:
    mine = this_process(30)
    aws.s3.put_object(Key=KEY, Body=json.dumps(mine.__dict__).encode())
    ours = lock(aws, mine)
    assert ours.acquire() is None
    # The same at a heartbeat: the object has changed, but it says us.
    aws.s3.pass_time(1)
    aws.s3.put_object(Key=KEY, Body=json.dumps(mine.__dict__).encode())
    ours.beat()
    assert not ours.lost.is_set()
    ours.release()
    assert not aws.s3.objects


def test_two_that_take_over_at_once_cannot_both_win(aws: StubAws) -> None:
    lock(aws).acquire()
    aws.s3.pass_time(200)
    winner, loser = lock(aws), lock(aws)
    read = aws.s3.get_object

    def read_then_lose(**arguments: Any) -> Any:
        answer = read(**arguments)
        aws.s3.get_object = read  # type: ignore[method-assign]
        winner.acquire()
        return answer

    aws.s3.get_object = read_then_lose  # type: ignore[method-assign]
    with pytest.raises(WorkflowError, match="already controlled"):
        loser.acquire()
    assert not winner.lost.is_set()


def test_a_lock_that_cannot_be_read_is_stale_only_by_age(aws: StubAws) -> None:
    aws.s3.put_object(Key=KEY, Body=b"{")
    with pytest.raises(WorkflowError, match="someone whose lock cannot be read"):
        lock(aws).acquire()
    aws.s3.pass_time(100)
    assert lock(aws).acquire()


def test_errors_other_than_a_lost_race_are_raised(aws: StubAws) -> None:
    def denied(**_: Any) -> None:
        from tests.unit.executor_stubs import client_error

        raise client_error("AccessDenied", 403)

    aws.s3.put_object = denied  # type: ignore[method-assign,assignment]
    with pytest.raises(Exception, match="AccessDenied"):
        lock(aws).acquire()
