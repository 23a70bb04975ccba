"""The words of a rotation as frozen values. No I/O happens here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from rotation.errors import KeyturnError
from rotation.secret_value import SecretValue


class Strategy(StrEnum):
    """How the old and the new credential share time."""

    ALTERNATING = "alternating"  # two principals in turn
    OVERLAPPING = "overlapping"  # two keys of one principal
    SINGLE = "single"  # in place: between install and deploy consumers hold a dead credential


class Ring(StrEnum):
    """A consumer's instances in the order in which they get a new generation."""

    CANARY = "canary"
    STABLE = "stable"


Place = tuple[str, Ring]  # a consumer's name and one of its rings


class Acceptance(StrEnum):
    """A target's answer to a credential. UNKNOWN means that it could not be asked, and never revokes anything."""

    ACCEPTED = "accepted"
    DENIED = "denied"
    UNKNOWN = "unknown"


class Health(StrEnum):
    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"


class Act(StrEnum):
    """What the engine can do next; each is idempotent."""

    STAGE = "stage"  # put a new value in the store, marked pending
    INSTALL = "install"  # make the target accept it
    TEST = "test"  # log in with it and compare privileges
    PIN = "pin"  # write the ring's pin and render its configuration
    DEPLOY = "deploy"  # plan, guard and apply the configuration
    PROMOTE = "promote"  # move the store's own current
    REJECT = "reject"  # decide against the candidate, in the store, for every runner
    RESTORE = "restore"  # single strategy: install the current value again
    DISCARD = "discard"  # revoke the rejected candidate in the target, then drop it from the store
    RETIRE = "retire"  # revoke the previous generation in the target, then drop it from the store


class Trigger(StrEnum):
    """What makes a rotation start."""

    SCHEDULE = "schedule"
    DEPLOYMENT = "deployment"
    INCIDENT = "incident"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a rotation was started: its trigger, and words for people, perhaps none. The journal keeps its text."""

    trigger: Trigger
    words: str = ""

    def __str__(self) -> str:
        return f"{self.trigger}: {self.words}" if self.words else self.trigger.value

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a trigger, or one with ": words" after it; any other text is the words of a manual rotation."""
        line = " ".join(text.split())
        head, _, words = line.partition(":")
        try:
            return cls(Trigger(head.strip().lower()), words.strip())
        except ValueError:
            return cls(Trigger.MANUAL, line)


class Rejection(StrEnum):
    """Why a candidate was turned down."""

    TARGET = "target"  # the target denied it time and again: replaced by a new generation
    TEST = "test"  # it lacks privileges that the old one has
    VERDICT = "verdict"  # a ring's signals were bad
    PERSON = "person"  # `keyturn rollback`
    UNRECORDED = "unrecorded"  # by a run whose journal is lost


@dataclass(frozen=True, slots=True)
class Version:
    """One version in a store. ``generation`` is None when it is foreign: not made by keyturn.

    ``revision`` counts the re-wraps of one generation's sealed value: the same plaintext, another envelope.
    """

    version_id: str
    generation: int | None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class StoreView:
    """What a store says of one secret, without its values.

    ``reference`` is the store's own address of the secret (an ARN, a path). ``rejected`` tells that the pending
    version can no longer be promoted by anyone, ``promoting`` that it can no longer be rejected: a run that decided to
    promote it may have died since. ``kept`` are further generations, which are to be retired after ``previous``: where
    a foreign version is adopted, what was current before it, and the candidate that gave way to it. ``highest`` is the
    highest generation seen here, 0 for none. ``trouble`` is why the store gives nothing out of this secret, though it
    does of others: then that is all that is known, and ``exists`` is False.
    """

    name: str
    exists: bool = True
    reference: str = ""
    current: Version | None = None
    pending: Version | None = None
    previous: Version | None = None
    kept: tuple[Version, ...] = ()
    rejected: bool = False
    promoting: bool = False
    highest: int = 0
    changed_at: datetime | None = None
    trouble: KeyturnError | None = None

    @property
    def versions(self) -> tuple[Version, ...]:
        """All that is shown here, the current one first where there is one."""
        return tuple(filter(None, (self.current, self.pending, self.previous, *self.kept)))


@dataclass(frozen=True, slots=True)
class Credential:
    """The value of one generation of one secret."""

    secret: str
    generation: int
    value: SecretValue


