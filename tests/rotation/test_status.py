"""When a secret is due as `keyturn status` tells it: what it is counted from, what holds it, what asking costs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation.journal import Journal
from rotation.manifest import Manifest, Plugin, Secret
from rotation.model import StoreView, Strategy, Version
from rotation.pins import Pins
from rotation.renewal import TOPIC
from rotation.schedule import Count, Origin, Schedule, Window
from rotation.status import SCHEDULED, SecretStatus, describe, statuses

NAME = "orders/db"
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)  # a Wednesday
LONG_AGO = NOW - 300 * DAY
MONTHLY = Schedule(every=30 * DAY)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite3", clock) as opened:
        yield opened


def secret(name: str = NAME, schedule: Schedule | None = MONTHLY) -> Secret:
    times: dict[str, Any] = dict.fromkeys(("bake", "settle", "patience", "grace"), timedelta(0))
    plugin = Plugin(kind="none")
    return Secret(
        name=name,
        stored_as=name,
        store=plugin,
        credential=plugin,
        strategy=Strategy.ALTERNATING,
        schedule=schedule,
        **times,
    )


def manifest(*secrets: Secret) -> Manifest:
    return Manifest(
        environment="test", order=0, sources="", pins=Path("pins.json"), secrets={each.name: each for each in secrets}
    )


def view(name: str = NAME, changed_at: datetime | None = LONG_AGO) -> StoreView:
    """One generation, which was stored so long ago; without a date there is no value yet."""
    current = Version("v1", 1) if changed_at else None
    return StoreView(name, current=current, highest=1 if current else 0, changed_at=changed_at)


def look(journal: Journal, clock: Clock, schedule: Schedule | None = MONTHLY, **changed: Any) -> SecretStatus:
    (row,) = statuses({NAME: view(**changed)}, manifest(secret(schedule=schedule)), journal, Pins(), clock.now)
    return row


# What it is counted from


def test_a_schedule_that_is_new_makes_nothing_due_however_old_a_value_is(journal: Journal, clock: Clock) -> None:
    row = look(journal, clock)
    assert (row.due, row.counted) == (NOW + 30 * DAY, Count(NOW, Origin.FIRST_SIGHT))
    clock.now += 29 * DAY
    assert look(journal, clock).due == NOW + 30 * DAY


def test_a_schedule_that_asks_for_it_makes_an_old_value_due_at_once(journal: Journal, clock: Clock) -> None:
    row = look(journal, clock, Schedule(every=30 * DAY, immediately=True))
    assert (row.due, row.counted) == (LONG_AGO + 30 * DAY, Count(LONG_AGO, Origin.LAST_ROTATION))
    assert row.overdue_since == row.due


def test_after_a_rotation_it_counts_from_that(journal: Journal, clock: Clock) -> None:
    look(journal, clock)
    clock.now += DAY
    journal.note(NAME, "promoted", 1)
    row = look(journal, clock)
    assert (row.due, row.counted) == (NOW + 31 * DAY, Count(NOW + DAY, Origin.LAST_ROTATION))


def test_another_interval_is_no_new_schedule(journal: Journal, clock: Clock) -> None:
    """It counts on from the last rotation, and may be due at once."""
    look(journal, clock)
    journal.note(NAME, "promoted", 1)
    clock.now += 10 * DAY
    row = look(journal, clock, Schedule(every=7 * DAY))
    assert (row.due, row.overdue_since) == (NOW + 7 * DAY, NOW + 7 * DAY)


def test_a_runner_that_lost_its_journal_makes_nothing_due_at_once_and_says_what_it_counts_from(
    journal: Journal, clock: Clock, tmp_path: Path
) -> None:
    look(journal, clock)
    clock.now += 29 * DAY
    with Journal(tmp_path / "another.sqlite3", clock) as another:
        row = look(another, clock)
        assert row.due == NOW + 59 * DAY
        assert f"(counted from first sight {clock.now:%Y-%m-%d %H:%M})" in describe([row])[1]


def test_a_declared_start_needs_no_journal(journal: Journal, clock: Clock, tmp_path: Path) -> None:
    declared = Schedule(every=30 * DAY, since=NOW - 31 * DAY)
    first = look(journal, clock, declared)
    assert (first.due, first.counted) == (NOW - DAY, Count(NOW - 31 * DAY, Origin.SINCE))
    with Journal(tmp_path / "another.sqlite3", clock) as another:
        assert look(another, clock, declared) == first


def test_a_schedule_that_was_taken_away_and_comes_back_is_new(journal: Journal, clock: Clock) -> None:
    look(journal, clock)
    clock.now += 40 * DAY
    assert look(journal, clock, schedule=None).due is None
    assert look(journal, clock).due == clock.now + 30 * DAY


def test_a_secret_that_was_taken_away_and_comes_back_is_new(journal: Journal, clock: Clock) -> None:
    look(journal, clock)
    clock.now += 40 * DAY
    statuses({}, manifest(), journal, Pins(), clock.now)
    assert look(journal, clock).due == clock.now + 30 * DAY


def test_a_look_at_one_secret_notes_the_schedules_of_all(journal: Journal, clock: Clock) -> None:
    both = manifest(secret(), secret("orders/api"))
    statuses({NAME: view()}, both, journal, Pins(), NOW)
    assert journal.noted(SCHEDULED).keys() == both.secrets.keys()


def test_a_secret_without_a_value_is_not_due(journal: Journal, clock: Clock) -> None:
    row = look(journal, clock, Schedule(every=30 * DAY, since=LONG_AGO), changed_at=None)
    assert (row.due, row.counted, row.held_until, row.overdue_since, row.early_from) == (None,) * 5
    assert describe([row])[1].split()[-2:] == ["-", "-"]


# Held and overdue


def test_what_is_due_outside_its_windows_is_held_and_not_overdue(journal: Journal, clock: Clock) -> None:
    friday = Window(weekdays=("fri",), opens=time(9), closes=time(10))
    schedule = Schedule(every=DAY, since=NOW - 2 * DAY, windows=(friday,), late=timedelta(hours=2))
    row = look(journal, clock, schedule)
    assert (row.held_until, row.overdue_since) == (datetime(2026, 11, 20, 9, tzinfo=UTC), None)
    assert "2026-11-17 12:00 (held until 2026-11-20 09:00, counted since 2026-11-16 12:00)" in describe([row])[1]
    clock.now = datetime(2026, 11, 20, 11, 30, tzinfo=UTC)
    row = look(journal, clock, schedule)
    assert row.overdue_since == datetime(2026, 11, 20, 11, tzinfo=UTC)
    assert "(overdue since 2026-11-20 11:00, held until 2026-11-27 09:00, " in describe([row])[1]


def test_what_is_late_within_its_grace_is_due_and_not_overdue(journal: Journal, clock: Clock) -> None:
    schedule = Schedule(every=30 * DAY, since=NOW - 31 * DAY, late=2 * DAY, early=7 * DAY)
    row = look(journal, clock, schedule)
    assert (row.due, row.overdue_since, row.early_from) == (NOW - DAY, None, NOW - 8 * DAY)
    clock.now += DAY
    assert look(journal, clock, schedule).overdue_since == clock.now


# What it costs


def test_ten_thousand_secrets_take_as_many_reads_of_the_journal_as_one(journal: Journal) -> None:
    queries: list[str] = []
    names = [f"orders/s{number}" for number in range(10_000)]
    many, views = manifest(*map(secret, names)), {name: view(name) for name in names}
    statuses(views, many, journal, Pins(), NOW)
    journal._database.set_trace_callback(queries.append)
    assert len(statuses(views, many, journal, Pins(), NOW)) == len(names)
    assert len(queries) == 3


# Values that end by themselves


def test_a_value_that_ends_is_due_before_its_schedule_says(journal: Journal, clock: Clock) -> None:
    journal.note(NAME, "promoted", 1)
    journal.note(NAME, TOPIC, 1, (NOW + 20 * DAY).isoformat())
    row = look(journal, clock)
    assert (row.due, row.renewal, row.overdue_since) == (NOW + 20 * DAY, NOW + 20 * DAY, None)
    assert f"(to be renewed by {NOW + 20 * DAY:%Y-%m-%d %H:%M})" in describe([row])[1]
    clock.now += 21 * DAY
    assert look(journal, clock).overdue_since == NOW + 20 * DAY


def test_a_value_that_ends_later_changes_nothing(journal: Journal, clock: Clock) -> None:
    journal.note(NAME, "promoted", 1)
    journal.note(NAME, TOPIC, 1, (NOW + 40 * DAY).isoformat())
    row = look(journal, clock)
    assert row.due == NOW + 30 * DAY
    assert "renewed" not in describe([row])[1]


def test_the_end_of_another_generation_says_nothing(journal: Journal, clock: Clock) -> None:
    journal.note(NAME, TOPIC, 2, (NOW + DAY).isoformat())
    row = look(journal, clock)
    assert (row.due, row.renewal) == (NOW + 30 * DAY, None)


def test_a_value_that_ends_is_overdue_then_without_a_schedule_too(journal: Journal, clock: Clock) -> None:
    journal.note(NAME, TOPIC, 1, (NOW + DAY).isoformat())
    assert look(journal, clock, schedule=None).due == NOW + DAY
    clock.now += 2 * DAY
    assert look(journal, clock, schedule=None).overdue_since == NOW + DAY
