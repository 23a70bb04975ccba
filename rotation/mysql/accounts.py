"""Changing the users of a MySQL or MariaDB server, and what keyturn remembers of each in a table.

Neither server changes users in a transaction, and MariaDB has no place for a remark on one. So:

- What keyturn did to a user is a row of the table ``users`` in a database of keyturn's own, written **before** the user
  is changed. A run that dies in between has changed nothing that its next try does not change again, and nobody with an
  older generation gets in between.
- A user is let in last, when it has its role: who asks whether it may log in sees all or nothing.
- All is done over one connection that holds a named lock (GET_LOCK) of the server. It goes with the connection: a
  runner that sleeps for longer than the server keeps an idle one finds its statements refused. The lock is one
  server's: connect to the one that writes, not through a proxy that shares connections.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pymysql
from pydantic import ValidationError
from pymysql.constants import ER

from rotation.database_login import Login
from rotation.database_users import Users, random_password
from rotation.errors import TargetError, Unavailable
from rotation.fencing import Record
from rotation.mysql import LOCK_SECONDS, Connection, Transport, code_of, connected
from rotation.mysql.verifiers import verifier
from rotation.secret_value import SecretValue

_IDLE_SECONDS = 60  # after which the server ends a connection of keyturn's, and lets go of its lock
_GONE_AGAIN = 0.1  # seconds: what is being closed, as keyturn's own checks are, is gone after that
_NO_SUCH_USER = {1133, ER.NONEXISTING_GRANT, ER.CANNOT_USER, 3162}
_NO_SUCH_THREAD = 1094


@dataclass(frozen=True, slots=True)
class Terms:
    """How keyturn's users are made. ``host`` is where they may come from ("%"), ``role`` what they may do, ``ledger``
    the database of keyturn's own, ``plugin`` how they authenticate (None for the server's best)."""

    host: str
    role: str
    ledger: str
    plugin: str | None


@contextmanager
def administered(administrator: Login, transport: Transport, terms: Terms) -> Iterator[Accounts]:
    """The accounts, over a connection of their own."""
    with connected(administrator, transport) as connection:
        connection.run(
            f"SET SESSION wait_timeout = {_IDLE_SECONDS}, lock_wait_timeout = {LOCK_SECONDS},"
            f" innodb_lock_wait_timeout = {LOCK_SECONDS}"
        )
        yield Accounts(connection, administrator, transport, terms)


class Accounts(Users):
    """The users of one server. Their names are identifiers, checked where they enter."""

    def __init__(self, connection: Connection, administrator: Login, transport: Transport, terms: Terms) -> None:
        self.connection = connection
        self._administrator = administrator
        self._transport = transport
        self._terms = terms
        self._plugin = terms.plugin or ("mysql_native_password" if connection.is_mariadb else "caching_sha2_password")

    def lock(self, name: str) -> None:
        """Wait for every other connection that holds this name, and hold it to the end of this one."""
        ((got,),) = self.connection.run("SELECT GET_LOCK(%s, %s)", [f"keyturn {name}", LOCK_SECONDS])
        if got != 1:
            raise Unavailable(f"another runner has been changing the users {name} for {LOCK_SECONDS} s")

    def find(self, user: str) -> Record | None:
        if self._definition(user) is None:
            return None
        try:
            rows = self.connection.run(f"SELECT record FROM {self._table} WHERE account = %s", [self.key(user)])  # noqa: S608  # an identifier
        except pymysql.Error as error:
            if code_of(error) != ER.NO_SUCH_TABLE:
                raise
            rows = ()
        try:
            return Record.model_validate_json(rows[0][0]) if rows else Record()
        except ValidationError as error:
            raise TargetError(
                f"what keyturn noted of the user {user} in {self._table} was changed",
                "Correct the record of that account, or delete the row.",
            ) from error

    def remember(self, user: str, record: Record, *, lenient: bool = False) -> None:
        del lenient  # the table is keyturn's own
        self.connection.run(
            f"CREATE TABLE IF NOT EXISTS {self._table}"
            " (account varchar(255) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, record varchar(255) NOT NULL)"
        )
        self.connection.run(
            f"REPLACE INTO {self._table} (account, record) VALUES (%s, %s)",  # noqa: S608  # an identifier
            [self.key(user), record.model_dump_json()],
        )

    def enable(self, login: Login, record: Record, *, exists: bool, ours: bool) -> None:
        user = login.username
        self.remember(user, record)
        if not exists:
            self._identify("CREATE USER IF NOT EXISTS", user, SecretValue(random_password(32)), "LOCK")
        if ours:
            self._run(f"GRANT `{self._terms.role}` TO {{}}", user)
            if self.default_roles(user) != {self._terms.role}:
                self._start_with_role(user)
        self._set_password(user, login.password, "UNLOCK")

    def disable(self, user: str, record: Record) -> None:
        """An account that is locked still works as the definer of views and routines, one that is dropped does not."""
        self.remember(user, record)
        self._set_password(user, SecretValue(random_password(32)), "LOCK")

    def may_log_in(self, user: str) -> bool:
        definition = self._definition(user)
        return definition is not None and " ACCOUNT LOCK" not in definition

    def sessions(self, user: str) -> int:
        """Those that are there at two looks in a row."""
        self.require_process()
        before = self._session_ids(user)
        if before:
            time.sleep(_GONE_AGAIN)
        return len(before & self._session_ids(user)) if before else 0

    def end_sessions(self, user: str) -> None:
        for session in self._session_ids(user):
            try:
                self.connection.run(f"KILL CONNECTION {session:d}")
            except pymysql.Error as error:
                if code_of(error) != _NO_SUCH_THREAD:
                    raise

    def default_roles(self, user: str) -> set[str]:
        """The roles that the user's sessions start with."""
        where = [user, self._terms.host]
        if self.connection.is_mariadb:
            rows = self.connection.run("SELECT default_role FROM mysql.user WHERE User = %s AND Host = %s", where)
        else:
            rows = self.connection.run(
                "SELECT default_role_user FROM mysql.default_roles WHERE user = %s AND host = %s", where
            )
        return {role for (role,) in rows if role}

    def account(self, user: str) -> str:
        return f"`{user}`@'{self._terms.host}'"

    def key(self, user: str) -> str:
        return f"{user}@{self._terms.host}"

    def require_process(self) -> None:
        """Raise :class:`TargetError` where the administrator sees its own sessions only: that would be taken for
        disuse."""
        rows = self.connection.run(
            "SELECT 1 FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ('PROCESS', 'SUPER')"
            " AND GRANTEE = CONCAT('\\'', REPLACE(CURRENT_USER(), '@', '\\'@\\''), '\\'')"
        )
        if not rows:
            raise TargetError(
                f"{self._administrator.username} may not see the sessions of others",
                f"GRANT PROCESS ON *.* TO {self._administrator.username}, then run the command again.",
            )

    @property
    def _table(self) -> str:
        return f"`{self._terms.ledger}`.`users`"

    def _definition(self, user: str) -> str | None:
        """The statement that would make the user, None where there is no such user."""
        try:
            rows = self.connection.run(f"SHOW CREATE USER {self.account(user)}")
        except pymysql.Error as error:
            if code_of(error) in _NO_SUCH_USER:
                return None
            raise
        return str(rows[0][0])

    def _session_ids(self, user: str) -> set[int]:
        rows = self.connection.run(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = %s AND COMMAND <> 'Quit'", [user]
        )
        return {int(number) for (number,) in rows}

    def _start_with_role(self, user: str) -> None:
        """MariaDB lets a user set its own default role, and of others only who may write its tables. So keyturn logs in
        as the user for that, with a password that is replaced at once."""
        if not self.connection.is_mariadb:
            self._run(f"SET DEFAULT ROLE `{self._terms.role}` TO {{}}", user)
            return
        passing = replace(self._administrator, username=user, password=SecretValue(random_password(32)))
        self._set_password(user, passing.password, "UNLOCK")
        with connected(passing, self._transport) as connection:
            connection.run(f"SET DEFAULT ROLE `{self._terms.role}`")

    def _set_password(self, user: str, password: SecretValue, lock: str) -> None:
        self._identify("ALTER USER", user, password, lock)

    def _identify(self, act: str, user: str, password: SecretValue, lock: str) -> None:
        kept = verifier(self._plugin, password.reveal())  # letters, digits and $*./
        try:
            self._run(f"{act} {{}} IDENTIFIED WITH {self._plugin} AS '{kept}' ACCOUNT {lock}", user)
        except pymysql.Error as error:
            if ER.OPTION_PREVENTS_STATEMENT not in {code for _, code, _ in self.connection.run("SHOW WARNINGS")}:
                raise
            raise TargetError(
                f"{self.connection.where} takes no password for {user} that it cannot look at: a password plugin is on",
                "SET GLOBAL strict_password_validation = OFF, there and in its option file, then run again: keyturn"
                " makes 32 random characters.",
            ) from error

    def _run(self, statement: str, user: str) -> None:
        self.connection.run(statement.format(self.account(user)))
