"""Databases in S3: brought there once, and from there once to each machine; never half, never wrong."""

import fcntl
import hashlib
import itertools
import multiprocessing
import os
import signal
from collections import namedtuple
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import yaml

from snakefold.config import Databases
from snakefold.databases import local as staging_module
from snakefold.databases.local import local_folder
from snakefold.databases.manifest import Manifest, read_manifest, write_manifest
from snakefold.databases.obtain import obtain, verify_databases
from snakefold.errors import SnakefoldError
from snakefold.s3 import S3Error
from tests.unit.databases_s3_helpers import CONTENT, LARGE, RANGES, SMALL_ENOUGH, assert_whole, obtain_it, stage
from tests.unit.s3_server import S3Server, wait_until

_NUMBERS = itertools.count()


class Bench:
    """A bucket, a registry with one database, and a machine with a cache."""

    def __init__(self, server: S3Server, tmp_path: Path) -> None:
        self.server = server
        self.client = server.client
        self.bucket = f"databases-{next(_NUMBERS)}"
        self.client.create_bucket(Bucket=self.bucket)
        self.root = tmp_path
        self.cache = tmp_path / "cache"
        self.manifest = tmp_path / "run" / "db" / "manifest.json"
        self.config = Databases(
            registry=str(tmp_path / "registry.yaml"),
            folder=f"s3://{self.bucket}/databases",
            cache=str(self.cache),
        )
        self.write_registry()

    def write_registry(self, content: dict[str, bytes] = CONTENT, version: str = "1") -> None:
        files = []
        for name, data in content.items():
            source = self.root / "sources" / name
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            files.append({"path": name, "urls": [f"file:sources/{name}"], "size": len(data), "sha256": digest})
        database = {"kind": "sequences", "version": version, "licence": "CC0", "description": "x", "files": files}
        registry = {"databases": {"db": database}, "presets": {}}
        (self.root / "registry.yaml").write_text(yaml.safe_dump(registry))

    def obtain(self) -> Manifest:
        return obtain("db", self.config, manifest=self.manifest)

    def stage(self) -> Path:
        return local_folder(self.manifest, self.config)

    def forget_cache(self) -> None:
        """As on another machine."""
        if self.cache.exists():
            self.cache.rename(self.root / f"other-cache-{next(_NUMBERS)}")
        self.server.forget()

    def keys(self) -> set[str]:
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {each["Key"].removeprefix("databases/db/") for each in listed}

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"databases/db/{name}", Body=content)

    def whole(self) -> list[Path]:
        """What looks like a complete copy on this machine."""
        return [path for path in self.cache.rglob("manifest.json") if "partial" not in str(path)]


@pytest.fixture
def bench(server: S3Server, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path)


@pytest.fixture
def published(bench: Bench) -> Bench:
    bench.obtain()
    bench.forget_cache()
    return bench


# To S3


def test_a_database_is_brought_to_s3_with_its_manifest_last(bench: Bench) -> None:
    manifest = bench.obtain()
    assert bench.keys() == {*CONTENT, "manifest.json"}
    puts = [line for line in bench.server.requests if line.startswith("PUT")]
    assert puts[-1].endswith("/databases/db/manifest.json")
    assert read_manifest(bench.manifest) == manifest
    assert verify_databases(bench.config.folder) == []


def test_what_was_downloaded_is_at_hand_on_the_same_machine(bench: Bench) -> None:
    bench.obtain()
    bench.server.forget()
    assert_whole(bench.stage())
    assert bench.server.requests == []
    assert not (bench.cache / ".downloads" / "db").exists()


def test_what_s3_holds_already_is_not_transferred(published: Bench) -> None:
    first = published.manifest.read_bytes()
    published.manifest.unlink()
    for source in (published.root / "sources").rglob("*.cif"):
        source.unlink()
    published.obtain()
    assert published.manifest.read_bytes() == first
    assert published.server.count("PUT") == 0
    assert not published.cache.exists()


