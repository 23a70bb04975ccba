"""The sample application's database: a pool of connections that is replaced under load without failing a query."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from sqlalchemy import URL, Connection, NullPool, create_engine, text

from rotation.database_login import Place, parse
from rotation.secret_value import SecretValue

Server = Literal["postgresql", "mysql"]

CONNECTIONS = 4
_DRAIN = 15.0  # seconds that queries on the old pool may take to end; more than a statement may run
_DRIVERS: Mapping[Server, str] = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
# In seconds, which a server on a busy machine may take that is well.
_LIMITS: Mapping[Server, Mapping[str, Any]] = {
    "postgresql": {
        "connect_timeout": 10,
        "application_name": "orders-api",
        "options": "-c statement_timeout=10000",
    },
    "mysql": {"connect_timeout": 10, "read_timeout": 10, "write_timeout": 10},
}


class Pool:
    """The connections of one generation. ``login`` is its JSON: host, port, username, password, dbname.

    Raises ``sqlalchemy.exc.DBAPIError`` unless the login is accepted and answers a query, ``TargetError`` for a login
    of another form.
    """

    def __init__(self, server: Server, generation: int, login: SecretValue) -> None:
        self.generation = generation
        self.users = 0
        self._engine = create_engine(
            _url(server, login),
            connect_args=dict(_LIMITS[server]),
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=10.0,
            hide_parameters=True,
        )
        try:
            with ExitStack() as stack:  # all of them now, so that no order waits for one
                for _ in range(CONNECTIONS):
                    stack.enter_context(self._engine.connect()).execute(text("SELECT 1"))
        except BaseException:
            self.close()
            raise

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in a transaction, which ends with the block."""
        with self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def log_in(server: Server, login: SecretValue) -> None:
    """Log in once, and leave; not as the application, whose sessions are counted. Raises what :class:`Pool` does."""
    limits = {**_LIMITS[server], **({"application_name": "keyturn"} if server == "postgresql" else {})}
    engine = create_engine(_url(server, login), connect_args=limits, poolclass=NullPool)
    engine.connect().close()


class Database:
    """The pool in use. Whoever holds one keeps it open, whatever is switched to meanwhile."""

    def __init__(self, server: Server = "postgresql") -> None:
        self._server = server
        self._changed = threading.Condition()
        self._pool: Pool | None = None

    @contextmanager
    def pool(self) -> Iterator[Pool | None]:
        """The pool in use for the length of a block; None before the first switch and after the end."""
        with self._changed:
            pool = self._pool
            if pool is not None:
                pool.users += 1
        try:
            yield pool
        finally:
            if pool is not None:
                with self._changed:
                    pool.users -= 1
                    self._changed.notify_all()

    def switch(self, generation: int, login: SecretValue) -> None:
        """Use this login from now on: once it works, and never before. The old pool is closed when nobody uses it.

        Raises what :class:`Pool` does, and goes on with the old one.
        """
        self._replace(Pool(self._server, generation, login))

    def close(self) -> None:
        self._replace(None)

    def _replace(self, new: Pool | None) -> None:
        with self._changed:
            old, self._pool = self._pool, new
            if old is not None:
                self._changed.wait_for(lambda: old.users == 0, timeout=_DRAIN)
        if old is not None:
            old.close()


def _url(server: Server, login: SecretValue) -> URL:
    found = parse(login, "the database's user", server, Place(None, 0, ""))
    password = found.password.reveal()
    return URL.create(_DRIVERS[server], found.username, password, found.host, found.port, found.dbname)
