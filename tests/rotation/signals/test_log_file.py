"""The log file signal: attribution, rates, and reading a log that is written and rotated meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation import plugins
from rotation.errors import DeclarationError
from rotation.log_tail import lines_since
from rotation.model import Health
from rotation.redaction import redact
from rotation.signals import Signal
from rotation.signals.log_file import LogFile, LogFileOptions
from tests.contracts.signal import NOW, SECRET, SINCE, SignalContract, Source

TIMESTAMP = LogFileOptions.model_fields["timestamp"].default


def line(
    seconds: float, level: str = "INFO", generation: int = 42, secret: str = SECRET, what: str = "uses=40 failed=0"
) -> str:
    """A line in the sample application's form, so many seconds after SINCE."""
    time = (SINCE + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{time} {level} ring=canary secret={secret} generation={generation} {what}\n"


class Log(Source):
    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def write(self, *lines: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def signal(self, **options: Any) -> LogFile:
        return LogFile({"path": str(self.path)} | options)

    def unreadable(self) -> list[Signal]:
        return [LogFile({"path": str(path)}) for path in (self.path.parent / "absent.log", self.path.parent)]

    def report(self, secret: str, generation: int, *, well: bool, remark: str = "") -> None:
        self.write(line(1, "INFO" if well else "ERROR", generation, secret, remark or "something"))

    def health(self, options: Mapping[str, Any] | None = None) -> Health:
        return self.signal(**(options or {})).read(SECRET, 42, SINCE, NOW).health


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.log")


class TestLogFile(SignalContract):
    @pytest.fixture
    def source(self, log: Log) -> Source:
        return log


def test_it_is_found_by_its_name() -> None:
    assert plugins.load(Signal, "log_file") is LogFile


@pytest.mark.parametrize(
    ("seconds", "health"),
    [
        ((0, 5, 10), Health.BAD),
        ((0, 5.001, 10.002), Health.GOOD),
        ((0, 11, 22, 33), Health.GOOD),
        ((0, 100, 104, 109), Health.BAD),
        ((0, 104, 100, 109), Health.BAD),
    ],
)
def test_errors_are_bad_when_too_many_fall_into_any_window(
    log: Log, seconds: tuple[float, ...], health: Health
) -> None:
    log.write(*(line(at, "ERROR") for at in seconds))
    assert log.health({"window": 10, "max_errors": 2}) is health


def test_too_few_lines_are_no_evidence_of_health(log: Log) -> None:
    log.write(line(1), line(2))
    assert log.health({"min_lines": 3}) is Health.UNKNOWN
    log.write(line(3))
    assert log.health({"min_lines": 3}) is Health.GOOD


def test_only_the_time_that_was_asked_for_counts(log: Log) -> None:
    log.write(line(-0.001, "ERROR"), line(0), line(600), line(600.001, "ERROR"))
    verdict = log.signal().read(SECRET, 42, SINCE, NOW)
    assert verdict.health is Health.GOOD
    assert "2 lines" in verdict.evidence[0]


def test_a_line_that_is_still_being_written_waits_for_the_next_look(log: Log) -> None:
    half = line(2, "ERROR")
    log.write(line(1), half[:-1])
    assert log.health() is Health.GOOD
    log.write("\n")
    assert log.health() is Health.BAD


def test_a_stack_trace_belongs_to_no_one(log: Log) -> None:
    log.write(line(1), f"  ERROR secret={SECRET} generation=42 without a time\n")
    assert log.health() is Health.GOOD


def test_evidence_counts_and_quotes_three_lines_at_most(log: Log) -> None:
    log.write(*(line(at, "ERROR", what=f"failure {at}") for at in range(5)), line(6))
    count, *samples = log.signal().read(SECRET, 42, SINCE, NOW).evidence
    assert count == ("app.log: 6 lines of orders/db generation 42 since 08:00:00, 5 errors, at most 5 within 10 s")
    assert [sample.split()[-1] for sample in samples] == ["0", "1", "2"]


def test_a_log_of_another_form_is_read_by_its_own_expressions(log: Log) -> None:
    log.write(
        "[22/11 2026-11-22 08:00:01,500] orders-db@g42 oops\n", "[22/11 2026-11-22 09:00:02+01:00] orders-db@g42 x\n"
    )
    options = {
        "timestamp": r"\[\S+ ([^\]]+)\]",
        "attribution": r"(?P<secret>[\w-]+)@g(?P<generation>\d+)",
        "error": "oops",
    }
    verdict = log.signal(**options).read("orders-db", 42, SINCE, NOW)
    assert verdict.health is Health.BAD
    assert "2 lines" in verdict.evidence[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "option path"),
        ({"path": "x", "pattern": "y"}, "option pattern"),
        ({"path": "x", "error": "("}, "option error"),
        ({"path": "x", "attribution": "generation=(?P<generation>.)"}, r"option attribution: .*\?P<secret>"),
        ({"path": "x", "timestamp": "^....-..-.."}, "option timestamp: .*group"),
        ({"path": "x", "window": 0}, "option window"),
        ({"path": "x", "max_errors": -1}, "option max_errors"),
        ({"path": "x", "min_lines": 0}, "option min_lines"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(DeclarationError, match=f"signal log_file: {named}"):
        LogFile(options)


# Reading the tail


def seconds(path: Path, since: datetime = SINCE) -> list[int]:
    return [round((time - SINCE).total_seconds()) for time, _ in lines_since(path, since, TIMESTAMP)]


def test_a_rotated_log_is_read_from_where_the_time_began(log: Log) -> None:
    log.path.with_name("app.log.3").write_text(line(-60))
    log.path.with_name("app.log.2").write_text(line(-30) + line(1))
    log.path.with_name("app.log.1").write_text(line(2))
    log.write(line(3))
    assert seconds(log.path) == [1, 2, 3]


def test_a_log_that_was_just_rotated_away_and_is_still_empty_is_read_from_its_old_name(log: Log) -> None:
    log.path.with_name("app.log.1").write_text(line(1))
    assert seconds(log.path) == [1]


def test_a_log_that_was_cut_is_read_from_its_new_beginning(log: Log) -> None:
    log.write(line(1), line(2))
    os.truncate(log.path, 0)
    log.write(line(3))
    assert seconds(log.path) == [3]


def test_one_file_under_two_names_is_read_once(log: Log) -> None:
    log.write(line(1))
    os.link(log.path, log.path.with_name("app.log.1"))
    assert seconds(log.path) == [1]


def test_lines_that_overtook_each_other_are_all_seen(log: Log) -> None:
    log.write(*(line(at) for at in (-9, -4, 1, -1, 2, 0)))
    assert seconds(log.path) == [1, 2, 0]


def test_a_line_that_was_overtaken_by_very_many_is_not_searched_past(log: Log) -> None:
    log.write(line(1), *(line(-1, what="x" * 1_000) for _ in range(300)), line(2))
    assert seconds(log.path) == [1, 2]


def test_what_was_written_long_before_is_not_read(log: Log) -> None:
    with log.path.open("w") as file:
        file.writelines(line(-100_000 + number / 10, what="x" * 100) for number in range(200_000))
    log.write(line(1), line(2))
    assert log.path.stat().st_size > 30_000_000
    before = characters_read()
    assert seconds(log.path) == [1, 2]
    # Some twenty probes, each of which fills a read buffer or two, and the last block.
    assert characters_read() - before < 1_000_000


def characters_read() -> int:
    found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
    assert found
    return int(found[1])


def test_an_endless_line_does_not_hide_what_follows(log: Log) -> None:
    log.write(line(1), "x" * 300_000 + "\n", line(2, what="y" * 200_000), line(3))
    assert seconds(log.path) == [1, 2, 3]


@given(st.lists(st.integers(-30, 30).flatmap(lambda at: st.tuples(st.just(at), st.integers(0, 3000))), max_size=60))
def test_the_search_finds_what_reading_everything_finds(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "app.log"
    path.write_text("".join(line(at * 60, what="x" * length * 10) for at, length in sorted(lines)))
    assert seconds(path) == [at * 60 for at, _ in sorted(lines) if at >= 0]


# Quoting


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("postgresql://orders_app:hunter2@db/orders", "postgresql://••••@db/orders"),
        ("login with password=hunter2, then", "login with password=••••, then"),
        ('{"api_key": "hunter 2", "x": 1}', '{"api_key": ••••, "x": 1}'),
        ("DB_PASSWORD: 'hunter 2'", "DB_PASSWORD: ••••"),
        ("Authorization: Bearer hunter2", "Authorization: ••••"),
        ("sent bearer hunter2 along", "sent bearer •••• along"),
        ("key wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "key ••••"),
        ("secret=orders/db generation=42", "secret=orders/db generation=42"),
        ("permission denied for table orders", "permission denied for table orders"),
        ("x y " * 100, ("x y " * 100)[:199] + "…"),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, quoted: str) -> None:
    assert redact(text, keep=(SECRET,)) == quoted


def test_a_credential_is_masked_wherever_a_long_line_is_cut() -> None:
    credential = "hunter2" * 10
    for length in range(1_900, 2_100, 7):
        assert "hunter2" not in redact("password=" + "a1" * (length // 2) + " password=" + credential)
        assert "hunter2" not in redact("- " * (length // 2) + credential)