@pytest.mark.parametrize("damage", ["file gone", "other size", "manifest gone", "manifest damaged"])
def test_what_s3_holds_in_part_is_completed_and_the_rest_not_sent_again(published: Bench, damage: str) -> None:
    name = "manifest.json" if "manifest" in damage else "mmcif/3abc.cif"
    if "gone" in damage:
        published.client.delete_object(Bucket=published.bucket, Key=f"databases/db/{name}")
    else:
        published.put(name, b"x")
    published.obtain()
    assert verify_databases(published.config.folder) == []
    sent = {line.rpartition("/db/")[2] for line in published.server.requests if line.startswith("PUT")}
    assert sent == {".partial", "manifest.json", *({name} if "mmcif" in name else ())}


def test_a_new_version_replaces_the_old_one(published: Bench) -> None:
    old = published.stage()
    new = {"proteins.fasta": LARGE, "new.fasta": b">a\nMKV\n"}
    published.write_registry(new, version="2")
    manifest = published.obtain()
    assert manifest.version == "2"
    assert published.keys() == {*new, "manifest.json"}
    folder = published.stage()
    assert (folder / "new.fasta").read_bytes() == new["new.fasta"]
    assert_whole(old)  # a job may be reading it


def test_another_name_for_the_same_version_is_no_transfer(published: Bench) -> None:
    before = read_manifest(published.manifest)
    published.write_registry(version="release 1")
    manifest = published.obtain()
    assert (manifest.version, manifest.files) == ("release 1", before.files)
    assert [line for line in published.server.requests if line.startswith("PUT")] == [
        f"PUT /{published.bucket}/databases/db/manifest.json"
    ]


def test_a_wrong_download_puts_nothing_on_s3(bench: Bench) -> None:
    (bench.root / "sources" / "proteins.fasta").write_bytes(bytes(len(LARGE)))
    with pytest.raises(SnakefoldError, match=r"db: proteins.fasta: could not be downloaded; .* has SHA-256"):
        bench.obtain()
    assert bench.keys() == {".partial"}
    with pytest.raises(SnakefoldError, match="there are no databases"):
        verify_databases(bench.config.folder)


def test_a_missing_bucket_or_right_is_said_before_the_download(bench: Bench) -> None:
    config = bench.config.model_copy(update={"folder": "s3://no-such-bucket/databases"})
    with pytest.raises(S3Error, match="there is no bucket 'no-such-bucket'"):
        obtain("db", config)
    bench.server.refusals = [(404, "NoSuchKey"), (404, "NoSuchKey"), (403, "AccessDenied")]
    with pytest.raises(S3Error, match=r"cannot be written: access denied.*databases sync db` brings"):
        bench.obtain()
    assert not (bench.cache / ".downloads" / "db").exists()


def test_an_upload_that_was_killed_goes_on(bench: Bench) -> None:
    bench.server.hold_writes = True
    arguments = (bench.config.registry, bench.config.folder, bench.config.cache)
    # The sign that it has begun is let through, the files are not.
    process = started(obtain_it, *arguments)
    assert bench.server.holding.wait(60)
    bench.server.holding.clear()
    bench.server.release.set()
    wait_until(lambda: bench.server.count("PUT") > 1)
    kill(process)
    bench.server.hold_writes = False
    assert not bench.manifest.exists()
    bench.obtain()
    assert verify_databases(bench.config.folder) == []
    assert bench.keys() == {*CONTENT, "manifest.json"}


def test_verify_names_each_fault_on_s3(published: Bench) -> None:
    published.put("mmcif/0abc.cif", b"x")
    published.put("mmcif/1abc.cif", bytes(3_000))
    published.put("mmcif/new.cif", b"x")
    published.client.delete_object(Bucket=published.bucket, Key="databases/db/mmcif/2abc.cif")
    faults = verify_databases(published.config.folder)
    place = f"{published.config.folder}/db/mmcif"
    assert faults == [
        f"{place}/0abc.cif: has 1 bytes instead of 3000",
        f"{place}/1abc.cif: content has changed",
        f"{place}/2abc.cif: missing",
        f"{place}/new.cif: not in the manifest",
    ]


