"""The account, its users and the keys that they sign with."""

from __future__ import annotations

import secrets
import string
from typing import Literal

from pydantic import BaseModel, Field

from rotation.local.tencent.clock import Clock
from rotation.local.tencent.records import Records, Table
from rotation.local.tencent.wire import Caller, Credential

_ALPHABET = string.ascii_letters + string.digits


class AccessKey(BaseModel):
    """A user's key pair. ``created`` is in seconds since 1970; ``used_days`` are the last two on which it signed."""

    secret_id: str
    secret_key: str = Field(repr=False)
    uin: str
    description: str = ""
    status: Literal["Active", "Inactive"] = "Active"
    created: float
    used_days: list[str] = []


class TemporaryKey(BaseModel):
    """A key pair of a role that was assumed, until ``expires`` (seconds since 1970)."""

    secret_id: str
    secret_key: str = Field(repr=False)
    token: str = Field(repr=False)
    uin: str
    role: str
    expires: float


class Identities:
    """Who may sign. The root account has keys like any user; ``account`` is its UIN."""

    def __init__(self, records: Records, clock: Clock, account: str) -> None:
        self.account = account
        self.keys: Table[AccessKey] = Table(records, "cam.keys", AccessKey)
        self._temporary: Table[TemporaryKey] = Table(records, "sts.keys", TemporaryKey)
        self._clock = clock

    def find(self, secret_id: str) -> Credential | None:
        """What signs with a SecretId; None where there is none, or it is switched off."""
        if key := self.keys.get(secret_id):
            caller = Caller(self.account, key.uin, secret_id)
            return Credential(caller, key.secret_key) if key.status == "Active" else None
        if temporary := self._temporary.get(secret_id):
            caller = Caller(self.account, temporary.uin, secret_id, temporary.role)
            return Credential(caller, temporary.secret_key, temporary.token, temporary.expires)
        return None

    def make_key(self, uin: str, description: str = "") -> AccessKey:
        key = AccessKey(
            secret_id=f"AKID{_random(32)}",
            secret_key=_random(32),
            uin=uin,
            description=description,
            created=self._clock.now(),
        )
        self.keys.put(key.secret_id, key)
        return key

    def keep_key(self, secret_id: str, secret_key: str) -> None:
        """Let the root account sign with a key pair that was made elsewhere."""
        if self.keys.get(secret_id) is None:
            key = AccessKey(secret_id=secret_id, secret_key=secret_key, uin=self.account, created=self._clock.now())
            self.keys.put(secret_id, key)

    def assume(self, role: str, uin: str, seconds: float) -> TemporaryKey:
        """A temporary key pair with its token, good for so long."""
        key = TemporaryKey(
            secret_id=f"AKID{_random(60)}",
            secret_key=_random(44),
            token=_random(200),
            uin=uin,
            role=role,
            expires=self._clock.now() + seconds,
        )
        self._temporary.put(key.secret_id, key)
        return key

    def note_use(self, secret_id: str) -> None:
        """Remember the day on which a user's key signed something."""
        today = f"{self._clock.moment():%Y-%m-%d}"
        key = self.keys.get(secret_id)
        if key and today not in key.used_days:
            self.keys.put(secret_id, key.model_copy(update={"used_days": [*key.used_days, today][-2:]}))


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
