"""The provider (one per run, holds what is known) and the storage objects (one per file, hold nothing but their name).

What Snakemake 9 asks, and when:
- while it makes the graph: existence and times of all outputs, sizes where resources depend on them, and
  `inventory()` for the inputs of the target rule; its own cache keeps the answers. Here one listing answers all.
- in the main process of a run with a remote executor, its cache is off: each scheduling round asks existence and size
  of all inputs of all ready jobs (answered from memory), and after each job existence of its outputs (asked anew).
- in a remote job: existence and size of its inputs, existence of its outputs; then it fetches and stores.
"""

import asyncio
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from snakemake_interface_storage_plugins.common import Operation
from snakemake_interface_storage_plugins.exceptions import FileOrDirectoryNotFoundError
from snakemake_interface_storage_plugins.io import IOCacheStorageInterface, Mtime, get_constant_prefix
from snakemake_interface_storage_plugins.storage_object import StorageObjectGlob, StorageObjectRead, StorageObjectWrite
from snakemake_interface_storage_plugins.storage_provider import (
    ExampleQuery,
    QueryType,
    StorageProviderBase,
    StorageQueryValidationResult,
)

from snakemake_storage_plugin_s3_inventory import directories
from snakemake_storage_plugin_s3_inventory.client import S3
from snakemake_storage_plugin_s3_inventory.errors import S3Error
from snakemake_storage_plugin_s3_inventory.inventory import PATIENCE, Found, Inventory, Listed
from snakemake_storage_plugin_s3_inventory.process import Process
from snakemake_storage_plugin_s3_inventory.renewal import Renewal
from snakemake_storage_plugin_s3_inventory.settings import StorageProviderSettings

SCHEME = "s3://"
JOB_GRACE = 300.0
"""Seconds that a job, whose machine costs money, waits for credentials at most."""

Result = TypeVar("Result")


class StorageProvider(StorageProviderBase):
    """S3 by way of an inventory. Never creates or removes a bucket."""

    def __post_init__(self) -> None:
        settings = self.settings
        self._options = settings if isinstance(settings, StorageProviderSettings) else StorageProviderSettings()
        self.process = Process()
        self.renewal = Renewal(warn=self.logger.warning, grace=self._credentials_grace)
        self.s3 = S3(self._options, in_a_hurry=self.process.is_dry_run, renewal=self.renewal)
        self.inventory = Inventory(self.s3, warn=self.logger.warning)
        self._prefix = _as_root(self._options.prefix, "--storage-s3-inventory-prefix")
        self._unreachable = False
        self._running = False
        # Files are made by the thousand; joining text is ten times cheaper than joining paths.
        self.local_prefix_text = str(self.local_prefix)

    @classmethod
    def example_queries(cls) -> list[ExampleQuery]:
        """Queries as a user writes them."""
        return [
            ExampleQuery(
                query="s3://bucket/folder/file.txt", type=QueryType.ANY, description="A file or directory in S3"
            )
        ]

    @classmethod
    def is_valid_query(cls, query: str) -> StorageQueryValidationResult:
        """Whether a query, possibly with wildcards, is `s3://bucket/key`."""
        # Asked for every file several times, hence no parsing of URLs.
        bucket, slash, key = query[len(SCHEME) :].partition("/")
        if query.startswith(SCHEME) and bucket and slash and key:
            return StorageQueryValidationResult(query=query, valid=True)
        return StorageQueryValidationResult(query=query, valid=False, reason="must have the form s3://bucket/key")

    def use_rate_limiter(self) -> bool:
        """No: S3 says when to slow down, and the client then does."""
        return False

    def default_max_requests_per_second(self) -> float:
        """Of no consequence without a rate limiter."""
        return 0.0

    def rate_limiter_key(self, query: str, operation: Operation) -> None:  # noqa: ARG002
        """Of no consequence without a rate limiter."""
        return

    def _credentials_grace(self) -> float:
        """Seconds to wait for new credentials. Nobody brings a job new ones: its role may only be slow."""
        seconds = 60 * self._options.credentials_grace
        if self.process.is_dry_run():
            return 0.0
        return seconds if self.process.is_main() else min(seconds, JOB_GRACE)

    def root(self, bucket: str, key: str) -> str | None:
        """The root (`bucket/prefix/`) whose listing tells of a key; None: only a question for that key does."""
        if self._prefix is None and self.is_default:
            self._prefix = _as_root(self.process.default_storage_prefix(), "--default-storage-prefix")
        if self._prefix is not None:
            # A directory above the prefix is not part of it, nor is the prefix itself.
            return self._prefix if f"{bucket}/{key}".startswith(self._prefix) else None
        first, slash, _ = key.partition("/")
        return f"{bucket}/{first}/" if slash else None

    def find(self, bucket: str, key: str) -> Found | None:
        """What lies at a key.

        Raises:
            S3Error: if S3 cannot be asked, except in a dry run, which then goes on as if there were nothing.

        """
        if self._unreachable:
            return None
        others_write = self.process.others_write()
        if others_write and not self._running and self.process.workflow is not None:
            self._running = True
            self.inventory.expect_anew(self._outputs_to_come())
        root = self.root(bucket, key)
        # The main process is going to ask for every file of the run, a job for a handful. When the prefix is only
        # guessed, how much lies below it is unknown, and the listing has to be earned.
        patience = 0 if self._prefix is not None and self.process.is_main() else PATIENCE
        try:
            return self.inventory.find(bucket, key, root, patience=patience, doubt_absence=others_write)
        except S3Error as error:
            self._go_on_without(error)
            return None

    def objects(self, bucket: str, prefix: str) -> Iterator[Listed]:
        """All objects whose keys begin with a prefix, as S3 has them now; in a dry run without S3, none.

        Raises:
            S3Error: if S3 cannot be asked.

        """
        if self._unreachable:
            return
        try:
            for page in self.s3.pages(bucket, prefix):
                yield from page
        except S3Error as error:
            self._go_on_without(error)

    def _go_on_without(self, error: S3Error) -> None:
        """A dry run does without S3, and says so once; nothing else does."""
        if not self.process.is_dry_run():
            raise error
        self._unreachable = True
        self.logger.warning(f"S3 cannot be asked ({error}): everything is shown as still to do")

    def _outputs_to_come(self) -> Iterator[tuple[str, str | None]]:
        """Addresses and roots of all outputs that the run is about to write, some of them over existing ones."""
        for job in self.process.workflow.dag.needrun_jobs():
            for file in [*job.output, *([job.benchmark] if job.benchmark else [])]:
                if file.is_storage and isinstance(file.storage_object, StorageObject):
                    thing = file.storage_object
                    if thing.provider is self:
                        yield f"{thing.bucket}/{thing.key}", self.root(thing.bucket, thing.key)


