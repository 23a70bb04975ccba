"""Static roles of Vault's database engine: Vault makes and keeps the passwords, keyturn says when it makes a new one.

Two roles of two users in turn ("alternating"), or one ("single": between installation and deployment consumers hold a
dead password). A value is no password but a reference, and where to log in with what it leads to::

    {"engine": "postgres", "host": "db", "port": 5432, "dbname": "orders",
     "static_creds": "database/static-creds/orders-a", "id": "9f…"}

So no password ever leaves Vault but to who reads ``static_creds``, nothing has to be in the store before it can exist,
and a consumer that reads again survives a rotation that nobody announced. To install a generation is to call
``rotate-role`` on its role, to revoke it is to call it again: its password is then one that nobody was given. (Who may
read that role's static-creds gets the new one, though: revoking keeps nobody from reading.)

**The ledger.** Vault keeps nothing on a role but the time of its last rotation. What keyturn did to it is noted in KV
version 2, at ``<ledger>/_keyturn/<mount>/<role>``, each time by compare-and-set:

- The generation that is installed, or was revoked, and the highest that ever was (rotation/fencing.py says
  what that refuses); the ``id`` of its value; and ``rotated``, when Vault made its password.
- ``turning``, before a rotation: for which value, by which run, and the time of the rotation before. A run whose reply
  was lost finds a later time than that, and takes the rotation for done. Others wait for that run before they take its
  place: two calls at once leave Vault with a password that the database does not know (seen with OpenBao 2.7.2). Where
  the database refused, the server tries again by itself, until it succeeds: that, too, is the rotation begun here.
- A role whose last rotation is not the one noted was rotated by somebody else, or by Vault on its own: the password
  that keyturn's generation stands for is dead, so ``check`` says denied, and `keyturn drift` reports it.

Vault cannot compare in rotate-role. A runner that is suspended just between its last look and the call may rotate once
more what others have installed since. The ledger shows that as it shows any foreign rotation; it is not prevented.

**Vault's own schedule** is that foreign rotation, too. So give the roles the longest ``rotation_period`` (``87600h``
is ten years); a role with a ``rotation_schedule``, or a period of less than a year, is refused.

**Adoption.** Store ``{"static_creds": "database/static-creds/orders-a"}`` and run `keyturn adopt`: nothing is rotated.
To bring an existing user under Vault rotates its password at once, unless the server knows ``skip_import_rotation``
(HashiCorp's Enterprise edition; OpenBao ignores it).

**The runner** needs, for each role, besides its rights on the store, and nothing else; ``sys/`` and the engine's
configuration are not its business::

    path "database/static-roles/orders-a"             { capabilities = ["read"] }
    path "database/static-creds/orders-a"             { capabilities = ["read"] }
    path "database/rotate-role/orders-a"              { capabilities = ["create", "update"] }
    path "secret/data/_keyturn/database/orders-a"     { capabilities = ["create", "read", "update"] }

The database is PostgreSQL. Vault's account there needs ADMIN OPTION on the users; the users need nothing new. Sessions
are counted and ended, and privileges compared, as the users themselves.
https://developer.hashicorp.com/vault/api-docs/secret/databases#static-roles
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import hvac
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rotation import postgresql
from rotation.credential_values import read
from rotation.credentials import (
    ComparesPrivileges,
    CredentialKind,
    DescribesOperations,
    HasAdministrator,
    ReadSecret,
    ReportsUsage,
)
from rotation.database_login import Login
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.fencing import Record, refuse_superseded
from rotation.kv_document import Document
from rotation.model import Acceptance, Credential, Strategy, Usage
from rotation.options import parse
from rotation.postgresql import APPLICATION_NAME, SslMode, Transport, privileges
from rotation.retries import retrying, until
from rotation.secret_value import SecretValue
from rotation.vault import Connection, connect

LEAST_PERIOD = 365 * 24 * 60 * 60  # seconds
_TURN_SECONDS = 20.0  # that another run gets to rotate: a call lasts 15 s at most
_Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")]
_Role = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


class _Options(Connection):
    mount: _Path = "database"
    ledger: _Path = "secret"
    roles: tuple[_Role, ...] = Field(min_length=1, max_length=2)
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    dbname: str
    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None

    @model_validator(mode="after")
    def _roles_differ(self) -> Self:
        if len(set(self.roles)) < len(self.roles):
            raise ValueError("roles: name two different roles")
        return self

    def static_creds(self, role: str) -> str:
        return f"{self.mount}/static-creds/{role}"


class _Value(BaseModel):
    """A generation's value; one that was adopted has no id."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    static_creds: str
    id: str = ""


