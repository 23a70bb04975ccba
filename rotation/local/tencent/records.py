"""What the emulated cloud remembers: records in tables, kept by SQLite, in memory or in one file.

- A transaction is whole or not at all; it is on file before the call that made it is answered. They do not overlap.
- The last transactions can be taken back for one reader, who then sees what a replica that lags would show.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Generic, TypeVar

from pydantic import BaseModel

RecordOf = TypeVar("RecordOf", bound=BaseModel)

_Before = dict[tuple[str, str], str | None]  # (table, key) -> the record as it was, None where there was none
_REMEMBERED = 64  # transactions that a reader can be behind


class Records:
    """The tables of all services. ``file`` is made where it is missing; None keeps everything in memory only."""

    def __init__(self, file: Path | None = None) -> None:
        self._lock = RLock()
        self._depth = 0
        self._before: _Before = {}
        self._history: defaultdict[str, deque[_Before]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._database = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(
            'CREATE TABLE IF NOT EXISTS records ("table" TEXT, "key" TEXT, body TEXT NOT NULL,'
            ' PRIMARY KEY ("table", "key"))'
        )

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile; an exception undoes what was written. One within another is one."""
        with self._lock:
            if self._depth == 0:
                self._before = {}
                self._database.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._database.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._database.execute("COMMIT")
                self._remember()

    @contextmanager
    def behind(self, service: str, writes: int) -> Iterator[None]:
        """A transaction that reads as before the last ``writes`` that touched a service; what it writes is lost."""
        with self._lock:
            if self._depth:
                raise RuntimeError("a reader that lags cannot be within a transaction")
            self._database.execute("BEGIN IMMEDIATE")
            self._depth, self._before = 1, {}
            try:
                for before in list(reversed(self._history[service]))[:writes]:
                    for (table, key), body in before.items():
                        self._write(table, key, body)
                yield
            finally:
                self._depth = 0
                self._database.execute("ROLLBACK")

    def _remember(self) -> None:
        """Keep what the last transaction replaced, by service."""
        services = {table.partition(".")[0] for table, _ in self._before}
        for service in services:
            own = {place: body for place, body in self._before.items() if place[0].startswith(f"{service}.")}
            self._history[service].append(own)

    def read(self, table: str, key: str) -> str | None:
        with self._lock:
            found = self._database.execute(
                'SELECT body FROM records WHERE "table" = ? AND "key" = ?', (table, key)
            ).fetchone()
            return None if found is None else str(found[0])

    def read_all(self, table: str) -> Mapping[str, str]:
        with self._lock:
            rows = self._database.execute('SELECT "key", body FROM records WHERE "table" = ? ORDER BY rowid', (table,))
            return dict(rows.fetchall())

    def names(self, table: str) -> list[str]:
        with self._lock:
            return [key for (key,) in self._database.execute('SELECT "key" FROM records WHERE "table" = ?', (table,))]

    def write(self, table: str, key: str, body: str | None) -> None:
        """Put a record in its place; None removes it. By itself it is a transaction of its own."""
        with self.transaction():
            self._before.setdefault((table, key), self.read(table, key))
            self._write(table, key, body)

    def _write(self, table: str, key: str, body: str | None) -> None:
        if body is None:
            self._database.execute('DELETE FROM records WHERE "table" = ? AND "key" = ?', (table, key))
        else:
            self._database.execute(
                'INSERT INTO records VALUES (?, ?, ?) ON CONFLICT ("table", "key") DO UPDATE SET body = excluded.body',
                (table, key, body),
            )


class Table(Generic[RecordOf]):
    """Records of one model, by key, in the order in which they were made. ``name`` is ``<service>.<what>``."""

    def __init__(self, records: Records, name: str, model: type[RecordOf]) -> None:
        self._records = records
        self._name = name
        self._model = model

    def get(self, key: str) -> RecordOf | None:
        body = self._records.read(self._name, key)
        return None if body is None else self._model.model_validate_json(body)

    def put(self, key: str, record: RecordOf) -> None:
        self._records.write(self._name, key, record.model_dump_json())

    def remove(self, key: str) -> None:
        self._records.write(self._name, key, None)

    def names(self) -> list[str]:
        return self._records.names(self._name)

    def all(self) -> dict[str, RecordOf]:
        bodies = self._records.read_all(self._name)
        return {key: self._model.model_validate_json(body) for key, body in bodies.items()}
