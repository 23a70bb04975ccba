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
    """What the service says of a key. ``rotated_at`` is the last rotation of its material, None for never."""

    reference: str
    exists: bool = True
    enabled: bool = True
    automatic: bool = False
    rotated_at: datetime | None = None


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