class _Turning(BaseModel):
    """A rotation that a run has begun: for the value ``id``, when ``before`` was the time of the last one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    run: str
    before: str


class _Note(BaseModel):
    """What keyturn did to a static role last. ``rotated`` is empty where keyturn did not rotate it yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record: Record = Record()
    id: str = ""
    rotated: str = ""
    turning: _Turning | None = None

    def stands_for(self, value: _Value, rotated: str) -> bool:
        """Whether the role's password, of this time, is the one that the value was installed with."""
        untouched = self.record.generation == 0
        installed = self.record.state == "installed"
        return value.id == self.id and (untouched or installed) and self.rotated in ("", rotated)

    def installed(self, generation: int, value: _Value, rotated: str) -> _Note:
        return _Note(record=self.record.installed_as(generation), id=value.id, rotated=rotated)

    def revoked(self, generation: int) -> _Note:
        return _Note(record=self.record.revoked_at(generation))

    def without(self, generation: int) -> _Note:
        return self.model_copy(update={"record": self.record.without(generation)})

    def turned_by(self, run: str, value: _Value, before: str) -> _Note:
        return self.model_copy(update={"turning": _Turning(id=value.id, run=run, before=before)})


@dataclass(frozen=True, slots=True)
class _Kept:
    """A static role's login as Vault knows it, and when Vault last changed its password."""

    login: Login
    rotated: str


