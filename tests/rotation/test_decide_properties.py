"""What holds for every decision on any observation, however unlikely: the rules written again, as properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from rotation.decide import MOST_INSTALLS, decide
from rotation.manifest import Secret
from rotation.model import (
    Acceptance,
    Act,
    Blocked,
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
from tests.rotation.test_decide import NOW, SPEC

generations = st.integers(1, 4)
versions = st.builds(lambda generation: Version(f"v{generation}", generation), generations)
foreign = st.just(Version("made-by-hand", None))
labelled = st.none() | versions
moments = st.none() | st.integers(0, 100).map(lambda seconds: NOW - timedelta(seconds=seconds))


@st.composite
def stores(draw: st.DrawFn) -> StoreView:
    current, pending, previous = draw(labelled), draw(labelled), draw(labelled)
    decision = draw(st.sampled_from(("open", "rejected", "promoting")))
    if draw(st.integers(0, 19)) == 0:
        current = draw(foreign)
    if draw(st.integers(0, 19)) == 0:
        pending = draw(foreign)
    return StoreView(
        "orders/db",
        exists=draw(st.integers(0, 19)) > 0,
        current=current,
        pending=pending,
        previous=previous,
        rejected=pending is not None and decision == "rejected",
        promoting=pending is not None and decision == "promoting",
        highest=draw(st.integers(0, 6)),
    )


@st.composite
def rings(draw: st.DrawFn) -> RingView:
    """Mostly one generation in all three places, because that is where the interesting decisions are."""
    generation = draw(st.none() | generations)
    pinned, deployed, running = (
        draw(st.none() | generations) if draw(st.integers(0, 3)) == 0 else generation for _ in range(3)
    )
    return RingView(
        draw(st.sampled_from(("orders-api", "reports"))),
        draw(st.sampled_from(Ring)),
        pinned,
        deployed,
        running,
        since=draw(moments),
        behind_since=draw(moments),
        reported=draw(st.booleans()),
        verdict=Verdict(draw(st.sampled_from((Health.GOOD, Health.GOOD, Health.BAD, Health.UNKNOWN)))),
    )


acceptances = st.sampled_from((Acceptance.ACCEPTED, Acceptance.ACCEPTED, Acceptance.DENIED, Acceptance.UNKNOWN))
observations = st.builds(
    Observation,
    store=stores(),
    rings=st.lists(rings(), max_size=4).map(tuple),
    candidate=acceptances,
    current=acceptances,
    goal=st.none() | generations,
    carries=st.booleans(),
    retire=st.booleans(),
    outside=st.booleans(),
    highest=st.integers(0, 6),
    installs=st.integers(0, MOST_INSTALLS + 1),
    tested=st.sampled_from((True, True, False, None)),
    lacks=st.just(("SELECT on orders",)),
    replaced=st.integers(0, 4),
    rejection=st.none() | st.sampled_from(Rejection),
    unknown_since=moments,
    promoted_at=moments,
    last_used=moments,
    usage=st.none() | st.builds(Usage, sessions=st.sampled_from((None, 0, 0, 1))),
)
specs = st.builds(
    lambda strategy, patience, grace, end_sessions: SPEC.model_copy(
        update={
            "strategy": strategy,
            "patience": timedelta(seconds=patience),
            "grace": timedelta(seconds=grace),
            "end_sessions": end_sessions,
        }
    ),
    st.sampled_from(Strategy),
    st.sampled_from((0, 30)),
    st.sampled_from((0, 60)),
    st.booleans(),
)


def number(version: Version | None) -> int | None:
    return version.generation if version else None


def is_in_use(seen: Observation, generation: int | None) -> bool:
    return any(generation in (view.pinned, view.deployed, view.running) for view in seen.rings)


def out_of_use(spec: Secret, seen: Observation) -> bool:
    """The previous generation's whole retirement, but for what the target says of the current one. Sessions that are
    to be ended do not count as use; that a ring runs it does."""
    current = number(seen.store.current)
    quiet_from = max((moment for moment in (seen.promoted_at, seen.last_used) if moment), default=NOW)
    unused = (seen.usage is None or seen.usage.sessions == 0) and quiet_from + spec.grace <= NOW
    replaced = (seen.promoted_at or NOW) + spec.grace <= NOW
    return all(view.running == current for view in seen.rings) and (replaced if spec.end_sessions else unused)


def check_promotion(spec: Secret, seen: Observation, step: Step) -> None:
    if step.generation == number(seen.store.current):
        return  # nothing changes but a label
    assert step.generation == number(seen.store.pending) > (number(seen.store.current) or 0)  # type: ignore[operator]
    assert not seen.store.rejected
    assert seen.candidate is Acceptance.ACCEPTED
    assert seen.installs
    if seen.store.promoting:
        return
    assert seen.tested
    if spec.strategy is Strategy.SINGLE:
        return
    for view in seen.rings:
        assert (view.pinned, view.deployed, view.running) == (step.generation,) * 3
        assert view.verdict.health is Health.GOOD
        watched = spec.bake if view.ring is Ring.CANARY else spec.settle
        assert (view.since or NOW) + watched <= NOW


def check_discard(spec: Secret, seen: Observation, step: Step) -> None:
    current = number(seen.store.current)
    assert step.generation == number(seen.store.pending)
    assert seen.store.rejected or (current is not None and step.generation is not None and step.generation < current)
    assert not is_in_use(seen, step.generation)
    assert all(view.reported or (view.since or NOW) + spec.settle <= NOW for view in seen.rings)
    assert current is None or all(view.running is not None for view in seen.rings)
    assert current is None or seen.current is Acceptance.ACCEPTED
    if seen.store.rejected and seen.carries and seen.store.previous and current and step.generation > current:  # type: ignore[operator]
        assert out_of_use(spec, seen)


def check_retirement(spec: Secret, seen: Observation, step: Step) -> None:
    assert step.generation == number(seen.store.previous)
    assert seen.store.pending is None
    assert seen.current is Acceptance.ACCEPTED
    assert out_of_use(spec, seen)
    assert seen.retire or not seen.carries


def check_rejection(spec: Secret, seen: Observation, step: Step) -> None:
    assert step.generation == number(seen.store.pending)
    assert not seen.store.rejected
    assert not seen.store.promoting
    match step.rejection:
        case Rejection.TARGET:
            assert seen.candidate is Acceptance.DENIED
            assert seen.installs >= MOST_INSTALLS
            assert seen.store.current is None or spec.strategy is Strategy.SINGLE or seen.current is Acceptance.ACCEPTED
        case Rejection.TEST:
            assert seen.candidate is Acceptance.ACCEPTED
            assert seen.tested is False
        case Rejection.VERDICT:
            assert any(view.ring is step.ring and view.verdict.health is Health.BAD for view in seen.rings)
        case _:
            raise AssertionError(f"only a person rejects for {step.rejection}")


def check_staging(spec: Secret, seen: Observation, step: Step) -> None:
    assert step.generation == max(seen.store.highest, seen.highest) + 1
    assert seen.store.pending is None
    assert seen.goal is not None
    assert number(seen.store.previous) is None or seen.store.current is None or seen.carries
    assert seen.store.current is None or seen.current is not Acceptance.UNKNOWN


def check_installation(spec: Secret, seen: Observation, step: Step) -> None:
    assert step.generation == number(seen.store.pending)
    assert not seen.store.rejected
    assert seen.candidate is Acceptance.DENIED or (seen.candidate is Acceptance.ACCEPTED and not seen.installs)
    assert seen.installs < MOST_INSTALLS


def check_restoration(spec: Secret, seen: Observation, step: Step) -> None:
    assert spec.strategy is Strategy.SINGLE
    assert step.generation == number(seen.store.current)
    assert seen.current is Acceptance.DENIED
    assert not is_in_use(seen, number(seen.store.pending)) or step.generation == number(seen.store.pending)


def check_pin(spec: Secret, seen: Observation, step: Step) -> None:
    """Nobody is pinned to what is rejected, nor to a candidate that is not proved."""
    assert any(view.ring is step.ring and view.pinned != step.generation for view in seen.rings)
    if step.generation != number(seen.store.current):
        assert step.generation == number(seen.store.pending)
        assert not seen.store.rejected
        assert seen.candidate is Acceptance.ACCEPTED
        assert seen.tested
        assert spec.strategy is not Strategy.SINGLE
        if step.ring is Ring.STABLE:
            canaries = [view for view in seen.rings if view.ring is Ring.CANARY]
            assert all(view.running == step.generation for view in canaries)
            assert all(view.verdict.health is Health.GOOD for view in canaries)


CHECKS: dict[Act, Callable[[Secret, Observation, Step], None]] = {
    Act.PROMOTE: check_promotion,
    Act.DISCARD: check_discard,
    Act.RETIRE: check_retirement,
    Act.REJECT: check_rejection,
    Act.STAGE: check_staging,
    Act.INSTALL: check_installation,
    Act.RESTORE: check_restoration,
    Act.PIN: check_pin,
}


@settings(max_examples=1500, deadline=None)
@given(specs, observations)
def test_every_decision_is_safe(spec: Secret, seen: Observation) -> None:
    decision = decide(spec, seen, NOW)
    if isinstance(decision, Step) and decision.act in CHECKS:
        CHECKS[decision.act](spec, seen, decision)
    if isinstance(decision, Wait) and decision.until is not None:
        assert decision.until > NOW


@settings(max_examples=500, deadline=None)
@given(specs, observations)
def test_the_same_observation_gives_the_same_decision(spec: Secret, seen: Observation) -> None:
    first = decide(spec, seen, NOW)
    assert isinstance(first, Step | Wait | Done | Blocked)
    assert decide(spec, seen, NOW) == first


IRREVERSIBLE = {Act.DISCARD, Act.RETIRE, Act.PROMOTE, Act.REJECT}


@settings(max_examples=800, deadline=None)
@given(specs, observations, st.sampled_from(("candidate", "current", "both")))
def test_an_unknown_decides_nothing_for_good(spec: Secret, seen: Observation, what: str) -> None:
    """Whatever is known otherwise: with the target silent nothing is promoted, rejected, discarded or retired, but for
    what the signals or the test said of a candidate that the target does accept."""
    unknown = {name: Acceptance.UNKNOWN for name in ("candidate", "current") if what in (name, "both")}
    seen = replace(seen, **unknown)  # type: ignore[arg-type]
    decision = decide(spec, seen, NOW)
    if not isinstance(decision, Step) or decision.act not in IRREVERSIBLE:
        return
    if decision.act in (Act.PROMOTE, Act.REJECT):
        assert "candidate" not in unknown or decision.generation == number(seen.store.current)
        assert decision.rejection is not Rejection.TARGET or "current" not in unknown or harmless(spec, seen)
    else:
        assert "current" not in unknown or seen.store.current is None


def harmless(spec: Secret, seen: Observation) -> bool:
    """There is no other credential that could be lost."""
    return seen.store.current is None or spec.strategy is Strategy.SINGLE
