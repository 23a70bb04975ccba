"""Decisions by tables: each case is a sentence, what is observed, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rotation.decide import MOST_CANDIDATES, MOST_INSTALLS, decide
from rotation.manifest import Plugin, Secret
from rotation.model import (
    Acceptance,
    Blocked,
    Decision,
    Done,
    Health,
    Observation,
    Rejection,
    Ring,
    RingView,
    Step,
    StoreView,
    Strategy,
    Usage,
    Verdict,
    Version,
    Wait,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACCEPTED, DENIED, UNKNOWN = Acceptance.ACCEPTED, Acceptance.DENIED, Acceptance.UNKNOWN
GOOD, BAD, SILENT = Verdict(Health.GOOD), Verdict(Health.BAD, ("12 errors",)), Verdict(Health.UNKNOWN, ("no lines",))

SPEC = Secret(
    name="orders/db",
    stored_as="orders/db",
    store=Plugin(kind="world"),
    credential=Plugin(kind="world"),
    strategy=Strategy.ALTERNATING,
    bake=timedelta(seconds=20),
    settle=timedelta(seconds=10),
    patience=timedelta(seconds=30),
    grace=timedelta(seconds=60),
)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def version(generation: int) -> Version:
    return Version(f"v{generation}", generation)


FOREIGN = Version("made-by-hand", None)


def store(current: int | None = 1, pending: int | None = None, previous: int | None = None, **more: Any) -> StoreView:
    versions = {"current": current, "pending": pending, "previous": previous}
    highest = max((generation for generation in versions.values() if generation), default=0)
    held = {label: version(generation) for label, generation in versions.items() if generation is not None}
    return StoreView("orders/db", **{"highest": highest, **held, **more})


def ring(
    which: Ring, pinned: int | None, deployed: int | None = None, running: int | None = None, **more: Any
) -> RingView:
    return RingView("orders-api", which, pinned, deployed, running, **more)


def on(which: Ring, generation: int | None, verdict: Verdict = SILENT, since: float = 1000) -> RingView:
    """A ring that is pinned to, deployed with and running one generation, for so many seconds."""
    return ring(which, generation, generation, generation, verdict=verdict, since=ago(since))


CANARY_1, STABLE_1 = on(Ring.CANARY, 1), on(Ring.STABLE, 1)
CANARY_2, STABLE_2 = on(Ring.CANARY, 2, GOOD), on(Ring.STABLE, 2, GOOD)
EVERYWHERE_1, EVERYWHERE_2 = (CANARY_1, STABLE_1), (CANARY_2, STABLE_2)
SINGLE: dict[str, Any] = {"strategy": Strategy.SINGLE}
ENDING_SESSIONS: dict[str, Any] = {"end_sessions": True}
IN_USE = Usage(sessions=1)


def candidate(*rings: RingView, **more: Any) -> Observation:
    """Generation 2 is pending, accepted, installed and tested, and asked for."""
    seen = Observation(
        store(1, 2), rings, candidate=ACCEPTED, current=ACCEPTED, goal=2, highest=2, installs=1, tested=True
    )
    return replace(seen, **more)


def rejected(*rings: RingView, **more: Any) -> Observation:
    return candidate(*rings, **{"store": store(1, 2, rejected=True), **more})


def promoted(*rings: RingView, **more: Any) -> Observation:
    """Generation 2 is current, and generation 1 has been out of use for long; it is to be retired."""
    seen = Observation(
        store(2, None, 1),
        rings,
        current=ACCEPTED,
        retire=True,
        promoted_at=ago(1000),
        usage=Usage(sessions=0),
    )
    return replace(seen, **more)


@dataclass(frozen=True)
class Case:
    sentence: str
    seen: Observation
    decision: str
    spec: dict[str, Any] | None = None

    def __str__(self) -> str:
        return self.sentence


def told(decision: Decision) -> str:
    """A decision in short: what the tables below compare."""
    match decision:
        case Step(act, generation, _, which, rejection):
            return " ".join(str(word) for word in (act, which, generation, rejection) if word is not None)
        case Wait(_, until, outside, surely, observing):
            flags = {"outside": outside, "surely": surely, "observing": observing}
            said = [name for name, flag in flags.items() if flag]
            return " ".join(["wait", *said, *([f"{(until - NOW).total_seconds():g}s"] if until else [])])
        case Done(ending, generation, _):
            return f"done: {ending} {generation}"
        case Blocked():
            return "blocked"


ASKED = Observation(store(1), EVERYWHERE_1, current=ACCEPTED, goal=2)

BEGINNING = (
    Case("without a slot a person is waited for", Observation(store(None, exists=False)), "blocked"),
    Case("a foreign current version is not touched", Observation(replace(store(None), current=FOREIGN)), "blocked"),
    Case(
        "a foreign pending version is not touched", replace(ASKED, store=replace(store(1), pending=FOREIGN)), "blocked"
    ),
    Case("with nothing asked for, nothing is done", replace(ASKED, goal=None), "done: unchanged 1"),
    Case("with no value and nothing asked for, nothing is done", Observation(store(None)), "done: unchanged 0"),
    Case("what is asked for is staged", ASKED, "stage 2"),
    Case("a first value is staged as generation 1", Observation(store(None), goal=1), "stage 1"),
    Case("a generation that the journal knows is not used again", replace(ASKED, highest=7), "stage 8"),
    Case("a generation that the store knows is not used again", replace(ASKED, store=store(1, highest=9)), "stage 10"),
    Case("while the target cannot be asked nothing is staged", replace(ASKED, current=UNKNOWN), "wait 30s"),
    Case(
        "a target that cannot be asked for too long blocks",
        replace(ASKED, current=UNKNOWN, unknown_since=ago(30)),
        "blocked",
    ),
    Case("a current generation that is denied can be replaced", replace(ASKED, current=DENIED), "stage 2"),
    Case("after three candidates that the target denied it ends", replace(ASKED, replaced=MOST_CANDIDATES), "blocked"),
    Case(
        "the generation before the current one is retired before another is staged",
        promoted(*EVERYWHERE_2, goal=3, retire=False),
        "retire 1",
    ),
    Case(
        "nothing is staged over a generation that is still kept",
        promoted(*EVERYWHERE_2, goal=3, retire=False, promoted_at=ago(10)),
        "wait surely 50s",
    ),
    Case(
        "a rollback after promotion stages at once: it needs the generation that is kept",
        promoted(*EVERYWHERE_2, goal=3, retire=False, carries=True, promoted_at=ago(10)),
        "stage 3",
    ),
)

PROVING = (
    Case("what the target denies is installed", candidate(*EVERYWHERE_1, candidate=DENIED, installs=0), "install 2"),
    Case("and installed again", candidate(*EVERYWHERE_1, candidate=DENIED, installs=MOST_INSTALLS - 1), "install 2"),
    Case(
        "a value that the target accepts already is installed as the new generation",
        candidate(*EVERYWHERE_1, installs=0),
        "install 2",
    ),
    Case(
        "what the target goes on denying is rejected",
        candidate(*EVERYWHERE_1, candidate=DENIED, installs=MOST_INSTALLS),
        "reject 2 target",
    ),
    Case(
        "but not while nobody knows whether it denies the current one too",
        candidate(*EVERYWHERE_1, candidate=DENIED, current=UNKNOWN, installs=MOST_INSTALLS),
        "wait 30s",
    ),
    Case(
        "a target that denies both is for a person",
        candidate(*EVERYWHERE_1, candidate=DENIED, current=DENIED, installs=MOST_INSTALLS),
        "blocked",
    ),
    Case(
        "a first value that the target goes on denying is rejected",
        candidate(store=store(None, 2), candidate=DENIED, current=UNKNOWN, installs=MOST_INSTALLS),
        "reject 2 target",
    ),
    Case(
        "in place, the current generation is denied while the candidate is tried",
        candidate(*EVERYWHERE_1, candidate=DENIED, current=DENIED, installs=MOST_INSTALLS),
        "reject 2 target",
        SINGLE,
    ),
    Case("a candidate that cannot be asked about is waited for", candidate(candidate=UNKNOWN), "wait 30s"),
    Case("and blocks in the end", candidate(candidate=UNKNOWN, unknown_since=ago(31)), "blocked"),
    Case("what is accepted is tested", candidate(*EVERYWHERE_1, tested=None), "test 2"),
    Case(
        "what lacks a privilege is rejected",
        candidate(*EVERYWHERE_1, tested=False, lacks=("SELECT on orders",)),
        "reject 2 test",
    ),
)

ROLLING_OUT = (
    Case("what is proved is pinned for the canary", candidate(*EVERYWHERE_1), "pin canary 2"),
    Case("then deployed there", candidate(ring(Ring.CANARY, 2, 1, 1), STABLE_1), "deploy canary 2"),
    Case(
        "or waited for, where somebody else deploys",
        candidate(ring(Ring.CANARY, 2, 1, 1), STABLE_1, outside=True),
        "wait outside",
    ),
    Case(
        "until the canary runs it",
        candidate(ring(Ring.CANARY, 2, 2, 1, behind_since=ago(10)), STABLE_1),
        "wait 20s",
    ),
    Case(
        "or does not take it up in time",
        candidate(ring(Ring.CANARY, 2, 2, 1, behind_since=ago(30)), STABLE_1),
        "blocked",
    ),
    Case(
        "or does not say what it runs",
        candidate(ring(Ring.CANARY, 2, 2, None, behind_since=ago(30)), STABLE_1),
        "blocked",
    ),
    Case(
        "or says itself that it cannot take it up",
        candidate(replace(ring(Ring.CANARY, 2, 2, 1, behind_since=ago(1)), verdict=BAD), STABLE_1),
        "reject canary 2 verdict",
    ),
    Case(
        "the canary is watched for the bake time",
        candidate(on(Ring.CANARY, 2, GOOD, since=5), STABLE_1),
        "wait observing 15s",
    ),
    Case(
        "a bad canary is rejected at once",
        candidate(on(Ring.CANARY, 2, BAD, since=0), STABLE_1),
        "reject canary 2 verdict",
    ),
    Case(
        "a canary that cannot even take it up, and says so, is rejected at once",
        candidate(ring(Ring.CANARY, 2, 2, 1, behind_since=ago(1), verdict=BAD), STABLE_1),
        "reject canary 2 verdict",
    ),
    Case(
        "a canary that says nothing is waited for",
        candidate(on(Ring.CANARY, 2, SILENT, since=20), STABLE_1),
        "wait observing 30s",
    ),
    Case(
        "and never counts as good",
        candidate(on(Ring.CANARY, 2, SILENT, since=50), STABLE_1),
        "blocked",
    ),
    Case("after a good canary comes the stable ring", candidate(CANARY_2, STABLE_1), "pin stable 2"),
    Case(
        "which is watched too",
        candidate(CANARY_2, on(Ring.STABLE, 2, GOOD, since=4)),
        "wait 6s",
    ),
    Case(
        "and can be bad",
        candidate(CANARY_2, on(Ring.STABLE, 2, BAD, since=4)),
        "reject stable 2 verdict",
    ),
    Case(
        "a canary that turns bad later is still believed",
        candidate(on(Ring.CANARY, 2, BAD), STABLE_2),
        "reject canary 2 verdict",
    ),
    Case("what is good everywhere is promoted", candidate(*EVERYWHERE_2), "promote 2"),
    Case("without consumers the test is enough", candidate(), "promote 2"),
    Case("a consumer with a stable ring only has no canary", candidate(STABLE_1), "pin stable 2"),
    Case(
        "every consumer's canary goes before any stable ring",
        candidate(CANARY_2, STABLE_1, replace(CANARY_1, consumer="reports"), replace(STABLE_1, consumer="reports")),
        "pin canary 2",
    ),
    Case(
        "one bad consumer is enough",
        candidate(CANARY_2, STABLE_1, replace(on(Ring.CANARY, 2, BAD), consumer="reports")),
        "reject canary 2 verdict",
    ),
    Case(
        "the last consumer's bake time counts",
        candidate(CANARY_2, STABLE_1, replace(on(Ring.CANARY, 2, GOOD, since=1), consumer="reports")),
        "wait observing 19s",
    ),
    Case("in place, it is promoted after the test", candidate(*EVERYWHERE_1), "promote 2", SINGLE),
    Case(
        "in place, the consumers follow",
        Observation(store(2), EVERYWHERE_1, current=ACCEPTED, goal=2),
        "pin canary 2",
        SINGLE,
    ),
)

DECIDED = (
    Case(
        "what a dead run decided to promote is promoted, even if a ring is bad by now",
        candidate(on(Ring.CANARY, 2, BAD), STABLE_2, store=store(1, 2, promoting=True)),
        "promote 2",
    ),
    Case(
        "and even if this run did not test it",
        candidate(*EVERYWHERE_2, store=store(1, 2, promoting=True), tested=None),
        "promote 2",
    ),
    Case(
        "but not while the target denies it",
        candidate(*EVERYWHERE_2, store=store(1, 2, promoting=True), candidate=DENIED, installs=0),
        "install 2",
    ),
    Case(
        "and if it goes on denying it, a person is needed",
        candidate(*EVERYWHERE_2, store=store(1, 2, promoting=True), candidate=DENIED, installs=MOST_INSTALLS),
        "blocked",
    ),
)

UNDOING = (
    Case("the stable ring keeps its pin while the canary's returns", rejected(CANARY_2, STABLE_1), "pin canary 1"),
    Case("both return, canary first", rejected(CANARY_2, STABLE_2), "pin canary 1"),
    Case("the stable ring's after it", rejected(CANARY_1, STABLE_2), "pin stable 1"),
    Case("then the deployment", rejected(ring(Ring.CANARY, 1, 2, 2), STABLE_1), "deploy canary 1"),
    Case(
        "or somebody else's deployment is waited for",
        rejected(ring(Ring.CANARY, 1, 2, 2), STABLE_1, outside=True),
        "wait outside",
    ),
    Case("then the application", rejected(ring(Ring.CANARY, 1, 1, 2, behind_since=ago(5)), STABLE_1), "wait 25s"),
    Case(
        "while an application still uses it, it is never revoked",
        rejected(ring(Ring.CANARY, 1, 1, 2, behind_since=ago(999)), STABLE_1),
        "blocked",
    ),
    Case(
        "nor while nobody knows what the application uses",
        rejected(ring(Ring.CANARY, 1, 1, None, behind_since=ago(5)), STABLE_1),
        "wait 25s",
    ),
    Case(
        "an application that does not say what it uses gets the settling time to leave it",
        rejected(replace(on(Ring.CANARY, 1, since=4), reported=False), STABLE_1),
        "wait surely 6s",
    ),
    Case("and no longer", rejected(replace(on(Ring.CANARY, 1, since=10), reported=False), STABLE_1), "discard 2"),
    Case("what nobody uses is discarded", rejected(*EVERYWHERE_1), "discard 2"),
    Case("but not while the target cannot be asked", rejected(*EVERYWHERE_1, current=UNKNOWN), "wait 30s"),
    Case("and never when it denies the current one", rejected(*EVERYWHERE_1, current=DENIED), "blocked"),
    Case("in place, the current one is installed again", rejected(*EVERYWHERE_1, current=DENIED), "restore 1", SINGLE),
    Case("in place, it is discarded after that", rejected(*EVERYWHERE_1), "discard 2", SINGLE),
    Case(
        "a first value's pins are taken away",
        rejected(CANARY_2, store=store(None, 2, rejected=True)),
        "pin canary",
    ),
    Case(
        "a first value that nobody uses is discarded",
        rejected(on(Ring.CANARY, None), store=store(None, 2, rejected=True), current=UNKNOWN),
        "discard 2",
    ),
    Case(
        "one that carries the previous value waits as long as that is kept: both are one credential",
        rejected(*EVERYWHERE_2, store=store(2, 3, 1, rejected=True), carries=True, promoted_at=ago(10)),
        "wait surely 50s",
    ),
    Case(
        "and is discarded after that",
        rejected(*EVERYWHERE_2, store=store(2, 3, 1, rejected=True), carries=True, promoted_at=ago(60)),
        "discard 3",
    ),
    Case(
        "what is older than the current one is left over from a dead run",
        Observation(store(3, 2), (on(Ring.CANARY, 3), on(Ring.STABLE, 3)), current=ACCEPTED),
        "discard 2",
    ),
    Case(
        "a leftover that a ring still uses is taken from it first",
        Observation(store(3, 2), (CANARY_2, on(Ring.STABLE, 3)), current=ACCEPTED),
        "pin canary 3",
    ),
    Case(
        "a pending mark on the current one is taken away",
        Observation(replace(store(2, 2), pending=Version("v2", 2), current=Version("v2-r1", 2, 1)), EVERYWHERE_2),
        "promote 2",
    ),
)

ENDING = (
    Case(
        "what is current and used everywhere is promoted",
        promoted(*EVERYWHERE_2, goal=2, retire=False),
        "done: promoted 2",
    ),
    Case("a ring that was left behind follows", promoted(CANARY_2, STABLE_1, goal=2, retire=False), "pin stable 2"),
    Case(
        "a new consumer gets the current one", replace(ASKED, rings=(on(Ring.CANARY, None), STABLE_1)), "pin canary 1"
    ),
    *(
        Case(f"rejected by {why}, it is rolled back", replace(ASKED, rejection=why), "done: rolled back 1")
        for why in Rejection
        if why is not Rejection.TARGET
    ),
    Case("rejected by the target, it is replaced", replace(ASKED, rejection=Rejection.TARGET, highest=2), "stage 3"),
    Case(
        "a rejection of an older rotation does not end this one",
        promoted(*EVERYWHERE_2, goal=2, retire=False, rejection=Rejection.VERDICT),
        "done: promoted 2",
    ),
)

RETIRING = (
    Case("what is out of use is retired", promoted(*EVERYWHERE_2), "retire 1"),
    Case("without consumers too", promoted(), "retire 1"),
    Case("in its grace window it is kept", promoted(*EVERYWHERE_2, promoted_at=ago(59)), "wait surely 1s"),
    Case("the grace window begins with the last use", promoted(*EVERYWHERE_2, last_used=ago(40)), "wait surely 20s"),
    Case("with no known promotion it begins now", promoted(*EVERYWHERE_2, promoted_at=None), "wait surely 60s"),
    Case(
        "what could arrive late, where the store compares nothing, keeps it",
        promoted(*EVERYWHERE_2, settled_at=ago(-840)),
        "wait surely 840s",
    ),
    Case("until it cannot any more", promoted(*EVERYWHERE_2, settled_at=NOW), "retire 1"),
    Case("with a session it is kept", promoted(*EVERYWHERE_2, usage=Usage(sessions=1)), "wait"),
    Case("where sessions are unknown it is kept", promoted(*EVERYWHERE_2, usage=Usage(sessions=None)), "wait"),
    Case("a target without statistics does not stop it", promoted(*EVERYWHERE_2, usage=None), "retire 1"),
    Case("while the current one is denied it is kept", promoted(*EVERYWHERE_2, current=DENIED), "wait"),
    Case("while the current one is unknown it is kept", promoted(*EVERYWHERE_2, current=UNKNOWN), "wait"),
    Case(
        "while a ring does not run the current one it is kept",
        promoted(CANARY_2, ring(Ring.STABLE, 2, 2, 1, behind_since=ago(1))),
        "wait 29s",
    ),
    Case("sessions that are to end do not keep it", promoted(*EVERYWHERE_2, usage=IN_USE), "retire 1", ENDING_SESSIONS),
    Case(
        "nor does a target that cannot count them",
        promoted(*EVERYWHERE_2, usage=Usage(sessions=None)),
        "retire 1",
        ENDING_SESSIONS,
    ),
    Case(
        "where sessions are to end the grace window begins with the promotion",
        promoted(*EVERYWHERE_2, usage=IN_USE, last_used=NOW, promoted_at=ago(59)),
        "wait surely 1s",
        ENDING_SESSIONS,
    ),
    Case(
        "without a grace window they end at once",
        promoted(*EVERYWHERE_2, usage=IN_USE, last_used=NOW, promoted_at=NOW),
        "retire 1",
        {**ENDING_SESSIONS, "grace": timedelta(0)},
    ),
    Case(
        "no session is ended while a ring does not run the current one",
        promoted(CANARY_2, ring(Ring.STABLE, 2, 2, 1, behind_since=ago(1)), usage=IN_USE),
        "wait 29s",
        ENDING_SESSIONS,
    ),
    Case(
        "nor while the current one is denied",
        promoted(*EVERYWHERE_2, usage=IN_USE, current=DENIED),
        "wait",
        ENDING_SESSIONS,
    ),
    Case("with none there is nothing to retire", promoted(*EVERYWHERE_2, store=store(2)), "done: unchanged 2"),
    Case(
        "a candidate in flight goes first",
        promoted(*EVERYWHERE_2, store=store(2, 3, 1), candidate=DENIED, goal=3),
        "install 3",
    ),
)

CASES = (*BEGINNING, *PROVING, *ROLLING_OUT, *DECIDED, *UNDOING, *ENDING, *RETIRING)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_decision(case: Case) -> None:
    decision = decide(SPEC.model_copy(update=case.spec or {}), case.seen, NOW)
    assert told(decision) == case.decision, decision


def test_a_person_is_told_what_to_do() -> None:
    for case in CASES:
        decision = decide(SPEC.model_copy(update=case.spec or {}), case.seen, NOW)
        if isinstance(decision, Blocked):
            assert decision.remedy.endswith("."), case
            assert "orders/db" in decision.reason or "orders-api" in decision.reason or "ring" in decision.reason, case
