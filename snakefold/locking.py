"""One process at a time, and the next as soon as that one is gone, however it ended."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from snakefold.errors import SnakefoldError

_SECONDS_BETWEEN_NOTES = 60.0
_LONGEST_PAUSE = 1.0


class NoLocksError(SnakefoldError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Held:
    """The lock that is held: its index among those asked for, and its descriptor.

    A process that is given the descriptor (`pass_fds`) holds the lock on, should this one die.
    """

    index: int
    descriptor: int


@contextmanager
def locked(path: Path, note: Callable[[str], None], what: str) -> Iterator[None]:
    """Hold the lock file `path` during the block; `note` is told that `what` another process does is waited for.

    The kernel frees the lock when its holder dies. Lock files stay behind: removing one could free it for two. Raises
    NoLocksError on a file system without locks.
    """
    with one_locked([path], note, f"another process {what}; waiting for it"):
        yield


@contextmanager
def one_locked(paths: Sequence[Path], note: Callable[[str], None], waiting: str) -> Iterator[Held]:
    """Hold one of the lock files, as `locked` does, the first that is free; `note` is told `waiting` if none is."""
    with ExitStack() as opened:
        descriptors = [_open(path) for path in paths]
        for descriptor in descriptors:
            opened.callback(os.close, descriptor)
        started = noted = time.monotonic()
        pause = 0.05
        said = False
        while (free := _first_taken(descriptors, paths)) is None:
            now = time.monotonic()
            if not said:
                note(waiting)
            elif now - noted > _SECONDS_BETWEEN_NOTES:
                noted = now
                note(f"still waiting, {now - started:.0f} s")
            said = True
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        yield Held(free, descriptors[free])


def _first_taken(descriptors: Sequence[int], paths: Sequence[Path]) -> int | None:
    pairs = enumerate(zip(descriptors, paths, strict=True))
    return next((index for index, (descriptor, path) in pairs if _taken(descriptor, path)), None)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)  # made by another user: reading is enough to lock


def _taken(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise NoLocksError(
                f"{path}: this file system has no locks (Lustre: mount with -o flock); put the folder elsewhere"
            ) from None
        raise
    return True
