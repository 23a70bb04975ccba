"""An incident: a system is compromised, and everything that it could read is turned and the old values die.

- A *system* is a principal that a secret declares as its reader, in full or by its last path part (``orders-api`` for
  ``arn:aws:iam::…:role/orders-api``), or a consumer, which holds its secrets.
- Who reads a secret that other kinds work with (an administrator's login) could have read or made everything that those
  kinds made: these secrets are turned too. What those kinds work with and no stack declares is left to people, by name.
- *Order*: what others are made with comes first, and the others wait until it is turned and its old value is dead; else
  who holds the old one could read the new ones. Secrets that do not depend on each other are turned together.
- *A value is new* when it was staged after the incident began, as this journal knows, and does not carry an older one.
  A candidate in flight when it begins was stored before, so the system could have read it: it is taken back before it
  goes any further (one whose promotion is decided, or that brings an old value back, is finished, since it cannot be
  taken back), and the secret is turned once more. A return that has staged nothing yet is called off.
- *The old values* have no grace and their sessions end, but still not before every ring runs the new one and the target
  accepts it. A reader that is no declared consumer gets no time to follow.
- Windows, blackouts, the minimum age and the evidence of rehearsals are ignored; the audit trail says so. Each API's
  quota is kept, as ever.
- *Resumable*: the beginning is in the journal, and the same command goes on from there: what is new already is not
  turned again. Once it is over it is closed, and the next one for the same system begins anew. With a lost journal it
  begins anew, too: more is turned than need be, and nothing less.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from graphlib import CycleError, TopologicalSorter

from rotation.engine import Engine, Request, Result
from rotation.errors import DeclarationError, JournalError, KeyturnError, LeaseHeld, UsageError
from rotation.incident_report import IGNORED, Line, Report, State, when
from rotation.journal import Journal, Rotation
from rotation.manifest import Manifest, Secret
from rotation.model import Blocked, Done, Ending, Reason, Rejection, StoreView, Trigger, Wait
from rotation.opening import Purpose, candidate_of

MOST_ROUNDS = 8  # of looking and acting on one wave; a secret needs four: take back, finish, rotate, retire

_BEGAN, _FINISHED = "began", "finished"  # topics of the journal's notes on an incident
_ORDER = (Purpose.ROLL_BACK, Purpose.RESUME, Purpose.ROTATE, Purpose.RETIRE)


# What a system could read


def reach(manifest: Manifest, system: str) -> dict[str, str]:
    """The secrets that a system could have read, each with the way. Raises UsageError for an unknown system."""
    found: dict[str, str] = {}
    for name, secret in sorted(manifest.secrets.items()):
        for reader in secret.readers:
            if system in (reader, reader.rpartition("/")[2]):
                found.setdefault(name, f"read by {reader}")
    if system in manifest.consumers:
        for name in manifest.consumers[system].secrets:
            found.setdefault(name, f"held by {system}")
    if not found:
        known = ", ".join(systems(manifest)) or "none"
        raise UsageError(
            f"no secret of {manifest.environment} has a reader or consumer {system!r} (known: {known})",
            "Name a system as it is declared: a principal, the last part of its path, or a consumer.",
        )
    makers = list(found)
    for maker in makers:  # grows as it goes
        for secret in made_with(manifest, maker):
            if secret.name not in found:
                found[secret.name] = f"made with {maker}"
                makers.append(secret.name)
    return found


def systems(manifest: Manifest) -> list[str]:
    """What can be named as a system: consumers and readers."""
    readers = {reader for secret in manifest.secrets.values() for reader in secret.readers}
    using = {consumer.name for consumer in manifest.consumers.values() if consumer.secrets}
    return sorted(using | readers)


def made_with(manifest: Manifest, name: str) -> list[Secret]:
    """The other secrets whose kinds read this one."""
    maker = manifest.secret(name)
    return [
        secret
        for _, secret in sorted(manifest.secrets.items())
        if secret is not maker and maker.stored_as in secret.reads and maker.store == secret.store
    ]


def in_order(manifest: Manifest, names: Iterable[str]) -> TopologicalSorter[str]:
    """The secrets with those first that others are made with. Raises DeclarationError for a circle."""
    wanted = set(names)
    graph: dict[str, set[str]] = {name: set() for name in wanted}
    for maker in wanted:
        for secret in made_with(manifest, maker):
            if secret.name in wanted:
                graph[secret.name].add(maker)
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise DeclarationError(f"these secrets are made with each other: {circle}") from error
    return sorter


def undeclared(manifest: Manifest, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What the kinds of these secrets read and no stack declares, by its name in the store: it may have been in reach
    too, and is to be turned by hand. Each with the secrets that are made with it."""
    declared = {(secret.store.model_dump_json(), secret.stored_as) for secret in manifest.secrets.values()}
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(names):
        secret = manifest.secret(name)
        for read in secret.reads:
            if (secret.store.model_dump_json(), read) not in declared:
                found[read] = (*found.get(read, ()), name)
    return found


