"""What the Tencent Cloud plugins share: signed calls, their rates, and the cloud's errors in keyturn's words.

Credentials come from the environment, read anew for each call: TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY and
TENCENTCLOUD_TOKEN, or what a cloud function gets (TENCENTCLOUD_SECRETID, TENCENTCLOUD_SECRETKEY,
TENCENTCLOUD_SESSIONTOKEN); else from the role that a pipeline's job assumes with its own identity
(TENCENTCLOUD_ROLE_ARN, see :func:`job_role`); else from the rest of the official SDK's chain:
``~/.tencentcloud/credentials``, the role of a virtual machine, the OIDC role of a pod.

Of the SDK only the client, its signature and this chain are used. Its retryer may send a write again that was applied,
and its models let an answer pass that says nothing; so calls are tried again by :mod:`rotation.retries`, and answers
are checked here.

No value gets out this way: the SDK's own log, which at DEBUG holds requests and answers in full, is kept at INFO; the
exceptions of the SDK and of requests hold the body that was sent, so they are never chained; and a call that carries a
value (``quiet``) quotes nothing of the cloud's answer but its code.
"""

from __future__ import annotations

import configparser
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pyrate_limiter import Duration, Limiter, Rate
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import CVMRoleCredential, DefaultTkeOIDCRoleArnProvider, ProfileCredential
from tencentcloud.common.exception import tencent_cloud_sdk_exception
from tencentcloud.common.http.request import RequestInternal
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

from rotation.errors import ClockSkew, KeyturnError, OutcomeUnknown, Unauthorized, Unavailable, UsageError
from rotation.job_identity import from_github
from rotation.retries import retrying

Refusals = Mapping[str, type[KeyturnError]]
SdkError = tencent_cloud_sdk_exception.TencentCloudSDKException

VERSIONS: Mapping[str, str] = {
    "cam": "2019-01-16",
    "cls": "2020-10-16",
    "kms": "2019-01-18",
    "scf": "2018-04-16",
    "ssm": "2019-09-23",
    "sts": "2018-08-13",
}
CONNECT_TIMEOUT = 5.0  # seconds

# Calls per second and account, as https://www.tencentcloud.com/document/product/1105 (SSM) and 1030 (KMS) say of each;
# most have 20.
PER_SECOND: Mapping[str, int] = {
    "CreateSecret": 100,
    "Decrypt": 100,
    "DeleteSecretVersion": 50,
    "DescribeSecret": 40,
    "GenerateDataKey": 100,
    "GetSecretValue": 300,
    "ListSecretVersionIds": 40,
    "ListSecrets": 40,
    "PutSecretValue": 100,
    "ReEncrypt": 100,
}
_OTHERS_PER_SECOND = 20

_SIGNED_AT, _SIGNED_BY = "KeyturnSignedAt", "KeyturnSignedBy"
_LOST = frozenset({"ClientNetworkError", "ServerNetworkError"})  # the SDK's own codes: no answer, or none of the API


class Throttled(Unavailable):
    remedy = "Others call as this account, too: run the command again in a while, with fewer workers: it resumes."


class _IdentityRefused(Unauthorized):
    remedy = (
        "The job's token has ended, or TENCENTCLOUD_PROVIDER_ID is not the provider of its issuer and audience: compare"
        " them, and start the build again for a new token; it resumes."
    )


class _NotTrusted(Unauthorized):
    remedy = (
        "Compare TENCENTCLOUD_ROLE_ARN and the job (repository, GitHub environment) with the role and the trust that"
        " the foundation stack declares, and deploy that; then run the command again: it resumes."
    )


