"""A schedule that cannot be kept is refused where it is declared, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, time, timedelta

import pytest

from modules.rotation_schedule import RotationSchedule
from rotation.errors import DeclarationError
from rotation.schedule import Schedule

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (RotationSchedule, "either an interval (every) or a cron"),
        (lambda: RotationSchedule(every=DAY, cron="0 3 * * *"), "either an interval (every) or a cron"),
        (lambda: RotationSchedule(cron="0 3 30 2 *"), "cron: the cron '0 3 30 2 *' "),
        (lambda: RotationSchedule(every=DAY, timezone="Mars/Olympus"), "there is no time zone 'Mars/Olympus'"),
        (lambda: RotationSchedule(every=DAY, jitter=2 * DAY), "jitter of 2 days"),
        (lambda: RotationSchedule(every=DAY, windows=({"opens": time(9), "closes": time(9)},)), "windows.0: a window"),
        (
            lambda: RotationSchedule(
                every=DAY, blackouts=({"starts": date(2026, 1, 1), "ends": date(2028, 1, 1), "reason": "audit"},)
            ),
            "let no window open from 2026-01-01",
        ),
        (lambda: RotationSchedule(every=DAY, early=DAY), "early of 1 day, 0:00:00 reaches the interval"),
        (lambda: RotationSchedule(every=DAY, late=-DAY), "not negative"),
        (lambda: RotationSchedule(every=DAY, since=date(2026, 1, 1), immediately=True), "since says from when it"),
        (lambda: RotationSchedule(every=DAY, since=date.max), "its first due date is beyond the calendar"),
        (lambda: RotationSchedule(every=DAY, events=("release",)), "events.0: Input should be 'deployment'"),  # type: ignore[arg-type]
    ],
)
def test_an_unsatisfiable_schedule_names_its_line_and_the_reason(make: Callable[[], object], says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        make()

    assert str(caught.value).startswith("tests/modules/test_rotation_schedule.py:")
    assert "this schedule cannot be kept: " in str(caught.value)
    assert says in str(caught.value)


def test_a_schedule_goes_to_the_manifest_as_it_was_said() -> None:
    schedule = RotationSchedule(
        cron="0 3 * * 1",
        timezone="Europe/Berlin",
        windows=({"weekdays": ("mon",), "opens": time(2), "closes": time(5)},),
        blackouts=({"starts": date(2026, 12, 20), "ends": date(2027, 1, 6), "reason": "freeze"},),
        jitter=timedelta(hours=1),
        minimum_age=DAY,
        early=2 * DAY,
        late=3 * DAY,
        since=date(2026, 11, 1),
        events={"incident", "deployment"},
    )

    declared = schedule.declared
    assert type(declared) is Schedule
    assert (declared.cron, declared.timezone, declared.minimum_age) == ("0 3 * * 1", "Europe/Berlin", DAY)
    assert (declared.windows[0].weekdays, declared.windows[0].closes) == (("mon",), time(5))
    assert declared.blackouts[0].reason == "freeze"
    assert (declared.early, declared.late, declared.since) == (2 * DAY, 3 * DAY, date(2026, 11, 1))
    assert (declared.events, declared.immediately) == (("deployment", "incident"), False)