# The incident in the journal


@dataclass(frozen=True, slots=True)
class Incident:
    """One compromised system. ``reached`` are the secrets that it could have read, with the way; ``before`` their
    generations when it ``began``. ``resumed`` tells that an earlier run began it."""

    system: str
    began: datetime
    reached: Mapping[str, str]
    before: Mapping[str, int]
    resumed: bool


def find(manifest: Manifest, journal: Journal, system: str) -> Incident | None:
    """The open incident of a system."""
    reached = reach(manifest, system)
    note = journal.notes(_subject(system)).get(_BEGAN)
    return Incident(system, note.at, reached, json.loads(note.detail), resumed=True) if note else None


def begin(engine: Engine, system: str) -> Incident:
    """Go on with the open incident of a system, or put on record that one begins."""
    standing = find(engine.manifest, engine.journal, system)
    if standing is not None:
        return standing
    reached = reach(engine.manifest, system)
    views = engine.observer.stored((engine.manifest.secret(name) for name in reached), fresh=True)
    before = {name: number for name, view in views.items() if (number := _current(view)) is not None}
    engine.journal.audit(_subject(system), 0, "incident begins", f"{', '.join(sorted(reached))}; {IGNORED}")
    note = engine.journal.note(_subject(system), _BEGAN, 0, json.dumps(before, sort_keys=True))
    return Incident(system, note.at, reached, before, resumed=False)


def opening(incident: Incident) -> str:
    """What a run says first."""
    at = when(incident.began)
    if not incident.resumed:
        return f"{incident.system}: an incident begins, at {at}; this journal knows of none that is open"
    return f"{incident.system}: goes on with the incident of {at}; for a new one, close that with --done first"


def close(engine: Engine, incidents: Sequence[Incident]) -> Report:
    """Close incidents that are over, and report on them. Raises UsageError for what is not turned or not retired."""
    response = _Response(engine, incidents, Request())
    report = response.report({})
    left = [line.secret for line in report.lines if not line.over]
    if left:
        raise UsageError(
            f"the incident is not over: {', '.join(left)} still to be turned or retired",
            "Run the same command without --done; a secret that nobody needs any more is taken out of the stacks.",
        )
    for incident in incidents:
        subject = _subject(incident.system)
        engine.journal.audit(subject, 0, "incident closed", f"begun {incident.began:%Y-%m-%d %H:%M:%S} UTC")
        engine.journal.forget(subject, _FINISHED)
        engine.journal.forget(subject, _BEGAN)
    return report


def _subject(system: str) -> str:
    return f"incident {system}"  # no secret's name has a space


# Turning


def respond(engine: Engine, incidents: Sequence[Incident], *, outside: bool, wait: timedelta) -> Report:
    """Turn all that these systems could have read, and retire the old values. What concerns one secret, or one wave, is
    in the report; a journal that fails is raised."""
    names = {name for incident in incidents for name in incident.reached}
    words = f"compromised {', '.join(incident.system for incident in incidents)}"
    request = Request(
        outside=outside,
        retire=True,
        override=f"an incident: {words}",
        reason=str(Reason(Trigger.INCIDENT, words)),
        wait=wait,
    )
    return _Response(replace(engine, manifest=engine.manifest.urgent(names)), incidents, request).run()


