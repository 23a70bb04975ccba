"""What is safe to put right without asking anybody, and nothing else.

- A dead or stuck rotation is finished or discarded, and rings that are behind are brought forward, by the engine.
- A pin to a generation that is gone goes back to what is deployed at its place, and from there the engine brings it to
  the current one, canary first. Without a current generation it stays.
- Rendered files are regenerated, and configuration objects that somebody changed or deleted are applied again, by a
  saved plan whose guard lets through these objects alone.
- A login that keyturn had locked out, that nobody uses and that nothing in the store explains, is locked out again.

Foreign versions, other resources, slots, keys and logins are never touched: they are left for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from rotation.credentials import ReportsLeftovers
from rotation.drift import Finding, Fix
from rotation.drift.live import kept_credentials
from rotation.engine import Engine, Purpose, Request, Result
from rotation.errors import KeyturnError, StoreError
from rotation.model import Blocked, Place, StoreView, Wait
from rotation.rollout import references

LEFTOVER = "leftover-"  # what the aspect of a leftover's finding begins with


@dataclass(frozen=True, slots=True)
class Tried:
    """What was done about one finding. ``problem`` says why it may still be there, empty where nothing stood in the
    way."""

    address: str
    did: str
    problem: str = ""


def fix(engine: Engine, findings: Sequence[Finding], wait: timedelta) -> list[Tried]:
    """Put right what can be, in the order of :class:`Fix`; ``wait`` is for how long to stay for what time brings.

    What stands in the way of one thing (another runner, a guard, a server) leaves the others alone.
    """
    todo = [finding for finding in findings if finding.counts and finding.fix is not None]
    tried: list[Tried] = []
    acts: dict[Fix, Callable[[Engine, Finding], None]] = {Fix.REPIN: _repin, Fix.LOCK_OUT: _lock_out}
    for what in (Fix.REPIN, Fix.LOCK_OUT):
        tried += [_alone(engine, finding, acts[what]) for finding in todo if finding.fix is what]
    for what in (Fix.RENDER, Fix.DEPLOY):
        tried += _together(engine, [finding for finding in todo if finding.fix is what], what)
    moving = [finding for finding in todo if finding.fix in (Fix.REPIN, Fix.DEPLOY, Fix.RESUME)]
    return _merged([*tried, *_resume(engine, moving, wait)])


def _merged(tried: Iterable[Tried]) -> list[Tried]:
    """One for each finding: what was done first, and everything that stood in the way."""
    merged: dict[str, Tried] = {}
    for one in tried:
        first = merged.setdefault(one.address, one)
        if first is not one:
            merged[one.address] = replace(first, problem="; ".join(filter(None, (first.problem, one.problem))))
    return list(merged.values())


def _alone(engine: Engine, finding: Finding, act: Callable[[Engine, Finding], None]) -> Tried:
    """Act on one secret, whose lease is held meanwhile."""
    try:
        with engine.journal.lease(finding.secrets):
            act(engine, finding)
    except KeyturnError as error:
        return Tried(finding.address, f"{finding.fix}", str(error))
    _audit(engine, finding)
    return Tried(finding.address, f"{finding.fix}")


def _audit(engine: Engine, finding: Finding) -> None:
    for name in finding.secrets:
        engine.journal.audit(name, 0, f"drift: {finding.fix}", f"{finding.address}: {finding.what}")


def _view(engine: Engine, name: str) -> StoreView:
    return engine.observer.stored([engine.manifest.secret(name)], fresh=True)[name]


def _repin(engine: Engine, finding: Finding) -> None:
    (name,) = finding.secrets
    view, pins = _view(engine, name), engine.rollout.pins()
    deployed = engine.observer.deployed([engine.manifest.secret(name)])
    held = {generation for _, generation in references(engine.manifest, {name: view})}
    back: dict[tuple[Place, str], int | None] = {}
    for place in finding.places:
        pinned, there = pins.of(*place, name), deployed.get(place, {}).get(name)
        if pinned is not None and pinned not in held and pinned != there:
            back[place, name] = there
    if back:
        engine.rollout.put_back(back, pins)
        whole = engine.observer.stored(engine.manifest.neighbours([name]), fresh=True)
        engine.rollout.render([place for (place, _), there in back.items() if there in held], whole)


def _lock_out(engine: Engine, finding: Finding) -> None:
    (name,) = finding.secrets
    secret = engine.manifest.secret(name)
    kind, view = engine.plugins.kind(secret), _view(engine, name)
    if view.current is None or view.current.generation is None or view.versions != (view.current,):
        raise StoreError(f"the store holds another generation of {name} by now", "Look again.")
    if isinstance(kind, ReportsLeftovers):
        kept = kept_credentials(secret, view, engine)
        engine.acts.confirm(secret, view.current.generation)
        kind.lock_out(finding.aspect.removeprefix(LEFTOVER), kept)


def _together(engine: Engine, findings: Sequence[Finding], what: Fix) -> Iterator[Tried]:
    """Rendered files, or configuration objects: one write, or one plan."""
    if not findings:
        return
    places = sorted({place for finding in findings for place in finding.places})
    names = sorted({name for consumer, _ in places for name in engine.manifest.consumers[consumer].secrets})
    problem = ""
    try:
        with engine.journal.lease(names):
            stored = engine.observer.stored(engine.manifest.neighbours(names), fresh=True)
            if what is Fix.RENDER:
                engine.rollout.render(places, stored)
            else:
                engine.rollout.deploy(places, stored)
    except KeyturnError as error:
        problem = str(error)
    for finding in findings:
        if not problem:
            _audit(engine, finding)
        yield Tried(finding.address, f"{what}", problem)


def _resume(engine: Engine, findings: Sequence[Finding], wait: timedelta) -> Iterator[Tried]:
    """Let the engine go on with these secrets, each as far as it gets."""
    names = sorted({name for finding in findings for name in finding.secrets})
    if not names:
        return
    request = Request(purpose=Purpose.RESUME, reason="manual: drift", wait=wait)
    try:
        results = engine.run(names, request)
    except KeyturnError as error:
        results = {name: Result(name, error=error) for name in names}
    for finding in findings:
        problems = filter(None, (_problem(results[name]) for name in finding.secrets))
        yield Tried(finding.address, f"{Fix.RESUME}", "; ".join(problems))


def _problem(result: Result) -> str:
    if result.error is not None:
        return str(result.error)
    return result.decision.reason if isinstance(result.decision, Wait | Blocked) else ""


def left(tried: Iterable[Tried], findings: Iterable[Finding]) -> dict[str, str]:
    """What was tried and is still there, with what stood in the way."""
    problems = {one.address: one.problem for one in tried}
    return {f.address: problems[f.address] for f in findings if f.counts and f.address in problems}
