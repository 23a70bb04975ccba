"""The plugins of the simulated world: see :mod:`tests.world`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from rotation import pins as pins_file
from rotation.credentials import ComparesPrivileges, CredentialKind, HasAdministrator, ReportsUsage
from rotation.errors import Conflict, GenerationSpent, StoreError, TargetError, Unavailable
from rotation.keys import KeyService
from rotation.manifest import Consumer, ConsumerRing, Key, Manifest, Secret
from rotation.model import (
    Acceptance,
    Credential,
    Health,
    Place,
    Ring,
    StoreView,
    Strategy,
    Usage,
    Verdict,
    Version,
)
from rotation.plugins import Plugins
from rotation.secret_value import SecretValue
from rotation.signals import ReportsRunning, Signal
from rotation.stores import SecretStore, earlier
from rotation.targets import Deployment, DeployTarget
from tests.world import CONSUMER, Broken, Part, Principal, Slot, World


class WorldPlugins(Plugins):
    def __init__(self, world: World, runner: str, project: Path, manifest: Manifest) -> None:
        super().__init__(project, manifest)
        self._world = world
        self._runner = runner
        self._store = WorldStore(world, runner)
        self._target = WorldTarget(world, runner)

    def store(self, secret: Secret) -> SecretStore:
        return self._store

    def kind(self, secret: Secret) -> CredentialKind:
        return WorldKind(self._world, self._runner, secret.name)

    def keys(self, key: Key) -> KeyService:
        raise NotImplementedError

    def target(self, consumer: Consumer) -> DeployTarget:
        return self._target

    def signals(self, ring: ConsumerRing) -> tuple[Signal, ...]:
        signal = TellingSignal if self._world.tells_running else WorldSignal
        return tuple(signal(self._world, self._runner, Ring(plugin.options["ring"])) for plugin in ring.signals)


class WorldStore(SecretStore):
    """A store whose single calls are atomic, and whose promote takes three of them."""

    def __init__(self, world: World, runner: str) -> None:
        self._world = world
        self._runner = runner

    @contextmanager
    def _call(self, what: str, name: str) -> Iterator[Slot]:
        with self._world.call(self._runner, f"store.{what}"):
            yield self._world.parts[name].slot

    def observe(self, names: Sequence[str], *, fresh: bool = False) -> dict[str, StoreView]:
        with self._world.call(self._runner, "store.observe"):
            return {name: self._view_of(name) for name in names}

    def _view_of(self, name: str) -> StoreView:
        part = self._world.parts[name]
        if part.faults.withheld:
            return StoreView(name, exists=False, trouble=StoreError(f"{name} is disabled", "Enable it."))
        return _view(name, part.slot)

    def stage(self, name: str, generation: int, value: SecretValue) -> SecretValue:
        with self._call("stage", name) as slot:
            if generation in slot.values:
                if generation not in (slot.current, slot.pending, *slot.waiting):
                    raise GenerationSpent("used before", max(slot.values))
                return slot.values[generation]
            if slot.foreign is not None:
                slot.kept.update(filter(None, [slot.pending]))
            elif slot.pending is not None and slot.pending > (slot.current or 0):
                raise Broken(f"generation {generation} is staged while {slot.pending} is in flight")
            elif any(slot.values[waiting] != value for waiting in slot.waiting):
                raise Broken(f"generation {generation} is staged while {slot.waiting} are not retired")
            slot.values[generation] = value
            slot.pending = slot.undecided = generation
            return value

    def read(self, name: str, version: Version | None = None) -> SecretValue:
        with self._call("read", name) as slot:
            if version is not None and version.generation is None and slot.foreign is not None:
                return slot.foreign
            generation = version.generation if version else slot.current
            if generation is None or generation not in slot.values:
                raise StoreError("no such version")
            return slot.values[generation]

    def promote(self, name: str, generation: int, expected: Version | None) -> None:
        with self._call("promote: claim", name) as slot:
            if slot.current != generation:
                if slot.pending != generation or slot.undecided not in (None, generation):
                    raise Conflict("rejected or replaced")
                if slot.undecided == generation and slot.foreign is None:
                    self._check_promotion(self._world.parts[name], generation)
                slot.undecided = None
                slot.accepted.add(generation)
        with self._call("promote: move", name) as slot:
            if slot.current != generation:
                if expected != _current(slot):
                    raise Conflict("something else is current")
                if slot.foreign is not None:
                    slot.kept.update(filter(None, [slot.previous]))
                slot.previous, slot.current, slot.foreign = slot.current, generation, None
        with self._call("promote: clear", name) as slot:
            slot.pending = None if slot.pending == generation else slot.pending

    def _check_promotion(self, part: Part, generation: int) -> None:
        """I4's first half, P7, and that the canary had its say."""
        if not part.accepts(generation):
            raise Broken(f"generation {generation} is promoted, and the target denies it")
        if part.faults.lacks.get(generation):
            raise Broken(f"generation {generation} is promoted, and lacks privileges")
        if self._world.strategy is Strategy.SINGLE or not self._world.consumers:
            return
        pins = pins_file.load(self._world.project / "stacks/pins/test.json")
        for ring in Ring:
            if pins.at(CONSUMER, ring).keys() < set(self._world.names):
                continue  # another secret has no first value yet, so there is nothing to deploy
            if part.running.get(ring) != generation:
                raise Broken(f"generation {generation} is promoted, and the {ring} ring does not run it")
            if generation in part.faults.bad_under.get(ring, ()):
                raise Broken(f"generation {generation} is promoted, and the {ring} ring is bad under it")

    def reject(self, name: str, generation: int) -> None:
        with self._call("reject", name) as slot:
            if slot.pending != generation or slot.undecided is None:
                raise Conflict("not pending, or being promoted")
            slot.undecided = slot.current or -1
            slot.rejected.add(generation)

    def discard(self, name: str, generation: int) -> None:
        with self._call("discard", name) as slot:
            if slot.current == generation:
                raise Conflict("it is current")
            if slot.pending == generation and slot.undecided in (None, generation) and generation > (slot.current or 0):
                raise Conflict("it is not rejected")
            slot.pending = None if slot.pending == generation else slot.pending
            slot.previous = None if slot.previous == generation else slot.previous
            slot.kept.discard(generation)

    def predict(self, name: str, generation: int) -> Version:
        return Version(f"v{generation}", generation)


