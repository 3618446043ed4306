"""The server: counts, throttles and spoils calls, answers those about jobs, and hands the rest to moto."""

from __future__ import annotations

import collections
import io
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from pydantic import ValidationError
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.test import run_wsgi_app

from tests.fake_aws import moto_gaps
from tests.fake_aws.account import DEFAULT_LOG_GROUP, Account
from tests.fake_aws.batch_api import BatchApi
from tests.fake_aws.calls import Call, parse_call
from tests.fake_aws.limits import ServiceError, TokenBucket
from tests.fake_aws.scheduler import Scheduler
from tests.fake_aws.settings import Faults, ServiceFault, Settings, parse_fault

StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]


class FakeServer:
    """The fake AWS in this process."""

    def __init__(self, settings: Settings, port: int = 0) -> None:
        self.settings, self.faults = settings, Faults()
        self._first_settings = settings.model_copy(deep=True)
        self.account = Account(settings)
        self._server: BaseWSGIServer | None = None
        self.scheduler = Scheduler(settings, self.faults, self.account, lambda: self.endpoint)
        self._api = BatchApi(self.scheduler, self.account, self.faults)
        moto_gaps.fill()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._counts: collections.Counter[str] = collections.Counter()
        self._buckets: dict[str, TokenBucket] = {}
        self._lock = threading.Lock()
        # moto looks, then writes: of two conditional puts at once both would win.
        self._conditional = threading.Lock()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", port, self, threaded=True, request_handler=_QuietHandler)
        # A burst of a thousand callers must not be refused by the kernel.
        self._server.socket.listen(1024)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        return self._server.port

    @property
    def endpoint(self) -> str:
        """The URL for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Serves until `close`."""
        assert self._server is not None
        self._server.serve_forever()

    def close(self) -> None:
        """Ends all jobs and the server."""
        self.scheduler.close()
        if self._server is not None:
            self._server.shutdown()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        if environ["PATH_INFO"].startswith("/_fake/"):
            return self._control(environ, start_response)
        call = parse_call(environ, _peek_body(environ))
        self._count(call.name)
        fault = self.faults.for_call(call)
        if fault and fault.kind == "cut_request":
            self._count(f"{call.name}:{fault.kind}")
            return _cut(environ, start_response)
        try:
            self._throttle(call)
            if fault and fault.kind != "cut_reply":
                self._count(f"{call.name}:{fault.kind}")
                raise _error_of(fault, call)
            status, headers, body = self._answer(call, environ)
        except ServiceError as error:
            status, headers, body = _error_reply(error, call)
        if fault and fault.kind == "cut_reply" and status.startswith("2"):
            self._count(f"{call.name}:{fault.kind}")
            # boto3 takes half an answer of other operations for a whole one, which a lost connection never sends.
            if call.operation != "GetObject":
                return _cut(environ, start_response)
            return _cut_reply(environ, start_response, status, headers, body)
        start_response(status, headers)
        return body

    # -- answers
    def _answer(self, call: Call, environ: dict[str, Any]) -> tuple[str, Headers, Iterable[bytes]]:
        if call.service == "batch":
            answer = self._api.answer(call.operation, call.region, _peek_body(environ) or b"")
            if answer is not None:
                return _json_reply(answer)
        elif call.service == "ecs" and call.operation == "DescribeContainerInstances":
            return _json_reply(self._container_instances(call, json.loads(_peek_body(environ) or b"{}")))
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
            with self._conditional:
                status, headers, body = self._ask_moto(environ)
        else:
            status, headers, body = self._ask_moto(environ)
        if call.service == "batch":
            return self._with_overlays(call, status, headers, body)
        return status, headers, body

    def _ask_moto(self, environ: dict[str, Any]) -> tuple[str, Headers, Iterable[bytes]]:
        body, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        return status, list(headers), body

    def _with_overlays(
        self, call: Call, status: str, headers: Headers, body: Iterable[bytes]
    ) -> tuple[str, Headers, Iterable[bytes]]:
        overlays = {
            "DescribeComputeEnvironments": (
                "computeEnvironments",
                "computeEnvironmentName",
                self.settings.compute_environments,
            ),
            "DescribeJobQueues": ("jobQueues", "jobQueueName", self.settings.job_queues),
        }
        if call.operation not in overlays or not status.startswith("2"):
            if not call.operation.startswith("Describe"):
                self.scheduler.changed()
            return status, headers, body
        items, name, laid_over = overlays[call.operation]
        answer = json.loads(b"".join(body))
        for item in answer[items]:
            item |= laid_over.get(item[name], {})
        return _json_reply(answer)

    def _container_instances(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        found = []
        for arn in request.get("containerInstances", []):
            queue, _, identifier = arn.partition("container-instance/")[2].partition("/")
            machine = self.account.instance_type(call.region, queue.removesuffix("_Batch"))
            found.append(
                {
                    "containerInstanceArn": arn,
                    "ec2InstanceId": f"i-{identifier[:17]}",
                    "status": "ACTIVE",
                    "attributes": [{"name": "ecs.instance-type", "value": machine}],
                }
            )
        return {"containerInstances": found, "failures": []}

    # -- limits and counts
    def _throttle(self, call: Call) -> None:
        rate = self.settings.rates.get(call.operation)
        if rate is None:
            return
        with self._lock:
            bucket = self._buckets.get(call.operation)
            if bucket is None or bucket.rate != rate:
                bucket = self._buckets[call.operation] = TokenBucket(rate)
        if not bucket.take():
            self._count(f"{call.name}:throttled")
            raise _error_of(ServiceFault(kind="slow_down"), call)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    # -- control
    def _control(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, _, path = environ["REQUEST_METHOD"], *environ["PATH_INFO"].partition("/_fake/")[1:]
        try:
            answer = self._controlled(method, path, json.loads(_read_body(environ) or b"null"))
        except (ValidationError, ValueError, TypeError) as error:
            answer, status = {"error": str(error)}, "400 Bad Request"
        else:
            status = "404 Not Found" if answer is None else "200 OK"
        status, headers, body = _json_reply(answer, status)
        start_response(status, headers)
        return body

    def _reset(self) -> None:
        self.faults.set([])
        self.settings.time_scale = 1e-3  # nobody waits for the 30 s of a job that ignores SIGTERM
        self.scheduler.forget()
        self.account.empty()
        for name, value in self._first_settings.model_copy(deep=True):
            setattr(self.settings, name, value)
        with self._lock:
            self._counts.clear()
            self._buckets.clear()

    def _controlled(self, method: str, path: str, body: Any) -> Any:
        match method, path.split("/"):
            case "GET", ["health"]:
                return {"ok": True}
            case "GET", ["credentials"]:
                return _temporary_credentials()
            case "GET", ["stats"]:
                with self._lock:
                    return dict(self._counts)
            case "DELETE", ["stats"]:
                with self._lock:
                    self._counts.clear()
                return {}
            case "GET", ["jobs"]:
                return [job.description() for job in list(self.scheduler.jobs.values())]
            case "GET", ["counts"]:
                return dict(collections.Counter(job.status for job in list(self.scheduler.jobs.values())))
            case "GET", ["logs", job_id] if job_id in self.scheduler.jobs:
                job = self.scheduler.jobs[job_id]
                options = (job.container.get("logConfiguration") or {}).get("options", {})
                group = options.get("awslogs-group", DEFAULT_LOG_GROUP)
                streams = [attempt["container"].get("logStreamName") for attempt in job.attempts]
                streams += [] if job.ended else [job.log_stream]
                return [line for s in streams if s for line in self.account.read_log(job.region, group, s)]
            case "POST", ["reset"]:
                self._reset()
                return {}
            case "PUT", ["faults"]:
                self.faults.set([parse_fault(fault) for fault in body])
                self.scheduler.changed()
                return {}
            case "PATCH", ["settings"]:
                Settings.model_validate({**self.settings.model_dump(), **body})
                for name, value in body.items():
                    setattr(self.settings, name, value)
                self.scheduler.changed()
                return self.settings.model_dump()
            case _:
                return None


class _QuietHandler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Requests are counted, not printed."""


# ---------------------------------------------------------------- requests
def _read_body(environ: dict[str, Any]) -> bytes:
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _peek_body(environ: dict[str, Any]) -> bytes | None:
    """The body, left in place for moto. Not of S3, whose objects are large and whose calls need no look at them."""
    if "fake.body" not in environ:
        if "/s3/aws4_request" in environ.get("HTTP_AUTHORIZATION", "/s3/aws4_request"):
            return None
        environ["fake.body"] = _read_body(environ)
    environ["wsgi.input"] = io.BytesIO(environ["fake.body"])
    return environ["fake.body"]


# ---------------------------------------------------------------- replies
def _json_reply(answer: Any, status: str = "200 OK", extra: Headers | None = None) -> tuple[str, Headers, list[bytes]]:
    body = json.dumps(answer).encode()
    return status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *(extra or [])], [body]


def _error_of(fault: ServiceFault, call: Call) -> ServiceError:
    """The error of a fault, in the words of the service that is called."""
    s3, batch, named = call.protocol == "s3", call.service == "batch", call.protocol in ("json", "rest-json")
    match fault.kind:
        case "slow_down" if s3:
            return ServiceError("SlowDown", "Please reduce your request rate.", 503)
        case "slow_down" if batch:
            return ServiceError("TooManyRequestsException", "Too Many Requests", 429)
        case "slow_down":
            return ServiceError("ThrottlingException" if named else "Throttling", "Rate exceeded", 400)
        case "internal_error" if batch:
            return ServiceError("ServerException", "Internal server error", 500)
        case "internal_error":
            code = "InternalError" if s3 else "InternalServerException" if named else "InternalFailure"
            return ServiceError(code, "We encountered an internal error. Please try again.", 500)
        case "access_denied":
            who = "arn:aws:sts::123456789012:assumed-role/fake/session"
            message = f"User: {who} is not authorized to perform: {call.name}"
            return ServiceError("AccessDeniedException" if named else "AccessDenied", message, 403)
        case "expired_token" if s3:
            return ServiceError("ExpiredToken", "The provided token has expired.", 400)
        case _:
            code = "ExpiredTokenException" if named else "ExpiredToken"
            return ServiceError(code, "The security token included in the request is expired", 403)


def _error_reply(error: ServiceError, call: Call) -> tuple[str, Headers, list[bytes]]:
    status = f"{error.status} {'Too Many Requests' if error.status == 429 else 'Error'}"
    if call.protocol in ("json", "rest-json"):
        extra = [("x-amzn-ErrorType", error.code)]
        return _json_reply({"__type": error.code, "message": error.message}, status, extra)
    text = f"<Code>{error.code}</Code><Message>{error.message}</Message>"
    request_id = "<RequestId>FAKE</RequestId>"
    if call.protocol == "s3":
        xml = f'<?xml version="1.0" encoding="UTF-8"?><Error>{text}{request_id}</Error>'
    else:
        xml = f"<ErrorResponse><Error><Type>Sender</Type>{text}</Error>{request_id}</ErrorResponse>"
    body = xml.encode()
    return status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))], [body]


def _close_connection(environ: dict[str, Any]) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)


def _cut(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Closes the connection; the write that the server still tries fails, which it takes for a client gone."""
    _close_connection(environ)
    start_response("500 Cut", [("Content-Length", "0")])
    return []


def _cut_reply(
    environ: dict[str, Any], start_response: StartResponse, status: str, headers: Headers, body: Iterable[bytes]
) -> Iterable[bytes]:
    """Sends the head and half of the body, then closes."""
    whole = b"".join(body)
    headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start_response(status, [*headers, ("Content-Length", str(len(whole)))])

    def halves() -> Iterable[bytes]:
        yield whole[: len(whole) // 2]
        _close_connection(environ)

    return halves()


def _temporary_credentials() -> dict[str, str]:
    """What ECS gives a task with a role: keys for an hour."""
    expires = datetime.now(UTC) + timedelta(hours=1)
    return {
        "RoleArn": "arn:aws:iam::123456789012:role/job-role",
        "AccessKeyId": "ASIAFAKEJOBROLE",
        "SecretAccessKey": "fake",
        "Token": "fake",
        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
