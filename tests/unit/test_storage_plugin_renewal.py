"""Credentials that run out while the storage plugin is at work."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from snakemake_storage_plugin_s3_inventory import StorageProviderSettings
from snakemake_storage_plugin_s3_inventory.client import S3
from snakemake_storage_plugin_s3_inventory.errors import CredentialsError
from snakemake_storage_plugin_s3_inventory.renewal import Renewal, comes_from_environment
from tests.unit.storage_server import EXPIRED, Server, running

EXPIRED_ANSWER = ("400 Bad Request", EXPIRED)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """S3 with an empty bucket, and nothing of this machine's AWS configuration."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=s3_server.url, **keys).create_bucket(Bucket="bucket")
    s3_server.faults.clear()
    s3_server.always.clear()
    s3_server.take()
    return s3_server


class Notes:
    """A plugin's S3 with keys from a file, on a clock of the test's; what it warned of."""

    def __init__(self, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, grace: float = 600.0) -> None:
        self.warned: list[str] = []
        self.now = 0.0
        self.keys = folder / "credentials"
        self.keys.write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = x\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(self.keys))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        self.renewal = Renewal(warn=self.warned.append, grace=lambda: grace, clock=lambda: self.now)
        settings = StorageProviderSettings(endpoint_url=server.url, retries=1, region="us-east-1")
        self.s3 = S3(settings, in_a_hurry=lambda: False, renewal=self.renewal)


@pytest.fixture
def notes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    for name in ("FIRST_WAIT", "LONGEST_WAIT"):
        monkeypatch.setattr(f"snakemake_storage_plugin_s3_inventory.renewal.{name}", 0.01)
    return Notes(server, tmp_path, monkeypatch)


def test_credentials_that_are_expired_at_the_start_are_an_error_at_once(server: Server, notes: Notes) -> None:
    server.always["ListObjectsV2"] = EXPIRED_ANSWER
    with pytest.raises(CredentialsError, match="have expired"):
        notes.s3.page("bucket", "", 10)
    assert server.calls["ListObjectsV2"] == 1 and not notes.warned


def test_a_call_is_made_again_with_what_the_file_says_now(server: Server, notes: Notes) -> None:
    notes.s3.page("bucket", "", 10)
    old = notes.s3._client()
    server.faults += [("PutObject", *EXPIRED_ANSWER)] * 3
    notes.keys.write_text("[default]\naws_access_key_id = NEW\naws_secret_access_key = x\n")

    async def write() -> None:
        notes.s3.write_bytes(b"x", "bucket", "key")

    asyncio.run(notes.renewal.patiently(write))
    assert server.calls["PutObject"] == 4
    assert notes.s3._client() is not old
    assert notes.s3._session.get_credentials().access_key == "NEW"
    first, second = notes.warned
    assert "have expired (ExpiredToken). Renew them" in first and "waits for 10 minutes" in first
    assert second == "S3: the new credentials work."


def test_patience_ends(server: Server, notes: Notes) -> None:
    notes.s3.page("bucket", "", 10)
    server.always["ListObjectsV2"] = EXPIRED_ANSWER

    async def ask() -> None:
        try:
            notes.s3.page("bucket", "", 10)
        finally:
            notes.now += 350.0

    with pytest.raises(CredentialsError, match=r"have expired .*none came for 12 minutes"):
        asyncio.run(notes.renewal.patiently(ask))
    assert server.calls["ListObjectsV2"] == 4 and len(notes.warned) == 1


def test_keys_of_the_environment_are_not_waited_for(
    server: Server,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OLD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    notes.s3.page("bucket", "", 10)
    server.always["ListObjectsV2"] = EXPIRED_ANSWER
    with pytest.raises(CredentialsError, match="never reads again"):
        notes.s3.page("bucket", "", 10)
    assert not notes.warned


def test_a_session_that_cannot_read_its_credentials_is_asked_again() -> None:
    def fail() -> None:
        raise OSError

    assert not comes_from_environment(SimpleNamespace(get_credentials=fail))
    assert not comes_from_environment(None)
