"""What a request to an AWS API asks for, and how AWS words its errors on the wire. Bodies are read, never logged."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from werkzeug.exceptions import NotFound
from werkzeug.test import create_environ
from werkzeug.wrappers import Response
from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

# Of AWS's Signature Version 4: Credential=<key id>/<date>/<region>/<service>/aws4_request
_CREDENTIAL = re.compile(r"Credential=[^/\s]+/\d{8}/[^/\s]+/(?P<service>[^/\s]+)/aws4_request")
_QUERY_SERVICES = frozenset({"iam", "sts"})
_READS = ("Get", "List", "Describe", "Head", "BatchGet", "Lookup", "Search", "Simulate", "Validate", "Filter")
# These neither change a key nor keep anything, unless they are the first to use one of AWS's own keys (alias/aws/…).
_CRYPTOGRAPHY = ("Encrypt", "Decrypt", "ReEncrypt", "Generate", "Sign", "Verify")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: ``service`` by its signing name (``secretsmanager``), ``operation`` as in AWS's API reference."""

    service: str
    operation: str
    signed_at: datetime | None
    changes: bool

    def __str__(self) -> str:
        return f"{self.service}.{self.operation}"


def prepare() -> None:
    """Build the routes of S3, which every thread is asked for. Two threads that build routes at the same time can fail
    with a SystemError: Python 3.11's ast counts one recursion for all of them (CPython, gh-106905)."""
    _rest_operation(create_environ("/"), "s3")


def read_call(environ: WSGIEnvironment) -> Call:
    """Tell what a request asks for. Its body is read and put back."""
    body = get_input_stream(environ).read()
    environ["wsgi.input"] = io.BytesIO(body)
    query = parse_qs(environ.get("QUERY_STRING", ""))
    form = parse_qs(body.decode("ascii", "replace")) if _is_form(environ) else {}
    scope = environ.get("HTTP_AUTHORIZATION", "") or f"Credential={query.get('X-Amz-Credential', [''])[0]}"
    credential = _CREDENTIAL.search(scope)
    service = credential["service"] if credential else "sts" if "Action" in form else "s3"
    operation = _operation(environ, service, query, form)
    return Call(service, operation, _signed_at(environ, query), _changes(service, operation, body))


def _is_form(environ: WSGIEnvironment) -> bool:
    return str(environ.get("CONTENT_TYPE", "")).startswith("application/x-www-form-urlencoded")


def _operation(
    environ: WSGIEnvironment, service: str, query: Mapping[str, list[str]], form: Mapping[str, list[str]]
) -> str:
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    if action := form.get("Action") or query.get("Action"):
        return action[0]
    return _rest_operation(environ, service)


def _rest_operation(environ: WSGIEnvironment, service: str) -> str:
    """The operation of a REST service (S3) by botocore's model of its routes; the HTTP method where that has none."""
    from moto.core.request import Request
    from moto.core.routing import get_service_router

    try:
        operation, _ = get_service_router(service).match(Request(environ.copy()))
    except (NotFound, NotImplementedError, KeyError):
        return str(environ["REQUEST_METHOD"]).capitalize()
    return str(operation.name)


def _changes(service: str, operation: str, body: bytes) -> bool:
    if operation.startswith(_READS):
        return False
    return not (service == "kms" and operation.startswith(_CRYPTOGRAPHY) and b"alias/aws/" not in body)


def _signed_at(environ: WSGIEnvironment, query: Mapping[str, list[str]]) -> datetime | None:
    stamp = environ.get("HTTP_X_AMZ_DATE") or query.get("X-Amz-Date", [""])[0]
    try:
        return datetime.strptime(str(stamp), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def error(service: str, status: int, code: str, message: str) -> Response:
    """An error in the words of the service's protocol: S3's XML, the Query protocol's XML, else JSON."""
    if service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        return Response(body, status, content_type="application/xml")
    if service in _QUERY_SERVICES:
        detail = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        return Response(f"<ErrorResponse>{detail}</ErrorResponse>", status, content_type="text/xml")
    answer = json_answer({"__type": code, "message": message}, status)
    answer.headers["x-amzn-ErrorType"] = code
    return answer


def json_answer(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


def clock_error(call: Call, now: datetime) -> Response | None:
    """AWS's refusal of a request that was signed more than 5 minutes (S3: 15) away from the server's clock.

    Source: IAM User Guide, "Troubleshoot Signature Version 4 signing for AWS API requests".
    """
    limit = timedelta(minutes=15 if call.service == "s3" else 5)
    if call.signed_at is None or abs(now - call.signed_at) <= limit:
        return None
    if call.service == "s3":
        message = "The difference between the request time and the current time is too large."
        return error("s3", 403, "RequestTimeTooSkewed", message)
    is_query = call.service in _QUERY_SERVICES
    status, code = (403, "SignatureDoesNotMatch") if is_query else (400, "InvalidSignatureException")
    problem = "Signature expired" if call.signed_at < now else "Signature not yet current"
    return error(call.service, status, code, f"{problem}: {call.signed_at:%Y%m%dT%H%M%SZ} at {now:%Y%m%dT%H%M%SZ}")
