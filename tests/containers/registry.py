"""A registry of images on this machine: as much of the distribution protocol as a push needs, in memory."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse


class Registry(ThreadingHTTPServer):
    """Blobs by digest, and manifests by `repository:tag`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        """Host and port."""
        return f"localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def registry(self) -> Registry:
        assert isinstance(self.server, Registry)
        return self.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path):
            self._answer(200 if found[2] in self.registry.blobs else 404)
        elif found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            named = (name for name in self.registry.manifests if name.startswith(f"{found[1]}:"))
            content = next((self.registry.manifests[name] for name in named if self._means(name, found[2])), b"")
            self._answer(200 if content else 404, content)
        else:
            self._answer(200)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._body()
        name = f"{urlparse(self.path).path}{len(self.registry.uploads)}"
        self.registry.uploads[name] = b""
        self._answer(202, headers={"Location": name})

    def do_PATCH(self) -> None:
        name = urlparse(self.path).path
        self.registry.uploads[name] += self._body()
        self._answer(202, headers={"Location": name, "Range": f"0-{len(self.registry.uploads[name]) - 1}"})

    def do_PUT(self) -> None:
        asked = urlparse(self.path)
        body = self._body()
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", asked.path):
            self.registry.manifests[f"{found[1]}:{found[2]}"] = body
            digest = digest_of(body)
        else:
            digest = parse_qs(asked.query)["digest"][0]
            content = self.registry.uploads[asked.path] + body
            assert digest_of(content) == digest
            self.registry.blobs[digest] = content
        self._answer(201, headers={"Docker-Content-Digest": digest})

    def _means(self, name: str, reference: str) -> bool:
        return name.endswith(f":{reference}") or digest_of(self.registry.manifests[name]) == reference

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, code: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(code)
        kind = json.loads(content)["mediaType"] if content else "text/plain"
        for key, value in {"Content-Length": str(len(content)), "Content-Type": kind, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def digest_of(content: bytes) -> str:
    """The name of a blob or manifest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def running() -> Iterator[Registry]:
    """A registry on a free port."""
    with Registry() as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            registry.shutdown()
            thread.join()
