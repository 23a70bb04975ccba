"""Where every secret stands: from the stores (in batches), the pins and the journal. Targets are not asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from rotation.engine import candidate_of
from rotation.journal import Journal, Note
from rotation.manifest import Manifest, Secret
from rotation.model import Ring, StoreView, Version
from rotation.output import table
from rotation.pins import Pins
from rotation.renewal import TOPIC, renew_at
from rotation.schedule import Count, Origin

_COUNTED = {Origin.SINCE: "counted since", Origin.FIRST_SIGHT: "counted from first sight"}
UNREADABLE = "unreadable"  # the phase of a secret of which its store tells nothing
SCHEDULED = "scheduled"  # the topic of the note that tells when a secret was first seen with a schedule


@dataclass(frozen=True, slots=True)
class SecretStatus:
    """One secret. ``age`` is the current generation's, from the journal, else from the store's last change (then the
    value may be older than that). ``renewal`` is when a value that ends by itself is due at the latest, as far as the
    journal knows; ``due`` is None without that and without a schedule; ``policy`` is the longest age that it allows.
    ``held_until`` is when the next window opens for what is due, ``overdue_since`` when its grace ended, ``early_from``
    when it may be taken along before it is due, and ``counted`` from when the due date is counted."""

    secret: str
    phase: str
    current: int | None
    pending: int | None
    previous: int | None
    age: timedelta | None
    policy: timedelta | None
    due: datetime | None
    held_until: datetime | None
    pins: dict[str, int]
    counted: Count | None = None
    early_from: datetime | None = None
    overdue_since: datetime | None = None
    renewal: datetime | None = None


def statuses(
    views: Mapping[str, StoreView], manifest: Manifest, journal: Journal, pins: Pins, now: datetime
) -> list[SecretStatus]:
    """The status of the secrets that the stores were asked about, in order; ``views`` are the answers by name."""
    promoted, renewals, scheduled = journal.noted("promoted"), journal.noted(TOPIC), note_schedules(manifest, journal)
    return [
        _status(
            manifest.secrets[name],
            view,
            manifest,
            pins,
            now,
            _Notes(promoted.get(name), scheduled.get(name), renewals.get(name)),
        )
        for name, view in sorted(views.items())
    ]


@dataclass(frozen=True, slots=True)
class _Notes:
    """The journal's notes on one secret, None where there is none."""

    promoted: Note | None
    scheduled: Note | None
    renewal: Note | None


def note_schedules(manifest: Manifest, journal: Journal) -> dict[str, Note]:
    """When each secret was first seen with a schedule: now, for the new ones. Those that have none any more are
    forgotten."""
    return journal.note_exactly(SCHEDULED, [name for name, secret in manifest.secrets.items() if secret.schedule])


def _status(
    secret: Secret,
    view: StoreView,
    manifest: Manifest,
    pins: Pins,
    now: datetime,
    notes: _Notes,
) -> SecretStatus:
    since, renewal = current_since(view, notes.promoted), renew_at(view, notes.renewal)
    times = _times(secret, since, now, notes.scheduled, renewal) if since else _Times()
    return SecretStatus(
        secret=secret.name,
        phase=_phase(secret, view, manifest, pins),
        current=_number(view.current),
        pending=candidate_of(view),
        previous=_number(view.previous),
        age=now - since if since else None,
        policy=secret.schedule.every if secret.schedule else None,
        due=times.due,
        held_until=times.held_until,
        pins={
            f"{consumer.name}/{ring}": pinned
            for consumer in manifest.consumers_of(secret.name)
            for ring in sorted(consumer.rings)
            if (pinned := pins.of(consumer.name, ring, secret.name)) is not None
        },
        counted=times.counted,
        early_from=times.early_from,
        overdue_since=times.overdue_since,
        renewal=renewal,
    )


@dataclass(frozen=True, slots=True)
class _Times:
    due: datetime | None = None
    counted: Count | None = None
    early_from: datetime | None = None
    held_until: datetime | None = None
    overdue_since: datetime | None = None


def _times(secret: Secret, since: datetime, now: datetime, scheduled: Note | None, renewal: datetime | None) -> _Times:
    schedule, first_seen = secret.schedule, scheduled.at if scheduled else None
    if schedule is None:
        return _Times(due=renewal, overdue_since=renewal if renewal and renewal <= now else None)
    due = schedule.due_at(since, secret.name, first_seen)
    due = min(due, renewal) if renewal else due
    opens, overdue = (schedule.opens_at(now), schedule.overdue_at(due)) if due <= now else (now, due)
    return _Times(
        due=due,
        counted=schedule.counts_from(since, first_seen),
        early_from=schedule.early_from(since, due) if schedule.early else None,
        held_until=opens if opens > now else None,
        overdue_since=overdue if overdue <= now else None,
    )


def current_since(view: StoreView, promoted: Note | None) -> datetime | None:
    """Since when the current generation has been current, as far as is known; None without a value. ``promoted`` is
    the journal's note on that topic."""
    if view.current is None:
        return None
    known = promoted is not None and promoted.generation == view.current.generation
    return promoted.at if promoted is not None and known else view.changed_at


def _phase(secret: Secret, view: StoreView, manifest: Manifest, pins: Pins) -> str:
    candidate = candidate_of(view)
    if view.trouble is not None:
        return UNREADABLE
    if not view.exists:
        return "not deployed"
    if any(version is not None and version.generation is None for version in (view.current, view.pending)):
        return "foreign"
    if candidate is None:
        return "empty" if view.current is None else "grace" if view.previous is not None else "idle"
    if view.rejected:
        return "rolling back"
    reached = {
        ring
        for consumer in manifest.consumers_of(secret.name)
        for ring in consumer.rings
        if pins.of(consumer.name, ring, secret.name) == candidate
    }
    return "deploy" if Ring.STABLE in reached else "canary" if Ring.CANARY in reached else "staged"


def _number(version: Version | None) -> int | None:
    return version.generation if version is not None else None


def describe(rows: Iterable[SecretStatus]) -> list[str]:
    """A table for people: one line per secret."""
    header = ("secret", "phase", "current", "pending", "previous", "age", "policy", "due", "pins")
    return table(header, [_cells(row) for row in rows])


def _cells(row: SecretStatus) -> tuple[str, ...]:
    generations = (str(generation or "-") for generation in (row.current, row.pending, row.previous))
    pins = ", ".join(f"{place}={pinned}" for place, pinned in row.pins.items())
    return (row.secret, row.phase, *generations, _span(row.age), _span(row.policy), _due(row), pins or "-")


def _due(row: SecretStatus) -> str:
    if row.due is None:
        return "-"
    notes = [f"{words} {at:%Y-%m-%d %H:%M}" for words, at in _remarks(row) if at is not None]
    return f"{row.due:%Y-%m-%d %H:%M}" + (f" ({', '.join(notes)})" if notes else "")


def _remarks(row: SecretStatus) -> Iterable[tuple[str, datetime | None]]:
    yield "overdue since", row.overdue_since
    yield "held until", row.held_until
    yield "to be renewed by", row.renewal if row.renewal == row.due else None
    if row.counted is not None and row.counted.origin is not Origin.LAST_ROTATION:
        yield _COUNTED[row.counted.origin], row.counted.at


def _span(span: timedelta | None) -> str:
    if span is None:
        return "-"
    days, seconds = span.days, span.seconds
    if days:
        return f"{days}d{seconds // 3600:02}h"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}m" if seconds >= 3600 else f"{seconds // 60}m{seconds % 60:02}s"
