"""MySQL and MariaDB as keyturn meets them: connections, and errors without values.

- A password is only ever used to answer a challenge: a server that asks for it in clear gets none, TLS or not.
- pymysql's errors on connecting are not chained to ours, as for PostgreSQL; their text names host, port and user only.
- What a server stores of a password is made on this side (:mod:`rotation.mysql.verifiers`): MariaDB writes the
  statements that set one into its general log and its binary log as they came.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Never

import pymysql
from pymysql.constants import CR, ER

from rotation.database_login import Login
from rotation.errors import KeyturnError, TargetError, Unauthorized, Unavailable

Rows = tuple[tuple[Any, ...], ...]
SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]

CONNECT_SECONDS = 5
LOCK_SECONDS = 15
STATEMENT_SECONDS = 60

# Access denied with and without a password, and for a locked account: of MySQL, and of MariaDB.
_DENIED = {ER.ACCESS_DENIED_ERROR, 1698, 3118, 4151}
# After which another try is worth it: too many connections, shutdown, lock waits and deadlocks, killed, lost.
_PASSING = {
    *(ER.CON_COUNT_ERROR, ER.SERVER_SHUTDOWN, ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.QUERY_INTERRUPTED),
    *(1927, ER.NET_READ_ERROR, ER.NET_READ_INTERRUPTED, ER.NET_ERROR_ON_WRITE, ER.NET_WRITE_INTERRUPTED),
    *(CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, 0),
}


@dataclass(frozen=True, slots=True)
class Transport:
    """How connections are protected: a mode in libpq's words, and the file of the trusted root certificates.

    "prefer" takes a server without TLS, and any certificate; "require" any certificate.
    """

    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None

    def settings(self) -> dict[str, Any]:
        """pymysql's. A file that cannot be read raises :class:`Unavailable`."""
        if self.sslmode in ("disable", "prefer"):
            return {"ssl_disabled": self.sslmode == "disable"}
        try:
            context = ssl.create_default_context(cafile=self.sslrootcert)
        except OSError as error:  # ssl.SSLError is one
            raise Unavailable(
                f"the root certificates in {self.sslrootcert} cannot be read: {error.strerror or error}"
            ) from error
        context.check_hostname = self.sslmode == "verify-full"
        if self.sslmode == "require":
            context.verify_mode = ssl.CERT_NONE
        return {"ssl": context}


class _RefusesToTell:
    """Where the server asks for the password in clear."""

    def __init__(self, connection: object) -> None: ...

    def authenticate(self, packet: object) -> Never:
        del packet
        raise pymysql.OperationalError(0, "the server asks for the password in clear")


@dataclass(frozen=True, slots=True)
class Connection:
    """One that commits each statement."""

    raw: Any
    where: str

    @property
    def is_mariadb(self) -> bool:
        return "MariaDB" in self.raw.get_server_info()

    def run(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """Run a statement and return its rows; ``%s`` stands for a value."""
        with self.raw.cursor() as cursor:
            cursor.execute(statement, tuple(values) or None)
            return tuple(cursor.fetchall())


@contextmanager
def connected(login: Login, transport: Transport, *, dbname: str | None = None) -> Iterator[Connection]:
    """A new connection, closed at the end; every error of its use as one of keyturn's.

    Raises :class:`Unauthorized` when the login is denied, else :class:`Unavailable`; of statements also TargetError.
    """
    where = f"MySQL at {login.host}:{login.port}"
    connection = Connection(_open(login, transport, dbname, where), where)
    try:
        yield connection
    except pymysql.Error as error:
        raise _failure(error, where, login.username) from error
    finally:
        connection.raw.close()


def _open(login: Login, transport: Transport, dbname: str | None, where: str) -> Any:
    settings = transport.settings()
    try:
        return pymysql.connect(
            host=login.host,
            port=login.port,
            user=login.username,
            password=login.password.reveal(),
            database=dbname,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=STATEMENT_SECONDS,
            write_timeout=STATEMENT_SECONDS,
            auth_plugin_map={"mysql_clear_password": _RefusesToTell, "dialog": _RefusesToTell},
            program_name="keyturn",
            **settings,
        )
    except (pymysql.Error, OSError, ValueError) as error:  # ValueError: a name that the protocol cannot carry
        code, text = code_of(error), _text_of(error)
    if code in _DENIED:
        raise Unauthorized(f"{where} denies the user {login.username}")
    raise Unavailable(f"{where} cannot be used: {text}")


def code_of(error: Exception) -> int:
    """The server's or the client's number for an error, 0 where there is none."""
    first = error.args[0] if error.args else None
    return first if isinstance(error, pymysql.Error) and isinstance(first, int) else 0


def _text_of(error: Exception) -> str:
    return str(error.args[-1] if error.args else type(error).__name__).strip()


def _failure(error: pymysql.Error, where: str, username: str) -> KeyturnError:
    code, text = code_of(error), _text_of(error)
    if code in _PASSING:
        return Unavailable(f"{where} could not finish: {text}")
    return TargetError(f"{where} refused {username}: {text} (error {code})")
