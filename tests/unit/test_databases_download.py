import gzip
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakefold.databases import download as downloading
from snakefold.databases.download import download, download_database
from snakefold.databases.fetch import Transfer
from snakefold.databases.manifest import Manifest, read_manifest, verify
from snakefold.databases.progress import DownloadProgress
from snakefold.databases.registry import Database, DatabaseFile
from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_file
from tests.unit.databases_server import FileServer

CONTENT = random.Random(1).randbytes(2_000_000)
SEGMENT = 100_000
PACE = 0.0005
"""Seconds between blocks, so that few bytes are on their way, served but not yet received, at any time."""
IN_FLIGHT = 200_000
"""More bytes than can be on their way then."""

ARIA2C = shutil.which("aria2c")
WAYS = {"ranges": Transfer(segment=SEGMENT, retries=2, wait=0.01)}
if ARIA2C:
    WAYS["aria2c"] = Transfer(segment=SEGMENT, retries=2, wait=0.01, aria2c=ARIA2C)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer().running() as running:
        running.files["/a"] = CONTENT
        yield running


@pytest.fixture(params=sorted(WAYS))
def transfer(request: pytest.FixtureRequest) -> Transfer:
    return WAYS[request.param]


def sha256(content: bytes, tmp_path: Path) -> str:
    path = tmp_path / "hashed"
    path.write_bytes(content)
    return sha256_of_file(path)


def database(*files: DatabaseFile, version: str = "1", unpacked_size: int | None = None) -> Database:
    # Not validated: the registry refuses http without a checksum, and https needs a certificate that a test has not.
    return Database.model_construct(
        name="db",
        kind="sequences",
        version=version,
        licence="CC0",
        description="x",
        files=files,
        unpacked_size=unpacked_size,
    )


def pinned(tmp_path: Path, *urls: str, content: bytes = CONTENT, path: str = "a.fasta", **more) -> DatabaseFile:
    return DatabaseFile(path=path, urls=urls, size=len(content), sha256=sha256(content, tmp_path), **more)


def unpinned(url: str, **more) -> DatabaseFile:
    return DatabaseFile.model_construct(
        path="a.fasta", urls=(url,), size=None, sha256=None, md5=None, unpack="none", strip_components=0, **more
    )


def fetch(wanted: Database, tmp_path: Path, transfer: Transfer = WAYS["ranges"]) -> Manifest:
    return download_database(wanted, tmp_path / "dbs", base=tmp_path, transfer=transfer)


def visible(tmp_path: Path) -> set[str]:
    place = tmp_path / "dbs" / "db"
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    return {name for name in files if not name.startswith(".")}


# Where from


def test_a_local_file_is_put_in_place_with_its_manifest(tmp_path: Path):
    (tmp_path / "source").write_bytes(CONTENT)
    manifest = fetch(database(pinned(tmp_path, "file:source", path="sub/a.fasta")), tmp_path)
    assert visible(tmp_path) == {"sub/a.fasta", "manifest.json"}
    assert (tmp_path / "dbs/db/sub/a.fasta").read_bytes() == CONTENT
    assert read_manifest(tmp_path / "dbs/db/manifest.json") == manifest
    assert manifest.sources["sub/a.fasta"].url == "file:source"
    assert str(tmp_path) not in (tmp_path / "dbs/db/manifest.json").read_text()
    assert verify(tmp_path / "dbs") == []
    assert not (tmp_path / "dbs/db/.partial").exists()


def test_a_file_comes_over_http(tmp_path: Path, server: FileServer, transfer: Transfer):
    server.pace = PACE
    fetch(database(pinned(tmp_path, f"{server.address}/a")), tmp_path, transfer)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT
    assert len(CONTENT) <= server.served <= len(CONTENT) + IN_FLIGHT


def test_a_server_without_ranges_will_do(tmp_path: Path, server: FileServer, transfer: Transfer):
    server.ranges = False
    fetch(database(pinned(tmp_path, f"{server.address}/a")), tmp_path, transfer)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT


