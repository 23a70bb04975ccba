"""The sample application's database: a pool of connections that is replaced under load without failing a query."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rotation.secret_value import SecretValue

CONNECTIONS = 4
_DRAIN = 10.0  # seconds that queries on the old pool may take to end; more than a statement may run


class Pool:
    """The connections of one generation. ``login`` is its JSON: host, port, username, password, dbname.

    Raises ``psycopg.Error`` unless the login is accepted and answers a query, ``ValueError`` or ``KeyError`` for a
    login of another form.
    """

    def __init__(self, generation: int, login: SecretValue) -> None:
        self.generation = generation
        self.users = 0
        parameters = _parameters(login)
        # First by itself: a pool would try a refused login again and again, and keep the reason to itself.
        psycopg.connect(**parameters).close()
        self._pool = ConnectionPool(
            kwargs=parameters, min_size=CONNECTIONS, max_size=CONNECTIONS, timeout=2.0, open=False
        )
        try:
            self._pool.open(wait=True, timeout=5.0)
            with self.connection() as connection:
                connection.execute("SELECT 1")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection in a transaction, which ends with the block."""
        with self._pool.connection() as connection:
            yield connection

    def close(self) -> None:
        self._pool.close()


class Database:
    """The pool in use. Whoever holds one keeps it open, whatever is switched to meanwhile."""

    def __init__(self) -> None:
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
        self._replace(Pool(generation, login))

    def close(self) -> None:
        self._replace(None)

    def _replace(self, new: Pool | None) -> None:
        with self._changed:
            old, self._pool = self._pool, new
            if old is not None:
                self._changed.wait_for(lambda: old.users == 0, timeout=_DRAIN)
        if old is not None:
            old.close()


def _parameters(login: SecretValue) -> dict[str, Any]:
    try:
        fields = json.loads(login.reveal())
        return {
            "host": fields["host"],
            "port": fields["port"],
            "user": fields["username"],
            "password": fields["password"],
            "dbname": fields["dbname"],
            "connect_timeout": 3,
            "application_name": "orders-api",
            "options": "-c statement_timeout=5000",
        }
    except (ValueError, TypeError):
        # Not chained: a JSON error carries the text that it could not read.
        raise ValueError("the database's login is not a JSON object") from None
