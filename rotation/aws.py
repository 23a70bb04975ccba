"""What the AWS plugins share: clients, AWS's request rates, and AWS's errors in keyturn's words.

Endpoint and credentials come from boto3's own standard chain (AWS_ENDPOINT_URL, profiles, OIDC, instance roles).

No value gets out this way: botocore's own logs, which at DEBUG hold requests and responses in full, are kept at INFO;
no message quotes a request's parameters; and a call that carries a value (``quiet``) quotes nothing of AWS's answer
but its code and chains no exception of the SDK, as AWS's validation messages may quote what they refuse.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, TypeVar

import boto3.session
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as AwsConnectionError
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from pydantic import BaseModel, ConfigDict
from pyrate_limiter import Duration, Limiter, Rate

from rotation.errors import ClockSkew, KeyturnError, Unauthorized, Unavailable, UsageError
from rotation.options import parse
from rotation.retries import retrying

T = TypeVar("T")
Client = TypeVar("Client", bound=BaseClient)
Refusals = Mapping[str, type[KeyturnError]]

# Retries are keyturn's (rotation.retries): botocore's own would multiply with them and escape their time limit.
CONFIG = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 1}, user_agent_extra="keyturn")

# AWS refuses a signature whose time is off by more than 5 minutes.
CLOCK_TOLERANCE = 300.0

_UNAUTHORIZED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_BUSY = frozenset(
    {
        "DependencyTimeoutException",
        "InternalFailure",
        "InternalServiceError",
        "KMSInternalException",
        "KeyUnavailableException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
_SKEWED = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)

logging.getLogger("botocore").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Quota:
    """AWS's limit of requests per second, account and region. Operations that share a quota share its name."""

    name: str
    per_second: int


class _Region(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    region: str | None = None


def connect(
    make: Callable[[boto3.session.Session], Client], options: Mapping[str, Any], quotas: Mapping[str, Quota]
) -> Client:
    """Make a client that keeps AWS's request rates and notices a wrong clock.

    ``options`` are a plugin's: ``{"region": str | None}``. ``quotas`` has every operation that will be called.
    Raises :class:`DeclarationError` for other options, :class:`UsageError` where boto3 finds no usable settings.
    """
    region = parse(_Region, options, plugin="AWS").region
    try:
        client = make(_session(region))
    except NoRegionError as error:
        raise UsageError("no AWS region is set", "Declare the option region, or set AWS_REGION.") from error
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"boto3 cannot be set up: {error}", "Check AWS's environment variables and profile."
        ) from error
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"before-sign.{service}", _keep_rate(service, client.meta.region_name, quotas))
    client.meta.events.register(f"after-call.{service}", _check_clock)
    return client


def _session(region: str | None) -> boto3.session.Session:
    """A session, with credentials of its own, that shares what botocore knows of AWS's services."""
    core, loader = botocore.session.get_session(), _loader()
    core.register_component("data_loader", loader)
    session = boto3.session.Session(region_name=region, botocore_session=core)
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # boto3 adds its folder for each session
    return session


@cache
def _loader() -> Loader:
    """Reads the descriptions of AWS's services, each once: for a session with its own that takes 60 ms every time."""
    loader: Loader = botocore.session.get_session().get_component("data_loader")
    return loader


def ask(call: Callable[[], T], doing: str, refusals: Refusals, otherwise: type[KeyturnError], quiet: bool = False) -> T:
    """Call AWS, again and again while it is :class:`Unavailable`; see :func:`ask_once`."""
    return retrying(lambda: ask_once(call, doing, refusals, otherwise, quiet))


def ask_once(
    call: Callable[[], T], doing: str, refusals: Refusals, otherwise: type[KeyturnError], quiet: bool = False
) -> T:
    """Call AWS once, and say its errors in keyturn's words.

    ``doing`` completes "could not …". ``refusals`` maps AWS's error codes to errors; other refusals become
    ``otherwise``. Throttling, 5xx, and connections that fail or time out become :class:`Unavailable`; rejected or
    absent credentials :class:`Unauthorized`; times that are too far apart :class:`ClockSkew`.
    """
    try:
        return call()
    except (ClientError, BotoCoreError) as error:
        cause: Exception | None = None if quiet else error
        problem = _translate(error, doing, refusals, otherwise, quiet)
    # Raised out here, a quiet call's error does not even have the SDK's as its context.
    raise problem from cause


def pages(ask_page: Callable[[dict[str, Any]], Mapping[str, Any]], *, sends: str, reads: str) -> Iterator[Any]:
    """All pages of a list: what a page's ``reads`` holds is the parameter ``sends`` for the next one."""
    more: dict[str, Any] = {}
    while True:
        reply = ask_page(more)
        yield reply
        if not reply.get(reads):
            return
        more = {sends: reply[reads]}


def _translate(
    error: ClientError | BotoCoreError, doing: str, refusals: Refusals, otherwise: type[KeyturnError], quiet: bool
) -> KeyturnError:
    if isinstance(error, ClientError):
        return _translate_answer(error, doing, refusals, otherwise, quiet)
    what = f"could not {doing}: {type(error).__name__}" + ("" if quiet else f": {error}")
    if isinstance(error, _NO_CREDENTIALS):
        return Unauthorized(what)
    if isinstance(error, (AwsConnectionError, HTTPClientError, ResponseParserError)):
        return Unavailable(what)
    return otherwise(what)


def _translate_answer(
    error: ClientError, doing: str, refusals: Refusals, otherwise: type[KeyturnError], quiet: bool
) -> KeyturnError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    what = f"could not {doing}: AWS answered {code}" + (f": {message}" if message and not quiet else "")
    if code in _SKEWED or (code in _UNAUTHORIZED and _speaks_of_time(message)):
        return ClockSkew(what)
    if code in _UNAUTHORIZED:
        return Unauthorized(what)
    if code in _BUSY or status >= 500 or status == 429:
        return Unavailable(what)
    return refusals.get(code, otherwise)(what)


def _speaks_of_time(message: str) -> bool:
    return message.startswith(("Signature expired", "Signature not yet current"))


def _check_clock(http_response: AWSResponse, **_: object) -> None:
    """Compare the answer's Date with this machine's time. An answer without one tells nothing."""
    try:
        theirs = parsedate_to_datetime(http_response.headers.get("date", ""))
    except ValueError:
        return
    ahead = (datetime.now(UTC) - theirs.replace(tzinfo=theirs.tzinfo or UTC)).total_seconds()
    if abs(ahead) > CLOCK_TOLERANCE:
        raise ClockSkew(f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS's")


_limiters: dict[tuple[str, str, str], Limiter] = {}
_limiters_lock = threading.Lock()


def _keep_rate(service: str, region: str, quotas: Mapping[str, Quota]) -> Callable[..., None]:
    """A handler that waits, before a request is signed, until its quota has room: every attempt passes here."""

    def wait(operation_name: str, **_: object) -> None:
        quota = quotas[operation_name]
        _limiter(service, region, quota).try_acquire(quota.name)

    return wait


def _limiter(service: str, region: str, quota: Quota) -> Limiter:
    """The one limiter of this process for a quota: threads and clients share it, as AWS counts them together."""
    with _limiters_lock:
        key = (service, region, quota.name)
        if key not in _limiters:
            _limiters[key] = Limiter(Rate(quota.per_second, Duration.SECOND))
        return _limiters[key]
