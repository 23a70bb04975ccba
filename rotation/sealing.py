"""Sealed values: readable only with the store *and* the key.

A sealed value is a JSON object in the store's place of the value:

| Field | Holds |
|---|---|
| ``keyturn`` | the format: ``sealed/1`` |
| ``key`` | what the key service calls the wrapping key |
| ``wrapped`` | the data key, fresh for each sealing, wrapped by that key (base64) |
| ``nonce`` | 96 random bits (base64) |
| ``ciphertext`` | the value's UTF-8 text under AES-256-GCM, with its 128-bit tag (base64) |

The associated data is the canonical JSON of format, key, name and generation, and the key service authenticates name
and generation once more as the context of the wrapped key: an envelope that is moved to another secret or another
generation does not open.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rotation.errors import StoreError
from rotation.keys import KeyService, RewrapsKeys, Wrapped
from rotation.secret_value import SecretValue

FORMAT = "sealed/1"
_NONCE_BYTES = 12
_DAMAGED = "Put a sound value there with a new rotation; if nobody of yours altered it, treat it as tampering."


@dataclass(frozen=True, slots=True)
class _Envelope:
    keyturn: str
    key: str
    wrapped: str
    nonce: str
    ciphertext: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A value as it is in the store, and of which secret and generation it is there."""

    stored: SecretValue
    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A sealed value's wrapped data key, and what the key service calls the key that wrapped it."""

    key: str
    wrapped: bytes


def seal(value: SecretValue, *, name: str, generation: int, key: str, service: KeyService) -> SecretValue:
    """Seal a value for one generation of one secret under a fresh data key. Raises what ``service`` raises."""
    data_key = service.data_key(key, _context(name, generation))
    nonce = os.urandom(_NONCE_BYTES)
    ciphertext = AESGCM(data_key.plaintext).encrypt(nonce, value.reveal().encode(), _bound(name, generation, key))
    envelope = _Envelope(FORMAT, key, _to_text(data_key.wrapped), _to_text(nonce), _to_text(ciphertext))
    return SecretValue(json.dumps(asdict(envelope)))


def unseal(sealed: SecretValue, *, name: str, generation: int, service: KeyService) -> SecretValue:
    """Open a sealed value.

    Raises :class:`StoreError` for what is no envelope or has been altered, and what ``service`` raises: it refuses the
    wrapped key of another secret, generation or key with a KeyServiceError.
    """
    envelope = _envelope(Placed(sealed, name, generation))
    try:
        wrapped, nonce, ciphertext = (
            base64.b64decode(text, validate=True) for text in (envelope.wrapped, envelope.nonce, envelope.ciphertext)
        )
        data_key = service.unwrap(envelope.key, wrapped, _context(name, generation))
        opened = AESGCM(data_key).decrypt(nonce, ciphertext, _bound(name, generation, envelope.key))
    except (InvalidTag, ValueError) as error:
        raise _damaged(name, generation) from error
    return SecretValue(opened.decode())


def reseal(sealed: SecretValue, *, name: str, generation: int, key: str, service: KeyService) -> SecretValue:
    """The same value in a new envelope, under the key's present material: for after the key was rotated."""
    return seal(
        unseal(sealed, name=name, generation=generation, service=service),
        name=name,
        generation=generation,
        key=key,
        service=service,
    )


def rewrap(found: Sequence[Placed], *, key: str, service: KeyService) -> list[SecretValue]:
    """The same values under the key's present material, in their order.

    Where the service re-wraps, it is given the wrapped data keys, and neither they nor the values are in clear outside
    of it; elsewhere, and for what another key has sealed, the value is sealed again. Raises as :func:`unseal` does.
    """
    anew = _rewrapped(found, key, service) if isinstance(service, RewrapsKeys) else {}
    return [
        anew[at]
        if at in anew
        else reseal(each.stored, name=each.name, generation=each.generation, key=key, service=service)
        for at, each in enumerate(found)
    ]


def wrapping(value: Placed) -> Wrapping | None:
    """What wraps the data key of a sealed value, without opening it; None for a value that is not sealed."""
    return _wrapping(value) if is_sealed(value.stored) else None


def _rewrapped(found: Sequence[Placed], key: str, service: RewrapsKeys) -> dict[int, SecretValue]:
    """The values that this key has sealed, by their place in ``found``."""
    envelopes = {at: envelope for at, each in enumerate(found) if (envelope := _envelope(each)).key == key}
    wrapped = [
        Wrapped(_wrapping(found[at]).wrapped, _context(found[at].name, found[at].generation)) for at in envelopes
    ]
    anew = service.rewrap(key, wrapped)
    return {
        at: SecretValue(json.dumps(asdict(replace(envelope, wrapped=_to_text(key_anew)))))
        for (at, envelope), key_anew in zip(envelopes.items(), anew, strict=True)
    }


def is_sealed(value: SecretValue) -> bool:
    """Whether the value is an envelope of this format; whether it opens is another question."""
    return _parse(value) is not None


def _parse(value: SecretValue) -> _Envelope | None:
    # Returns None instead of raising: a JSON error would carry the text that it could not read.
    try:
        envelope = _Envelope(**json.loads(value.reveal()))
    except (ValueError, TypeError):
        return None
    sound = envelope.keyturn == FORMAT and all(isinstance(text, str) for text in asdict(envelope).values())
    return envelope if sound else None


def _envelope(value: Placed) -> _Envelope:
    envelope = _parse(value.stored)
    if envelope is None:
        what = f"the value of {value.name}, generation {value.generation}, is not a sealed value of format {FORMAT}"
        raise StoreError(what)
    return envelope


def _wrapping(value: Placed) -> Wrapping:
    envelope = _envelope(value)
    try:
        return Wrapping(envelope.key, base64.b64decode(envelope.wrapped, validate=True))
    except ValueError as error:
        raise _damaged(value.name, value.generation) from error


def _damaged(name: str, generation: int) -> StoreError:
    what = f"the sealed value of {name}, generation {generation}, was altered or belongs to another secret"
    return StoreError(what, _DAMAGED)


def _context(name: str, generation: int) -> dict[str, str]:
    return {"keyturn:secret": name, "keyturn:generation": str(generation)}


def _bound(name: str, generation: int, key: str) -> bytes:
    facts = {"format": FORMAT, "generation": generation, "key": key, "name": name}
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
