"""Changing PostgreSQL roles, and what keyturn remembers of each in its comment."""

from __future__ import annotations

import re

import psycopg
from psycopg import sql
from pydantic import ValidationError

from rotation.database_login import Login
from rotation.database_users import Users
from rotation.errors import TargetError
from rotation.fencing import Record
from rotation.postgresql import APPLICATION_NAME, Connection

_REMARK = re.compile(r"\n?keyturn: (\{[^\n]*\})\s*\Z")


class Roles(Users):
    """The roles of a server, as the administrator of one open transaction changes them. ``owner`` is the role that
    those of ours are members of."""

    def __init__(self, connection: Connection, owner: str) -> None:
        self._connection = connection
        self._owner = owner

    def lock(self, name: str) -> None:
        """Wait for every other transaction that holds this name, and hold it to the end of this one."""
        self._connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"keyturn {name}"])

    def find(self, role: str) -> Record | None:
        comment = self._comment(role)
        found = None if comment is None else _REMARK.search(comment)
        if found is None:
            return None if comment is None else Record()
        try:
            return Record.model_validate_json(found[1])
        except ValidationError as error:
            raise TargetError(
                f"what keyturn noted in the comment of the role {role} was changed",
                "Correct the comment's line that starts with `keyturn:`, or delete it.",
            ) from error

    def remember(self, role: str, record: Record, *, lenient: bool = False) -> None:
        """Note it in the role's comment, after any text of somebody else's."""
        text = _REMARK.sub("", self._comment(role) or "")
        comment = f"{text}\n" if text else ""
        try:
            with self._connection.transaction():
                self._change("COMMENT ON ROLE {} IS {}", role, f"{comment}keyturn: {record.model_dump_json()}")
        except psycopg.errors.InsufficientPrivilege:
            if not lenient:
                raise

    def enable(self, login: Login, record: Record, *, exists: bool, ours: bool) -> None:
        """Of the password only a verifier leaves this process."""
        verifier = self._connection.pgconn.encrypt_password(
            login.password.reveal().encode(), login.username.encode(), b"scram-sha-256"
        )
        statement = "ALTER ROLE {} LOGIN PASSWORD {}" if exists else "CREATE ROLE {} LOGIN PASSWORD {}"
        self._change(statement, login.username, verifier.decode())
        if ours:
            self._start_as(login.username, self._owner)
        self.remember(login.username, record)

    def disable(self, role: str, record: Record) -> None:
        self._connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(role)))
        self.remember(role, record)

    def may_log_in(self, role: str) -> bool:
        row = self._connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        return row == (True,)

    def sessions(self, role: str) -> int:
        row = self._connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> %s",
            [role, APPLICATION_NAME],
        ).fetchone()
        return row[0] if row else 0

    def end_sessions(self, role: str) -> None:
        """End the role's sessions. That takes the role's privileges: they are borrowed within this transaction."""
        identifier = sql.Identifier(role)
        row = self._connection.execute("SELECT pg_has_role(%s, 'USAGE')", [role]).fetchone()
        borrowed = row == (False,)
        if borrowed:
            self._connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(identifier))
        self._connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])
        if borrowed:
            self._connection.execute(sql.SQL("REVOKE {} FROM CURRENT_USER").format(identifier))

    def _start_as(self, role: str, owner: str) -> None:
        """Make the role a member of the owner role, and its sessions start as that one."""
        names = sql.Identifier(owner), sql.Identifier(role)
        self._connection.execute(sql.SQL("GRANT {} TO {}").format(*names))
        self._connection.execute(sql.SQL("ALTER ROLE {1} SET role TO {0}").format(*names))

    def _comment(self, role: str) -> str | None:
        """The role's comment, empty where it has none; None where there is no such role."""
        row = self._connection.execute(
            "SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = %s", [role]
        ).fetchone()
        return None if row is None else str(row[0])

    def _change(self, statement: str, role: str, text: str) -> None:
        self._connection.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(text)))