def test_an_object_comes_from_s3_without_credentials(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    server.files["/bucket/some/key"] = CONTENT
    server.breaks = [500_000]
    fetch(database(pinned(tmp_path, "s3://bucket/some/key")), tmp_path)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT
    assert set(server.requests) == {"/bucket/some/key"}
    with pytest.raises(SnakefoldError, match=r"s3://bucket/none: .*404"):
        fetch(
            database(pinned(tmp_path, "s3://bucket/none"), version="2").model_copy(update={"name": "other"}), tmp_path
        )


# Breaks


def test_a_broken_connection_goes_on_from_where_it_was(tmp_path: Path, server: FileServer, transfer: Transfer):
    server.pace = PACE
    server.breaks = [300_000, 350_000, 700_000]
    fetch(database(pinned(tmp_path, f"{server.address}/a")), tmp_path, transfer)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT
    assert server.breaks == []
    # What each break loses is on its way then; without going on, 1.35 MB would be served twice.
    assert server.served < len(CONTENT) + 3 * IN_FLIGHT


def test_a_busy_server_is_asked_again(tmp_path: Path, server: FileServer):
    server.refusals = [503, 429]
    fetch(database(pinned(tmp_path, f"{server.address}/a")), tmp_path)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT


def test_a_server_that_stays_broken_is_given_up_and_its_part_is_kept(tmp_path: Path, server: FileServer):
    server.breaks = [1_000_000] + [0] * 1000
    wanted = database(pinned(tmp_path, f"{server.address}/a"))
    with pytest.raises(SnakefoldError, match=r"db: a.fasta: could not be downloaded; http://127.0.0.1"):
        fetch(wanted, tmp_path)
    assert visible(tmp_path) == set()
    server.breaks = []
    before = server.served
    fetch(wanted, tmp_path)
    assert server.served - before < len(CONTENT) - 500_000


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_killed_download_resumes(tmp_path: Path, server: FileServer, way: str):
    server.pace = PACE
    server.hold_after = 1_200_000
    code = f"""
        from pathlib import Path
        from snakefold.databases.download import download_database
        from snakefold.databases.fetch import Transfer
        from snakefold.databases.registry import Database
        wanted = Database.model_validate_json({database(pinned(tmp_path, f"{server.address}/a")).model_dump_json()!r})
        transfer = Transfer(segment={SEGMENT}, aria2c={WAYS[way].aria2c!r})
        download_database(wanted, Path({str(tmp_path / "dbs")!r}), base=Path(), transfer=transfer)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    try:
        assert server.holding.wait(60)
        if way == "aria2c":
            wait_until(lambda: next(tmp_path.rglob("content.aria2"), None) is not None)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # aria2c sees that its parent is gone, writes its journal and ends; the lock is ours already.
    wait_until(lambda: not runs_with(str(tmp_path)))
    assert visible(tmp_path) == set()
    server.hold_after = None
    server.release.set()
    before = server.served
    fetch(database(pinned(tmp_path, f"{server.address}/a")), tmp_path, WAYS[way])
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT
    # Of 1,200,000 bytes served, the segments under way in four connections are lost, and what was on its way.
    assert server.served - before < len(CONTENT) - 1_200_000 + 4 * SEGMENT + 2 * IN_FLIGHT


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def runs_with(word: str) -> bool:
    """Whether a program other than this one has `word` among its arguments."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if word in arguments and int(process.name) != os.getpid():
            return True
    return False


def test_a_file_that_changed_on_the_server_is_not_mixed(tmp_path: Path, server: FileServer, transfer: Transfer):
    other = random.Random(2).randbytes(len(CONTENT))
    wanted = database(unpinned(f"{server.address}/a"))
    server.breaks = [1_000_000] + [0] * 1000
    with pytest.raises(SnakefoldError, match="could not be downloaded"):
        fetch(wanted, tmp_path, transfer)
    server.breaks = []
    server.files["/a"], server.tags["/a"] = other, '"2"'
    manifest = fetch(wanted, tmp_path, transfer)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == other
    assert manifest.sources["a.fasta"].sha256 == sha256(other, tmp_path)


# Mirrors and checksums


def test_mirrors_are_tried_in_order(tmp_path: Path, server: FileServer, transfer: Transfer):
    server.files["/bad"] = bytes(len(CONTENT))
    server.files["/short"] = CONTENT[:-1]
    urls = [f"{server.address}/{name}" for name in ("none", "short", "bad", "a", "later")]
    manifest = fetch(database(pinned(tmp_path, *urls)), tmp_path, transfer)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT
    assert manifest.sources["a.fasta"].url == urls[3]
    assert list(dict.fromkeys(server.requests)) == ["/none", "/short", "/bad", "/a"]


def test_a_wrong_checksum_puts_nothing_in_place(tmp_path: Path, server: FileServer, transfer: Transfer):
    server.files["/a"] = bytes(len(CONTENT))
    good = pinned(tmp_path, "file:source", content=b"good", path="b.fasta")
    (tmp_path / "source").write_bytes(b"good")
    with pytest.raises(SnakefoldError, match=r"has SHA-256 [0-9a-f]{64} instead of"):
        fetch(database(good, pinned(tmp_path, f"{server.address}/a")), tmp_path, transfer)
    assert visible(tmp_path) == set()


def test_md5_is_checked_where_only_that_is_published(tmp_path: Path):
    (tmp_path / "source").write_bytes(b"MKV")
    with pytest.raises(SnakefoldError, match=r"has MD5 [0-9a-f]{32} instead of 0{32}"):
        fetch(database(DatabaseFile(path="a.fasta", urls=("file:source",), md5="0" * 32)), tmp_path)
    right = hashlib.md5(b"MKV").hexdigest()
    fetch(database(DatabaseFile(path="a.fasta", urls=("file:source",), md5=right)), tmp_path)
    assert visible(tmp_path) == {"a.fasta", "manifest.json"}


def test_a_failed_update_leaves_the_old_version(tmp_path: Path):
    (tmp_path / "source").write_bytes(b"old")
    old = fetch(database(pinned(tmp_path, "file:source", content=b"old")), tmp_path)
    with pytest.raises(SnakefoldError, match="could not be downloaded"):
        fetch(database(pinned(tmp_path, "file:source", content=b"new"), version="2"), tmp_path)
    assert read_manifest(tmp_path / "dbs/db/manifest.json") == old
    assert verify(tmp_path / "dbs") == []


def test_what_aria2c_says_is_reported(tmp_path: Path, server: FileServer):
    program = tmp_path / "aria2c"
    program.write_text(
        "#!/bin/sh\necho '11/22 11:00:00 [ERROR] x'\necho '  -> [a.cc:1] errorCode=9 Disk is tired.'\nexit 9\n"
    )
    program.chmod(0o755)
    with pytest.raises(SnakefoldError, match=r"aria2c ended with 9: Disk is tired\."):
        fetch(database(pinned(tmp_path, f"{server.address}/a")), tmp_path, Transfer(aria2c=str(program)))


# Again


def test_a_second_call_does_nothing(tmp_path: Path, server: FileServer):
    wanted = database(pinned(tmp_path, f"{server.address}/a"))
    first = fetch(wanted, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "dbs/db").rglob("*")}
    asked = len(server.requests)
    assert fetch(wanted, tmp_path) == first
    assert len(server.requests) == asked
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "dbs/db").rglob("*")} == times