class WorldKind(CredentialKind, ReportsUsage, ComparesPrivileges, HasAdministrator):
    """Two principals in turn, or one in place."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.ALTERNATING, Strategy.SINGLE})

    def __init__(self, world: World, runner: str, name: str) -> None:
        self._world = world
        self._runner = runner
        self._part = world.parts[name]

    def issue(self, current: Credential | None) -> SecretValue:
        used = _content(current)["username"] if current else "b"
        username = used if self._world.strategy is Strategy.SINGLE else {"a": "b", "b": "a"}.get(used, "a")
        number = len(self._part.slot.values)
        return SecretValue(json.dumps({"username": username, "password": f"canary-{self._runner}-{number}"}))

    def install(self, new: Credential, current: Credential | None) -> None:
        with self._asked("target.install"):
            self._check_staged(new)
            content = _content(new)
            principal = self._part.principals[content["username"]]
            if not _admits(principal, new.generation, current.generation if current else None):
                raise TargetError(f"generation {new.generation} is superseded")
            ignored = self._part.faults.ignored_installs
            if ignored.get(new.generation):
                ignored[new.generation] -= 1
                return
            principal.password, principal.generation = content["password"], new.generation
            principal.spent = max(principal.spent, new.generation)

    def _check_staged(self, new: Credential) -> None:
        """I5, and I2: of each generation at most one value ever gets into the target."""
        if self._part.slot.values.get(new.generation) != new.value:
            raise Broken(f"generation {new.generation} is installed before it is staged")
        if self._part.installed.setdefault(new.generation, new.value.reveal()) != new.value.reveal():
            raise Broken(f"generation {new.generation} is installed with two values")

    def check(self, credential: Credential) -> Acceptance:
        try:
            with self._asked("target.check"):
                content = _content(credential)
                accepted = self._part.principals[content["username"]].password == content["password"]
        except Unavailable:
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED if accepted else Acceptance.DENIED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        with self._asked("target.revoke"):
            content = _content(old)
            principal = self._part.principals[content["username"]]
            if principal.generation > old.generation:
                return
            principal.spent = max(principal.spent, old.generation)
            if current is not None and _content(current)["username"] == content["username"]:
                return
            if principal.password is not None and principal.sessions and not end_sessions:
                raise Broken(f"generation {old.generation} is revoked, and somebody has a session with it")
            principal.sessions = 0
            principal.password, principal.generation = None, old.generation

    def usage(self, old: Credential, current: Credential | None) -> Usage | None:
        username = _content(old)["username"]
        if current is not None and _content(current)["username"] == username:
            return None
        with self._asked("target.usage"):
            return Usage(self._part.principals[username].sessions)

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        with self._asked("target.missing"):
            return self._part.faults.lacks.get(new.generation, ())

    def probe(self) -> None:
        with self._asked("target.probe"):
            pass

    @contextmanager
    def _asked(self, name: str) -> Iterator[None]:
        with self._world.call(self._runner, name):
            if self._part.faults.target_down:
                raise Unavailable("the target is down")
            yield


class WorldTarget(DeployTarget):
    """Applies what is pinned at the moment of the call."""

    def __init__(self, world: World, runner: str) -> None:
        self._world = world
        self._runner = runner

    def deployed(self) -> dict[Place, dict[str, int]]:
        with self._world.call(self._runner, "deploy.deployed"):
            return {place: dict(pins) for place, pins in self._world.deployed.items()}

    def apply(self, places: Sequence[Place]) -> Deployment:
        with self._world.call(self._runner, "deploy.apply"):
            pins = pins_file.load(self._world.project / "stacks/pins/test.json")
            for consumer, ring in places:
                self._world.deployed[consumer, ring] = dict(pins.at(consumer, ring))
                if self._world.reload_delay is not None:
                    self._world.reloads[ring] = self._world.now + self._world.reload_delay
            return Deployment("0" * 64, tuple(f"terraform_data.{ring}" for _, ring in places))


class WorldSignal(Signal):
    """What a runner gets to see of a ring. Each read is a remote call, too."""

    def __init__(self, world: World, runner: str, ring: Ring) -> None:
        self._world = world
        self._runner = runner
        self._ring = ring

    def read(self, secret: str, generation: int, since: object, now: object) -> Verdict:
        with self._world.call(self._runner, "signal.read"):
            faults = self._world.parts[secret].faults
            opinion = faults.opinions.get(self._runner)
            if opinion is not None:
                return Verdict(opinion, ("so it seems",))
            if generation in faults.bad_under.get(self._ring, ()):
                return Verdict(Health.BAD, (f"errors under generation {generation}",))
            if faults.silent_signals:
                return Verdict(Health.UNKNOWN, ("no lines",))
            return Verdict(Health.GOOD, ("fine",))


class TellingSignal(WorldSignal, ReportsRunning):
    def running(self, secret: str) -> int | None:
        with self._world.call(self._runner, "signal.running"):
            return self._world.parts[secret].running.get(self._ring)


def _admits(principal: Principal, generation: int, replaced: int | None) -> bool:
    if generation > principal.spent:
        return True
    restored = generation < principal.generation == replaced
    return principal.password is not None and (generation == principal.generation or restored)


def _content(credential: Credential) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(credential.value.reveal())
    return content


def _view(name: str, slot: Slot) -> StoreView:
    pending = slot.pending if slot.pending != slot.current else None
    labelled = [g for g in (slot.current, slot.pending, *slot.waiting) if g is not None]
    previous, kept = earlier(map(_version, slot.waiting))
    return StoreView(
        name,
        reference=f"arn:{name}",
        current=_current(slot),
        pending=_version(pending),
        previous=previous,
        kept=kept,
        rejected=pending is not None and slot.undecided is not None and slot.undecided != pending,
        promoting=pending is not None and slot.undecided is None,
        highest=max(labelled, default=0),
    )


def _current(slot: Slot) -> Version | None:
    return _version(slot.current) if slot.foreign is None else Version("by hand", None)


def _version(generation: int | None) -> Version | None:
    return None if generation is None else Version(f"v{generation}", generation)
