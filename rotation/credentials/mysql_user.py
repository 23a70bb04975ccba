"""A user of MySQL or MariaDB with a password: two users in turn ("alternating"), or one whose password changes
("single").

The users have one role, with which every session of theirs starts (its default role): what is granted to the role holds
for both. The value is JSON in AWS's shape (engine, host, port, username, password, dbname), or, with the option
``shape: tencent``, in the one that Tencent Cloud's consumer SDK reads: UserName, Password, and host, port and dbname
beside. Either is understood in what somebody else has stored.

Works with MySQL from 8.0 on and MariaDB from 10.4 on; older ones have no roles, or cannot lock a user out.

**The administrator**, with a database of keyturn's own and the role::

    CREATE DATABASE keyturn;
    CREATE ROLE orders_role;
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders.* TO orders_role;
    CREATE USER keyturn_admin@'%' IDENTIFIED BY '…';
    GRANT CREATE USER, PROCESS ON *.* TO keyturn_admin@'%';
    GRANT CONNECTION ADMIN ON *.* TO keyturn_admin@'%';  -- to end sessions; MySQL: CONNECTION_ADMIN
    GRANT SELECT ON mysql.* TO keyturn_admin@'%';        -- to compare privileges
    GRANT SELECT, INSERT, DELETE, CREATE ON keyturn.* TO keyturn_admin@'%';
    GRANT orders_role TO keyturn_admin@'%' WITH ADMIN OPTION;

CREATE USER lets it set anybody's password, root's too; on MySQL not that of an account with SYSTEM_USER. There is no
smaller right. So give its login to keyturn alone.

**Fencing** (:mod:`rotation.database_users`, :mod:`rotation.mysql.accounts`). What keyturn did to a user last is a row
of ``keyturn.users``, written before the user is changed, under a lock of the server's that goes with the connection.

**Usage.** Sessions are counted in the process list, those that are there at two looks a tenth of a second apart: one
that opens and closes between two of keyturn's looks is missed. There is no marker: performance_schema counts
connections per user where it is switched on, and keyturn's own among them.

**Passwords** leave this process as an answer to the server's challenge, and as what the server stores of them
(:mod:`rotation.mysql.verifiers`). That is in the server's binary log, and in MariaDB's general log where it is on: 32
random characters are not guessed from it. It travels as a statement does: use ``sslmode`` beyond this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rotation.credentials import ReadSecret
from rotation.database_login import Login
from rotation.database_users import DatabaseUser, Options
from rotation.model import Credential, Strategy
from rotation.mysql import SslMode, Transport, connected, privileges
from rotation.mysql.accounts import Accounts, Terms, administered
from rotation.options import parse
from rotation.secret_value import SecretValue

_Identifier = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=32)]  # MySQL's limit for users and roles


class _Options(Options):
    username_base: Annotated[_Identifier, Field(max_length=30)]
    user_host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.%:/-]+$", max_length=255)] = "%"
    role: _Identifier
    ledger: _Identifier = "keyturn"
    authentication: Literal["mysql_native_password", "caching_sha2_password"] | None = None
    shape: Literal["aws", "tencent"] = "aws"
    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None

    @model_validator(mode="after")
    def _role_is_no_user(self) -> Self:
        if self.role in {self.username_base, f"{self.username_base}_a", f"{self.username_base}_b"}:
            raise ValueError(f"role {self.role} is also one of the users")
        return self


class MysqlUser(DatabaseUser):
    """Options: ``administrator`` (the name of its secret in the same store), ``username_base``, ``role``, ``dbname``;
    ``host`` and ``port`` (by default the administrator's), ``user_host`` (where the users may come from, "%"),
    ``ledger`` (keyturn's own database, "keyturn"), ``authentication`` (by default mysql_native_password on MariaDB and
    caching_sha2_password on MySQL), ``shape`` ("aws" or "tencent"), ``password_length``, ``sslmode``, ``sslrootcert``
    (a file)."""

    kind: ClassVar[str] = "mysql_user"
    server: ClassVar[str] = "MySQL"
    port: ClassVar[int] = 3306

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        self._options = parse(_Options, options, self.kind)
        super().__init__(self._options, self._options.username_base, strategy, read)
        self._transport = Transport(self._options.sslmode, self._options.sslrootcert)

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        """By the server's own list of grants; see :mod:`rotation.mysql.privileges` for what is not seen."""
        before, after = self._login(old).username, self._login(new).username
        if before == after:
            return ()
        with self._looking() as accounts:
            return privileges.missing(accounts, before, after)

    def probe(self) -> None:
        with self._looking() as accounts:
            accounts.require_process()

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        role, password = self._options.role, f"IDENTIFIED WITH what stands for the password of generation {new}"
        member = f"GRANT {role} to it, and let its sessions start with {role}"
        if current is None:
            return f"CREATE USER {self._users[0]} {password}", member
        if len(self._users) == 1:
            return f"ALTER USER {self._users[0]} {password}: generation {current} is denied from then on", member
        user = f"{' or '.join(self._users)}, the one that generation {current} does not use,"
        gone = f"when generation {current} is retired: ALTER USER of its user ACCOUNT LOCK, with a password of nobody's"
        return f"ALTER (or CREATE) USER {user} {password}", member, gone

    def _to_value(self, login: Login) -> SecretValue:
        return login.to_tencent_value() if self._options.shape == "tencent" else login.to_value("mysql")

    def _log_in(self, login: Login) -> None:
        with connected(login, self._transport, dbname=login.dbname):
            pass

    @contextmanager
    def _looking(self) -> Iterator[Accounts]:
        options = self._options
        terms = Terms(options.user_host, options.role, options.ledger, options.authentication)
        with administered(self._administrator(), self._transport, terms) as accounts:
            yield accounts

    @contextmanager
    def _changing(self) -> Iterator[Accounts]:
        with self._looking() as accounts:
            accounts.lock(self._options.username_base)
            yield accounts
