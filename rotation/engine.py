"""Reconcile: look, decide, put the intent on disk, act, look again, until each secret is done, waits or is blocked.

Every pass starts from what is observed. The engine may be killed anywhere: the next run, with this journal or with
none, goes on from what is there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rotation.acts import Acts
from rotation.coalescing import put_off
from rotation.custody import Custody
from rotation.decide import decide
from rotation.errors import Conflict, JournalError, KeyturnError, StoreError
from rotation.evidence import Evidence
from rotation.journal import Journal
from rotation.manifest import Manifest
from rotation.model import (
    Act,
    Blocked,
    Decision,
    Done,
    Ending,
    Observation,
    Rejection,
    Ring,
    Step,
    StoreView,
    Trigger,
    Wait,
)
from rotation.observer import Observer, Scene
from rotation.opening import Opening, Purpose, candidate_of
from rotation.plugins import Plugins
from rotation.preflight import preflight
from rotation.rollout import Move, Rollout

__all__ = ["PHASES", "Engine", "Event", "Purpose", "Request", "Result", "candidate_of", "until"]

IRREVERSIBLE = (Act.DISCARD, Act.RETIRE)
PHASES = ("stage", "install", "test", "canary", "observe", "deploy", "promote", "retire")
MOST_TRIES = 5  # of one step in one run: more means that it has no effect, or that two runners fight over it
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds between two looks while nothing can be done


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is to do.

    ``initialize`` allows a secret's first value. ``outside`` leaves deployments to somebody else. ``until`` names the
    last of :data:`PHASES` to go through. ``retire`` retires in the same run what a promotion replaced. ``override`` is
    why to go on without the evidence of a rehearsal. ``wait`` is for how long to stay for what only time brings.
    """

    purpose: Purpose = Purpose.ROTATE
    initialize: bool = False
    outside: bool = False
    until: str | None = None
    retire: bool = False
    override: str | None = None
    reason: str = Trigger.MANUAL
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a run's timeline."""

    at: datetime
    secret: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a run left one secret: a final decision, or the error that ended its part."""

    secret: str
    decision: Done | Wait | Blocked | None = None
    error: KeyturnError | None = None


def _silent(event: Event) -> None:
    del event


@dataclass(slots=True)
class Engine:
    """One runner on one environment. ``say`` hears every event; ``sleep`` and ``clock`` are the world's."""

    project: Path
    manifest: Manifest
    plugins: Plugins
    journal: Journal
    say: Callable[[Event], None] = _silent
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    workers: int = 8
    custody: Custody = field(init=False)
    observer: Observer = field(init=False)
    acts: Acts = field(init=False)
    rollout: Rollout = field(init=False)
    evidence: Evidence = field(init=False)

    def __post_init__(self) -> None:
        self.custody = Custody(self.manifest, self.plugins)
        self.observer = Observer(self.manifest, self.plugins, self.custody, self.journal, self.clock)
        self.acts = Acts(self.plugins, self.custody, self.journal)
        self.rollout = Rollout(self.project, self.manifest, self.plugins)
        self.evidence = Evidence(self.project, self.manifest, self.journal, self.clock)

    def run(self, names: Sequence[str], request: Request) -> dict[str, Result]:
        """Work on these secrets side by side until each is done, waits or is blocked.

        What concerns all of them (a lease that another runner holds, a store that does not answer, pins that are
        wrong) is raised; what concerns one is its result.
        """
        with self.journal.lease(names), ThreadPoolExecutor(self.workers) as executor:
            return _Run(self, names, request, executor).finish()


