"""The one place where AWS clients are made: retries, counting of calls, new credentials."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from snakemake_interface_common.exceptions import WorkflowError

if TYPE_CHECKING:
    import boto3

T = TypeVar("T")

_EXPIRED = frozenset(
    (
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestExpired",
        "UnrecognizedClientException",
    )
)
# Raised by botocore before a call is made: no keys found, a login of single sign-on that ran out, a helper that failed.
_NO_CREDENTIALS = frozenset(
    (
        "CredentialRetrievalError",
        "NoAuthTokenError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "RefreshWithMFAUnsupportedError",
    )
)
_THROTTLED = frozenset(
    ("TooManyRequestsException", "ThrottlingException", "Throttling", "RequestLimitExceeded", "SlowDown")
)
_ENDING = "batch to end jobs"
RENEW = "renew them where you got them (for example `aws sso login`, or new keys in ~/.aws/credentials)"


def error_code(error: BaseException) -> str:
    """The service's code of an error, or the name of its class."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", type(error).__name__))
    return type(error).__name__


def is_credentials_error(error: BaseException) -> bool:
    """Whether new credentials would help."""
    return error_code(error) in _EXPIRED or type(error).__name__ in _NO_CREDENTIALS


def is_transient(error: BaseException) -> bool:
    """Whether the same call may work later: throttling, a fault of the service or of the network."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or error_code(error) in _THROTTLED
    return isinstance(error, BotoCoreError) and not isinstance(error, ParamValidationError)


def is_passing_trouble(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is about credentials or a service that does not answer.

    Storage plugins wrap what botocore raised, in `__cause__` or among the arguments, some as text alone.
    """
    todo: list[BaseException] = [error]
    seen: set[int] = set()
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if is_credentials_error(current) or is_transient(current) or "credentials" in str(current).lower():
            return True
        if any(code in str(current) for code in _EXPIRED | _THROTTLED):
            return True
        todo += [cause for cause in (current.__cause__, current.__context__) if cause is not None]
        todo += [argument for argument in current.args if isinstance(argument, BaseException)]
        if isinstance(current, BaseExceptionGroup):
            todo += current.exceptions
    return False


class Aws:
    """Clients of one region, shared by all threads.

    `calls` counts every request sent, by `service.Operation`, retries included.
    """

    def __init__(self, region: str) -> None:
        self.region = region
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._session: boto3.Session | None = None
        self._ambiguous = threading.local()

    @property
    def batch(self) -> Any:
        """Client of AWS Batch."""
        return self.client("batch")

    @property
    def ending(self) -> Any:
        """Client of AWS Batch that ends jobs: not slowed down by what looks at jobs and submissions were told."""
        return self.client(_ENDING)

    @property
    def s3(self) -> Any:
        """Client of S3."""
        return self.client("s3")

    def client(self, service: str) -> Any:
        """The client of a service, made at its first use."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    def renew(self) -> str | None:
        """Forget session and clients, so that the next call reads credential files anew.

        Returns why that is in vain, if it is.
        """
        with self._lock:
            session, self._session = self._session, None
            self._clients.clear()
        try:
            credentials = session.get_credentials() if session is not None else None
        except Exception:
            # Why they cannot be read is what the next call tells.
            return None
        if credentials is not None and credentials.method == "env":
            return "they come from environment variables, which a running process never reads again"
        return None

    def unambiguous(self, call: Callable[[], T]) -> tuple[T, bool]:
        """A call's result, and whether it is certain that the service took it once.

        A connection that breaks after the request was sent makes botocore send it again: the service may have
        acted twice.
        """
        self._ambiguous.flag = False
        result = call()
        return result, not self._ambiguous.flag

    def _make(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        if self._session is None:
            self._session = boto3.Session(region_name=self.region)
        # Batch throttles an account as a whole: adaptive retries slow all threads of this client down together. After a
        # few refusals that is a call in seconds; at Ctrl-C nobody waits that long.
        mode = "adaptive" if service == "batch" else "standard"
        service = service.split()[0]
        config = Config(
            retries={"mode": mode, "max_attempts": 10},
            max_pool_connections=64,
            connect_timeout=10,
            read_timeout=60,
            user_agent_extra="snakemake-executor-plugin-aws-batch-fleet",
        )
        client = self._session.client(service, config=config)
        client.meta.events.register(f"before-send.{service}", self._count)
        client.meta.events.register(f"needs-retry.{service}", self._note_failure)
        return client

    def _count(self, request: Any, event_name: str, **_: Any) -> None:
        del request
        service, operation = event_name.split(".")[1:]
        with self._lock:
            self.calls[f"{service}.{operation}"] += 1

    def _note_failure(self, caught_exception: BaseException | None = None, response: Any = None, **_: Any) -> None:
        status = response[0].status_code if response is not None else 0
        if caught_exception is not None or status >= 500:
            self._ambiguous.flag = True


def preflight(aws: Aws) -> None:
    """Raise WorkflowError with one line when there are no credentials."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.Session(region_name=aws.region).get_credentials()
    except BotoCoreError as error:
        raise WorkflowError(f"AWS credentials cannot be read ({error}): {RENEW}.") from None
    if found is None:
        raise WorkflowError(
            "No AWS credentials found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with "
            "`aws sso login`."
        )
