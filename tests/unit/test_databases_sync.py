"""What a sync does apart from its job: the choice of a queue, judging what is there, parts of an upload."""

import json
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from snakefold import s3
from snakefold.away.pack import Archive
from snakefold.away.run import open_run
from snakefold.away.submit import submit
from snakefold.away.sync import NEED, RUN, _queue, wanted, watch
from snakefold.databases.manifest import FileRecord, Manifest, SourceRecord, manifest_text
from snakefold.databases.registry import Database
from snakefold.databases.remote import RemoteDatabase
from snakefold.errors import SnakefoldError
from snakefold.s3 import Patience, S3Folder
from tests.conftest import ROOT
from tests.fake_aws import FakeAws

CONTENT = random.Random(3).randbytes(20 << 20)
DIGEST = sha256(CONTENT).hexdigest()
QUEUE = {"vcpus": 96, "memory_mb": 768000, "price_per_hour": 2.0}


@pytest.fixture(scope="module")
def aws() -> Iterator[FakeAws]:
    with FakeAws(slots=None) as fake:
        fake.set_up(bucket="bucket")
        yield fake


@pytest.fixture
def folder(aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> S3Folder:
    monkeypatch.chdir(ROOT)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    aws.reset()
    return S3Folder("s3://bucket/databases", patience=Patience(attempts=1))


# Parts


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of four parts, which go one after the other."""
    monkeypatch.setattr(s3, "_LARGE", 6 << 20)
    monkeypatch.setattr(s3, "_PARTS_AT_ONCE", 1)
    (tmp_path / "large").write_bytes(CONTENT)
    return tmp_path / "large"


def break_off(aws: FakeAws, folder: S3Folder, path: Path, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that ends after two parts."""
    sent = folder._client.upload_part

    def two(**arguments: Any) -> Any:
        if arguments["PartNumber"] > 2:
            raise KeyboardInterrupt
        return sent(**arguments)

    with monkeypatch.context() as patch:
        patch.setattr(folder._client, "upload_part", two)
        with pytest.raises(KeyboardInterrupt):
            folder.upload(path, "large", digest, journal=".journal")
    aws.reset_stats()


def test_an_upload_that_broke_off_sends_the_missing_parts_alone(
    aws: FakeAws, folder: S3Folder, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(aws, folder, large, DIGEST, monkeypatch)
    sent: list[int] = []
    folder.upload(large, "large", DIGEST, journal=".journal", sent=sent.append)
    assert sum(sent) == len(CONTENT)
    assert aws.stats()["s3:UploadPart"] == 2
    assert "s3:CreateMultipartUpload" not in aws.stats()
    content, _ = folder.read("large")
    assert content == CONTENT
    assert folder.digests("large").sha256 == DIGEST
    assert folder.facts(".journal") is None


def test_parts_of_other_content_are_never_put_together(
    aws: FakeAws, folder: S3Folder, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(aws, folder, large, DIGEST, monkeypatch)
    large.write_bytes(CONTENT[::-1])
    other = sha256(CONTENT[::-1]).hexdigest()
    folder.upload(large, "large", other, journal=".journal")
    assert aws.stats()["s3:UploadPart"] == 4
    assert folder.read("large")[0] == CONTENT[::-1]
    assert folder.digests("large").sha256 == other


def test_an_upload_that_somebody_gave_up_begins_again(
    aws: FakeAws, folder: S3Folder, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(aws, folder, large, DIGEST, monkeypatch)
    upload = json.loads(folder.read(".journal")[0])["upload"]
    aws.client("s3").abort_multipart_upload(Bucket="bucket", Key="databases/large", UploadId=upload)
    folder.upload(large, "large", DIGEST, journal=".journal")
    assert folder.read("large")[0] == CONTENT
    folder.write(".journal", b"not ours")
    folder.upload(large, "again", DIGEST, journal=".journal")
    assert folder.read("again")[0] == CONTENT


# What is there


def database(**changes: Any) -> Database:
    file = {"path": "a.fasta", "urls": ["file:a.fasta"], "size": 3, "sha256": sha256(b">a\n").hexdigest()}
    entry = {"name": "db", "kind": "sequences", "version": "1", "licence": "x", "description": "x", "files": [file]}
    return Database.model_validate({**entry, **changes})


def put_database(folder: S3Folder) -> Manifest:
    digest = sha256(b">a\n").hexdigest()
    source = SourceRecord(url="file:a.fasta", size=3, sha256=digest, unpack="none")
    files = {"a.fasta": FileRecord(size=3, sha256=digest)}
    manifest = Manifest(name="db", version="1", kind="sequences", licence="x", sources={"a.fasta": source}, files=files)
    folder.write("db/a.fasta", b">a\n")
    folder.write("db/manifest.json", manifest_text(manifest).encode())
    return manifest


def test_what_a_bucket_holds_is_judged_without_writing(aws: FakeAws, folder: S3Folder) -> None:
    remote = RemoteDatabase(folder, "db")
    assert "not there" in str(remote.holding(database()).reason)
    manifest = put_database(folder)
    holding = remote.holding(database())
    assert (holding.manifest, holding.reason) == (manifest, None)
    # Another label alone is no reason, and is not written by who only looks.
    assert remote.holding(database(version="2")).manifest == manifest
    folder.write("db/a.fasta", b">b\n")
    holding = remote.holding(database())
    assert (holding.reason, holding.touched) == (None, ("a.fasta",))
    assert remote.altered(manifest, holding.touched) == ["a.fasta"]
    folder.write("db/a.fasta", b"longer")
    assert "of another size, such as a.fasta" in str(remote.holding(database()).reason)
    folder.write("db/manifest.json", b"{")
    assert "damaged" in str(remote.holding(database()).reason)


# Which queue


def queue_for(folder: S3Folder, tmp_path: Path, size: int, *queues: dict[str, Any], forced: str | None = None) -> Any:
    fleet = {"region": "eu-west-1", "bucket": "bucket", "queues": [{**QUEUE, **queue} for queue in queues]}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNAKEFOLD_FLEET", str(tmp_path / "fleet.yaml"))
        run = open_run(RUN)
    said: list[str] = []
    big = database(files=[{"path": "a", "urls": ["https://x/a.zst"], "unpack": "zst"}], unpacked_size=size)
    return _queue(run, [big], forced, said.append).name, said


def test_the_queue_has_room_for_the_download_and_what_it_unpacks_to(folder: S3Folder, tmp_path: Path) -> None:
    small = {"name": "small", "purchase": "on_demand", "disk_mb": 100_000}
    nvme = {"name": "nvme", "purchase": "on_demand", "disk_mb": 3_000_000, "price_per_hour": 9.0}
    spot = {"name": "spot", "purchase": "spot", "disk_mb": 3_000_000}
    unknown = {"name": "unknown", "purchase": "on_demand"}
    assert queue_for(folder, tmp_path, 10**9, small, nvme, spot) == ("small", [])
    # 200 GB and as much again; on demand, though Spot is cheaper; known rather than unknown.
    assert queue_for(folder, tmp_path, 2 * 10**11, small, nvme, spot, unknown) == ("nvme", [])
    name, (said,) = queue_for(folder, tmp_path, 2 * 10**11, small, unknown)
    assert (name, "disk_mb" in said, "400.0 GB" in said) == ("unknown", True, True)
    with pytest.raises(SnakefoldError, match=r"no queue has the 400.0 GB .* most is 100.0 GB"):
        queue_for(folder, tmp_path, 2 * 10**11, small)
    assert queue_for(folder, tmp_path, 10**9, small, nvme, forced="nvme")[0] == "nvme"
    with pytest.raises(SnakefoldError, match="has no such queue; there are small"):
        queue_for(folder, tmp_path, 10**9, small, forced="none")


def test_names_and_presets_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    prefix = "s3://bucket/runs/x"
    chosen = wanted([], None, [], prefix)
    assert chosen.names == ["mini_swissprot", "mini_proteins", "mini_metagenome", "mini_templates"]
    assert chosen.config.databases.folder == "s3://bucket/.snakefold/databases"
    with_weights = wanted([], None, ["engines=[template,esmfold]"], prefix)
    assert with_weights.names == [*chosen.names, "esmfold_v1"]
    assert wanted([], None, ["engines=[omegafold]"], prefix).names == ["omegafold_release"]
    assert wanted([], "reduced", [], prefix).names == ["uniref90_2022_05", "small_bfd", "pdb_2022_09_28"]
    assert wanted(["small_bfd", "small_bfd"], None, [], prefix).names == ["small_bfd"]
    with pytest.raises(SnakefoldError, match="there is no database 'bfd'"):
        wanted(["bfd"], None, [], prefix)
    with pytest.raises(SnakefoldError, match="there is no preset 'huge'"):
        wanted([], "huge", [], prefix)


# Watching


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "start", "reason": "CannotStartContainerError: no such mount"}, "no such mount"),
        ({"kind": "exit", "exit_code": 3}, "Essential container in task exited"),
    ],
)
def test_a_job_that_fails_says_why_and_what_to_do(
    aws: FakeAws, folder: S3Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("snakefold.away.sync._SECONDS_BETWEEN_LOOKS", 0.1)
    fleet = {"region": "eu-west-1", "bucket": "bucket", "queues": [{**QUEUE, "name": "cpu"}]}
    fleet["images"] = {"worker": "worker:latest"}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    monkeypatch.setenv("SNAKEFOLD_FLEET", str(tmp_path / "fleet.yaml"))
    run = open_run(RUN)
    aws.faults([fault])
    archive = Archive(sha256="0" * 64, size=1, files=1)
    job = submit(run, run.fleet.queues[0], NEED, archive, ["snakefold"], rule="sync_databases", role=None)
    with pytest.raises(SnakefoldError, match=rf"job {job} failed \(.*{said}.*\); what it has brought is kept"):
        watch(run, job, lambda line: None)
