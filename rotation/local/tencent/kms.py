"""Key Management Service (KMS): symmetric keys that never leave it, and what they wrap.

What it makes is really encrypted (AES-256-GCM), with the encryption context as associated data. Each rotation adds a
material to a key; the older ones only decrypt. Source: the SDK's kms.v20190118 (models, error codes).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import uuid
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import AfterValidator, BaseModel, Field

from rotation.local.tencent.cloud import Cloud
from rotation.local.tencent.records import Table
from rotation.local.tencent.service import Fields, Parameters, Service, Tag, action
from rotation.local.tencent.wire import ApiError, Call

DAY = 86400  # seconds
KEYS = 100  # listed by DescribeKeys at once
_MAGIC = b"TCKM"
_KEY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SPECS = {"AES_128": 16, "AES_256": 32}

State = Literal["Enabled", "Disabled", "PendingDelete"]


def _context(text: str) -> str:
    """A JSON object of texts, of at most 1024 characters; an empty text is none."""
    value = json.loads(text) if text else {}
    if len(text) > 1024 or not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError("a JSON object of texts, of at most 1024 characters")
    return text


Context = Annotated[str, AfterValidator(_context)]


class Rotation(BaseModel):
    """A rotation that was asked for and is done when it is ``due`` (seconds since 1970)."""

    task: str
    due: float
    succeeds: bool


class Key(BaseModel):
    """A key of one region; ``materials`` are base64, the last one encrypts. Times are in seconds since 1970."""

    id: str
    region: str
    creator: str
    alias: str
    description: str = ""
    state: State = "Enabled"
    created: int
    materials: list[str] = Field(repr=False)
    rotates: bool = False
    days: int = 0
    rotated: int = 0
    next_rotation: int = 0
    delete_at: int = 0
    task: Rotation | None = None

    def rotate(self, now: float) -> Key:
        """The key with new material."""
        materials = [*self.materials, _material()]
        following = int(now) + self.days * DAY if self.rotates else 0
        return self.model_copy(update={"materials": materials, "rotated": int(now), "next_rotation": following})


def _material() -> str:
    return base64.b64encode(os.urandom(32)).decode()


class CreateKey(Parameters):
    Alias: str
    Description: Annotated[str, Field(max_length=1024)] = ""
    KeyUsage: str = "ENCRYPT_DECRYPT"
    Type: int = 1
    Tags: tuple[Tag, ...] = ()
    HsmClusterId: str = ""


class OfKey(Parameters):
    KeyId: str
    MemberAccount: None = None  # of an organisation's administrator: not emulated


class DescribeKeys(Parameters):
    KeyIds: Annotated[tuple[str, ...], Field(min_length=1, max_length=KEYS)]
    MemberAccount: None = None


class ListKeys(Parameters):
    Offset: Annotated[int, Field(ge=0)] = 0
    Limit: Annotated[int, Field(ge=1, le=200)] = 10
    Role: Annotated[int, Field(ge=0, le=1)] = 0
    HsmClusterId: str = ""


class ListKeyDetail(ListKeys):
    OrderType: Annotated[int, Field(ge=0, le=1)] = 0
    KeyState: Annotated[int, Field(ge=0, le=5)] = 0
    SearchKeyAlias: str = ""
    Origin: Literal["TENCENT_KMS", "EXTERNAL", "ALL", ""] = ""
    KeyUsage: str = "ENCRYPT_DECRYPT"

    def wants(self, key: Key) -> bool:
        states: tuple[State, ...] = ("Enabled", "Disabled", "PendingDelete")
        state = self.KeyState == 0 or key.state in states[self.KeyState - 1 : self.KeyState]
        named = self.SearchKeyAlias in key.alias or self.SearchKeyAlias in key.id
        return state and named and self.Origin != "EXTERNAL" and self.KeyUsage in ("ENCRYPT_DECRYPT", "ALL")


class EnableKeyRotation(OfKey):
    RotateDays: Annotated[int, Field(ge=7, le=365)] = 365


class ScheduleKeyDeletion(OfKey):
    PendingWindowInDays: int


class UpdateAlias(OfKey):
    Alias: str


class UpdateKeyDescription(OfKey):
    Description: Annotated[str, Field(max_length=1024)]


class Encrypt(Parameters):
    KeyId: str
    Plaintext: str
    EncryptionContext: Context = ""


class ForCaller(Parameters):
    """Answers that are encrypted for the caller's own public key are not emulated."""

    EncryptionContext: Context = ""
    EncryptionPublicKey: Literal[""] = ""
    EncryptionAlgorithm: str = ""


class Decrypt(ForCaller):
    CiphertextBlob: str


