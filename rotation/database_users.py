"""Users of a database server with a password: two in turn ("alternating"), or one whose password changes ("single").

What PostgreSQL's and MySQL's have in common; each says in its own module how it keeps :class:`Users`.

**Fencing.** Of each user the server keeps what keyturn did to it last (:class:`~rotation.fencing.Record`):

- ``spent`` is the highest generation ever installed for the user or turned down: no other up to it is installed again.
- The exception is a caller that names, as ``current``, the generation recorded as installed: it knows what it replaces.
  This is how "single" restores the current value after a bad candidate.
- Revoking a generation older than the recorded one does nothing: its password is long replaced.
- Changes to the users of one username base exclude each other, whoever makes them.
"""

from __future__ import annotations

import secrets
import string
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Annotated, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rotation.credentials import (
    ComparesPrivileges,
    CredentialKind,
    DescribesOperations,
    HasAdministrator,
    ReadSecret,
    ReportsLeftovers,
    ReportsUsage,
)
from rotation.database_login import Login, Place, parse
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.fencing import Record, refuse_superseded
from rotation.model import Acceptance, Credential, Leftover, Strategy, Usage
from rotation.secret_value import SecretValue

PASSWORD_ALPHABET = string.ascii_letters + string.digits  # safe in URLs and connection strings as it is
_SHORTEST = 22  # 22 characters of 62: 131 bits


class Options(BaseModel):
    """Those of every server's users."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    administrator: str
    dbname: str
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    password_length: Annotated[int, Field(ge=_SHORTEST, le=256)] = 32


class Users(Protocol):
    """The users of a server, as its administrator sees and changes them."""

    def find(self, user: str) -> Record | None:
        """What is remembered of a user, None where there is no such user."""

    def remember(self, user: str, record: Record, *, lenient: bool = False) -> None:
        """``lenient`` accepts that the administrator may not: then it may not revoke the user by mistake, either."""

    def enable(self, login: Login, record: Record, *, exists: bool, ours: bool) -> None:
        """Let the user log in with this password, with all that a user needs where it is one of ours; and remember.

        A server that cannot do all at once remembers first, and lets the user in last.
        """

    def disable(self, user: str, record: Record) -> None:
        """Let nobody log in as the user, and remember. The user stays, as objects and grants may hang on it."""

    def may_log_in(self, user: str) -> bool:
        """Whether there is such a user and the server lets it log in."""

    def sessions(self, user: str) -> int:
        """How many are open, keyturn's own left out."""

    def end_sessions(self, user: str) -> None: ...


