"""A schedule's cron as a timer of SCF: the same moments, or a refusal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from modules.scf_timer import at, every
from rotation.schedule import Schedule

TIMERS = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 2, 25, 12, 7, tzinfo=UTC)  # a month's end is near


@pytest.mark.parametrize(
    ("minutes", "timer"), [(60, "0 0 * * * * *"), (30, "0 */30 * * * * *"), (5, "0 */5 * * * * *")]
)
def test_a_period_is_a_timer_in_any_time_zone(minutes: int, timer: str) -> None:
    assert every(timedelta(minutes=minutes)) == timer


@pytest.mark.parametrize(
    ("cron", "zone", "timer"),
    [
        ("0 3 * * 1", "Asia/Shanghai", "0 0 3 * * 1 *"),
        ("*/15 9-11 * * 7", "Asia/Shanghai", "0 0,15,30,45 9,10,11 * * 0 *"),
        ("0 3 1 JAN MON", "Asia/Shanghai", "0 0 3 1 1 1 *"),
        ("0 3 * * 1", "UTC", "0 0 11 * * 1 *"),
        ("30 20 * * 5-6", "UTC", "0 30 4 * * 0,6 *"),
        ("30 0 * * 0", "Asia/Tokyo", "0 30 23 * * 6 *"),
        ("0 3,20 * * *", "UTC", "0 0 4,11 * * * *"),
        ("0 3 15 * *", "UTC", "0 0 11 15 * * *"),
    ],
)
def test_a_cron_moves_to_the_timers_clocks(cron: str, zone: str, timer: str) -> None:
    assert at(cron, zone) == timer


@pytest.mark.parametrize(
    ("cron", "zone", "reason"),
    [
        ("0 20 1 * *", "UTC", "other days of the month"),
        ("0 20 * 3 *", "UTC", "other days of the month"),
        ("0 3,20 * * 1", "UTC", "only some of it"),
        ("0 3 */2 * 1", "Asia/Shanghai", "a timer for either"),
        ("0 3 L * *", "Asia/Shanghai", "no last day"),
        ("0 3 * * 1#2", "Asia/Shanghai", "no first or second weekday"),
        ("0 3 * * *", "Europe/Berlin", "Europe/Berlin are not always the same"),
        ("0 3 * * *", "Asia/Kolkata", "whole hours"),
    ],
)
def test_what_seven_fields_cannot_say_is_refused(cron: str, zone: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        at(cron, zone)


_MINUTES = st.sampled_from(["0", "30", "*/20", "7,41"])
_HOURS = st.sampled_from(["*", "0", "3", "15", "23", "0,23", "9-17", "*/6"])
_DAYS = st.sampled_from(["*", "1", "28-31", "*/2", "15", "L"])
_MONTHS = st.sampled_from(["*", "2", "1,7"])
_WEEKDAYS = st.sampled_from(["*", "0", "7", "1-5", "6,0", "MON", "5#1"])
_ZONES = st.sampled_from(["UTC", "Asia/Shanghai", "Asia/Tokyo", "America/Phoenix", "Pacific/Kiritimati"])


@given(_MINUTES, _HOURS, _DAYS, _MONTHS, _WEEKDAYS, _ZONES)
def test_a_timer_fires_at_just_the_moments_of_the_schedule(
    minute: str, hour: str, day: str, month: str, weekday: str, zone: str
) -> None:
    cron = f"{minute} {hour} {day} {month} {weekday}"
    try:
        timer = at(cron, zone)
    except ValueError:
        return
    declared = Schedule(cron=cron, timezone=zone)
    fields = timer.removesuffix(" *")
    fires = [moment.astimezone(UTC) for moment in islice(CronSim(fields, NOW.astimezone(TIMERS)), 40)]
    due, moments = NOW, []
    for _ in fires:
        due = declared.due_at(due, "orders/db")
        moments.append(due)
    assert moments == fires
