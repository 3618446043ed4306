"""Objects below a prefix of an S3 bucket: read and written with patience, checked on their way, errors in one line.

Buckets are neither made nor removed here: that is for people and Terraform.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_file

_CONNECTIONS = 32
_BLOCK = 1 << 20
_LARGE = 64 << 20
"""Bytes from which an object travels in parts of this size, several at once."""
_PARTS_AT_ONCE = 8
_AT_ONCE = 1000
"""Keys in one answer of a listing, and in one request to delete."""

_PASSING = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "TooManyRequests",
        "OperationAborted",
        "IncompleteBody",
        "BadDigest",
        "XAmzContentChecksumMismatch",
        "429",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_INVALID = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthFailure", "InvalidClientTokenId"}
)
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "403"})
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_LOG_IN = "log in again (`aws sso login`, or renew the keys that you use) and run again"

_T = TypeVar("_T")
_R = TypeVar("_R")


class S3Error(SnakefoldError):
    """S3 refused or could not be reached. `denied` says that a permission lacks."""

    def __init__(self, text: str, *, denied: bool = False) -> None:
        super().__init__(text)
        self.denied = denied


class S3MissingError(S3Error):
    """There is no such object."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How faults that pass are borne, on top of what botocore retries within each request.

    `attempts` in all, the first included; `wait` seconds after the first, twice as many after each further one, at most
    `longest`.
    """

    attempts: int = 6
    wait: float = 1.0
    longest: float = 30.0

    def seconds(self, failures: int) -> float:
        """Seconds to wait after so many failures; random, so that a thousand jobs do not come back together."""
        return min(self.wait * 2 ** (failures - 1), self.longest) * random.uniform(0.5, 1)


@dataclass(frozen=True, kw_only=True)
class ObjectFacts:
    """An object: its name below the folder, bytes, when it was written (seconds since 1970), the tag of its content."""

    name: str
    size: int
    modified: float
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class Digests:
    """What S3 can say of the content of a whole object, in hex digits, apart from its size in bytes.

    `sha256` was computed by S3, or noted by whoever wrote the object. `md5` is known of what was written in one part
    and is not encrypted under a key of one's own.
    """

    etag: str
    size: int
    sha256: str | None
    md5: str | None


def is_s3(location: str) -> bool:
    """Whether a location is an S3 address rather than a path."""
    return location.startswith("s3:")


class S3Folder:
    """The objects below `s3://bucket/prefix`. All methods may be called from several threads at once.

    Credentials, region and endpoint come from boto3's usual chain; the client is made at the first request.
    """

    def __init__(self, url: str, *, patience: Patience | None = None) -> None:
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", url)
        if match is None:
            raise SnakefoldError(f"{url}: not an S3 address; write s3://BUCKET/PREFIX")
        self.bucket = match[1]
        self.prefix = (match[2] or "").strip("/")
        self.patience = patience or Patience()
        self._maker = _Maker()

    def url(self, name: str = "") -> str:
        """The address of an object, or of the folder itself."""
        return f"s3://{self.bucket}/{self._key(name)}".rstrip("/")

    def below(self, name: str) -> "S3Folder":
        """A folder within this one, with the same client."""
        folder = S3Folder(self.url(name), patience=self.patience)
        folder._maker = self._maker
        return folder

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(name)}

    @property
    def _client(self) -> Any:
        return self._maker.client()

    # Reading

    def facts(self, name: str) -> ObjectFacts | None:
        """Size and time of an object, or None if there is none (or no such bucket: HEAD cannot tell)."""
        try:
            answer = self._patiently("read", name, lambda: self._client.head_object(**self._at(name)))
        except S3MissingError:
            return None
        return ObjectFacts(name=name, size=answer["ContentLength"], modified=answer["LastModified"].timestamp())

    def metadata(self, name: str) -> dict[str, str]:
        """What was noted with an object when it was written; empty if there is none."""
        try:
            return self._patiently("read", name, lambda: self._client.head_object(**self._at(name)))["Metadata"]
        except S3MissingError:
            return {}

    def digests(self, name: str) -> Digests:
        """What is known of an object's content without reading it. Raises S3MissingError."""
        answer = self._patiently(
            "read", name, lambda: self._client.head_object(**self._at(name), ChecksumMode="ENABLED")
        )
        etag = answer["ETag"].strip('"')
        known = answer.get("ChecksumSHA256")
        # Of what came in parts S3 has a digest of their digests; it ends in their number, as the tag does. (moto's
        # answer to HEAD leaves the digest's number out.)
        in_parts = "-" in (known or "") or "-" in etag
        whole = base64.b64decode(known).hex() if known and not in_parts else answer["Metadata"].get("sha256")
        plain = answer.get("ServerSideEncryption") in (None, "AES256") and not answer.get("SSECustomerAlgorithm")
        is_md5 = plain and re.fullmatch("[0-9a-f]{32}", etag) is not None
        return Digests(etag=etag, size=answer["ContentLength"], sha256=whole, md5=etag if is_md5 else None)

    def read(self, name: str) -> tuple[bytes, ObjectFacts]:
        """The content of a small object. Raises S3MissingError."""

        def get() -> tuple[bytes, ObjectFacts]:
            answer = self._client.get_object(**self._at(name))
            content = answer["Body"].read()
            return content, ObjectFacts(name=name, size=len(content), modified=answer["LastModified"].timestamp())

        return self._patiently("read", name, get)

    def stream(self, name: str, sink: Callable[[bytes], object]) -> int:
        """Hand an object's bytes to `sink` in order, and return their number; a break goes on from where it was.

        Raises S3MissingError, and S3Error if the object is replaced meanwhile.
        """
        return self._stream(
            name, self._patiently("read", name, lambda: self._client.get_object(**self._at(name))), sink
        )

    def stream_rest(self, name: str, sink: Callable[[bytes], object], *, start: int, etag: str) -> None:
        """As `stream`, from the byte `start` on, which must be there. Raises S3Error unless the object has this tag."""
        answer = self._patiently(
            "read",
            name,
            lambda: self._client.get_object(**self._at(name), Range=f"bytes={start}-", IfMatch=f'"{etag}"'),
        )
        self._stream(name, answer, sink, start)

    def download(self, name: str, path: Path) -> None:
        """Write an object's bytes over the file `path`, large ones in parts. The caller checks what came.

        Raises S3MissingError.
        """
        answer = self._patiently("read", name, lambda: self._client.get_object(**self._at(name)))
        if answer["ContentLength"] <= _LARGE:
            with path.open("wb") as out:
                self._stream(name, answer, out.write)
            return
        answer["Body"].close()
        self._patiently(
            "read",
            name,
            lambda: self._client.download_file(self.bucket, self._key(name), str(path), Config=_transfer_config()),
        )

    def _stream(self, name: str, answer: Any, sink: Callable[[bytes], object], position: int = 0) -> int:
        size, tag = position + answer["ContentLength"], answer["ETag"]
        failures = 0
        while True:
            try:
                for block in answer["Body"].iter_chunks(_BLOCK):
                    sink(block)
                    position += len(block)
                    failures = 0
                return position
            except _faults() as error:
                if position == size:
                    return position
                failures += 1
                if not _is_passing(error) or failures >= self.patience.attempts:
                    raise self._explained("read", name, error) from None
                time.sleep(self.patience.seconds(failures))
            answer = self._patiently(
                "read",
                name,
                lambda start=position: self._client.get_object(**self._at(name), Range=f"bytes={start}-", IfMatch=tag),
            )

    def list(self, below: str = "") -> Iterator[list[ObjectFacts]]:
        """The objects whose name begins with `below`, a page of at most 1,000 at a time, by name."""
        start = self._key(below) if below else (f"{self.prefix}/" if self.prefix else "")
        cut = len(self.prefix) + 1 if self.prefix else 0
        more: dict[str, str] = {}
        while True:
            answer = self._patiently(
                "listed",
                below,
                lambda more=more: self._client.list_objects_v2(
                    Bucket=self.bucket, Prefix=start, MaxKeys=_AT_ONCE, **more
                ),
            )
            yield [
                ObjectFacts(
                    name=each["Key"][cut:],
                    size=each["Size"],
                    modified=each["LastModified"].timestamp(),
                    etag=each["ETag"].strip('"'),
                )
                for each in answer.get("Contents", ())
            ]
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def folders(self) -> tuple[str, ...]:
        """Names of the folders directly in this one, at most 1,000."""
        start = f"{self.prefix}/" if self.prefix else ""
        answer = self._patiently(
            "listed",
            "",
            lambda: self._client.list_objects_v2(Bucket=self.bucket, Prefix=start, Delimiter="/", MaxKeys=_AT_ONCE),
        )
        return tuple(each["Prefix"][len(start) : -1] for each in answer.get("CommonPrefixes", ()))

    # Writing

    def write(self, name: str, content: bytes) -> None:
        """Write a small object. Readers see the old one or the new one."""
        self._patiently("written", name, lambda: self._client.put_object(**self._at(name), Body=content))

    def upload(
        self,
        path: Path,
        name: str,
        sha256: str,
        *,
        journal: str | None = None,
        sent: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Write a file as an object; `sha256` (64 hex digits) is its digest, which is noted with it as `sha256`.

        S3 computes the digest of what arrives, of each part where there are several, and refuses what differs. With a
        `journal`, the name of an object for a note, an upload of a large file that is interrupted leaves its parts, and
        the next one of the same content and journal goes on from there. `sent` is told of bytes that have arrived: of
        all at once, or part by part where there is a journal.
        """
        # Named here, not left to botocore: Snakemake's S3 plugin switches botocore's own checksums off when imported.
        large = path.stat().st_size > _LARGE
        noted = {"sha256": sha256}

        def put() -> None:
            with path.open("rb") as body:
                if large and journal:
                    _PartsUpload(self._client, self._at(name), self._at(journal), path, sha256, sent).run()
                elif large:
                    extra = {"ChecksumAlgorithm": "SHA256", "Metadata": noted}
                    self._client.upload_fileobj(
                        body, self.bucket, self._key(name), ExtraArgs=extra, Config=_transfer_config()
                    )
                else:
                    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                    self._client.put_object(**self._at(name), Body=body, ChecksumSHA256=checksum, Metadata=noted)

        try:
            self._patiently("written", name, put)
        except S3Error:
            if sha256_of_file(path) != sha256:
                raise SnakefoldError(
                    f"{path}: has changed while it was written to {self.url(name)}; run again"
                ) from None
            raise
        if not (large and journal):
            sent(path.stat().st_size)

    def renew(self, name: str) -> None:
        """Copy an object onto itself: its time becomes now. What was noted with it stays."""

        def copy() -> None:
            # S3 refuses a copy onto itself that changes nothing: the metadata are replaced by what they were.
            noted = self._client.head_object(**self._at(name))["Metadata"]
            self._client.copy(
                self._at(name),
                self.bucket,
                self._key(name),
                ExtraArgs={"MetadataDirective": "REPLACE", "Metadata": noted},
                Config=_transfer_config(),
            )

        self._patiently("renewed", name, copy)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no fault."""
        for some in chunks(names, _AT_ONCE):
            wanted = {"Objects": [{"Key": self._key(name)} for name in some], "Quiet": True}
            answer = self._patiently(
                "deleted",
                some[0],
                lambda wanted=wanted: self._client.delete_objects(Bucket=self.bucket, Delete=wanted),
            )
            if errors := answer.get("Errors"):
                code = errors[0].get("Code", "")
                what, remedy = _words(code, errors[0].get("Message", ""))
                place = f"s3://{self.bucket}/{errors[0].get('Key', '')}"
                raise S3Error(f"{place}: cannot be deleted: {what}; {remedy}", denied=code in _DENIED)

    def abort_uploads(self, older_than: float) -> None:
        """Give up uploads in parts that began before `older_than` (seconds since 1970): their parts cost money unseen.

        Does nothing without the permission to list them.
        """
        more: dict[str, str] = {}
        while True:
            try:
                answer = self._patiently(
                    "listed",
                    "",
                    lambda more=more: self._client.list_multipart_uploads(
                        Bucket=self.bucket, Prefix=f"{self.prefix}/" if self.prefix else "", **more
                    ),
                )
            except S3Error as error:
                if error.denied:
                    return
                raise
            for each in answer.get("Uploads", ()):
                if each["Initiated"].timestamp() < older_than:
                    place = {"Bucket": self.bucket, "Key": each["Key"], "UploadId": each["UploadId"]}
                    with contextlib.suppress(S3MissingError):
                        self._patiently("deleted", "", lambda place=place: self._client.abort_multipart_upload(**place))
            if not answer.get("IsTruncated"):
                return
            more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    # Faults

    def _patiently(self, done: str, name: str, call: Callable[[], _T]) -> _T:
        """Call until no passing fault occurs. `done` is what would be done with `name`, for the error."""
        for attempt in itertools.count(1):
            try:
                return call()
            except _faults() as error:
                if not _is_passing(error) or attempt >= self.patience.attempts:
                    raise self._explained(done, name, error) from None
                time.sleep(self.patience.seconds(attempt))
        raise AssertionError  # for type checkers: the loop has no end

    def _explained(self, done: str, name: str, error: Exception) -> S3Error:
        code = _code(error)
        if code in _MISSING or code == "NoSuchUpload":
            return S3MissingError(f"{self.url(name)}: there is no such object; see that it is the right address")
        if code == "NoSuchBucket":
            return S3Error(
                f"{self.url(name)}: there is no bucket {self.bucket!r}; correct its name, or have the bucket made"
            )
        what, remedy = _words(code, _text(error)) if code else _words_of_client(error)
        return S3Error(f"{self.url(name)}: cannot be {done}: {what}; {remedy}", denied=code in _DENIED)


class _PartsUpload:
    """A large file on its way in parts, which goes on from those that an earlier process has sent.

    boto3's transfers begin again from nothing. The journal remembers S3's name of the upload, and what it is of. A part
    that is there counts if its SHA-256, or where S3 does not tell that its MD5, is the one of the file's.
    """

    def __init__(
        self,
        client: Any,
        place: dict[str, str],
        journal: dict[str, str],
        path: Path,
        sha256: str,
        sent: Callable[[int], object],
    ) -> None:
        self._client = client
        self._place = place
        self._journal = journal
        self._path = path
        self._sha256 = sha256
        self._sent = sent
        self._upload: dict[str, str] = {}
        self._size = path.stat().st_size
        # 10,000 parts at most. Of the size alone, so that the next process cuts at the same places.
        self._part = max(_LARGE, -(-self._size // 9_000 // _BLOCK) * _BLOCK)

    def run(self) -> None:
        """Send what is missing, and put the parts together. Raises what botocore raises."""
        sent = self._resume()
        numbers = range(1, -(-self._size // self._part) + 1)
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            pending = [pool.submit(self._bring, number, sent.get(number)) for number in numbers]
            try:
                parts = [each.result() for each in pending]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._client.complete_multipart_upload(**self._upload, MultipartUpload={"Parts": parts})
        self._client.delete_object(**self._journal)

    def _resume(self) -> dict[int, Mapping[str, Any]]:
        """The parts by number that are there already, of an upload that is begun if there is none to go on with."""
        from botocore.exceptions import ClientError

        try:
            noted = json.loads(self._client.get_object(**self._journal)["Body"].read())
            if noted["sha256"] == self._sha256:
                self._upload = {**self._place, "UploadId": noted["upload"]}
                pages = self._client.get_paginator("list_parts").paginate(**self._upload)
                return {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        except (ValueError, KeyError, TypeError):
            pass  # somebody else's object: written over
        except ClientError as error:
            # Who may not list parts sends them all.
            if _code(error) not in {*_MISSING, *_DENIED, "NoSuchUpload"}:
                raise
        answer = self._client.create_multipart_upload(
            **self._place, ChecksumAlgorithm="SHA256", Metadata={"sha256": self._sha256}
        )
        self._upload = {**self._place, "UploadId": answer["UploadId"]}
        note = json.dumps({"upload": answer["UploadId"], "sha256": self._sha256})
        self._client.put_object(**self._journal, Body=note.encode())
        return {}

    def _bring(self, number: int, sent: Mapping[str, Any] | None) -> dict[str, Any]:
        with self._path.open("rb") as file:
            file.seek((number - 1) * self._part)
            content = file.read(self._part)
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        if sent is None or not _is_same(content, checksum, sent):
            sent = dict(self._client.upload_part(**self._upload, PartNumber=number, Body=content, **_sha256(checksum)))
        self._sent(len(content))
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}


def _sha256(checksum: str) -> dict[str, str]:
    """Arguments by which S3 refuses what does not have this digest (base64)."""
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": checksum}


def _is_same(content: bytes, checksum: str, sent: Mapping[str, Any]) -> bool:
    """Whether a part that S3 has is this one."""
    if sent["Size"] != len(content):
        return False
    if known := sent.get("ChecksumSHA256"):
        return known == checksum
    return sent["ETag"].strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()


def parallel(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """The results of a function that waits for S3, in order, many at once. The first error ends it."""
    for some in chunks(items, _AT_ONCE):
        if len(some) == 1:
            yield function(some[0])
            continue
        with ThreadPoolExecutor(min(_CONNECTIONS, len(some))) as pool:
            yield from pool.map(function, some)


def chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some


class _Maker:
    """Makes a client when it is first asked for: clients may be shared by threads, but not made by several at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Any = None

    def client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _make_client()
            return self._made


def _make_client() -> Any:
    # Imported here: boto3 takes 0.3 s, and local runs do without.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session()
        config = Config(
            # Not adaptive: that slows all threads of the client for one refusal of one prefix.
            retries={"mode": "standard", "total_max_attempts": 4},
            # More than one thread each: large files travel in parts. Beyond it urllib3 warns and throws lines away.
            max_pool_connections=4 * _CONNECTIONS,
            connect_timeout=15,
            read_timeout=60,
        )
        return session.client("s3", config=config, region_name=session.region_name or "us-east-1")
    except (BotoCoreError, ValueError) as error:
        what, remedy = _words_of_client(error)
        raise S3Error(f"S3: {what}; {remedy}") from None


def _transfer_config() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=_LARGE + 1,
        multipart_chunksize=_LARGE,
        max_concurrency=_PARTS_AT_ONCE,
        # Not whatever client is best on this kind of instance: retries and checksums must be the same on all.
        preferred_transfer_client="classic",
    )


def _faults() -> tuple[type[Exception], ...]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    return (ClientError, BotoCoreError, Boto3Error, HTTPError, ConnectionError, TimeoutError)


def _is_passing(error: Exception) -> bool:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError
    from botocore.exceptions import ConnectionError as NoConnectionError
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _code(error) in _PASSING or status >= 500
    # Boto3Error: a transfer in parts that gave up after its own retries.
    broken = (HTTPClientError, NoConnectionError, IncompleteReadError, FlexibleChecksumError, HTTPError, Boto3Error)
    return isinstance(error, (*broken, ConnectionError, TimeoutError))


def _code(error: Exception) -> str:
    from botocore.exceptions import ClientError

    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _words(code: str, text: str) -> tuple[str, str]:
    """What an error code of S3 means, and what to do."""
    if code in _EXPIRED:
        return "your AWS session has expired", _LOG_IN
    if code == "400":  # an answer without a body (HEAD) cannot say which
        return "S3 refused the request (400), as it does when a session has expired", _LOG_IN
    if code in _INVALID:
        return (
            f"AWS does not know these credentials ({code})",
            "correct the keys, or set AWS_PROFILE to another profile",
        )
    if code in _DENIED:
        return "access denied", "let this user or role list the bucket, and get, put and delete its objects"
    if code == "PreconditionFailed":
        return "it was replaced meanwhile", "run again"
    if code in _PASSING or re.fullmatch("5..", code):
        return f"S3 is busy and stayed so ({code})", "run again, what is done is kept"
    return text, "see what S3 means by it in its list of error responses"


def _words_of_client(error: Exception) -> tuple[str, str]:
    """What a fault on this side of the line means, and what to do."""
    from botocore import exceptions

    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        remedy = "log in (`aws sso login`, `aws configure`), or set AWS_PROFILE, or give the job a role"
        return "no AWS credentials were found", remedy
    if isinstance(error, exceptions.ProfileNotFound):
        return _text(error), "correct AWS_PROFILE"
    expired = (
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
        "TokenRetrievalError",
        "LoginRefreshRequired",
        "LoginTokenLoadError",
    )
    if type(error).__name__ in expired:
        return "your AWS session has expired", _LOG_IN
    if isinstance(error, exceptions.CredentialRetrievalError):
        return _text(error), "log in again, or correct the profile that AWS_PROFILE names"
    if _is_passing(error):
        return (
            f"the connection failed and stayed so ({_text(error)})",
            "look at the network and run again, what is done is kept",
        )
    return _text(error), "see the AWS settings of this machine"
