"""The state machine of one secret's rotation: what to do next, from what is observed. It does no I/O.

The rules, in their order; the first one that has something to say decides:

- A secret whose slot is not there, or whose current or pending version is foreign, waits for a person.
- A pending version that is not newer than the current one is left over from a dead run: it is discarded.
- A rejected candidate is undone: pins, configuration and deployment return to the current generation; only when no
  ring uses the candidate any more, and the target is proved to accept the current one, is it revoked and discarded.
  A ring that does not report what it runs gets the settling time to take up what was deployed.
  One that carries the previous generation's value shares its grace window: to revoke one is to revoke both.
  Where the store cannot compare, and a run had begun to promote it, it is kept until that can no longer arrive: what
  was decided then may have been deleted by hand.
- A candidate is installed, tested, given to the canary and watched, given to everyone and watched, then promoted.
  What the target denies three times is rejected, if the target still accepts the current generation. What lacks a
  privilege, or makes a ring's signals bad, is rejected. Only what the target accepts *now* is promoted.
- It is installed at least once for all the journal knows, even if the target accepts it: a value that is carried over
  is accepted already, and the target has to learn that it counts as a newer generation now, which no runner that
  still works on the older one may revoke.
- A candidate that some run has decided to promote can no longer be rejected: it is promoted.
- The strategy "single" has no second credential for a canary: it promotes after the test, and consumers follow.
- Without a candidate every ring returns to, or goes on with, the current generation.
- The previous generation is retired when every ring runs the current one, the target accepts the current one, nobody
  has a session with the old one, and it has been out of use for the grace window. Where sessions are declared to be
  ended, they hold up nothing: they end with the retirement, once the grace window since the promotion is over. Where
  the store cannot compare, it is also kept until no promotion that was sent before can arrive any more.
- A new candidate is staged only when it is asked for, when none is pending, when the previous one is retired, and
  when the target could be asked.

An *unknown* never revokes, rejects or promotes anything: it waits, and at its deadline blocks and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from rotation.manifest import Secret
from rotation.model import (
    Acceptance,
    Act,
    Blocked,
    Decision,
    Done,
    Ending,
    Health,
    Observation,
    Rejection,
    Ring,
    RingView,
    Step,
    Strategy,
    Usage,
    Verdict,
    Version,
    Wait,
)

MOST_INSTALLS = 3  # of one candidate that the target goes on denying
MOST_CANDIDATES = 3  # of one rotation, each denied by the target

Rule = Callable[[Secret, Observation, datetime], Decision | None]


def decide(spec: Secret, seen: Observation, now: datetime) -> Decision:
    """Return the next step of this secret's rotation, what it waits for, how it ended, or why it cannot go on."""
    for rule in RULES:
        decision = rule(spec, seen, now)
        if decision is not None:
            return decision
    return stage_next(spec, seen, now)


