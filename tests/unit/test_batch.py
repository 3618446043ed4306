"""A batch loses nothing that is finished, and one bad member does not stop the others."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from snakefold.batch import BatchRun, read_receipt, run_in_processes
from snakefold.errors import MemberError, SnakefoldError
from snakefold.outcome import Outcome
from snakefold.progress import Progress
from snakefold.store import Action, LocalStore


def compute(member: str, folder: Path) -> Outcome:
    print(f"working on {member}")
    if member == "endless":
        time.sleep(600)
    if member == "bad":
        raise MemberError("bad_template", "no CA atoms")
    if member == "broken":
        raise ZeroDivisionError("by zero")
    if member == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if member == "absent":
        return Outcome(status="skipped", kind="no_template", reason="no template found")
    (folder / "result.txt").write_text(member.upper())
    return Outcome(facts={"letters": len(member)})


def slow(counter: Path, folder: Path) -> Outcome:
    with counter.open("a") as handle:
        handle.write("x")
    (folder / "result.txt").write_text("done")
    time.sleep(0.4)
    return Outcome()


def run_batch(
    root: Path,
    members: list[str],
    *,
    reuse: bool = True,
    workers: int = 2,
    attempts_left: int = 0,
    minutes: float | None = None,
) -> Path:
    store = LocalStore(root / "store")
    actions = {member: Action(step="fold", tool="test", version="1", inputs={"member": member}) for member in members}
    receipt = root / "receipt.json"
    with (
        Progress("fold test", len(members), log=root / "log.txt", plain=True) as progress,
        BatchRun(
            "fold",
            "b1",
            members,
            store,
            databases={},
            reuse=reuse,
            progress=progress,
            attempts_left=attempts_left,
            minutes=minutes,
        ) as run,
    ):
        missing = run.find_stored(actions)
        run_in_processes(run, missing, {member: partial(compute, member) for member in missing}, workers=workers)
        run.write_receipt(receipt)
    return receipt


def test_bad_members_fail_alone_with_class_reason_and_log(tmp_path: Path) -> None:
    members = ["good", "bad", "broken", "killed", "absent", "other"]
    receipt = read_receipt(run_batch(tmp_path, members))
    assert {name: (member.status, member.kind) for name, member in receipt.items()} == {
        "good": ("done", None),
        "bad": ("failed", "bad_template"),
        "broken": ("failed", "error"),
        "killed": ("failed", "out_of_memory"),
        "absent": ("skipped", "no_template"),
        "other": ("done", None),
    }
    assert receipt["bad"].reason == "no CA atoms"
    assert receipt["bad"].log[0] == "working on bad"
    assert receipt["broken"].log[-1] == "ZeroDivisionError: by zero"
    store = LocalStore(tmp_path / "store")
    store.fetch(receipt["good"].files["result.txt"], tmp_path / "good.txt")
    assert (tmp_path / "good.txt").read_text() == "GOOD"


def test_a_second_run_computes_only_failures_and_gives_the_same_receipt(tmp_path: Path) -> None:
    first = run_batch(tmp_path, ["good", "absent", "bad"]).read_bytes()
    second = run_batch(tmp_path, ["good", "absent", "bad"]).read_bytes()
    assert first == second
    assert "1 computed, 2 not" in (tmp_path / "log.txt").read_text()


def test_members_of_the_same_action_are_computed_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    action = Action(step="fold", tool="test", version="1 tool-2.0", inputs={"sequence": "0" * 64})
    known = [{"name": "mini", "version": "1", "licence": "CC0", "digest": "1" * 64}]
    with (
        Progress("fold test", 3, log=tmp_path / "log.txt", plain=True) as progress,
        BatchRun(
            "fold", "b1", ["a", "b", "c"], store, databases={"a": known, "b": []}, reuse=True, progress=progress
        ) as run,
    ):
        missing = run.find_stored(dict.fromkeys("abc", action))
        assert list(missing) == ["a"]
        run_in_processes(run, missing, {"a": partial(compute, "same")}, workers=2)
        run.write_receipt(tmp_path / "receipt.json")
    receipt = read_receipt(tmp_path / "receipt.json")
    assert receipt["a"].files == receipt["b"].files == receipt["c"].files != {}
    assert [len(receipt[name].databases) for name in "abc"] == [1, 0, 0]
    assert receipt["c"].version == "1 tool-2.0"
    assert "1 computed, 2 not" in (tmp_path / "log.txt").read_text()


def test_reuse_false_computes_again(tmp_path: Path) -> None:
    run_batch(tmp_path, ["good"])
    run_batch(tmp_path, ["good"], reuse=False)
    assert "1 computed, 0 not" in (tmp_path / "log.txt").read_text()


def test_what_ran_out_of_memory_fails_the_attempt_and_the_last_attempt_settles_for_it(tmp_path: Path) -> None:
    members = ["good", "bad", "killed"]
    with pytest.raises(SnakefoldError, match="out of memory: killed"):
        run_batch(tmp_path, members, attempts_left=1)
    assert not (tmp_path / "receipt.json").exists()
    receipt = read_receipt(run_batch(tmp_path, members, attempts_left=0))
    assert (receipt["good"].status, receipt["killed"].kind) == ("done", "out_of_memory")
    assert "2 computed, 1 not" in (tmp_path / "log.txt").read_text()


def test_a_member_that_hangs_takes_neither_its_batch_nor_its_receipt_with_it(tmp_path: Path) -> None:
    with pytest.raises(SnakefoldError, match="out of time: endless"):
        run_batch(tmp_path, ["good", "endless"], attempts_left=1, minutes=0.1)
    receipt = read_receipt(run_batch(tmp_path, ["good", "endless"], minutes=0.1))
    assert {name: (end.status, end.kind) for name, end in receipt.items()} == {
        "good": ("done", None),
        "endless": ("failed", "timeout"),
    }


def test_a_member_that_fails_for_good_takes_no_other_attempt(tmp_path: Path) -> None:
    receipt = read_receipt(run_batch(tmp_path, ["good", "bad"], attempts_left=2))
    assert receipt["bad"].kind == "bad_template"


def test_a_receipt_that_would_leave_a_member_out_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    with (
        Progress("fold test", 1, plain=True) as progress,
        BatchRun("fold", "b1", ["one"], store, databases={}, reuse=True, progress=progress) as run,
        pytest.raises(SnakefoldError, match="no outcome for one"),
    ):
        run.write_receipt(tmp_path / "receipt.json")
    assert not (tmp_path / "receipt.json").exists()


KILLED = """
import sys
from functools import partial
from pathlib import Path
from snakefold.batch import BatchRun, run_in_processes
from snakefold.progress import Progress
from snakefold.store import Action, LocalStore
from tests.unit.test_batch import slow

