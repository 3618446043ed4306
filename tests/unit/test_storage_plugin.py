"""The storage plugin against moto's S3."""

import asyncio
import errno
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from snakemake.io import IOCache, flag, glob_wildcards
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_storage_plugins.tests import TestStorageBase

import snakemake_storage_plugin_s3_inventory as plugin
from snakemake_storage_plugin_s3_inventory import StorageObject, StorageProvider, StorageProviderSettings
from snakemake_storage_plugin_s3_inventory import client as client_module
from snakemake_storage_plugin_s3_inventory.inventory import MARKER
from tests.unit.storage_server import CREDENTIALS, DENIED, EXPIRED, SLOW_DOWN, Server, running

RUN = "s3://bucket/runs/a"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    import requests

    requests.post(f"{s3_server.url}/moto-api/reset", timeout=10)
    s3_server.faults.clear()
    s3_server.always.clear()
    raw().create_bucket(Bucket="bucket")
    s3_server.take()
    return s3_server


def raw() -> Any:
    """S3 without the plugin."""
    return _client(os.environ["AWS_ENDPOINT_URL"])


@functools.cache
def _client(url: str) -> Any:
    # Making a client takes longer than most tests.
    return boto3.client("s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test")


def keys() -> list[str]:
    return [item["Key"] for item in raw().list_objects_v2(Bucket="bucket").get("Contents", [])]


class Told(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def provider(folder: Path, *, workflow: Any = None, **settings: Any) -> StorageProvider:
    """A provider as Snakemake makes it, for a workflow of the given state."""
    made = StorageProvider(
        local_prefix=folder / "local",
        logger=logging.getLogger("test-storage"),
        settings=StorageProviderSettings(**{"prefix": RUN, "retries": 4, **settings}),
    )
    made.process.workflow = workflow
    return made


def workflow(*, main: bool = True, dry: bool = False, graph: bool = True, remote: bool = True) -> Any:
    """The state of a workflow, as far as the plugin asks for it."""
    return SimpleNamespace(
        executor_plugin=object(),
        dryrun=dry,
        is_main_process=main,
        local_exec=not remote,
        iocache=SimpleNamespace(active=graph),
        dag=SimpleNamespace(needrun_jobs=list),
        storage_settings=SimpleNamespace(default_storage_prefix=None),
    )


def thing(made: StorageProvider, name: str) -> StorageObject:
    made_object = made.object(f"{RUN}/{name}")
    assert isinstance(made_object, StorageObject)
    return made_object


class OfficialTests(TestStorageBase):
    """Snakemake's own tests for storage plugins."""

    files_only = False

    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        """S3 for each test."""

    def get_storage_provider_cls(self) -> type[StorageProvider]:
        return StorageProvider

    def get_storage_provider_settings(self) -> StorageProviderSettings:
        return StorageProviderSettings()

    def get_query(self, tmp_path: Path) -> str:
        return f"{RUN}/test/file.txt"

    def get_query_not_existing(self, tmp_path: Path) -> str:
        return f"{RUN}/not/there"


class TestOfficial(OfficialTests):
    __test__ = True


def test_snakemake_finds_what_it_needs_in_the_package() -> None:
    assert plugin.StorageProvider.get_storage_object_cls() is StorageObject
    names = {field.name for field in StorageProviderSettings.__dataclass_fields__.values()}
    assert not names & {"access_key", "secret_key", "token"}, "secrets would be passed to remote jobs in clear text"


def test_a_bucket_is_neither_made_nor_removed(server: Server, tmp_path: Path) -> None:
    made = provider(tmp_path)
    only = thing(made, "a")
    only.local_path().parent.mkdir(parents=True)
    only.local_path().write_text("x")
    only.store_object()
    only.remove()
    raw().head_bucket(Bucket="bucket")

    elsewhere = made.object("s3://no-such-bucket/a/b")
    elsewhere.local_path().parent.mkdir(parents=True)
    elsewhere.local_path().write_text("x")
    for attempt in (elsewhere.store_object, elsewhere.exists):
        with pytest.raises(WorkflowError, match="there is no bucket 'no-such-bucket'") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    with pytest.raises(ClientError):
        raw().head_bucket(Bucket="no-such-bucket")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("403 Forbidden", DENIED), "s3:ListBucket"),
        (("400 Bad Request", EXPIRED), "expired"),
        (("500 Internal Server Error", b""), "cannot list"),
        (("404 Not Found", b"<Error><Code>NoSuchBucket</Code></Error>"), "there is no bucket"),
    ],
)
def test_an_error_is_an_error_and_not_absence(
    server: Server, tmp_path: Path, answer: tuple[str, bytes], words: str
) -> None:
    server.always["ListObjectsV2"] = answer
    for state in (None, workflow(), workflow(main=False)):
        with pytest.raises(WorkflowError, match=words) as caught:
            thing(provider(tmp_path, workflow=state, retries=1), "a").exists()
        assert "\n" not in str(caught.value)