class _Response:
    """One run of an incident, or of several at once."""

    def __init__(self, engine: Engine, incidents: Sequence[Incident], request: Request) -> None:
        self._engine = engine
        self._manifest = engine.manifest
        self._journal = engine.journal
        self._incidents = incidents
        self._request = request
        self._names = sorted({name for incident in incidents for name in incident.reached})

    def run(self) -> Report:
        ends: dict[str, Result] = {}
        sorter = in_order(self._manifest, self._names)
        while wave := sorter.get_ready():
            ends |= self._turn(wave)
            sorter.done(*(line.secret for line in self._lines(wave, ends)[0] if line.over))
        for name in set(self._names) - ends.keys():
            ends[name] = Result(name, Wait("what it is made with is to be turned and retired first", outside=True))
        return self.report(ends)

    def report(self, ends: Mapping[str, Result]) -> Report:
        lines, ends = self._lines(self._names, ends)
        return Report(
            environment=self._manifest.environment,
            began={incident.system: incident.began for incident in self._incidents},
            lines=lines,
            by_hand=undeclared(self._manifest, self._names),
            took=self._finished(lines) - min(incident.began for incident in self._incidents),
            results=ends,
        )

    def _finished(self, lines: Iterable[Line]) -> datetime:
        """When the last of these incidents was over, as far as it is: a later look does not make it longer."""
        subjects = [_subject(incident.system) for incident in self._incidents]
        if all(line.over for line in lines):
            return max(self._journal.first_noted(subject, _FINISHED, 0).at for subject in subjects)
        for subject in subjects:
            self._journal.forget(subject, _FINISHED)
        return self._engine.clock()

    # One wave

    def _turn(self, wave: Collection[str]) -> dict[str, Result]:
        """Bring these secrets as far as they go, side by side; every round does what has to be done first."""
        ends: dict[str, Result] = {}
        left = set(wave)
        for _ in range(MOST_ROUNDS):
            try:
                purposes = self._purposes(left)
            except JournalError:
                raise
            except KeyturnError as error:
                return ends | {name: Result(name, error=error) for name in left}
            ends |= {name: Result(name, _over()) for name in left - purposes.keys()}
            if not purposes:
                return ends
            purpose = min(purposes.values(), key=_ORDER.index)
            results = self._run([name for name in purposes if purposes[name] is purpose], purpose)
            ends |= {name: result for name, result in results.items() if not _goes_on(result, purpose)}
            left = purposes.keys() - ends.keys()
        return ends | {name: Result(name, error=_no_effect(name)) for name in left}

    def _purposes(self, names: Collection[str]) -> dict[str, Purpose]:
        """What each secret needs next; those that need nothing are left out."""
        views = self._look(names)
        found = ((name, self._purpose(name, views[name])) for name in sorted(names))
        return {name: purpose for name, purpose in found if purpose is not None}

    def _purpose(self, name: str, view: StoreView) -> Purpose | None:
        """What a secret needs next, None for nothing. A rotation that has nothing staged, and was turned down or would
        bring an old value back, is called off, so that the next one begins anew."""
        candidate, current, standing = candidate_of(view), _current(view), self._journal.rotation(name)
        if candidate is not None and not self._is_new(name, candidate):
            return Purpose.RESUME if view.promoting else Purpose.ROLL_BACK
        if view.exists and view.current is None and view.pending is None:
            return None
        if not self._is_new(name, current):
            if candidate is None and standing is not None and self._is_void(standing):
                self._journal.close_rotation(name, current or 0, Ending.ROLLED_BACK, "called off: an incident began")
            return Purpose.ROTATE
        if not self._old_is_left(name, view):
            return Purpose.RESUME if standing is not None and standing.goal <= (current or 0) else None
        return Purpose.RETIRE if view.pending is None and standing is None else Purpose.RESUME

    def _old_is_left(self, name: str, view: StoreView) -> bool:
        """Whether a value from before is still kept beside the current one. What later rotations leave is not."""
        beside = [version for version in view.versions if version != view.current]
        return not all(self._is_new(name, version.generation) for version in beside)

    def _is_void(self, standing: Rotation) -> bool:
        """Whether an open rotation without a candidate is to bring an old value back, or has been turned down: the run
        that did so died before it could close it."""
        note = self._journal.notes(standing.secret).get("rejected")
        turned_down = note is not None and note.generation >= standing.goal and note.detail != Rejection.TARGET
        return standing.carries is not None or turned_down

    def _is_new(self, name: str, generation: int | None) -> bool:
        """Whether a generation was made after the last of the incidents that reach its secret began."""
        made = self._journal.made_at(name, generation) if generation is not None else None
        began = max(incident.began for incident in self._incidents if name in incident.reached)
        return made is not None and made >= began

    def _run(self, names: Sequence[str], purpose: Purpose) -> dict[str, Result]:
        """Let the engine work on these secrets. What another runner holds is left to it; the others go on."""
        request = replace(self._request, purpose=purpose)
        try:
            try:
                return self._engine.run(names, request)
            except LeaseHeld:
                held = self._held(names)
                free = [name for name in names if name not in held]
                return held | (self._engine.run(free, request) if free else {})
        except JournalError:
            raise
        except KeyturnError as error:
            return {name: Result(name, error=error) for name in names}

    def _held(self, names: Iterable[str]) -> dict[str, Result]:
        held: dict[str, Result] = {}
        for name in names:
            try:
                with self._journal.lease([name]):
                    pass
            except LeaseHeld as error:
                held[name] = Result(name, error=error)
        return held

    def _look(self, names: Iterable[str]) -> dict[str, StoreView]:
        return self._engine.observer.stored((self._manifest.secret(name) for name in names), fresh=True)

    # Reporting

    def _lines(
        self, names: Collection[str], ends: Mapping[str, Result]
    ) -> tuple[tuple[Line, ...], Mapping[str, Result]]:
        """What became of these secrets by what the store holds now. A store that does not answer is what failed."""
        try:
            views = self._look(names)
        except JournalError:
            raise
        except KeyturnError as error:
            failed = {name: result for name, result in ends.items() if result.error is not None}
            ends = {**ends, **{name: Result(name, error=error) for name in names}, **failed}
            views = {name: StoreView(name) for name in names}
        return tuple(self._line(name, views[name], ends.get(name)) for name in sorted(names)), ends

    def _line(self, name: str, view: StoreView, result: Result | None) -> Line:
        reached = next(incident.reached[name] for incident in self._incidents if name in incident.reached)
        old = next((i.before[name] for i in self._incidents if name in i.before), None)
        current = _current(view)
        turned = self._is_new(name, current)
        trouble = _trouble(result, turned=turned) if result is not None else None
        state, why, remedy = trouble or _standing(view, turned=turned, old_is_left=self._old_is_left(name, view))
        new = current if turned else None
        return Line(name, reached, old, new, state, why, remedy)


