"""The coming weeks: which secrets are due on which day, and which days are blacked out. Days are UTC."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from rotation.report.posture import Standing
from rotation.schedule import Schedule

WEEKS = 12
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Day:
    """``secrets`` may be turned on it when they are due: what is due by then and held before counts as well.
    ``blackouts`` are the reasons of those that some schedule has then."""

    date: date
    today: bool
    past: bool
    secrets: tuple[str, ...]
    blackouts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calendar:
    """Whole weeks from Monday on; the first one is the week of ``now``."""

    weeks: tuple[tuple[Day, ...], ...]

    @property
    def per_week(self) -> tuple[tuple[date, int], ...]:
        """Each week's Monday, and how many turns are due in it."""
        return tuple((week[0].date, sum(len(day.secrets) for day in week)) for week in self.weeks)


def calendar(standings: Iterable[Standing], now: datetime) -> Calendar:
    """When each secret is due, and due again if it is turned on time: once a day at the most."""
    first = now.date() - now.weekday() * _DAY
    ends = datetime.combine(first + 7 * WEEKS * _DAY, time(0), UTC)
    scheduled = [standing for standing in standings if standing.secret.schedule is not None]
    schedules = {standing.secret.schedule for standing in scheduled if standing.secret.schedule is not None}
    openings = {schedule: _Openings(schedule, now, ends) for schedule in schedules}
    turns: dict[date, list[str]] = {}
    for standing in scheduled:
        for when in _turns(standing, openings, now, ends):
            turns.setdefault(when.date(), []).append(standing.secret.name)
    days = [first + number * _DAY for number in range(7 * WEEKS)]
    blackouts = _blackouts(schedules, days)
    made = [
        Day(
            date=day,
            today=day == now.date(),
            past=day < now.date(),
            secrets=tuple(sorted(turns.get(day, ()))),
            blackouts=tuple(sorted(blackouts.get(day, ()))),
        )
        for day in days
    ]
    return Calendar(tuple(tuple(made[number : number + 7]) for number in range(0, len(made), 7)))


class _Openings:
    """When a schedule lets secrets be turned, worked out once for all that share it."""

    def __init__(self, schedule: Schedule, starts: datetime, ends: datetime) -> None:
        self._opens: list[datetime] = []
        self._closes: list[datetime] = []
        moment = starts
        while moment < ends:
            opens = schedule.opens_at(moment)
            moment = schedule.closes_at(opens) or ends
            self._opens.append(opens)
            self._closes.append(moment)

    def at(self, moment: datetime) -> datetime | None:
        """The first open moment from then on; None when it is beyond the calendar."""
        number = bisect_right(self._closes, moment)
        return max(moment, self._opens[number]) if number < len(self._opens) else None


def _turns(
    standing: Standing, openings: dict[Schedule, _Openings], now: datetime, ends: datetime
) -> Iterator[datetime]:
    schedule, due = standing.secret.schedule, standing.status.due
    while schedule is not None and due is not None and due < ends:
        turn = openings[schedule].at(max(due, now))
        if turn is None or turn >= ends:
            return
        yield turn
        end_of_day = datetime.combine(turn.date() + _DAY, time(0), UTC)
        due = max(schedule.due_at(turn, standing.secret.name), end_of_day)


def _blackouts(schedules: Iterable[Schedule], days: Iterable[date]) -> dict[date, set[str]]:
    """The reasons of the blackouts that take at least half of a day, or that lie in it for the most part: one that
    begins with a local day begins a few hours before or after that day in UTC."""
    spans = {
        (blackout.reason, blackout.span(ZoneInfo(schedule.timezone)))
        for schedule in schedules
        for blackout in schedule.blackouts
    }
    found: dict[date, set[str]] = {}
    for day in days:
        begins = datetime.combine(day, time(0), UTC)
        for reason, (starts, ends) in spans:
            if 2 * (min(ends, begins + _DAY) - max(starts, begins)) >= min(ends - starts, _DAY):
                found.setdefault(day, set()).add(reason)
    return found
