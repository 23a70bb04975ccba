"""RotationSchedule: when a secret is to be turned. It goes to the manifest; keyturn keeps it, not the vendor.

What asks when it is time is a pipeline's cron, or the rule and the function of modules/rotation_trigger.py, which is
called as often as the schedules need. The vendor's own rotation resource is only declared where a trigger asks for it:
it knows nothing of windows, and turns at once when it is applied (``rotate_immediately`` is true by default).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime, time, timedelta
from typing import TypedDict

from pydantic import ValidationError

from modules.reason import reason
from modules.where import here
from rotation.errors import DeclarationError
from rotation.schedule import Occasion, Schedule, Weekday


class Window(TypedDict, total=False):
    """Local time on some weekdays, past midnight where ``closes`` is not after ``opens``; what is omitted: all."""

    weekdays: tuple[Weekday, ...]
    opens: time
    closes: time


class Blackout(TypedDict):
    """No rotation starts from ``starts`` until ``ends``; where they are dates, the last day is in it."""

    starts: datetime | date
    ends: datetime | date
    reason: str


class RotationSchedule:
    """``every`` so often, or at each firing of ``cron``; later by a share of ``jitter``; in windows, outside blackouts.

    Raises :class:`DeclarationError` with the declaring line and the reason for a schedule that cannot be kept. The
    meaning of each argument is in rotation/schedule.py; ``declared`` goes to the manifest.
    """

    def __init__(  # noqa: PLR0913  # the words of a schedule, each by its name
        self,
        *,
        every: timedelta | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        windows: tuple[Window, ...] = (),
        blackouts: tuple[Blackout, ...] = (),
        jitter: timedelta = timedelta(0),
        minimum_age: timedelta = timedelta(0),
        early: timedelta = timedelta(0),
        late: timedelta = timedelta(0),
        since: datetime | date | None = None,
        immediately: bool = False,
        events: Collection[Occasion] = (),
    ) -> None:
        said = {
            "every": every,
            "cron": cron,
            "timezone": timezone,
            "windows": windows,
            "blackouts": blackouts,
            "jitter": jitter,
            "minimum_age": minimum_age,
            "early": early,
            "late": late,
            "since": since,
            "immediately": immediately,
            "events": events,
        }
        try:
            self.declared = Schedule.model_validate(said)
        except ValidationError as error:
            raise DeclarationError(f"{here()}: this schedule cannot be kept: {reason(error)}") from error
