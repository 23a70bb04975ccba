"""PostgreSQL as keyturn meets it: connections, and errors without values.

psycopg's errors on connecting are not chained to ours: they carry the settings, the password among them
(``error.pgconn``). Their text, which names host, port and user only, goes into our message instead. Errors of
statements carry neither settings nor statement, and are chained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from rotation.database_login import Login
from rotation.errors import KeyturnError, TargetError, Unauthorized, Unavailable

Connection = psycopg.Connection[tuple[Any, ...]]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

APPLICATION_NAME = "keyturn"
CONNECT_SECONDS = 5
LOCK_SECONDS = 15
STATEMENT_SECONDS = 60

# libpq keeps the SQLSTATE of a refused connection to itself (psycopg's ``sqlstate`` is None then), so its text must do:
# the server's messages for 28P01 and 28000, and PgBouncer's. A server that speaks another language than English
# leaves a refusal unknown, which revokes nothing.
_DENIED = re.compile(
    r"FATAL:\s+(password authentication failed|SASL authentication failed"
    r'|role ".*" (does not exist|is not permitted to log in))'
)
# Classes and states after which another try is worth it: connection, resources, intervention, conflict, lock timeout.
_PASSING = re.compile(r"^(08|53|57|40|55P03)")


@dataclass(frozen=True, slots=True)
class Transport:
    """How connections are protected: libpq's ``sslmode`` and the file of the trusted root certificates."""

    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None


def connect(login: Login, transport: Transport) -> Connection:
    """A new connection. Raises :class:`Unauthorized` when the login is denied, else :class:`Unavailable`."""
    try:
        return psycopg.connect(
            host=login.host,
            port=login.port,
            user=login.username,
            password=login.password.reveal(),
            dbname=login.dbname,
            connect_timeout=CONNECT_SECONDS,
            application_name=APPLICATION_NAME,
            sslmode=transport.sslmode,
            sslrootcert=transport.sslrootcert,
        )
    except psycopg.Error as error:
        text = str(error).strip()
    if _DENIED.search(text):
        raise Unauthorized(f"PostgreSQL at {login.host}:{login.port} denies the user {login.username}")
    raise Unavailable(f"PostgreSQL at {login.host}:{login.port} cannot be used: {text}")


@contextmanager
def transaction(login: Login, transport: Transport) -> Iterator[Connection]:
    """One transaction on a connection of its own, committed at the end; every error of it as one of keyturn's."""
    connection = connect(login, transport)
    try:
        with connection:
            connection.execute(
                "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),"
                " set_config('search_path', '', true)",
                [f"{LOCK_SECONDS}s", f"{STATEMENT_SECONDS}s"],
            )
            yield connection
    except psycopg.Error as error:
        raise _failure(error, login) from error


def _failure(error: psycopg.Error, login: Login) -> KeyturnError:
    where = f"PostgreSQL at {login.host}:{login.port}"
    text = error.diag.message_primary or str(error).strip()
    if error.sqlstate is None or _PASSING.match(error.sqlstate):
        return Unavailable(f"{where} could not finish: {text}")
    return TargetError(f"{where} refused {login.username}: {text} (SQLSTATE {error.sqlstate})")
