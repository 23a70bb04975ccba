"""The one word for where a secret stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotation.errors import StoreError
from rotation.model import Act, StoreView, Version
from rotation.pins import Pins
from rotation.report.posture import Standing, State
from rotation.schedule import Schedule, Window
from rotation.status import SCHEDULED
from tests.fixtures.estate import DAY, NOW, Estate, Past, manifest, secret

NAME = "orders/db"
WEEKLY = Schedule(every=7 * DAY)
MONDAYS = Schedule(every=7 * DAY, windows=(Window(weekdays=("mon",)),))
OURS = StoreView("production/orders/db", current=Version("v4", 4), highest=4, changed_at=NOW - 3 * DAY)
PENDING = replace(OURS, pending=Version("v5", 5), highest=5, changed_at=NOW - timedelta(minutes=5))


def standing(made: Estate, view: StoreView = OURS, schedule: Schedule | None = WEEKLY) -> Standing:
    """Where one secret stands whose schedule has counted for long."""
    made.clock.now, now = NOW - 700 * DAY, made.clock.now
    made.journal.note_exactly(SCHEDULED, [NAME])
    made.clock.now = now
    declared = manifest([secret(NAME, schedule)])
    (one,) = replace(made, manifest=declared, views={NAME: view}, pins=Pins()).report().standings
    return one


def begun(made: Estate, at: datetime) -> Past:
    made.clock.now = at
    past = Past(made.journal, made.clock, NAME, 5)
    past.begin()
    made.clock.now = NOW
    return past


@pytest.mark.parametrize(
    ("view", "schedule", "state", "note"),
    [
        (OURS, WEEKLY, State.CURRENT, ""),
        (OURS, None, State.UNSCHEDULED, ""),
        (StoreView("s", exists=False), WEEKLY, State.MISSING, ""),
        (StoreView("s", exists=False, trouble=StoreError("disabled")), WEEKLY, State.UNREADABLE, "disabled"),
        (StoreView("s"), WEEKLY, State.EMPTY, ""),
        (replace(OURS, pending=Version("x", None)), WEEKLY, State.FOREIGN, "look where it comes from"),
        (replace(OURS, current=Version("x", None)), WEEKLY, State.FOREIGN, "look where it comes from"),
        (replace(OURS, changed_at=NOW - 8 * DAY), WEEKLY, State.OVERDUE, "since 2026-11-21 10:30 UTC"),
        (
            replace(OURS, changed_at=NOW - 8 * DAY),
            WEEKLY.model_copy(update={"late": 2 * DAY}),
            State.DUE,
            "may be turned now",
        ),
        (replace(OURS, changed_at=NOW - 8 * DAY), MONDAYS, State.HELD, "until 2026-11-23 00:00 UTC"),
        (
            replace(OURS, changed_at=NOW - 21 * DAY),
            MONDAYS,
            State.OVERDUE,
            "since 2026-11-09 00:00 UTC, held until 2026-11-23 00:00 UTC",
        ),
        (PENDING, WEEKLY, State.ROTATING, "generation 5: staged"),
        (replace(PENDING, rejected=True), WEEKLY, State.ROLLING_BACK, ""),
        (
            replace(PENDING, changed_at=NOW - 2 * DAY),
            WEEKLY,
            State.STUCK,
            "nothing was done since 2026-11-20 10:30 UTC",
        ),
    ],
    ids=[
        "on schedule",
        "no schedule",
        "no slot",
        "its store gives nothing out",
        "no value",
        "foreign pending",
        "foreign current",
        "overdue",
        "due, within its grace",
        "waits for a window",
        "overdue, and waits for a window",
        "pending",
        "rejected",
        "pending for days, and nobody knows why",
    ],
)
def test_a_state_is_what_a_person_has_to_know_first(
    empty: Estate, view: StoreView, schedule: Schedule | None, state: State, note: str
) -> None:
    one = standing(empty, view, schedule)
    assert one.state is state
    assert one.note.startswith(note)


def test_a_rotation_on_record_may_wait_a_day_longer_for_its_next_run(empty: Estate) -> None:
    begun(empty, NOW - timedelta(hours=28))
    assert standing(empty, PENDING).state is State.ROTATING


def test_a_rotation_that_takes_longer_than_declared_is_stuck_since_it_was_last_worked_on(empty: Estate) -> None:
    begun(empty, NOW - timedelta(hours=30))
    one = standing(empty, PENDING)
    assert (one.state, one.note) == (State.STUCK, "nothing was done since 2026-11-21 04:30 UTC")


def test_a_rotation_is_blocked_as_long_as_that_is_the_last_word_on_it(empty: Estate) -> None:
    past = begun(empty, NOW - timedelta(minutes=10))
    empty.journal.audit(NAME, 5, "blocked", "the target cannot be asked; password=hunter2")
    one = standing(empty, PENDING)
    assert (one.state, one.note) == (State.BLOCKED, "the target cannot be asked; password=••••")
    past.do(Act.TEST, seconds=1)
    assert standing(empty, PENDING).state is State.ROTATING


def test_a_rotation_that_is_open_and_has_staged_nothing_yet_is_about_to_begin(empty: Estate) -> None:
    empty.journal.open_rotation(NAME, 5, "schedule")
    one = standing(empty)
    assert (one.state, one.note) == (State.ROTATING, "about to begin")


def test_the_share_of_the_policy_is_the_age_over_the_interval(empty: Estate) -> None:
    assert standing(empty).share == pytest.approx(3 / 7)
    assert standing(empty, schedule=Schedule(cron="0 3 * * *")).share is None
    assert standing(empty, StoreView("s")).share is None
