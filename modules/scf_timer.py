"""The timers of Tencent Cloud's functions: seven fields (second minute hour day month week year; week 0 is Sunday).

https://www.tencentcloud.com/document/product/583/9708 tells the fields, and that a day of the month and a day of the
week are alternatives where both are given. They are in UTC+8, whatever the region: Tencent's page is silent on it, but
https://uniapp.dcloud.net.cn/uniCloud/trigger.html says so of timers on Tencent Cloud.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

_TIMERS = timedelta(hours=8)  # ahead of UTC
_HOUR = timedelta(hours=1)
_MINUTES, _HOURS, _DAYS, _MONTHS, _WEEK = range(60), range(24), range(1, 32), range(1, 13), range(7)


def every(period: timedelta) -> str:
    """A timer for each ``period`` of whole minutes that divides an hour: the same in every time zone."""
    minutes = period // timedelta(minutes=1)
    return "0 0 * * * * *" if minutes == 60 else f"0 */{minutes} * * * * *"


def at(cron: str, timezone: str) -> str:
    """The timer that fires whenever a schedule's cron does on the clocks of its time zone.

    Raises :class:`ValueError` with the reason where seven fields in UTC+8 cannot say it.
    """
    parsed = CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC))
    days, months, week = _plain(parsed.days), parsed.months, {day % 7 for day in _plain(parsed.weekdays)}
    any_date, any_weekday = days == {*_DAYS} and months == {*_MONTHS}, week == {*_WEEK}
    if parsed.day_and and days != {*_DAYS} and not any_weekday:
        raise ValueError("it asks for days that are right in the month and in the week, and a timer for either")
    moved = [hour + _hours_ahead(timezone) for hour in parsed.hours]
    into = {hour // 24 for hour in moved}  # the days that it falls on in UTC+8: 0 is the same one
    if into != {0} and not any_date:
        raise ValueError("in UTC+8, where timers are, it falls on other days of the month")
    if len(into) > 1 and not any_weekday:
        raise ValueError("in UTC+8, where timers are, only some of it falls on other days of the week")
    week = {(day + min(into)) % 7 for day in week}
    hours = {hour % 24 for hour in moved}
    chosen = (parsed.minutes, _MINUTES), (hours, _HOURS), (days, _DAYS), (months, _MONTHS), (week, _WEEK)
    return " ".join(["0", *(_field(values, whole) for values, whole in chosen), "*"])


def _plain(values: Collection[object]) -> set[int]:
    """Only numbers, without CronSim's marks for "the last" and "the second in the month"."""
    numbers = {value for value in values if isinstance(value, int) and value >= 0}
    if len(numbers) != len(values):
        raise ValueError("a timer knows no last day, and no first or second weekday, of a month")
    return numbers


def _hours_ahead(timezone: str) -> int:
    """How many hours the timers' clocks are ahead of a time zone's, all year round."""
    zone = ZoneInfo(timezone)
    year = datetime.now(UTC).year
    months = (datetime(year + later, month, 1, tzinfo=zone) for later in range(2) for month in _MONTHS)
    offsets = {moment.utcoffset() for moment in months}
    ahead = _TIMERS - (min(offset for offset in offsets if offset is not None))
    if len(offsets) > 1 or ahead % _HOUR:
        raise ValueError(f"the clocks of {timezone} are not always the same whole hours from UTC+8, where timers are")
    return ahead // _HOUR


def _field(values: Collection[int], whole: range) -> str:
    return "*" if set(values) == {*whole} else ",".join(map(str, sorted(values)))
