"""COS, emulated: small objects in buckets, on its own wire protocol (signatures q-sign-algorithm, XML, HTTP's status).

Emulated are Put, Get, Head and Delete Object, Get Bucket (the first version), Put Bucket, and Put and Get Bucket
Versioning; every other method or subresource is NotImplemented. A bucket is reached by its host name. Sources are the
pages of https://www.tencentcloud.com/document/product/436/: 7778 for signatures, 7730 for refusals, 7749 for
``x-cos-forbid-overwrite``, 30614 for lists.

What is not known of the real one, and what stands here instead:

- How long two requests are "at once" for x-cos-forbid-overwrite, which can then let both through. Here only on demand
  (the fault ``blind``). How long a list lags: here only on demand (``stale``).
- The code for a signature that is too old: here AccessDenied, as its FAQ says. For a token that is none: InvalidToken.
- Whether DELETE of what is not there is refused: here 204. Whether HEAD of a bucket that is not there is 404: here so.

What is known and not emulated: earlier versions of an object and delete markers (what is overwritten is gone), the
limits of requests, ACLs, policies, storage classes, multipart uploads, APPEND, ranges and conditions of GET.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote
from xml.etree import ElementTree

from pydantic import BaseModel
from werkzeug.wrappers import Response

from rotation.local.tencent.faults import Fault, Kind
from rotation.local.tencent.records import Table
from rotation.local.tencent.wire import Credential, Request

if TYPE_CHECKING:
    from rotation.local.tencent.cloud import Cloud

_AUTHORIZATION = re.compile(
    r"q-sign-algorithm=sha1&q-ak=(?P<id>[^&]+)&q-sign-time=(?P<time>\d+;\d+)&q-key-time=(?P<key_time>\d+;\d+)"
    r"&q-header-list=(?P<headers>[a-z0-9;%_.~-]*)&q-url-param-list=(?P<parameters>[a-z0-9;%_.~-]*)"
    r"&q-signature=(?P<signature>[0-9a-f]{40})"
)
_DAMAGED = {
    Kind.THROTTLE: (503, "SlowDown", "Please reduce your request rate."),
    Kind.INTERNAL: (500, "InternalError", "We encountered an internal error."),
    Kind.DENY: (403, "AccessDenied", "Access Denied."),
}


class BucketRecord(BaseModel):
    """A bucket. ``versioning`` is empty where it was never on."""

    versioning: str = ""


class ObjectRecord(BaseModel):
    """An object: its content in base64, its own headers, and when it was written, in seconds since 1970."""

    content: str
    headers: dict[str, str]
    modified: float


class _Refused(Exception):
    """A refusal in COS's words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request to one bucket, whose signature is good. ``blind`` looks at nothing that is there."""

    request: Request
    bucket: str
    key: str
    query: Mapping[str, str]
    blind: bool