_MEANINGS: Refusals = {  # of codes, or of their part before the dot, whatever was called
    "AuthFailure": Unauthorized,
    "AuthFailure.SignatureExpire": ClockSkew,
    "InternalError": OutcomeUnknown,
    "RequestLimitExceeded": Throttled,
    "ServiceUnavailable": Unavailable,
    "UnauthorizedOperation": Unauthorized,
}
_QUOTED = 300  # characters of an answer's message
_FROM_ENVIRONMENT = (
    ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN"),
    ("TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY", "TENCENTCLOUD_SESSIONTOKEN"),
)
_RENEW_AFTER = 2 / 3  # of a role's session
_RENEW_AGAIN = 60.0  # seconds
JOB_AUDIENCE = "sts.tencentcloudapi.com"  # whom a job's token of GitHub Actions is made for
_SKIPPED = frozenset({"AssumeRoleWithWebIdentity"})  # what is sent without a signature: it is how one gets a key
_METADATA = ("metadata.tencentyun.com", 80)  # of a virtual machine

logging.getLogger("tencentcloud_sdk_common").setLevel(logging.INFO)


class Connection(BaseModel):
    """The options that every Tencent Cloud plugin takes.

    ``region`` defaults to TENCENTCLOUD_REGION. ``endpoint`` is a server that stands for all services
    (``http://host:port``); without one each service's own is used. ``timeout`` is for an answer, in seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: str | None = Field(default=None, pattern=r"^[a-z]+(-[a-z0-9]+)+$")
    endpoint: str | None = Field(default=None, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]+)?$")
    timeout: float = Field(default=15.0, gt=0, le=60)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a call is spoken of, and what its answers mean.

    ``doing`` completes "could not …". ``refuse`` maps the cloud's error codes, or their part before the dot, to errors;
    other refusals become ``otherwise``. An answer without the fields that it ``requires`` is no answer. ``quiet``
    calls carry a value.
    """

    doing: str
    otherwise: type[KeyturnError]
    refuse: Refusals = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    quiet: bool = False


def connect(connection: Connection) -> Cloud:
    """The calls of one region; one object for all plugins that ask for the same.

    Raises :class:`UsageError` where neither the option nor the environment names a region.
    """
    region = connection.region or os.environ.get("TENCENTCLOUD_REGION")
    if not region:
        raise UsageError("no region of Tencent Cloud is set", "Declare the option region, or set TENCENTCLOUD_REGION.")
    return _cloud(region, connection.endpoint, connection.timeout)


@cache
def _cloud(region: str, endpoint: str | None, timeout: float) -> Cloud:
    return Cloud(region, endpoint, timeout)


class Cloud:
    """Calls in one region. Safe for threads. ``clock`` gives Unix seconds; it is what requests are signed with.
    ``credentials`` sign instead of the runner's own."""

    def __init__(
        self,
        region: str,
        endpoint: str | None = None,
        timeout: float = 15.0,
        clock: Callable[[], float] = time.time,
        credentials: Provided | None = None,
    ) -> None:
        self.region = region
        self._endpoint = endpoint
        self._timeout = timeout
        self._clock = clock
        self._credentials = credentials or Credentials()
        self._clients: dict[str, _Client] = {}
        self._lock = threading.Lock()

    def signing_as(self, credentials: Provided) -> Cloud:
        """The same calls over the same connections, for whom these credentials are of."""
        other = copy(self)
        other._credentials = credentials
        return other

    def now(self) -> datetime:
        """The time that requests are signed with."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def call(self, service: str, action: str, parameters: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
        """Call, again and again while it is :class:`Unavailable`; return the answer's fields.

        Only for what may be done twice; for what may not, see :meth:`call_once`.
        """
        return retrying(lambda: self.call_once(service, action, parameters, manner))

    def call_once(
        self,
        service: str,
        action: str,
        parameters: Mapping[str, Any],
        manner: Manner,
        *,
        holds: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Call once. Raises :class:`OutcomeUnknown` where the request may have been applied, or may be yet.

        With ``holds`` the request is bound to a lease: its time is taken first, then ``holds`` is called, which raises
        where the lease is lost, and only then the request is signed, with that time. The cloud refuses it 300 s later,
        so whatever holds up this process or the network, it is applied soon after a moment at which the lease was held,
        or never.
        """
        _limiter(self.region, service, action).try_acquire(action)
        signed_at = int(self._clock())
        if holds is not None:
            holds()
        try:
            answer = json.loads(self._send(service, action, parameters, signed_at))["Response"]
            problem = _flaw(answer, manner.requires)
            if problem is None:
                return dict(answer)
        except SdkError as error:
            problem = (str(error.code), str(error.message))
        except (OSError, ValueError, LookupError, TypeError) as error:
            problem = ("ClientNetworkError", type(error).__name__)
        # Raised out here it has no exception of the SDK as its context.
        raise _translated(*problem, manner, self._endpoint)

    def _send(self, service: str, action: str, parameters: Mapping[str, Any], signed_at: int) -> bytes:
        options = {_SIGNED_AT: signed_at, _SIGNED_BY: self._credentials, "SkipSign": action in _SKIPPED}
        body: bytes = self._client(service).call(action, dict(parameters), options=options)
        return body

    def _client(self, service: str) -> _Client:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._made(service)
            return self._clients[service]

    def _made(self, service: str) -> _Client:
        scheme, netloc = urlsplit(self._endpoint)[:2] if self._endpoint else ("https", None)
        http = HttpProfile(protocol=scheme, endpoint=netloc, reqTimeout=(CONNECT_TIMEOUT, self._timeout))
        profile = ClientProfile(httpProfile=http, language="en-US", request_client="keyturn")
        return _Client(service, VERSIONS[service], self._credentials, self.region, profile)


