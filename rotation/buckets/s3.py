"""Amazon S3, and servers that speak its language: objects are compared as they are replaced.

Conditional requests (S3 User Guide, "How to prevent object overwrites with conditional writes"): ``If-None-Match: *``
writes only what is not there, ``If-Match`` with an ETag only what is still the same. S3 refuses with 412, or with 404
where the object is gone; 409 means that another request is at work on it right now: try again.

Not every server that speaks S3's language keeps such conditions: Tencent Cloud's COS documents none for PUT Object
(https://www.tencentcloud.com/document/product/436/7749), and has a file of its own here. One that leaves them out would
let two runners write over each other, so the first write of a run proves that the bucket refuses.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.config import Config

from rotation.aws import Quota, ask_once, connect
from rotation.buckets import Bucket, Stored, patiently
from rotation.errors import Conflict, JournalError, KeyturnError, Unavailable, UsageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_CONFIG = Config(connect_timeout=3, read_timeout=6, retries={"total_max_attempts": 1}, user_agent_extra="keyturn")
_OPERATIONS = ("GetObject", "PutObject", "HeadObject", "DeleteObject")
# Per prefix: S3 User Guide, "Best practices design patterns: optimizing Amazon S3 performance".
_QUOTAS = {operation: Quota("s3", 3500) for operation in _OPERATIONS}
_IMPOSSIBLE: tuple[dict[str, Any], ...] = ({"IfNoneMatch": "*"}, {"IfMatch": f'"{"0" * 32}"'})  # for what is there
_WRITE_ID = "keyturn-write"  # metadata that tells a write of ours whose answer was lost from somebody else's


class _Absent(KeyturnError):
    """There is no such object."""


_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "NoSuchKey": _Absent,
    "404": _Absent,  # HEAD has no body to name a code in
    "PreconditionFailed": Conflict,
    "412": Conflict,
    "ConditionalRequestConflict": Unavailable,
}


class S3Bucket(Bucket):
    """Every call ends within about 12 seconds, a write without patience within 3."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._proven = False
        self._client: S3Client = connect(lambda session: session.client("s3", config=_CONFIG), {}, _QUOTAS)

    def read(self, name: str) -> Stored | None:
        def get() -> Stored:
            reply = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
            return Stored(reply["Body"].read(), reply["ETag"], now - reply["LastModified"])

        try:
            return self._ask(get, f"read {self.url(name)}")
        except _Absent:
            return None

    def write(self, name: str, body: bytes, replaces: str | None, *, patient: bool = True) -> str:
        write_id = uuid.uuid4().hex
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        place: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + name}

        def put() -> str:
            reply = self._client.put_object(**place, Body=body, Metadata={_WRITE_ID: write_id}, **condition)
            return reply["ETag"]

        try:
            etag = self._ask(put, f"write {self.url(name)}", patient=patient)
            self._prove({**place, "Body": body, "Metadata": {_WRITE_ID: write_id}})
            return etag  # noqa: TRY300 - a proof may raise what a write may
        except _Absent as error:
            raise Conflict(f"{self.url(name)} was removed in the meantime") from error
        except Conflict:
            standing = self._ask(lambda: self._client.head_object(**place), f"look at {self.url(name)}")
            if standing["Metadata"].get(_WRITE_ID) != write_id:
                raise
            return standing["ETag"]  # the answer to the first attempt was lost

    def _prove(self, written: dict[str, Any]) -> None:
        """See that what was written just now cannot be written again under a condition that it does not fulfil."""
        for condition in () if self._proven else _IMPOSSIBLE:
            try:
                put = partial(self._client.put_object, **written, **condition)
                ask_once(put, f"see whether {self._bucket} keeps conditions", _REFUSALS, JournalError)
            except (Conflict, _Absent):
                continue
            except Unavailable:
                return  # the next write proves it
            raise UsageError(
                f"the bucket {self._bucket} does not keep the conditions of a write (If-Match, If-None-Match)",
                "Keep the journal in a bucket that does: Amazon S3, or a server with S3's conditional writes.",
            )
        self._proven = True

    def remove(self, name: str, etag: str) -> None:
        key = self._prefix + name

        def delete() -> None:
            self._client.delete_object(Bucket=self._bucket, Key=key, IfMatch=etag)

        try:
            self._ask(delete, f"remove {self.url(name)}")
        except _Absent:
            return  # also where the answer to the first attempt was lost

    @staticmethod
    def _ask(call: Callable[[], T], doing: str, *, patient: bool = True) -> T:
        def once() -> T:
            return ask_once(call, doing, _REFUSALS, JournalError)

        return patiently(once) if patient else once()
