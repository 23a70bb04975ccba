"""The cron expression of a timer: second minute hour day month week year, week 0 = Sunday.

https://www.tencentcloud.com/document/product/583/9708. Day and week are both asked for where neither is ``*``: then
one of them is enough.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

# Not known: the documentation names no time zone for timers; Beijing's is what the console shows.
ZONE = ZoneInfo("Asia/Shanghai")
_YEARS = range(1970, 2100)


class Timer:
    """A timer's times. Raises :class:`ValueError` for what is no cron expression of seven fields."""

    def __init__(self, expression: str) -> None:
        *fields, year = expression.split()
        if len(fields) != 6:
            raise ValueError(f"a timer has 7 fields, this one {len(fields) + 1}")
        self._expression = " ".join(fields)
        self._years = _years(year)
        try:
            CronSim(self._expression, datetime.now(ZONE))
        except CronSimError as error:
            raise ValueError(str(error)) from error

    def last(self, after: float, until: float) -> float | None:
        """Its last time after one moment and not after the other (seconds since 1970); None where there is none."""
        times = CronSim(self._expression, datetime.fromtimestamp(until, ZONE).replace(microsecond=0), reverse=True)
        at = datetime.fromtimestamp(until, ZONE).replace(microsecond=0)
        candidates = [at] if self._is_time(at) else []
        candidates += [next(times)]
        found = [time.timestamp() for time in candidates if time.year in self._years]
        return next((time for time in found if after < time <= until), None)

    def _is_time(self, at: datetime) -> bool:
        return next(CronSim(self._expression, datetime.fromtimestamp(at.timestamp() - 1, ZONE))) == at


def _years(field: str) -> frozenset[int]:
    if field == "*":
        return frozenset(_YEARS)
    years: set[int] = set()
    for part in field.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ValueError("Bad year")
        years.update(range(int(first), int(last or first) + 1))
    if not years <= set(_YEARS):
        raise ValueError("Bad year")
    return frozenset(years)
