"""Record the remote calls that a rotation makes, and make the same calls again, bare, on a twin of its secret.

The twin starts with what the secret starts with, and every call is replayed on it: so the two stay alike, and each call
does there what it did here. Their names differ in one word.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import psycopg
from botocore.client import BaseClient
from psycopg import sql

RECORDED, REPLAYED = "recorded", "replayed"
_READ = "GetSecretValue"


@dataclass(frozen=True, slots=True)
class AwsCall:
    operation: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Connecting:
    """``settings`` are psycopg.connect's; ``refused`` where the server did not let it in."""

    connection: int
    settings: Mapping[str, Any]
    refused: bool


@dataclass(frozen=True, slots=True)
class Statement:
    connection: int
    text: bytes
    parameters: Any


@dataclass(frozen=True, slots=True)
class Ending:
    """``how`` is "commit" or "close"."""

    connection: int
    how: str


Call = AwsCall | Connecting | Statement | Ending


@dataclass(slots=True)
class Tape:
    """Calls in the order in which they were made."""

    calls: list[Call] = field(default_factory=list)
    _connections: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        """How many calls of AWS, connections and statements there are; a connection's end is none."""
        return sum(not isinstance(call, Ending) for call in self.calls)

    @property
    def repeated(self) -> int:
        """How many of them read a version's value again, which never changes."""
        reads = [call.parameters for call in self.calls if isinstance(call, AwsCall) and call.operation == _READ]
        return len(reads) - len({(read["SecretId"], read["VersionId"]) for read in reads})

    def clear(self) -> None:
        self.calls.clear()
        self._connections.clear()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this process calls, in all of its threads."""
        with (
            mock.patch.object(BaseClient, "_make_api_call", self._aws_call(BaseClient._make_api_call)),  # type: ignore[attr-defined]
            mock.patch.object(psycopg, "connect", self._connect(psycopg.connect)),
            mock.patch.object(psycopg.Connection, "execute", self._execute(psycopg.Connection.execute)),
            mock.patch.object(psycopg.Connection, "commit", self._ending("commit", psycopg.Connection.commit)),
            mock.patch.object(psycopg.Connection, "close", self._ending("close", psycopg.Connection.close)),
        ):
            yield

    def _add(self, call: Call) -> None:
        with self._lock:
            self.calls.append(call)

    def _aws_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
            self._add(AwsCall(operation, parameters))
            return original(client, operation, parameters)

        return call

    def _connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(**settings: Any) -> Any:
            number = len(self.calls)
            try:
                connection = original(**settings)
            except psycopg.Error:
                self._add(Connecting(number, settings, refused=True))
                raise
            self._connections[id(connection)] = number
            self._add(Connecting(number, settings, refused=False))
            return connection

        return connect

    def _execute(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute(connection: Any, query: Any, parameters: Any = None, **options: Any) -> Any:
            text = query.as_string(connection) if isinstance(query, sql.Composable) else query
            self._add(Statement(self._connections[id(connection)], text.encode(), parameters))
            return original(connection, query, parameters, **options)

        return execute

    def _ending(self, how: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def end(connection: Any) -> None:
            self._add(Ending(self._connections[id(connection)], how))
            original(connection)

        return end


def twin(value: Any) -> Any:
    """The same for the twin: its word in every text."""
    if isinstance(value, str):
        return value.replace(RECORDED, REPLAYED)
    if isinstance(value, bytes):
        return value.replace(RECORDED.encode(), REPLAYED.encode())
    if isinstance(value, Mapping):
        return {name: twin(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [twin(part) for part in value]
    return value


def replay(calls: list[Call], client: BaseClient) -> None:
    """Make these calls one after the other, on the twin. Prepare them with :func:`for_twin` first."""
    connections: dict[int, psycopg.Connection[Any]] = {}
    for call in calls:
        match call:
            case AwsCall(operation, parameters):
                client._make_api_call(operation, parameters)  # type: ignore[attr-defined]
            case Connecting(number, settings, refused):
                try:
                    connections[number] = psycopg.connect(**settings)
                except psycopg.Error:
                    if not refused:
                        raise
            case Statement(number, text, parameters):
                connections[number].execute(text, parameters)
            case Ending(number, "commit"):
                connections[number].commit()
            case Ending(number, _):
                connections[number].close()


def for_twin(calls: list[Call]) -> list[Call]:
    made: list[Call] = []
    for call in calls:
        match call:
            case AwsCall(operation, parameters):
                made.append(AwsCall(operation, twin(parameters)))
            case Connecting(number, settings, refused):
                made.append(Connecting(number, twin(settings), refused))
            case Statement(number, text, parameters):
                made.append(Statement(number, twin(text), twin(parameters)))
            case Ending():
                made.append(call)
    return made


def replay_side_by_side(calls: list[Call], client: BaseClient, workers: int) -> None:
    """The calls on no secret one after the other, then those on each secret in their order, so many secrets at once."""
    shared: list[Call] = []
    by_secret: dict[str, list[Call]] = {}
    for call in calls:
        name = call.parameters.get("SecretId") if isinstance(call, AwsCall) else None
        (shared if name is None else by_secret.setdefault(name, [])).append(call)
    replay(shared, client)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda part: replay(part, client), by_secret.values()))
