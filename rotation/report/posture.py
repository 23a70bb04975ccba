"""Where every secret stands, in one word each: the word that a person has to know first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rotation.drift.scene import under_way_until
from rotation.journal import Entry, Intent, Rotation
from rotation.manifest import Manifest, Secret
from rotation.model import StoreView
from rotation.redaction import redact
from rotation.status import SecretStatus


class State(StrEnum):
    """The worst first."""

    FOREIGN = "foreign version"  # in the store there is one that keyturn did not make
    BLOCKED = "blocked"  # its rotation needs a person
    STUCK = "stuck"  # its rotation is open for longer than its declared times allow, or its runner died
    OVERDUE = "overdue"
    DUE = "due"
    ROLLING_BACK = "rolling back"
    HELD = "held"  # due, and waits for a window
    ROTATING = "rotating"
    UNREADABLE = "unreadable"  # its store gives nothing out of it
    MISSING = "not deployed"
    EMPTY = "no value"
    UNSCHEDULED = "no schedule"
    CURRENT = "on schedule"


ALARMING = (State.UNREADABLE, State.FOREIGN, State.BLOCKED, State.STUCK, State.OVERDUE)
WAITING = (State.DUE, State.ROLLING_BACK, State.HELD, State.MISSING, State.EMPTY, State.UNSCHEDULED)


@dataclass(frozen=True, slots=True)
class Standing:
    """One secret: its status, its state and a few words on it. ``share`` is its age as a share of what its policy
    allows, None where there is no policy or no age."""

    secret: Secret
    status: SecretStatus
    state: State
    note: str

    @property
    def share(self) -> float | None:
        age, policy = self.status.age, self.status.policy
        return age / policy if age is not None and policy else None


@dataclass(frozen=True, slots=True)
class Progress:
    """An open rotation: when something was last done for it, the trail's last words if they are that it is blocked,
    and whether the runner that worked on it died."""

    opened: datetime
    last: datetime
    blocked: str | None
    dead: bool


def progress(
    rotations: Iterable[Rotation], intents: Iterable[Intent], trail: Iterable[Entry], holders: Mapping[str, bool]
) -> dict[str, Progress]:
    """How far the open rotations are. ``holders`` tells which runners live, by the secrets that they hold."""
    begun = {past.secret: past for past in rotations if past.closed is None}
    last = {secret: past.opened for secret, past in begun.items()}
    for intent in intents:
        if intent.secret in last:
            last[intent.secret] = max(last[intent.secret], intent.ended or intent.at)
    words = {entry.secret: entry for entry in trail if entry.secret in begun}
    return {
        secret: Progress(
            past.opened,
            last[secret],
            words[secret].detail if secret in words and words[secret].event == "blocked" else None,
            holders.get(secret) is False,
        )
        for secret, past in begun.items()
    }


def standings(
    rows: Iterable[SecretStatus],
    views: Mapping[str, StoreView],
    manifest: Manifest,
    under_way: Mapping[str, Progress],
    now: datetime,
) -> list[Standing]:
    """Every secret, in the order of its rows. ``views`` are the stores' answers that the rows were made from."""
    return [
        _standing(manifest.secrets[row.secret], row, views[row.secret], under_way.get(row.secret), now) for row in rows
    ]


def _standing(
    secret: Secret, row: SecretStatus, view: StoreView, under_way: Progress | None, now: datetime
) -> Standing:
    if view.trouble is not None:
        return Standing(secret, row, State.UNREADABLE, redact(str(view.trouble), (secret.name,)))
    state, note = _in_flight(secret, row, view, under_way, now) or _at_rest(row, now)
    return Standing(secret, row, state, note)


def _in_flight(
    secret: Secret, row: SecretStatus, view: StoreView, under_way: Progress | None, now: datetime
) -> tuple[State, str] | None:
    if row.phase == "foreign":
        return State.FOREIGN, "look where it comes from, then adopt it or remove it"
    if row.pending is None and under_way is None:
        return None
    if under_way is not None and under_way.blocked is not None:
        return State.BLOCKED, redact(under_way.blocked, (secret.name,))
    ends = under_way_until(secret, under_way.opened if under_way else None, view.changed_at)
    if (under_way is not None and under_way.dead) or (ends is not None and ends <= now):
        last = under_way.last if under_way is not None else view.changed_at
        return State.STUCK, f"nothing was done since {last:%Y-%m-%d %H:%M} UTC" if last else ""
    if row.phase == "rolling back":
        return State.ROLLING_BACK, ""
    return State.ROTATING, f"generation {row.pending}: {row.phase}" if row.pending else "about to begin"


def _at_rest(row: SecretStatus, now: datetime) -> tuple[State, str]:
    if row.phase in ("not deployed", "empty"):
        return (State.EMPTY if row.phase == "empty" else State.MISSING), ""
    if row.due is None:
        return State.UNSCHEDULED, ""
    if row.due > now:
        return State.CURRENT, ""
    held = f"until {row.held_until:%Y-%m-%d %H:%M} UTC" if row.held_until is not None else ""
    if row.overdue_since is not None:
        since = f"since {row.overdue_since:%Y-%m-%d %H:%M} UTC"
        return State.OVERDUE, f"{since}, held {held}" if held else since
    return (State.HELD, held) if held else (State.DUE, "may be turned now")
