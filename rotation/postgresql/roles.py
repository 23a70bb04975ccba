"""Changing PostgreSQL roles, and what keyturn remembers of each in its comment."""

from __future__ import annotations

import re
from typing import Literal

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict, ValidationError

from rotation.errors import TargetError
from rotation.model import Credential
from rotation.postgresql import APPLICATION_NAME, Connection, Login

_REMARK = re.compile(r"\n?keyturn: (\{[^\n]*\})\s*\Z")


class Record(BaseModel):
    """What keyturn did to a role last; generation 0 where it did nothing yet.

    ``spent`` is the highest generation that was ever installed for the role or turned down.
    """

    model_config = ConfigDict(frozen=True)

    generation: int = 0
    state: Literal["installed", "revoked"] = "revoked"
    spent: int = 0

    def admits(self, generation: int, replaced: int | None) -> bool:
        """Whether a generation may be installed by somebody who believes ``replaced`` to be in its place.

        A new one may. The installed one may, again. An older one may only replace the installed one by its name.
        """
        if generation > self.spent:
            return True
        again = generation == self.generation
        restored = generation < self.generation == replaced
        return self.state == "installed" and (again or restored)

    def installed_as(self, generation: int) -> Record:
        return Record(generation=generation, state="installed", spent=max(self.spent, generation))

    def revoked_at(self, generation: int) -> Record:
        return Record(generation=generation, state="revoked", spent=max(self.spent, generation))

    def without(self, generation: int) -> Record:
        """The same, where a generation that is not installed never will be."""
        return self.model_copy(update={"spent": max(self.spent, generation)})


def refuse_superseded(whom: str, record: Record, new: Credential, current: Credential | None) -> None:
    """Raise :class:`TargetError` where a generation may not be installed for ``whom`` ("user orders_a") any more."""
    if record.admits(new.generation, None if current is None else current.generation):
        return
    raise TargetError(
        f"generation {new.generation} of {new.secret} is superseded: the {whom} has seen generation {record.spent}"
        f" since ({record.state}: {record.generation})",
        "Run the command again: it starts from what is there now.",
    )


class Roles:
    """The roles of a server, as the administrator of one open transaction changes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self, name: str) -> None:
        """Wait for every other transaction that holds this name, and hold it to the end of this one."""
        self._connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"keyturn {name}"])

    def find(self, role: str) -> Record | None:
        """What is remembered of a role, None where there is no such role."""
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
        """Note it in the role's comment, after any text of somebody else's.

        ``lenient`` accepts that the administrator may not: then it may not revoke the role by mistake, either.
        """
        text = _REMARK.sub("", self._comment(role) or "")
        comment = f"{text}\n" if text else ""
        try:
            with self._connection.transaction():
                self._change("COMMENT ON ROLE {} IS {}", role, f"{comment}keyturn: {record.model_dump_json()}")
        except psycopg.errors.InsufficientPrivilege:
            if not lenient:
                raise

    def enable(self, login: Login, *, exists: bool) -> None:
        """Let the role log in with this password, of which only a verifier leaves this process."""
        verifier = self._connection.pgconn.encrypt_password(
            login.password.reveal().encode(), login.username.encode(), b"scram-sha-256"
        )
        statement = "ALTER ROLE {} LOGIN PASSWORD {}" if exists else "CREATE ROLE {} LOGIN PASSWORD {}"
        self._change(statement, login.username, verifier.decode())

    def start_as(self, role: str, owner: str) -> None:
        """Make the role a member of the owner role, and its sessions start as that one."""
        names = sql.Identifier(owner), sql.Identifier(role)
        self._connection.execute(sql.SQL("GRANT {} TO {}").format(*names))
        self._connection.execute(sql.SQL("ALTER ROLE {1} SET role TO {0}").format(*names))

    def disable(self, role: str) -> None:
        """Let nobody log in as the role. It stays, as objects and grants may hang on it."""
        self._connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(role)))

    def may_log_in(self, role: str) -> bool:
        """Whether there is such a role and the server lets it log in."""
        row = self._connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        return row == (True,)

    def open_again(self, role: str) -> tuple[bool, int]:
        """Of a role that may log in: whether keyturn had locked it out, and how many sessions it has now."""
        record = self.find(role)
        row = self._connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> %s",
            [role, APPLICATION_NAME],
        ).fetchone()
        locked_out = record is not None and record.generation > 0 and record.state == "revoked"
        return locked_out, row[0] if row else 0

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

    def _comment(self, role: str) -> str | None:
        """The role's comment, empty where it has none; None where there is no such role."""
        row = self._connection.execute(
            "SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = %s", [role]
        ).fetchone()
        return None if row is None else str(row[0])

    def _change(self, statement: str, role: str, text: str) -> None:
        self._connection.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(text)))
