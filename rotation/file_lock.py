"""One process at a time, on one machine: a lock file that the kernel frees when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rotation.errors import KeyturnError

_LOOK_AGAIN = 0.1  # seconds


@contextmanager
def held(path: Path, patience: float, busy: KeyturnError) -> Iterator[None]:
    """Hold the lock file ``path`` (its folder is made, for this user only). Waits ``patience`` seconds for another
    holder, in this process or in another, then raises ``busy``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(file, time.monotonic() + patience, busy)
        yield
    finally:
        os.close(file)


def _acquire(file: int, deadline: float, busy: KeyturnError) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise busy from error
        time.sleep(_LOOK_AGAIN)