if __name__ == "__main__":
    root = Path(sys.argv[1])
    members = [f"m{number}" for number in range(6)]
    actions = {m: Action(step="fold", tool="test", version="1", inputs={"member": m}) for m in members}
    with Progress("fold", 6, plain=True) as progress:
        store = LocalStore(root / "store")
        with BatchRun("fold", "b", members, store, databases={}, reuse=True, progress=progress) as run:
            missing = run.find_stored(actions)
            calls = {m: partial(slow, root / f"count.{m}") for m in missing}
            run_in_processes(run, missing, calls, workers=1)
            run.write_receipt(root / "receipt.json")
"""


def records(root: Path) -> int:
    return len(list((root / "store" / "actions").glob("??/*.json")))


def start(root: Path) -> subprocess.Popen[bytes]:
    script = root / "job.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, str(script), str(root)], env=environment, start_new_session=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_batch_loses_at_most_the_member_in_flight(tmp_path: Path, how: signal.Signals) -> None:
    job = start(tmp_path)
    deadline = time.monotonic() + 60
    while records(tmp_path) < 2:
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.02)
    if how is signal.SIGKILL:
        os.killpg(job.pid, how)  # the machine is gone: the workers go with it
    else:
        job.terminate()
    job.wait(30)
    finished = records(tmp_path)
    assert finished < 6
    assert not (tmp_path / "receipt.json").exists()
    assert LocalStore(tmp_path / "store").verify() == []

    assert start(tmp_path).wait(60) == 0
    assert all(member.status == "done" for member in read_receipt(tmp_path / "receipt.json").values())
    computed = sum(len(path.read_text()) for path in tmp_path.glob("count.*"))
    assert computed <= 6 + 2  # the member in flight, and one that the pool may have handed out already
