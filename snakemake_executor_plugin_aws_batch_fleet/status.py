"""How jobs are asked for: in hundreds, as often as is worth it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from snakemake_executor_plugin_aws_batch_fleet.aws import Aws

MOST_IDS = 100
"""Jobs that one DescribeJobs call takes."""
_CALLS_PER_SECOND = 5.0
_SHORTEST = 1.0


def describe_jobs(aws: Aws, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Job id -> description, without those that AWS Batch does not know."""
    described: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(ids), MOST_IDS):
        answer = aws.batch.describe_jobs(jobs=list(ids[start : start + MOST_IDS]))
        described.update((job["jobId"], job) for job in answer["jobs"])
    return described


class Interval:
    """Seconds until the next look: short after a change, longer while nothing happens, never too many calls."""

    def __init__(self, longest: float = 10.0) -> None:
        self._longest = longest
        self._seconds = _SHORTEST

    def after(self, *, jobs: int, changed: bool) -> float:
        """Seconds to wait after a look at so many jobs."""
        floor = max(_SHORTEST, -(-jobs // MOST_IDS) / _CALLS_PER_SECOND)
        self._seconds = floor if changed else min(self._seconds * 1.5, max(floor, self._longest))
        self._seconds = max(self._seconds, floor)
        return self._seconds


class Selection:
    """Which jobs to ask for in a round: all of them, or those of which an event told.

    With events, all are asked for only now and then, in case an event was lost.
    """

    def __init__(
        self,
        events: Callable[[], set[str] | None] | None = None,
        *,
        full_every: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._full_every = full_every
        self._clock = clock
        self._full_at = float("-inf")
        # Events may come before this process knows the job's id: SubmitJob has not answered yet.
        self._waiting: set[str] = set()

    def choose(self, ids: Iterable[str]) -> list[str]:
        """The job ids to ask for now."""
        known = list(ids)
        if self._events is None:
            return known
        changed = self._events()
        now = self._clock()
        if changed is None or now - self._full_at >= self._full_every:
            self._full_at = now
            self._waiting.clear()
            return known
        self._waiting |= changed
        chosen = [job_id for job_id in known if job_id in self._waiting]
        self._waiting.difference_update(chosen)
        return chosen

    def again(self, ids: Iterable[str]) -> None:
        """Ask for these in the next round too."""
        self._waiting.update(ids)
