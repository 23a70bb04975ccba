"""What a command prints: a readable timeline for people, one JSON document for machines, and never a value."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rotation.engine import Event

WARNINGS = frozenset({"reject canary", "reject stable", "reject", "blocked", "failed", "rolled back", "overtaken"})


class Output:
    """Where a command's words go. With ``machine`` the result is JSON on stdout, and all else is on stderr."""

    def __init__(self, *, machine: bool) -> None:
        self._machine = machine
        self._stream = sys.stderr if machine else sys.stdout
        self._lock = threading.Lock()
        self._status: Any = None

    def event(self, event: Event) -> None:
        """One line of a rotation's timeline; on a terminal a wait is a spinner until something happens."""
        line = f"{event.at:%H:%M:%S}  {event.secret:<18}  {event.what:<14}  {event.detail}"
        with self._lock:
            if self._status is not None and event.what == "waits":
                from rich.text import Text

                self._status.update(Text(line))  # as it is: evidence may hold what Rich takes for markup
            else:
                self._print(line, alarming=event.what in WARNINGS)

    def say(self, line: str) -> None:
        with self._lock:
            self._print(line)

    def warn(self, what: str, follows: str) -> None:
        """Two lines on stderr, as of an error: what happened, and what follows from it."""
        with self._lock:
            print(f"warning: {what}\n  {follows}", file=sys.stderr, flush=True)  # noqa: T201

    def result(self, document: Mapping[str, Any], lines: Sequence[str] = ()) -> None:
        """The command's result: the document for machines, the lines for people."""
        if self._machine:
            print(json.dumps(document, indent=1, default=_plain))  # noqa: T201  # this is where the program prints
            return
        for line in lines:
            self.say(line)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """A spinner with what is being waited for, where there is a terminal to show it."""
        if self._machine or not self._stream.isatty():
            yield
            return
        from rich.console import Console

        with Console(file=self._stream).status("…") as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def _print(self, line: str, *, alarming: bool = False) -> None:
        if self._status is not None:
            style = "bold red" if alarming else None
            self._status.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
            self._status.update("…")
        else:
            print(line, file=self._stream, flush=True)


def _plain(value: object) -> object:
    """What JSON has no word for: spans are seconds, instants ISO 8601."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; the last one is as long as it likes."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
