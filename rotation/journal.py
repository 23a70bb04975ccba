"""What a run leaves for the next one: leases, intents, notes and the audit trail, in one SQLite file.

The journal saves work and keeps evidence. It is not what safety rests on: without it a run starts from what the store,
the target and the deployment say. Every write is on disk (fsync) before the call returns. No value is ever written.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rotation.errors import JournalError, LeaseHeld
from rotation.model import Act, Ring

LEASE = timedelta(seconds=60)
Parameters = Sequence[object] | Mapping[str, object]

_TAMPERED = "Keep the file as evidence and restore the journal from a copy; keyturn can go on with a new one."

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    secret TEXT PRIMARY KEY, owner TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, expires TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS rotations (
    id INTEGER PRIMARY KEY, secret TEXT NOT NULL, goal INTEGER NOT NULL, carries INTEGER, reason TEXT NOT NULL,
    opened TEXT NOT NULL, closed TEXT, outcome TEXT
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_open_rotation ON rotations (secret) WHERE closed IS NULL;
CREATE TABLE IF NOT EXISTS intents (
    id INTEGER PRIMARY KEY, secret TEXT NOT NULL, generation INTEGER NOT NULL, act TEXT NOT NULL, ring TEXT,
    at TEXT NOT NULL, ended TEXT, outcome TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS intents_by_secret ON intents (secret, generation, act);
CREATE TABLE IF NOT EXISTS notes (
    secret TEXT NOT NULL, topic TEXT NOT NULL, generation INTEGER NOT NULL, at TEXT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (secret, topic)
) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, secret TEXT NOT NULL, generation INTEGER NOT NULL,
    event TEXT NOT NULL, detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation that was asked for: done when ``goal`` is current. ``carries`` is the generation whose value it
    brings back, for a rollback after promotion. ``closed`` and ``outcome`` are None while it is open."""

    secret: str
    goal: int
    reason: str
    opened: datetime
    carries: int | None = None
    closed: datetime | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """An act that was begun at ``at``. ``ended`` and ``outcome`` are None while it goes on, or when a run died in
    it."""

    secret: str
    generation: int
    act: Act
    ring: Ring | None
    at: datetime
    ended: datetime | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Note:
    """Something first seen at ``at`` about one generation."""

    generation: int
    at: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit trail. ``hash`` covers the line and the hash of the line before it (``previous``)."""

    sequence: int
    at: str
    secret: str
    generation: int
    event: str
    detail: str
    previous: str
    hash: str

    def digest(self) -> str:
        # asdict() copies deeply, which takes most of the time that verifying a long trail takes.
        covered = {field: getattr(self, field) for field in self.__slots__ if field != "hash"}
        return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


class Journal:
    """Open (and make) the journal at ``path``. Safe for the threads of one runner, and for several runners."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self.owner = str(uuid.uuid4())
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            self._file, self._opened = path, _identity(path)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"the journal {path} cannot be opened: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # Copies

    def copy_to(self, path: Path) -> int:
        """Write the whole database, as it is now, to a new file; returns :attr:`changes` as of then."""
        try:
            with self._lock, closing(sqlite3.connect(path)) as copy:
                self._database.backup(copy)
                return self.changes
        except sqlite3.Error as error:
            raise JournalError(f"the journal cannot be copied: {error}") from error

    def load_from(self, path: Path) -> None:
        """Take over all that is in another journal's file. Raises JournalError for what is none, or is damaged."""
        try:
            with self._lock, closing(sqlite3.connect(path)) as other:
                (state,) = other.execute("PRAGMA quick_check(1)").fetchone()
                if state != "ok" or not other.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit'").fetchall():
                    raise JournalError(f"it is damaged, or no journal ({state})")
                other.backup(self._database)
                self._database.executescript(_SCHEMA)  # what an older version does not have yet
        except sqlite3.Error as error:
            raise JournalError(f"it is damaged, or no journal ({error})") from error

    @property
    def changes(self) -> int:
        """How many lines this runner has written so far."""
        return self._database.total_changes

    def has(self, line: str) -> bool:
        """Whether the audit trail has a line with this hash."""
        return self._one("SELECT 1 FROM audit WHERE hash = ?", (line,)) is not None

    def last_line(self) -> str:
        """The hash of the audit trail's last line, empty where it has none."""
        row = self._one("SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1")
        return str(row[0]) if row else ""

    # Leases

    @contextmanager
    def lease(self, secrets: Sequence[str]) -> Iterator[None]:
        """Hold these secrets, all or none, and keep them held until the block ends. LeaseHeld names who has one."""
        self._take(secrets)
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(secrets, stop), name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()
            with self._write() as database:
                database.executemany(
                    "DELETE FROM leases WHERE secret = ? AND owner = ?", [(secret, self.owner) for secret in secrets]
                )

    def leased(self) -> bool:
        """Whether any runner is at work with this journal, as far as is known here."""
        return any(self.holders().values())

    def holders(self) -> dict[str, bool]:
        """The secrets that a runner holds, and whether it lives: one that was killed leaves its lease behind."""
        now = self._clock()
        rows = self._all("SELECT secret, host, pid, expires FROM leases")
        return {
            secret: datetime.fromisoformat(expires) > now and not died(host, pid) for secret, host, pid, expires in rows
        }

    def require_lease(self, secret: str) -> None:
        """Raise :class:`LeaseHeld` unless this very runner holds the secret now, with the journal that others see."""
        row = self._one("SELECT owner, expires FROM leases WHERE secret = ?", (secret,))
        mine = row is not None and row[0] == self.owner and datetime.fromisoformat(row[1]) > self._clock()
        if not mine or not self._is_in_place():
            raise LeaseHeld(
                f"this runner does not hold {secret} any more: it was held up, or the journal was replaced",
                "Run the command again: it starts from what is there now.",
            )

    def _is_in_place(self) -> bool:
        """Whether the file that was opened is still the one at its path."""
        try:
            return _identity(self._file) == self._opened
        except OSError:
            return False

    def _take(self, secrets: Sequence[str]) -> None:
        now = self._clock()
        with self._write() as database:
            for secret in sorted(secrets):
                row = database.execute(
                    "SELECT owner, host, pid, expires FROM leases WHERE secret = ?", (secret,)
                ).fetchone()
                if row is not None:
                    owner, host, pid, expires = row
                    if owner != self.owner and datetime.fromisoformat(expires) > now and not died(host, pid):
                        raise LeaseHeld(f"another runner (process {pid} on {host}) works on {secret} until {expires}")
                database.execute(
                    "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                    (secret, self.owner, socket.gethostname(), os.getpid(), (now + LEASE).isoformat()),
                )

    def _keep(self, secrets: Sequence[str], stop: threading.Event) -> None:
        while not stop.wait(LEASE.total_seconds() / 4):
            with suppress(JournalError):  # a journal that fails stops the run at its next write, not here
                self._renew(secrets)

    def _renew(self, secrets: Sequence[str]) -> None:
        """Prolong the leases that are still this runner's: no other has taken them in the meantime."""
        expires = (self._clock() + LEASE).isoformat()
        with self._write() as database:
            database.executemany(
                "UPDATE leases SET expires = ? WHERE secret = ? AND owner = ?",
                [(expires, secret, self.owner) for secret in secrets],
            )

    # Rotations

    def open_rotation(self, secret: str, goal: int, reason: str, carries: int | None = None) -> Rotation:
        """Record what was asked for; the rotation that is already open, if there is one, goes on instead."""
        with self._write() as database:
            standing = self.rotation(secret)
            if standing is not None:
                return standing
            opened = self._clock()
            database.execute(
                "INSERT INTO rotations (secret, goal, carries, reason, opened) VALUES (?, ?, ?, ?, ?)",
                (secret, goal, carries, reason, opened.isoformat()),
            )
            self._append(database, secret, goal, "opened", reason)
            return Rotation(secret, goal, reason, opened, carries)

    def rotation(self, secret: str) -> Rotation | None:
        """The open rotation of a secret."""
        row = self._one(
            "SELECT goal, reason, opened, carries FROM rotations WHERE secret = ? AND closed IS NULL", (secret,)
        )
        if row is None:
            return None
        goal, reason, opened, carries = row
        return Rotation(secret, goal, reason, datetime.fromisoformat(opened), carries)

    def open_rotations(self) -> tuple[str, ...]:
        """The secrets that have an open rotation."""
        return tuple(row[0] for row in self._all("SELECT secret FROM rotations WHERE closed IS NULL ORDER BY secret"))

    def opened(self) -> dict[str, datetime]:
        """Since when the secrets that have an open rotation have it."""
        rows = self._all("SELECT secret, opened FROM rotations WHERE closed IS NULL")
        return {secret: datetime.fromisoformat(opened) for secret, opened in rows}

    def close_rotation(self, secret: str, generation: int, outcome: str, detail: str) -> None:
        """End the open rotation, and say in the audit trail how. Without an open one only the trail is written."""
        with self._write() as database:
            database.execute(
                "UPDATE rotations SET closed = ?, outcome = ? WHERE secret = ? AND closed IS NULL",
                (self._clock().isoformat(), outcome, secret),
            )
            self._append(database, secret, generation, outcome, detail)

    def rotations(self, newest: int) -> tuple[Rotation, ...]:
        """All open rotations, then the closed ones, each newest first: so many of them altogether."""
        rows = self._all(
            "SELECT secret, goal, reason, opened, carries, closed, outcome FROM rotations"
            " ORDER BY closed IS NOT NULL, id DESC LIMIT ?",
            (newest,),
        )
        return tuple(
            Rotation(secret, goal, reason, datetime.fromisoformat(opened), carries, _moment(closed), outcome)
            for secret, goal, reason, opened, carries, closed, outcome in rows
        )

    # Intents

    def intents(self, since: datetime) -> tuple[Intent, ...]:
        """What was begun from then on, of every secret, oldest first."""
        rows = self._all(
            "SELECT secret, generation, act, ring, at, ended, outcome FROM intents WHERE at >= ? ORDER BY id",
            (since.isoformat(),),
        )
        return tuple(
            Intent(
                secret,
                generation,
                Act(act),
                Ring(ring) if ring else None,
                datetime.fromisoformat(at),
                _moment(ended),
                how,
            )
            for secret, generation, act, ring, at, ended, how in rows
        )

    def intend(self, secret: str, generation: int, act: Act, ring: Ring | None = None) -> int:
        """Put on disk what is about to be done. Returns the intent's number for :meth:`settle`."""
        with self._write() as database:
            cursor = database.execute(
                "INSERT INTO intents (secret, generation, act, ring, at) VALUES (?, ?, ?, ?, ?)",
                (secret, generation, act, ring, self._clock().isoformat()),
            )
            return int(cursor.lastrowid or 0)

    def settle(self, intent: int, outcome: str, detail: str = "") -> None:
        """Record how an intent ended, in the audit trail too."""
        with self._write() as database:
            secret, generation, act, ring = database.execute(
                "UPDATE intents SET ended = ?, outcome = ? WHERE id = ? RETURNING secret, generation, act, ring",
                (self._clock().isoformat(), outcome, intent),
            ).fetchone()
            event = f"{act} {ring}" if ring else act
            self._append(database, secret, generation, event, detail if outcome == "done" else f"{outcome}: {detail}")

    def count(self, secret: str, generation: int, act: Act) -> int:
        """How many times this act was done on this generation."""
        row = self._one(
            "SELECT count(*) FROM intents WHERE secret = ? AND generation = ? AND act = ? AND outcome = 'done'",
            (secret, generation, act),
        )
        return int(row[0]) if row else 0

    def last_ended(self, secret: str, act: Act, generation: int | None = None) -> datetime | None:
        """When the last of these acts on a secret (on one generation of it) ended, now where one has not; None where
        there was none."""
        now = self._clock().isoformat()
        (ended,) = self._one(
            "SELECT max(coalesce(ended, :now)) FROM intents"
            " WHERE secret = :secret AND act = :act AND generation = coalesce(:generation, generation)",
            {"now": now, "secret": secret, "act": act, "generation": generation},
        ) or (None,)
        return _moment(ended)

    def made_at(self, secret: str, generation: int) -> datetime | None:
        """When a generation's value was made: when it was first about to be staged. None where this journal does not
        know, and for a generation that brought an older one's value back."""
        (staged,) = self._one(
            "SELECT min(at) FROM intents WHERE secret = ? AND generation = ? AND act = 'stage'", (secret, generation)
        ) or (None,)
        (carries,) = self._one(
            "SELECT carries FROM rotations WHERE secret = ? AND goal <= ? ORDER BY id DESC LIMIT 1",
            (secret, generation),
        ) or (None,)
        return datetime.fromisoformat(staged) if staged is not None and carries is None else None

    def highest(self, secret: str) -> int:
        """The highest generation that was staged, rejected or found used up, 0 for none. One that a run died over may
        be there or not: the store tells when it is staged again."""
        row = self._one(
            "SELECT max(generation) FROM ("
            " SELECT generation FROM intents WHERE secret = :secret AND act = 'stage' AND outcome = 'done'"
            " UNION ALL SELECT generation FROM notes WHERE secret = :secret AND topic IN ('spent', 'rejected'))",
            {"secret": secret},
        )
        return int(row[0] or 0) if row else 0

    def unfinished(self, secret: str) -> tuple[str, ...]:
        """The acts that a dead run had begun and not ended, oldest first."""
        rows = self._all(
            "SELECT act, generation, at FROM intents WHERE secret = ? AND ended IS NULL ORDER BY id", (secret,)
        )
        return tuple(f"{act} of generation {generation} begun at {at}" for act, generation, at in rows)

    def interrupted(self) -> frozenset[str]:
        """The secrets with an act that was begun and has not ended: where no runner holds them, one died in it."""
        return frozenset(row[0] for row in self._all("SELECT DISTINCT secret FROM intents WHERE ended IS NULL"))

    def write_off(self, secret: str) -> None:
        """Mark what a dead run had begun as interrupted, in the audit trail too, because it may have happened: from
        now on only what is observed counts."""
        for (intent,) in self._all("SELECT id FROM intents WHERE secret = ? AND ended IS NULL ORDER BY id", (secret,)):
            self.settle(intent, "interrupted", "the run died, and what it left is looked at afresh")

    # Notes

    def note(self, secret: str, topic: str, generation: int, detail: str = "") -> Note:
        """Remember something about a generation, with the time; the last note on a topic replaces the one before."""
        note = Note(generation, self._clock(), detail)
        with self._write() as database:
            database.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?)",
                (secret, topic, generation, note.at.isoformat(), detail),
            )
        return note

    def first_noted(self, secret: str, topic: str, generation: int) -> Note:
        """The note on this topic and generation, made now if there is none yet."""
        standing = self.notes(secret).get(topic)
        if standing is not None and standing.generation == generation:
            return standing
        return self.note(secret, topic, generation)

    def note_exactly(self, topic: str, secrets: Collection[str]) -> dict[str, Note]:
        """The notes on this topic, which these secrets have from now on and no others: made now where there was none,
        and forgotten where it is none of these."""
        standing = self.noted(topic)
        missing, over = sorted(set(secrets) - standing.keys()), sorted(standing.keys() - set(secrets))
        if not missing and not over:
            return standing
        at = self._clock().isoformat()
        with self._write() as database:
            database.executemany(
                "INSERT OR IGNORE INTO notes VALUES (?, ?, 0, ?, '')", [(secret, topic, at) for secret in missing]
            )
            database.executemany(
                "DELETE FROM notes WHERE secret = ? AND topic = ?", [(secret, topic) for secret in over]
            )
        return self.noted(topic)

    def forget(self, secret: str, topic: str) -> None:
        with self._write() as database:
            database.execute("DELETE FROM notes WHERE secret = ? AND topic = ?", (secret, topic))

    def notes(self, secret: str) -> dict[str, Note]:
        rows = self._all("SELECT topic, generation, at, detail FROM notes WHERE secret = ?", (secret,))
        return {topic: Note(generation, datetime.fromisoformat(at), detail) for topic, generation, at, detail in rows}

    def noted(self, topic: str) -> dict[str, Note]:
        """The note on one topic of every secret that has one."""
        rows = self._all("SELECT secret, generation, at, detail FROM notes WHERE topic = ?", (topic,))
        return {secret: Note(generation, datetime.fromisoformat(at), detail) for secret, generation, at, detail in rows}

    def keep(self, secret: str, details: Mapping[str, str], is_gone: Callable[[str], bool]) -> dict[str, Note]:
        """Bring the notes under a name up to date, in one write: topics that have a detail keep the time when they were
        first noted, and others are forgotten where they are gone. Returns the notes that are left."""
        with self._write() as database:
            gone = [topic for topic in self.notes(secret) if topic not in details and is_gone(topic)]
            database.executemany("DELETE FROM notes WHERE secret = ? AND topic = ?", [(secret, t) for t in gone])
            now = self._clock().isoformat()
            database.executemany(
                "INSERT INTO notes VALUES (?, ?, 0, ?, ?) ON CONFLICT DO UPDATE SET detail = excluded.detail",
                [(secret, topic, now, detail) for topic, detail in details.items()],
            )
            return self.notes(secret)

    # Audit

    def audit(self, secret: str, generation: int, event: str, detail: str = "") -> None:
        with self._write() as database:
            self._append(database, secret, generation, event, detail)

    def trail(self, secret: str | None = None) -> tuple[Entry, ...]:
        """The audit trail, oldest first, after its hashes were verified over the whole of it."""
        entries, flaw = self.inspect()
        if flaw is not None:
            raise flaw
        return tuple(entry for entry in entries if secret in (None, entry.secret))

    def inspect(self) -> tuple[tuple[Entry, ...], JournalError | None]:
        """The audit trail as it is there, and why it does not verify, None where it does."""
        written = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")
        entries = tuple(Entry(*row) for row in self._all("SELECT * FROM audit ORDER BY sequence"))
        previous = ""
        for entry in entries:
            if entry.previous != previous or entry.hash != entry.digest():
                return entries, JournalError(f"the audit trail was changed at line {entry.sequence}", _TAMPERED)
            previous = entry.hash
        if written is not None and len(entries) < int(written[0]):
            flaw = f"the audit trail has {len(entries)} lines, and {written[0]} were written"
            return entries, JournalError(flaw, _TAMPERED)
        return entries, None

    def _append(self, database: sqlite3.Connection, secret: str, generation: int, event: str, detail: str) -> None:
        last = database.execute("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
        sequence, previous = (last[0] + 1, last[1]) if last else (1, "")
        at = self._clock().isoformat()
        entry = Entry(sequence, at, secret, generation, str(event), detail, previous, hash="")
        database.execute(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (sequence, at, secret, generation, str(event), detail, previous, entry.digest()),
        )

    # SQLite

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the block ends; inside another one it is part of it."""
        with self._lock:
            outermost = not self._database.in_transaction
            try:
                if outermost:
                    self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                if outermost:
                    self._database.execute("COMMIT")
            except BaseException as error:
                if outermost and self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise JournalError(f"the journal cannot be written: {error}") from error
                raise

    def _all(self, query: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._database.execute(query, parameters).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"the journal cannot be read: {error}") from error

    def _one(self, query: str, parameters: Parameters = ()) -> tuple[Any, ...] | None:
        rows = self._all(query, parameters)
        return rows[0] if rows else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _identity(path: Path) -> tuple[int, int]:
    """What no other file has as long as this one is open."""
    status = path.stat()
    return status.st_dev, status.st_ino


def died(host: str, pid: int) -> bool:
    """Whether the process that held a lease is gone: known only on this host."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
