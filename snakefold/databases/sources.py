"""Where bytes come from: a web server or S3, read in ranges."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests

from snakefold.errors import SnakefoldError

_BLOCK = 1 << 18
_TIMEOUT = (30, 60)  # seconds to connect, seconds without a byte
_LONGEST_WAIT = 120.0


class SourceError(SnakefoldError):
    """A source did not give what was asked. `lasting` says that asking again is useless; `wait` is in seconds."""

    def __init__(self, reason: str, *, lasting: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.lasting = lasting
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a source says of a file: bytes, a tag that changes with the content, whether it can be read in ranges."""

    size: int | None
    tag: str
    ranges: bool


class Source(Protocol):
    """A file somewhere else. Each thread opens its own."""

    def facts(self) -> Facts:
        """Ask for size and tag. Raises SourceError."""
        ...

    def read(self, start: int, end: int, tag: str) -> Iterator[bytes]:
        """Yield bytes `start` to `end` (exclusive), maybe fewer. Raises SourceError, also if the tag has changed."""
        ...

    def read_all(self) -> Iterator[bytes]:
        """Yield the whole file, for a source without ranges. Raises SourceError."""
        ...


def open_source(url: str) -> Source:
    """The source behind an http, https or s3 address."""
    return S3Source(url) if urlsplit(url).scheme == "s3" else HttpSource(url)


class HttpSource:
    """A file on a web server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        # Compressed transfer would make byte ranges mean something else.
        self._session.headers["Accept-Encoding"] = "identity"

    def facts(self) -> Facts:
        """Ask for one byte: unlike HEAD, that shows whether ranges really work."""
        with self._get({"Range": "bytes=0-0"}, allowed=(200, 206, 416)) as answer:
            if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return Facts(size=0, tag=_tag(answer), ranges=False)
            if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                return Facts(size=int(total) if total.isdigit() else None, tag=_tag(answer), ranges=total.isdigit())
            length = answer.headers.get("Content-Length", "")
            return Facts(size=int(length) if length.isdigit() else None, tag=_tag(answer), ranges=False)

    def read(self, start: int, end: int, tag: str) -> Iterator[bytes]:
        """See `Source`."""
        with self._get({"Range": f"bytes={start}-{end - 1}"}, allowed=(206,)) as answer:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise SourceError("answers with another range than was asked for", lasting=True)
            if _tag(answer) != tag:
                raise SourceError("the file has changed during the download", lasting=True)
            yield from _blocks(answer)

    def read_all(self) -> Iterator[bytes]:
        """See `Source`."""
        with self._get({}, allowed=(200,)) as answer:
            yield from _blocks(answer)

    def _get(self, headers: dict[str, str], allowed: tuple[int, ...]) -> requests.Response:
        try:
            answer = self._session.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise SourceError(_reason(error)) from None
        if answer.status_code in allowed:
            return answer
        answer.close()
        code = answer.status_code
        busy = code >= 500 or code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT)
        if code < 400:
            raise SourceError(f"answers {code} instead of a part of the file", lasting=True)
        text = f"HTTP {code} {answer.reason or ''}".strip()
        raise SourceError(text, lasting=not busy, wait=_retry_after(answer.headers.get("Retry-After")))


class S3Source:
    """An object in S3 (`s3://bucket/key`), read with the usual credentials or, where they do not help, anonymously.

    `AWS_ENDPOINT_URL` or `AWS_ENDPOINT_URL_S3` points it to another S3-compatible store.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = {"Bucket": parts.netloc, "Key": parts.path.removeprefix("/")}
        self._client = _s3_client(anonymous=False)
        self._may_be_public = True

    def facts(self) -> Facts:
        """Ask for size and ETag."""
        answer = self._call("head_object")
        return Facts(size=answer["ContentLength"], tag=answer["ETag"], ranges=answer["ContentLength"] > 0)

    def read(self, start: int, end: int, tag: str) -> Iterator[bytes]:
        """See `Source`."""
        yield from self._body(Range=f"bytes={start}-{end - 1}", IfMatch=tag)

    def read_all(self) -> Iterator[bytes]:
        """See `Source`."""
        yield from self._body()

    def _body(self, **arguments: str) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        answer = self._call("get_object", **arguments)
        try:
            yield from answer["Body"].iter_chunks(_BLOCK)
        except (BotoCoreError, HTTPError, OSError) as error:
            raise SourceError(_reason(error)) from None

    def _call(self, operation: str, **arguments: str) -> dict[str, Any]:
        """Credentials that the bucket refuses are left aside: it may be a public one of another account."""
        try:
            answer = self._call_once(operation, **arguments)
        except SourceError as error:
            if not error.lasting or not self._may_be_public:
                raise
            refused, self._client = self._client, _s3_client(anonymous=True)
            try:
                answer = self._call_once(operation, **arguments)
            except SourceError:
                self._client = refused
                raise error from None
        self._may_be_public = False
        return answer

    def _call_once(self, operation: str, **arguments: str) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, operation)(**self._place, **arguments)
        except ClientError as error:
            code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code == HTTPStatus.PRECONDITION_FAILED:
                raise SourceError("the file has changed during the download", lasting=True) from None
            raise SourceError(_reason(error), lasting=400 <= code < 500) from None
        except BotoCoreError as error:
            raise SourceError(_reason(error)) from None


def _s3_client(*, anonymous: bool) -> Any:
    # Imported here: boto3 takes 0.3 s, and most databases come over https.
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session()
    unsigned = anonymous or session.get_credentials() is None
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 5},
        connect_timeout=_TIMEOUT[0],
        read_timeout=_TIMEOUT[1],
        **({"signature_version": UNSIGNED} if unsigned else {}),
    )
    return session.client("s3", config=config, region_name=session.region_name or "us-east-1")


def patiently(attempt: Callable[[], None], retries: int, wait: float, go_on: Callable[[], bool]) -> None:
    """Call `attempt` until it does not raise Interrupted.

    `retries` failures in a row are borne, with `wait` seconds after the first and twice as many after each further one;
    an attempt that got bytes starts the count again. Raises SourceError; ends silently when `go_on` says no.
    """
    failures = 0
    while go_on():
        try:
            attempt()
            return
        except Interrupted as stop:
            failures = 1 if stop.received else failures + 1
            if stop.error.lasting or failures > retries:
                raise stop.error from None
            asked = stop.error.wait if stop.error.wait is not None else wait * 2 ** (failures - 1)
            _sleep(min(asked, _LONGEST_WAIT), go_on)


class Interrupted(Exception):  # noqa: N818 - not a fault yet: it may be tried again
    """An attempt ended early: why, and how many bytes it got."""

    def __init__(self, error: SourceError, received: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.received = received


def _sleep(seconds: float, go_on: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while go_on() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(_BLOCK)
    except (requests.RequestException, OSError) as error:
        raise SourceError(_reason(error)) from None


def _tag(answer: requests.Response) -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number or a date."""
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    """The innermost cause in one line: requests wraps errors three deep, and only the core says something."""
    text = str(error)
    for mark in ("NewConnectionError(", "NameResolutionError(", "SSLError(", "IncompleteRead("):
        if mark in text:
            text = text[text.index(mark) :]
            break
    return " ".join(text.split())[:200] or type(error).__name__
