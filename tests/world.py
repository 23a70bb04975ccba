"""A small world to rotate in: a store with staging labels, a target with principals, an application in two rings.

Its parts (:mod:`tests.world_plugins`) are plugins like the real ones, so the engine that runs here is the real engine
with the real journal, pins and templates. Every remote call goes through :meth:`World.call`: a *hook* sees it before
and after, and can kill the runner there, refuse the call, or let another runner go first; and after each call the world
checks that nothing was broken that must always hold.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

from rotation import pins as pins_file
from rotation.adopt import adopt
from rotation.engine import Engine, Event, Purpose, Request, Result
from rotation.journal import LEASE, Journal
from rotation.manifest import Consumer, ConsumerRing, Manifest, Plugin, Secret
from rotation.model import Health, Place, Ring, Strategy
from rotation.secret_value import SecretValue

NAME = "orders/db"
CONSUMER = "orders-api"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENT = timedelta(hours=1)
MEMORY = Path("/dev/shm")  # noqa: S108  # where there is one: nothing here rests on the disk, and fsync takes long

Side = Literal["before", "after"]


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder for worlds, in memory where that can be had."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


class Killed(BaseException):
    """The runner died here. No part of the engine may catch it."""


class Broken(AssertionError):
    """Something that must always hold did not."""


@dataclass
class Slot:
    """One secret in the store: values by generation, and the labels on them.

    ``undecided`` is the pending generation while nobody has decided about it; None says that the pending one is being
    promoted, another generation that it is rejected. ``accepted`` and ``rejected`` remember every decision. ``foreign``
    is what others have made current in the place of ``current``, and ``kept`` the candidates that gave way to such.
    """

    values: dict[int, SecretValue] = field(default_factory=dict)
    current: int | None = None
    pending: int | None = None
    previous: int | None = None
    kept: set[int] = field(default_factory=set)
    foreign: SecretValue | None = None
    undecided: int | None = None
    accepted: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)

    def copied(self) -> Slot:
        return replace(
            self,
            values=dict(self.values),
            kept=set(self.kept),
            accepted=set(self.accepted),
            rejected=set(self.rejected),
        )

    @property
    def waiting(self) -> list[int]:
        """The generations that wait to be dropped, the highest first."""
        replaced = self.current if self.foreign else None
        waiting = {*self.kept, self.previous, replaced} - {None, None if self.foreign else self.current, self.pending}
        return sorted(filter(None, waiting), reverse=True)


@dataclass
class Principal:
    """One login of the target, and its memory: the generation that was installed or revoked last, and the highest
    that ever was (as :mod:`rotation.fencing` keeps it)."""

    password: str | None = None
    generation: int = 0
    spent: int = 0
    sessions: int = 0


@dataclass
class Faults:
    """What goes wrong with one secret, by generation or altogether. ``ignored_installs`` counts down; ``opinions`` are
    what single runners make of the signals."""

    ignored_installs: dict[int, int] = field(default_factory=dict)
    lacks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    bad_under: dict[Ring, set[int]] = field(default_factory=dict)
    opinions: dict[str, Health] = field(default_factory=dict)
    silent_signals: bool = False
    target_down: bool = False
    withheld: bool = False  # by the store, which gives out the others


@dataclass
class Part:
    """One secret with everything that is its own. ``held`` are the passwords by the generation that brought them."""

    slot: Slot = field(default_factory=Slot)
    principals: dict[str, Principal] = field(default_factory=lambda: {"a": Principal(), "b": Principal()})
    faults: Faults = field(default_factory=Faults)
    running: dict[Ring, int] = field(default_factory=dict)
    installed: dict[int, str] = field(default_factory=dict)
    highest_current: int = 0

    def accepts(self, generation: int) -> bool:
        content = self.content(generation)
        return bool(self.principals[content["username"]].password == content["password"])

    def accepts_current(self) -> bool:
        """Whether what consumers read lets them in; so it does where there is nothing yet."""
        value = self.slot.foreign or self.slot.values.get(self.slot.current or 0)
        if value is None:
            return True
        content = json.loads(value.reveal())
        return bool(self.principals[content["username"]].password == content["password"])

    def content(self, generation: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.slot.values[generation].reveal())
        return content

    def copied(self) -> Part:
        return Part(
            self.slot.copied(),
            {name: replace(principal) for name, principal in self.principals.items()},
            copy.deepcopy(self.faults),
            dict(self.running),
            dict(self.installed),
            self.highest_current,
        )


def no_hook(runner: str, call: str, side: Side) -> None:
    del runner, call, side


@dataclass
class World:
    """Everything outside the runner. ``hook`` gets the runner, the call and the side, for every remote call.

    The application reads its deployed configuration ``reload_delay`` after a deployment (None: never);
    ``tells_running`` says whether its signals report what it runs.
    """

    project: Path
    strategy: Strategy = Strategy.ALTERNATING
    names: tuple[str, ...] = (NAME,)
    consumers: bool = True
    now: datetime = START
    parts: dict[str, Part] = field(default_factory=dict)
    deployed: dict[Place, dict[str, int]] = field(default_factory=dict)
    reloads: dict[Ring, datetime] = field(default_factory=dict)
    reload_delay: timedelta | None = timedelta(0)
    tells_running: bool = True
    hook: Callable[[str, str, Side], None] = no_hook
    calls: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = self.parts or {name: Part() for name in self.names}
        folder = self.project / "stacks" / "config"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{CONSUMER}.yaml.j2").write_text(
            '{% for name, secret in secrets.items() %}"{{ name }}": {{ secret.generation }}\n{% endfor %}'
        )

    @property
    def slot(self) -> Slot:
        return self.parts[NAME].slot

    @property
    def faults(self) -> Faults:
        return self.parts[NAME].faults

    @property
    def running(self) -> dict[Ring, int]:
        return self.parts[NAME].running

    @property
    def principals(self) -> dict[str, Principal]:
        return self.parts[NAME].principals

    # The runner's view

    @property
    def manifest(self) -> Manifest:
        rings = {
            ring: ConsumerRing(
                rendered=Path(f"stacks/config/rendered/test/{ring}/{CONSUMER}.yaml"),
                addresses=(f"terraform_data.{ring}",),
                signals=(Plugin(kind="world", options={"ring": ring}),),
            )
            for ring in Ring
        }
        consumer = Consumer(
            name=CONSUMER,
            template=Path(f"stacks/config/{CONSUMER}.yaml.j2"),
            format="yaml",
            secrets=self.names,
            target=Plugin(kind="world"),
            rings=rings,
        )
        return Manifest(
            environment="test",
            order=0,
            sources="",
            pins=Path("stacks/pins/test.json"),
            secrets={name: self.secret(name) for name in self.names},
            consumers={CONSUMER: consumer} if self.consumers else {},
        )

    def secret(self, name: str = NAME) -> Secret:
        return Secret(
            name=name,
            stored_as=name,
            store=Plugin(kind="world"),
            credential=Plugin(kind="world", options={"secret": name}),
            strategy=self.strategy,
            bake=timedelta(seconds=20),
            settle=timedelta(seconds=10),
            patience=timedelta(seconds=30),
            grace=timedelta(seconds=60),
        )

    def engine(self, runner: str = "runner", journal: Path | None = None) -> Engine:
        from tests.world_plugins import WorldPlugins

        manifest = self.manifest
        return Engine(
            project=self.project,
            manifest=manifest,
            plugins=WorldPlugins(self, runner, self.project, manifest),
            journal=Journal(journal or self.journal, self.clock),
            say=self.events.append,
            clock=self.clock,
            sleep=self.sleep,
            workers=1,
        )

    def put_by_hand(self, username: str, password: str) -> None:
        """Somebody gives a login another password, and makes it current in the store."""
        principal = self.principals.setdefault(username, Principal())
        principal.password = password
        self.slot.foreign = SecretValue(json.dumps({"username": username, "password": password}))

    def adopt(self, runner: str = "runner", journal: Path | None = None) -> Result:
        """Take over what others have made current, and let the rings follow, as the command does."""
        engine = self.engine(runner, journal)
        try:
            with engine.journal.lease([NAME]):
                view = engine.observer.stored([self.secret()], fresh=True)[NAME]
                adopt(self.secret(), view, engine.plugins, engine.custody, engine.journal)
            return engine.run([NAME], Request(Purpose.RESUME, wait=PATIENT))[NAME]
        finally:
            engine.journal.close()

    def run(self, request: Request | None = None, runner: str = "runner", journal: Path | None = None) -> Result:
        """Run a new runner on the first secret; :class:`Killed` comes through."""
        return self.run_all([NAME], request, runner, journal)[NAME]

    def run_all(
        self, names: Sequence[str], request: Request | None = None, runner: str = "runner", journal: Path | None = None
    ) -> dict[str, Result]:
        engine = self.engine(runner, journal)
        try:
            return engine.run(names, request or Request(wait=PATIENT))
        finally:
            engine.journal.close()

    @property
    def journal(self) -> Path:
        return self.project / "journal.sqlite3"

    def lose_journal(self) -> None:
        for path in self.project.glob("*.sqlite3*"):
            path.unlink()

    def trail(self) -> list[str]:
        """The events of the audit trail, after its hashes were verified."""
        with Journal(self.journal, self.clock) as journal:
            return [entry.event for entry in journal.trail(NAME)]

    def trail_details(self) -> list[str]:
        with Journal(self.journal, self.clock) as journal:
            return [entry.detail for entry in journal.trail(NAME)]

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # Remote calls

    @contextmanager
    def call(self, runner: str, name: str) -> Iterator[None]:
        """One remote call: seen by the hook on both sides, and followed by a look at what must always hold."""
        self.calls.append(name)
        self.hook(runner, name, "before")
        self._applications_read()
        yield
        self._applications_read()
        self.check()
        self.hook(runner, name, "after")

    def _applications_read(self) -> None:
        for ring in [ring for ring, due in self.reloads.items() if due <= self.now]:
            del self.reloads[ring]
            deployed = self.deployed.get((CONSUMER, ring), {})
            for name, part in self.parts.items():
                part.running = {r: g for r, g in part.running.items() if r is not ring}
                if name in deployed:
                    part.running[ring] = deployed[name]

    def check(self) -> None:
        """I1, I2 and I3; and that nothing runs, or would run if it were restarted, that the target denies.

        With the strategy "single" there is a gap by design, so only the store is looked at.
        """
        for name, part in self.parts.items():
            current = part.slot.current
            if (current or 0) < part.highest_current:
                raise Broken(f"current of {name} went back from {part.highest_current} to {current}")
            part.highest_current = current or 0
            if part.slot.accepted & part.slot.rejected:
                raise Broken(f"{name}: both promoted and rejected: {part.slot.accepted & part.slot.rejected}")
            if self.strategy is Strategy.SINGLE:
                continue
            if not part.accepts_current():
                raise Broken(f"the target denies current generation {current} of {name} after {self.calls[-3:]}")
            self._check_rings(name, part)

    def _check_rings(self, name: str, part: Part) -> None:
        deployed = {ring: pins[name] for (_, ring), pins in self.deployed.items() if name in pins}
        for what, generations in (("runs", part.running), ("is deployed with", deployed)):
            for ring, generation in generations.items():
                if not part.accepts(generation):
                    raise Broken(f"the {ring} ring {what} generation {generation} of {name}, which the target denies")

    # What it came to

    def fork(self, folder: Path) -> Self:
        """What a runner that died at this moment leaves: the world with all its files, and a lease that runs out."""
        left_open = ("*-shm", "*.lock")
        shutil.copytree(self.project, folder, ignore=shutil.ignore_patterns(*left_open), dirs_exist_ok=True)
        return replace(
            self,
            project=folder,
            now=self.now + LEASE + timedelta(seconds=1),
            parts={name: part.copied() for name, part in self.parts.items()},
            deployed={place: dict(pins) for place, pins in self.deployed.items()},
            reloads=dict(self.reloads),
            hook=no_hook,
            calls=[],
            events=[],
        )

    def snapshot(self) -> dict[str, object]:
        """What two worlds are compared by when a run ended: everything but the clock, the calls and the memories."""
        pins = pins_file.load(self.project / "stacks/pins/test.json")
        return {
            "pins": {place: dict(pins.at(*place)) for place in pins.places()},
            "deployed": {place: dict(here) for place, here in self.deployed.items()},
            **{
                name: {
                    "current": part.slot.current,
                    "pending": part.slot.pending if part.slot.pending != part.slot.current else None,
                    "previous": part.slot.previous,
                    "kept": sorted(part.slot.kept),
                    "running": dict(part.running),
                    "logins": sorted(n for n, principal in part.principals.items() if principal.password is not None),
                }
                for name, part in self.parts.items()
            },
        }

    def require_quiet(self) -> None:
        """Nothing is in flight, everybody uses the current generation, and the target lets in nobody else but the
        previous one."""
        pins = pins_file.load(self.project / "stacks/pins/test.json")
        for name, part in self.parts.items():
            slot = part.slot
            if slot.pending not in (None, slot.current):  # on the current one the label says nothing
                raise Broken(f"generation {slot.pending} of {name} is still pending")
            if self.consumers and slot.current is not None:
                for ring in Ring:
                    place = (CONSUMER, ring)
                    seen = (pins.of(*place, name), self.deployed.get(place, {}).get(name), part.running.get(ring))
                    if seen != (slot.current,) * 3:
                        raise Broken(f"{ring}: pinned, deployed, running are {seen} and current {slot.current}")
            if not part.accepts_current():
                raise Broken(f"the target denies current generation {slot.current} of {name}")
            kept = {part.content(g)["username"] for g in (slot.current, *slot.waiting) if g is not None}
            live = {username for username, principal in part.principals.items() if principal.password is not None}
            if not live <= kept:
                raise Broken(f"the target lets in {sorted(live - kept)} of {name}, which no generation needs")


def fresh(
    folder: Path, strategy: Strategy = Strategy.ALTERNATING, names: tuple[str, ...] = (NAME,), **settings: Any
) -> World:
    """A world with the first generation of each secret promoted and in use."""
    world = World(folder, strategy, names, **settings)
    for name, result in world.run_all(names, Request(initialize=True, wait=PATIENT)).items():
        if result.error is not None:
            raise result.error
        assert world.parts[name].slot.current == 1, result
    world.calls.clear()
    world.events.clear()
    return world
