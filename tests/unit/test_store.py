"""The store must never give back anything but what was put in, whoever writes and whenever a writer dies.

The same holds for a directory and for a prefix of S3: most tests run on both.
"""

import base64
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from snakefold.errors import SnakefoldError
from snakefold.outcome import Outcome
from snakefold.s3 import Patience, S3Error
from snakefold.store import DAY, Action, LocalStore, Record, S3Store, Store, StoreError, open_store
from tests.unit.s3_server import S3Server
from tests.unit.store_helpers import ACTION, put, write_and_read

_NUMBERS = itertools.count()


class LocalPlace:
    """A store in a directory, and what a test does to it behind its back."""

    def __init__(self, root: Path) -> None:
        self.location = str(root)
        self.store: Store = LocalStore(root)
        self.root = root

    def overwrite(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.chmod(0o644)
        path.write_bytes(content)

    def names(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}

    def age(self, days: float) -> None:
        moment = time.time() - days * DAY
        for path in self.root.rglob("*"):
            os.utime(path, (moment, moment))


class S3Place:
    """A store in a bucket of its own."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.bucket = f"bucket-{next(_NUMBERS)}"
        self.client = server.client
        self.client.create_bucket(Bucket=self.bucket)
        self.location = f"s3://{self.bucket}/lab/store"
        self.store: Store = S3Store(self.location, patience=Patience(wait=0.01))

    def overwrite(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"lab/store/{name}", Body=content)

    def names(self) -> set[str]:
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {each["Key"].removeprefix("lab/store/") for each in listed}

    def age(self, days: float) -> None:
        self.server.age(self.bucket, days)


Place = LocalPlace | S3Place


@pytest.fixture(params=["directory", "S3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        return LocalPlace(tmp_path / "store")
    return S3Place(request.getfixturevalue("server"))


@pytest.fixture
def s3(server: S3Server) -> S3Place:
    return S3Place(server)


def blob(record: Record) -> str:
    digest = record.files["model.cif"]
    return f"blobs/{digest[:2]}/{digest}"


def record_name(action: Action = ACTION) -> str:
    return f"actions/{action.key[:2]}/{action.key}.json"


def test_a_committed_result_is_found_and_fetched(place: Place, tmp_path: Path) -> None:
    store = place.store
    record = put(store, tmp_path / "work")
    assert store.lookup(ACTION.key) == record
    assert open_store(place.location).lookup(ACTION.key) == record
    store.fetch(record.files["model.cif"], tmp_path / "out" / "model.cif")
    assert (tmp_path / "out" / "model.cif").read_text() == "ATOM"
    assert place.names() == {blob(record), record_name()}


def test_nothing_is_found_for_another_action(place: Place, tmp_path: Path) -> None:
    store = place.store
    put(store, tmp_path / "work")
    assert store.lookup(replace(ACTION, seed=1).key) is None
    assert store.lookup(replace(ACTION, version="2").key) is None
    assert store.lookup(replace(ACTION, parameters={"keep_tails": True}).key) is None
    assert store.lookup(replace(ACTION, databases={"mini": "1" * 64}).key) is None


def test_many_are_looked_up_at_once(place: Place, tmp_path: Path) -> None:
    store = place.store
    actions = [replace(ACTION, seed=seed) for seed in range(40)]
    records = {each.key: put(store, tmp_path / "work", f"text {each.seed}", each) for each in actions[:3]}
    missing = put(store, tmp_path / "work", "gone", actions[3])
    place.overwrite(blob(missing), b"GONE")
    with pytest.raises(StoreError):
        store.fetch(missing.files["model.cif"], tmp_path / "out")
    assert store.lookup_many([each.key for each in actions]) == records
    assert store.lookup_many([]) == {}


def test_a_result_without_files_is_a_result(place: Place, tmp_path: Path) -> None:
    record = Record(
        step="fold",
        outcome=Outcome(status="skipped", kind="no_template", reason="none"),
        files={},
        seconds=1,
        peak_memory_mb=1,
        hardware="x86_64",
    )
    place.store.commit(ACTION.key, record, tmp_path)
    assert place.store.lookup(ACTION.key) == record


def test_the_key_does_not_depend_on_the_order_of_names() -> None:
    first = replace(ACTION, parameters={"a": 1, "b": 2})
    second = replace(ACTION, parameters={"b": 2, "a": 1})
    assert first.key == second.key


def test_a_damaged_blob_is_refused_removed_and_then_missing(place: Place, tmp_path: Path) -> None:
    store = place.store
    record = put(store, tmp_path / "work")
    place.overwrite(blob(record), b"ATOX")
    with pytest.raises(StoreError, match="damaged"):
        store.fetch(record.files["model.cif"], tmp_path / "model.cif")
    assert not (tmp_path / "model.cif").exists()
    assert store.lookup(ACTION.key) is None
    with pytest.raises(StoreError, match="gone"):
        store.fetch(record.files["model.cif"], tmp_path / "model.cif")
    assert put(store, tmp_path / "work") == record
    store.fetch(record.files["model.cif"], tmp_path / "model.cif")


@pytest.mark.parametrize("torn", [b'{"files": {"mo', b"[]", b'{"files": 3}', b"\xff", b""])
def test_a_torn_record_counts_as_absent(place: Place, tmp_path: Path, torn: bytes) -> None:
    store = place.store
    put(store, tmp_path / "work")
    place.overwrite(record_name(), torn)
    assert store.lookup(ACTION.key) is None
    assert store.statistics().records == {"unreadable": 1}
    put(store, tmp_path / "work")
    assert store.lookup(ACTION.key) is not None


def test_verify_names_and_removes_what_is_damaged(place: Place, tmp_path: Path) -> None:
    store = place.store
    record = put(store, tmp_path / "one")
    put(store, tmp_path / "two", "OTHER", replace(ACTION, seed=1))
    assert store.verify() == []
    place.overwrite(blob(record), b"ATOX")
    torn = replace(ACTION, seed=2)
    put(store, tmp_path / "two", "OTHER", torn)
    place.overwrite(record_name(torn), b"{")
    faults = store.verify()
    assert len(faults) == 3
    assert "damaged" in faults[0]
    assert sorted("model.cif missing" in fault for fault in faults[1:]) == [False, True]
    assert sorted("unreadable" in fault for fault in faults[1:]) == [False, True]
    assert store.verify() == []
    assert store.lookup(replace(ACTION, seed=1).key) is not None
    assert len(place.names()) == 2


def test_garbage_collection_keeps_what_is_used_and_what_is_young(place: Place, tmp_path: Path) -> None:
    store = place.store
    old = put(store, tmp_path / "old", "old")
    used = put(store, tmp_path / "used", "used", replace(ACTION, seed=1))
    both = put(store, tmp_path / "both", "both", replace(ACTION, seed=3))
    place.age(40)
    assert store.lookup(replace(ACTION, seed=1).key) == used  # a look-up is a use
    young = put(store, tmp_path / "young", "young", replace(ACTION, seed=2))
    again = replace(ACTION, seed=4)
    put(store, tmp_path / "both", "both", again)  # an old blob, of which a new record speaks
    assert store.collect_garbage(30) == (2, 3)
    assert blob(old) not in place.names()
    assert {blob(used), blob(young), blob(both)} <= place.names()
    assert store.lookup(ACTION.key) is None
    assert store.lookup(again.key) is not None


def test_a_blob_whose_record_is_on_its_way_is_not_collected(place: Place, tmp_path: Path) -> None:
    store = place.store
    record = put(store, tmp_path / "work")
    place.age(40)
    # Another writer has put its blobs, which were there already, and not yet its record.
    store._put(tmp_path / "work" / "model.cif", record.files["model.cif"])  # type: ignore[attr-defined]
    assert store.collect_garbage(30) == (1, 0)
    assert place.names() == {blob(record)}


def test_statistics_count_records_blobs_and_bytes(place: Place, tmp_path: Path) -> None:
    store = place.store
    put(store, tmp_path / "one", "same")
    put(store, tmp_path / "two", "same", replace(ACTION, step="relax"))
    statistics = store.statistics()
    assert statistics.records == {"fold": 1, "relax": 1}
    assert (statistics.blobs, statistics.size) == (1, 4)


@pytest.mark.parametrize("location", ["gs://bucket/prefix", "s3://", "s3:/bucket/x", "s3://Bucket/x", "s3:///x"])
def test_a_store_elsewhere_is_refused_in_one_line(location: str) -> None:
    with pytest.raises(SnakefoldError, match=r"name a folder or s3://|write s3://BUCKET/PREFIX") as caught:
        open_store(location)
    assert "\n" not in str(caught.value)


def test_many_writers_of_the_same_results_do_not_disturb_each_other(place: Place, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    number, rounds = (4, 30) if isinstance(place, LocalPlace) else (3, 8)
    writers = [
        context.Process(target=write_and_read, args=(place.location, tmp_path, each, rounds)) for each in range(number)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * number
    assert place.store.verify() == []
    assert place.store.statistics().blobs == rounds


def test_a_partial_file_of_a_killed_writer_is_never_seen_and_is_collected(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record = put(store, tmp_path / "work")
    leftover = (store.root / blob(record)).with_name(".abc.xyz.partial")
    leftover.write_text("half")
    long_ago = time.time() - 2 * DAY
    os.utime(leftover, (long_ago, long_ago))
    assert store.verify() == []
    assert store.statistics().blobs == 1
    store.collect_garbage(30)
    assert not leftover.exists()
    assert store.lookup(ACTION.key) == record


# On S3


def test_opening_a_store_asks_nothing_and_loads_no_client() -> None:
    code = "import sys, snakefold.store as s; s.open_store('s3://bucket/x'); sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_writer_killed_before_its_record_leaves_no_result(s3: S3Place, tmp_path: Path) -> None:
    s3.server.hold_writes = True
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=write_and_read, args=(s3.location, tmp_path, 0, 1))
    writer.start()
    try:
        assert s3.server.holding.wait(60)
    finally:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    s3.server.hold_writes = False
    s3.server.release.set()
    action = replace(ACTION, seed=0)
    assert s3.store.lookup(action.key) is None
    put(s3.store, tmp_path / "again", "content 0", action)
    assert s3.store.lookup(action.key) is not None
    assert s3.store.verify() == []


def test_a_look_up_costs_one_get_and_a_head_for_each_distinct_file(s3: S3Place, tmp_path: Path) -> None:
    actions = [replace(ACTION, seed=seed) for seed in range(5)]
    for each in actions:
        put(s3.store, tmp_path / "work", "the same", each)
    s3.server.forget()
    assert len(s3.store.lookup_many([each.key for each in actions])) == 5
    assert (s3.server.count("GET"), s3.server.count("HEAD"), len(s3.server.requests)) == (5, 1, 6)


def test_what_is_there_is_not_uploaded_again_unless_its_size_is_wrong(s3: S3Place, tmp_path: Path) -> None:
    record = put(s3.store, tmp_path / "work")
    s3.server.forget()
    put(s3.store, tmp_path / "work", action=replace(ACTION, seed=1))
    assert (s3.server.count("HEAD", "/blobs/"), s3.server.count("PUT", "/blobs/")) == (1, 0)
    s3.overwrite(blob(record), b"ATO")
    put(s3.store, tmp_path / "work")
    s3.store.fetch(record.files["model.cif"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "ATOM"


def test_s3_is_told_the_digest_of_what_it_gets(s3: S3Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As snakemake_storage_plugin_s3 sets it for the whole process.
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    put(s3.store, tmp_path / "work")
    checksums = [
        headers.get("x-amz-checksum-sha256")
        for line, headers in zip(s3.server.requests, s3.server.headers, strict=True)
        if line.startswith("PUT") and "/blobs/" in line
    ]
    assert checksums == [base64.b64encode(hashlib.sha256(b"ATOM").digest()).decode()]


def test_large_files_travel_in_parts(s3: S3Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 5 MiB is the smallest part that S3 takes.
    monkeypatch.setattr("snakefold.s3._LARGE", 5 << 20)
    text = "0123456789abcdef" * (11 << 16)
    record = put(s3.store, tmp_path / "work", text)
    assert s3.server.count("PUT", "/blobs/") == 3
    s3.server.forget()
    s3.server.cuts = [0, 6_000_000, 3_000_000]  # the first is the question how large it is
    s3.store.fetch(record.files["model.cif"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == text
    assert s3.server.count("GET", "/blobs/") >= 4
    assert s3.store.verify() == []


def test_a_cut_connection_goes_on_from_where_it_was(s3: S3Place, tmp_path: Path) -> None:
    text = "0123456789abcdef" * 250_000
    record = put(s3.store, tmp_path / "work", text)
    s3.server.forget()
    s3.server.cuts = [1_500_000, 1_000_000]
    s3.store.fetch(record.files["model.cif"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == text
    assert s3.server.count("GET") == 3
    assert s3.server.served < len(text) + 2 * (1 << 20) + 100_000


def test_a_record_that_is_cut_short_is_read_again(s3: S3Place, tmp_path: Path) -> None:
    put(s3.store, tmp_path / "work")
    s3.server.cuts = [10, 20]
    assert s3.store.lookup(ACTION.key) is not None


def test_what_was_damaged_on_its_way_is_read_again_and_nothing_is_removed(s3: S3Place, tmp_path: Path) -> None:
    record = put(s3.store, tmp_path / "work")
    s3.server.damages = ["/blobs/", "/actions/"]
    assert s3.store.lookup(ACTION.key) == record
    s3.store.fetch(record.files["model.cif"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "ATOM"
    assert s3.server.damages == []
    s3.server.damages = ["/blobs/"]
    assert s3.store.verify() == []
    assert s3.server.damages == []
    assert s3.store.lookup(ACTION.key) == record


def test_a_busy_s3_is_asked_again(s3: S3Place, tmp_path: Path) -> None:
    s3.server.refusals = [(503, "SlowDown"), (500, "InternalError"), (503, "SlowDown")]
    record = put(s3.store, tmp_path / "work")
    s3.server.refusals = [(503, "SlowDown"), (503, "SlowDown")]
    assert s3.store.lookup(ACTION.key) == record
    assert s3.server.refusals == []


def test_an_s3_that_stays_busy_is_given_up_and_never_taken_for_an_empty_one(s3: S3Place, tmp_path: Path) -> None:
    put(s3.store, tmp_path / "work")
    for call in (
        lambda: s3.store.lookup(ACTION.key),
        lambda: s3.store.collect_garbage(0),
        lambda: put(s3.store, tmp_path / "work"),
    ):
        s3.server.refusals = [(503, "SlowDown")] * 500
        with pytest.raises(S3Error, match=r"^s3://bucket-\d+/lab/store.*: S3 is busy and stayed so .*; run again"):
            call()
    s3.server.refusals = []
    assert s3.store.lookup(ACTION.key) is not None


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "ExpiredToken", "your AWS session has expired; log in again"),
        (403, "AccessDenied", "access denied; let this user or role"),
        (403, "InvalidAccessKeyId", "AWS does not know these credentials"),
        (403, "SignatureDoesNotMatch", "AWS does not know these credentials"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    s3: S3Place, tmp_path: Path, status: int, code: str, expected: str
) -> None:
    for call in (
        lambda: s3.store.lookup(ACTION.key),
        lambda: s3.store.fetch("0" * 64, tmp_path / "out"),
        lambda: s3.store.statistics(),
    ):
        s3.server.refusals = [(status, code)] * 50
        with pytest.raises(S3Error) as caught:
            call()
        assert str(caught.value).startswith(f"s3://{s3.bucket}/lab/store")
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(s3.server.refusals) >= 49  # asking again would be useless


def test_without_credentials_the_error_says_so(s3: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(S3Error, match=r"^s3://bucket-\d+/lab/store/actions/.*no AWS credentials were found; log in"):
        open_store(s3.location).lookup(ACTION.key)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(S3Error, match=r"nobody.*; correct AWS_PROFILE"):
        open_store(s3.location).lookup(ACTION.key)


def test_a_bucket_that_is_not_there_is_named_and_not_made(s3: S3Place, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/store")
    with pytest.raises(S3Error, match="there is no bucket 'no-such-bucket'; correct its name"):
        store.lookup(ACTION.key)
    with pytest.raises(S3Error, match="there is no bucket 'no-such-bucket'"):
        put(store, tmp_path / "work")
    with pytest.raises(S3Error, match="there is no bucket 'no-such-bucket'"):
        store.collect_garbage(0)
    assert "no-such-bucket" not in [each["Name"] for each in s3.client.list_buckets()["Buckets"]]


def test_an_s3_out_of_reach_is_one_line(s3: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = S3Store(s3.location, patience=Patience(attempts=1))
    with pytest.raises(S3Error, match=r"the connection failed and stayed so .*; look at the network") as caught:
        store.lookup(ACTION.key)
    assert "\n" not in str(caught.value)


def test_a_reader_without_the_right_to_write_finds_results(s3: S3Place, tmp_path: Path) -> None:
    record = put(s3.store, tmp_path / "work")
    s3.age(3)
    s3.server.forget()
    assert s3.store.lookup(ACTION.key) == record
    renewals = s3.server.count("PUT")
    assert renewals == 1
    s3.age(3)
    client = s3.store.folder._client  # type: ignore[attr-defined]
    client.meta.events.register("before-send.s3.CopyObject", _deny)
    assert s3.store.lookup(ACTION.key) == record


def _deny(**_: object) -> object:
    from botocore.awsrequest import AWSResponse

    class Raw:
        def stream(self, **_: object) -> Iterator[bytes]:
            yield b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"

    return AWSResponse("http://x", 403, {}, Raw())


def test_foreign_objects_below_the_prefix_are_left_alone(s3: S3Place, tmp_path: Path) -> None:
    put(s3.store, tmp_path / "work")
    for name in ("blobs/readme.txt", "actions/x.json", "notes", "blobs/00/short"):
        s3.overwrite(name, b"mine")
    s3.client.put_object(Bucket=s3.bucket, Key="lab/store2/blobs/00/" + "0" * 64, Body=b"another store")
    s3.age(400)
    assert s3.store.verify() == []
    assert s3.store.collect_garbage(1) == (1, 4)
    left = {each["Key"] for each in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]}
    assert len(left) == 5


def test_what_needs_several_listings_and_deletions_is_collected(
    s3: S3Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakefold.s3._AT_ONCE", 10)
    record = put(s3.store, tmp_path / "work")
    for number in range(25):
        s3.overwrite(f"blobs/{number:02x}/{number:064x}", b"x")
    s3.age(40)
    assert s3.store.lookup(ACTION.key) == record
    s3.server.forget()
    assert s3.store.collect_garbage(30) == (0, 25)
    assert s3.server.count("POST") == 3
    assert s3.names() == {record_name(), blob(record)}


def test_a_refused_deletion_is_an_error(s3: S3Place, tmp_path: Path) -> None:
    put(s3.store, tmp_path / "work")
    s3.age(40)
    denied = {"Errors": [{"Key": "k", "Code": "AccessDenied", "Message": "no"}]}
    client = s3.store.folder._client  # type: ignore[attr-defined]
    client.meta.events.register("after-call.s3.DeleteObjects", lambda parsed, **_: parsed.update(denied))
    with pytest.raises(S3Error, match="cannot be deleted: access denied"):
        s3.store.collect_garbage(30)


def test_unfinished_uploads_in_parts_are_given_up_after_a_while(s3: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.client.create_multipart_upload(Bucket=s3.bucket, Key="lab/store/blobs/00/" + "0" * 64)
    s3.client.create_multipart_upload(Bucket=s3.bucket, Key="elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr("snakefold.store.s3.GRACE_DAYS", 100_000)  # all that moto knows began in 2010
        s3.store.collect_garbage(30)
    before = s3.client.list_multipart_uploads(Bucket=s3.bucket)["Uploads"]
    s3.store.collect_garbage(30)
    left = s3.client.list_multipart_uploads(Bucket=s3.bucket)["Uploads"]
    assert (len(before), [each["Key"] for each in left]) == (2, ["elsewhere"])


def test_a_record_holds_plain_json(s3: S3Place, tmp_path: Path) -> None:
    record = put(s3.store, tmp_path / "work")
    body = s3.client.get_object(Bucket=s3.bucket, Key=f"lab/store/{record_name()}")["Body"].read()
    assert json.loads(body) == json.loads(json.dumps(asdict(record)))
