"""The calls to S3: each retried, each failure one line."""

import base64
import datetime
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from snakemake_storage_plugin_s3_inventory.errors import CredentialsError, S3Error, explained
from snakemake_storage_plugin_s3_inventory.inventory import Listed
from snakemake_storage_plugin_s3_inventory.renewal import Renewal, comes_from_environment
from snakemake_storage_plugin_s3_inventory.settings import StorageProviderSettings

LARGE = 16 * 1024 * 1024
"""Bytes from which a file travels in parts, several at a time."""

SHA256 = "sha256"
"""In the metadata of every object: the digest of its content (hex). S3's own tags tell nothing of the content of what
came in parts, or is encrypted by one's own key."""

ATTEMPTS = 5
"""Tries to read a small object whose connection breaks off; botocore retries only until the first byte."""

THREADS = 16
"""Files of a directory on their way at a time."""

Result = TypeVar("Result")


class S3:
    """S3 as the plugin needs it. Nothing is made, read or asked before the first call."""

    def __init__(self, settings: StorageProviderSettings, *, in_a_hurry: Callable[[], bool], renewal: Renewal) -> None:
        """Set up.

        `in_a_hurry` says whether S3, until it has answered once, must answer at once or not at all. `renewal` is told
        when S3 answers.
        """
        self._settings = settings
        self._in_a_hurry = in_a_hurry
        self._renewal = renewal
        self._session: Any = None
        self._patient: Any = None
        self._hasty: Any = None
        self._answered = False
        self._lock = threading.Lock()

    def page(self, bucket: str, prefix: str, limit: int) -> tuple[list[Listed], bool]:
        """The first `limit` objects whose keys begin with `prefix`, and whether there are more. One call."""
        answer = self._call(
            "list", bucket, prefix, lambda s3: s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=limit)
        )
        return _listed(answer), answer.get("IsTruncated", False)

    def pages(self, bucket: str, prefix: str) -> Iterator[list[Listed]]:
        """All objects whose keys begin with `prefix`, 1,000 a call."""
        request = {"Bucket": bucket, "Prefix": prefix}
        while True:
            answer = self._call("list", bucket, prefix, lambda s3: s3.list_objects_v2(**request))
            yield _listed(answer)
            if not answer.get("IsTruncated", False):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    def write(self, path: Path, bucket: str, key: str) -> int:
        """Store a file; returns its size in bytes."""
        size = path.stat().st_size
        if size < LARGE:
            self.write_bytes(path.read_bytes(), bucket, key)
            return size
        with path.open("rb") as handle:
            noted = {SHA256: hashlib.file_digest(handle, "sha256").hexdigest()}
        extra, config = {"Metadata": noted}, _in_parts()
        self._call(
            "write", bucket, key, lambda s3: s3.upload_file(str(path), bucket, key, ExtraArgs=extra, Config=config)
        )
        return size

    def write_bytes(self, content: bytes, bucket: str, key: str) -> None:
        """Store a small object; S3 refuses it if it arrives changed."""
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        noted = {SHA256: hashlib.sha256(content).hexdigest()}
        self._call(
            "write",
            bucket,
            key,
            lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=content, ContentMD5=digest, Metadata=noted),
        )

    def read(self, bucket: str, key: str, path: Path) -> int:
        """Fetch an object: whole and under its name, or not at all. Returns its size in bytes.

        Raises:
            ObjectAbsentError: if there is none.

        """
        # Beside its name, for the rename must not cross file systems; a name of its own, for others may fetch it too.
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            size = self._call("read", bucket, key, lambda s3: _read_into(s3, bucket, key, part))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return size

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; none there is no error."""
        self._call("delete", bucket, key, lambda s3: s3.delete_object(Bucket=bucket, Key=key))

    def delete_all(self, bucket: str, keys: Iterable[str]) -> None:
        """Remove objects, 1,000 a call."""
        left = list(keys)
        while left:
            batch, left = left[:1000], left[1000:]
            request = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
            answer = self._call("delete", bucket, batch[0], partial(_delete_objects, bucket=bucket, request=request))
            if failures := answer.get("Errors"):
                first = failures[0]
                raise S3Error(
                    f"S3: cannot delete {len(failures)} objects, the first s3://{bucket}/{first.get('Key')}: "
                    f"{first.get('Code')}: {first.get('Message')}"
                )

    def _call(self, operation: str, bucket: str, key: str, work: Callable[[Any], Result]) -> Result:
        """What `work` gives with a client. After a CredentialsError the next call reads the credentials anew."""
        client: Any = None
        try:
            with explained(operation, bucket, key):
                client = self._client()
                result = work(client)
        except CredentialsError as error:
            # At the start nothing would be lost, and the user is there to read why it fails.
            if self._answered and comes_from_environment(self._session):
                raise CredentialsError(
                    f"{error} (they come from environment variables, which a running process never reads again)"
                ) from None
            error.may_pass = self._answered
            self._forget(client)
            raise
        self._answered = True
        self._renewal.well()
        return result

    def _forget(self, client: Any) -> None:
        """Read the credentials anew at the next call, unless another thread has done so since."""
        with self._lock:
            if client is None or client in (self._patient, self._hasty):
                self._session = self._patient = self._hasty = None

    def _client(self) -> Any:
        """The client: thread-safe, made at the first call."""
        hasty = not self._answered and self._in_a_hurry()
        client = self._hasty if hasty else self._patient
        if client is not None:
            return client
        with self._lock:
            if hasty:
                self._hasty = self._hasty or self._make_client(hasty=True)
                return self._hasty
            self._patient = self._patient or self._make_client(hasty=False)
            return self._patient

    def _make_client(self, *, hasty: bool) -> Any:
        # boto3 takes 0.2 s to import, and Snakemake imports every plugin at every start.
        import boto3
        import botocore.config
        import botocore.session

        endpoint = self._settings.endpoint_url
        custom = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = botocore.config.Config(
            connect_timeout=3 if hasty else 10,
            read_timeout=10 if hasty else 60,
            # Not "adaptive": after one SlowDown it lets a job with ten calls to make wait two seconds for each.
            retries={"total_max_attempts": 1 if hasty else self._settings.retries, "mode": "standard"},
            max_pool_connections=4 * THREADS,
            # Other makers' S3 often has no DNS name per bucket, and not all of them know the newer checksums.
            s3={"addressing_style": "path"} if custom else None,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        if self._session is None:
            session = botocore.session.get_session()
            # Made once: each boto3 session adds its methods to the clients of the botocore session anew, and fails.
            # botocore's own reading of times takes half the time of a long listing.
            session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
            self._session = boto3.Session(botocore_session=session)
        # boto3 does not read AWS_REGION, which every other AWS tool does.
        region = self._settings.region or self._session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
        return self._session.client("s3", endpoint_url=endpoint, region_name=region, config=config)


def _delete_objects(client: Any, *, bucket: str, request: dict[str, Any]) -> dict[str, Any]:
    return client.delete_objects(Bucket=bucket, Delete=request)


def _read_into(client: Any, bucket: str, key: str, part: Path) -> int:
    from botocore.exceptions import ConnectionError as BotoConnectionError
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    attempt = 1
    while True:
        answer = client.get_object(Bucket=bucket, Key=key)
        expected = answer["ContentLength"]
        if expected >= LARGE:
            answer["Body"].close()
            client.download_file(bucket, key, str(part), Config=_in_parts())
            break
        try:
            with part.open("wb") as handle:
                shutil.copyfileobj(answer["Body"], handle, 1024 * 1024)
            break
        except (BotoConnectionError, HTTPClientError, IncompleteReadError):
            if attempt == ATTEMPTS:
                raise
            attempt += 1
    received = part.stat().st_size
    if received != expected:
        raise S3Error(
            f"S3: s3://{bucket}/{key} changed while it was read ({expected} bytes, {received} came): start again"
        )
    return received


def _listed(answer: dict[str, Any]) -> list[Listed]:
    return [
        Listed(key=item["Key"], size=item["Size"], mtime=item["LastModified"].timestamp())
        for item in answer.get("Contents", ())
    ]


def _time(value: Any) -> datetime.datetime:
    """A time as S3 writes it in listings (ISO 8601); anything else is left to botocore."""
    from botocore.utils import parse_timestamp

    try:
        time = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return parse_timestamp(value)
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def _in_parts() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=LARGE, multipart_chunksize=LARGE, max_concurrency=4)
