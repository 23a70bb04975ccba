"""A small world to rotate in: a store with staging labels, a target with principals, an application in two rings.

Its parts are plugins like the real ones, so the engine that runs here is the real engine with the real journal, pins
and templates. Every remote call goes through :meth:`World.call`, which can end the run before or after any of them, and
which checks after each that nothing that must always hold was broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

from rotation import pins as pins_file
from rotation.credentials import ComparesPrivileges, CredentialKind, ReportsUsage
from rotation.engine import Engine, Request, Result
from rotation.errors import Conflict, GenerationSpent, StoreError, TargetError, Unavailable
from rotation.journal import Journal
from rotation.keys import KeyService
from rotation.manifest import Consumer, ConsumerRing, Key, Manifest, Plugin, Secret
from rotation.model import Acceptance, Credential, Health, Ring, StoreView, Strategy, Usage, Verdict, Version
from rotation.plugins import Plugins
from rotation.secret_value import SecretValue
from rotation.signals import ReportsRunning, Signal
from rotation.stores import SecretStore
from rotation.targets import Deployment, DeployTarget, Place

NAME = "orders/db"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Killed(BaseException):
    """The runner died here. No part of the engine may catch it."""


class Broken(AssertionError):
    """Something that must always hold did not."""


@dataclass
class Slot:
    """One secret in the store: values by generation, and the labels on them."""

    values: dict[int, SecretValue] = field(default_factory=dict)
    current: int | None = None
    pending: int | None = None
    previous: int | None = None
    open: int | None = None


@dataclass
class Principal:
    """One login of the target. ``installed`` is the generation that it was last installed for."""

    password: str | None = None
    installed: int = 0
    sessions: int = 0


@dataclass
class Faults:
    """What goes wrong, by generation or altogether."""

    ignores_installs: set[int] = field(default_factory=set)
    lacks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    bad_under: set[int] = field(default_factory=set)
    silent_signals: bool = False
    target_down: bool = False
    never_reloads: bool = False


@dataclass
class World:
    """Everything outside the runner. ``kill_at`` is the number of the remote call to die at, and on which side."""

    project: Path
    strategy: Strategy = Strategy.ALTERNATING
    now: datetime = START
    slot: Slot = field(default_factory=Slot)
    principals: dict[str, Principal] = field(default_factory=lambda: {"a": Principal(), "b": Principal()})
    deployed: dict[Place, dict[str, int]] = field(default_factory=dict)
    running: dict[Ring, int] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    kill_at: tuple[int, Literal["before", "after"]] | None = None
    calls: list[str] = field(default_factory=list)
    highest_current: int = 0
    consumers: bool = True

    def __post_init__(self) -> None:
        (self.project / "stacks" / "config").mkdir(parents=True, exist_ok=True)
        (self.project / "stacks" / "config" / "orders-api.yaml.j2").write_text(
            '{% for name, secret in secrets.items() %}"{{ name }}": {{ secret.generation }}\n{% endfor %}'
        )

    # The runner's view

    @property
    def manifest(self) -> Manifest:
        rings = {
            ring: ConsumerRing(
                rendered=Path(f"stacks/config/rendered/test/{ring}/orders-api.yaml"),
                addresses=(f"terraform_data.{ring}",),
                signals=(Plugin(kind="world", options={"ring": ring}),),
            )
            for ring in Ring
        }
        consumer = Consumer(
            name="orders-api",
            template=Path("stacks/config/orders-api.yaml.j2"),
            format="yaml",
            secrets=(NAME,),
            target=Plugin(kind="world"),
            rings=rings,
        )
        return Manifest(
            environment="test",
            order=0,
            sources="",
            pins=Path("stacks/pins/test.json"),
            secrets={NAME: self.secret},
            consumers={"orders-api": consumer} if self.consumers else {},
        )

    @property
    def secret(self) -> Secret:
        return Secret(
            name=NAME,
            stored_as=NAME,
            store=Plugin(kind="world"),
            credential=Plugin(kind="world"),
            strategy=self.strategy,
            bake=timedelta(seconds=20),
            settle=timedelta(seconds=10),
            patience=timedelta(seconds=30),
            grace=timedelta(seconds=60),
        )

    def engine(self, journal: Path | None = None) -> Engine:
        manifest = self.manifest
        return Engine(
            project=self.project,
            manifest=manifest,
            plugins=WorldPlugins(self, self.project, manifest),
            journal=Journal(journal or self.project / "journal.sqlite3", self.clock),
            clock=self.clock,
            sleep=self.sleep,
            workers=1,
        )

    def run(self, request: Request | None = None, journal: Path | None = None) -> Result:
        """Run a new runner to its end; :class:`Killed` comes through."""
        engine = self.engine(journal)
        try:
            return engine.run([NAME], request or Request(wait=timedelta(hours=1)))[NAME]
        finally:
            engine.journal.close()

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # Remote calls

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """One remote call: counted, perhaps the runner's last, and followed by a look at what must always hold."""
        self.calls.append(name)
        at, side = self.kill_at or (0, "before")
        if at == len(self.calls) and side == "before":
            raise Killed
        yield
        self.check()
        if at == len(self.calls):
            raise Killed

    def check(self) -> None:
        """I1 and I3, and that no ring runs what the target denies."""
        if self.strategy is Strategy.SINGLE:
            return
        current = self.slot.current
        if current is not None and not self.accepts(self.slot.values[current]):
            raise Broken(f"the target denies the current generation {current} after {self.calls[-3:]}")
        if (current or 0) < self.highest_current:
            raise Broken(f"current went back from {self.highest_current} to {current}")
        self.highest_current = current or 0
        for ring, generation in self.running.items():
            if not self.accepts(self.slot.values[generation]):
                raise Broken(f"the {ring} ring runs generation {generation}, which the target denies")

    def accepts(self, value: SecretValue) -> bool:
        content = json.loads(value.reveal())
        return bool(self.principals[content["username"]].password == content["password"])

    def reload(self) -> None:
        """The application takes up what is deployed."""
        if self.faults.never_reloads:
            return
        for (_, ring), pins in self.deployed.items():
            if NAME in pins:
                self.running[ring] = pins[NAME]


