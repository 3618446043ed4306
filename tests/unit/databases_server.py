"""A web server for download tests: ranges, tags, breaks, refusals, and a count of the bytes it served."""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BLOCK = 4096


class FileServer:
    """Serves `files` (path -> bytes) on a free port of this machine. Also enough of S3 for reading objects."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.ranges = True
        self.breaks: list[int] = []
        """After how many bytes of body, counted from the last break, to cut a connection; one entry for each break."""
        self.refusals: list[int] = []
        """Status codes to answer with instead, one for each request."""
        self.hold_after: int | None = None
        """From this many bytes on, connections stand still until `release` is set."""
        self.pace = 0.0
        """Seconds to rest after each block."""
        self.release = threading.Event()
        self.holding = threading.Event()
        self.served = 0
        self.requests: list[str] = []
        self._since_break = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self, body=True)

            def do_HEAD(self) -> None:
                server._answer(self, body=False)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is part of the tests; its traceback must not get into a test's output."""
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def running(self) -> Iterator["FileServer"]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = request.path.split("?")[0]
        with self._lock:
            self.requests.append(path)
            refusal = self.refusals.pop(0) if self.refusals else 0
        content = self.files.get(path)
        if refusal or content is None:
            request.send_response(refusal or 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start, end, status = 0, len(content), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if wanted and self.ranges:
            start, status = int(wanted[1]), 206
            end = min(len(content), int(wanted[2]) + 1) if wanted[2] else len(content)
        request.send_response(status)
        request.send_header("Content-Length", str(end - start))
        request.send_header("ETag", self.tags.get(path, '"1"'))
        if self.ranges:
            request.send_header("Accept-Ranges", "bytes")
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        request.end_headers()
        if body:
            self._send(request, content, start, end)

    def _send(self, request: BaseHTTPRequestHandler, content: bytes, start: int, end: int) -> None:
        for position in range(start, end, _BLOCK):
            block = content[position : min(position + _BLOCK, end)]
            with self._lock:
                breaks = bool(self.breaks) and self._since_break >= self.breaks[0]
                if breaks:
                    self.breaks.pop(0)
                    self._since_break = 0
                holds = self.hold_after is not None and self.served >= self.hold_after
            if breaks:
                request.close_connection = True
                return
            if holds:
                self.holding.set()
                self.release.wait()
            try:
                request.wfile.write(block)
            except OSError:
                request.close_connection = True
                return
            with self._lock:
                self.served += len(block)
                self._since_break += len(block)
            if self.pace:
                time.sleep(self.pace)
