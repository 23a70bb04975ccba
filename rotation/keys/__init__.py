"""Key services: they hold keys that never leave them, and wrap data keys. Every file here is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class DataKey:
    """A fresh key: 32 bytes of ``plaintext``, never to leave memory, and the same ``wrapped`` by the service."""

    plaintext: bytes
    wrapped: bytes

    def __repr__(self) -> str:
        return "DataKey(••••)"


@dataclass(frozen=True, slots=True)
class KeyView:
    """What the service says of a key. ``rotated_at`` is the last rotation of its material, None for never.
    ``exportable`` tells that the material can be read out, ``deletable`` that one call would delete the key for good.
    """

    reference: str
    exists: bool = True
    enabled: bool = True
    automatic: bool = False
    rotated_at: datetime | None = None
    exportable: bool = False
    deletable: bool = False


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A wrapped data key, with the context that it was wrapped under."""

    key: bytes
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MaterialVersions:
    """The numbers of a key's materials, from 1: the ``latest``, which wraps, and the lowest that still unwraps."""

    latest: int
    minimum: int


class KeyService(ABC):
    """Keys by their reference. ``context`` is authenticated with the wrapped key: unwrapping under another one fails.

    Raises Unavailable, Unauthorized, and :class:`~rotation.errors.KeyServiceError` for any other refusal.
    """

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def observe(self, keys: Sequence[str]) -> dict[str, KeyView]: ...

    @abstractmethod
    def rotate(self, key: str) -> None:
        """Give the key new material now; what the old material wrapped can still be unwrapped."""

    @abstractmethod
    def data_key(self, key: str, context: Mapping[str, str]) -> DataKey: ...

    @abstractmethod
    def unwrap(self, key: str, wrapped: bytes, context: Mapping[str, str]) -> bytes: ...


class RewrapsKeys(ABC):
    """A key service that wraps data keys anew without showing them."""

    @abstractmethod
    def rewrap(self, key: str, wrapped: Sequence[Wrapped]) -> list[bytes]:
        """The same data keys, wrapped by the latest material, in their order."""


class VersionedKeys(RewrapsKeys):
    """A key service that says which of a key's materials wrapped what, and can stop the older ones from unwrapping."""

    @abstractmethod
    def versions(self, key: str) -> MaterialVersions: ...

    @abstractmethod
    def version_of(self, wrapped: bytes) -> int:
        """The number of the material that wrapped this; KeyServiceError for what the service never made."""

    @abstractmethod
    def raise_minimum(self, key: str, version: int) -> None:
        """Unwrap nothing any more that material older than ``version`` wrapped. Never lowers what is set."""


def in_words(context: Mapping[str, str]) -> str:
    """A context for a message: it names a secret and a generation, and holds no value."""
    return ", ".join(f"{name}={said}" for name, said in context.items()) or "no context"
