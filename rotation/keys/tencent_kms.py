"""Tencent Cloud KMS. A key's reference is its alias, or its id.

- A wrapped key is the text that KMS answers with, as it is: parts of base64 that are no base64 together.
- The context is bound as a text, so it is always written in the same way; KMS takes up to 1024 characters of it.
- ``Decrypt`` takes no key: it finds the one that wrapped, so which one that was is looked at before what it opened.
- ``RotateKey`` needs the key's rotation to be enabled, answers before it has rotated, and does so at most once in 24
  hours. Nothing but ``LastRotateTime`` tells that it has.

https://www.tencentcloud.com/document/product/1030/32188 and the SDK's kms.v20190118.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from rotation.errors import KeyServiceError, KeyturnError
from rotation.keys import DataKey, KeyService, KeyView, RewrapsKeys, Wrapped, in_words
from rotation.options import parse
from rotation.retries import retrying, until
from rotation.tencentcloud import Connection, Manner, connect

AT_ONCE = 8  # keys observed, or data keys re-wrapped, at the same time
SHOWS_AFTER = 120.0  # seconds that a rotation may take until KMS shows it
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LISTED = 200  # keys in one answer


class _Missing(KeyServiceError):
    remedy = "Deploy the stack that declares the key, then run the command again: it resumes."


class _NotEnabled(KeyServiceError):
    remedy = "Enable the rotation of the key (EnableKeyRotation), then run the command again."


class _TooSoon(KeyServiceError):
    remedy = "KMS rotates a key at most once in 24 hours. `keyturn rekey --rewrap-only` takes up what a run left."


class _Underway(KeyServiceError):
    """Someone else has started a rotation."""


_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "ResourceUnavailable.CmkNotFound": _Missing,
    "UnsupportedOperation.RotateNotSupported": _NotEnabled,
    "RequestLimitExceeded.RotateRateLimited": _TooSoon,
    "FailedOperation.RotateTaskRunning": _Underway,
}


class TencentKms(KeyService, RewrapsKeys):
    """Options: those of the connection (:mod:`rotation.tencentcloud`)."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._cloud = connect(parse(Connection, options, plugin="key service tencent_kms"))
        self._ids: dict[str, str] = {}

    def observe(self, keys: Sequence[str]) -> dict[str, KeyView]:
        """One call per key, for eight keys at a time. A key that is pending deletion exists and is not enabled. Times
        are whole seconds."""
        wanted = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(self._observe, wanted), strict=True))

    def rotate(self, key: str) -> None:
        """Start a rotation, or join one that is under way, and wait until KMS shows it. A run whose reply was lost
        finds its own rotation under way, or done."""
        before = self._describe(key)
        key_id = before["KeyId"]

        def start() -> None:
            if self._describe(key)["LastRotateTime"] != before["LastRotateTime"]:
                return
            try:
                self._cloud.call_once("kms", "RotateKey", {"KeyId": key_id}, _manner(f"rotate the key {key}", "TaskId"))
            except _Underway:
                return
            except _TooSoon:
                if self._describe(key)["LastRotateTime"] == before["LastRotateTime"]:
                    raise

        retrying(start)
        until(
            lambda: self._describe(key)["LastRotateTime"],
            lambda at: bool(at != before["LastRotateTime"]),
            what=f"the rotation of the key {key}",
            seconds=SHOWS_AFTER,
        )

    def data_key(self, key: str, context: Mapping[str, str]) -> DataKey:
        asked = {"KeyId": self._id(key), "KeySpec": "AES_256", "EncryptionContext": _text(context)}
        doing = f"make a data key under {key}"
        made = self._cloud.call("kms", "GenerateDataKey", asked, _manner(doing, "Plaintext", "CiphertextBlob"))
        return DataKey(_opened(made["Plaintext"], doing), str(made["CiphertextBlob"]).encode())

    def unwrap(self, key: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        doing = f"unwrap a data key with {key} for {in_words(context)}"
        asked = {"CiphertextBlob": _blob(wrapped), "EncryptionContext": _text(context)}
        key_id = self._id(key)
        found = self._cloud.call("kms", "Decrypt", asked, _manner(doing, "KeyId", "Plaintext"))
        if found["KeyId"] != key_id:
            raise KeyServiceError(f"could not {doing}: another key wrapped it")
        return _opened(found["Plaintext"], doing)

    def rewrap(self, key: str, wrapped: Sequence[Wrapped]) -> list[bytes]:
        """One call for each, eight at a time. What the present material wrapped already comes back as it was."""
        key_id = self._id(key)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda each: self._rewrap(key, key_id, each), wrapped))

    def _rewrap(self, key: str, key_id: str, each: Wrapped) -> bytes:
        doing, context = f"re-wrap the data key of {in_words(each.context)} with {key}", _text(each.context)
        asked = {"CiphertextBlob": _blob(each.key), "DestinationKeyId": key_id}
        asked |= {"SourceEncryptionContext": context, "DestinationEncryptionContext": context}
        anew = self._cloud.call("kms", "ReEncrypt", asked, _manner(doing, "CiphertextBlob", "SourceKeyId"))
        if anew["SourceKeyId"] != key_id:
            raise KeyServiceError(f"could not {doing}: another key wrapped it")
        return str(anew["CiphertextBlob"]).encode()

    def _observe(self, key: str) -> KeyView:
        try:
            found = self._describe(key)
        except _Missing:
            return KeyView(key, exists=False, enabled=False)
        rotated = found.get("LastRotateTime")
        return KeyView(
            key,
            enabled=found["KeyState"] == "Enabled",
            automatic=bool(found.get("KeyRotationEnabled")),
            rotated_at=datetime.fromtimestamp(rotated, UTC) if rotated else None,
        )

    def _id(self, key: str) -> str:
        """What all calls but the search want. An alias is looked up once: a run sees one key under it."""
        if _ID.fullmatch(key):
            return key
        if key not in self._ids:
            self._ids[key] = self._describe(key)["KeyId"]
        return self._ids[key]

    def _describe(self, key: str) -> Mapping[str, Any]:
        """KMS's metadata of a key. Raises :class:`_Missing`."""
        doing = f"look at the key {key}"
        if _ID.fullmatch(key):
            return _metadata(self._cloud.call("kms", "DescribeKey", {"KeyId": key}, _manner(doing, "KeyMetadata")))
        offset = 0
        while True:  # the search finds aliases that hold the text; there are seldom more than fit into one answer
            asked = {"SearchKeyAlias": key, "KeyUsage": "ALL", "Offset": offset, "Limit": _LISTED}
            found = self._cloud.call("kms", "ListKeyDetail", asked, _manner(doing, "TotalCount"))
            listed = found.get("KeyMetadatas") or []
            for one in listed:
                if one["Alias"] == key:
                    return _metadata({"KeyMetadata": one})
            offset += _LISTED
            if not listed or offset >= found["TotalCount"]:
                raise _Missing(f"could not {doing}: no key has that alias")


def _manner(doing: str, *requires: str) -> Manner:
    return Manner(doing, KeyServiceError, _REFUSALS, requires)


def _metadata(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found = answer["KeyMetadata"]
    return {**found, "LastRotateTime": found.get("LastRotateTime") or 0}


def _text(context: Mapping[str, str]) -> str:
    return json.dumps(context, sort_keys=True, separators=(",", ":"))


def _blob(wrapped: bytes) -> str:
    try:
        return wrapped.decode("ascii")
    except UnicodeDecodeError:
        raise KeyServiceError("a wrapped data key is none of Tencent Cloud's") from None


def _opened(text: str, doing: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:  # it holds the text: not chained
        problem = f"could not {doing}: what KMS answered is not base64"
    raise KeyServiceError(problem)
