"""Trouble with AWS that passes: expired credentials, throttling, a network that is down."""

import threading
import time
from collections.abc import Callable

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_aws_batch_fleet.aws import RENEW, Aws, error_code, is_credentials_error
from snakemake_executor_plugin_aws_batch_fleet.fleet import one_line

_REPEAT_SECONDS = 300.0


class Patience:
    """Says what is wrong now and then, reads new credentials, and gives up after a set time.

    Safe to use from several threads.
    """

    def __init__(
        self,
        aws: Aws,
        warn: Callable[[str], None],
        grace_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._aws = aws
        self._warn = warn
        self._grace = grace_seconds
        self._clock = clock
        self._since: float | None = None
        self._said: float | None = None
        self._lock = threading.Lock()

    def of_other_calls(self) -> "Patience":
        """Another one like it, for calls that may fail while these work."""
        return Patience(self._aws, self._warn, self._grace, self._clock)

    def well(self) -> None:
        """A call has worked."""
        with self._lock:
            if self._said is not None:
                self._warn("AWS answers again.")
            self._since = self._said = None

    def trouble(self, error: BaseException) -> None:
        """A call has failed. Raises WorkflowError when that has gone on for too long."""
        expired = is_credentials_error(error)
        if expired and (in_vain := self._aws.renew()):
            raise WorkflowError(
                f"AWS credentials are no longer valid ({error_code(error)}); {in_vain}. This controller ends; its "
                "jobs go on. Renew the credentials and start the same command again to follow them."
            )
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since = now
            past = now - self._since
            minutes = self._grace / 60
            if past > self._grace:
                raise WorkflowError(
                    f"AWS has not answered for {past / 60:.0f} minutes ({error_code(error)}). This controller ends; "
                    "its jobs go on. Start the same command again to follow them."
                )
            if self._said is not None and now - self._said < _REPEAT_SECONDS:
                return
            self._said = now
        if expired:
            self._warn(
                f"AWS credentials are no longer valid ({error_code(error)}): {RENEW}. The jobs go on, and this run "
                f"waits for {minutes:.0f} minutes; nothing is lost."
            )
        else:
            self._warn(f"AWS does not answer as it should ({one_line(error)}). Trying again for {minutes:.0f} minutes.")
