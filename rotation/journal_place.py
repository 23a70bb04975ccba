"""Where a run's journal lives on: in a folder, or in a bucket for runners that have no disk of their own.

A journal in a bucket (``s3://bucket/prefix/<environment>.sqlite3``, or ``cos://…``):

- A command works on a copy below ``.keyturn/journal``. Who wants to change anything takes the environment's lease
  first, then the newest copy; what is written goes back to the bucket a moment later, at the end, and on the way out
  of an error or a signal. Whoever only looks needs neither the lease nor the right to write.
- It is written back only over what was fetched. A runner that finds something else there leaves it, puts its own file
  beside it (``<environment>.conflict-…``), says so, and goes on: what counts is in the store.
- Where the bucket cannot be worked with, the work goes on with an empty journal: what needs a memory starts anew, so
  that nothing is revoked early. What could not be sent stays in the folder, and the next run that takes the lease puts
  it beside the journal (``<environment>.unsent-…``). With ``journal_required`` it is an error instead.
- A damaged journal is kept (``<environment>.damaged-…``) before a new one takes its place.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rotation.buckets import Bucket, Stored
from rotation.errors import (
    ClockSkew,
    Conflict,
    JournalError,
    KeyturnError,
    LeaseHeld,
    Unauthorized,
    Unavailable,
)
from rotation.journal import Journal, died
from rotation.model import Act, Ring
from rotation.plugins import load
from rotation.settings import Settings

Warn = Callable[[str, str], None]  # what happened, and what follows from it

UNREACHABLE = (Unavailable, Unauthorized, ClockSkew, JournalError)
_PAUSE, _PAUSE_AFTER_FAILURE = 0.5, 5.0  # seconds between two writes to the bucket

_open: set[Path] = set()  # the copies that this process works on

_REMEDY = (
    "Check the setting journal, the bucket, and the runner's rights on it"
    " (s3:ListBucket, Get, Put, DeleteObject; cos:GetBucket, Get, Head, Put, DeleteObject)."
)
_WITHOUT = "The work goes on with an empty journal: grace times start anew. Its trail is sent by a later run."


def open_journal(settings: Settings, environment: str, warn: Warn) -> AbstractContextManager[Journal]:
    """Open an environment's journal where the settings say it is.

    Raises :class:`JournalError` for a folder that cannot be used, or for a bucket where ``journal_required`` is set.
    """
    if settings.journal_bucket is None:
        return Journal(settings.journal_of(environment))
    bucket = load(Bucket, settings.journal_bucket.partition("://")[0])(settings.journal_bucket)
    name = f"{environment}.sqlite3"
    try:
        stored = bucket.read(name)
    except UNREACHABLE as error:
        what = f"the journal {bucket.url(name)} cannot be reached: {error}"
        if settings.journal_required:
            raise JournalError(what, _REMEDY) from error
        warn(what, _WITHOUT)
        return OfflineJournal(bucket, environment, settings.journal_of(environment), warn)
    folder = settings.journal_of(environment).parent
    return BucketJournal(bucket, environment, folder, stored, warn, required=settings.journal_required)


class OfflineJournal(Journal):
    """The journal of runs whose bucket cannot be reached, shared by those on this disk. At the end it is tried once
    more to put it beside the one in the bucket, for a runner whose disk ends with it."""

    def __init__(self, bucket: Bucket, environment: str, path: Path, warn: Warn) -> None:
        super().__init__(path)
        self._bucket = bucket
        self._environment = environment
        self._path = path
        self._warn = warn

    def require_lease(self, secret: str) -> None:
        """Nobody can tell who else is at work."""
        raise _without_lease(secret)

    def close(self) -> None:
        super().close()
        with suppress(*UNREACHABLE, Conflict):
            _send_beside(self._bucket, self._environment, self._path, self._warn, patient=False)


class BucketJournal(Journal):
    """A copy of the journal in a bucket, which is sent back. ``stored`` is what was found there."""

    def __init__(
        self, bucket: Bucket, environment: str, folder: Path, stored: Stored | None, warn: Warn, *, required: bool
    ) -> None:
        from rotation.environment_lease import EnvironmentLease

        self._path = folder / f"{environment}.unsent-{_stamp()}-{uuid.uuid4().hex[:8]}-{os.getpid()}.sqlite3"
        _open.add(self._path)
        super().__init__(self._path)
        self._bucket = bucket
        self._environment = environment
        self._name = f"{environment}.sqlite3"
        self._warn = warn
        self._required = required
        self._etag: str | None = None
        self._sent = self.changes
        self._damaged: bytes | None = None
        self._lease = EnvironmentLease(bucket, environment, self.owner)
        self._leased = False
        self._began_with_lease = False
        self._problem: KeyturnError | None = None
        self._stop = threading.Event()
        self._news = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name="journal", daemon=True)
        try:
            self._take_over(stored)
        except BaseException:
            super().close()
            self._leave(keep=False)
            raise

    # What a command does with it

    @contextmanager
    def lease(self, secrets: Sequence[str]) -> Iterator[None]:
        """Become the one runner on the environment, until the journal is closed. LeaseHeld names the other one.

        The secrets need no leases of their own: nobody else works on this copy.
        """
        del secrets
        if not self._leased:
            self._begin()
        yield

    def require_lease(self, secret: str) -> None:
        """As every journal's: it is the environment's lease that counts, as it is in the bucket now.

        One that could be taken only later does not: others may have gone on since this run looked around.
        """
        if self._leased and not self._began_with_lease:
            raise _without_lease(secret)
        self._lease.require()

    def holders(self) -> dict[str, bool]:
        """As every journal's: a runner that has the lease may be at work on every rotation that is open."""
        with suppress(*UNREACHABLE):
            if not self._leased and self._lease.is_held():
                return dict.fromkeys(self.open_rotations(), True)
        return {}

    def intend(self, secret: str, generation: int, act: Act, ring: Ring | None = None) -> int:
        """As every journal's; nothing more is done once another runner is at work."""
        if self._problem is not None:
            raise self._problem
        return super().intend(secret, generation, act, ring)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with super()._write() as database:
            yield database
        if self._leased and self.changes != self._sent:
            self._news.set()

    def close(self) -> None:
        """Send what is not sent yet, and let the next runner in. Says what could not be sent, and never fails."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._news.set()
        if self._keeper.is_alive():
            self._keeper.join()
        unsent = self.changes != self._sent and not self._finish()
        with suppress(*UNREACHABLE, Conflict):
            self._lease.release()
        super().close()
        self._leave(keep=unsent)

    def _leave(self, *, keep: bool) -> None:
        _open.discard(self._path)
        if not keep:
            _remove(self._path)

    # Beginning

    def _take_over(self, stored: Stored | None) -> None:
        """Make what the bucket has the content of this copy."""
        self._etag = stored.etag if stored else None
        if stored is None:
            return
        fetched = self._path.with_suffix(".fetched")
        try:
            fetched.write_bytes(stored.body)
            self.load_from(fetched)
        except OSError as error:
            raise JournalError(f"the journal cannot be kept in {self._path.parent}: {error.strerror}") from error
        except JournalError as error:
            self._set_aside(stored.body, error)
        finally:
            _remove(fetched)
        self._sent = self.changes

    def _set_aside(self, body: bytes, error: JournalError) -> None:
        what = f"the journal {self._bucket.url(self._name)} cannot be used: {error}"
        if self._required:
            raise JournalError(what, "Put an older version of the object back, or move it away.") from error
        kept = self._bucket.url(self._damaged_name(body))
        self._warn(what, f"The work goes on with an empty journal. Before that takes its place, it is kept as {kept}.")
        self._damaged = body

    def _damaged_name(self, body: bytes) -> str:
        return f"{self._environment}.damaged-{hashlib.sha256(body).hexdigest()[:12]}.sqlite3"

    def _begin(self) -> None:
        """Take the lease, and what another runner has written since this copy was fetched."""
        try:
            self._lease.take()
            stored = self._bucket.read(self._name)
            if (stored.etag if stored else None) != self._etag:
                self._take_over(stored)
            self._began_with_lease = True
            self._send_leftovers()
        except UNREACHABLE as error:
            self._cannot_write(error)
        self._leased = True
        self._keeper.start()

    def _cannot_write(self, error: KeyturnError) -> None:
        what = f"the journal {self._bucket.url(self._name)} cannot be written: {error}"
        if self._required:
            raise JournalError(what, _REMEDY) from error
        self._warn(what, f"The work goes on. What is not sent is kept in {self._path.parent} for a later run to send.")

    def _send_leftovers(self) -> None:
        """Put beside the journal what earlier runs on this disk could not send, or left when they were killed."""
        folder, environment = self._path.parent, self._environment
        for path in (*folder.glob(f"{environment}.unsent-*.sqlite3"), *folder.glob(f"{environment}.offline.sqlite3")):
            if _in_use(path):
                continue
            with suppress(JournalError):  # one that is no journal stays where it is
                if self._knows(path):
                    _remove(path)
                else:
                    _send_beside(self._bucket, environment, path, self._warn)

    def _knows(self, path: Path) -> bool:
        with Journal(path) as left:
            line = left.last_line()
        return not line or self.has(line)

    # Going on

    def _keep_up(self) -> None:
        """Renew the lease and send what is new, until the journal is closed."""
        from rotation.environment_lease import RENEWAL

        renew_at = time.monotonic() + RENEWAL.total_seconds()
        warned = False
        while not self._stop.is_set():
            self._news.wait(max(renew_at - time.monotonic(), 0))
            pause = _PAUSE
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + RENEWAL.total_seconds()
                    self._lease.renew()
                if self.changes != self._sent and not self._stop.is_set():
                    self._send()
            except LeaseHeld as held:
                self._step_aside()
                self._problem = held
                return
            except UNREACHABLE as error:
                pause = _PAUSE_AFTER_FAILURE
                if not warned:
                    warned = True
                    self._notice(error)
            self._stop.wait(pause)

    def _notice(self, error: KeyturnError) -> None:
        try:
            self._cannot_write(error)
        except JournalError as problem:
            self._problem = problem  # the run ends at its next write

    def _send(self) -> None:
        """Bring the bucket up to date."""
        self._news.clear()
        body, changes = _content(self, self._path)
        if self._damaged is not None:
            with suppress(Conflict):  # then it is kept already
                self._bucket.write(self._damaged_name(self._damaged), self._damaged, None)
            self._damaged = None
        try:
            self._etag = self._bucket.write(self._name, body, self._etag)
        except Conflict:
            self._step_aside()
            self._etag = self._bucket.write(self._name, body, self._etag)
        self._sent = changes

    def _step_aside(self) -> None:
        """Leave the journal to another runner, and write to a place of one's own from now on."""
        lost = self._bucket.url(self._name)
        self._name, self._etag = f"{self._environment}.conflict-{_stamp()}-{self.owner[:8]}.sqlite3", None
        self._warn(
            f"another runner has taken over {lost} in the meantime",
            f"It is left as it is; the journal of this run is {self._bucket.url(self._name)}.",
        )

    # Ending

    def _finish(self) -> bool:
        """Whether the last writes need not be kept in the folder."""
        if not self._leased:
            return self._send_looks()
        try:
            self._send()
        except (*UNREACHABLE, Conflict) as error:
            self._warn(
                f"the journal {self._bucket.url(self._name)} cannot be written: {error}",
                f"It is kept as {self._path}: the next run that changes anything sends it.",
            )
            return False
        return True

    def _send_looks(self) -> bool:
        """What a command noted that only looked: sent if nobody is at work and the runner may, else noted again at
        the next look."""
        with suppress(*UNREACHABLE, Conflict, LeaseHeld):
            self._lease.take(brief=True)
            stored = self._bucket.read(self._name)
            if (stored.etag if stored else None) == self._etag:
                self._send()
        return True


