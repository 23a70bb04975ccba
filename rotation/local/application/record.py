"""What the sample application tells of itself: a log, with each line attributed to one generation, and its health.

Lines look like this, and never hold a value::

    2026-11-22T08:16:36.123Z INFO ring=canary secret=orders/db generation=42 uses=40 failed=0
    2026-11-22T08:16:36.456Z ERROR ring=canary secret=orders/db generation=42 InsufficientPrivilege: permission denied …
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from rotation.redaction import redact

TROUBLED_FOR = 3.0  # seconds that an error in use makes the status "failing"


@dataclass(slots=True)
class _Count:
    uses: int = 0
    failed: int = 0


class Record:
    """Counts, logs and remembers; all methods may be called from any thread."""

    def __init__(self, ring: str, log: Path) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._queries = _Count()
        self._counts: defaultdict[tuple[str, int], _Count] = defaultdict(_Count)
        self._in_use: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._troubles: dict[str, tuple[int, float]] = {}
        self._awaited: frozenset[str] | None = None
        self._unreadable = False
        self._handler = WatchedFileHandler(log, encoding="utf-8")
        self._handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._log = logging.Logger("application")  # not in the tree of loggers: it has this one handler and no other
        self._log.addHandler(self._handler)

    def awaits(self, secrets: frozenset[str]) -> None:
        """A configuration was read, and names these secrets."""
        with self._lock:
            self._awaited = secrets
            for gone in self._refused.keys() - secrets:
                del self._refused[gone]

    def reads_configuration(self) -> None:
        with self._lock:
            self._unreadable = False

    def cannot_read_configuration(self, error: Exception) -> None:
        """Logged once, until it can be read again. Health is not touched: what is in use works as before."""
        with self._lock:
            known, self._unreadable = self._unreadable, True
        if not known:
            self._log.error("ring=%s the configuration cannot be read: %s", self._ring, describe(error))

    def uses(self, secret: str, generation: int) -> None:
        """From now on this generation is used."""
        with self._lock:
            changed = self._in_use.get(secret) != generation
            self._in_use[secret] = generation
            self._refused.pop(secret, None)
        if changed:
            self._log.info("ring=%s secret=%s generation=%d in use", self._ring, secret, generation)

    def cannot_use(self, secret: str, generation: int, error: Exception) -> None:
        """This generation is wanted and could not be taken into use."""
        with self._lock:
            self._refused[secret] = generation
        self._line(secret, generation, f"cannot switch to it: {describe(error)}")

    def used(self, secret: str, generation: int) -> None:
        """Used for something other than a query."""
        with self._lock:
            self._counts[secret, generation].uses += 1

    def succeeded(self, secret: str, generation: int) -> None:
        """A query went well."""
        with self._lock:
            for count in (self._queries, self._counts[secret, generation]):
                count.uses += 1

    def failed(self, secret: str, generation: int, error: Exception) -> None:
        """A query failed."""
        with self._lock:
            for count in (self._queries, self._counts[secret, generation]):
                count.uses += 1
                count.failed += 1
            if self._in_use.get(secret) == generation:
                self._troubles[secret] = (generation, time.monotonic())
        self._line(secret, generation, describe(error))

    def write_counts(self) -> None:
        """Log one line for each generation that was used since the last time."""
        with self._lock:
            counts = sorted(self._counts.items())
            self._counts.clear()
        for (secret, generation), count in counts:
            text = "ring=%s secret=%s generation=%d uses=%d failed=%d"
            self._log.info(text, self._ring, secret, generation, count.uses, count.failed)

    def health(self) -> dict[str, Any]:
        """What ``GET /health`` answers. ``failing`` blames generations; it is there only when there are any."""
        with self._lock:
            in_use, failing = dict(self._in_use), self._in_trouble() | self._refused
            started = self._awaited is not None and self._awaited <= in_use.keys()
            queries = {"queries": self._queries.uses, "failed": self._queries.failed}
        status = "failing" if failing else "ok" if started else "starting"
        told: dict[str, Any] = {"status": status, "ring": self._ring, "generations": in_use, **queries}
        return told | {"failing": failing} if failing else told

    def close(self) -> None:
        self.write_counts()
        self._handler.close()

    def _in_trouble(self) -> dict[str, int]:
        """The generations in use that failed in the last few seconds."""
        recent = time.monotonic() - TROUBLED_FOR
        return {
            secret: generation
            for secret, (generation, at) in self._troubles.items()
            if at > recent and self._in_use.get(secret) == generation
        }

    def _line(self, secret: str, generation: int, what: str) -> None:
        self._log.error("ring=%s secret=%s generation=%d %s", self._ring, secret, generation, what)


def describe(error: Exception) -> str:
    """An error in one line, without what looks like a credential."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig  # without the statement
    text = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (text or str(error)).splitlines()
    return f"{type(error).__name__}: {redact(lines[-1])}" if lines else type(error).__name__


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        time = datetime.fromtimestamp(record.created, UTC)
        return time.strftime(datefmt) if datefmt else f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"
