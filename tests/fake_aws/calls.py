"""What a request asks for: service, operation, object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

_BATCH_OPERATIONS = """
    CancelJob CreateComputeEnvironment CreateJobQueue CreateSchedulingPolicy DeleteComputeEnvironment DeleteJobQueue
    DeleteSchedulingPolicy DeregisterJobDefinition DescribeComputeEnvironments DescribeJobDefinitions DescribeJobQueues
    DescribeJobs DescribeSchedulingPolicies ListJobs ListSchedulingPolicies RegisterJobDefinition SubmitJob TerminateJob
    UpdateComputeEnvironment UpdateJobQueue UpdateSchedulingPolicy
"""
# The path of a call holds the name in small letters.
BATCH_OPERATIONS = {name.lower(): name for name in _BATCH_OPERATIONS.split()}
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/[^/]+/([^/]+)/([^/]+)/aws4_request")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to a service. `key` is `bucket/key` for S3, else empty."""

    service: str
    operation: str
    region: str
    access_key: str
    key: str
    protocol: str

    @property
    def name(self) -> str:
        """What calls are counted by."""
        return f"{self.service}:{self.operation}"


def parse_call(environ: dict[str, Any], body: bytes | None) -> Call:
    """The call that a WSGI request makes. `body` is needed for the services that put the action there."""
    scope = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    access_key, region, service = scope.groups() if scope else ("", "us-east-1", "s3")
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    key, protocol = "", "json"
    if service == "batch":
        last = path.split("/")[2] if path.count("/") > 1 else ""
        operation = BATCH_OPERATIONS.get(last, f"{method}:{last}")
        protocol = "rest-json"
    elif service == "s3":
        key = path.lstrip("/")
        operation, protocol = _s3_operation(method, key, environ), "s3"
    elif target := environ.get("HTTP_X_AMZ_TARGET"):
        operation = target.rpartition(".")[2]
    else:
        operation, protocol = parse_qs((body or b"").decode(errors="replace")).get("Action", [method])[0], "query"
    return Call(service=service, operation=operation, region=region, access_key=access_key, key=key, protocol=protocol)


def _s3_operation(method: str, path: str, environ: dict[str, Any]) -> str:
    """S3's name of an operation, from the method, the path and the query."""
    bucket, _, key = path.partition("/")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if not bucket:
        return "ListBuckets"
    if key:
        table = {
            "GET": "ListParts" if "uploadId" in query else "GetObject",
            "HEAD": "HeadObject",
            "PUT": "UploadPart" if "uploadId" in query else "PutObject",
            "POST": "CompleteMultipartUpload" if "uploadId" in query else "CreateMultipartUpload",
            "DELETE": "AbortMultipartUpload" if "uploadId" in query else "DeleteObject",
        }
        operation = table.get(method, method)
        if operation == "PutObject" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
            return "CopyObject"
        return operation
    if method == "GET" and "list-type" in query:
        return "ListObjectsV2"
    if method == "POST":
        return "DeleteObjects"
    listing = ("prefix", "marker", "delimiter")
    if part := next((name for name, values in query.items() if not values[0] and name not in listing), None):
        return f"{method.capitalize()}Bucket:{part}"
    table = {"GET": "ListObjects", "HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
    return table.get(method, method)
