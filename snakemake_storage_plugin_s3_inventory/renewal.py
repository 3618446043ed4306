"""Credentials that run out while a run is under way: waited for, not died of."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from snakemake_storage_plugin_s3_inventory.errors import CredentialsError

FIRST_WAIT = 1.0
LONGEST_WAIT = 10.0
"""Seconds between two tries."""

Result = TypeVar("Result")


class Renewal:
    """Waits for new credentials, says so once, gives up after a set time. Safe to use from several threads."""

    def __init__(
        self,
        *,
        warn: Callable[[str], None],
        grace: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up; `grace` tells for how many seconds to wait."""
        self._warn = warn
        self._grace = grace
        self._clock = clock
        self._since: float | None = None
        self._interrupted = False
        self._lock = threading.Lock()

    async def patiently(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """What `work` gives in the end. Waits in the event loop, where Ctrl-C ends it; a thread would not notice.

        Raises:
            CredentialsError: when new ones cannot come, or have not come for too long.

        """
        while True:
            try:
                return await work()
            except CredentialsError as error:
                if self._interrupted or not error.may_pass:
                    raise
                seconds = self.seconds(error)
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                # Ctrl-C: what Snakemake does before it ends is not waited for either.
                self._interrupted = True
                raise

    def seconds(self, error: CredentialsError) -> float:
        """How long to wait before the next try; says what is wrong at the first.

        Raises:
            CredentialsError: when it has gone on for too long.

        """
        with self._lock:
            now = self._clock()
            first = self._since is None
            since = self._since = now if self._since is None else self._since
        grace, waited = self._grace(), now - since
        if waited >= grace:
            raise CredentialsError(f"{error} (none came for {waited / 60:.0f} minutes)") from None
        if first:
            reason = str(error).removeprefix("S3: ").partition(": ")[0]
            self._warn(
                f"S3: {reason}. Renew them where you got them (for example `aws sso login`, or new keys in "
                f"~/.aws/credentials): they are read again, and this process waits for {grace / 60:.0f} minutes."
            )
        return min(LONGEST_WAIT, max(FIRST_WAIT, waited))

    def well(self) -> None:
        """A call has worked."""
        if self._since is None:
            return
        with self._lock:
            self._since = None
        self._warn("S3: the new credentials work.")


def comes_from_environment(session: Any) -> bool:
    """Whether a boto3 session has its keys from environment variables, which will not change any more."""
    try:
        credentials = session.get_credentials() if session is not None else None
    except Exception:
        # Why they cannot be read is what the failed call tells.
        return False
    return credentials is not None and credentials.method == "env"