def slot_exists(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    if seen.store.exists:
        return None
    return Blocked(
        f"the store has no slot {spec.stored_as}", "Deploy the secrets stack of this environment, then run again."
    )


def versions_are_ours(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    if _foreign(seen.store.current):
        return Blocked(
            f"the current version of {spec.name} was not made by keyturn",
            f"If it is right, take it over with `keyturn adopt {spec.name}`; else put the right version back.",
        )
    if _foreign(seen.store.pending):
        return Blocked(
            f"a pending version of {spec.name} was not made by keyturn",
            "Finish or cancel the other rotation (in AWS: cancel-rotate-secret), then run again.",
        )
    return None


def discard_leftover(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    candidate, current = _number(seen.store.pending), _number(seen.store.current)
    if candidate is None or current is None or candidate > current:
        return None
    if candidate == current:
        return Step(Act.PROMOTE, candidate, "it is current already: a run died before it took the pending mark away")
    return (
        _leave_candidate(spec, seen, candidate, current, now)
        or _current_is_accepted(spec, seen, candidate, now)
        or Step(Act.DISCARD, candidate, f"left over: generation {current} is current already")
    )


def undo_rejected(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    candidate, current = _number(seen.store.pending), _number(seen.store.current)
    if candidate is None or not seen.store.rejected:
        return None
    return (
        _leave_candidate(spec, seen, candidate, current, now)
        or _current_is_accepted(spec, seen, candidate, now)
        or _shared_value_is_unused(spec, seen, now)
        or _settles(seen.candidate_settled_at, candidate, now)
        or Step(Act.DISCARD, candidate, "rejected, and no ring uses it")
    )


def _leave_candidate(
    spec: Secret, seen: Observation, candidate: int, current: int | None, now: datetime
) -> Decision | None:
    for ring in _rings(seen):
        views = _of(seen, ring)
        if any(view.pinned == candidate for view in views):
            return Step(Act.PIN, current, "the candidate is rejected", ring)
        if any(view.deployed == candidate for view in views):
            return _deploy(seen, ring, current)
        for view in views:
            if view.running == candidate or (view.running is None and current is not None):
                return _await_ring(spec, view, current, now, f"candidate {candidate} stays valid until it does")
            settled = (view.since or now) + spec.settle
            if not view.reported and now < settled:
                return Wait(f"nobody reports what {view} runs: it gets {spec.settle} to settle", settled, surely=True)
    return None


def _current_is_accepted(spec: Secret, seen: Observation, candidate: int, now: datetime) -> Decision | None:
    if seen.store.current is None or seen.current is Acceptance.ACCEPTED:
        return None
    if seen.current is Acceptance.UNKNOWN:
        return _await_target(spec, seen, now)
    if spec.strategy is Strategy.SINGLE:
        return Step(Act.RESTORE, _number(seen.store.current), "the candidate took its place in the target")
    return Blocked(
        f"the target denies the current generation of {spec.name}, so candidate {candidate} is not revoked",
        "Repair the current credential in the target (its value is in the store), then run again.",
    )


def _shared_value_is_unused(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    previous, current = _number(seen.store.previous), _number(seen.store.current)
    if not seen.carries or previous is None or current is None:
        return None
    return _in_use(spec, seen, previous, current, now)


def advance_candidate(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    candidate = _number(seen.store.pending)
    if candidate is None:
        return None
    decision = _install(spec, seen, candidate, now)
    if decision is None and seen.store.promoting:
        return Step(Act.PROMOTE, candidate, "its promotion was decided before")
    decision = decision or _test(seen, candidate)
    if decision is None and spec.strategy is not Strategy.SINGLE:
        decision = _roll_out(spec, seen, candidate, now)
    return decision or Step(Act.PROMOTE, candidate, "accepted, tested and in use" if seen.rings else "accepted, tested")


def _install(spec: Secret, seen: Observation, candidate: int, now: datetime) -> Decision | None:
    if seen.candidate is Acceptance.UNKNOWN:
        return _await_target(spec, seen, now)
    if seen.candidate is Acceptance.DENIED:
        return _install_or_give_up(spec, seen, candidate, now)
    if not seen.installs:
        return Step(Act.INSTALL, candidate, "the target accepts its value, perhaps as another generation's")
    return None


def _test(seen: Observation, candidate: int) -> Decision | None:
    if seen.tested is None:
        return Step(Act.TEST, candidate, "the target accepts it")
    if not seen.tested:
        lacks = "; ".join(seen.lacks)
        return Step(Act.REJECT, candidate, f"it lacks {lacks}", rejection=Rejection.TEST)
    return None


def _install_or_give_up(spec: Secret, seen: Observation, candidate: int, now: datetime) -> Decision:
    if seen.installs < MOST_INSTALLS:
        return Step(Act.INSTALL, candidate, "the target does not accept it yet")
    denied = f"the target denied generation {candidate} of {spec.name} after {seen.installs} installs"
    if seen.store.promoting:
        return Blocked(
            f"{denied}, and its promotion was decided before, so it cannot be rejected",
            "Look at the target: its administrator, its authentication settings; then run again.",
        )
    if seen.store.current is None or spec.strategy is Strategy.SINGLE or seen.current is Acceptance.ACCEPTED:
        return Step(Act.REJECT, candidate, denied, rejection=Rejection.TARGET)
    if seen.current is Acceptance.UNKNOWN:
        return _await_target(spec, seen, now)
    return Blocked(
        f"{denied}, and it denies the current generation too",
        "Look at the target: its administrator, its rules for passwords, its authentication settings.",
    )


def _roll_out(spec: Secret, seen: Observation, candidate: int, now: datetime) -> Decision | None:
    for ring in _rings(seen):
        views = _of(seen, ring)
        decision = (
            _condemned(ring, views, candidate)
            or _bring(spec, seen, ring, candidate, now)
            or _judge(spec, ring, views, candidate, now)
        )
        if decision is not None:
            return decision
    return None


def _bring(spec: Secret, seen: Observation, ring: Ring, generation: int, now: datetime) -> Decision | None:
    """Pin, deploy and wait until every instance of the ring runs this generation."""
    views = _of(seen, ring)
    if any(view.pinned != generation for view in views):
        return Step(Act.PIN, generation, f"the {ring} ring is next", ring)
    if any(view.deployed != generation for view in views):
        return _deploy(seen, ring, generation)
    for view in views:
        if view.running != generation:
            return _await_ring(spec, view, generation, now, "nothing was revoked")
    return None


def _condemned(ring: Ring, views: tuple[RingView, ...], candidate: int) -> Decision | None:
    """A ring whose signals are bad, be it that it cannot even take the candidate up."""
    verdict = Verdict.of(view.verdict for view in views if view.deployed == candidate)
    if verdict.health is not Health.BAD:
        return None
    evidence = "; ".join(verdict.evidence)
    return Step(Act.REJECT, candidate, f"the {ring} ring is bad: {evidence}", ring, Rejection.VERDICT)


def _judge(spec: Secret, ring: Ring, views: tuple[RingView, ...], candidate: int, now: datetime) -> Decision | None:
    verdict = Verdict.of(view.verdict for view in views)
    evidence = "; ".join(verdict.evidence)
    observing = ring is Ring.CANARY
    baked = max(view.since or now for view in views) + (spec.bake if ring is Ring.CANARY else spec.settle)
    if now < baked:
        return Wait(f"the {ring} ring is watched with generation {candidate}", baked, observing=observing)
    if verdict.health is Health.GOOD:
        return None
    if now < baked + spec.patience:
        reason = f"the {ring} ring gives no clear verdict yet: {evidence}"
        return Wait(reason, baked + spec.patience, observing=observing)
    return Blocked(
        f"the {ring} ring gave no clear verdict on generation {candidate} of {spec.name}: {evidence}",
        f"Look at its signals; then run again, or take it back with `keyturn rollback {spec.name}`.",
    )


def follow_current(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    current = _number(seen.store.current)
    if current is None:
        return None
    for ring in _rings(seen):
        decision = _bring(spec, seen, ring, current, now)
        if decision is not None:
            return decision
    return None


def finish(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    current = _number(seen.store.current)
    if seen.goal is not None and (current or 0) >= seen.goal:
        if seen.retire:
            return None
        return Done(Ending.PROMOTED, current or 0, f"generation {current} is current")
    if seen.goal is not None and seen.rejection not in (None, Rejection.TARGET):
        return Done(Ending.ROLLED_BACK, current or 0, f"the candidate was turned down ({seen.rejection})")
    if seen.goal is None and not seen.retire:
        return Done(Ending.UNCHANGED, current or 0, f"generation {current} is current" if current else "no value yet")
    return None


def retire_previous(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    previous, current = _number(seen.store.previous), _number(seen.store.current)
    if previous is None or current is None or (seen.carries and not seen.retire):
        return None
    return _in_use(spec, seen, previous, current, now) or Step(
        Act.RETIRE, previous, f"{_why_retired(spec)}, and every ring runs generation {current}"
    )


def _why_retired(spec: Secret) -> str:
    return f"replaced {spec.grace} ago, its sessions end" if spec.end_sessions else f"out of use for {spec.grace}"


def _in_use(spec: Secret, seen: Observation, previous: int, current: int, now: datetime) -> Decision | None:
    """What still speaks for the previous generation: a wait, or None."""
    for view in seen.rings:
        if view.running != current:
            return Wait(f"generation {previous} is kept: {view} {_runs(view)}, not {current}")
    if seen.current is not Acceptance.ACCEPTED:
        return Wait(f"generation {previous} is kept: the target's answer to generation {current} is {seen.current}")
    if not spec.end_sessions and seen.usage is not None and seen.usage.sessions != 0:
        return Wait(f"generation {previous} is kept: {_sessions(seen.usage)}")
    uses = (seen.promoted_at,) if spec.end_sessions else (seen.promoted_at, seen.last_used)
    quiet_from = max(filter(None, uses), default=now)
    if now < quiet_from + spec.grace:
        return Wait(f"generation {previous} is kept through its grace window", quiet_from + spec.grace, surely=True)
    return _settles(seen.settled_at, previous, now)


def _settles(settled_at: datetime | None, generation: int, now: datetime) -> Decision | None:
    if settled_at is None or now >= settled_at:
        return None
    return Wait(
        f"generation {generation} is kept: what it was promoted with could still arrive", settled_at, surely=True
    )


def _sessions(usage: Usage) -> str:
    return "the target cannot say who uses it" if usage.sessions is None else f"it has {usage.sessions} open sessions"


def nothing_wanted(spec: Secret, seen: Observation, now: datetime) -> Decision | None:
    current = _number(seen.store.current) or 0
    if seen.goal is None or current >= seen.goal:
        return Done(Ending.UNCHANGED, current, "nothing is left to retire")
    return None


def stage_next(spec: Secret, seen: Observation, now: datetime) -> Decision:
    if seen.store.current is not None and seen.current is Acceptance.UNKNOWN:
        return _await_target(spec, seen, now)
    if seen.replaced >= MOST_CANDIDATES:
        return Blocked(
            f"the target denied {seen.replaced} candidates of {spec.name} one after the other",
            "Look at the target: its administrator, its rules for passwords, its authentication settings.",
        )
    generation = max(seen.store.highest, seen.highest) + 1
    return Step(Act.STAGE, generation, f"generation {_number(seen.store.current) or 0} is to be replaced")


RULES: tuple[Rule, ...] = (
    slot_exists,
    versions_are_ours,
    discard_leftover,
    undo_rejected,
    advance_candidate,
    follow_current,
    finish,
    retire_previous,
    nothing_wanted,
)


def _deploy(seen: Observation, ring: Ring, generation: int | None) -> Decision:
    places = ", ".join(str(view) for view in _of(seen, ring))
    if seen.outside:
        return Wait(f"the configuration of {places} is to be deployed (`cdktf deploy`)", outside=True)
    return Step(Act.DEPLOY, generation, "its pin has moved", ring)


def _await_ring(spec: Secret, view: RingView, generation: int | None, now: datetime, consequence: str) -> Decision:
    deadline = (view.behind_since or now) + spec.patience
    if now < deadline:
        return Wait(f"{view} is to take up generation {generation} ({_runs(view)})", deadline)
    return Blocked(
        f"{view} {_runs(view)} though generation {generation} of {spec.name} is deployed; {consequence}",
        f"Look at the application; then run again, or take it back with `keyturn rollback {spec.name}`.",
    )


def _await_target(spec: Secret, seen: Observation, now: datetime) -> Decision:
    since = seen.unknown_since or now
    if now < since + spec.patience:
        return Wait(f"the target of {spec.name} cannot be asked", since + spec.patience)
    return Blocked(
        f"the target of {spec.name} could not be asked since {since:%H:%M:%S}; nothing was revoked",
        "Check that the target runs and can be reached from here, then run again.",
    )


def _runs(view: RingView) -> str:
    return "does not say what it runs" if view.running is None else f"runs generation {view.running}"


def _rings(seen: Observation) -> Iterable[Ring]:
    """The rings in use, canary first."""
    return [ring for ring in Ring if _of(seen, ring)]


def _of(seen: Observation, ring: Ring) -> tuple[RingView, ...]:
    return tuple(view for view in seen.rings if view.ring is ring)


def _foreign(version: Version | None) -> bool:
    return version is not None and version.generation is None


def _number(version: Version | None) -> int | None:
    return version.generation if version is not None else None
