"""The service's limits, as it words them. Figures: AWS Batch's user guide and service model."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

MAX_OVERRIDES = 8192
MAX_SUBMISSION = 30 * 1024
MAX_DEFINITION = 24 * 1024
MAX_DESCRIBED = 100
MAX_TAGS = 50
MIN_TIMEOUT = 60
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_RETRY_PATTERN = re.compile(r"[A-Za-z0-9.:\s]*\*?")
_EXIT_CODE_PATTERN = re.compile(r"[0-9]*\*?")


class ServiceError(Exception):
    """An error that the service answers with."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


def client_error(message: str) -> ServiceError:
    """Batch's answer to a request that is at fault."""
    return ServiceError("ClientException", message)


class TokenBucket:
    """`rate` calls a second, with a burst of one second's worth."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._tokens = max(1.0, rate)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether a call may pass now."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(max(1.0, self.rate), self._tokens + (now - self._at) * self.rate)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def check_submission(request: dict[str, Any], size: int, fair_share: bool) -> None:
    """Raises what SubmitJob answers to a request that it does not accept."""
    if size > MAX_SUBMISSION:
        raise client_error(f"Error executing request, Exception : Job size must be less than 30 KiB, got {size} bytes.")
    if not _JOB_NAME.fullmatch(request.get("jobName", "")):
        raise client_error("Error executing request, Exception : Job name should match valid pattern")
    for entry in request.get("containerOverrides", {}).get("environment", []):
        if entry.get("name", "").startswith("AWS_BATCH"):
            raise client_error(
                "Error executing request, Exception : Environment variables must not start with AWS_BATCH."
            )
    if fair_share and not request.get("shareIdentifier"):
        raise client_error(
            "Error executing request, Exception : Must specify shareIdentifier for a queue with a scheduling policy."
        )
    if not fair_share and request.get("shareIdentifier"):
        raise client_error(
            "Error executing request, Exception : Cannot specify shareIdentifier for a job queue without a scheduling "
            "policy."
        )
    for unsupported in ("arrayProperties", "dependsOn", "nodeOverrides", "eksPropertiesOverride"):
        if request.get(unsupported):
            raise client_error(f"tests.fake_aws does not do {unsupported}")
    check_retries(request.get("retryStrategy"))
    check_timeout(request.get("timeout"))
    check_tags(request.get("tags"))
    check_requirements(request.get("containerOverrides", {}))


def check_definition(request: dict[str, Any], size: int) -> None:
    """Raises what RegisterJobDefinition answers to a definition that it does not accept."""
    if size > MAX_DEFINITION:
        raise client_error(
            f"Error executing request, Exception : Job definition size must be less than 24 KiB, got {size}"
        )
    for entry in (request.get("containerProperties") or {}).get("environment", []):
        if entry.get("name", "").startswith("AWS_BATCH"):
            raise client_error(
                "Error executing request, Exception : Environment variables must not start with AWS_BATCH."
            )
    check_retries(request.get("retryStrategy"))
    check_timeout(request.get("timeout"))
    check_tags(request.get("tags"))
    check_requirements(request.get("containerProperties") or {})


def check_retries(strategy: dict[str, Any] | None) -> None:
    """1 to 10 attempts, at most five rules, an asterisk only at the end of a pattern."""
    if not strategy:
        return
    if not 1 <= strategy.get("attempts", 1) <= 10:
        raise client_error("Error executing request, Exception : RetryStrategy attempts must be between 1 and 10.")
    rules = strategy.get("evaluateOnExit") or []
    if len(rules) > 5:
        raise client_error("Error executing request, Exception : At most 5 evaluateOnExit rules may be given.")
    if rules and "attempts" not in strategy:
        raise client_error("Error executing request, Exception : evaluateOnExit needs attempts.")
    for rule in rules:
        if rule.get("action", "").upper() not in ("RETRY", "EXIT"):
            raise client_error("Error executing request, Exception : evaluateOnExit action must be RETRY or EXIT.")
        for name in ("onReason", "onStatusReason", "onExitCode"):
            allowed = _EXIT_CODE_PATTERN if name == "onExitCode" else _RETRY_PATTERN
            if name in rule and not allowed.fullmatch(rule[name]):
                raise client_error(
                    f"Error executing request, Exception : {name} {rule[name]!r} is not a valid pattern."
                )


def check_timeout(timeout: dict[str, Any] | None) -> None:
    """A minute at least."""
    if timeout and timeout.get("attemptDurationSeconds", MIN_TIMEOUT) < MIN_TIMEOUT:
        raise client_error("Error executing request, Exception : Timeout must be at least 60 seconds.")


def check_tags(tags: dict[str, str] | None) -> None:
    """At most fifty, names to 128 and values to 256 characters."""
    tags = tags or {}
    if len(tags) > MAX_TAGS or any(len(key) > 128 or len(value) > 256 for key, value in tags.items()):
        raise client_error("Error executing request, Exception : too many or too long tags.")


def check_requirements(container: dict[str, Any]) -> None:
    """Whole vCPUs and GPUs, 4 MiB at least (jobs on EC2)."""
    for requirement in container.get("resourceRequirements", []):
        kind, value = requirement.get("type"), str(requirement.get("value"))
        if kind not in ("VCPU", "MEMORY", "GPU") or not value.isdigit() or int(value) < (4 if kind == "MEMORY" else 1):
            raise client_error(
                f"Error executing request, Exception : resourceRequirement {kind}={value} is not valid for EC2."
            )


def overrides_too_long(request: dict[str, Any]) -> bool:
    """ECS takes 8,192 characters of overrides. SubmitJob does not look; the job fails later."""
    return len(json.dumps(request.get("containerOverrides", {}), separators=(",", ":"))) > MAX_OVERRIDES