class Cos:
    """All buckets of the account, in any region."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._buckets: Table[BucketRecord] = Table(cloud.records, "cos.buckets", BucketRecord)
        self._objects: Table[ObjectRecord] = Table(cloud.records, "cos.objects", ObjectRecord)

    def answer(self, request: Request, fault: Fault | None) -> Response:
        """What COS answers, refusals included."""
        try:
            _misbehave(fault)
            asked = self._asked(request, fault)
            with self._transaction(fault):
                answer = self._answered(asked)
        except _Refused as refused:
            answer = Response(_refusal(refused, request.path), refused.status, content_type="application/xml")
        answer.headers["x-cos-request-id"] = uuid.uuid4().hex
        return answer

    def _transaction(self, fault: Fault | None) -> AbstractContextManager[None]:
        if fault and fault.kind is Kind.STALE:
            return self._cloud.records.behind("cos", fault.writes)
        return self._cloud.records.transaction()

    def _asked(self, request: Request, fault: Fault | None) -> _Asked:
        now = self._cloud.clock.now()
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        self._authenticate(request, query, now)
        blind = fault is not None and fault.kind is Kind.BLIND
        return _Asked(request, request.bucket or "", request.path.removeprefix("/"), query, blind)

    def _authenticate(self, request: Request, query: Mapping[str, str], now: float) -> None:
        signed = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if signed is None or signed["time"] != signed["key_time"]:
            raise _Refused(403, "AccessDenied", "The signature is not as it is documented.")
        credential = self._cloud.identities.find(signed["id"])
        if credential is None:
            raise _Refused(403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist.")
        begins, ends = (int(second) for second in signed["time"].split(";"))
        if not begins <= now <= ends:
            raise _Refused(403, "AccessDenied", "Request has expired")
        if not hmac.compare_digest(_signature(request, query, signed, credential.secret_key), signed["signature"]):
            raise _Refused(403, "SignatureDoesNotMatch", "The Signature you specified is invalid.")
        _check_token(request, credential, now)
        self._cloud.identities.note_use(signed["id"])

    def _answered(self, asked: _Asked) -> Response:
        methods = {
            "PutBucket": self._put_bucket,
            "PutBucketVersioning": self._put_versioning,
            "GetBucketVersioning": self._get_versioning,
            "GetBucket": self._get_bucket,
            "PutObject": self._put_object,
            "GetObject": self._get_object,
            "HeadObject": self._get_object,
            "DeleteObject": self._delete_object,
        }
        if asked.request.operation not in methods:
            raise _Refused(501, "NotImplemented", "This is not emulated.")
        return methods[asked.request.operation](asked)

    def _put_bucket(self, asked: _Asked) -> Response:
        if self._buckets.get(asked.bucket):
            raise _Refused(409, "BucketAlreadyOwnedByYou", "The bucket is there.")
        self._buckets.put(asked.bucket, BucketRecord())
        return Response(status=200)

    def _put_versioning(self, asked: _Asked) -> Response:
        self._bucket(asked)
        status = ElementTree.fromstring(asked.request.body).findtext("Status")  # noqa: S314 - a test's own
        if status not in ("Enabled", "Suspended"):
            raise _Refused(400, "MalformedXML", "The Status is neither Enabled nor Suspended.")
        self._buckets.put(asked.bucket, BucketRecord(versioning=status))
        return Response(status=200)

    def _get_versioning(self, asked: _Asked) -> Response:
        status = self._bucket(asked).versioning
        return _xml("VersioningConfiguration", {"Status": status} if status else {})

    def _get_bucket(self, asked: _Asked) -> Response:
        self._bucket(asked)
        prefix, marker = (f"{asked.bucket}/{asked.query.get(name, '')}" for name in ("prefix", "marker"))
        keys = sorted(key for key in self._objects.names() if key.startswith(prefix) and key > marker)
        most = int(asked.query.get("max-keys", "1000"))
        page = keys[:most]
        root = ElementTree.Element("ListBucketResult")
        _add(root, {"Name": asked.bucket, "IsTruncated": str(len(keys) > most).lower()})
        if len(keys) > most:
            _add(root, {"NextMarker": page[-1].partition("/")[2]})
        for key in page:
            found = self._object(key)
            written = f"{datetime.fromtimestamp(int(found.modified), UTC):%Y-%m-%dT%H:%M:%S.000Z}"
            size = str(len(base64.b64decode(found.content)))
            entry = {"Key": key.partition("/")[2], "LastModified": written, "ETag": _etag(found), "Size": size}
            _add(ElementTree.SubElement(root, "Contents"), entry)
        return Response(ElementTree.tostring(root), content_type="application/xml")

    def _put_object(self, asked: _Asked) -> Response:
        bucket, body = self._bucket(asked), asked.request.body
        given = asked.request.headers.get("content-md5")
        if given and given != base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode():
            raise _Refused(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
        forbidden = asked.request.headers.get("x-cos-forbid-overwrite") == "true" and not bucket.versioning
        place = f"{asked.bucket}/{asked.key}"
        if forbidden and not asked.blind and self._objects.get(place):
            raise _Refused(
                409, "FileAlreadyExists", "The object you specified already exists and can not be overwritten."
            )
        headers = {
            name: value
            for name, value in asked.request.headers.items()
            if name.startswith(("x-cos-meta-", "content-t"))
        }
        record = ObjectRecord(
            content=base64.b64encode(body).decode(), headers=headers, modified=self._cloud.clock.now()
        )
        self._objects.put(place, record)
        answer = Response(status=200, headers={"ETag": _etag(record)})
        if bucket.versioning == "Enabled":
            answer.headers["x-cos-version-id"] = uuid.uuid4().hex
        return answer

    def _get_object(self, asked: _Asked) -> Response:
        self._bucket(asked)
        found = self._object(f"{asked.bucket}/{asked.key}")
        answer = Response(base64.b64decode(found.content), headers=found.headers)
        answer.headers["ETag"] = _etag(found)
        answer.headers["Last-Modified"] = formatdate(int(found.modified), usegmt=True)
        return answer

    def _delete_object(self, asked: _Asked) -> Response:
        self._bucket(asked)
        self._objects.remove(f"{asked.bucket}/{asked.key}")
        return Response(status=204)

    def _bucket(self, asked: _Asked) -> BucketRecord:
        found = self._buckets.get(asked.bucket)
        if found is None:
            raise _Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        return found

    def _object(self, place: str) -> ObjectRecord:
        found = self._objects.get(place)
        if found is None:
            raise _Refused(404, "NoSuchKey", "The specified key does not exist.")
        return found


def _misbehave(fault: Fault | None) -> None:
    """Refuse for the kinds of faults that are refusals."""
    if fault and fault.kind in _DAMAGED:
        raise _Refused(*_DAMAGED[fault.kind])


def _signature(request: Request, query: Mapping[str, str], signed: re.Match[str], secret_key: str) -> str:
    """The signature that the request must have, over the headers and parameters that it names."""
    parameters = {quote(name, safe="-_.~").lower(): value for name, value in query.items()}
    headers = {quote(name, safe="-_.~").lower(): value for name, value in request.headers.items()}
    if "host" not in signed["headers"].split(";") or set(signed["parameters"].split(";")) != (set(parameters) or {""}):
        raise _Refused(403, "AccessDenied", "The host and all parameters must be signed.")
    canonical = "\n".join(
        (
            request.method.lower(),
            request.path,
            _joined(signed["parameters"], parameters),
            _joined(signed["headers"], headers),
            "",
        )
    )
    digest = hashlib.sha1(canonical.encode(), usedforsecurity=False).hexdigest()
    key = hmac.new(secret_key.encode(), signed["time"].encode(), "sha1").hexdigest()
    return hmac.new(key.encode(), f"sha1\n{signed['time']}\n{digest}\n".encode(), "sha1").hexdigest()


def _joined(names: str, values: Mapping[str, str]) -> str:
    return "&".join(f"{name}={quote(values.get(name, ''), safe='-_.~')}" for name in names.split(";") if name)


def _check_token(request: Request, credential: Credential, now: float) -> None:
    expired = credential.expires is not None and now >= credential.expires
    if request.headers.get("x-cos-security-token") != credential.token or expired:
        raise _Refused(403, "InvalidToken", "The token is invalid or has expired.")


def _etag(record: ObjectRecord) -> str:
    digest = hashlib.md5(base64.b64decode(record.content), usedforsecurity=False).hexdigest()
    return f'"{digest}"'


def _refusal(refused: _Refused, path: str) -> bytes:
    root = ElementTree.Element("Error")
    _add(root, {"Code": refused.code, "Message": refused.message, "Resource": path})
    _add(root, {"RequestId": uuid.uuid4().hex, "TraceId": uuid.uuid4().hex})
    return ElementTree.tostring(root)


def _xml(name: str, fields: Mapping[str, str]) -> Response:
    root = ElementTree.Element(name)
    _add(root, fields)
    return Response(ElementTree.tostring(root), content_type="application/xml")


def _add(element: ElementTree.Element, fields: Mapping[str, str]) -> None:
    for name, text in fields.items():
        ElementTree.SubElement(element, name).text = text
