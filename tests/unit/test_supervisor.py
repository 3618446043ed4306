"""A driver that crashes, hangs, starves and lies must cost the member to blame, and no other."""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from snakefold.engines import supervisor
from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.supervisor import DriverCommand, Finished, Supervisor
from snakefold.errors import SnakefoldError, Terminated
from snakefold.files import read_json

DRIVER = Path(__file__).parent / "drivers" / "obedient.py"


@dataclass
class Ends:
    done_members: dict[str, Finished] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    logs: dict[str, Sequence[str]] = field(default_factory=dict)

    def done(self, member: str, finished: Finished) -> None:
        assert member not in self.done_members
        self.done_members[member] = finished

    def failed(self, member: str, kind: str, reason: str, log: Sequence[str]) -> None:
        assert member not in self.failures
        self.failures[member] = kind, reason
        self.logs[member] = log


class Bench:
    """A supervisor over members a, b, c, ..., with what became of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends = Ends()
        self.said: list[str] = []
        (folder / "marks").mkdir()

    def supervisor(
        self, members: str = "abcd", *, limit: float = 30, deadline: float | None = None, **settings: Any
    ) -> Supervisor:
        settings = {"do": {}, "marks": str(self.folder / "marks"), **settings}
        tasks = {
            name: (FoldTask(chains=(ChainInputs(sequence="A" * 10),)), self.folder / "members" / name)
            for name in members
        }
        return Supervisor(
            DriverCommand(command=[sys.executable, str(DRIVER)], settings=settings),
            tasks,
            ends=self.ends,
            scratch=self.folder,
            limit=lambda _: limit,
            deadline=deadline,
            say=self.said.append,
        )

    def run(self, members: str = "abcd", **settings: Any) -> Ends:
        self.supervisor(members, **settings).run()
        assert set(self.ends.done_members) | set(self.ends.failures) == set(members)
        assert not set(self.ends.done_members) & set(self.ends.failures)
        for member in self.ends.done_members:
            assert [path.name for path in (self.folder / "members" / member).iterdir()] == ["result.json"]
        return self.ends

    def how(self, member: str) -> dict[str, int]:
        return read_json(self.folder / "members" / member / "result.json")

    def processes(self) -> set[int]:
        return {self.how(member)["pid"] for member in self.ends.done_members}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_one_process_predicts_all_members(bench: Bench) -> None:
    ends = bench.run()
    assert len(bench.processes()) == 1
    assert all(finished.memory_mb > 1 and finished.gpu_memory_mb is None for finished in ends.done_members.values())


@pytest.mark.parametrize(
    ("what", "kind", "reason"),
    [
        ("kill", "out_of_memory", "was killed, most likely for want of memory"),
        ("segfault", "crash", "died (SIGSEGV)"),
        ("exit", "crash", "died (exit code 7)"),
    ],
)
def test_a_member_that_kills_the_driver_is_tried_alone_then_fails(
    bench: Bench, what: str, kind: str, reason: str
) -> None:
    ends = bench.run(do={"b": what})
    assert set(ends.failures) == {"b"}
    assert ends.failures["b"][0] == kind
    assert reason in ends.failures["b"][1]
    # The first driver did a, the second c and d; b was tried alone in a third.
    assert len(bench.processes()) == 2
    assert ends.logs["b"] == ["working on b"]
    assert any("b: to be tried alone" in line for line in bench.said)


def test_a_crash_that_does_not_come_again_costs_nothing(bench: Bench) -> None:
    ends = bench.run(do={"b": "kill"}, once=["b"])
    assert not ends.failures
    assert len(bench.processes()) == 3


def test_of_a_group_that_dies_together_only_the_culprit_fails(bench: Bench) -> None:
    ends = bench.run("abcdef", do={"b": "kill"}, group=3)
    assert set(ends.failures) == {"b"}
    assert {member for member in ends.done_members if bench.how(member)["together"] == 1} == {"a", "c"}


def test_two_culprits_are_both_found(bench: Bench) -> None:
    ends = bench.run("abcdef", do={"b": "kill", "e": "exit"}, group=2)
    assert {member: kind for member, (kind, _) in ends.failures.items()} == {"b": "out_of_memory", "e": "crash"}


def test_an_error_of_the_engine_fails_its_member_with_its_log(bench: Bench) -> None:
    ends = bench.run(do={"b": "error", "c": "refuse"})
    assert ends.failures == {
        "b": ("error", "ValueError: this is no protein"),
        "c": ("not_accepted", "too odd"),
    }
    assert ends.logs["b"][0] == "working on b"
    assert "this is no protein" in "\n".join(ends.logs["b"])
    assert len(bench.processes()) == 1


def test_an_error_within_a_group_fails_one_member(bench: Bench) -> None:
    ends = bench.run(do={"b": "error"}, group=4)
    assert set(ends.failures) == {"b"}
    assert len(bench.processes()) == 1


def test_out_of_gpu_memory_is_answered_by_the_engines_own_means_first(bench: Bench) -> None:
    ends = bench.run(do={"b": "eased", "c": "hungry"})
    assert bench.how("b")["ease"] == 2
    assert bench.how("d")["ease"] == 0
    assert ends.failures == {"c": ("out_of_memory", "MemoryError: never enough")}
    assert "b: out of GPU memory, measure 2 against it" in bench.said


def test_a_group_too_large_for_the_memory_goes_one_by_one(bench: Bench) -> None:
    ends = bench.run(do={"b": "crowded"}, group=4)
    assert {bench.how(member)["together"] for member in ends.done_members} == {1}


def test_a_member_that_hangs_is_ended_by_its_limit(bench: Bench) -> None:
    ends = bench.run(do={"b": "hang"}, limit=2)
    assert ends.failures == {"b": ("timeout", "the engine took far longer than it should, and was ended")}


def test_a_driver_that_stands_still_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SILENCE_SECONDS", 7)
    ends = bench.run("ab", do={"b": "freeze"}, limit=60)
    assert ends.failures == {"b": ("timeout", "the engine gave no sign of life, and was ended")}


def test_an_engine_that_cannot_start_is_no_fault_of_the_members(bench: Bench) -> None:
    with pytest.raises(
        SnakefoldError, match=r"exit code 3\), 2 times, while it loaded; its last line: no such weights"
    ):
        bench.supervisor(load="die").run()
    assert not bench.ends.failures


def test_at_the_jobs_time_limit_the_rest_is_given_up(bench: Bench) -> None:
    bench.supervisor(do={"b": "hang"}, deadline=time.monotonic() + 3).run()
    assert set(bench.ends.done_members) == {"a"}
    assert {kind for kind, _ in bench.ends.failures.values()} == {"timeout"}
    assert set(bench.ends.failures) == {"b", "c", "d"}


def _raise_terminated(*_: object) -> None:
    raise Terminated


@pytest.mark.parametrize(("what", "finished"), [("slow", {"a", "b"}), ("hang", {"a"})])
def test_at_sigterm_the_member_in_flight_may_finish_and_no_other_begins(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str, finished: set[str]
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 4)
    former = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        watched = bench.supervisor(do={"b": what})

        def end_when_b_is_at_work() -> None:
            while not (bench.folder / "marks" / "b").exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=end_when_b_is_at_work, daemon=True).start()
        with pytest.raises(Terminated):
            watched.run()
    finally:
        signal.signal(signal.SIGTERM, former)
    assert set(bench.ends.done_members) == finished
    assert not bench.ends.failures
