"""Requests to one bucket of Tencent Cloud's object storage (COS), signed here.

The official SDK (cos-python-sdk-v5 1.9.44) is not used: it needs crcmod, which is published as C source only, so that
no archive of a function could be built from wheels; it tries again by itself, and marks neither what was answered nor
when; at DEBUG it logs what it signs with; and it leaves the token out of what a credentials object signs.

Sources, all below https://www.tencentcloud.com/document/product/436/:

- Signatures are HMAC-SHA1 over the method, the path, the parameters and the headers that are named in them, and hold
  from the first to the second time of ``q-sign-time`` (7778). A temporary key's token goes into the header
  ``x-cos-security-token``. The body is covered by Content-MD5, which COS compares.
- A refusal is XML with a Code (7730); HEAD has no body. A signature that is too old is AccessDenied, "Request has
  expired" (10687), or RequestTimeTooSkewed; what tells a wrong clock here is the Date of the answer.

Credentials are those of :mod:`rotation.tencentcloud`. The region is KEYTURN_COS_REGION, or else TENCENTCLOUD_REGION: a
function can be given no variable of the latter's prefix. KEYTURN_COS_ENDPOINT (``http://host:port``) names a server
that is asked instead of COS's own address, under the same host names: the emulated one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote
from xml.etree import ElementTree

import requests

from rotation.errors import ClockSkew, Conflict, JournalError, KeyturnError, Unauthorized, Unavailable, UsageError
from rotation.tencentcloud import Credentials, Provided

TIMEOUT = (3.0, 6.0)  # seconds: to connect, and between two pieces of an answer
SIGNATURE_LIFE = 300  # seconds, before and after the time of signing: as far as clocks may be apart for the other APIs
PAGE = 1000  # entries of a list at most

_MEANINGS: Mapping[str, type[KeyturnError]] = {
    "FileAlreadyExists": Conflict,  # of x-cos-forbid-overwrite, with status 409
    "InternalError": Unavailable,
    "RequestLimitExceeded": Unavailable,
    "RequestTimeTooSkewed": ClockSkew,
    "ServiceUnavailable": Unavailable,
    "SlowDown": Unavailable,
}
_QUOTED = 300  # characters of an answer's message


@dataclass(frozen=True, slots=True)
class Answer:
    """What COS answered. ``date`` is its own time, in whole seconds; names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes
    date: datetime

    @property
    def modified(self) -> datetime:
        """When the object was written, by COS's clock."""
        return parsedate_to_datetime(self.headers["last-modified"])


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a list."""

    key: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class _Page:
    """A part of a list; ``following`` is the marker of the next one."""

    entries: list[Listed]
    following: str | None
    date: datetime


class Cos:
    """The bucket ``name`` (``name-appid``). Each method asks once, and may be called by several threads.

    They raise :class:`Unavailable` where no answer came or COS is overloaded, :class:`Unauthorized`,
    :class:`ClockSkew`, and :class:`JournalError` for any other refusal.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.time, credentials: Provided | None = None) -> None:
        region = os.environ.get("KEYTURN_COS_REGION") or os.environ.get("TENCENTCLOUD_REGION")
        if not region:
            raise UsageError(
                f"no region is set for the bucket {name}", "Set TENCENTCLOUD_REGION or KEYTURN_COS_REGION."
            )
        self.name = name
        self._host = f"{name}.cos.{region}.myqcloud.com"
        self._server = os.environ.get("KEYTURN_COS_ENDPOINT") or f"https://{self._host}"
        self._clock = clock
        self._credentials = credentials or Credentials()
        self._http = requests.Session()

    def below(self, prefix: str) -> tuple[list[Listed], datetime]:
        """All objects below a prefix, sorted by key, and COS's time as it began to list them.

        What was written just now may be missing: lists have "eventual consistency" (30614).
        """
        pages = [self._page(prefix, "")]
        while (following := pages[-1].following) is not None:
            pages.append(self._page(prefix, following))
        return [entry for page in pages for entry in page.entries], pages[0].date

    def _page(self, prefix: str, marker: str) -> _Page:
        asked = {"prefix": prefix, "max-keys": str(PAGE), **({"marker": marker} if marker else {})}
        answer = self._ask("GET", "", f"read the list of {self.name}/{prefix}", query=asked)
        return _Page(*_entries(answer.body), answer.date)

    def get(self, key: str) -> Answer | None:
        return self._look("GET", key)

    def head(self, key: str) -> Answer | None:
        """Without its body; None where there is no such object."""
        return self._look("HEAD", key)

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> Answer:
        """Write an object that is not there. Raises :class:`Conflict` where it is (x-cos-forbid-overwrite, 7749)."""
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {
            "content-md5": base64.b64encode(digest).decode(),
            "content-type": "application/octet-stream",
            "x-cos-forbid-overwrite": "true",
            **{f"x-cos-meta-{name}": value for name, value in metadata.items()},
        }
        return self._ask("PUT", key, f"write {self.name}/{key}", headers=headers, body=body)

    def delete(self, key: str) -> None:
        self._ask("DELETE", key, f"remove {self.name}/{key}")

    def _look(self, method: str, key: str) -> Answer | None:
        try:
            return self._ask(method, key, f"read {self.name}/{key}")
        except _Absent:
            return None

    def _ask(
        self,
        method: str,
        key: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        query = dict(query or {})
        signed = self._signed(doing, method, f"/{key}", query, {"host": self._host, **(headers or {})})
        try:
            reply = self._http.request(
                method,
                f"{self._server}/{quote(key)}",
                params=query,
                headers=signed,
                data=body or None,
                timeout=TIMEOUT,
                allow_redirects=False,
                auth=lambda prepared: prepared,  # or else .netrc would be asked
            )
        except requests.RequestException as error:
            problem = f"could not {doing}: no answer came through, {type(error).__name__}"
        else:
            return self._checked(reply, doing)
        # Raised out here it does not have the exception as its context, which holds the signed request.
        raise Unavailable(problem)

    def _signed(
        self, doing: str, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> dict[str, str]:
        try:
            secret_id, secret_key, token = self._credentials.get_credential_info()
        except Unauthorized as error:
            raise Unauthorized(f"could not {doing}: {error}", error.remedy) from error
        own = {**headers, **({"x-cos-security-token": token} if token else {})}
        now = int(self._clock())
        validity = f"{now - SIGNATURE_LIFE};{now + SIGNATURE_LIFE}"
        return {**own, "authorization": authorization(secret_id, secret_key, validity, method, path, query, own)}

    def _checked(self, reply: requests.Response, doing: str) -> Answer:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        try:
            date = parsedate_to_datetime(headers["date"]).replace(tzinfo=UTC)  # HTTP's times all are
        except (KeyError, ValueError) as error:
            raise Unavailable(f"could not {doing}: the answer has no date") from error
        if reply.status_code < 300:
            return Answer(headers, reply.content, date)
        raise self._refusal(reply.status_code, reply.content, date, doing)

    def _refusal(self, status: int, body: bytes, date: datetime, doing: str) -> KeyturnError:
        code, message = _refused(body) or (str(status), "")
        what = f"could not {doing}: COS answered {code}" + (f": {message[:_QUOTED]}" if message else "")
        apart = (datetime.fromtimestamp(self._clock(), UTC) - date).total_seconds()
        if status == 403 and abs(apart) >= SIGNATURE_LIFE - 1:
            return ClockSkew(f"{what}; this machine's clock is {abs(apart):.0f} s {_way(apart)} COS's")
        if code in ("NoSuchKey", "404"):
            return _Absent(what)
        if code in _MEANINGS:
            return _MEANINGS[code](what)
        if status in (401, 403):
            return Unauthorized(what)
        return Unavailable(what) if status >= 500 or status == 429 else JournalError(what)


class _Absent(KeyturnError):
    """There is no such object."""


def authorization(
    secret_id: str,
    secret_key: str,
    validity: str,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
) -> str:
    """The header Authorization (7778). ``path`` is not encoded; all of ``query`` and ``headers`` is signed.
    ``validity`` is ``from;to`` in seconds since 1970."""
    parameters, of_parameters = _canonical(query)
    named, of_headers = _canonical(headers)
    request = f"{method.lower()}\n{path}\n{parameters}\n{named}\n"
    told = f"sha1\n{validity}\n{hashlib.sha1(request.encode(), usedforsecurity=False).hexdigest()}\n"
    signature = _hmac(_hmac(secret_key, validity), told)
    return (
        f"q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={validity}&q-key-time={validity}"
        f"&q-header-list={of_headers}&q-url-param-list={of_parameters}&q-signature={signature}"
    )


def _canonical(fields: Mapping[str, str]) -> tuple[str, str]:
    """The fields as they are signed, and the list of their names."""
    encoded = sorted((quote(name, "-_.~").lower(), quote(value, "-_.~")) for name, value in fields.items())
    return "&".join(f"{name}={value}" for name, value in encoded), ";".join(name for name, _ in encoded)


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), "sha1").hexdigest()


