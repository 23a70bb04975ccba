"""When secrets are due in the coming weeks."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time, timedelta

import pytest

from rotation.model import StoreView, Version
from rotation.report.due_calendar import WEEKS, Calendar, Day
from rotation.schedule import Blackout, Schedule, Window
from rotation.status import SCHEDULED
from tests.fixtures.estate import DAY, NOW, Estate, manifest, secret

NAME = "orders/db"


def calendar(made: Estate, schedule: Schedule | None, turned: datetime) -> Calendar:
    made.clock.now = NOW - 700 * DAY
    made.journal.note_exactly(SCHEDULED, [NAME])
    view = StoreView("s", current=Version("v4", 4), highest=4, changed_at=turned)
    return replace(made, manifest=manifest([secret(NAME, schedule)]), views={NAME: view}).report().calendar


def days(made: Calendar) -> list[Day]:
    return [day for week in made.weeks for day in week]


def due(made: Calendar) -> list[str]:
    return [day.date.isoformat() for day in days(made) for _ in day.secrets]


def test_it_has_whole_weeks_from_the_monday_of_this_week_on(empty: Estate) -> None:
    made = days(empty.report().calendar)
    assert len(made) == 7 * WEEKS
    assert made[0].date == date(2026, 11, 16)
    assert [day.date for day in made if day.today] == [NOW.date()]
    assert sum(day.past for day in made) == 6


@pytest.mark.parametrize(
    ("schedule", "turned", "first"),
    [
        (Schedule(every=30 * DAY), NOW - 10 * DAY, ["2026-12-12", "2027-01-11"]),
        (Schedule(every=30 * DAY), NOW - 100 * DAY, ["2026-11-22", "2026-12-22", "2027-01-21"]),
        (Schedule(cron="0 3 1 * *"), NOW - 10 * DAY, ["2026-12-01", "2027-01-01", "2027-02-01"]),
        (
            Schedule(every=30 * DAY, windows=(Window(weekdays=("mon",), opens=time(9), closes=time(17)),)),
            NOW - 10 * DAY,
            ["2026-12-14", "2027-01-18"],
        ),
        (
            Schedule(
                every=30 * DAY, blackouts=(Blackout(starts=date(2026, 12, 1), ends=date(2027, 1, 3), reason="f"),)
            ),
            NOW - 10 * DAY,
            ["2027-01-04", "2027-02-03"],
        ),
        (Schedule(every=365 * DAY), NOW - 10 * DAY, []),
        (None, NOW - 10 * DAY, []),
    ],
    ids=["monthly", "long overdue", "cron", "on mondays only", "after a blackout", "next year", "no schedule"],
)
def test_a_secret_is_due_and_due_again_if_it_is_turned_on_time(
    empty: Estate, schedule: Schedule | None, turned: datetime, first: list[str]
) -> None:
    assert due(calendar(empty, schedule, turned)) == first


def test_what_is_due_many_times_a_day_counts_once_a_day(empty: Estate) -> None:
    found = due(calendar(empty, Schedule(every=timedelta(hours=2)), NOW - timedelta(hours=1)))
    assert len(found) == len(set(found)) == 7 * WEEKS - 6


@pytest.mark.parametrize(
    ("blackout", "marked"),
    [
        (Blackout(starts=date(2026, 12, 19), ends=date(2026, 12, 20), reason="f"), ["2026-12-19", "2026-12-20"]),
        (Blackout(starts=datetime(2026, 12, 3, 9), ends=datetime(2026, 12, 3, 12), reason="f"), ["2026-12-03"]),
        (Blackout(starts=datetime(2026, 12, 3, 18), ends=datetime(2026, 12, 4, 22), reason="f"), ["2026-12-04"]),
        (Blackout(starts=date(2026, 1, 1), ends=date(2026, 1, 2), reason="f"), []),
    ],
    ids=["whole local days", "a few hours", "from one evening on", "over"],
)
def test_a_day_is_marked_that_a_blackout_takes_for_the_most_part(
    empty: Estate, blackout: Blackout, marked: list[str]
) -> None:
    schedule = Schedule(every=30 * DAY, timezone="Pacific/Auckland", blackouts=(blackout,))
    utc = schedule.model_copy(update={"timezone": "Europe/Berlin"})
    made = calendar(empty, utc, NOW)
    assert [day.date.isoformat() for day in days(made) if day.blackouts] == marked


def test_the_weeks_add_up_to_the_days(forty: Estate) -> None:
    made = forty.report().calendar
    assert sum(count for _, count in made.per_week) == len(due(made)) > 40
