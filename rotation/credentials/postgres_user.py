"""A PostgreSQL user with a password: two users in turn ("alternating"), or one whose password changes ("single").

The users are members of one NOLOGIN owner role, and every session of theirs starts as that role (``ALTER ROLE … SET
role``): what either creates belongs to the role, so ownership and grants survive each turn. The value is JSON in AWS's
shape: engine, host, port, username, password, dbname.

**The administrator** needs no superuser. What it needs, from PostgreSQL 16 on::

    CREATE ROLE keyturn_admin LOGIN CREATEROLE PASSWORD '…';
    GRANT orders_owner TO keyturn_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
    GRANT legacy_user TO keyturn_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;  -- to retire an adopted user

It has ADMIN OPTION on the users that it creates, as on every role that a CREATEROLE user creates.

**Fencing** (:mod:`rotation.database_users`). Each user's comment records what keyturn did to it last, after any text of
somebody else's::

    keyturn: {"generation": 42, "state": "installed", "spent": 42}

Changes are one transaction under an advisory lock on the username base.

**Usage.** Sessions are counted in pg_stat_activity, so a session that opens and closes between two looks is missed.
There is no marker: pg_stat_statements counts under the role that a session has switched to, which here is the owner
role for both users, and a count that is always zero would be false evidence of disuse.

Passwords travel as SCRAM-SHA-256 verifiers made on this side: the server, its log and its statistics never get them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from rotation.credentials import ReadSecret
from rotation.database_login import Login
from rotation.database_users import DatabaseUser, Options
from rotation.model import Credential, Strategy
from rotation.options import parse
from rotation.postgresql import Connection, SslMode, Transport, connect, privileges, transaction
from rotation.postgresql.roles import Roles
from rotation.secret_value import SecretValue

_Identifier = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=63)]  # longer ones PostgreSQL cuts off


class _Options(Options):
    username_base: Annotated[_Identifier, Field(max_length=61)]
    owner_role: _Identifier
    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None

    @model_validator(mode="after")
    def _owner_is_no_user(self) -> Self:
        if self.owner_role in {self.username_base, f"{self.username_base}_a", f"{self.username_base}_b"}:
            raise ValueError(f"owner_role {self.owner_role} is also one of the users")
        return self


class PostgresUser(DatabaseUser):
    """Options: ``administrator`` (the name of its secret in the same store), ``username_base``, ``owner_role``,
    ``dbname``; ``host`` and ``port`` (by default the administrator's), ``password_length``, ``sslmode``,
    ``sslrootcert`` (a file)."""

    kind: ClassVar[str] = "postgres_user"
    server: ClassVar[str] = "PostgreSQL"
    port: ClassVar[int] = 5432

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        self._options = parse(_Options, options, self.kind)
        super().__init__(self._options, self._options.username_base, strategy, read)
        self._transport = Transport(self._options.sslmode, self._options.sslrootcert)

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        """By the server's own functions, in one query; see :mod:`rotation.postgresql.privileges` for what is not seen:
        row-level security policies that name a user, above all."""
        before, after = self._login(old).username, self._login(new).username
        if before == after:
            return ()
        with self._transaction() as connection:
            return privileges.missing(connection, before, after)

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

    def _to_value(self, login: Login) -> SecretValue:
        return login.to_value("postgres")

    def _log_in(self, login: Login) -> None:
        connect(login, self._transport).close()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with transaction(self._administrator(), self._transport) as connection:
            yield connection

    @contextmanager
    def _looking(self) -> Iterator[Roles]:
        with self._transaction() as connection:
            yield Roles(connection, self._options.owner_role)

    @contextmanager
    def _changing(self) -> Iterator[Roles]:
        with self._looking() as roles:
            roles.lock(self._options.username_base)
            yield roles
