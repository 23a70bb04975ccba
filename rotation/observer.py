"""Look at everything that a decision rests on: store, target, pins, deployment, signals, and the journal's notes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from rotation.credentials import Expires, HasPublicPart, ReportsUsage
from rotation.custody import Custody
from rotation.errors import KeyturnError, Unavailable
from rotation.journal import Journal, Note
from rotation.manifest import Consumer, ConsumerRing, Manifest, Secret
from rotation.model import (
    Acceptance,
    Act,
    Health,
    Observation,
    Place,
    Rejection,
    Ring,
    RingView,
    StoreView,
    Usage,
    Verdict,
    Version,
)
from rotation.pins import Pins
from rotation.plugins import Plugins
from rotation.renewal import TOPIC
from rotation.signals import Recognises, ReportsRunning, Signal
from rotation.stores import PromotesUnderLease

_EVER = datetime.min.replace(tzinfo=UTC)
Deployed = Mapping[Place, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Scene:
    """What one look at the environment found that is not one secret's own.

    ``highest`` are the highest generations that the journal knew before the stores were asked. Known later, one could
    be newer than what was seen as current: then a value would be staged that was made for a login that is in use.
    """

    stored: Mapping[str, StoreView]
    pins: Pins
    deployed: Deployed
    highest: Mapping[str, int]


class Observer:
    """Observations of the secrets of one environment. ``clock`` is asked for the time of every look."""

    def __init__(
        self, manifest: Manifest, plugins: Plugins, custody: Custody, journal: Journal, clock: Callable[[], datetime]
    ) -> None:
        self._manifest = manifest
        self._plugins = plugins
        self._custody = custody
        self._journal = journal
        self._clock = clock

    def stored(self, secrets: Iterable[Secret], *, fresh: bool = False, troubled: bool = False) -> dict[str, StoreView]:
        """What the stores say, by the declared names, in as few calls as each store allows; ``fresh`` asks for what is
        there now, which may take a call per secret. A secret's own trouble is raised, but for who asks for views that
        are ``troubled``, too."""
        views: dict[str, StoreView] = {}
        by_store = sorted(secrets, key=lambda secret: secret.store.model_dump_json())
        for _, group in groupby(by_store, key=lambda secret: secret.store.model_dump_json()):
            members = list(group)
            seen = self._plugins.store(members[0]).observe([secret.stored_as for secret in members], fresh=fresh)
            views.update({secret.name: seen[secret.stored_as] for secret in members})
        for view in views.values():
            if view.trouble is not None and not troubled:
                raise view.trouble
        return views

    def deployed(self, secrets: Iterable[Secret]) -> dict[Place, dict[str, int]]:
        """What every place that uses these secrets was last deployed with."""
        consumers = {c.name: c for secret in secrets for c in self._manifest.consumers_of(secret.name)}
        targets = {id(target): target for target in map(self._plugins.target, consumers.values())}
        return {place: pins for target in targets.values() for place, pins in target.deployed().items()}

    def look(
        self, secrets: Iterable[Secret], scene: Scene, executor: Executor, *, retire: Collection[str], outside: bool
    ) -> dict[str, Observation | KeyturnError]:
        """One observation per secret, or the error that stood in its way; secrets are looked at side by side. Those
        named in ``retire`` are to lose their previous generation."""

        def one(secret: Secret) -> Observation | KeyturnError:
            try:
                return self._observe(secret, scene, retire=secret.name in retire, outside=outside)
            except KeyturnError as error:
                return error

        members = list(secrets)
        return dict(zip((s.name for s in members), executor.map(one, members), strict=True))

    def signals(self, secret: Secret, view: StoreView, ring: ConsumerRing) -> list[Signal]:
        """The signals of a ring that have something to say of a secret; what they need to know of it, they know."""
        return [
            signal.knowing(self._public_parts(secret, view)) if isinstance(signal, Recognises) else signal
            for signal in self._plugins.signals(ring)
            if not isinstance(signal, Recognises) or signal.secret == secret.name
        ]

    def _public_parts(self, secret: Secret, view: StoreView) -> dict[int, Mapping[str, str]]:
        """The public parts of a secret's generations; without those that cannot be read now."""
        kind = self._plugins.kind(secret)
        parts: dict[int, Mapping[str, str]] = {}
        if not isinstance(kind, HasPublicPart):
            return parts
        for version in view.versions:
            with suppress(KeyturnError):
                credential = self._custody.read(secret, version)
                parts[credential.generation] = kind.public_part(credential)
        return parts

    def _observe(self, secret: Secret, scene: Scene, *, retire: bool, outside: bool) -> Observation:
        view = scene.stored[secret.name]
        notes = self._journal.notes(secret.name)
        rotation = self._journal.rotation(secret.name)
        goal = rotation.goal if rotation else None
        current = _ours(view.current)
        candidate = _ours(view.pending)
        asked = candidate is not None or retire or (goal is not None and (current or 0) < goal)
        candidate_accepted = self._accepted(secret, view.pending) if candidate is not None else Acceptance.UNKNOWN
        current_accepted = self._accepted(secret, view.current) if asked and current else Acceptance.UNKNOWN
        unknown = asked and Acceptance.UNKNOWN in (
            candidate_accepted if candidate is not None else None,
            current_accepted if current else None,
        )
        tested = _about(notes, "tested", candidate)
        rejected = notes.get("rejected")
        if _about(notes, TOPIC, current) is None:
            self._note_renewal(secret, view)
        usage, last_used = self._usage(secret, view, notes) if asked or retire else (None, None)
        promoted_at = self._journal.first_noted(secret.name, "promoted", current).at if current else None
        return Observation(
            store=view,
            rings=self._rings(secret, scene, candidate),
            candidate=candidate_accepted,
            current=current_accepted,
            goal=goal,
            carries=rotation is not None and rotation.carries is not None,
            retire=retire,
            outside=outside,
            highest=scene.highest[secret.name],
            installs=self._journal.count(secret.name, candidate, Act.INSTALL) if candidate is not None else 0,
            tested=None if tested is None else not tested.detail,
            lacks=tuple(tested.detail.splitlines()) if tested else (),
            replaced=_replaced(notes, goal),
            rejection=_rejection(rejected, goal),
            unknown_since=self._since(secret.name, "target unknown", candidate or current or 0, holds=unknown),
            promoted_at=promoted_at,
            last_used=last_used,
            usage=usage,
            settled_at=self._settled_at(secret, promoted_at),
            candidate_settled_at=self._candidate_settled_at(secret, candidate),
        )

    def _settled_at(self, secret: Secret, promoted_at: datetime | None) -> datetime | None:
        """When nothing can arrive any more that another generation was promoted with; see
        :class:`~rotation.stores.PromotesUnderLease`."""
        store = self._plugins.store(secret)
        if promoted_at is None or not isinstance(store, PromotesUnderLease):
            return None
        return max(promoted_at, self._journal.last_ended(secret.name, Act.PROMOTE) or promoted_at) + store.settle

    def _candidate_settled_at(self, secret: Secret, candidate: int | None) -> datetime | None:
        """When a promotion of the candidate itself can no longer arrive; None where none was begun."""
        store = self._plugins.store(secret)
        if candidate is None or not isinstance(store, PromotesUnderLease):
            return None
        ended = self._journal.last_ended(secret.name, Act.PROMOTE, candidate)
        return None if ended is None else ended + store.settle

    def _accepted(self, secret: Secret, version: Version | None) -> Acceptance:
        if version is None:
            return Acceptance.UNKNOWN
        return self._plugins.kind(secret).check(self._custody.read(secret, version))

    def _usage(
        self, secret: Secret, view: StoreView, notes: Mapping[str, Note]
    ) -> tuple[Usage | None, datetime | None]:
        """The target's statistics on the previous generation, and when it was last seen in use; nothing of one whose
        principal is the current one's.

        A marker that has changed since the last look is a use of unknown time in between: it counts as one of now.
        """
        kind = self._plugins.kind(secret)
        previous = _ours(view.previous)
        if view.previous is None or previous is None or not isinstance(kind, ReportsUsage):
            return None, None
        used = _about(notes, "used", previous)
        old = self._custody.read(secret, view.previous)
        current = self._custody.read(secret, view.current) if view.current is not None else None
        try:
            usage = kind.usage(old, current)
        except Unavailable:
            return Usage(sessions=None), used.at if used else None
        if usage is None:
            return None, None
        standing = _about(notes, "usage", previous)
        if standing is None or standing.detail != (usage.marker or ""):
            self._journal.note(secret.name, "usage", previous, usage.marker or "")
        if usage.sessions or (standing is not None and standing.detail != (usage.marker or "")):
            return usage, self._journal.note(secret.name, "used", previous).at
        return usage, used.at if used else None

    def _note_renewal(self, secret: Secret, view: StoreView) -> None:
        """Put on record when a value that ends by itself is to be replaced, for those who read no values."""
        kind = self._plugins.kind(secret)
        if isinstance(kind, Expires) and view.current is not None and view.current.generation is not None:
            current = self._custody.read(secret, view.current)
            self._journal.note(secret.name, TOPIC, current.generation, kind.renew_at(current).isoformat())

    def _rings(self, secret: Secret, scene: Scene, candidate: int | None) -> tuple[RingView, ...]:
        return tuple(
            self._ring(secret, scene, consumer, ring, candidate)
            for consumer in self._manifest.consumers_of(secret.name)
            for ring in sorted(consumer.rings)
        )

    def _ring(self, secret: Secret, scene: Scene, consumer: Consumer, ring: Ring, candidate: int | None) -> RingView:
        pinned = scene.pins.of(consumer.name, ring, secret.name)
        if pinned is not None and not scene.pins.at(consumer.name, ring).keys() >= set(consumer.secrets):
            # Another of its secrets has no value yet: nothing can be deployed, and nothing runs that could break.
            idle = Verdict(Health.GOOD, ("not deployed yet",))
            return RingView(consumer.name, ring, pinned, pinned, pinned, since=_EVER, verdict=idle)
        deployed = scene.deployed.get((consumer.name, ring), {}).get(secret.name)
        signals = self.signals(secret, scene.stored[secret.name], consumer.rings[ring])
        reporters = [signal for signal in signals if isinstance(signal, ReportsRunning)]
        running = agreed(reporters, secret.name) if reporters else deployed
        place = f"{consumer.name}/{ring}"
        since = self._since(secret.name, f"runs {place}", pinned or 0, holds=deployed == running == pinned)
        behind = self._since(
            secret.name, f"behind {place}", pinned or 0, holds=deployed == pinned and running != pinned
        )
        verdict = Verdict(Health.UNKNOWN)
        watched = since or behind  # an application that cannot take up a generation says so, too
        if watched is not None and pinned is not None and pinned == candidate:
            now = self._clock()
            verdict = _judge(signal.read(secret.name, pinned, watched, now) for signal in signals)
        reported = bool(reporters)
        return RingView(consumer.name, ring, pinned, deployed, running, since, behind, verdict, reported)

    def _since(self, secret: str, topic: str, generation: int, *, holds: bool) -> datetime | None:
        """Since when something holds of a generation without a break, as far as it was looked at."""
        if holds:
            return self._journal.first_noted(secret, topic, generation).at
        self._journal.forget(secret, topic)
        return None


def agreed(reporters: Iterable[ReportsRunning], secret: str) -> int | None:
    """The generation that a ring's signals report, None where they differ or cannot tell."""
    reports = {reporter.running(secret) for reporter in reporters}
    return reports.pop() if len(reports) == 1 else None


def _judge(verdicts: Iterable[Verdict]) -> Verdict:
    seen = tuple(verdicts)
    return Verdict.of(seen) if seen else Verdict(Health.GOOD, ("no signals are declared",))


def _replaced(notes: Mapping[str, Note], goal: int | None) -> int:
    note = _about(notes, "replaced", goal)
    return int(note.detail) if note else 0


def _about(notes: Mapping[str, Note], topic: str, generation: int | None) -> Note | None:
    note = notes.get(topic)
    return note if note is not None and note.generation == generation else None


def _rejection(note: Note | None, goal: int | None) -> Rejection | None:
    """Why this rotation's last candidate was turned down; notes on candidates before its goal are of older ones."""
    if note is None or goal is None or note.generation < goal:
        return None
    return Rejection(note.detail)


def _ours(version: Version | None) -> int | None:
    return version.generation if version is not None else None
