"""PostgreSQL as keyturn meets it: logins in AWS's JSON shape, connections, and errors without values.

psycopg's errors on connecting are not chained to ours: they carry the settings, the password among them
(``error.pgconn``). Their text, which names host, port and user only, goes into our message instead. Errors of
statements carry neither settings nor statement, and are chained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from pydantic import BaseModel, ConfigDict, ValidationError

from rotation.errors import KeyturnError, TargetError, Unauthorized, Unavailable
from rotation.options import first_problem
from rotation.secret_value import SecretValue

Connection = psycopg.Connection[tuple[Any, ...]]

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

    sslmode: str = "prefer"
    sslrootcert: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where."""

    host: str
    port: int
    username: str
    password: SecretValue
    dbname: str

    def to_value(self) -> SecretValue:
        """The JSON that AWS's own rotation functions use: engine, host, port, username, password, dbname."""
        place = {"engine": "postgres", "host": self.host, "port": self.port}
        return SecretValue(
            json.dumps({**place, "username": self.username, "password": self.password.reveal(), "dbname": self.dbname})
        )


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    username: str
    password: str
    host: str | None = None
    port: int | None = None
    dbname: str | None = None


def parse(value: SecretValue, whose: str, *, host: str | None, port: int | None, dbname: str) -> Login:
    """Read a login from its JSON; ``host``, ``port`` and ``dbname`` stand in for what it leaves out.

    Raises :class:`TargetError` that names the field, never its content.
    """
    try:
        shape = _Shape.model_validate_json(value.reveal())
    except ValidationError as error:  # it holds the value: not chained
        where, what = first_problem(error)
        problem = f"{where or 'its JSON'}: {what}"
    else:
        address = shape.host or host
        if address is not None:
            return Login(
                address,
                shape.port or port or 5432,
                shape.username,
                SecretValue(shape.password),
                shape.dbname or dbname,
            )
        problem = "host: missing, and not among the options either"
    raise TargetError(
        f"the value of {whose} is not a PostgreSQL login ({problem})",
        "Store it as JSON with engine, host, port, username, password and dbname.",
    )


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
