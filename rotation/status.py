"""Where every secret stands: from the stores (in batches), the pins and the journal. Targets are not asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rotation.engine import candidate_of
from rotation.journal import Journal
from rotation.manifest import Manifest, Secret
from rotation.model import Ring, StoreView, Version
from rotation.output import table
from rotation.pins import Pins


@dataclass(frozen=True, slots=True)
class SecretStatus:
    """One secret. ``age`` is the current generation's, from the journal, else from the store's last change (then the
    value may be older than that). ``due`` is None without a schedule; ``policy`` is the longest age it allows.
    ``held_until`` is when the next window opens for what is due."""

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


def statuses(
    views: Mapping[str, StoreView], manifest: Manifest, journal: Journal, pins: Pins, now: datetime
) -> list[SecretStatus]:
    """The status of the secrets that the stores were asked about, in order; ``views`` are the answers by name."""
    return [_status(manifest.secrets[name], view, manifest, journal, pins, now) for name, view in sorted(views.items())]


def _status(
    secret: Secret, view: StoreView, manifest: Manifest, journal: Journal, pins: Pins, now: datetime
) -> SecretStatus:
    since = current_since(secret, view, journal)
    due = secret.schedule.due_at(since, secret.name) if secret.schedule and since else None
    opens = secret.schedule.opens_at(now) if secret.schedule and due and due <= now else None
    return SecretStatus(
        secret=secret.name,
        phase=_phase(secret, view, manifest, pins),
        current=_number(view.current),
        pending=candidate_of(view),
        previous=_number(view.previous),
        age=now - since if since else None,
        policy=secret.schedule.every if secret.schedule else None,
        due=due,
        held_until=opens if opens and opens > now else None,
        pins={
            f"{consumer.name}/{ring}": pinned
            for consumer in manifest.consumers_of(secret.name)
            for ring in sorted(consumer.rings)
            if (pinned := pins.of(consumer.name, ring, secret.name)) is not None
        },
    )


def current_since(secret: Secret, view: StoreView, journal: Journal) -> datetime | None:
    """Since when the current generation has been current, as far as is known; None without a value."""
    current = _number(view.current)
    if view.current is None:
        return None
    note = journal.notes(secret.name).get("promoted")
    return note.at if note is not None and note.generation == current else view.changed_at


def _phase(secret: Secret, view: StoreView, manifest: Manifest, pins: Pins) -> str:
    candidate = candidate_of(view)
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


def due_now(rows: Iterable[SecretStatus]) -> list[str]:
    """What is due, holds a value, and may be turned now."""
    now = datetime.now(UTC)
    return [row.secret for row in rows if row.due and row.due <= now and row.held_until is None]


def describe(rows: Iterable[SecretStatus]) -> list[str]:
    """A table for people: one line per secret."""
    header = ("secret", "phase", "current", "pending", "previous", "age", "policy", "due", "pins")
    return table(header, [_cells(row) for row in rows])


def _cells(row: SecretStatus) -> tuple[str, ...]:
    due = f"{row.due:%Y-%m-%d %H:%M}" if row.due else "-"
    if row.held_until is not None:
        due += f" (held until {row.held_until:%Y-%m-%d %H:%M})"
    generations = (str(generation or "-") for generation in (row.current, row.pending, row.previous))
    pins = ", ".join(f"{place}={pinned}" for place, pinned in row.pins.items())
    return (row.secret, row.phase, *generations, _span(row.age), _span(row.policy), due, pins or "-")


def _span(span: timedelta | None) -> str:
    if span is None:
        return "-"
    days, seconds = span.days, span.seconds
    if days:
        return f"{days}d{seconds // 3600:02}h"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}m" if seconds >= 3600 else f"{seconds // 60}m{seconds % 60:02}s"
