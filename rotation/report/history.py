"""What became of rotations, and where their time went: from the journal's rotations, intents and audit trail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby, pairwise
from typing import TypeVar

from rotation.journal import Entry, Intent, Rotation
from rotation.model import Act, Ending, Ring
from rotation.redaction import redact

Item = TypeVar("Item")

OPEN = "in progress"


class Phase(StrEnum):
    """What a rotation spends its time on, in the order of a rotation that goes well."""

    STAGE = "stage"
    INSTALL = "install"
    TEST = "test"
    CANARY = "canary"
    OBSERVE = "observe"
    DEPLOY = "deploy"
    SETTLE = "settle"
    PROMOTE = "promote"
    RETIRE = "retire"  # of an older generation that was in the way
    UNDO = "undo"


_PHASE_OF = {
    Act.STAGE: Phase.STAGE,
    Act.INSTALL: Phase.INSTALL,
    Act.TEST: Phase.TEST,
    Act.PROMOTE: Phase.PROMOTE,
    Act.RETIRE: Phase.RETIRE,
    Act.REJECT: Phase.UNDO,
    Act.RESTORE: Phase.UNDO,
    Act.DISCARD: Phase.UNDO,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a rotation's timeline, from the audit trail. ``detail`` is redacted."""

    at: datetime
    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One rotation. ``closed`` is None while it is open, ``phases`` are the spans that add up to ``took``: a phase
    lasts until the next one begins. ``why`` is how it ended, in the words of the trail."""

    secret: str
    goal: int
    carries: int | None
    reason: str
    opened: datetime
    closed: datetime | None
    outcome: str
    took: timedelta
    phases: tuple[tuple[Phase, timedelta], ...]
    timeline: tuple[Line, ...]

    @property
    def why(self) -> str:
        ending = [line.detail for line in self.timeline if line.event == self.outcome]
        return ending[-1] if ending else ""

    @property
    def evidence(self) -> tuple[str, ...]:
        """What spoke against the candidate: the words with which it was rejected."""
        return tuple(line.detail for line in self.timeline if line.event.split()[0] == Act.REJECT)

    @property
    def rolled_back(self) -> bool:
        return self.outcome == Ending.ROLLED_BACK


def turns(
    rotations: Iterable[Rotation],
    intents: Iterable[Intent],
    trail: Iterable[Entry],
    now: datetime,
    names: Collection[str] = (),
) -> list[Turn]:
    """The history of these rotations, in their order. ``names`` are not taken for credentials when it is redacted."""
    acts = _by_secret(intents, lambda intent: intent.secret)
    lines = _by_secret(trail, lambda entry: entry.secret)
    return [_turn(past, acts.get(past.secret, []), lines.get(past.secret, []), now, names) for past in rotations]


def _turn(
    past: Rotation, intents: Iterable[Intent], entries: Iterable[Entry], now: datetime, names: Collection[str]
) -> Turn:
    ends = past.closed or now
    timeline = (
        Line(at, entry.event, redact(entry.detail, names))
        for entry in entries
        if past.opened <= (at := datetime.fromisoformat(entry.at)) <= ends
    )
    return Turn(
        secret=past.secret,
        goal=past.goal,
        carries=past.carries,
        reason=redact(past.reason, names),
        opened=past.opened,
        closed=past.closed,
        outcome=past.outcome or OPEN,
        took=ends - past.opened,
        phases=_phases([intent for intent in intents if past.opened <= intent.at <= ends], past.opened, ends),
        timeline=tuple(timeline),
    )


def _phases(intents: Iterable[Intent], opened: datetime, ends: datetime) -> tuple[tuple[Phase, timedelta], ...]:
    begun = list(_beginnings(intents))
    if not begun:
        return ()
    # What went by before the first act counts as a part of it, so that the phases add up to the whole.
    begun[0] = (opened, begun[0][1])
    spent: dict[Phase, timedelta] = {}
    for (at, phase), (until, _) in pairwise([*begun, (ends, Phase.PROMOTE)]):
        spent[phase] = spent.get(phase, timedelta(0)) + max(until - at, timedelta(0))
    return tuple(spent.items())


def _beginnings(intents: Iterable[Intent]) -> Iterator[tuple[datetime, Phase]]:
    """When each phase began. Deployments are watched from their end on; after a rejection all is undoing, until a new
    candidate is staged."""
    undoing = False
    for intent in intents:
        undoing = (undoing or intent.act is Act.REJECT) and intent.act is not Act.STAGE
        canary = intent.ring is Ring.CANARY
        phase = _PHASE_OF.get(intent.act, Phase.CANARY if canary else Phase.DEPLOY)
        yield intent.at, Phase.UNDO if undoing else phase
        if intent.act is Act.DEPLOY and intent.ended is not None and not undoing:
            yield intent.ended, Phase.OBSERVE if canary else Phase.SETTLE


def _by_secret(items: Iterable[Item], secret: Callable[[Item], str]) -> dict[str, list[Item]]:
    return {name: list(group) for name, group in groupby(sorted(items, key=secret), secret)}
