"""A PostgreSQL user with a password: two users in turn ("alternating"), or one whose password changes ("single").

The users are members of one NOLOGIN owner role, and every session of theirs starts as that role (``ALTER ROLE … SET
role``): what either creates belongs to the role, so ownership and grants survive each turn. The value is JSON in AWS's
shape: engine, host, port, username, password, dbname.

**The administrator** needs no superuser. What it needs, from PostgreSQL 16 on::

    CREATE ROLE keyturn_admin LOGIN CREATEROLE PASSWORD '…';
    GRANT orders_owner TO keyturn_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
    GRANT legacy_user TO keyturn_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;  -- to retire an adopted user

It has ADMIN OPTION on the users that it creates, as on every role that a CREATEROLE user creates.

**Fencing.** Each user's comment records what keyturn did to it last, after any text of somebody else's::

    keyturn: {"generation": 42, "state": "installed", "spent": 42}

- ``spent`` is the highest generation ever installed for the user or turned down: no other up to it is installed again.
- The exception is a caller that names, as ``current``, the generation recorded as installed: it knows what it replaces.
  This is how "single" restores the current value after a bad candidate.
- Revoking a generation older than the recorded one does nothing: its password is long replaced.
- Changes are one transaction under an advisory lock on the username base.

**Usage.** Sessions are counted in pg_stat_activity, so a session that opens and closes between two looks is missed.
There is no marker: pg_stat_statements counts under the role that a session has switched to, which here is the owner
role for both users, and a count that is always zero would be false evidence of disuse.

Passwords travel as SCRAM-SHA-256 verifiers made on this side: the server, its log and its statistics never get them.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rotation.credentials import (
    ComparesPrivileges,
    CredentialKind,
    DescribesOperations,
    HasAdministrator,
    ReadSecret,
    ReportsLeftovers,
    ReportsUsage,
)
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Leftover, Strategy, Usage
from rotation.options import parse as options_of
from rotation.postgresql import APPLICATION_NAME, Connection, Login, Transport, connect, parse, privileges, transaction
from rotation.postgresql.roles import Record, Roles, refuse_superseded
from rotation.secret_value import SecretValue

PASSWORD_ALPHABET = string.ascii_letters + string.digits  # safe in URLs and connection strings as it is
_SHORTEST = 22  # 22 characters of 62: 131 bits
_Identifier = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=63)]  # longer ones PostgreSQL cuts off


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    administrator: str
    username_base: Annotated[_Identifier, Field(max_length=61)]
    owner_role: _Identifier
    dbname: str
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    password_length: Annotated[int, Field(ge=_SHORTEST, le=256)] = 32
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str | None = None

    @model_validator(mode="after")
    def _owner_is_no_user(self) -> Self:
        if self.owner_role in {self.username_base, f"{self.username_base}_a", f"{self.username_base}_b"}:
            raise ValueError(f"owner_role {self.owner_role} is also one of the users")
        return self


class PostgresUser(
    CredentialKind, ReportsUsage, ReportsLeftovers, ComparesPrivileges, HasAdministrator, DescribesOperations
):
    """Options: ``administrator`` (the name of its secret in the same store), ``username_base``, ``owner_role``,
    ``dbname``; ``host`` and ``port`` (by default the administrator's), ``password_length``, ``sslmode``,
    ``sslrootcert`` (a file)."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.ALTERNATING, Strategy.SINGLE})

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        self._options = options_of(_Options, options, "postgres_user")
        if strategy not in self.strategies:
            known = ", ".join(sorted(self.strategies))
            raise DeclarationError(f"postgres_user has no strategy {strategy} (it has: {known})")
        base = self._options.username_base
        self._users = (base,) if strategy is Strategy.SINGLE else (f"{base}_a", f"{base}_b")
        self._transport = Transport(self._options.sslmode, self._options.sslrootcert)
        self._read = read

    def issue(self, current: Credential | None) -> SecretValue:
        used = None if current is None else self._login(current).username
        administrator = self._administrator()
        password = "".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(self._options.password_length))
        username = next((user for user in self._users if user != used), self._users[0])
        return replace(administrator, username=username, password=SecretValue(password)).to_value()

    def install(self, new: Credential, current: Credential | None) -> None:
        login = self._login(new)
        with self._roles() as roles:
            record = roles.find(login.username)
            if record is not None:
                refuse_superseded(f"user {login.username}", record, new, current)
            if record is not None and self.check(new) is Acceptance.ACCEPTED:
                if record.generation != new.generation:
                    roles.remember(login.username, record.installed_as(new.generation), lenient=self._is_adopted(login))
                return
            if record is None and self._is_adopted(login):
                raise TargetError(
                    f"generation {new.generation} is for the user {login.username}, whom PostgreSQL no longer has",
                    "Create that user again, or rotate to a new generation.",
                )
            roles.enable(login, exists=record is not None)
            if not self._is_adopted(login):
                roles.start_as(login.username, self._options.owner_role)
            roles.remember(login.username, (record or Record()).installed_as(new.generation))

    def check(self, credential: Credential) -> Acceptance:
        try:
            connect(self._login(credential), self._transport).close()
        except Unauthorized:
            return Acceptance.DENIED
        except Unavailable:
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        login = self._login(old)
        self._refuse_to_lock_out(login)
        with self._roles() as roles:
            record = roles.find(login.username)
            if record is None or record.generation > old.generation:
                return
            if self._in_use(login, current) or not self._is_accepted(old, record):
                if old.generation > record.spent and not self._is_adopted(login):
                    roles.remember(login.username, record.without(old.generation))
                return
            if record != record.revoked_at(old.generation):
                roles.disable(login.username)
                roles.remember(login.username, record.revoked_at(old.generation))
        if end_sessions:  # only now: before the commit a client could still have come back
            with self._roles() as roles:
                if roles.find(login.username) == record.revoked_at(old.generation):
                    roles.end_sessions(login.username)

    def usage(self, credential: Credential) -> Usage:
        """Open sessions of the credential's user, keyturn's own checks left out; never a marker (see the module)."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> %s",
                [self._login(credential).username, APPLICATION_NAME],
            ).fetchone()
        return Usage(sessions=row[0] if row else None)

    def leftovers(self, kept: Sequence[Credential]) -> tuple[Leftover, ...]:
        """The users of the pair that may log in and whose no kept value is. An adopted user has a name of its own, that
        nothing remembers once its value is retired: it is not looked for."""
        used = {self._login(credential).username for credential in kept}
        others = [user for user in self._users if user not in used]
        if not others:
            return ()
        with self._transaction() as connection:
            roles = Roles(connection)
            return tuple(Leftover(user, *roles.open_again(user)) for user in others if roles.may_log_in(user))

    def lock_out(self, principal: str, kept: Sequence[Credential]) -> None:
        used = {self._login(credential).username for credential in kept}
        with self._roles() as roles:
            if principal not in self._users or principal in used:
                raise TargetError(f"{principal} is no leftover: it is in use, or somebody else's")
            if not roles.may_log_in(principal):
                return
            left = Leftover(principal, *roles.open_again(principal))
            if not left.removable:
                raise TargetError(f"{principal} is in use, or was not locked out by keyturn: it is left alone")
            roles.disable(principal)

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        """By the server's own functions, in one query; see :mod:`rotation.postgresql.privileges` for what is not seen:
        row-level security policies that name a user, above all."""
        before, after = self._login(old).username, self._login(new).username
        if before == after:
            return ()
        with self._transaction() as connection:
            return privileges.missing(connection, before, after)

    def probe(self) -> None:
        with self._transaction():
            pass

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        owner, verifier = self._options.owner_role, f"LOGIN with a new verifier, for generation {new}"
        member = f"GRANT {owner} to it, and let its sessions start as {owner}"
        if current is None:
            return f"CREATE ROLE {self._users[0]} {verifier}", member
        if len(self._users) == 1:
            return f"ALTER ROLE {self._users[0]} {verifier}: generation {current} is denied from then on", member
        user = f"{' or '.join(self._users)}, the one that generation {current} does not use,"
        gone = f"when generation {current} is retired: ALTER ROLE of its user NOLOGIN PASSWORD NULL"
        return f"ALTER (or CREATE) ROLE {user} {verifier}", member, gone

    def _login(self, credential: Credential) -> Login:
        whose = f"generation {credential.generation} of {credential.secret}"
        return self._parse(credential.value, whose)

    def _administrator(self) -> Login:
        name = self._options.administrator
        login = self._parse(self._read(name), name)
        host, port = self._options.host or login.host, self._options.port or login.port
        return replace(login, host=host, port=port, dbname=self._options.dbname)

    def _parse(self, value: SecretValue, whose: str) -> Login:
        options = self._options
        return parse(value, whose, host=options.host, port=options.port, dbname=options.dbname)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with transaction(self._administrator(), self._transport) as connection:
            yield connection

    @contextmanager
    def _roles(self) -> Iterator[Roles]:
        with self._transaction() as connection:
            roles = Roles(connection)
            roles.lock(self._options.username_base)
            yield roles

    def _is_adopted(self, login: Login) -> bool:
        """Whether the user has a name of its own, from before keyturn: its grants are not keyturn's to change."""
        return login.username not in self._users

    def _in_use(self, login: Login, current: Credential | None) -> bool:
        return current is not None and self._login(current).username == login.username

    def _is_accepted(self, old: Credential, record: Record) -> bool:
        """Whether the target accepts a credential, by the record, or by asking where there is none of it."""
        if record.generation == old.generation:
            return True
        answer = self.check(old)
        if answer is Acceptance.UNKNOWN:
            raise Unavailable(f"PostgreSQL could not be asked about generation {old.generation} of {old.secret}")
        return answer is Acceptance.ACCEPTED

    def _refuse_to_lock_out(self, login: Login) -> None:
        if login.username == self._administrator().username:
            raise TargetError(
                f"{login.username} is keyturn's own administrator, so it is not revoked",
                "Give the application, or keyturn, a user of its own.",
            )