def _send_beside(bucket: Bucket, environment: str, path: Path, warn: Warn, *, patient: bool = True) -> None:
    """Put a journal that never reached the bucket there, under a name of its own, and remove it here."""
    with Journal(path) as left:
        if left.leased() or not left.last_line():
            return
        body, _ = _content(left, path)
    name = f"{environment}.unsent-{_stamp()}-{hashlib.sha256(body).hexdigest()[:12]}.sqlite3"
    bucket.write(name, body, None, patient=patient)
    _remove(path)
    warn(
        f"the trail of a run that could not reach the journal was in {path}",
        f"It is kept as {bucket.url(name)} now; the journal itself does not have it.",
    )


def _without_lease(secret: str) -> JournalError:
    return JournalError(
        f"{secret} can be promoted under a lease only, and the bucket of the journal could not be reached",
        "Check that the bucket can be reached from here, then run the command again: it resumes.",
    )


def _content(journal: Journal, path: Path) -> tuple[bytes, int]:
    """The whole database that is at ``path``, and the count of its changes as of then."""
    copy = path.with_suffix(".copy")
    try:
        changes = journal.copy_to(copy)
        return copy.read_bytes(), changes
    except OSError as error:
        raise JournalError(f"the journal cannot be copied in {path.parent}: {error.strerror}") from error
    finally:
        _remove(copy)


def _in_use(path: Path) -> bool:
    """Whether the runner that works on this copy may still be there: its process's number is in the name."""
    number = path.stem.rpartition("-")[2]
    if number == str(os.getpid()):
        return path in _open
    return number.isdigit() and not died(socket.gethostname(), int(number))


def _remove(path: Path) -> None:
    for file in (path, *(path.with_name(path.name + part) for part in ("-wal", "-shm", "-journal"))):
        file.unlink(missing_ok=True)


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
