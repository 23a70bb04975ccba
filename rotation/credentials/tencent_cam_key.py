"""Access keys of one CAM user of Tencent Cloud, who may have two of them: the old and the new one overlap.

A value is JSON: ``{"SecretId": …, "SecretKey": …}``. CAM makes the key and shows its secret once, so it has to be there
before it can be staged: it is made, and switched off at once. Installing a generation switches its key on; revoking it
switches the key off and deletes it, and CAM never makes that key again.

**Orphans.** A key whose description is ``keyturn``, and that was never installed, is what a run left behind that died
before it staged the value: the next one to be made takes its place. `keyturn drift` shows it, too.

**The note.** CAM keeps the generation of a key in no other place than the user's remark, after any text of somebody
else's: ``keyturn:Ab3dEf7h=3,…``, the end of a key's id and the generation that was installed last. It refuses an older
generation, and keeps a runner that slept from deleting a key that a rollback has brought back. CAM cannot compare when
it writes a remark: two runners at the very same time are kept apart by the journal's lease alone. The keys of one user
are for one secret.

**Usage.** CAM says on which day a key was last used, a day late: with a grace window of less than two days that is no
evidence. Keyturn's own checks are uses as well.

**The runner** needs cam:GetUser, cam:UpdateUser, cam:ListAccessKeys, cam:CreateAccessKey, cam:UpdateAccessKey,
cam:DeleteAccessKey and cam:GetSecurityLastUsed on that user. Who may make keys of a user can act as that user.
https://www.tencentcloud.com/document/product/598 and the SDK's cam.v20190116.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rotation.credential_values import read
from rotation.credentials import (
    CredentialKind,
    DescribesOperations,
    HasAdministrator,
    ReadSecret,
    ReportsLeftovers,
    ReportsUsage,
)
from rotation.errors import DeclarationError, KeyturnError, TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Leftover, Strategy, Usage
from rotation.options import parse
from rotation.retries import retrying
from rotation.secret_value import SecretValue
from rotation.tencentcloud import Connection, Manner, connect

KEYS = 2  # that CAM lets a user have
_MARK = "keyturn"
_NOTE = re.compile(r"\s?keyturn:(?P<entries>[A-Za-z0-9=,]*)$")


class _Options(Connection):
    user: str = Field(min_length=1, max_length=64)


class _Value(BaseModel):
    """A generation's value, open: it must not get into a message."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    SecretId: str = Field(min_length=1)
    SecretKey: str = Field(min_length=1, repr=False)


class _Missing(TargetError):
    """CAM has no such key."""


class _Denied(TargetError):
    """The cloud does not know the key, or it is switched off."""


_SIGNED_WITH: Mapping[str, type[KeyturnError]] = {
    "AuthFailure.InvalidSecretId": _Denied,
    "AuthFailure.SecretIdNotFound": _Denied,
    "AuthFailure.SignatureFailure": _Denied,
}


@dataclass(frozen=True, slots=True)
class _User:
    """The user, and what its remark says: the text of others, and generations by the ends of keys' ids."""

    uin: int
    text: str
    installed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Signer:
    """Signs as the key that is checked."""

    value: _Value

    def get_credential_info(self) -> tuple[str, str, str | None]:
        return self.value.SecretId, self.value.SecretKey, None


