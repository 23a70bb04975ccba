"""Secrets of one run that share a consumer go through each ring together, so that it restarts once and not for each.

A candidate's pin is put off while a companion, a secret of the same run that shares a consumer at that ring, is on its
way there:

- with a step in hand: it retires what is in the way, stages, installs or tests; to the stable ring also with its pin or
  deployment of the canary;
- to the stable ring, while its canary takes it up and is watched: both end at a deadline.

Nothing else holds anybody: not a companion that waits for its target, for a grace window or for somebody else, nor one
that is blocked, has failed or is rejected. It cannot deadlock: who holds others in a step is not put off for the ring
that this step leads to, steps that are done time and again end the companion's run, and waits that hold have an end.
What returns to the current generation, and the strategy "single", are never put off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rotation.model import Acceptance, Act, Decision, Observation, Place, Ring, Step, Wait
from rotation.opening import candidate_of

_BEFORE_THE_RINGS = (Act.RETIRE, Act.STAGE, Act.INSTALL, Act.TEST)
_RINGS = tuple(Ring)


def put_off(decisions: Mapping[str, Decision], seen: Mapping[str, Observation]) -> dict[str, Wait]:
    """The secrets whose pin is put off, each with the wait that stands for it."""
    coming: dict[Place, tuple[str, Decision]] = {}
    for name, decision in decisions.items():
        for place in _destinations(decision, seen[name]):
            coming.setdefault(place, (name, decision))
    return {
        name: _wait(decision, *coming[place])
        for name, decision in decisions.items()
        if isinstance(decision, Step)
        for place in _pinned_now(decision, seen[name])
        if place in coming
    }


def _wait(step: Step, companion: str, its: Decision) -> Wait:
    return Wait(
        f"the {step.ring} ring gets generation {step.generation} together with {companion}",
        its.until if isinstance(its, Wait) else None,
    )


def _pinned_now(step: Step, seen: Observation) -> Iterator[Place]:
    """The places that a candidate's pin is for."""
    if step.act is Act.PIN and not seen.store.rejected and step.generation == candidate_of(seen.store):
        yield from ((view.consumer, view.ring) for view in seen.rings if view.ring is step.ring)


def _destinations(decision: Decision, seen: Observation) -> Iterator[Place]:
    """The places that a secret is on its way to."""
    candidate, ahead = candidate_of(seen.store), _rings_ahead(decision, seen)
    for view in seen.rings:
        if view.ring in ahead and (candidate is None or view.pinned != candidate):
            yield (view.consumer, view.ring)


def _rings_ahead(decision: Decision, seen: Observation) -> tuple[Ring, ...]:
    """The rings that follow on what a secret does now, as far as that is sure to end."""
    if seen.store.rejected:
        return ()
    candidate = candidate_of(seen.store)
    if isinstance(decision, Step):
        if decision.act in _BEFORE_THE_RINGS:
            return _RINGS if candidate is not None or _is_to_come(seen) else ()
        rolls_out = decision.act in (Act.PIN, Act.DEPLOY) and decision.generation == candidate
        return _after(decision.ring) if rolls_out else ()
    if isinstance(decision, Wait) and decision.until is not None and not decision.outside:
        # It was accepted and tested, so what it waits for is the last ring that it was deployed to.
        rolled_out = candidate is not None and seen.candidate is Acceptance.ACCEPTED and seen.tested
        deployed = [view.ring for view in seen.rings if view.deployed == candidate] if rolled_out else []
        return _after(max(deployed, key=_RINGS.index)) if deployed else ()
    return ()


def _is_to_come(seen: Observation) -> bool:
    """Whether a candidate is asked for: what is retired is in its way, then, and not left over from the last one."""
    current = seen.store.current.generation if seen.store.current else None
    return seen.goal is not None and (current or 0) < seen.goal


def _after(ring: Ring | None) -> tuple[Ring, ...]:
    return _RINGS[_RINGS.index(ring) + 1 :] if ring is not None else ()