class _Client(CommonClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's client, whose requests carry the time and are signed by whom they are told."""

    def _build_req_with_tc3_signature(
        self, action: str, params: dict[str, Any], req: RequestInternal, options: dict[str, Any] | None = None
    ) -> None:
        """The SDK's method of the same name for a POST of JSON, but for the time.
        https://www.tencentcloud.com/document/api/1105/50207 ("Signature v3")"""
        options = options or {}
        signed_at = int(options[_SIGNED_AT])
        secret_id, secret_key, token = options[_SIGNED_BY].get_credential_info()
        req.data = json.dumps(params)
        req.header |= {
            "Content-Type": "application/json",
            "Host": self._get_endpoint(options=options),
            "X-TC-Action": action,
            "X-TC-Language": self.profile.language,
            "X-TC-Region": self.region,
            "X-TC-RequestClient": self.request_client,
            "X-TC-Timestamp": str(signed_at),
            "X-TC-Version": self._apiVersion,
            **({"X-TC-Token": token} if token else {}),
        }
        date = f"{datetime.fromtimestamp(signed_at, UTC):%Y-%m-%d}"
        signature = self._get_tc3_signature(params, req, date, self._service, secret_key, options)
        req.header["Authorization"] = (
            f"TC3-HMAC-SHA256 Credential={secret_id}/{date}/{self._service}/tc3_request,"
            f" SignedHeaders=content-type;host, Signature={signature}"
        )


class Provided(Protocol):
    """Who signs."""

    def get_credential_info(self) -> tuple[str, str, str | None]: ...


class Credentials:
    """Who the runner is, asked for at each call: the environment's keys change under a warm cloud function."""

    def __init__(self) -> None:
        self._chain: Provided | None = None
        self._lock = threading.Lock()

    def get_credential_info(self) -> tuple[str, str, str | None]:
        """Identifier, key and token (None: a permanent key). Raises :class:`Unauthorized` where there is none."""
        for names in _FROM_ENVIRONMENT:
            secret_id, secret_key, token = (os.environ.get(name, "").strip() for name in names)
            if secret_id and secret_key:
                return secret_id, secret_key, token or None
        found = self._provided().get_credential_info()
        if not all(found[:2]):
            raise _no_credentials()
        return found

    def _provided(self) -> Provided:
        with self._lock:
            if self._chain is None:
                self._chain = job_role() or _of_file() or _of_machine() or _of_pod()
            if self._chain is None:
                raise _no_credentials()
            return self._chain


@dataclass(frozen=True, slots=True)
class _Session:
    """A role's keys for a while: when to look for the next ones, and when they end, by the clock of the calls."""

    keys: tuple[str, str, str] = field(repr=False)
    look_at: float
    end: float


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """Which ``role`` a pipeline's job assumes through which OIDC ``provider`` of CAM, with the token of ``token_file``,
    or, without one, of GitHub Actions. The file is read anew each time."""

    role: str
    provider: str
    token_file: Path | None = None

    def token(self) -> str:
        """Raises :class:`Unauthorized` where there is none, :class:`Unavailable` where GitHub does not answer."""
        if self.token_file is None:
            return from_github(JOB_AUDIENCE, "set TENCENTCLOUD_WEB_IDENTITY_TOKEN_FILE")
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            kind = type(error).__name__
        raise Unauthorized(
            f"the job's token in {self.token_file} cannot be read: {kind}",
            "Let TENCENTCLOUD_WEB_IDENTITY_TOKEN_FILE name the file in which the pipeline puts it.",
        )


class JobRole:
    """The role of a pipeline's job, assumed at ``sts`` and again before its keys end. Safe for threads.

    The SDK's OIDCRoleArnCredential takes no server but an https:// one, keeps one token for all times, and raises what
    it is asked at the first failed renewal; so of it only the call is used.
    """

    def __init__(self, identity: JobIdentity, sts: Cloud) -> None:
        self._identity = identity
        self._sts = sts
        self._held: _Session | None = None
        self._lock = threading.Lock()

    def get_credential_info(self) -> tuple[str, str, str]:
        """Identifier, key and token. Raises :class:`Unauthorized` where the role is refused, :class:`Unavailable`
        where STS or GitHub does not answer and there are no keys that are still good."""
        with self._lock:
            now = self._sts.now().timestamp()
            if self._held is None or now >= self._held.end:
                self._held = retrying(lambda: self._assumed(now))
            elif now >= self._held.look_at:
                self._held = self._next(self._held, now)
            return self._held.keys

    def _next(self, held: _Session, now: float) -> _Session:
        """The next session; or this one for a while, as it is still good."""
        try:
            return self._assumed(now)
        except KeyturnError:
            return replace(held, look_at=now + _RENEW_AGAIN)

    def _assumed(self, now: float) -> _Session:
        asked = {
            "ProviderId": self._identity.provider,
            "WebIdentityToken": self._identity.token(),
            "RoleArn": self._identity.role,
            "RoleSessionName": "keyturn",
        }
        answer = self._sts.call_once("sts", "AssumeRoleWithWebIdentity", asked, _assuming(self._identity.role))
        keys = answer["Credentials"]
        end = float(answer["ExpiredTime"])
        found = (keys["TmpSecretId"], keys["TmpSecretKey"], keys["Token"])
        return _Session(found, now + (end - now) * _RENEW_AFTER, end)


def _assuming(role: str) -> Manner:
    """https://www.tencentcloud.com/document/product/1150/49454 and the error codes of the SDK's sts.v20180813"""
    return Manner(
        f"assume the role {role} with the job's own identity",
        _NotTrusted,
        {
            "InternalError.GetRoleError": _NotTrusted,
            "InvalidParameter.OverLimit": Throttled,
            "InvalidParameter.WebIdentityTokenError": _IdentityRefused,
            "UnauthorizedOperation": _NotTrusted,
        },
        requires=("Credentials", "ExpiredTime"),
        quiet=True,
    )


def job_role() -> JobRole | None:
    """The role that the environment names for a pipeline's job: TENCENTCLOUD_ROLE_ARN and TENCENTCLOUD_PROVIDER_ID,
    with the token in TENCENTCLOUD_WEB_IDENTITY_TOKEN_FILE or of GitHub Actions. None where it names no role.

    TENCENTCLOUD_STS_ENDPOINT is another server of STS (``https://host``). Raises :class:`UsageError` without provider.
    """
    role, provider, file, endpoint = (
        os.environ.get(f"TENCENTCLOUD_{name}", "").strip()
        for name in ("ROLE_ARN", "PROVIDER_ID", "WEB_IDENTITY_TOKEN_FILE", "STS_ENDPOINT")
    )
    if not role:
        return None
    if not provider:
        raise UsageError(
            f"no OIDC provider is set for the role {role}",
            "Set TENCENTCLOUD_PROVIDER_ID to the provider's name, which the foundation stack declares.",
        )
    region = os.environ.get("TENCENTCLOUD_REGION") or "ap-guangzhou"  # as in the SDK: STS is one for all regions
    return _job_role(JobIdentity(role, provider, Path(file) if file else None), region, endpoint or None)


@cache
def _job_role(identity: JobIdentity, region: str, endpoint: str | None) -> JobRole:
    """One for all calls of this process."""
    return JobRole(identity, Cloud(region, endpoint))


def terraform_keys() -> dict[str, str]:
    """The variables in which Terraform's provider and its backend ``cos`` look for keys, with those of the job's role;
    none where there is no such role, or the environment has keys."""
    if any(os.environ.get(name) for name, _, _ in _FROM_ENVIRONMENT) or (role := job_role()) is None:
        return {}
    names = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_SECURITY_TOKEN")
    return dict(zip(names, role.get_credential_info(), strict=True))


def _of_file() -> Provided | None:
    """The file of Tencent's own tools. For one that is wrong the SDK raises whatever comes, and quotes the line."""
    try:
        found: Provided | None = ProfileCredential().get_credential()
    except (configparser.Error, AttributeError, ValueError):
        pass
    else:
        return found
    # Raised out here it has no exception as its context that quotes the file.
    raise Unauthorized(
        "the file .tencentcloud/credentials cannot be used: it has no section [default] of name = value lines",
        "Write secret_id and secret_key below [default] there, or set TENCENTCLOUD_SECRET_ID and _SECRET_KEY.",
    )


def _of_machine() -> Provided | None:
    """The role of a virtual machine. The SDK waits for its metadata without end, so they have to be within reach."""
    try:
        socket.create_connection(_METADATA, CONNECT_TIMEOUT).close()
    except OSError:
        return None
    role: Provided | None = CVMRoleCredential().get_credential()
    return role


def _of_pod() -> Provided | None:
    """The role of a pod in TKE."""
    try:
        role: Provided | None = DefaultTkeOIDCRoleArnProvider().get_credential()
    except (SdkError, OSError):  # OSError: it is no pod
        return None
    return role


def _no_credentials() -> Unauthorized:
    return Unauthorized(
        "no credentials for Tencent Cloud are found",
        "Set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY (and _TOKEN), or run where a role is bound.",
    )


def _flaw(answer: Mapping[str, Any], requires: tuple[str, ...]) -> tuple[str, str] | None:
    """The code and message of an answer that is an error, or lacks what it should have.

    The SDK looks for an error only where the content type is exactly ``application/json``.
    """
    if "Error" in answer:
        return str(answer["Error"]["Code"]), str(answer["Error"]["Message"])
    missing = [field for field in requires if answer.get(field) is None]
    return ("ServerNetworkError", f"the answer lacks {', '.join(missing)}") if missing else None


def _translated(code: str, message: str, manner: Manner, endpoint: str | None) -> KeyturnError:
    said = code if manner.quiet or not message else f"{code}: {message[:_QUOTED]}"
    if code in _LOST:
        return OutcomeUnknown(
            f"could not {manner.doing}: no answer of {endpoint or 'Tencent Cloud'} came through, {said}"
        )
    kind = code.partition(".")[0]
    refusals = {**_MEANINGS, **manner.refuse}
    error = refusals.get(code, refusals.get(kind, manner.otherwise))
    return error(f"could not {manner.doing}: Tencent Cloud answered {said}")


@cache
def _limiter(region: str, service: str, action: str) -> Limiter:
    """The one limiter of this process for an action: threads and clients share it, as the cloud counts."""
    del region, service
    return Limiter(Rate(PER_SECOND.get(action, _OTHERS_PER_SECOND), Duration.SECOND))
