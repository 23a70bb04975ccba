"""Which secrets are to be turned now, and which wait though they are due; each with the reason in words. Pure.

- What is due and may be turned now is taken. After a deployment or an incident that is what has it among its events
  and has reached its minimum age.
- What shares a consumer with one of these is taken along when it is early enough for that, and may be turned now: so
  the consumer restarts once, and not again some days later.
- What waits for a window or for the end of a blackout is held, and says until when.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from rotation.manifest import Manifest
from rotation.model import Reason, Trigger
from rotation.schedule import Occasion, Schedule
from rotation.status import SecretStatus


@dataclass(frozen=True, slots=True)
class Selection:
    """What to turn now and what is held, each by its name with the reason."""

    taken: dict[str, str]
    held: dict[str, str]

    def lines(self) -> Iterator[str]:
        """The selection for people: one line per secret."""
        for name, why in sorted({**self.taken, **self.held}.items()):
            yield f"{name}: {why}"


def reason_of(options: argparse.Namespace) -> Reason:
    """The reason that a command line gives; without one the schedule is it for what is due, and a person for the
    rest."""
    if options.reason is not None:
        return Reason.parse(options.reason)
    return Reason(Trigger.SCHEDULE if options.due else Trigger.MANUAL)


def select(
    rows: Iterable[SecretStatus], manifest: Manifest, now: datetime, trigger: Trigger = Trigger.SCHEDULE
) -> Selection:
    """Select among the secrets whose status is known."""
    taken: dict[str, str] = {}
    held: dict[str, str] = {}
    early: list[str] = []
    for row in rows:
        schedule = manifest.secrets[row.secret].schedule
        if schedule is None or row.age is None:
            continue
        why = _why(row, schedule, now, trigger)
        if why is None:
            if _is_early(row, now) and schedule.opens_at(now) <= now:
                early.append(row.secret)
        elif (opens := schedule.opens_at(now)) > now:
            held[row.secret] = f"{why}, held until {_at(opens)}"
        else:
            taken[row.secret] = why
    return Selection({**_along(early, taken, manifest), **taken}, held)


def _why(row: SecretStatus, schedule: Schedule, now: datetime, trigger: Trigger) -> str | None:
    """Why it is to be turned; None if it is not."""
    if trigger in get_args(Occasion):
        old_enough = row.age is not None and row.age >= schedule.minimum_age
        return f"due after each {trigger}" if trigger in schedule.events and old_enough else None
    return f"due since {_at(row.due)}" if row.due is not None and row.due <= now else None


def _is_early(row: SecretStatus, now: datetime) -> bool:
    return row.current is not None and row.early_from is not None and row.early_from <= now


def _along(early: Iterable[str], taken: Iterable[str], manifest: Manifest) -> dict[str, str]:
    """Of those that are early enough the ones that share a consumer with one that is taken for itself."""
    candidates, leaders = set(early), set(taken)
    along: dict[str, str] = {}
    for _, consumer in sorted(manifest.consumers.items()):
        leader = next((name for name in sorted(consumer.secrets) if name in leaders), None)
        if leader is not None:
            for name in candidates.intersection(consumer.secrets):
                along.setdefault(name, f"taken along: shares {consumer.name} with {leader}")
    return along


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