class WorldPlugins(Plugins):
    def __init__(self, world: World, project: Path, manifest: Manifest) -> None:
        super().__init__(project, manifest)
        self._world = world
        self._made_target = WorldTarget(world)

    def store(self, secret: Secret) -> SecretStore:
        return WorldStore(self._world)

    def kind(self, secret: Secret) -> CredentialKind:
        return WorldKind(self._world)

    def keys(self, key: Key) -> KeyService:
        raise NotImplementedError

    def target(self, consumer: Consumer) -> DeployTarget:
        return self._made_target

    def signals(self, ring: ConsumerRing) -> tuple[Signal, ...]:
        return tuple(WorldSignal(self._world, Ring(plugin.options["ring"])) for plugin in ring.signals)


class WorldStore(SecretStore):
    """A store whose single calls are atomic, and whose promote takes three of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._slot = world.slot

    def observe(self, names: Sequence[str]) -> dict[str, StoreView]:
        with self._world.call("store.observe"):
            slot = self._slot
            labelled = [g for g in (slot.current, slot.pending, slot.previous) if g is not None]
            pending = slot.pending if slot.pending != slot.current else None
            return {
                name: StoreView(
                    name,
                    reference=f"arn:{name}",
                    current=_version(slot.current),
                    pending=_version(pending),
                    previous=_version(slot.previous),
                    rejected=pending is not None and slot.open is not None and slot.open != pending,
                    highest=max(labelled, default=0),
                )
                for name in names
            }

    def stage(self, name: str, generation: int, value: SecretValue) -> SecretValue:
        with self._world.call("store.stage"):
            slot = self._slot
            if generation in slot.values:
                if generation not in (slot.current, slot.pending, slot.previous):
                    raise GenerationSpent("used before", max(slot.values))
                return slot.values[generation]
            slot.values[generation] = value
            slot.pending = slot.open = generation
            return value

    def read(self, name: str, version: Version | None = None) -> SecretValue:
        with self._world.call("store.read"):
            generation = version.generation if version else self._slot.current
            if generation is None or generation not in self._slot.values:
                raise StoreError("no such version")
            return self._slot.values[generation]

    def promote(self, name: str, generation: int, expected: Version | None) -> None:
        slot = self._slot
        if slot.current == generation:
            return
        with self._world.call("store.promote: claim"):
            if slot.pending != generation or slot.open not in (None, generation):
                raise Conflict("rejected or replaced")
            slot.open = None
        with self._world.call("store.promote: move"):
            if slot.current != (expected.generation if expected else None):
                raise Conflict("something else is current")
            slot.previous, slot.current = slot.current, generation
        with self._world.call("store.promote: clear"):
            slot.pending = None if slot.pending == generation else slot.pending

    def reject(self, name: str, generation: int) -> None:
        with self._world.call("store.reject"):
            slot = self._slot
            if slot.pending != generation or slot.open is None:
                raise Conflict("not pending, or being promoted")
            slot.open = slot.current or -1

    def discard(self, name: str, generation: int) -> None:
        with self._world.call("store.discard"):
            slot = self._slot
            if slot.current == generation:
                raise Conflict("it is current")
            slot.pending = None if slot.pending == generation else slot.pending
            slot.previous = None if slot.previous == generation else slot.previous

    def predict(self, name: str, generation: int) -> Version:
        return Version(f"v{generation}", generation)


class WorldKind(CredentialKind, ReportsUsage, ComparesPrivileges):
    """Two principals in turn, or one in place. A principal remembers for which generation it was installed."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.ALTERNATING, Strategy.SINGLE})

    def __init__(self, world: World) -> None:
        self._world = world

    def issue(self, current: Credential | None) -> SecretValue:
        used = _content(current)["username"] if current else "b"
        username = used if self._world.strategy is Strategy.SINGLE else {"a": "b", "b": "a"}[used]
        return SecretValue(json.dumps({"username": username, "password": f"canary-{len(self._world.slot.values)}"}))

    def install(self, new: Credential, current: Credential | None) -> None:
        with self._asked("target.install"):
            if self._world.slot.values.get(new.generation) != new.value:
                raise Broken(f"generation {new.generation} is installed before it is staged")
            content = _content(new)
            principal = self._world.principals[content["username"]]
            if principal.installed > new.generation:
                raise TargetError("superseded")
            if new.generation not in self._world.faults.ignores_installs:
                principal.password, principal.installed = content["password"], new.generation

    def check(self, credential: Credential) -> Acceptance:
        try:
            with self._asked("target.check"):
                accepted = self._world.accepts(credential.value)
        except Unavailable:
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED if accepted else Acceptance.DENIED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        with self._asked("target.revoke"):
            content = _content(old)
            if current is not None and _content(current)["username"] == content["username"]:
                return
            principal = self._world.principals[content["username"]]
            if principal.installed <= old.generation:
                principal.password, principal.installed = None, old.generation

    def usage(self, credential: Credential) -> Usage:
        with self._asked("target.usage"):
            return Usage(self._world.principals[_content(credential)["username"]].sessions)

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        with self._asked("target.missing"):
            return self._world.faults.lacks.get(new.generation, ())

    @contextmanager
    def _asked(self, name: str) -> Iterator[None]:
        with self._world.call(name):
            if self._world.faults.target_down:
                raise Unavailable("the target is down")
            yield


