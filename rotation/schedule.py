"""When a secret is due, and when it may be turned. Pure: it looks at no clock of its own.

- It counts from the last rotation, but from no time before it was enabled: from ``since``, where that is declared,
  else from when the journal first saw the secret with a schedule. So enabling a schedule rotates nothing at once;
  ``immediately`` asks for just that, and counts from the last rotation whenever that was.
- ``every`` is elapsed time; ``cron`` is five fields, read in ``timezone`` as Debian's cron reads them: a job in the
  hour that is skipped in spring runs right after it, one in the hour that repeats in autumn runs once.
- ``minimum_age`` comes first: a secret that is younger (it was just turned by hand, say) lets firings pass.
- ``early`` is the grace before the due date: so long before, it may be taken along by a secret that is due and shares
  a consumer with it. ``late`` is the grace after: it is overdue that long after it could first have been turned.
- After one of its ``events`` it is due whatever the date; ``minimum_age`` and windows hold.
- ``jitter`` spreads secrets that share a schedule: each is later by a fixed share of it, derived from its name.
- What is due waits for the next window and for the end of a blackout, so a cron that only fires outside the windows is
  fine: it is late by the wait. With no windows declared, any time will do.
- A window is local time. It opens at its first moment that exists on that day and closes at its first closing time: in
  spring it can be shorter, or not occur at all; in autumn one that spans the repeated hour is longer.

Refused, with the reason in one sentence: no or two ways to be due, a cron that never fires, an unknown time zone, a
window that opens when it closes, a blackout that ends before it starts, an interval below ``minimum_age``, ``jitter``
or ``early`` that reach the interval (for a cron: the shortest gap among its next 100 firings from 2024 on, a leap
year), a ``deployment`` event without ``minimum_age``, ``since`` together with ``immediately``, a first due date that no
calendar has, and blackouts that let no window open for :data:`HORIZON`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import islice, pairwise
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator, model_validator

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
Occasion = Literal["deployment", "incident"]  # the triggers that can make a secret due by themselves

# The longest time that blackouts may keep a secret from being turned at all.
HORIZON = timedelta(days=366)
_DAY = timedelta(days=1)


def _date(when: object) -> object:
    """Take "2026-12-24" as the day that it is: pydantic alone would read its first moment."""
    try:
        return date.fromisoformat(when) if isinstance(when, str) else when
    except ValueError:
        return when


_When = Annotated[datetime | date, BeforeValidator(_date)]


class Origin(StrEnum):
    """What a due date is counted from."""

    LAST_ROTATION = "last rotation"
    SINCE = "since"
    FIRST_SIGHT = "first sight"


@dataclass(frozen=True, slots=True)
class Count:
    """From when a due date is counted (UTC), and what that moment is."""

    at: datetime
    origin: Origin


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(_Declared):
    """Local time on some weekdays; past midnight where ``closes`` is not after ``opens``. Both omitted: all day.

    A window that crosses midnight belongs to the weekday on which it opens.
    """

    weekdays: tuple[Weekday, ...] = WEEKDAYS
    opens: time = time(0)
    closes: time | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.weekdays:
            raise ValueError("a window without weekdays never opens")
        if self.opens == self.closes:
            raise ValueError(f"a window from {self.opens} to {self.closes} is empty")
        if self.opens.tzinfo or (self.closes and self.closes.tzinfo):
            raise ValueError("a window's times are local to the schedule's timezone and carry no offset")
        return self

    def on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime] | None:
        """The instants at which it opens and closes if it opens on that day."""
        if WEEKDAYS[day.weekday()] not in self.weekdays:
            return None
        closes = self.closes or time(0)
        next_day = closes <= self.opens
        opening = _instant(datetime.combine(day, self.opens), zone)
        closing = _instant(datetime.combine(day + _DAY if next_day else day, closes), zone)
        return (opening, closing) if opening < closing else None


class Blackout(_Declared):
    """No rotation starts from ``starts`` until ``ends``: dates, with the last day in it, or times, without the last
    moment. Times without an offset are local to the schedule's timezone."""

    starts: _When
    ends: _When
    reason: str

    def span(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        return _moment(self.starts, zone), _moment(self.ends, zone, end=True)


class Schedule(_Declared):
    """An interval or a cron expression, and when it may act. Times go in and out as aware datetimes; out in UTC."""

    every: timedelta | None = None
    cron: str | None = None
    timezone: str = "UTC"
    windows: tuple[Window, ...] = ()
    blackouts: tuple[Blackout, ...] = ()
    jitter: timedelta = timedelta(0)
    minimum_age: timedelta = timedelta(0)
    early: timedelta = timedelta(0)
    late: timedelta = timedelta(0)
    since: _When | None = None
    immediately: bool = False
    events: tuple[Occasion, ...] = ()

    def counts_from(self, last_rotated: datetime, first_seen: datetime | None = None) -> Count:
        """From when the due date of a secret is counted that was last rotated then. ``first_seen`` is when it was
        first seen with a schedule, None where nobody knows: then the last rotation alone counts."""
        last = Count(_utc(last_rotated), Origin.LAST_ROTATION)
        if self.immediately:
            return last
        if self.since is not None:
            enabled = Count(_moment(self.since, self._zone), Origin.SINCE)
        elif first_seen is not None:
            enabled = Count(_utc(first_seen), Origin.FIRST_SIGHT)
        else:
            return last
        return max(last, enabled, key=lambda count: count.at)

    def due_at(self, last_rotated: datetime, secret_name: str, first_seen: datetime | None = None) -> datetime:
        """When a secret is due again; the moments are those of :meth:`counts_from`. Windows and blackouts are
        :meth:`opens_at`'s."""
        last, counted = _utc(last_rotated), self.counts_from(last_rotated, first_seen).at
        if self.every is not None:
            due = counted + self.every
        else:
            # A firing at the very end of the minimum age counts; one at the rotation itself does not.
            due = next(self._firings(max(counted, last + self.minimum_age - timedelta(microseconds=1))))
        return due + self._delay(secret_name)

    def early_from(self, last_rotated: datetime, due: datetime) -> datetime:
        """From when on a secret may be taken along that is due then: never before its minimum age."""
        return max(_utc(due) - self.early, _utc(last_rotated) + self.minimum_age)

    def overdue_at(self, due: datetime) -> datetime:
        """When a secret that is due then is overdue: the wait for a window is not its fault."""
        return self.opens_at(due) + self.late

    def opens_at(self, at: datetime) -> datetime:
        """The first moment from then on that is in a window and in no blackout."""
        moment = _utc(at)
        while True:
            moment = self._window_opens(moment)
            over = max((ends for starts, ends in self._blackouts if starts <= moment < ends), default=None)
            if over is None:
                return moment
            moment = over

    def closes_at(self, at: datetime) -> datetime | None:
        """When the opening that :meth:`opens_at` finds ends; None if it never does."""
        opened = self.opens_at(at)
        closed = self._windows_close(opened) if self.windows else None
        ahead = (starts for starts, ends in self._blackouts if starts > opened and starts < ends)
        return min((closed, *ahead) if closed else tuple(ahead), default=None)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @cached_property
    def _blackouts(self) -> tuple[tuple[datetime, datetime], ...]:
        return tuple(blackout.span(self._zone) for blackout in self.blackouts)

    def _firings(self, after: datetime) -> Iterator[datetime]:
        """The cron's firings strictly after a moment, in UTC."""
        assert self.cron is not None  # noqa: S101  # the model's validator saw to it
        # CronSim works on wall-clock time: start it early enough to cover a repeated hour, and drop what is past.
        for firing in CronSim(self.cron, (after - timedelta(hours=3)).astimezone(self._zone)):
            if (moment := firing.astimezone(UTC)) > after:
                yield moment

    def _delay(self, secret_name: str) -> timedelta:
        """This secret's share of the jitter: at least nothing, and less than all of it."""
        number = int.from_bytes(hashlib.sha256(secret_name.encode()).digest()[:4], "big")
        return self.jitter * (number / 2**32)

    def _open_windows(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        """What is open then or opens in the two weeks after: a weekly window may miss one week, when clocks change."""
        today = at.astimezone(self._zone).date()
        for day in (today + days * _DAY for days in range(-2, 16)):
            for window in self.windows:
                span = window.on(day, self._zone)
                if span and span[1] > at:
                    yield span

    def _window_opens(self, at: datetime) -> datetime:
        if not self.windows:
            return at
        return min(max(opening, at) for opening, _ in self._open_windows(at))

    def _windows_close(self, at: datetime) -> datetime | None:
        """The end of the windows that are open then and of those that follow without a gap; None if it is over two
        weeks away, which for windows that recur every week is never."""
        end = at
        for opening, closing in sorted(self._open_windows(at)):
            if opening <= end:
                end = max(end, closing)
        return None if end > at + 14 * _DAY else end

    @field_validator("timezone")
    @classmethod
    def _known(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"there is no time zone {timezone!r} (use a name like Europe/Berlin)") from error
        return timezone

    @field_validator("events")
    @classmethod
    def _in_order(cls, events: tuple[Occasion, ...]) -> tuple[Occasion, ...]:
        """Each once, in an order that does not depend on how a set was walked through: the manifest is compared."""
        return tuple(sorted(set(events)))

    @field_validator("cron")
    @classmethod
    def _fires(cls, cron: str | None) -> str | None:
        if cron is None:
            return None
        if len(cron.split()) != 5:
            raise ValueError(f"the cron {cron!r} does not have five fields (minute hour day month weekday)")
        try:
            next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
        except StopIteration as error:
            raise ValueError(f"the cron {cron!r} never fires") from error
        except (CronSimError, AssertionError, TypeError) as error:  # CronSim asserts and compares on some odd fields
            raise ValueError(f"the cron {cron!r} cannot be read or never fires: {error or 'odd field'}") from error
        return cron

    @model_validator(mode="after")
    def _satisfiable(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("a schedule has either an interval (every) or a cron, and not both")
        if min(self.jitter, self.minimum_age, self.early, self.late) < timedelta(0):
            raise ValueError("jitter, minimum_age, early and late are not negative")
        if self.since is not None and self.immediately:
            raise ValueError("since says from when it counts, and immediately that it counts from the last rotation")
        interval = self._shortest_interval()
        if interval <= timedelta(0):
            raise ValueError("the interval (every) is more than nothing")
        if self.jitter >= interval:
            raise ValueError(f"jitter of {self.jitter} reaches the interval of {interval}, so turns could be missed")
        if self.every is not None and self.every < self.minimum_age:
            raise ValueError(f"the interval of {self.every} is below the minimum age of {self.minimum_age}")
        if "deployment" in self.events and not self.minimum_age:
            raise ValueError("a rotation deploys: due after each deployment it would never rest without a minimum_age")
        if self.early >= interval:
            raise ValueError(f"early of {self.early} reaches the interval of {interval}, so it could always be taken")
        self._blackouts_leave_room()
        self._comes_due()
        return self

    def _shortest_interval(self) -> timedelta:
        if self.every is not None:
            return self.every
        firings = list(islice(self._firings(datetime(2024, 1, 1, tzinfo=UTC)), 100))
        return min((later - earlier for earlier, later in pairwise(firings)), default=HORIZON)

    def _comes_due(self) -> None:
        start = datetime(2024, 1, 1, tzinfo=UTC)
        try:
            self.overdue_at(self.due_at(start, "") + self.jitter)
        except (OverflowError, StopIteration, ValueError) as error:
            counted = f"counted from {self.since}" if self.since else "whatever it is counted from"
            raise ValueError(f"{counted}, its first due date is beyond the calendar") from error

    def _blackouts_leave_room(self) -> None:
        for blackout, (starts, ends) in zip(self.blackouts, self._blackouts, strict=True):
            if starts >= ends:
                raise ValueError(f"the blackout for {blackout.reason!r} ends before it starts")
            if (opening := self.opens_at(starts)) - starts > HORIZON:
                raise ValueError(
                    f"blackouts let no window open from {starts:%Y-%m-%d} until {opening:%Y-%m-%d}, over a year"
                )


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return moment.astimezone(UTC)


def _moment(when: datetime | date, zone: ZoneInfo, *, end: bool = False) -> datetime:
    """A blackout's edge as an instant; the ``end`` of a date is the next day's start."""
    if not isinstance(when, datetime):
        return _instant(datetime.combine(when + _DAY if end else when, time(0)), zone)
    return _utc(when) if when.tzinfo else _instant(when, zone)


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """The first instant at which the zone's clocks show this time; the end of the gap where they skip it (PEP 495)."""
    instant = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == local:
        return instant
    before, after = local.replace(tzinfo=zone, fold=1).astimezone(UTC), instant
    new_offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == new_offset:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)