class TencentCamKey(CredentialKind, ReportsUsage, ReportsLeftovers, HasAdministrator, DescribesOperations):
    """Options: ``user`` (its name), and those of :class:`rotation.tencentcloud.Connection`."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.OVERLAPPING})

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        del read  # it acts as the runner
        self._options = parse(_Options, options, "tencent_cam_key")
        if strategy not in self.strategies:
            raise DeclarationError(f"tencent_cam_key has no strategy {strategy} (it has: overlapping)")
        self._cloud = connect(self._options)

    def issue(self, current: Credential | None) -> SecretValue:
        """Makes a key, and switches it off. One whose answer was lost is an orphan for the next attempt."""
        used = None if current is None else _parse(current).SecretId

        def once() -> dict[str, Any]:
            user = self._user()
            for key in self._orphans(user, {used}):
                self._delete(user, key)
            keys = self._keys(user)
            if len(keys) >= KEYS:
                raise TargetError(
                    f"the CAM user {self._options.user} has {len(keys)} access keys already: {', '.join(keys)}",
                    "Retire the previous generation (`keyturn retire`), or delete a key that nobody uses.",
                )
            asked = {"TargetUin": user.uin, "Description": _MARK}
            manner = self._manner("make an access key of {}", "AccessKey", quiet=True)
            made: dict[str, Any] = self._cloud.call_once("cam", "CreateAccessKey", asked, manner)["AccessKey"]
            self._switch(user, made["AccessKeyId"], "Inactive")
            return made

        made = retrying(once)
        return SecretValue(json.dumps({"SecretId": made["AccessKeyId"], "SecretKey": made["SecretAccessKey"]}))

    def install(self, new: Credential, current: Credential | None) -> None:
        del current  # overlapping: it stays as it is
        key, user = _parse(new).SecretId, self._user()
        keys = self._keys(user)
        installed = user.installed.get(_end(key), 0)
        if key not in keys or installed > new.generation:
            since = f"generation {installed} has it now" if key in keys else "its access key is deleted"
            raise TargetError(
                f"generation {new.generation} of {new.secret} is superseded: {since}",
                "Run the command again: it starts from what is there now.",
            )
        if installed != new.generation:
            self._note(user, keys, {_end(key): new.generation})
        if keys[key] != "Active":
            self._switch(user, key, "Active")

    def check(self, credential: Credential) -> Acceptance:
        """Asks who it is that signs so: that needs no rights."""
        cloud = self._cloud.signing_as(_Signer(_parse(credential)))
        manner = Manner("sign with an access key", TargetError, _SIGNED_WITH, ("UserId",))
        try:
            cloud.call("sts", "GetCallerIdentity", {}, manner)
        except _Denied:
            return Acceptance.DENIED
        except (Unavailable, Unauthorized):
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        """A deleted key signs nothing more, whatever ``end_sessions`` says."""
        del end_sessions
        key = _parse(old).SecretId
        if _is(key, current):
            return
        user = self._user()
        keys = self._keys(user)
        if key not in keys or user.installed.get(_end(key), 0) > old.generation:
            return
        self._delete(user, key)
        self._note(user, [kept for kept in keys if kept != key], {})

    def usage(self, old: Credential, current: Credential | None) -> Usage | None:
        """The day of the last use that CAM knows of, a day late, as the marker. A key has no sessions."""
        key = _parse(old).SecretId
        if _is(key, current):
            return None
        manner = self._manner("look at the use of an access key of {}", "SecretIdLastUsedRows")
        rows = self._cloud.call("cam", "GetSecurityLastUsed", {"SecretIdList": [key]}, manner)["SecretIdLastUsedRows"]
        days = [row.get("LastUsedDate") for row in rows if row.get("SecretId") == key]
        return Usage(sessions=0, marker=str(days[0] or "never") if days else "never")

    def leftovers(self, kept: Sequence[Credential]) -> tuple[Leftover, ...]:
        """The user's keys that no kept value is. An orphan may go; others may be somebody's."""
        used = {_parse(credential).SecretId for credential in kept}
        user = self._user()
        orphans = self._orphans(user, used)
        return tuple(Leftover(key, key in orphans, sessions=0) for key in self._keys(user) if key not in used)

    def lock_out(self, principal: str, kept: Sequence[Credential]) -> None:
        found = {left.principal: left for left in self.leftovers(kept)}
        user = self._user()
        if principal not in self._keys(user):
            return
        if principal not in found or not found[principal].removable:
            raise TargetError(f"the access key {principal} is in use, or somebody else's: it is left alone")
        self._delete(user, principal)

    def probe(self) -> None:
        self._keys(self._user())

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        made = f"CreateAccessKey of {self._options.user} for generation {new}, and UpdateAccessKey to switch it on"
        if current is None:
            return (made,)
        return made, f"when generation {current} is retired: UpdateAccessKey and DeleteAccessKey of its key"

    # CAM

    def _user(self) -> _User:
        asked = {"Name": self._options.user}
        found = self._cloud.call("cam", "GetUser", asked, self._manner("look at {}", "Uin"))
        remark = str(found.get("Remark") or "")
        note = _NOTE.search(remark)
        pairs = (entry.partition("=") for entry in note["entries"].split(",")) if note else ()
        installed = {end: int(number) for end, _, number in pairs if number.isdecimal()}
        return _User(int(found["Uin"]), _NOTE.sub("", remark), installed)

    def _note(self, user: _User, keys: Sequence[str] | Mapping[str, str], change: Mapping[str, int]) -> None:
        """Write which generations are installed, of the keys that are there."""
        ends = {_end(key) for key in keys}
        entries = {end: number for end, number in {**user.installed, **change}.items() if end in ends}
        if entries == user.installed:
            return
        note = f"{_MARK}:{','.join(f'{end}={number}' for end, number in entries.items())}" if entries else ""
        asked = {"Name": self._options.user, "Remark": f"{user.text} {note}".strip()}
        self._cloud.call("cam", "UpdateUser", asked, self._manner("note in the remark of {}"))

    def _listed(self, user: _User) -> list[dict[str, Any]]:
        manner = self._manner("list the access keys of {}", "AccessKeys")
        found: list[dict[str, Any]] = self._cloud.call("cam", "ListAccessKeys", {"TargetUin": user.uin}, manner)[
            "AccessKeys"
        ]
        return found

    def _keys(self, user: _User) -> dict[str, str]:
        """The ids of the user's keys, and whether each is Active or Inactive."""
        return {key["AccessKeyId"]: key["Status"] for key in self._listed(user)}

    def _orphans(self, user: _User, used: set[str | None] | set[str]) -> list[str]:
        """Keys that keyturn made and never installed."""
        made = [key["AccessKeyId"] for key in self._listed(user) if key.get("Description") == _MARK]
        return [key for key in made if key not in used and _end(key) not in user.installed]

    def _switch(self, user: _User, key: str, status: str) -> None:
        asked = {"TargetUin": user.uin, "AccessKeyId": key, "Status": status}
        self._cloud.call("cam", "UpdateAccessKey", asked, self._manner(f"make the access key {key} of {{}} {status}"))

    def _delete(self, user: _User, key: str) -> None:
        with suppress(_Missing):
            self._switch(user, key, "Inactive")
            asked = {"TargetUin": user.uin, "AccessKeyId": key}
            self._cloud.call("cam", "DeleteAccessKey", asked, self._manner(f"delete the access key {key} of {{}}"))

    def _manner(self, doing: str, *requires: str, quiet: bool = False) -> Manner:
        what = doing.format(f"the CAM user {self._options.user}")
        return Manner(what, TargetError, {"ResourceNotFound.SecretNotExist": _Missing}, requires, quiet)


def _end(key: str) -> str:
    return key[-8:]


def _is(key: str, credential: Credential | None) -> bool:
    return credential is not None and _parse(credential).SecretId == key


def _parse(credential: Credential) -> _Value:
    return read(
        _Value,
        credential,
        "is no access key",
        "Store it as JSON with SecretId and SecretKey.",
    )