def test_missing_permission_to_write_is_named(server: Server, tmp_path: Path) -> None:
    server.always["PutObject"] = ("403 Forbidden", DENIED)
    local = thing(provider(tmp_path), "a")
    local.local_path().parent.mkdir(parents=True)
    local.local_path().write_text("x")
    with pytest.raises(WorkflowError, match="s3:PutObject"):
        local.store_object()


def test_no_credentials_are_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(WorkflowError, match="no AWS credentials found"):
        thing(provider(tmp_path), "a").exists()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(WorkflowError, match="nobody"):
        thing(provider(tmp_path), "a").exists()


def test_throttling_and_broken_connections_are_retried(server: Server, tmp_path: Path) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/x", Body=b"0123456789" * 1000)
    server.faults += [
        ("ListObjectsV2", "503 Slow Down", SLOW_DOWN),
        ("ListObjectsV2", "cut", b""),
        ("GetObject", "503 Slow Down", SLOW_DOWN),
        ("GetObject", "cut", b""),
        ("PutObject", "503 Slow Down", SLOW_DOWN),
    ]
    local = thing(provider(tmp_path, workflow=workflow()), "x")
    assert local.exists()
    local.local_path().parent.mkdir(parents=True)
    local.retrieve_object()
    assert local.local_path().read_bytes() == b"0123456789" * 1000
    local.store_object()
    assert server.faults == []


def test_a_download_that_fails_leaves_nothing(server: Server, tmp_path: Path) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/x", Body=b"0123456789")
    raw().put_object(Bucket="bucket", Key="runs/a/d/x", Body=b"0123456789")
    raw().put_object(Bucket="bucket", Key=f"runs/a/d/{MARKER}", Body=b"")
    made = provider(tmp_path, workflow=workflow())
    for name in ("x", "d"):
        local = thing(made, name)
        assert local.exists()
        local.local_path().parent.mkdir(parents=True, exist_ok=True)
        server.faults += [("GetObject", "cut", b"")] * 20
        with pytest.raises(WorkflowError):
            local.retrieve_object()
        server.faults.clear()
        assert list(local.local_path().parent.iterdir()) == []


def test_the_main_process_knows_all_outputs_from_one_call(server: Server, tmp_path: Path) -> None:
    for number in range(30):
        raw().put_object(Bucket="bucket", Key=f"runs/a/{number}", Body=b"x")
    server.take()
    made = provider(tmp_path, workflow=workflow())
    assert [thing(made, str(number)).exists() for number in range(60)] == [True] * 30 + [False] * 30
    assert {thing(made, str(number)).size() for number in range(30)} == {1}
    assert all(thing(made, str(number)).mtime() > 1e9 for number in range(30))
    assert server.take() == {"ListObjectsV2": 1}


