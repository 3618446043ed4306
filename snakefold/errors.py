"""The errors a user sees: one line each, saying what is wrong, where, and what to do."""

from collections.abc import Iterable, Sequence


class SnakefoldError(Exception):
    """A fault the user can mend. The CLI prints its text without a traceback and exits with 1."""


class FaultsError(SnakefoldError):
    """All faults of one input at once.

    `faults` holds one complete line each; `str()` joins them with newlines.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults: Sequence[str] = tuple(faults)
        super().__init__("\n".join(self.faults))


class Terminated(KeyboardInterrupt):
    """SIGTERM: the machine is about to go. What is nearly finished may be finished."""


class MemberError(SnakefoldError):
    """One member of a batch cannot be computed; the other members go on.

    `kind` is a short class for tables and tests, such as "bad_template" or "out_of_memory".
    """

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)