def _entries(body: bytes) -> tuple[list[Listed], str | None]:
    """A page of a list, and the marker of the next one."""
    try:
        page = ElementTree.fromstring(body)  # noqa: S314 - COS's own answer; expat refuses to expand without end
        found = [
            Listed(_text(entry, "Key"), datetime.fromisoformat(_text(entry, "LastModified")))
            for entry in page.iterfind("{*}Contents")
        ]
        return found, _text(page, "NextMarker") if _text(page, "IsTruncated") == "true" else None
    except (ElementTree.ParseError, ValueError) as error:
        raise Unavailable("COS's list of a bucket cannot be read") from error


def _text(element: ElementTree.Element, name: str) -> str:
    """Raises ValueError where it is missing."""
    found = element.findtext(f"{{*}}{name}")
    if found is None:
        raise ValueError(f"there is no {name}")
    return found


def _refused(body: bytes) -> tuple[str, str] | None:
    """The code and the message of a refusal; None for what is none of COS's."""
    try:
        error = ElementTree.fromstring(body)  # noqa: S314 - as above
        return _text(error, "Code"), error.findtext("{*}Message") or ""
    except (ElementTree.ParseError, ValueError):
        return None


def _way(seconds: float) -> str:
    return "ahead of" if seconds > 0 else "behind"
