"""Results come home whole, checked, and each only once, whatever breaks on the way."""

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakefold.away.pull import Pulled, pull
from snakefold.away.run import Run, open_run
from snakefold.errors import FaultsError, SnakefoldError
from tests.unit.s3_server import S3Server

FILES = {
    "summary.tsv": b"target\tengine\tstatus\n",
    "outcome.json": b"{}",
    "report/index.html": b"<html>" + b"x" * 100_000,
    "report/data/one.json": b"[1]",
    "one/template/model.cif": b"data_one\n" * 9000,
    "one/template/scores.json": b"{}\n",
    "one/other/status.json": b'{"status": "failed"}',
    "one_more/template/model.cif": b"data_more\n",
}
USUAL = {"summary.tsv", "outcome.json", "report/index.html", "report/data/one.json"}


@pytest.fixture(scope="module")
def running(running: S3Server) -> S3Server:
    running.client.create_bucket(Bucket="bucket")
    return running


@pytest.fixture
def server(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    monkeypatch.chdir(tmp_path)
    fleet = {"region": "us-east-1", "bucket": "bucket", "queues": [{"name": "cpu", "vcpus": 4, "memory_mb": 8000}]}
    (tmp_path / "fleet.yaml").write_text(json.dumps(fleet))
    monkeypatch.setenv("SNAKEFOLD_FLEET", str(tmp_path / "fleet.yaml"))
    monkeypatch.delenv("SNAKEFOLD_RUN", raising=False)
    client = server.client
    for name, content in FILES.items():
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode() if name.startswith("one/") else None
        put(client, name, content, **({"ChecksumSHA256": checksum, "ChecksumAlgorithm": "SHA256"} if checksum else {}))
    put(client, "one/template/.snakemake_timestamp", b"")
    yield server
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for each in page.get("Contents", ()):
            client.delete_object(Bucket="bucket", Key=each["Key"])


def put(client: Any, name: str, content: bytes, **more: Any) -> None:
    client.put_object(Bucket="bucket", Key=f"runs/default/results/{name}", Body=content, **more)


@pytest.fixture
def run(server: S3Server) -> Run:
    return open_run(None)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def some(names: set[str]) -> dict[str, bytes]:
    return {name: FILES[name] for name in names}


def go(run: Run, folder: Path, *targets: str, everything: bool = False) -> Pulled:
    return pull(run, folder, targets, everything=everything, plain=True)


def test_the_report_and_the_summary_come_by_default(run: Run, tmp_path: Path) -> None:
    pulled = go(run, tmp_path / "to")
    assert files_in(tmp_path / "to") == some(USUAL)
    assert (pulled.fetched, pulled.kept, pulled.checked) == (4, 0, {"md5": 4})
    assert pulled.size == sum(len(FILES[name]) for name in USUAL)


def test_targets_come_with_it_and_no_others_of_like_names(run: Run, tmp_path: Path) -> None:
    pulled = go(run, tmp_path / "to", "one/template")
    chosen = {"one/template/model.cif", "one/template/scores.json"}
    assert files_in(tmp_path / "to") == some(USUAL | chosen)
    assert pulled.checked == {"sha256": 2, "md5": 4}
    go(run, tmp_path / "all_of_one", "one")
    assert files_in(tmp_path / "all_of_one") == some(USUAL | chosen | {"one/other/status.json"})


def test_everything_comes_without_the_markers_of_snakemake(run: Run, tmp_path: Path) -> None:
    go(run, tmp_path / "to", everything=True)
    assert files_in(tmp_path / "to") == FILES


def test_unknown_targets_are_all_named_with_what_comes_near(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FaultsError) as error:
        go(run, tmp_path / "to", "onne", "one", "zzz/template")
    first, second = error.value.faults
    assert first == "run default: there are no results of 'onne' (yet); did you mean one?"
    assert "'zzz/template'" in second
    assert not (tmp_path / "to").exists()


def test_what_is_here_is_not_fetched_again_and_what_differs_is(run: Run, server: S3Server, tmp_path: Path) -> None:
    go(run, tmp_path / "to", everything=True)
    (tmp_path / "to/summary.tsv").write_bytes(FILES["summary.tsv"].replace(b"target", b"TARGET"))
    (tmp_path / "to/mine.txt").write_text("mine")
    server.forget()
    pulled = go(run, tmp_path / "to", everything=True)
    assert (pulled.fetched, pulled.kept) == (1, len(FILES) - 1)
    assert files_in(tmp_path / "to") == {**FILES, "mine.txt": b"mine"}
    assert server.count("GET", "results/") == 1
    assert server.count("HEAD") == 1


def test_what_was_cut_off_goes_on_where_it_was(run: Run, server: S3Server, tmp_path: Path) -> None:
    go(run, tmp_path / "to")
    # As a pull that was killed leaves it: part of the file under the name that belongs to its content.
    etag = hashlib.md5(FILES["report/index.html"]).hexdigest()
    page = tmp_path / "to/report/index.html"
    page.unlink()
    part = page.with_name(f".index.html.{hashlib.sha256(etag.encode()).hexdigest()[:12]}.partial")
    part.write_bytes(FILES["report/index.html"][:60_000])
    page.with_name(".index.html.0123456789ab.partial").write_bytes(b"of an earlier version")
    server.forget()
    pulled = go(run, tmp_path / "to")
    assert files_in(tmp_path / "to") == some(USUAL)
    assert pulled.size == len(FILES["report/index.html"]) - 60_000
    # And an answer that there is no record of a launch.
    assert server.served < pulled.size + 1000


def test_a_part_that_was_damaged_here_is_fetched_again(run: Run, tmp_path: Path) -> None:
    etag = hashlib.md5(FILES["summary.tsv"]).hexdigest()
    (tmp_path / "to").mkdir()
    name = f".summary.tsv.{hashlib.sha256(etag.encode()).hexdigest()[:12]}.partial"
    for left in (b"TARGET", b"longer than the file could ever be"):
        (tmp_path / "to" / name).write_bytes(left)
        (tmp_path / "to/summary.tsv").unlink(missing_ok=True)
        go(run, tmp_path / "to")
        assert files_in(tmp_path / "to") == some(USUAL)


def test_a_connection_that_breaks_is_taken_up_again(run: Run, server: S3Server, tmp_path: Path) -> None:
    # The run's record is asked for first.
    server.cuts = [0, 50_000, 20_000, 10_000]
    go(run, tmp_path / "to", everything=True)
    assert files_in(tmp_path / "to") == FILES


def test_what_comes_damaged_is_asked_for_once_more(run: Run, server: S3Server, tmp_path: Path) -> None:
    server.damages = ["results/summary.tsv", "one/template/model.cif"]
    go(run, tmp_path / "to", everything=True)
    assert files_in(tmp_path / "to") == FILES


def test_what_is_damaged_on_s3_is_named_and_never_appears(run: Run, server: S3Server, tmp_path: Path) -> None:
    put(server.client, "summary.tsv", b"other bytes", Metadata={"sha256": hashlib.sha256(b"bytes").hexdigest()})
    with pytest.raises(SnakefoldError, match=r"^s3://bucket/runs/default/results/summary\.tsv: is damaged: "):
        go(run, tmp_path / "to")
    assert "summary.tsv" not in files_in(tmp_path / "to")


def test_a_file_without_a_digest_counts_as_checked_by_size(run: Run, server: S3Server, tmp_path: Path) -> None:
    client = server.client
    place = {"Bucket": "bucket", "Key": "runs/default/results/one/template/model.cif"}
    upload = client.create_multipart_upload(**place)["UploadId"]
    part = client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")
    parts = [{"ETag": part["ETag"], "PartNumber": 1}]
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
    assert go(run, tmp_path / "to", "one/template").checked == {"sha256": 1, "md5": 4, "size": 1}
    assert (tmp_path / "to/one/template/model.cif").read_bytes() == b"part"


def test_a_second_pull_into_a_folder_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    descriptor = os.open(tmp_path / "to", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(SnakefoldError, match="another pull is writing here"):
            go(run, tmp_path / "to")
    finally:
        os.close(descriptor)


def test_a_name_that_leads_out_of_the_folder_is_refused(run: Run, server: S3Server, tmp_path: Path) -> None:
    put(server.client, "one/../../outside", b"x")
    with pytest.raises(SnakefoldError, match="outside of"):
        go(run, tmp_path / "to/deep", "one")
    assert not (tmp_path / "outside").exists()


def test_a_run_that_does_not_exist_is_told_from_one_without_results(server: S3Server, tmp_path: Path) -> None:
    with pytest.raises(
        SnakefoldError, match=r"^run other: there is nothing at .*; there are default: name one by --run"
    ):
        go(open_run("other"), tmp_path / "to")
    server.client.put_object(Bucket="bucket", Key="runs/new/.fleet/ledger.jsonl", Body=b"")
    with pytest.raises(SnakefoldError, match=r"^run new: there are no results yet"):
        go(open_run("new"), tmp_path / "to")


def test_without_credentials_one_line_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SnakefoldError, match=r"^snakefold: No AWS credentials found: [^\n]*$"):
        open_run(None)


def test_expired_credentials_are_told_from_absent_ones(run: Run, server: S3Server, tmp_path: Path) -> None:
    server.refusals = [(400, "ExpiredToken")] * 9
    with pytest.raises(SnakefoldError, match=r"your AWS session has expired; log in again[^\n]*$"):
        go(run, tmp_path / "to")
