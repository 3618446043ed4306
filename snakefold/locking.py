"""One process at a time, and the next as soon as that one is gone, however it ended."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from snakefold.errors import SnakefoldError

_SECONDS_BETWEEN_NOTES = 60.0
_LONGEST_PAUSE = 1.0


@contextmanager
def locked(path: Path, note: Callable[[str], None], what: str) -> Iterator[None]:
    """Hold the lock file `path` during the block; `note` is told that `what` another process does is waited for.

    The kernel frees the lock when its holder dies. Lock files stay behind: removing one could free it for two. Raises
    SnakefoldError on a file system without locks.
    """
    with one_locked([path], note, f"another process {what}; waiting for it"):
        yield


@contextmanager
def one_locked(paths: Sequence[Path], note: Callable[[str], None], waiting: str) -> Iterator[int]:
    """Hold one of the lock files, as `locked` does, and yield its index; `note` is told `waiting` if none is free."""
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
        yield free


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
            raise SnakefoldError(
                f"{path}: this file system has no locks (Lustre: mount with -o flock); put the folder elsewhere"
            ) from None
        raise
    return True
