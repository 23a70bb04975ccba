"""What all four ways look at: stores, pins, deployments, and who works on what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from rotation.engine import Engine, candidate_of
from rotation.errors import KeyturnError
from rotation.manifest import Secret
from rotation.model import Place, StoreView
from rotation.pins import Pins

# A rotation that was opened and waits for its next run (a pipeline's, perhaps) is stuck only this long after its own
# times are over: runs are hours apart.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Work:
    """Who works on which secrets. ``busy`` ones are held by a runner that lives, or were acted on since the look
    began; the runner of ``dead`` ones died with them in its hands; ``opened`` says since when rotations are open."""

    busy: frozenset[str]
    dead: frozenset[str]
    opened: Mapping[str, datetime]

    @classmethod
    def at(cls, engine: Engine, began: datetime) -> Work:
        held = engine.journal.holders()
        acted = {intent.secret for intent in engine.journal.intents(began)}
        alive = {name for name, lives in held.items() if lives}
        dead = held.keys() | engine.journal.interrupted()
        return cls(frozenset(alive | acted), frozenset(dead - alive), engine.journal.opened())


@dataclass(frozen=True, slots=True)
class Trouble:
    """A part of the environment that could not be asked, and the secrets that this leaves unknown."""

    what: str
    error: KeyturnError
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """One look. ``stored`` has no view of secrets whose store could not be asked; ``deployed`` is None where a target
    could not be, ``pins`` where their file cannot be read. ``in_flight`` are the secrets of rotations that have every
    right to be under way."""

    engine: Engine
    began: datetime
    stored: Mapping[str, StoreView]
    pins: Pins | None
    deployed: Mapping[Place, Mapping[str, int]] | None
    work: Work
    in_flight: frozenset[str]
    troubles: tuple[Trouble, ...]

    @property
    def secrets(self) -> Iterable[tuple[Secret, StoreView]]:
        """The secrets whose stores answered, in order."""
        return ((self.engine.manifest.secrets[name], view) for name, view in sorted(self.stored.items()))

    def used(self) -> dict[str, dict[int, list[Place]]]:
        """Where each generation of each secret is pinned or deployed."""
        pinned = {place: self.pins.at(*place) for place in self.pins.places()} if self.pins else {}
        found: dict[str, dict[int, list[Place]]] = {}
        for places in (pinned, self.deployed or {}):
            for place, generations in places.items():
                for name, generation in generations.items():
                    here = found.setdefault(name, {}).setdefault(generation, [])
                    here += [place] if place not in here else []
        return found


def look(engine: Engine, *, deployments: bool) -> Scene:
    """Look at stores (in batches), pins and, where they are of interest, at deployments. Changes nothing."""
    began = engine.clock()
    stored, troubles = _stored(engine)
    pins, deployed = None, None
    try:
        pins = engine.rollout.pins()
    except KeyturnError as error:
        troubles.append(Trouble(engine.manifest.pins.as_posix(), error))
    if deployments:
        try:
            deployed = _deployed(engine)
        except KeyturnError as error:
            troubles.append(Trouble("deployments", error))
    work = Work.at(engine, began)
    in_flight = frozenset(
        name for name, view in stored.items() if _is_in_flight(engine.manifest.secrets[name], view, work, began)
    )
    return Scene(engine, began, stored, pins, deployed, work, in_flight | work.busy, tuple(troubles))


def _stored(engine: Engine) -> tuple[dict[str, StoreView], list[Trouble]]:
    views: dict[str, StoreView] = {}
    troubles: list[Trouble] = []
    by_store = sorted(engine.manifest.secrets.values(), key=_store)
    for _, group in groupby(by_store, key=_store):
        members = list(group)
        try:
            seen = engine.observer.stored(members, troubled=True)
        except KeyturnError as error:
            troubles.append(Trouble(members[0].store.kind, error, tuple(secret.name for secret in members)))
            continue
        views |= {name: view for name, view in seen.items() if view.trouble is None}
        troubles += [Trouble(name, view.trouble, (name,)) for name, view in seen.items() if view.trouble is not None]
    return views, troubles


def _store(secret: Secret) -> str:
    return secret.store.model_dump_json()


def _deployed(engine: Engine) -> dict[Place, dict[str, int]]:
    targets = {id(target): target for target in map(engine.plugins.target, engine.manifest.consumers.values())}
    return {place: pins for target in targets.values() for place, pins in target.deployed().items()}


def _is_in_flight(secret: Secret, view: StoreView, work: Work, now: datetime) -> bool:
    """Whether a rotation of the secret is under way and not stuck: its runner has not died, and its own times, with
    some patience where it is on record, are not over."""
    opened = work.opened.get(secret.name)
    if secret.name in work.dead or (opened is None and candidate_of(view) is None):
        return False
    ends = under_way_until(secret, opened, view.changed_at)
    return ends is not None and now < ends


def under_way_until(secret: Secret, opened: datetime | None, changed_at: datetime | None) -> datetime | None:
    """Until when a rotation that was opened then, or that nobody recorded and of which the store's last change is all
    that is known, has every right to be under way; None where nobody knows."""
    since = opened or changed_at
    if since is None:
        return None
    times = secret.bake + secret.settle + 2 * secret.patience
    return since + times + (PATIENCE if opened else timedelta(0))