@dataclass(frozen=True, slots=True)
class Verdict:
    """The health of one ring, and the observations that say so."""

    health: Health
    evidence: tuple[str, ...] = ()

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """Combine: one bad makes bad, else one unknown (or none at all) makes unknown, else good."""
        seen = tuple(verdicts)
        healths = {verdict.health for verdict in seen}
        evidence = tuple(line for verdict in seen for line in verdict.evidence)
        if Health.BAD in healths:
            return cls(Health.BAD, evidence)
        return cls(Health.GOOD if healths == {Health.GOOD} else Health.UNKNOWN, evidence)


@dataclass(frozen=True, slots=True)
class Usage:
    """A target's own statistics on one principal.

    ``sessions`` are open now, None where the target could not say. ``marker`` is an opaque counter that changes with
    every use; two equal markers mean no use in between. None where the target keeps no such counter.
    """

    sessions: int | None
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A principal that a target lets in, and that no generation in the store explains. ``retired`` tells that keyturn
    itself had locked it out, by the target's own record; ``sessions`` are open now."""

    principal: str
    retired: bool
    sessions: int

    @property
    def removable(self) -> bool:
        """Whether it may be locked out again without asking anybody."""
        return self.retired and self.sessions == 0


@dataclass(frozen=True, slots=True)
class RingView:
    """One ring of one consumer of a secret, as observed.

    ``pinned`` is the generation that the pins file names, ``deployed`` the one that was applied, ``running`` the one
    that the instances report. None is "none" for the first two and "could not tell" for the third. ``since`` is when
    ``running`` was first seen to equal the pin, ``behind_since`` when it was first seen not to, though deployed.
    ``reported`` is false where no signal tells what runs, and what is deployed is taken to run.
    """

    consumer: str
    ring: Ring
    pinned: int | None = None
    deployed: int | None = None
    running: int | None = None
    since: datetime | None = None
    behind_since: datetime | None = None
    verdict: Verdict = Verdict(Health.UNKNOWN)
    reported: bool = True

    def __str__(self) -> str:
        return f"{self.consumer} ({self.ring})"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a configuration template gets to know of one secret: where to read it, never what it is.

    ``name`` is the store's own name, ``arn`` the store's full address of it (a path where there are no ARNs).
    """

    name: str
    arn: str
    version_id: str
    generation: int


class Ending(StrEnum):
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Observation:
    """One secret as it is found. ``candidate`` and ``current`` are the target's answers to those generations.

    ``goal`` is the generation that an open rotation is to reach. ``highest`` is the highest generation that the
    journal knows. ``installs`` and ``tested`` (None: not yet) are of the pending generation; ``replaced`` counts the
    candidates of this rotation that the target denied; ``rejection`` is why the last candidate was turned down.
    ``unknown_since`` is since when the target could not be asked. ``outside`` tells that somebody else deploys.
    ``settled_at`` is when no promotion that was sent before can arrive any more, ``candidate_settled_at`` when none of
    the pending generation can; None where the store compares, or none was begun.
    """

    store: StoreView
    rings: tuple[RingView, ...] = ()
    candidate: Acceptance = Acceptance.UNKNOWN
    current: Acceptance = Acceptance.UNKNOWN
    goal: int | None = None
    carries: bool = False
    retire: bool = False
    outside: bool = False
    highest: int = 0
    installs: int = 0
    tested: bool | None = None
    lacks: tuple[str, ...] = ()
    replaced: int = 0
    rejection: Rejection | None = None
    unknown_since: datetime | None = None
    promoted_at: datetime | None = None
    last_used: datetime | None = None
    usage: Usage | None = None
    settled_at: datetime | None = None
    candidate_settled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """Do this now. ``generation`` None, for a pin, takes the pin away."""

    act: Act
    generation: int | None
    why: str
    ring: Ring | None = None
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now. ``until`` is when to look again at the latest, None where only a look will tell.
    ``outside`` tells that somebody else has to act, ``surely`` that nothing can change before ``until``, ``observing``
    that the canary is being watched."""

    reason: str
    until: datetime | None = None
    outside: bool = False
    surely: bool = False
    observing: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    ending: Ending
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Only a person can go on."""

    reason: str
    remedy: str


Decision = Step | Wait | Done | Blocked