def test_a_folder_of_this_machine_works_as_before(bench: Bench) -> None:
    config = bench.config.model_copy(update={"folder": str(bench.root / "dbs")})
    obtain("db", config, manifest=bench.manifest)
    assert read_manifest(bench.manifest) == read_manifest(bench.root / "dbs/db/manifest.json")
    assert verify_databases(config.folder) == []
    assert local_folder(bench.root / "dbs/db/manifest.json", config) == bench.root / "dbs/db"
    assert local_folder(bench.manifest, config) == bench.root / "dbs/db"
    assert bench.server.requests == []
    (bench.root / "dbs/db/proteins.fasta").write_bytes(b"short")
    with pytest.raises(SnakefoldError, match=r"its files lie neither beside it nor in .*; run `python -m snakefold"):
        local_folder(bench.manifest, config)


# From S3


@pytest.fixture(params=["side by side", "in ranges"])
def sized(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the largest file counts as a large one."""
    if request.param == "in ranges":
        monkeypatch.setattr("snakefold.databases.remote.LARGE", SMALL_ENOUGH)
        monkeypatch.setattr(staging_module, "LARGE", SMALL_ENOUGH)
        monkeypatch.setattr(staging_module, "_TRANSFER", RANGES)
    return request.param


def test_a_database_is_staged_once_and_then_found(published: Bench, sized: str) -> None:
    folder = published.stage()
    assert_whole(folder)
    assert folder.is_relative_to(published.cache)
    assert not list(published.cache.rglob("*.partial"))
    published.server.forget()
    assert published.stage() == folder
    assert published.server.requests == []


def test_cut_connections_and_a_busy_s3_do_not_stop_staging(published: Bench, sized: str) -> None:
    published.server.cuts = [400_000, 1_000, 0, 50_000, 2_000, 99_000]
    published.server.refusals = [(503, "SlowDown")] * 3
    assert_whole(published.stage())
    assert published.server.cuts == []


def test_a_mounted_database_is_used_where_it_is(published: Bench) -> None:
    mounted = published.cache / "db"
    for name, content in CONTENT.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_bytes(content)
    write_manifest(read_manifest(published.manifest), mounted)
    assert published.stage() == mounted
    assert published.server.requests == []
    assert not (published.cache / ".staged").exists()
    # Of another version, or incomplete, it is not.
    (mounted / "proteins.fasta").write_bytes(b"")
    assert_whole(published.stage())


def started(function: object, *arguments: str) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)  # pyright: ignore[reportArgumentType]
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_four_jobs_at_once_cause_one_transfer(published: Bench) -> None:
    logs = [published.root / f"{number}.log" for number in range(4)]
    published.server.hold_after = 0  # nobody is done before all have come
    processes = [
        started(stage, str(published.manifest), published.config.folder, str(published.cache), "", str(log))
        for log in logs
    ]
    wait_until(lambda: sum("waiting for it" in log.read_text() for log in logs if log.exists()) == 3)
    published.server.release.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    total = sum(map(len, CONTENT.values()))
    assert total <= published.server.served < total + 10_000  # and the manifest


def test_a_killed_stager_leaves_nothing_that_looks_whole_and_the_next_goes_on(published: Bench, sized: str) -> None:
    log = published.root / "log"
    published.server.hold_after = 600_000
    process = started(stage, str(published.manifest), published.config.folder, str(published.cache), sized, str(log))
    try:
        assert published.server.holding.wait(60)
        if sized == "in ranges":
            journal = published.cache / ".staged"
            wait_until(lambda: any(path.read_text().count(",") > 3 for path in journal.rglob("journal.json")))
    finally:
        kill(process)
    assert published.whole() == []
    served = published.server.served
    published.server.hold_after = None
    published.server.release.set()
    assert_whole(published.stage())
    again = published.server.served - served
    # Small files are not fetched twice, large ones go on; without ranges the one under way begins again.
    limit = 900_000 if sized == "in ranges" else 1_000_000 + 50_000
    assert again < limit


def test_a_lock_of_a_dead_process_is_free(published: Bench) -> None:
    published.stage()
    (lock,) = (published.cache / ".staged").rglob("*.lock")
    published.forget_cache()
    lock = published.cache / lock.relative_to(published.cache)
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    lock.chmod(0o444)
    assert_whole(published.stage())
    with lock.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_was_damaged_on_its_way_is_fetched_again(published: Bench, sized: str) -> None:
    published.server.damages = ["/manifest.json", "/mmcif/2abc.cif", "/proteins.fasta"]
    assert_whole(published.stage())
    assert published.server.damages == []


def test_what_is_damaged_on_s3_is_refused(published: Bench) -> None:
    for name in ("proteins.fasta", "mmcif/1abc.cif"):
        published.put(name, bytes(len(CONTENT[name])))
    with pytest.raises(SnakefoldError, match=r"^s3://.*: its content is not what the manifest says; run `python"):
        published.stage()
    assert published.whole() == []


def test_another_version_on_s3_is_refused(published: Bench) -> None:
    wanted = published.manifest.read_bytes()
    published.write_registry({"new.fasta": b"x"}, version="2")
    published.obtain()
    published.manifest.write_bytes(wanted)
    with pytest.raises(SnakefoldError, match=r"^s3://.*/db: holds version 2 now, .* version 1, for which"):
        published.stage()
    published.client.delete_object(Bucket=published.bucket, Key="databases/db/manifest.json")
    with pytest.raises(SnakefoldError, match=r"^s3://.*/db: there is no such database, or it is being replaced; run"):
        published.stage()


def test_a_staged_copy_that_lost_a_file_is_mended(published: Bench) -> None:
    folder = published.stage()
    (folder / "mmcif/1abc.cif").unlink()
    published.server.forget()
    assert_whole(published.stage())
    assert published.server.served < 10_000


def test_too_small_a_disk_is_refused_before_anything_comes(published: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(staging_module.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 500_000))
        with pytest.raises(SnakefoldError, match=r"db: needs 1\.0 MB in .*cache, but only 500\.0 kB are free; free"):
            published.stage()
    assert published.server.count("GET", "fasta") == 0
    assert_whole(published.stage())


def test_a_cache_that_cannot_be_written_is_one_line(published: Bench) -> None:
    published.cache.write_text("a file")
    with pytest.raises(SnakefoldError, match=r"cannot be written \(.*\); let databases.cache"):
        published.stage()


def test_without_credentials_the_error_says_so(published: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for call in (published.stage, published.obtain, lambda: verify_databases(published.config.folder)):
        with pytest.raises(S3Error, match="no AWS credentials were found; log in"):
            call()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", ".partial/x", "manifest.json"])
def test_a_manifest_that_names_files_elsewhere_is_refused(published: Bench, name: str) -> None:
    manifest = read_manifest(published.manifest)
    record = manifest.files["proteins.fasta"]
    published.manifest.unlink()
    write_manifest(manifest.model_copy(update={"files": {name: record}}), published.manifest.parent)
    with pytest.raises(SnakefoldError, match="not a manifest"):
        published.stage()


def test_the_cache_must_be_a_folder_of_the_machine() -> None:
    from snakefold.config import load_config
    from snakefold.errors import FaultsError

    with pytest.raises(FaultsError, match=r"config: databases.cache: must be a folder of the machine that runs a job"):
        load_config({"databases": {"cache": "s3://bucket/x"}})
