"""The clock of the emulated cloud: real time, moved by an offset, or standing still where a test set it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Condition, Lock


class Clock:
    """What the cloud takes for the time. Whoever listens is told when it was moved."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._standing: float | None = None
        self._lock = Lock()
        self._moved = Condition()
        self._closed = False
        self._waiting = 0
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        """Seconds since 1970."""
        with self._lock:
            return time.time() + self._offset if self._standing is None else self._standing

    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)

    def stop(self, at: datetime | None = None) -> None:
        """Let it stand still, now or at another moment, until :meth:`advance`, :meth:`wait` or :meth:`run`."""
        standing = self.now() if at is None else at.timestamp()
        with self._lock:
            self._standing = standing
        self._tell()

    def advance(self, seconds: float) -> None:
        """Move it on; it goes on standing or running as before."""
        with self._lock:
            if self._standing is None:
                self._offset += seconds
            else:
                self._standing += seconds
        self._tell()

    def run(self, offset: float = 0.0) -> None:
        """Let it run again, that many seconds ahead of this machine's clock."""
        with self._lock:
            self._offset, self._standing = offset, None
        self._tell()

    def wait(self, seconds: float) -> None:
        """Let that time pass: until it has, or at once on a clock that stands, which is moved on by it."""
        with self._lock:
            stands = self._standing is not None
        if stands:
            self.advance(seconds)
            return
        with self._moved:
            end = self.now() + seconds
            self._waiting += 1
            while not self._closed and (left := end - self.now()) > 0:
                self._moved.wait(left)
            self._waiting -= 1

    @property
    def waiting(self) -> int:
        """How many wait for time to pass."""
        return self._waiting

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def _tell(self) -> None:
        with self._moved:
            self._moved.notify_all()
        for listener in self._listeners:
            listener()