def test_by_default_the_default_storage_prefix_is_listed(server: Server, tmp_path: Path) -> None:
    state = workflow()
    state.storage_settings.default_storage_prefix = f"{RUN}/"
    made = StorageProvider(
        local_prefix=tmp_path, logger=logging.getLogger("test-storage"), settings=None, is_default=True
    )
    made.process.workflow = state
    assert not any(thing(made, str(number)).exists() for number in range(30))
    assert not made.object("s3://bucket/runs/b").exists()
    assert server.take() == {"ListObjectsV2": 2}


def test_a_job_asks_for_its_few_files_only(server: Server, tmp_path: Path) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/in", Body=b"x")
    server.take()
    made = provider(tmp_path, workflow=workflow(main=False, graph=False))
    given, made_here = thing(made, "in"), thing(made, "out")
    assert given.exists()
    assert given.size() == 1
    assert given.mtime() > 1e9
    given.local_path().parent.mkdir(parents=True)
    given.retrieve_object()
    for _ in range(3):
        assert not made_here.exists()
    made_here.local_path().write_text("result")
    made_here.store_object()
    assert made_here.exists()
    assert made_here.size() == 6
    assert server.take() == {"ListObjectsV2": 2, "GetObject": 1, "PutObject": 1}


def test_what_jobs_wrote_is_seen_with_one_call_each(server: Server, tmp_path: Path) -> None:
    state = workflow()
    made = provider(tmp_path, workflow=state)
    output, directory = thing(made, "out"), thing(made, "directory")
    assert not output.exists()
    assert not directory.exists()
    state.iocache.active = False
    raw().put_object(Bucket="bucket", Key="runs/a/out", Body=b"12345")
    raw().put_object(Bucket="bucket", Key="runs/a/directory/x", Body=b"123")
    assert not directory.exists()
    raw().put_object(Bucket="bucket", Key=f"runs/a/directory/{MARKER}", Body=b"")
    server.take()
    for _ in range(5):
        assert (output.exists(), output.size(), output.mtime() > 1e9) == (True, 5, True)
        assert (directory.exists(), directory.size(), directory.mtime() > 1e9) == (True, 3, True)
    assert server.take() == {"ListObjectsV2": 2}


@pytest.mark.parametrize("name", ["file", "directory"])
def test_the_time_of_what_was_stored_after_the_listing_is_that_of_s3(server: Server, tmp_path: Path, name: str) -> None:
    there = thing(provider(tmp_path, workflow=workflow(remote=False)), name)
    assert not there.exists()
    write(there.local_path() if name == "directory" else there.local_path().parent, **{name: "x"})
    there.store_object()
    server.take()
    assert abs(there.mtime() - raw().list_objects_v2(Bucket="bucket")["Contents"][0]["LastModified"].timestamp()) <= 1
    assert there.mtime() > 1e9
    assert server.take() == {"ListObjectsV2": 2}, "one of them by this test"


def test_a_dry_run_with_s3_shows_the_true_state(server: Server, tmp_path: Path) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/there", Body=b"x")
    made = provider(tmp_path, workflow=workflow(dry=True))
    assert thing(made, "there").exists()
    assert not thing(made, "not-there").exists()
    there = thing(made, "there")
    there.local_path().parent.mkdir(parents=True)
    there.retrieve_object()
    assert there.local_path().read_text() == "x"


def test_an_output_that_is_made_anew_is_asked_for_anew(server: Server, tmp_path: Path) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/out", Body=b"old")
    state = workflow()
    made = provider(tmp_path, workflow=state)
    output = thing(made, "out")
    assert output.size() == 3
    file = SimpleNamespace(is_storage=True, storage_object=output)
    state.dag.needrun_jobs = lambda: [SimpleNamespace(output=[file], benchmark=None)]
    state.iocache.active = False
    raw().put_object(Bucket="bucket", Key="runs/a/out", Body=b"newer")
    assert output.exists()
    assert output.size() == 5


