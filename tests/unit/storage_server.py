"""moto's S3 on a free port, which counts calls by kind and can be told to fail them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@dataclass
class Server:
    """A running server: where it is, what it was asked, and what it is to refuse."""

    url: str
    application: Any
    delay: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, str, bytes]] = field(default_factory=list)
    """(kind, status line, body) to answer the next call of that kind with; status "cut": half of the true answer."""
    always: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """By kind: what to answer to every call."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        kind = kind_of(environ)
        self.calls[kind] += 1
        if self.delay:
            time.sleep(self.delay)
        fault = next((fault for fault in self.faults if fault[0] == kind), None)
        if fault is not None:
            self.faults.remove(fault)
            if fault[1] == "cut":
                return _cut(self.application(environ, start_response))
        answer = self.always.get(kind) or (fault[1:] if fault else None)
        if answer is not None:
            # A body that nobody reads would be taken for the next call on this connection.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(answer[0], [("Content-Length", str(len(answer[1]))), ("Connection", "close")])
            return [answer[1]]
        return self.application(environ, start_response)

    def take(self) -> Counter[str]:
        """The calls since the last time."""
        calls, self.calls = self.calls, Counter()
        return calls


def kind_of(environ: dict[str, Any]) -> str:
    """Name of the S3 operation."""
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    of_object = bool(environ["PATH_INFO"].strip("/").partition("/")[2])
    match environ["REQUEST_METHOD"], of_object:
        case "GET", False:
            return "ListObjectsV2" if "list-type" in query else "ListObjects"
        case "POST", False:
            return "DeleteObjects"
        case "POST", True:
            return "Multipart"
        case "PUT", True if "uploadId" in query:
            return "UploadPart"
        case method, _:
            return f"{method.capitalize()}{'Object' if of_object else 'Bucket'}"


def _cut(body: Iterable[bytes]) -> Iterator[bytes]:
    whole = b"".join(body)
    yield whole[: len(whole) // 2]
    raise ConnectionAbortedError


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def running(*, delay: float = 0.0) -> Iterator[Server]:
    """A server in a thread, stopped at the end, whose answers take `delay` seconds longer than moto does."""
    server = Server(url="", application=DomainDispatcherApplication(create_backend_app), delay=delay)
    listener = make_server("127.0.0.1", 0, server, threaded=True, request_handler=_Quiet)
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
