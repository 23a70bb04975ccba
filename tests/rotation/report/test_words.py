"""How spans and schedules read."""

from __future__ import annotations

from datetime import date, time, timedelta

import pytest

from rotation.report import words
from rotation.schedule import Blackout, Schedule, Weekday, Window


@pytest.mark.parametrize(
    ("seconds", "reads"),
    [
        (None, "–"),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (601, "10 min"),
        (3_600, "1 h"),
        (5_400, "1 h 30 min"),
        (86_400 + 4 * 3_600 + 59, "1 d 4 h"),
        (30 * 86_400 + 5, "30 d"),
    ],
)
def test_a_span_reads_as_two_units_at_most(seconds: float | None, reads: str) -> None:
    assert words.span(None if seconds is None else timedelta(seconds=seconds)) == reads


def test_a_schedule_reads_as_it_is_declared() -> None:
    assert words.rhythm(Schedule(every=timedelta(days=30))) == "every 30 d"
    assert words.rhythm(Schedule(cron="0 3 * * 6")) == "cron 0 3 * * 6"
    blackout = Blackout(starts=date(2026, 12, 19), ends=date(2027, 1, 3), reason="freeze")
    assert words.blackout(blackout) == "2026-12-19 to 2027-01-03: freeze"


@pytest.mark.parametrize(
    ("weekdays", "reads"),
    [
        (("mon", "tue", "wed"), "mon–wed 09:00–24:00"),
        (("mon", "wed"), "mon, wed 09:00–24:00"),
        (("sat", "sun"), "sat, sun 09:00–24:00"),
    ],
)
def test_a_window_reads_as_its_days_and_times(weekdays: tuple[Weekday, ...], reads: str) -> None:
    assert words.window(Window(weekdays=weekdays, opens=time(9))) == reads


def test_a_window_on_every_day_is_daily() -> None:
    assert words.window(Window(opens=time(9), closes=time(16))) == "daily 09:00–16:00"


def test_pins_that_agree_are_one_number() -> None:
    assert words.pinned({"orders-api/canary": 42, "orders-api/stable": 42}) == [("orders-api", "42")]
    assert words.pinned({"a/b/canary": 42, "a/b/stable": 41}) == [("a/b", "canary 42, stable 41")]
    assert words.pinned({"orders-api/canary": 42}) == [("orders-api", "canary 42")]
    assert words.pinned({}) == []
