"""AWS KMS. A key's reference is an alias (``alias/…``), an ARN or an id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from rotation.aws import CONFIG, Quota, ask, ask_once, connect, pages
from rotation.errors import KeyServiceError, KeyturnError
from rotation.keys import DataKey, KeyService, KeyView, in_words
from rotation.retries import retrying, until

T = TypeVar("T")

# Requests per second: https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html
# The cryptographic operations share a quota, which is larger in some regions.
_CRYPTOGRAPHIC = Quota("cryptographic", 10_000)
QUOTAS = {
    "GenerateDataKey": _CRYPTOGRAPHIC,
    "Decrypt": _CRYPTOGRAPHIC,
    "DescribeKey": Quota("DescribeKey", 2_000),
    "GetKeyRotationStatus": Quota("GetKeyRotationStatus", 1_000),
    "ListKeyRotations": Quota("ListKeyRotations", 100),
    "RotateKeyOnDemand": Quota("RotateKeyOnDemand", 5),
}
PAGE = 1_000
AT_ONCE = 8  # keys observed at the same time
SHOWS_AFTER = 120.0  # seconds that a rotation may take until KMS lists it


class _Missing(KeyServiceError):
    remedy = "Deploy the stack that declares the key, then run the command again: it resumes."


class _CannotRotate(KeyServiceError):
    """A key of a sort that KMS does not rotate: asymmetric, imported, of another key store, or being deleted."""


class _Underway(KeyServiceError):
    """Someone else has started a rotation."""


class _NoneLeft(KeyServiceError):
    remedy = "KMS rotates a key on demand at most 25 times: make a new key and point the alias at it."


_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "NotFoundException": _Missing,
    "UnsupportedOperationException": _CannotRotate,
    "KMSInvalidStateException": _CannotRotate,
    "ConflictException": _Underway,
    "LimitExceededException": _NoneLeft,
}


@dataclass(frozen=True, slots=True)
class _Rotations:
    done: tuple[datetime, ...]
    automatic: bool
    underway: bool


class AwsKms(KeyService):
    """Options: ``region`` (default: boto3's own). Endpoint and credentials come from boto3's standard chain."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._client = connect(lambda session: session.client("kms", config=CONFIG), options, QUOTAS)

    def observe(self, keys: Sequence[str]) -> dict[str, KeyView]:
        """Three calls per key, for eight keys at a time. A key pending deletion exists and is not enabled."""
        wanted = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(self._observe, wanted), strict=True))

    def rotate(self, key: str) -> None:
        """Start a rotation, or join one that is under way, and wait until KMS lists it.

        KMS would rotate twice if the call were simply repeated after a lost reply; so each attempt looks first.
        """
        key_id = self._key_id(key)
        before = set(self._rotations(key_id).done)

        def start() -> None:
            now = self._rotations(key_id)
            if now.underway or not before.issuperset(now.done):
                return
            try:
                ask_once(
                    lambda: self._client.rotate_key_on_demand(KeyId=key_id),
                    f"rotate the key {key}",
                    _REFUSALS,
                    KeyServiceError,
                )
            except _Underway:
                return

        retrying(start)
        until(
            lambda: self._rotations(key_id),
            lambda seen: not before.issuperset(seen.done),
            what=f"the rotation of the key {key}",
            seconds=SHOWS_AFTER,
        )

    def data_key(self, key: str, context: Mapping[str, str]) -> DataKey:
        reply = self._ask(
            lambda: self._client.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=context),
            f"make a data key under {key}",
        )
        return DataKey(plaintext=reply["Plaintext"], wrapped=reply["CiphertextBlob"])

    def unwrap(self, key: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        reply = self._ask(
            lambda: self._client.decrypt(KeyId=key, CiphertextBlob=wrapped, EncryptionContext=context),
            f"unwrap a data key with {key} for {in_words(context)}",
        )
        return reply["Plaintext"]

    def _observe(self, key: str) -> KeyView:
        try:
            found = self._describe(key)
        except _Missing:
            return KeyView(key, exists=False, enabled=False)
        enabled = found.get("KeyState") == "Enabled"
        try:
            rotations = self._rotations(found["KeyId"])
        except _CannotRotate:
            return KeyView(key, enabled=enabled)
        return KeyView(
            key, enabled=enabled, automatic=rotations.automatic, rotated_at=max(rotations.done, default=None)
        )

    def _key_id(self, key: str) -> str:
        """What the rotation calls want: they take no alias."""
        key_id: str = self._describe(key)["KeyId"]
        return key_id

    def _describe(self, key: str) -> Mapping[str, Any]:
        return self._ask(lambda: self._client.describe_key(KeyId=key), f"look at the key {key}")["KeyMetadata"]

    def _rotations(self, key_id: str) -> _Rotations:
        doing = f"look at the rotations of the key {key_id}"
        status = self._ask(lambda: self._client.get_key_rotation_status(KeyId=key_id), doing)
        listed = pages(
            lambda more: self._ask(lambda: self._client.list_key_rotations(KeyId=key_id, Limit=PAGE, **more), doing),
            sends="Marker",
            reads="NextMarker",
        )
        entries = (entry for reply in listed for entry in reply["Rotations"])
        done = tuple(entry["RotationDate"].astimezone(UTC) for entry in entries if "RotationDate" in entry)
        return _Rotations(done, status["KeyRotationEnabled"], "OnDemandRotationStartDate" in status)

    def _ask(self, call: Callable[[], T], doing: str) -> T:
        return ask(call, doing, _REFUSALS, KeyServiceError)
