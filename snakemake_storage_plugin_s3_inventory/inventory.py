"""What is known of the objects in S3, found out with as few calls as possible.

An address is `bucket/key`. A root is an address ending in "/", below which everything can be known from one listing
(a call per 1,000 objects). Whether to list or to ask for single files is the problem of renting or buying skis:
nobody knows how many questions are still to come. Asking singly until that has cost as much as a listing, then
listing, costs at most twice what the best choice in hindsight would have.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

MARKER = ".snakemake_timestamp"
"""File that Snakemake puts into every directory output; uploaded last, it stands for the whole."""

PEEK = 100
"""Objects asked for in a single question: enough to see a small directory whole, few enough to be fast."""

PATIENCE = 20
"""Single questions before a root is listed."""

WAVE = 30.0
"""Seconds: single questions of a longer time ago do not count towards listing a root again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object of a listing: size in bytes, time of its last change in seconds since the epoch."""

    key: str
    size: int
    mtime: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file, or a directory that is complete.

    `size` is in bytes, of all files of a directory; None: not known yet. `mtime` is in seconds since the epoch, that
    of a directory's marker; None: not known yet, since S3 does not tell it when it takes a file.
    """

    size: int | None
    mtime: float | None
    directory: bool = False


class Lister(Protocol):
    """Lists objects whose keys begin with a prefix, in the order of their keys."""

    def page(self, bucket: str, prefix: str, limit: int) -> tuple[list[Listed], bool]:
        """The first objects, in one call, and whether there are more."""
        ...

    def pages(self, bucket: str, prefix: str) -> Iterator[list[Listed]]:
        """All objects, a call per page."""
        ...


@dataclass(slots=True)
class _Root:
    """What is known below one root (or, with `listed` never true, outside all roots)."""

    entries: dict[str, Found | None] = field(default_factory=dict)
    """By address; None: known to be absent."""
    folders: set[str] = field(default_factory=set)
    """Addresses with something below them, from the last listing."""
    listed: bool = False
    pages: int = 0
    questions: int = 0
    since: float = 0.0