class StorageObject(StorageObjectRead, StorageObjectWrite, StorageObjectGlob):
    """A file or directory in S3."""

    provider: StorageProvider  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        self.bucket, _, key = self.query[len(SCHEME) :].partition("/")
        # Only odd keys need work; a trailing slash, a doubled one and dots are what a path may not hold.
        if "//" in key or "./" in key or key.startswith("/") or key.endswith(("/", "/.", "..")):
            key = posixpath.normpath(key.lstrip("/"))
        self.key = key
        self._file_of_workflow: Any = None

    @property
    def _iofile(self) -> Any:
        """The file of the workflow that this object stands behind; Snakemake sets it for all files of rules."""
        return self._file_of_workflow

    @_iofile.setter
    def _iofile(self, file: Any) -> None:
        self._file_of_workflow = file
        if self.provider.process.workflow is None and getattr(file, "rule", None) is not None:
            self.provider.process.workflow = file.rule.workflow

    def local_suffix(self) -> str:
        """Path of the local copy below the plugin's folder."""
        return f"{self.bucket}/{self.key}"

    def cache_key(self, local_suffix: str | None = None) -> str:
        """Key in Snakemake's cache: the path of the local copy."""
        return f"{self.provider.local_prefix_text}/{local_suffix or self.local_suffix()}"

    def get_inventory_parent(self) -> str | None:
        """None: Snakemake asks for each file, and the provider answers from memory."""
        return None

    async def inventory(self, cache: IOCacheStorageInterface) -> None:
        """Tell Snakemake of this file.

        Snakemake calls this for each input of the target rule while it makes the graph, and expects that neighbours
        are told too. They are not: its own cache would then hold for absent whatever was not told, and hold a copy of
        a listing of 100,000 objects in a process that needs five of them.
        """
        key = self.cache_key()
        if key in cache.exists_in_storage:
            return
        found = await self._here(self._find)
        cache.exists_in_storage[key] = found is not None
        if found is not None:
            if found.mtime is not None:
                cache.mtime[key] = Mtime(storage=found.mtime)
            if found.size is not None:
                cache.size[key] = found.size

    def cleanup(self) -> None:
        """Nothing is left behind."""

    def exists(self) -> bool:
        """Whether there is a file, or a directory that was stored completely."""
        return self._find() is not None

    def mtime(self) -> float:
        """Time of the last change in seconds since the epoch; of a directory, when it was complete."""
        found: Found | None = self._find_or_raise()
        if found.mtime is None:  # stored by this process: S3 knows the time, and only tells when asked
            found = self._inventory.ask_again(self.bucket, self.key, self._root)
        if found is None or found.mtime is None:
            raise S3Error(f"S3: {self.query} was stored and has been removed since: does another run write there?")
        return found.mtime

    def size(self) -> int:
        """Bytes; of a directory, of all files in it, since that is what a job needs disk for."""
        found = self._find_or_raise()
        if found.size is not None:
            return found.size
        return self._inventory.size_of_directory(self.bucket, self.key, self._root)

    def retrieve_object(self) -> None:
        """Fetch to the local path: whole or not at all."""
        path = self.local_path()
        found = self._find_or_raise()
        if found.directory:
            directories.fetch(self.provider.s3, self.bucket, self.key, path)
        else:
            self.provider.s3.read(self.bucket, self.key, path)

    def store_object(self) -> None:
        """Store what lies at the local path."""
        path = self.local_path()
        if path.is_dir():
            size = directories.store(self.provider.s3, path, self.bucket, self.key)
        else:
            size = self.provider.s3.write(path, self.bucket, self.key)
        self._inventory.stored(self.bucket, self.key, self._root, Found(size=size, mtime=None, directory=path.is_dir()))

    def remove(self) -> None:
        """Remove it; the bucket stays."""
        found = self._find()
        if found is not None and found.directory:
            directories.remove(self.provider.s3, self.bucket, self.key)
        else:
            self.provider.s3.delete(self.bucket, self.key)
        self._inventory.removed(self.bucket, self.key, self._root)

    def list_candidate_matches(self) -> Iterable[str]:
        """Queries of all objects that `glob_wildcards` has to match with this one."""
        bucket, _, prefix = get_constant_prefix(self.query)[len(SCHEME) :].partition("/")
        if bucket != self.bucket:
            raise S3Error(f"S3: {self.query}: a wildcard in the name of the bucket cannot be matched")
        return (f"{SCHEME}{bucket}/{listed.key}" for listed in self.provider.objects(bucket, prefix))

    # Snakemake's own versions of these wrap each error in another one, and do the work in the event loop, so that of
    # many files only one travels at a time.

    async def managed_exists(self) -> bool:
        """Whether it exists."""
        return await self._here(self.exists)

    async def managed_mtime(self) -> float:
        """Its time."""
        return await self._here(self.mtime)

    async def managed_size(self) -> int:
        """Its size."""
        return await self._here(self.size)

    async def managed_local_footprint(self) -> int:
        """The disk that it will take."""
        return await self._here(self.size)

    async def managed_retrieve(self) -> None:
        """Fetch it beside others."""
        await self.wait_for_free_space()
        with self._disk_explained():
            self.local_path().parent.mkdir(parents=True, exist_ok=True)
            await self._in_thread(self.retrieve_object)

    async def managed_store(self) -> None:
        """Store it beside others."""
        with self._disk_explained():
            await self._in_thread(self.store_object)

    async def managed_remove(self) -> None:
        """Remove it beside others."""
        await self._in_thread(self.remove)

    async def _here(self, work: Callable[[], Result]) -> Result:
        """What is mostly known, without a thread; new credentials are waited for."""

        async def ask() -> Result:
            return work()

        return await self.provider.renewal.patiently(ask)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Work beside other work; new credentials are waited for."""
        await self.provider.renewal.patiently(lambda: asyncio.to_thread(work))

    @contextmanager
    def _disk_explained(self) -> Iterator[None]:
        """What the local disk may do to a transfer, in one line."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise S3Error(f"Cannot copy {self.query} from or to {self.local_path()}: {reason}") from error

    @property
    def _inventory(self) -> Inventory:
        return self.provider.inventory

    @property
    def _root(self) -> str | None:
        return self.provider.root(self.bucket, self.key)

    def _find(self) -> Found | None:
        return self.provider.find(self.bucket, self.key)

    def _find_or_raise(self) -> Found:
        found = self._find()
        if found is None:
            raise FileOrDirectoryNotFoundError(local_path=Path(self.local_path()), query=self.print_query)
        return found


def _as_root(prefix: str | None, option: str) -> str | None:
    """`s3://bucket/a/b` as the root `bucket/a/b/`.

    Raises:
        S3Error: if it is something else.

    """
    if prefix is None:
        return None
    bucket = prefix.removeprefix(SCHEME).partition("/")[0]
    if not prefix.startswith(SCHEME) or not bucket:
        raise S3Error(f"{option} {prefix!r}: must have the form s3://bucket/folder")
    return f"{prefix.removeprefix(SCHEME).rstrip('/')}/"
