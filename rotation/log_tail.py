"""Read what a program has written to its log since a moment, without reading all that it wrote before.

The log may be rotated while it is read (``app.log`` → ``app.log.1`` → …, as logrotate does, with or without
copytruncate) or cut; compressed files are not looked into. Its lines are in order of time, give or take
:data:`SLACK`. A last line without its line break is still being written, and left for the next look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

SLACK = timedelta(seconds=5)  # threads that write to one log overtake each other
_BLOCK = 64 * 1024  # bytes: below this, reading is as cheap as searching
_LONGEST = 64 * 1024  # bytes of one line; what is over is left out

Line = tuple[datetime, str]


def lines_since(path: Path, since: datetime, timestamp: re.Pattern[str]) -> Iterator[Line]:
    """Yield the lines from ``since`` on with their time, oldest file first.

    ``timestamp``'s first group holds an ISO 8601 time, in UTC unless it says otherwise. Lines without one (a stack
    trace) are skipped. Raises ``OSError`` when there is no log or it cannot be read.
    """
    files = [path.open("rb")]
    try:
        while not _begins_before(files[-1], since, timestamp):
            older = path.with_name(f"{path.name}.{len(files)}")
            if not older.exists():
                break
            files.append(older.open("rb"))
            if os.path.sameopenfile(files[-1].fileno(), files[-2].fileno()):
                files.pop().close()  # rotated just now: what was the log when it was opened has this name already
                break
        for file in reversed(files):
            file.seek(_start(file, since - SLACK, timestamp))
            yield from (line for line in _lines(file, timestamp) if line[0] >= since)
    finally:
        for file in files:
            file.close()


def _begins_before(file: BinaryIO, since: datetime, timestamp: re.Pattern[str]) -> bool:
    first = next(_lines(file, timestamp), None)
    return first is not None and first[0] < since - SLACK


def _start(file: BinaryIO, since: datetime, timestamp: re.Pattern[str]) -> int:
    """An offset, by halving, that no line from ``since`` on lies before."""
    low, high = 0, file.seek(0, 2)
    while high - low > _BLOCK:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline(_LONGEST)  # the rest of a line that began before
        found = next(_lines(file, timestamp), None)
        if found is not None and found[0] < since:
            low = middle
        else:
            high = middle
    return low


def _lines(file: BinaryIO, timestamp: re.Pattern[str]) -> Iterator[Line]:
    """The lines from here on that are whole and have a time. One cut off its beginning has none, and falls out."""
    while text := file.readline(_LONGEST):
        if not text.endswith(b"\n") and len(text) < _LONGEST:
            return
        line = text.decode(errors="replace").rstrip("\r\n")
        if (time := _time(line, timestamp)) is not None:
            yield time, line


def _time(line: str, timestamp: re.Pattern[str]) -> datetime | None:
    found = timestamp.match(line)
    try:
        time = datetime.fromisoformat(found[1]) if found and found[1] else None
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time