def test_inventory_tells_snakemake_of_the_file_and_of_nothing_else(server: Server, tmp_path: Path) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/there", Body=b"x")
    made = provider(tmp_path, workflow=workflow())
    cache = IOCache(10)
    for name in ("there", "not-there"):
        asyncio.run(thing(made, name).inventory(cache))
    path = str(thing(made, "there").local_path())
    assert cache.exists_in_storage[path] is True
    assert cache.size[path] == 1
    assert len(cache.exists_in_storage) == 2
    assert not cache.exists_in_storage.has_inventory


def write(path: Path, **files: str) -> None:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)


def test_a_directory_comes_back_as_it_was(server: Server, tmp_path: Path) -> None:
    made = provider(tmp_path / "one", workflow=workflow(main=False))
    there = thing(made, "d")
    write(there.local_path(), **{"a": "1", "deep/b": "22", MARKER: ""})
    there.store_object()
    assert there.exists()
    assert there.size() == 3
    assert there.mtime() > 1e9

    other = thing(provider(tmp_path / "two", workflow=workflow(main=False)), "d")
    write(other.local_path(), stale="from before")
    other.retrieve_object()
    found = {
        path.relative_to(other.local_path()).as_posix() for path in other.local_path().rglob("*") if path.is_file()
    }
    assert found == {"a", "deep/b", MARKER}
    assert (other.local_path() / "deep/b").read_text() == "22"

    other.remove()
    assert not other.exists()
    assert keys() == []


def test_an_upload_cut_short_is_no_directory_even_over_an_old_one(server: Server, tmp_path: Path) -> None:
    made = provider(tmp_path, workflow=workflow(main=False), retries=1)
    there = thing(made, "d")
    write(there.local_path(), a="old", stale="old")
    there.store_object()
    assert f"runs/a/d/{MARKER}" in keys()

    write(there.local_path(), a="new", b="new", c="new")
    (there.local_path() / "stale").unlink()
    server.always["PutObject"] = ("500 Internal Server Error", b"")
    with pytest.raises(WorkflowError):
        there.store_object()
    server.always.clear()
    assert not thing(provider(tmp_path, workflow=workflow()), "d").exists()

    there.store_object()
    again = thing(provider(tmp_path, workflow=workflow()), "d")
    assert again.exists()
    assert keys() == [f"runs/a/d/{name}" for name in (MARKER, "a", "b", "c")]


def test_the_marker_is_uploaded_last(server: Server, tmp_path: Path) -> None:
    there = thing(provider(tmp_path, retries=1), "d")
    write(there.local_path(), **{"z": "1", MARKER: ""})
    server.faults.append(("PutObject", "500 Internal Server Error", b""))
    with pytest.raises(WorkflowError):
        there.store_object()
    assert keys() == []


def test_files_from_elsewhere_are_stored_fetched_and_removed_beside_each_other(server: Server, tmp_path: Path) -> None:
    # So Snakemake ships its source archive: an object with a local path of its own, and the managed calls.
    made = provider(tmp_path)

    async def ship() -> None:
        archives = [thing(made, f"sources-{number}.tar.xz") for number in range(8)]
        for number, archive in enumerate(archives):
            (tmp_path / f"source-{number}").write_text(f"content {number}")
            archive.set_local_path(tmp_path / f"source-{number}")
        await asyncio.gather(*(archive.managed_store() for archive in archives))
        fetched = [thing(provider(tmp_path / "job"), f"sources-{number}.tar.xz") for number in range(8)]
        await asyncio.gather(*(archive.managed_retrieve() for archive in fetched))
        assert [item.local_path().read_text() for item in fetched] == [f"content {number}" for number in range(8)]
        await asyncio.gather(*(archive.managed_remove() for archive in archives))

    asyncio.run(ship())
    assert keys() == []


def test_what_is_not_there_cannot_be_fetched(server: Server, tmp_path: Path) -> None:
    for state in (None, workflow(), workflow(main=False)):
        with pytest.raises(WorkflowError, match=f"{RUN}/nothing not found"):
            asyncio.run(thing(provider(tmp_path, workflow=state), "nothing").managed_retrieve())


