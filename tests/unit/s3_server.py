"""S3 on a free port of this machine: moto's server behind a proxy that can refuse, cut, damage and hold what passes."""

import http.client
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.loaders import JSONFileLoader
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

_BLOCK = 16_384
_ACCOUNT = "123456789012"


_load = JSONFileLoader.load_file


@cache
def _load_file(path: str) -> Any:
    return _load(JSONFileLoader(), path)


def _load_once(_: JSONFileLoader, file_path: str) -> Any:
    return _load_file(file_path)


class S3Server:
    """A server with buckets; tests say what shall go wrong. Requests are kept as `GET /bucket/key`, without query."""

    def __init__(self) -> None:
        self.forget()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body are written one after the other: without this each answer waits 40 ms for the kernel.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                server._pass_on(self)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the base class names them so

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]

        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._http = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._behind = ("127.0.0.1", 0)

    def forget(self) -> None:
        """Nothing goes wrong any more, and nothing has been asked."""
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.refusals: list[tuple[int, str]] = []
        """Status and error code to answer with instead, one for each request."""
        self.cuts: list[int] = []
        """After how many bytes of an answer's body to cut the connection, one for each GET of an object."""
        self.damages: list[str] = []
        """Bodies of objects to change on their way, once for each entry: a part of the path."""
        self.hold_after: int | None = None
        """From this many bytes of bodies of objects on, answers stand still until `release` is set."""
        self.hold_writes = False
        """Whether a PUT stands still, before it is passed on, until `release` is set."""
        self.holding = threading.Event()
        self.release = threading.Event()
        self.served = 0
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator["S3Server"]:
        self._moto.start()
        self._behind = self._moto.get_host_and_port()
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()
            self._moto.stop()

    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Credentials and endpoint for boto3 in this process and its children."""
        for name in list(os.environ):
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        # Each client of a test would parse the same description of S3, 1 MB of JSON, again.
        monkeypatch.setattr(JSONFileLoader, "load_file", _load_once)
        # botocore waits up to 20 s between its own retries.
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)

    @cached_property
    def client(self) -> Any:
        """A client that goes to moto directly."""
        host, port = self._behind
        return boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def count(self, method: str, part: str = "") -> int:
        """How many requests there were of a method and with `part` in the path."""
        return sum(line.startswith(f"{method} ") and part in line for line in self.requests)

    def age(self, bucket: str, days: float) -> None:
        """Let all objects of a bucket be older."""
        for key in s3_backends[_ACCOUNT]["aws"].buckets[bucket].keys.values():
            key.last_modified = datetime.now(UTC) - timedelta(days=days)

    def _pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = request.path.split("?")[0]
        of_object = request.command == "GET" and path.count("/") > 1 and "uploads" not in request.path
        with self._lock:
            self.requests.append(f"{request.command} {path}")
            self.headers.append(dict(request.headers.items()))
            refusal = self.refusals.pop(0) if self.refusals else None
            cut = self.cuts.pop(0) if self.cuts and of_object and not refusal else None
            damage = next((part for part in self.damages if of_object and not refusal and part in path), None)
            if damage:
                self.damages.remove(damage)
        if refusal:
            self._refuse(request, *refusal)
            return
        if request.command == "PUT" and self.hold_writes:
            self.holding.set()
            self.release.wait()
        connection = http.client.HTTPConnection(*self._behind, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
            connection.request(request.command, request.path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                request.send_header(name, value)
        request.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        request.end_headers()
        if damage:
            content = bytes([content[0] ^ 1]) + content[1:]
        self._send(request, content, cut, of_object)

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        text = "" if request.command == "HEAD" else f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        request.send_response(status)
        request.send_header("Content-Type", "application/xml")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())

    def _send(self, request: BaseHTTPRequestHandler, content: bytes, cut: int | None, of_object: bool) -> None:
        if request.command == "HEAD":
            return
        for start in range(0, len(content), _BLOCK):
            if of_object and self.hold_after is not None and self.served >= self.hold_after:
                self.holding.set()
                self.release.wait()
            block = content[start : start + _BLOCK]
            if cut is not None and start + len(block) > cut:
                request.wfile.write(block[: cut - start])
                request.close_connection = True
                return
            request.wfile.write(block)
            with self._lock:
                self.served += len(block) * of_object


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Poll until a condition holds; fails at the deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