class _Run:
    """One call of :meth:`Engine.run`."""

    def __init__(self, engine: Engine, names: Sequence[str], request: Request, executor: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._journal = engine.journal
        self._request = request
        self._executor = executor
        self._opening = Opening(
            engine.plugins,
            engine.custody,
            engine.journal,
            request.purpose,
            request.reason,
            rehearsed=lambda secret: engine.evidence.require(secret, request.override),
        )
        self._live = {name: engine.manifest.secret(name) for name in names}
        self._retiring = set(names) if request.purpose is Purpose.RETIRE else set[str]()
        self._discarded: set[str] = set()  # whose candidate this run has discarded
        self._results: dict[str, Result] = {}
        self._tries: Counter[tuple[str, Act, int | None, Ring | None]] = Counter()
        self._deployed = engine.observer.deployed(self._live.values())
        self._fresh = False  # whether the deployment was looked at just now, and not only when it was last changed
        self._ends = engine.clock() + request.wait
        self._pause = SHORTEST_PAUSE
        self._said: dict[str, str] = {}

    def finish(self) -> dict[str, Result]:
        self._begin()
        while self._live:
            scene = self._scene()
            seen = self._look(scene)
            decisions = self._decide(seen)
            steps = {name: step for name, step in decisions.items() if isinstance(step, Step)}
            waits = {name: wait for name, wait in decisions.items() if isinstance(wait, Wait)}
            for name, decision in decisions.items():
                if isinstance(decision, Done | Blocked):
                    self._end(name, seen[name], decision)
            if not self._fresh and any(step.act in IRREVERSIBLE for step in steps.values()):
                self._look_at_deployment()
                self._fresh = True
                continue
            self._fresh = False
            held = put_off(decisions, seen)
            steps = {n: step for n, step in steps.items() if n not in held and self._may_try(n, step, seen[n])}
            waits |= held
            if steps:
                self._act(scene, seen, steps)
                self._pause = SHORTEST_PAUSE
            elif held and not seen.keys() <= self._live.keys():
                continue  # a companion has just failed or ended: what was put off for it need not wait
            elif waits and not self._stay(waits):
                for name, wait in waits.items():
                    self._leave(name, wait)
        return self._results

    # Beginning

    def _begin(self) -> None:
        """Say what a dead run left, refuse what cannot be started, and open what is asked for."""
        scene = self._scene()
        if self._request.purpose is Purpose.ROTATE and self._request.override is None:
            self._engine.evidence.prepare()
        if self._request.purpose is not Purpose.RETIRE:
            places = {
                place for name in self._live for ring in Ring for place in self._engine.rollout.places(name, ring)
            }
            self._engine.rollout.rehearse(scene.pins, scene.stored, places)
        for name, secret in list(self._live.items()):
            view = scene.stored[name]
            try:
                self._engine.plugins.require([secret])
                preflight(secret, view, initialize=self._request.initialize)
                for act in self._journal.unfinished(name):
                    self._say(name, "resumes", f"an earlier run died in: {act}")
                self._journal.write_off(name)
                self._opening.open(secret, view)
            except JournalError:
                raise
            except KeyturnError as error:
                self._fail(name, error)

    # Looking and deciding

    def _scene(self) -> Scene:
        """The stores are asked for the neighbours too: secrets that share a consumer share its configuration."""
        highest = {name: self._journal.highest(name) for name in self._live}
        pins = self._engine.rollout.pins()
        stored = self._stored()
        self._engine.rollout.check(pins, stored, self._deployed)
        return Scene(stored, pins, self._deployed, highest)

    def _stored(self) -> dict[str, StoreView]:
        """What the stores say. A secret of which they tell nothing fails with its neighbours, and holds up no other."""
        manifest = self._engine.manifest
        views = self._engine.observer.stored(manifest.neighbours(self._live), fresh=True, troubled=True)
        troubles = {name: view.trouble for name, view in views.items() if view.trouble is not None}
        if not troubles:
            return views
        for name in list(self._live):
            beside = next((other.name for other in manifest.neighbours([name]) if other.name in troubles), None)
            if beside is not None:
                self._fail(name, troubles.get(name) or troubles[beside])
        return {secret.name: views[secret.name] for secret in manifest.neighbours(self._live)}

    def _look_at_deployment(self) -> None:
        self._deployed = self._engine.observer.deployed(self._live.values())

    def _look(self, scene: Scene) -> dict[str, Observation]:
        looks = self._engine.observer.look(
            self._live.values(), scene, self._executor, retire=self._retiring, outside=self._request.outside
        )
        for name, look in looks.items():
            if isinstance(look, KeyturnError):
                self._fail(name, look)
        return {name: look for name, look in looks.items() if isinstance(look, Observation)}

    def _decide(self, seen: Mapping[str, Observation]) -> dict[str, Decision]:
        now = self._engine.clock()
        return {name: self._within(decide(self._live[name], look, now), look) for name, look in seen.items()}

    def _within(self, decision: Decision, seen: Observation) -> Decision:
        """A decision, or the wait that stands for it where the request goes less far."""
        if self._request.purpose is Purpose.ROLL_BACK and _undecided(seen) and not seen.carries:
            candidate = candidate_of(seen.store)
            return Step(Act.REJECT, candidate, self._request.reason, rejection=Rejection.PERSON)
        if self._request.purpose is Purpose.RETIRE and isinstance(decision, Step) and decision.act is not Act.RETIRE:
            return Wait("a rotation is in flight: finish it with `keyturn rotate`", outside=True)
        last = self._request.until
        if last is None or isinstance(decision, Done | Blocked):
            return decision
        phase = _phase(decision, seen)
        if phase is not None and PHASES.index(phase) > PHASES.index(last):
            return Wait(f"it was to go as far as {last}", outside=True)
        return decision

    # Acting

    def _act(self, scene: Scene, seen: Mapping[str, Observation], steps: Mapping[str, Step]) -> None:
        alone = {name: step for name, step in steps.items() if step.act not in (Act.PIN, Act.DEPLOY)}
        list(self._executor.map(lambda name: self._perform(name, seen[name], alone[name]), alone))
        pins = {name: step for name, step in steps.items() if step.act is Act.PIN}
        deploys = {name: step for name, step in steps.items() if step.act is Act.DEPLOY}
        if pins:
            moves = [Move(name, _ring(step), step.generation) for name, step in pins.items()]
            members = [self._live[name] for name in pins]
            self._together(
                seen,
                pins,
                lambda: self._engine.rollout.pin(
                    moves, scene.pins, scene.stored, look=lambda: self._engine.observer.stored(members, fresh=True)
                ),
            )
        elif deploys:
            places = [
                place for name, step in deploys.items() for place in self._engine.rollout.places(name, _ring(step))
            ]
            self._together(seen, deploys, lambda: self._engine.rollout.deploy(places, scene.stored))
            self._look_at_deployment()

    def _may_try(self, name: str, step: Step, seen: Observation) -> bool:
        attempt = (name, step.act, step.generation, step.ring)
        self._tries[attempt] += 1
        if self._tries[attempt] <= MOST_TRIES:
            return True
        error = KeyturnError(
            f"{step.act} of generation {step.generation} of {name} was done {MOST_TRIES} times and shows no effect",
            "See whether another runner works against this one; then run the command again: it resumes.",
        )
        self._fail(name, error, seen)
        return False

    def _perform(self, name: str, seen: Observation, step: Step) -> None:
        if step.act is Act.PROMOTE:
            self._engine.evidence.watch(name, step.generation or 0, seen)
        intent = self._intend(name, step)
        try:
            detail = self._engine.acts.perform(self._live[name], seen, step)
        except Conflict as conflict:
            self._overtaken(intent, name, conflict)
        except KeyturnError as error:
            self._journal.settle(intent, "failed", str(error))
            self._fail(name, error, seen)
        else:
            self._settle(intent, name, step, detail)

    def _together(self, seen: Mapping[str, Observation], steps: Mapping[str, Step], act: Callable[[], str]) -> None:
        """Pins and deployments of several secrets are one write and one apply."""
        intents = {name: self._intend(name, step) for name, step in steps.items()}
        try:
            detail = act()
        except Conflict as conflict:
            for name, intent in intents.items():
                self._overtaken(intent, name, conflict)
        except KeyturnError as error:
            for name, intent in intents.items():
                self._journal.settle(intent, "failed", str(error))
                self._fail(name, error, seen[name])
        else:
            for name, intent in intents.items():
                self._settle(intent, name, steps[name], detail)

    def _intend(self, name: str, step: Step) -> int:
        return self._journal.intend(name, step.generation or 0, step.act, step.ring)

    def _overtaken(self, intent: int, name: str, conflict: Conflict) -> None:
        self._journal.settle(intent, "overtaken", str(conflict))
        self._say(name, "overtaken", str(conflict))

    def _settle(self, intent: int, name: str, step: Step, detail: str) -> None:
        self._journal.settle(intent, "done", detail)
        if step.act is Act.DISCARD:
            self._discarded.add(name)
        self._say(name, f"{step.act} {step.ring}" if step.ring else step.act, detail)

    # Ending

    def _goes_back(self, name: str, seen: Observation, decision: Done) -> bool:
        """Whether a rollback was overtaken by the promotion that it was to prevent: then a new generation undoes it.
        One that has discarded its candidate has done what it was to do, whatever was adopted meanwhile."""
        if self._request.purpose is not Purpose.ROLL_BACK or decision.ending is not Ending.PROMOTED or seen.carries:
            return False
        if name in self._discarded:
            return False
        self._journal.close_rotation(name, decision.generation, decision.ending, decision.reason)
        try:
            self._opening.open_return(self._live[name], seen.store)
        except StoreError as error:
            self._fail(name, error)
        return True

    def _end(self, name: str, seen: Observation, decision: Done | Blocked) -> None:
        if isinstance(decision, Done) and self._goes_back(name, seen, decision):
            return
        current = seen.store.current.generation if seen.store.current else None
        promoted = isinstance(decision, Done) and decision.ending is Ending.PROMOTED
        if promoted and not self._leaves_evidence(name, seen):
            return
        if isinstance(decision, Blocked):
            self._journal.audit(name, current or 0, "blocked", decision.reason)
        elif decision.ending is not Ending.UNCHANGED:
            self._journal.close_rotation(name, decision.generation, decision.ending, decision.reason)
        self._say(name, "blocked" if isinstance(decision, Blocked) else decision.ending, decision.reason)
        if promoted and self._request.retire:
            self._retiring.add(name)
            return
        self._results[name] = Result(name, decision)
        del self._live[name]

    def _leaves_evidence(self, name: str, seen: Observation) -> bool:
        """Before the rotation is closed: a run that dies in between leaves it to the next one to write the evidence.
        What goes on without evidence (an incident) is not held up by evidence that cannot be written."""
        current = seen.store.current
        try:
            if current is not None and current.generation is not None and not seen.carries:
                self._engine.evidence.record(self._live[name], current.generation)
        except KeyturnError as error:
            if self._request.override is None:
                self._fail(name, error)
                return False
            self._journal.audit(name, 0, "overridden", f"{self._request.override} ({error})")
        return True

    def _fail(self, name: str, error: KeyturnError, seen: Observation | None = None) -> None:
        if seen is not None and seen.store.rejected:
            self._journal.audit(name, 0, "undo failed", str(error))
        self._say(name, "failed", str(error))
        self._results[name] = Result(name, error=error)
        self._live.pop(name, None)

    def _leave(self, name: str, wait: Wait) -> None:
        self._say_once(name, wait)
        self._results[name] = Result(name, wait)
        del self._live[name]

    def _stay(self, waits: Mapping[str, Wait]) -> bool:
        """Sleep until something may have changed; False when only others can go on, or the time to wait is over."""
        now = self._engine.clock()
        for name, wait in waits.items():
            self._say_once(name, wait)
        timely = [
            w
            for w in waits.values()
            if not w.outside and not (w.surely and w.until is not None and w.until > self._ends)
        ]
        if not timely or now >= self._ends:
            return False
        ends = min([self._ends, *(wait.until for wait in timely if wait.until is not None)])
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        self._engine.sleep(min(self._pause, max((ends - now).total_seconds(), SHORTEST_PAUSE)))
        return True

    def _say_once(self, name: str, wait: Wait) -> None:
        if self._said.get(name) != wait.reason:
            self._said[name] = wait.reason
            self._say(name, "waits", until(wait))

    def _say(self, name: str, what: str, detail: str) -> None:
        self._engine.say(Event(self._engine.clock(), name, what, detail))


def _undecided(seen: Observation) -> bool:
    return candidate_of(seen.store) is not None and not seen.store.rejected and not seen.store.promoting


def _phase(decision: Step | Wait, seen: Observation) -> str | None:
    """The phase that a decision belongs to. Never held up are undoing, what follows the current generation, and the
    retirement of an older generation that is in the way: they belong to none."""
    if isinstance(decision, Wait):
        return "observe" if decision.observing else None
    if decision.act in (Act.PIN, Act.DEPLOY):
        if seen.store.rejected or decision.generation != candidate_of(seen.store):
            return None
        return "canary" if decision.ring is Ring.CANARY else "deploy"
    return decision.act if decision.act in PHASES and decision.act is not Act.RETIRE else None


def _ring(step: Step) -> Ring:
    if step.ring is None:
        raise ValueError(f"{step.act} needs a ring")
    return step.ring


def until(wait: Wait) -> str:
    return wait.reason if wait.until is None else f"{wait.reason}, until {wait.until:%Y-%m-%d %H:%M:%S} UTC"
