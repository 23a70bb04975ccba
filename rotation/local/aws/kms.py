"""KMS as AWS documents it, on top of moto 5.2.5: rotation changes the key material, and a context is authenticated.

Source: the KMS API reference, pages RotateKeyOnDemand, ListKeyRotations, GetKeyRotationStatus, Decrypt. Operations
that administer a key take its id or ARN; those that use a key take its alias as well.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from moto.core.exceptions import JsonRESTError
from moto.kms import models, urls
from moto.kms.exceptions import AccessDeniedException, InvalidCiphertextException, ValidationException
from moto.kms.models import Key, KmsBackend, kms_backends
from moto.kms.responses import KmsResponse
from moto.kms.utils import KeySpec, generate_master_key, generate_private_key

MAX_ROTATIONS_ON_DEMAND = 25
DEFAULT_ROTATION_DAYS = 365
_DAY = 86_400
_NONCE_BYTES = 12
_MATERIAL_ID_BYTES = 32
_UNKNOWN_KEY = (
    "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are "
    "not allowed to access."
)


def install() -> None:
    """Make moto's server use this KMS. To be called before its first request."""
    kms_backends.backend = DocumentedKms
    vars(models)["generate_private_key"] = _private_key


def _private_key(key_spec: str) -> Any:
    """A symmetric key has no private key; moto would spend a tenth of a second on an RSA key for it."""
    return None if key_spec == KeySpec.SYMMETRIC_DEFAULT else generate_private_key(key_spec)


class DocumentedKms(KmsBackend):
    """KMS of one account and region. ``former_materials``: for each key id its earlier materials, oldest first."""

    def __init__(self, region_name: str, account_id: str | None = None) -> None:
        super().__init__(region_name, account_id)
        self.former_materials: dict[str, list[bytes]] = {}
        self.rotation_days: dict[str, tuple[int, float]] = {}  # key id: period in days, and when it was set

    @property
    def _url_module(self) -> Any:
        paths = dict.fromkeys(urls.url_paths, DocumentedResponse.dispatch)
        return SimpleNamespace(url_bases=urls.url_bases, url_paths=paths)

    def encrypt(self, key_id: str, plaintext: bytes, encryption_context: dict[str, str]) -> tuple[bytes, str]:
        """Encrypt, also GenerateDataKey's. The ciphertext names key and material; the context is authenticated."""
        if not 1 <= len(plaintext) <= 4096:
            raise ValidationException("1 validation error detected: Value at 'plaintext' must have 1 to 4096 bytes")
        key = self.usable(key_id)
        header = bytes([len(key.id)]) + key.id.encode() + _material_id(key.key_material)
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(key.key_material).encrypt(nonce, plaintext, _authenticated(header, encryption_context))
        return header + nonce + sealed, key.arn

    def decrypt(
        self, ciphertext_blob: bytes, encryption_context: dict[str, str], key_id: str | None = None
    ) -> tuple[bytes, str]:
        """Decrypt with the material that the ciphertext names, current or former."""
        owner, material_id, nonce, sealed = _parsed(ciphertext_blob)
        if owner not in self.keys:
            raise AccessDeniedException(_UNKNOWN_KEY)
        if key_id is not None and self.any_id_to_key_id(key_id) != owner:
            raise _refused(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )
        key = self.usable(owner)
        material = next((one for one in self.materials(key) if _material_id(one) == material_id), None)
        if material is None:
            raise InvalidCiphertextException
        header = ciphertext_blob[: -len(nonce + sealed)]
        try:
            plaintext = AESGCM(material).decrypt(nonce, sealed, _authenticated(header, encryption_context))
        except InvalidTag as error:
            raise InvalidCiphertextException from error
        return plaintext, key.arn

    def rotate_key_on_demand(self, key_id: str) -> str:
        """RotateKeyOnDemand: new material for what comes, at most 25 times; the former ones still decrypt."""
        key = self.usable(key_id)
        if key.key_spec != KeySpec.SYMMETRIC_DEFAULT:
            raise _refused("UnsupportedOperationException", "Only symmetric encryption keys can be rotated.")
        if len(key.rotations) >= MAX_ROTATIONS_ON_DEMAND:
            raise _refused("LimitExceededException", "The limit of on-demand rotations of this key is exceeded.")
        self.former_materials.setdefault(key.id, []).append(key.key_material)
        key.key_material = generate_master_key()
        key.rotations.append(
            {
                "KeyId": key.id,
                "KeyMaterialId": _material_id(key.key_material).hex(),
                "RotationDate": time.time(),
                "RotationType": "ON_DEMAND",
            }
        )
        return key.id

    def delete_key(self, key_id: str) -> None:
        super().delete_key(key_id)
        self.former_materials.pop(key_id, None)

    def materials(self, key: Key) -> list[bytes]:
        """A key's materials, oldest first; the last is current."""
        return [*self.former_materials.get(key.id, []), key.key_material]

    def usable(self, key_id: str) -> Key:
        """A key that is enabled. Raises DisabledException or KMSInvalidStateException for one that is not."""
        key = self.keys[self.any_id_to_key_id(key_id)]
        if key.key_state == "Disabled":
            raise _refused("DisabledException", f"{key.arn} is disabled.")
        if key.key_state != "Enabled":
            raise _refused("KMSInvalidStateException", f"{key.arn} is pending deletion.")
        return key


