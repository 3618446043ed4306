"""What boto3 raises, said in one line that tells the user what to do."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from snakemake_interface_common.exceptions import WorkflowError

PERMISSIONS = {
    "list": "s3:ListBucket",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}
"""The permission that each of our operations needs."""

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
REJECTED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "UnrecognizedClientException"}
FORBIDDEN = {"AccessDenied", "403", "AllAccessDisabled", "AccountProblem"}
ELSEWHERE = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
ABSENT = {"NoSuchKey", "404"}


class S3Error(WorkflowError):
    """A failure whose one line says it all.

    Snakemake prints, below the message of an error, each frame of plugins that it passed through; a user can do nothing
    with those. Snakemake takes them from this attribute, Python itself does not.
    """

    @property
    def __traceback__(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """None."""

    @__traceback__.setter
    def __traceback__(self, frames: TracebackType | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Context managers set it."""


class ObjectAbsentError(S3Error):
    """The object is not there: the one failure that means "missing"."""


class CredentialsError(S3Error):
    """S3 does not take the credentials, or there are none (any more): others would help."""

    may_pass = False
    """Whether it worked before and new credentials can be read, so that the same call is worth another try."""


@contextmanager
def explained(operation: str, bucket: str, key: str) -> Iterator[None]:
    """Turn every failure of one call to S3 into one line.

    Raises:
        ObjectAbsentError: if S3 answered that there is no such object.
        S3Error: for everything else. An error is never taken for absence.

    """
    # botocore takes 0.2 s to import, and Snakemake imports every plugin at every start.
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _from_answer(error, operation, bucket, key) from error
    except Boto3Error as error:
        # boto3's transfers wrap S3's answer into a text; the answer itself is what the error came from.
        if isinstance(error.__context__, ClientError):
            raise _from_answer(error.__context__, operation, bucket, key) from error
        raise S3Error(f"S3: cannot {operation} {_name(bucket, key)}: {_flat(error)}") from error
    except BotoCoreError as error:
        raise _without_answer(error, operation, bucket, key) from error
    except ssl.SSLError as error:
        raise S3Error(f"S3: no safe connection for {_name(bucket, key)}: {_flat(error)}") from error


def _from_answer(error: Exception, operation: str, bucket: str, key: str) -> S3Error:
    """The line for an error that S3 itself answered."""
    details = getattr(error, "response", {}).get("Error", {})
    code = str(details.get("Code", "unknown"))
    name = _name(bucket, key)
    if code in ABSENT:
        return ObjectAbsentError(f"S3: {name} does not exist")
    if code == "NoSuchBucket":
        return S3Error(
            f"S3: there is no bucket {bucket!r} (for {name}): create it, or correct the storage prefix; "
            "this plugin never creates buckets"
        )
    if code in EXPIRED:
        return CredentialsError(f"S3: the AWS credentials have expired ({code}): log in again, then start again")
    if code in REJECTED:
        return CredentialsError(
            f"S3: AWS does not accept these credentials ({code}): check AWS_PROFILE or the keys in use"
        )
    if code in FORBIDDEN:
        permission = PERMISSIONS[operation]
        return S3Error(
            f"S3: not allowed to {operation} {name} ({code}): the credentials in use need {permission} there"
        )
    if code in ELSEWHERE:
        return S3Error(
            f"S3: bucket {bucket!r} lies in another region ({code}): set --storage-s3-inventory-region or AWS_REGION"
        )
    return S3Error(f"S3: cannot {operation} {name}: {code}: {details.get('Message', '')}".rstrip(": "))


def _without_answer(error: Exception, operation: str, bucket: str, key: str) -> S3Error:
    """The line for an error that happened before S3 could answer."""
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return CredentialsError(
            "S3: no AWS credentials found: set AWS_PROFILE, log in with `aws sso login`, or run where a role gives them"
        )
    expired = (exceptions.UnauthorizedSSOTokenError, exceptions.SSOTokenLoadError, exceptions.TokenRetrievalError)
    if isinstance(error, expired):
        return CredentialsError(f"S3: the AWS login has expired: log in again, then start again ({_flat(error)})")
    unreadable = (exceptions.ProfileNotFound, exceptions.CredentialRetrievalError, exceptions.ConfigParseError)
    if isinstance(error, unreadable):
        return CredentialsError(f"S3: the AWS credentials cannot be read: {_flat(error)}")
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return S3Error(
            f"S3: cannot be reached for {_name(bucket, key)}: {_flat(error)}: check the network and the endpoint"
        )
    return S3Error(f"S3: cannot {operation} {_name(bucket, key)}: {_flat(error)}")


def _name(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"


def _flat(error: Exception) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split()).rstrip(".")