class WorldTarget(DeployTarget):
    def __init__(self, world: World) -> None:
        self._world = world

    def deployed(self) -> dict[Place, dict[str, int]]:
        with self._world.call("deploy.deployed"):
            return {place: dict(pins) for place, pins in self._world.deployed.items()}

    def apply(self, places: Sequence[Place]) -> Deployment:
        with self._world.call("deploy.apply"):
            pins = pins_file.load(self._world.project / "stacks/pins/test.json")
            for place in places:
                self._world.deployed[place] = dict(pins.at(*place))
            self._world.reload()
            return Deployment("0" * 64, tuple(f"terraform_data.{ring}" for _, ring in places))


class WorldSignal(Signal, ReportsRunning):
    def __init__(self, world: World, ring: Ring) -> None:
        self._world = world
        self._ring = ring

    def running(self, secret: str) -> int | None:
        return self._world.running.get(self._ring)

    def read(self, secret: str, generation: int, since: datetime, now: datetime) -> Verdict:
        if generation in self._world.faults.bad_under:
            return Verdict(Health.BAD, (f"errors under generation {generation}",))
        if self._world.faults.silent_signals:
            return Verdict(Health.UNKNOWN, ("no lines",))
        return Verdict(Health.GOOD, ("fine",))


def _content(credential: Credential) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(credential.value.reveal())
    return content


def _version(generation: int | None) -> Version | None:
    return None if generation is None else Version(f"v{generation}", generation)


def snapshot(world: World) -> Mapping[str, object]:
    """What two worlds are compared by when a run ended: everything but the clock and the calls."""
    pins = pins_file.load(world.project / "stacks/pins/test.json")
    return {
        "current": world.slot.current,
        "pending": world.slot.pending,
        "previous": world.slot.previous,
        "pins": {place: dict(pins.at(*place)) for place in pins.places()},
        "deployed": world.deployed,
        "running": world.running,
        "logins": {name for name, principal in world.principals.items() if principal.password is not None},
    }


def fresh(make: Callable[[], Path], strategy: Strategy = Strategy.ALTERNATING, **faults: Any) -> World:
    """A world with its first generation promoted and in use."""
    world = World(make(), strategy)
    result = world.run(Request(initialize=True, wait=timedelta(hours=1)))
    if result.error is not None:
        raise result.error
    world.faults = replace(world.faults, **faults)
    world.calls.clear()
    return world
