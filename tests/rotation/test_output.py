from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

from rotation.engine import Event
from rotation.output import Output, table

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_machine_gets_one_document_on_stdout_and_the_timeline_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(machine=True)
    output.event(Event(NOON, "orders/db", "stage", "generation 2"))
    output.result({"age": timedelta(hours=1), "due": NOON}, ["for people"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"age": 3600.0, "due": "2026-03-01T12:00:00+00:00"}
    assert printed.err.split() == ["12:00:00", "orders/db", "stage", "generation", "2"]


def test_without_a_terminal_every_event_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(machine=False)
    with output.progress():
        output.event(Event(NOON, "orders/db", "waits", "for the canary"))
    output.result({}, ["done"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.splitlines()[-1] == "done"
    assert "for the canary" in printed


def test_on_a_terminal_a_wait_is_a_spinner_and_an_event_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    output = Output(machine=False)
    with output.progress():
        output.event(Event(NOON, "orders/db", "waits", "until then"))
        output.event(Event(NOON, "orders/db", "reject canary", "evidence with [/brackets] that are no markup"))
        output.event(Event(NOON, "orders/db", "waits", "line with [/brackets] too"))
    shown = terminal.getvalue()
    assert "evidence with [/brackets] that are no markup" in shown
    assert "line with [/brackets] too" in shown
    assert shown.endswith("\x1b[1A\x1b[2K"), "the spinner's line is taken away at the end"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("a", "b"), [("long", "x"), ("s", "yy")]) == ["a     b", "long  x", "s     yy"]
