"""A request to a Tencent Cloud API 3.0, and its answer: how both look on the wire, and when a signature is good.

Source: "API 3.0 Signature v3" (TC3-HMAC-SHA256) and "Common error codes" of Tencent Cloud's API documentation.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

ALGORITHM = "TC3-HMAC-SHA256"
SIGNATURE_LIFE = 300  # seconds, before and after the cloud's own time, in the real one

_AUTHORIZATION = re.compile(
    ALGORITHM + r" Credential=(?P<id>[^/\s,]+)/(?P<date>\d{4}-\d{2}-\d{2})/(?P<service>[a-z0-9]+)/tc3_request,"
    r"\s*SignedHeaders=(?P<headers>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_OF_BUCKET = re.compile(r"(?P<bucket>[a-z0-9-]+-\d+)\.cos\.(?P<region>[a-z0-9-]+)\.myqcloud\.com")


class ApiError(Exception):
    """A refusal in the service's own words. ``code`` is what a client may go by."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed a request. ``account`` is the root account's UIN, ``uin`` the caller's own."""

    account: str
    uin: str
    secret_id: str
    role: str = ""  # of a temporary credential: the role that was assumed


@dataclass(frozen=True, slots=True)
class Credential:
    """A key pair that can sign. ``token`` and ``expires`` (seconds since 1970) are a temporary one's."""

    caller: Caller
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came: the headers by lower-case name, and the body's bytes."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    query: str = ""

    @property
    def bucket(self) -> str | None:
        """The bucket of COS that it is for, by its host name."""
        host = _OF_BUCKET.fullmatch(self.headers.get("host", ""))
        return host["bucket"] if host else None

    @property
    def signed(self) -> bool:
        """Whether the caller says who it is: ``SKIP`` stands where the signature would."""
        return self.headers.get("authorization") != "SKIP"

    @property
    def service(self) -> str:
        """By its host name, or by its signature's scope; empty where there is none."""
        if self.bucket:
            return "cos"
        if not self.signed:
            return "sts"  # the real cloud goes by the host name, and STS alone has actions that need no signature
        scope = _AUTHORIZATION.fullmatch(self.headers.get("authorization", ""))
        return scope["service"] if scope else ""

    @property
    def operation(self) -> str:
        if self.bucket:
            of = "Object" if self.path != "/" else "BucketVersioning" if "versioning" in self.query else "Bucket"
            return f"{self.method.capitalize()}{of}"
        return self.headers.get("x-tc-action", "")

    def header(self, name: str) -> str:
        """A header that every request has. Raises :class:`ApiError` where it is missing."""
        try:
            return self.headers[name.lower()]
        except KeyError:
            raise ApiError("MissingParameter", f"The request has no header `{name}`.") from None


@dataclass(frozen=True, slots=True)
class Call:
    """An action that a known caller asks for."""

    service: str
    action: str
    region: str
    caller: Caller
    body: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.service}.{self.action}"


def authenticate(
    request: Request,
    find: Callable[[str], Credential | None],
    own_names: set[str],
    now: float,
    life: float = SIGNATURE_LIFE,
) -> Caller:
    """Who signed the request, no longer than ``life`` ago; ``find`` knows the credentials by their SecretId.

    The signature is computed again from the bytes that came. ``own_names`` are the ``host:port`` under which this
    server is reached: one that was signed for another host is no good here. Raises :class:`ApiError`.
    """
    signed = _AUTHORIZATION.fullmatch(request.header("Authorization"))
    if signed is None:
        raise ApiError("AuthFailure.InvalidAuthorization", "The header `Authorization` is not as it is documented.")
    if not {"content-type", "host"} <= set(signed["headers"].split(";")):
        raise ApiError("AuthFailure.InvalidAuthorization", "The headers content-type and host must be signed.")
    timestamp = _timestamp(request)
    credential = find(signed["id"])
    if credential is None:
        raise ApiError("AuthFailure.SecretIdNotFound", "The SecretId is not found.")
    date = f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d}"
    if signed["date"] != date or request.header("Host") not in own_names:
        raise _wrong_signature()
    if not hmac.compare_digest(signature(request, signed, credential.secret_key), signed["signature"]):
        raise _wrong_signature()
    if abs(now - timestamp) > life:
        raise ApiError("AuthFailure.SignatureExpire", "The signature is expired: check the clock of the client.")
    _check_token(request, credential, now)
    return credential.caller


def _wrong_signature() -> ApiError:
    return ApiError("AuthFailure.SignatureFailure", "The provided credentials could not be validated.")


def _timestamp(request: Request) -> int:
    text = request.header("X-TC-Timestamp")
    if not re.fullmatch(r"[1-9]\d{0,10}", text):
        raise ApiError("InvalidParameterValue", "The header `X-TC-Timestamp` is no time.")
    return int(text)


def _check_token(request: Request, credential: Credential, now: float) -> None:
    token = request.headers.get("x-tc-token")
    expired = credential.expires is not None and now >= credential.expires
    if token != credential.token or expired:
        raise ApiError("AuthFailure.TokenFailure", "The token is invalid or has expired.")


def signature(request: Request, signed: re.Match[str], secret_key: str) -> str:
    """The signature that the request must have, in hexadecimal digits."""
    names = signed["headers"].split(";")
    headers = "".join(f"{name}:{request.header(name).strip().lower()}\n" for name in names)
    digest = hashlib.sha256(request.body).hexdigest()
    canonical = "\n".join((request.method, request.path, "", headers, signed["headers"], digest))
    scope = f"{signed['date']}/{signed['service']}/tc3_request"
    told = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join((ALGORITHM, request.header("X-TC-Timestamp"), scope, told))
    key = f"TC3{secret_key}".encode()
    for part in (signed["date"], signed["service"], "tc3_request"):
        key = _hmac(key, part)
    return _hmac(key, to_sign).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def reply(fields: Mapping[str, Any]) -> bytes:
    """The envelope of an answer."""
    return json.dumps({"Response": {**fields, "RequestId": str(uuid.uuid4())}}, ensure_ascii=False).encode()


def refusal(error: ApiError) -> bytes:
    """The envelope of a refusal, which comes with HTTP status 200 as an answer does."""
    return reply({"Error": {"Code": error.code, "Message": error.message}})