def test_a_lost_manifest_costs_no_download(tmp_path: Path, server: FileServer):
    wanted = database(unpinned(f"{server.address}/a"))
    first = fetch(wanted, tmp_path)
    (tmp_path / "dbs/db/manifest.json").unlink()
    asked = len(server.requests)
    assert fetch(wanted, tmp_path) == first
    assert len(server.requests) == asked


def test_a_file_that_lies_there_already_is_adopted(tmp_path: Path):
    place = tmp_path / "dbs/db"
    place.mkdir(parents=True)
    (place / "a.fasta").write_bytes(CONTENT)
    fetch(database(pinned(tmp_path, "https://example.invalid/a")), tmp_path)
    assert verify(tmp_path / "dbs") == []


def test_a_damaged_file_is_fetched_again(tmp_path: Path):
    (tmp_path / "source").write_bytes(b"good")
    wanted = database(pinned(tmp_path, "file:source", content=b"good"))
    fetch(wanted, tmp_path)
    for damage in (b"evil", b"long evil"):
        (tmp_path / "dbs/db/a.fasta").write_bytes(damage)
        fetch(wanted, tmp_path)
        assert (tmp_path / "dbs/db/a.fasta").read_bytes() == b"good"


def test_a_new_version_replaces_the_old_one_wholly(tmp_path: Path):
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    one = pinned(tmp_path, "file:one", content=b"1", path="one")
    two = pinned(tmp_path, "file:two", content=b"2", path="two")
    before = fetch(database(one, two), tmp_path)
    after = fetch(database(two, version="2"), tmp_path)
    assert visible(tmp_path) == {"two", "manifest.json"}
    assert before.digest != after.digest
    assert verify(tmp_path / "dbs") == []


def test_an_unpinned_file_is_fetched_anew_for_a_new_version(tmp_path: Path, server: FileServer):
    fetch(database(unpinned(f"{server.address}/a")), tmp_path)
    server.files["/a"], server.tags["/a"] = b"new", '"2"'
    fetch(database(unpinned(f"{server.address}/a"), version="2"), tmp_path)
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == b"new"