class GenerateDataKey(ForCaller):
    KeyId: str
    KeySpec: Literal["AES_128", "AES_256"] | None = None
    NumberOfBytes: Annotated[int, Field(ge=1, le=1024)] | None = None
    IsHostedByKms: Literal[0] = 0  # hosted data keys are not emulated
    DataKeyName: str = ""
    Description: Annotated[str, Field(max_length=100)] = ""
    HsmClusterId: str = ""
    Tags: tuple[Tag, ...] = ()


class ReEncrypt(Parameters):
    CiphertextBlob: str
    DestinationKeyId: str = ""
    SourceEncryptionContext: Context = ""
    DestinationEncryptionContext: Context = ""


class Kms(Service):
    SERVICE = "kms"
    VERSION = "2019-01-18"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._keys: Table[Key] = Table(cloud.records, "kms.keys", Key)

    def tick(self) -> None:
        """Finish the rotations that are done, begin those that are due, and remove keys whose window has passed."""
        now = self.cloud.clock.now()
        with self.cloud.records.transaction():
            for key in self._keys.all().values():
                if key.task and now >= key.task.due:
                    after = key.rotate(key.task.due) if key.task.succeeds else key
                    self._put(after.model_copy(update={"task": None}))
                elif key.state == "PendingDelete" and now >= key.delete_at:
                    self._keys.remove(f"{key.region}/{key.id}")
                elif key.rotates and key.state == "Enabled" and now >= key.next_rotation:
                    self._put(key.rotate(now))

    @action()
    def create_key(self, call: Call, asked: CreateKey) -> Fields:
        if asked.KeyUsage != "ENCRYPT_DECRYPT" or asked.Type != 1:
            raise ApiError("UnsupportedOperation", "Only symmetric keys that KMS makes itself are emulated.")
        self._require_free_alias(call, asked.Alias)
        key = Key(
            id=str(uuid.uuid4()),
            region=call.region,
            creator=call.caller.uin,
            alias=asked.Alias,
            description=asked.Description,
            created=int(self.cloud.clock.now()),
            materials=[_material()],
        )
        self._put(key)
        return {**_described(key), "TagCode": 0, "TagMsg": ""}

    @action()
    def describe_key(self, call: Call, asked: OfKey) -> Fields:
        return {"KeyMetadata": _metadata(self._get(call, asked.KeyId))}

    @action()
    def describe_keys(self, call: Call, asked: DescribeKeys) -> Fields:
        if len(set(asked.KeyIds)) < len(asked.KeyIds):
            raise ApiError("InvalidParameterValue.DuplicatedKeyId", "A KeyId is there twice.")
        return {"KeyMetadatas": [_metadata(self._get(call, key)) for key in asked.KeyIds]}

    @action()
    def list_keys(self, call: Call, asked: ListKeys) -> Fields:
        found = self._of(call) if asked.Role == 0 else []
        page = found[asked.Offset :][: asked.Limit]
        return {"Keys": [{"KeyId": key.id} for key in page], "TotalCount": len(found)}

    @action()
    def list_key_detail(self, call: Call, asked: ListKeyDetail) -> Fields:
        found = [key for key in self._of(call) if asked.wants(key)] if asked.Role == 0 else []
        found.sort(key=lambda key: key.created, reverse=asked.OrderType == 0)
        page = found[asked.Offset :][: asked.Limit]
        return {"TotalCount": len(found), "KeyMetadatas": [_metadata(key) for key in page]}

    @action()
    def enable_key(self, call: Call, asked: OfKey) -> Fields:
        return self._become(call, asked.KeyId, "Enabled")

    @action()
    def disable_key(self, call: Call, asked: OfKey) -> Fields:
        return self._become(call, asked.KeyId, "Disabled")

    def _become(self, call: Call, key_id: str, state: State) -> Fields:
        key = self._get(call, key_id)
        _require(key, "Enabled", "Disabled")
        self._put(key.model_copy(update={"state": state}))
        return {}

    @action()
    def update_alias(self, call: Call, asked: UpdateAlias) -> Fields:
        key = self._get(call, asked.KeyId)
        _require(key, "Enabled", "Disabled")
        if asked.Alias != key.alias:
            self._require_free_alias(call, asked.Alias)
        self._put(key.model_copy(update={"alias": asked.Alias}))
        return {}

    @action()
    def update_key_description(self, call: Call, asked: UpdateKeyDescription) -> Fields:
        key = self._get(call, asked.KeyId)
        _require(key, "Enabled", "Disabled")
        self._put(key.model_copy(update={"description": asked.Description}))
        return {}

    @action()
    def schedule_key_deletion(self, call: Call, asked: ScheduleKeyDeletion) -> Fields:
        key = self._get(call, asked.KeyId)
        if not 7 <= asked.PendingWindowInDays <= 30:
            raise ApiError("InvalidParameter.InvalidPendingWindowInDays", "The window is of 7 to 30 days.")
        if key.state != "Disabled":
            raise ApiError("ResourceUnavailable.CmkShouldBeDisabled", "Only a disabled key can be deleted.")
        delete_at = int(self.cloud.clock.now()) + asked.PendingWindowInDays * DAY
        self._put(key.model_copy(update={"state": "PendingDelete", "delete_at": delete_at}))
        return {"DeletionDate": delete_at, "KeyId": key.id}

    @action()
    def cancel_key_deletion(self, call: Call, asked: OfKey) -> Fields:
        """It comes back Disabled."""
        key = self._get(call, asked.KeyId)
        if key.state != "PendingDelete":
            raise ApiError("ResourceUnavailable.CmkNotPendingDelete", "The key is not to be deleted.")
        self._put(key.model_copy(update={"state": "Disabled", "delete_at": 0}))
        return {"KeyId": key.id}

    @action()
    def enable_key_rotation(self, call: Call, asked: EnableKeyRotation) -> Fields:
        key = self._get(call, asked.KeyId)
        _require(key, "Enabled")
        following = int(self.cloud.clock.now()) + asked.RotateDays * DAY
        self._put(key.model_copy(update={"rotates": True, "days": asked.RotateDays, "next_rotation": following}))
        return {}

    @action()
    def disable_key_rotation(self, call: Call, asked: OfKey) -> Fields:
        key = self._get(call, asked.KeyId)
        _require(key, "Enabled")
        self._put(key.model_copy(update={"rotates": False, "days": 0, "next_rotation": 0}))
        return {}

    @action()
    def get_key_rotation_status(self, call: Call, asked: OfKey) -> Fields:
        return {"KeyRotationEnabled": self._get(call, asked.KeyId).rotates}

    @action()
    def rotate_key(self, call: Call, asked: OfKey) -> Fields:
        """Asynchronous: LastRotateTime tells when it is done; nothing tells that it failed."""
        key = self._get(call, asked.KeyId)
        _require(key, "Enabled")
        now = self.cloud.clock.now()
        if not key.rotates:
            raise ApiError("UnsupportedOperation.RotateNotSupported", "The rotation of the key is not enabled.")
        if key.task:
            raise ApiError("FailedOperation.RotateTaskRunning", "The key is being rotated.")
        pause = self.cloud.settings.key_rotation_pause
        if key.rotated and now - key.rotated < pause:
            raise ApiError(
                "RequestLimitExceeded.RotateRateLimited", f"A key is rotated at most once in {pause / 3600:g} hours."
            )
        tasks = self.cloud.tasks
        task = Rotation(task=str(uuid.uuid4()), due=now + tasks.seconds, succeeds=tasks.begin())
        self._put(key.model_copy(update={"task": task}))
        return {"TaskId": task.task}

    @action(rate=300)
    def encrypt(self, call: Call, asked: Encrypt) -> Fields:
        key = self._usable(call, asked.KeyId)
        plaintext = _decoded(asked.Plaintext, "InvalidParameterValue.InvalidPlaintext")
        if not 1 <= len(plaintext) <= 4096:
            raise ApiError("InvalidParameterValue.InvalidPlaintext", "A plaintext has 1 to 4096 bytes.")
        return {"CiphertextBlob": _seal(key, plaintext, asked.EncryptionContext), "KeyId": key.id}

    @action(rate=300)
    def decrypt(self, call: Call, asked: Decrypt) -> Fields:
        key, plaintext, _ = self._open(call, asked.CiphertextBlob, asked.EncryptionContext)
        return {"KeyId": key.id, "Plaintext": base64.b64encode(plaintext).decode()}

    @action(rate=100)
    def generate_data_key(self, call: Call, asked: GenerateDataKey) -> Fields:
        key = self._usable(call, asked.KeyId)
        size = asked.NumberOfBytes or _SPECS.get(asked.KeySpec or "")
        if size is None:
            raise ApiError("InvalidParameter", "One of `KeySpec` and `NumberOfBytes` must be set.")
        plaintext = os.urandom(size)
        return {
            "KeyId": key.id,
            "Plaintext": base64.b64encode(plaintext).decode(),
            "CiphertextBlob": _seal(key, plaintext, asked.EncryptionContext),
            "DataKeyId": "",
            "TagCode": 0,
            "TagMsg": "",
        }

    @action(rate=100)
    def re_encrypt(self, call: Call, asked: ReEncrypt) -> Fields:
        """To the same key nothing is done unless it was rotated since."""
        source, plaintext, material = self._open(call, asked.CiphertextBlob, asked.SourceEncryptionContext)
        target = self._usable(call, asked.DestinationKeyId or source.id)
        same = source.id == target.id and asked.SourceEncryptionContext == asked.DestinationEncryptionContext
        kept = same and material == len(target.materials) - 1
        blob = asked.CiphertextBlob if kept else _seal(target, plaintext, asked.DestinationEncryptionContext)
        return {"CiphertextBlob": blob, "KeyId": target.id, "SourceKeyId": source.id, "ReEncrypted": not kept}

    def _open(self, call: Call, blob: str, context: str) -> tuple[Key, bytes, int]:
        """The key, the plaintext, and which of the key's materials it was encrypted with."""
        data = _decoded(blob, "InvalidParameterValue.InvalidCiphertext")
        header, sealed = data[: len(_MAGIC) + 38], data[len(_MAGIC) + 38 :]
        if not header.startswith(_MAGIC) or len(sealed) < 12 + 16:
            raise ApiError("InvalidParameterValue.InvalidCiphertext", "This was not encrypted here.")
        key = self._usable(call, header[len(_MAGIC) : -2].decode("ascii", "replace"))
        material = int.from_bytes(header[-2:])
        try:
            plaintext = _cipher(key, material).decrypt(sealed[:12], sealed[12:], header + context.encode())
        except (InvalidTag, IndexError):
            raise ApiError("FailedOperation.DecryptError", "The ciphertext or its context is not right.") from None
        return key, plaintext, material

    def _usable(self, call: Call, key_id: str) -> Key:
        key = self._get(call, key_id)
        _require(key, "Enabled")
        return key

    def _get(self, call: Call, key_id: str) -> Key:
        if not _KEY_ID.fullmatch(key_id):
            raise ApiError("InvalidParameterValue.InvalidKeyId", "This is not the ID of a key.")
        key = self._keys.get(f"{call.region}/{key_id}")
        if key is None:
            raise ApiError("ResourceUnavailable.CmkNotFound", f"The key `{key_id}` does not exist.")
        return key

    def _put(self, key: Key) -> None:
        self._keys.put(f"{key.region}/{key.id}", key)

    def _of(self, call: Call) -> list[Key]:
        return [key for key in self._keys.all().values() if key.region == call.region]

    def _require_free_alias(self, call: Call, alias: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", alias) or alias.startswith("kms-"):
            raise ApiError("InvalidParameterValue.InvalidAlias", "An alias has 1 to 60 letters, digits, - and _.")
        if any(key.alias == alias for key in self._of(call)):
            raise ApiError("InvalidParameterValue.AliasAlreadyExists", f"The alias `{alias}` exists.")


def _require(key: Key, *allowed: State) -> None:
    if key.state in allowed:
        return
    code = "CmkDisabled" if key.state == "Disabled" else "CmkStateNotSupport"
    raise ApiError(f"ResourceUnavailable.{code}", f"The key is {key.state}.")


def _decoded(text: str, code: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ApiError(code, "This is not base64.") from None


def _cipher(key: Key, material: int) -> AESGCM:
    return AESGCM(base64.b64decode(key.materials[material]))


def _seal(key: Key, plaintext: bytes, context: str) -> str:
    """The plaintext, encrypted under the key's last material and the context; it tells its key and material."""
    material = len(key.materials) - 1
    header = _MAGIC + key.id.encode() + material.to_bytes(2)
    nonce = os.urandom(12)
    sealed = _cipher(key, material).encrypt(nonce, plaintext, header + context.encode())
    return base64.b64encode(header + nonce + sealed).decode()


def _described(key: Key) -> Fields:
    """What CreateKey answers with, and the others too."""
    return {
        "KeyId": key.id,
        "Alias": key.alias,
        "CreateTime": key.created,
        "Description": key.description,
        "KeyState": key.state,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "HsmClusterId": "",
    }


def _metadata(key: Key) -> Fields:
    return {
        **_described(key),
        "Type": 2,
        "CreatorUin": int(key.creator),
        "CreatorUinString": key.creator,
        "KeyRotationEnabled": key.rotates,
        "Owner": "user",
        "NextRotateTime": key.next_rotation,
        "DeletionDate": key.delete_at,
        "Origin": "TENCENT_KMS",
        "ValidTo": 0,
        "ResourceId": f"creatorUin/{key.creator}/{key.id}",
        "RotateDays": key.days,
        "LastRotateTime": key.rotated,
        "IsSyncReplica": 0,
        "SourceRegion": "",
        "SyncStatus": 0,
        "SyncMessages": "",
        "SyncStartTime": 0,
        "SyncEndTime": 0,
        "SourceHsmClusterId": "",
        "AccountAppId": 0,
        "AccountUin": 0,
        "AccountName": "",
    }