def test_a_key_that_leaves_its_directory_is_refused(server: Server, tmp_path: Path) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/d/../../../escaped", Body=b"x")
    raw().put_object(Bucket="bucket", Key=f"runs/a/d/{MARKER}", Body=b"")
    with pytest.raises(WorkflowError, match="outside"):
        thing(provider(tmp_path, workflow=workflow()), "d").retrieve_object()


def test_large_files_travel_in_parts(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LARGE", 10 * 1024 * 1024)
    content = os.urandom(12 * 1024 * 1024)
    there = thing(provider(tmp_path), "large")
    there.local_path().parent.mkdir(parents=True)
    there.local_path().write_bytes(content)
    there.store_object()
    assert server.take()["UploadPart"] == 2
    there.local_path().unlink()
    there.retrieve_object()
    assert there.local_path().read_bytes() == content


def test_missing_permission_for_a_large_file_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LARGE", 10)
    server.always["Multipart"] = server.always["PutObject"] = ("403 Forbidden", DENIED)
    there = thing(provider(tmp_path), "large")
    write(there.local_path().parent, large="more than ten bytes")
    with pytest.raises(WorkflowError, match="s3:PutObject"):
        there.store_object()


def test_a_full_disk_is_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw().put_object(Bucket="bucket", Key="runs/a/x", Body=b"0123456789")
    there = thing(provider(tmp_path), "x")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(WorkflowError, match=r"Cannot copy s3://bucket/runs/a/x .*: No space left on device"):
        asyncio.run(there.managed_retrieve())


def test_wildcards_are_matched_with_objects(server: Server, tmp_path: Path) -> None:
    for name in ("s1.txt", "s2.txt", "other.csv"):
        raw().put_object(Bucket="bucket", Key=f"runs/a/{name}", Body=b"x")
    query = f"{RUN}/{{sample}}.txt"
    pattern = flag(query, "storage_object", provider(tmp_path).object(query))
    assert sorted(glob_wildcards(pattern).sample) == ["s1", "s2"]


@pytest.mark.parametrize("query", ["s3://bucket/a", "s3://bucket/{x}/b.txt"])
def test_good_queries(query: str) -> None:
    assert StorageProvider.is_valid_query(query)


@pytest.mark.parametrize("query", ["bucket/a", "http://bucket/a", "s3://bucket", "s3://bucket/", "s3:///a", ""])
def test_bad_queries(query: str) -> None:
    assert not StorageProvider.is_valid_query(query)


@pytest.mark.parametrize("name", ["a//b", "a/./b", "a/c/../b", "a/b/", "/a/b"])
def test_odd_keys_are_those_of_their_paths(tmp_path: Path, name: str) -> None:
    odd = provider(tmp_path).object(f"s3://bucket/{name}")
    assert odd.key == "a/b"
    assert odd.cache_key() == str(odd.local_path())


def test_a_bad_prefix_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="--storage-s3-inventory-prefix 'bucket/a'"):
        provider(tmp_path, prefix="bucket/a")


def test_a_dry_run_without_s3_goes_on_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    told = Told()
    logger = logging.getLogger("test-storage")
    logger.addHandler(told)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    try:
        made = provider(tmp_path, workflow=workflow(dry=True))
        assert not any(thing(made, str(number)).exists() for number in range(5))
        assert len(told.lines) == 1
        assert told.lines[0].startswith("S3 cannot be asked (S3: cannot be reached")
        assert list(thing(made, "{x}").list_candidate_matches()) == []
        with pytest.raises(WorkflowError, match="cannot be reached"):
            thing(provider(tmp_path, workflow=workflow(), retries=1), "a").exists()
    finally:
        logger.removeHandler(told)


def test_making_ten_thousand_objects_asks_nothing(server: Server, tmp_path: Path) -> None:
    made = provider(tmp_path)
    for number in range(10_000):
        thing(made, f"{number}/x").local_path()
    assert server.take() == {}
