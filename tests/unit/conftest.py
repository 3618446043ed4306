"""Servers that several modules of tests share."""

from collections.abc import Iterator

import pytest

from tests.unit.s3_server import S3Server


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    """An S3 server for all tests of a module."""
    with S3Server().running() as server:
        yield server


@pytest.fixture
def server(running: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The module's S3 server for one test: nothing goes wrong yet, and boto3 finds it."""
    running.forget()
    running.environment(monkeypatch)
    yield running
    running.release.set()