@pytest.mark.parametrize("function", ["write_json", "write_manifest"])
def test_a_break_while_files_are_put_in_place_is_mended(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, function: str
):
    (tmp_path / "source").write_bytes(b"old")
    old = pinned(tmp_path, "file:source", content=b"old")
    fetch(database(old), tmp_path)
    real = getattr(downloading, function)

    def break_off(first, second):
        if second == tmp_path / "dbs/db" or Path(str(first)).name == ".placed.json":
            raise KeyboardInterrupt
        real(first, second)

    wanted = database(pinned(tmp_path, f"{server.address}/a"), version="2")
    with monkeypatch.context() as patch:
        patch.setattr(downloading, function, break_off)
        with pytest.raises(KeyboardInterrupt):
            fetch(wanted, tmp_path)
    assert not (tmp_path / "dbs/db/manifest.json").exists()
    asked = len(server.requests)
    fetch(wanted, tmp_path)
    assert len(server.requests) == asked
    assert (tmp_path / "dbs/db/a.fasta").read_bytes() == CONTENT
    assert verify(tmp_path / "dbs") == []


def test_two_at_once_download_once(tmp_path: Path, server: FileServer):
    wanted = database(pinned(tmp_path, f"{server.address}/a"))
    found: list[Manifest] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(wanted, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert server.served <= len(CONTENT) + 10


# Archives, disk, progress


def test_an_archive_is_unpacked_beside_a_plain_file(tmp_path: Path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("files/1abc.cif", "files/2abc.cif"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"cif"))
    (tmp_path / "tar").write_bytes(buffer.getvalue())
    (tmp_path / "gz").write_bytes(gzip.compress(b">1abc_A\nMKV\n"))
    files = (
        DatabaseFile(path="mmcif", urls=("file:tar",), unpack="tar.gz", strip_components=1),
        DatabaseFile(path="seqres.fasta", urls=("file:gz",), unpack="gz"),
    )
    manifest = fetch(database(*files), tmp_path)
    assert set(manifest.files) == {"mmcif/1abc.cif", "mmcif/2abc.cif", "seqres.fasta"}
    assert manifest.sources["mmcif"].sha256 == sha256(buffer.getvalue(), tmp_path)
    assert (tmp_path / "dbs/db/seqres.fasta").read_bytes() == b">1abc_A\nMKV\n"
    assert verify(tmp_path / "dbs") == []
    assert fetch(database(*files), tmp_path) == manifest


def test_a_malicious_archive_puts_nothing_in_place(tmp_path: Path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("../../../evil")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    (tmp_path / "tar").write_bytes(buffer.getvalue())
    with pytest.raises(SnakefoldError, match=r"db: file:tar: .*leads out of its folder"):
        fetch(database(DatabaseFile(path=".", urls=("file:tar",), unpack="tar")), tmp_path)
    assert visible(tmp_path) == set()
    assert not list(tmp_path.rglob("evil"))


def test_too_small_a_disk_is_refused_before_the_download(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 5_000_000, 5_000_000))
    archive = pinned(tmp_path, f"{server.address}/a", unpack="gz")
    with pytest.raises(SnakefoldError, match=r"needs 5\.5 MB in .*dbs, but only 5\.0 MB are free"):
        fetch(database(archive, unpacked_size=3_500_000), tmp_path)
    assert server.served == 0
    unknown = unpinned(f"{server.address}/a")
    server.files["/a"] = bytes(6_000_000)
    with pytest.raises(SnakefoldError, match=r"needs 6\.0 MB"):
        fetch(database(unknown), tmp_path)


def test_progress_without_a_terminal_is_plain_lines(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("snakefold.databases.progress._SECONDS_BETWEEN_LINES", 0)
    with DownloadProgress("db", log=tmp_path / "logs/db.log") as progress:
        wanted = database(pinned(tmp_path, f"{server.address}/a"))
        download_database(wanted, tmp_path / "dbs", base=tmp_path, progress=progress, transfer=WAYS["ranges"])
    lines = (tmp_path / "logs/db.log").read_text().splitlines()
    assert "[db] 2.0 MB of 2.0 MB" in lines
    assert lines[-1] == f"[db] 1 files, 2.0 MB, in {tmp_path / 'dbs/db'}"
    assert capsys.readouterr().err.splitlines() == lines


def test_the_shipped_mini_preset_downloads_and_verifies(tmp_path: Path):
    registry = Path("config/databases.yaml")
    for name in ("mini_swissprot", "mini_proteins", "mini_metagenome", "mini_templates"):
        download(name, registry, tmp_path / "dbs")
    assert verify(tmp_path / "dbs") == []
    assert (tmp_path / "dbs/mini_templates/mmcif/4zhl.cif.gz").is_file()
    assert (tmp_path / "dbs/mini_templates/seqres.fasta.gz").is_file()