class DatabaseUser(
    CredentialKind, ReportsUsage, ReportsLeftovers, ComparesPrivileges, HasAdministrator, DescribesOperations
):
    """A kind says its name in declarations, its server's name and port, and how that server is looked at and changed.

    ``_log_in`` connects, and raises :class:`Unauthorized` where the login is denied and :class:`Unavailable` where
    that cannot be told. ``_changing`` has at most one holder at a time, for the users of one base.
    """

    kind: ClassVar[str]
    server: ClassVar[str]
    port: ClassVar[int]
    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.ALTERNATING, Strategy.SINGLE})

    def __init__(self, options: Options, username_base: str, strategy: Strategy, read: ReadSecret) -> None:
        if strategy not in self.strategies:
            known = ", ".join(sorted(self.strategies))
            raise DeclarationError(f"{self.kind} has no strategy {strategy} (it has: {known})")
        self._place = Place(options.host, options.port or self.port, options.dbname)
        self._common = options
        self._users = (username_base,) if strategy is Strategy.SINGLE else (f"{username_base}_a", f"{username_base}_b")
        self._read = read

    @abstractmethod
    def _to_value(self, login: Login) -> SecretValue: ...

    @abstractmethod
    def _log_in(self, login: Login) -> None: ...

    @abstractmethod
    def _looking(self) -> AbstractContextManager[Users]: ...

    @abstractmethod
    def _changing(self) -> AbstractContextManager[Users]: ...

    def issue(self, current: Credential | None) -> SecretValue:
        used = None if current is None else self._login(current).username
        administrator = self._administrator()
        password = SecretValue(random_password(self._common.password_length))
        username = next((user for user in self._users if user != used), self._users[0])
        return self._to_value(replace(administrator, username=username, password=password))

    def install(self, new: Credential, current: Credential | None) -> None:
        login = self._login(new)
        ours = login.username in self._users
        with self._changing() as users:
            record = users.find(login.username)
            if record is not None:
                refuse_superseded(f"user {login.username}", record, new, current)
            if record is not None and self.check(new) is Acceptance.ACCEPTED:
                if record.generation != new.generation:
                    users.remember(login.username, record.installed_as(new.generation), lenient=not ours)
                return
            if record is None and not ours:
                raise TargetError(
                    f"generation {new.generation} is for the user {login.username}, whom {self.server} no longer has",
                    "Create that user again, or rotate to a new generation.",
                )
            installed = (record or Record()).installed_as(new.generation)
            users.enable(login, installed, exists=record is not None, ours=ours)

    def check(self, credential: Credential) -> Acceptance:
        try:
            self._log_in(self._login(credential))
        except Unauthorized:
            return Acceptance.DENIED
        except Unavailable:
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        login = self._login(old)
        self._refuse_to_lock_out(login)
        with self._changing() as users:
            record = users.find(login.username)
            if record is None or record.generation > old.generation:
                return
            if self._in_use(login, current) or not self._is_accepted(old, record):
                if old.generation > record.spent and login.username in self._users:
                    users.remember(login.username, record.without(old.generation))
                return
            revoked = record.revoked_at(old.generation)
            users.disable(login.username, revoked)
        if end_sessions:  # only now: before the commit a client could still have come back
            with self._changing() as users:
                if users.find(login.username) == revoked:
                    users.end_sessions(login.username)

    def usage(self, old: Credential, current: Credential | None) -> Usage | None:
        """Open sessions of the user; never a marker (see the kind's module)."""
        login = self._login(old)
        if self._in_use(login, current):
            return None
        with self._looking() as users:
            return Usage(sessions=users.sessions(login.username))

    def leftovers(self, kept: Sequence[Credential]) -> tuple[Leftover, ...]:
        """The users of the pair that may log in and whose no kept value is. An adopted user has a name of its own, that
        nothing remembers once its value is retired: it is not looked for."""
        used = {self._login(credential).username for credential in kept}
        others = [user for user in self._users if user not in used]
        if not others:
            return ()
        with self._looking() as users:
            return tuple(_leftover(users, user) for user in others if users.may_log_in(user))

    def lock_out(self, principal: str, kept: Sequence[Credential]) -> None:
        used = {self._login(credential).username for credential in kept}
        with self._changing() as users:
            if principal not in self._users or principal in used:
                raise TargetError(f"{principal} is no leftover: it is in use, or somebody else's")
            record = users.find(principal)
            if record is None or not users.may_log_in(principal):
                return
            if not _leftover(users, principal).removable:
                raise TargetError(f"{principal} is in use, or was not locked out by keyturn: it is left alone")
            users.disable(principal, record)

    def probe(self) -> None:
        with self._looking():
            pass

    def _login(self, credential: Credential) -> Login:
        whose = f"generation {credential.generation} of {credential.secret}"
        return parse(credential.value, whose, self.server, self._place)

    def _administrator(self) -> Login:
        options = self._common
        login = parse(self._read(options.administrator), options.administrator, self.server, self._place)
        host, port = options.host or login.host, options.port or login.port
        return replace(login, host=host, port=port, dbname=options.dbname)

    def _in_use(self, login: Login, current: Credential | None) -> bool:
        return current is not None and self._login(current).username == login.username

    def _is_accepted(self, old: Credential, record: Record) -> bool:
        """Whether the target accepts a credential, by the record, or by asking where there is none of it."""
        if record.generation == old.generation:
            return True
        answer = self.check(old)
        if answer is Acceptance.UNKNOWN:
            raise Unavailable(f"{self.server} could not be asked about generation {old.generation} of {old.secret}")
        return answer is Acceptance.ACCEPTED

    def _refuse_to_lock_out(self, login: Login) -> None:
        if login.username == self._administrator().username:
            raise TargetError(
                f"{login.username} is keyturn's own administrator, so it is not revoked",
                "Give the application, or keyturn, a user of its own.",
            )


def random_password(length: int) -> str:
    return "".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(length))


def _leftover(users: Users, user: str) -> Leftover:
    record = users.find(user)
    retired = record is not None and record.generation > 0 and record.state == "revoked"
    return Leftover(user, retired, users.sessions(user))