class VaultDatabaseRole(CredentialKind, ReportsUsage, ComparesPrivileges, HasAdministrator, DescribesOperations):
    """Options: ``roles`` (one static role, or two), ``host``, ``port`` and ``dbname`` of the PostgreSQL database,
    ``sslmode``, ``sslrootcert`` (a file); ``mount`` of the database engine, ``ledger`` (the mount of a KV engine,
    version 2); and those of :class:`rotation.vault.Connection`."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.ALTERNATING, Strategy.SINGLE})

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        del read  # Vault itself changes the passwords
        self._options = parse(_Options, options, "vault_database_role")
        if strategy not in self.strategies:
            known = ", ".join(sorted(self.strategies))
            raise DeclarationError(f"vault_database_role has no strategy {strategy} (it has: {known})")
        wanted = 1 if strategy is Strategy.SINGLE else 2
        if len(self._options.roles) != wanted:
            raise DeclarationError(f"vault_database_role: option roles: the strategy {strategy} takes {wanted}")
        self._transport = Transport(self._options.sslmode, self._options.sslrootcert)
        self._vault = connect(self._options)

    def issue(self, current: Credential | None) -> SecretValue:
        used = None if current is None else self._role(self._parse(current))
        options = self._options
        role = next((role for role in options.roles if role != used), options.roles[0])
        place = {"engine": "postgres", "host": options.host, "port": options.port, "dbname": options.dbname}
        value = place | {"static_creds": options.static_creds(role), "id": secrets.token_hex(16)}
        return SecretValue(json.dumps(value))

    def install(self, new: Credential, current: Credential | None) -> None:
        value = self._parse(new)
        role, run = self._role(value), secrets.token_hex(8)

        def step(note: _Note) -> _Note:
            refuse_superseded(f"static role {role}", note.record, new, current)
            kept = self._kept(role)
            if note.stands_for(value, kept.rotated) and self._answer(kept.login) is not Acceptance.DENIED:
                return note.installed(new.generation, value, kept.rotated)
            if note.turning is None or note.turning.id != value.id:
                return note.turned_by(run, value, kept.rotated)
            if note.turning.run != run:
                self._await(role, note, note.turning)
                return note.turned_by(run, value, note.turning.before)
            return note.installed(new.generation, value, self._rotate(role, note.turning.before))

        self._ledger(role).change(step)

    def check(self, credential: Credential) -> Acceptance:
        value = self._parse(credential)
        role = self._role(value)
        try:
            note, kept = self._ledger(role).read(), self._kept(role)
            if not note.stands_for(value, kept.rotated):
                return Acceptance.DENIED
        except (Unavailable, Unauthorized):  # it is the runner that Vault refuses
            return Acceptance.UNKNOWN
        return self._answer(kept.login)

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        value = self._parse(old)
        role = self._role(value)
        in_use = self._has(role, current)

        def step(note: _Note) -> _Note:
            if note.record.generation > old.generation:
                return note
            rotated = self._kept(role).rotated
            installed = note.stands_for(value, rotated)
            if in_use or (not installed and note.record.generation != old.generation):
                return note.without(old.generation)
            if installed:
                self._rotate(role, rotated)
            return note.revoked(old.generation)

        note = self._ledger(role).change(step)
        if end_sessions and note == note.revoked(old.generation):
            with postgresql.transaction(self._kept(role).login, self._transport) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = current_user AND pid <> pg_backend_pid()"
                )

    def usage(self, old: Credential, current: Credential | None) -> Usage | None:
        """Open sessions of the role's user, keyturn's own checks left out; a session that opens and closes between two
        looks is missed, and Vault does not keep who read a role's password when: there is no marker."""
        role = self._role(self._parse(old))
        if self._has(role, current):
            return None
        login = self._kept(role).login
        try:
            with postgresql.transaction(login, self._transport) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND application_name <> %s",
                    [APPLICATION_NAME],
                ).fetchone()
        except Unauthorized:
            return Usage(sessions=None)
        return Usage(sessions=row[0] if row else None)

    def _has(self, role: str, credential: Credential | None) -> bool:
        return credential is not None and self._role(self._parse(credential)) == role

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        """By the server's own functions, asked as the new user; see :mod:`rotation.postgresql.privileges`."""
        before, after = (self._kept(self._role(self._parse(credential))).login for credential in (old, new))
        if before.username == after.username:
            return ()
        with postgresql.transaction(after, self._transport) as connection:
            return privileges.missing(connection, before.username, after.username)

    def probe(self) -> None:
        for role in self._options.roles:
            self._refuse_own_schedule(role)
            self._ledger(role).read()

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        roles = self._options.roles
        call = f"{self._options.mount}/rotate-role"
        if current is None:
            return (f"{call}/{roles[0]}: Vault makes the password of generation {new}",)
        if len(roles) == 1:
            made = f"{call}/{roles[0]}: Vault makes the password of generation {new}"
            return (f"{made}, and that of generation {current} is denied from then on",)
        idle = (
            f"{call} for {' or '.join(roles)}, the one that generation {current} does not use: Vault makes its password"
        )
        return idle, f"when generation {current} is retired: {call} for its role, whose password is nobody's then"

    def _parse(self, credential: Credential) -> _Value:
        example = self._options.static_creds(self._options.roles[0])
        return read(
            _Value,
            credential,
            "does not refer to a static role",
            f'Store it as JSON: {{"static_creds": "{example}"}}.',
        )

    def _role(self, value: _Value) -> str:
        for role in self._options.roles:
            if value.static_creds == self._options.static_creds(role):
                return role
        raise TargetError(
            f"a value refers to a static role that is not one of {', '.join(self._options.roles)}",
            "Declare that role among the roles, or store a value of one that is.",
        )

    def _answer(self, login: Login) -> Acceptance:
        try:
            postgresql.connect(login, self._transport).close()
        except Unauthorized:
            return Acceptance.DENIED
        except Unavailable:
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED

    # Vault

    def _kept(self, role: str) -> _Kept:
        path = self._options.static_creds(role)
        found = self._ask(f"read {path}", lambda c: c.adapter.get(f"/v1/{path}"))
        options, data = self._options, found["data"]
        login = Login(
            options.host, options.port, data["username"], SecretValue(data.get("password") or ""), options.dbname
        )
        return _Kept(login, str(data.get("last_vault_rotation")))

    def _rotate(self, role: str, before: str) -> str:
        """Have Vault rotate the role, unless it did since ``before``, and return when it did: a call whose reply was
        lost is not made again."""
        path = f"{self._options.mount}/rotate-role/{role}"

        def once() -> str:
            rotated = self._kept(role).rotated
            if rotated != before:
                return rotated
            # Quiet: what Vault quotes of the database's error may quote the statement, with the password.
            self._vault.ask_once(
                lambda c: c.adapter.post(f"/v1/{path}"), f"call {path}", otherwise=TargetError, quiet=True
            )
            return self._kept(role).rotated

        return retrying(once)

    def _await(self, role: str, note: _Note, turning: _Turning) -> None:
        """Give the run that is to rotate the role the time for it; one that died needs none, but who can tell."""

        def look() -> bool:
            return self._ledger(role).read() != note or self._kept(role).rotated != turning.before

        with suppress(Unavailable):
            until(look, bool, what=f"the rotation of the static role {role}", seconds=_TURN_SECONDS)

    def _refuse_own_schedule(self, role: str) -> None:
        path = f"{self._options.mount}/static-roles/{role}"
        data = self._ask(f"read {path}", lambda c: c.adapter.get(f"/v1/{path}"))["data"]
        schedule, period = data.get("rotation_schedule"), data.get("rotation_period") or 0
        if schedule or period < LEAST_PERIOD:
            every = f"by the schedule {schedule}" if schedule else f"every {period} s"
            raise TargetError(
                f"Vault rotates the static role {role} on its own, {every}, and its consumers would not be told",
                "Give the role a rotation_period of years (87600h): keyturn rotates it, by its own schedule.",
            )

    def _ledger(self, role: str) -> Document[_Note]:
        path = f"_keyturn/{self._options.mount}/{role}"
        return Document(self._vault, self._options.ledger, path, _Note)

    def _ask(self, doing: str, call: Callable[[hvac.Client], Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._vault.ask(call, doing, otherwise=TargetError)
        return answer