def _trouble(result: Result, *, turned: bool) -> tuple[State, str, str] | None:
    """What keeps a secret from being done with: its state, why, and what to do."""
    decision = result.decision
    if result.error is not None:
        return State.FAILED, str(result.error), result.error.remedy
    if isinstance(decision, Blocked):
        return State.FAILED, decision.reason, decision.remedy
    if isinstance(decision, Done) and decision.ending is Ending.ROLLED_BACK:
        return State.FAILED, decision.reason, "Look at the evidence (`keyturn audit`), then run the same command again."
    if isinstance(decision, Wait):
        return State.TURNED if turned else State.WAITING, decision.reason, ""
    return None


def _standing(view: StoreView, *, turned: bool, old_is_left: bool) -> tuple[State, str, str]:
    """The state of a secret that nothing keeps from being done with, by what the store holds."""
    if view.exists and view.current is None and view.pending is None:
        return State.EMPTY, "", ""
    if not turned:
        return State.WAITING, "it still has the value from before", ""
    return (State.TURNED, "the old value still works", "") if old_is_left else (State.RETIRED, "", "")


def _current(view: StoreView) -> int | None:
    return view.current.generation if view.current is not None else None


def _over() -> Done:
    return Done(Ending.UNCHANGED, 0, "nothing is left to do")


def _goes_on(result: Result, purpose: Purpose) -> bool:
    decision = result.decision
    return isinstance(decision, Done) and (purpose is Purpose.ROLL_BACK or decision.ending is not Ending.ROLLED_BACK)


def _no_effect(name: str) -> KeyturnError:
    return KeyturnError(
        f"{name} was turned time and again, and is still not done with",
        "See whether another runner works against this one; then run the same command again.",
    )