class DocumentedResponse(KmsResponse):
    """Answers with what moto leaves out."""

    @property
    def _kms(self) -> DocumentedKms:
        return cast(DocumentedKms, self.kms_backend)

    def enable_key_rotation(self) -> str:
        """EnableKeyRotation, with RotationPeriodInDays (90 to 2560)."""
        days = self._get_param("RotationPeriodInDays", DEFAULT_ROTATION_DAYS)
        if not 90 <= days <= 2560:
            raise ValidationException("1 validation error detected: Value at 'rotationPeriodInDays' must be 90 to 2560")
        key = self._administered()
        self._kms.rotation_days[key.id] = (days, time.time())
        return super().enable_key_rotation()

    def get_key_rotation_status(self) -> str:
        key = self._administered()
        status: dict[str, Any] = {"KeyId": key.id, "KeyRotationEnabled": key.key_rotation_status}
        if key.key_rotation_status:
            days, since = self._kms.rotation_days.get(key.id, (DEFAULT_ROTATION_DAYS, key.creation_date))
            status |= {"RotationPeriodInDays": days, "NextRotationDate": since + days * _DAY}
        return json.dumps(status)

    def rotate_key_on_demand(self) -> str:
        return json.dumps({"KeyId": self._kms.rotate_key_on_demand(self._administered().id)})

    def list_key_rotations(self) -> str:
        """ListKeyRotations: with ALL_KEY_MATERIAL also the first material, which no rotation made."""
        key = self._administered()
        entries = [entry | {"KeyMaterialState": "NON_CURRENT"} for entry in key.rotations]
        if self._get_param("IncludeKeyMaterial") == "ALL_KEY_MATERIAL":
            first = _material_id(self._kms.materials(key)[0]).hex()
            entries.insert(0, {"KeyId": key.id, "KeyMaterialId": first, "KeyMaterialState": "NON_CURRENT"})
        if entries:
            entries[-1]["KeyMaterialState"] = "CURRENT"
        start, limit = int(self._get_param("Marker", "0")), self._get_param("Limit", 100)
        following = start + limit
        answer: dict[str, Any] = {"Rotations": entries[start:following], "Truncated": following < len(entries)}
        return json.dumps(answer | ({"NextMarker": str(following)} if answer["Truncated"] else {}))

    def generate_data_key(self) -> str:
        return _with_material(super().generate_data_key())

    def decrypt(self) -> str:
        plain = json.loads(super().decrypt())
        *_, material_id, _, _ = _parsed(self._get_param("CiphertextBlob"))
        return json.dumps(plain | {"KeyMaterialId": material_id.hex(), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})

    def _administered(self) -> Key:
        """The key of an operation that takes a key's id or ARN, not an alias."""
        key_id = self._get_param("KeyId")
        self._validate_cmk_id(key_id)
        return self._kms.keys[self._kms.get_key_id(key_id)]


def _refused(code: str, message: str) -> JsonRESTError:
    return JsonRESTError(code, message)


def _material_id(material: bytes) -> bytes:
    return hashlib.sha256(b"material" + material).digest()


def _authenticated(header: bytes, context: Mapping[str, str]) -> bytes:
    """What GCM authenticates: the context in an unambiguous form, in which {"a": "bc"} is not {"ab": "c"}."""
    return header + json.dumps(context, sort_keys=True).encode()


def _parsed(blob: bytes) -> tuple[str, bytes, bytes, bytes]:
    """Key id, material id, nonce and sealed text of a ciphertext. Raises InvalidCiphertextException."""
    if not blob:
        raise InvalidCiphertextException
    owner, rest = blob[1 : 1 + blob[0]], blob[1 + blob[0] :]
    material_id, nonce = rest[:_MATERIAL_ID_BYTES], rest[_MATERIAL_ID_BYTES:][:_NONCE_BYTES]
    sealed = rest[_MATERIAL_ID_BYTES + _NONCE_BYTES :]
    if not sealed or not owner.isascii():
        raise InvalidCiphertextException
    return owner.decode("ascii"), material_id, nonce, sealed


def _with_material(answer: str) -> str:
    fields = json.loads(answer)
    _, material_id, _, _ = _parsed(base64.b64decode(fields["CiphertextBlob"]))
    return json.dumps(fields | {"KeyMaterialId": material_id.hex()})