class Inventory:
    """Answers what there is in S3; safe to use from several threads."""

    def __init__(
        self, lister: Lister, *, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lister = lister
        self._warn = warn
        self._clock = clock
        self._roots: dict[str | None, _Root] = {}
        self._outdated: dict[str, Found] = {}
        self._warned: set[str] = set()
        # Lookups wait for each other: of two threads that need a listing, the second finds it made.
        self._lock = threading.RLock()

    def find(self, bucket: str, key: str, root: str | None, *, patience: int, doubt_absence: bool) -> Found | None:
        """What lies at a key: a file, a complete directory, or None for nothing.

        `root` is the address of the root that the key belongs to, if any; `patience` the number of single questions
        before it is listed for the first time. With `doubt_absence`, "not there" is found out anew: another
        process may have written it in the meantime. What was seen is taken to stay until this process removes it.
        """
        address = f"{bucket}/{key}"
        with self._lock:
            known = self._roots.setdefault(root, _Root())
            if address in known.entries:
                found = known.entries[address]
                if found is not None or not doubt_absence:
                    return found
            elif known.listed and not doubt_absence:
                self._warn_of_remains(known, address)
                return None

            if root is not None and self._listing_pays(known, patience):
                self._list(root, known)
                # The listing is newer than the question, so there is nothing to doubt in it.
                if (found := known.entries.get(address)) is not None:
                    return found
                if address not in self._outdated:
                    self._warn_of_remains(known, address)
                    return None
            known.questions += 1
            found = self._ask(bucket, key)
            known.entries[address] = found
            self._outdated.pop(address, None)
            return found

    def size_of_directory(self, bucket: str, key: str, root: str | None) -> int:
        """Bytes of all files below a key, listed if they are not known."""
        address = f"{bucket}/{key}"
        with self._lock:
            found = self._roots.setdefault(root, _Root()).entries.get(address)
            if found is not None and found.size is not None:
                return found.size
            size = sum(listed.size for page in self._lister.pages(bucket, f"{key}/") for listed in page)
            if found is not None:
                self._roots[root].entries[address] = Found(size=size, mtime=found.mtime, directory=True)
            return size

    def stored(self, bucket: str, key: str, root: str | None, found: Found) -> None:
        """Take note of what this process has just stored."""
        with self._lock:
            self._roots.setdefault(root, _Root()).entries[f"{bucket}/{key}"] = found

    def removed(self, bucket: str, key: str, root: str | None) -> None:
        """Take note that this process has just removed a file, or a directory with all in it."""
        address = f"{bucket}/{key}"
        with self._lock:
            known = self._roots.setdefault(root, _Root())
            if (found := known.entries.get(address)) is not None and found.directory:
                for other in [other for other in known.entries if other.startswith(f"{address}/")]:
                    known.entries[other] = None
            known.entries[address] = None
            known.folders.discard(address)

    def ask_again(self, bucket: str, key: str, root: str | None) -> Found | None:
        """What lies at a key now, whatever is known of it."""
        with self._lock:
            found = self._ask(bucket, key)
            self._roots.setdefault(root, _Root()).entries[f"{bucket}/{key}"] = found
            return found

    def expect_anew(self, addresses: Iterable[tuple[str, str | None]]) -> None:
        """Other processes will write these (address, root) anew: what is there now is not what will be."""
        with self._lock:
            for address, root in addresses:
                if (found := self._roots.setdefault(root, _Root()).entries.pop(address, None)) is not None:
                    self._outdated[address] = found

    def _listing_pays(self, known: _Root, patience: int) -> bool:
        """Whether single questions have cost as much as a listing would."""
        if not known.listed:
            return known.questions >= patience
        # Listed already, so this is about what others have written since: only a wave of questions makes that worth it.
        now = self._clock()
        if now - known.since > WAVE:
            known.since = now
            known.questions = 0
        return known.questions >= PATIENCE + known.pages

    def _list(self, root: str, known: _Root) -> None:
        bucket, _, prefix = root.partition("/")
        entries: dict[str, Found | None] = {}
        pages = 0
        directories: dict[str, float] = {}
        for page in self._lister.pages(bucket, prefix):
            pages += 1
            for listed in page:
                if listed.key.endswith("/"):
                    continue  # consoles make such empty objects to show a folder
                address = f"{bucket}/{listed.key}"
                entries[address] = Found(size=listed.size, mtime=listed.mtime)
                if address.endswith(f"/{MARKER}"):
                    directories[address[: -len(MARKER) - 1]] = listed.mtime

        folders: set[str] = set()
        sizes = dict.fromkeys(directories, 0)
        for address, found in entries.items():
            parent = address.rpartition("/")[0]
            while len(parent) >= len(root):
                folders.add(parent)
                if parent in sizes and found is not None and found.size is not None:
                    sizes[parent] += found.size
                parent = parent.rpartition("/")[0]
        for address, mtime in directories.items():
            entries[address] = Found(size=sizes[address], mtime=mtime, directory=True)
        for address, found in self._outdated.items():
            if entries.get(address) == found:
                del entries[address]

        known.entries = entries
        known.folders = folders
        known.listed = True
        known.pages = pages
        known.questions = 0
        known.since = self._clock()

    def _ask(self, bucket: str, key: str) -> Found | None:
        """One question for one key, whether file or directory.

        A file is the first of the objects whose keys begin with its key. A directory's marker comes early too, since
        "." sorts before letters and digits, after neighbours like `key-2` or `key.txt`; a second question settles it
        in the rare case that those fill the page.
        """
        objects, more = self._lister.page(bucket, key, PEEK)
        if objects and objects[0].key == key:
            return Found(size=objects[0].size, mtime=objects[0].mtime)
        marker_key = f"{key}/{MARKER}"
        marker = next((listed for listed in objects if listed.key == marker_key), None)
        if marker is None and more and objects[-1].key < marker_key:
            marker = next(
                (listed for listed in self._lister.page(bucket, marker_key, 1)[0] if listed.key == marker_key), None
            )
            objects = []
        below = [listed for listed in objects if listed.key.startswith(f"{key}/")]
        if marker is None:
            if below:
                self._say_incomplete(f"{bucket}/{key}")
            return None
        whole = not more or bool(objects and not objects[-1].key.startswith(f"{key}/"))
        return Found(
            size=sum(listed.size for listed in below) if whole and below else None, mtime=marker.mtime, directory=True
        )

    def _warn_of_remains(self, known: _Root, address: str) -> None:
        if address in known.folders:
            self._say_incomplete(address)

    def _say_incomplete(self, address: str) -> None:
        if address not in self._warned:
            self._warned.add(address)
            self._warn(
                f"s3://{address} holds files but no {MARKER}, which is uploaded last: taken as absent (cut short?)"
            )
