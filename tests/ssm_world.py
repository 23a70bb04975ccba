"""The simulated world of :mod:`tests.world` with the real store of Tencent Cloud, on the emulated cloud.

Each call of SSM is seen by the hook three times: before its time is taken (``before``), when the lease was checked and
the request is on its way but has not arrived (``ssm.<action>: sent``), and when the answer came (``after``). After
every change in the cloud or in the target the world checks that the target accepts what consumers read (I1), and that
no more than 5 versions are in use (I7).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina

from rotation.engine import Engine, Request
from rotation.journal import Journal
from rotation.local.tencent.wire import Request as Signed
from rotation.manifest import Manifest, Plugin, Secret
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore, tencent_ssm
from rotation.stores.tencent_ssm import CURRENT, TencentSsm
from tests.tencent_line import Emulated, Line
from tests.world import NAME, PATIENT, Broken, Killed, World
from tests.world_plugins import WorldPlugins

STORED_AS = "orders-db"
READING = ("GetSecretValue", "ListSecretVersionIds")
SHORTEST_SLEEP = 150.0  # seconds: a look at each of them would take the tests long


@dataclass
class SsmWorld(World):
    """``skew`` is how far a runner's clock is ahead, in seconds. ``in_flight`` are requests that left a runner and have
    not arrived: see :meth:`lose`."""

    emulated: Emulated = field(kw_only=True)
    skew: dict[str, float] = field(default_factory=dict)
    in_flight: list[Signed] = field(default_factory=list)
    journals: dict[str, Journal] = field(default_factory=dict)
    loses: Callable[[str, str, Mapping[str, Any]], bool] = lambda *_: False

    def secret(self, name: str = NAME) -> Secret:
        store = Plugin(kind="tencent_ssm")
        return super().secret(name).model_copy(update={"store": store, "stored_as": STORED_AS})

    def engine(self, runner: str = "runner", journal: Path | None = None) -> Engine:
        manifest = self.manifest

        def clock() -> Any:
            return self.now + timedelta(seconds=self.skew.get(runner, 0))

        opened = self.journals[runner] = Journal(journal or self.journal, clock)
        return Engine(
            project=self.project,
            manifest=manifest,
            plugins=SsmPlugins(self, runner, self.project, manifest),
            journal=opened,
            say=self.events.append,
            clock=clock,
            sleep=lambda seconds: self.stall(runner, max(seconds, SHORTEST_SLEEP)),
            workers=1,
        )

    def stall(self, runner: str, seconds: float) -> None:
        """Time passes in which a runner waits, for whatever, and its lease is kept by its other thread."""
        self.now += timedelta(seconds=seconds)
        self.journals[runner]._renew(self.names)

    def check(self) -> None:
        values = self.emulated.values(STORED_AS)
        if len(values) > 5:
            raise Broken(f"more than 5 versions are in use: {sorted(values)}")
        for version_id, value in values.items():
            if version_id[1:].isdigit():
                self.slot.values.setdefault(int(version_id[1:]), SecretValue(value))
        if CURRENT in values:
            content = json.loads(values[CURRENT])
            if self.principals[content["username"]].password != content["password"]:
                raise Broken(f"the target denies what consumers read, after {self.calls[-3:]}")

    def arrive(self, request: Signed) -> bytes:
        """Let the cloud look at a request by its own clock, and the world at what came of it."""
        self.emulated.cloud.clock.stop(self.now)
        answer = self.emulated.arrive(request)
        if request.operation not in READING:
            self.check()
        return answer

    def seconds(self) -> float:
        return self.now.timestamp()

    def deliver(self) -> None:
        """Let everything arrive that is still on its way."""
        while self.in_flight:
            self.arrive(self.in_flight.pop())

    def require_quiet(self) -> None:
        """The target accepts what consumers read, it is what the store takes for current, and nothing is pending."""
        view = TencentSsm({}, Line(self.emulated, self.seconds)).observe([STORED_AS])[STORED_AS]
        slot = self.slot
        slot.current, slot.pending, slot.previous = (
            version.generation if version else None for version in (view.current, view.pending, view.previous)
        )
        assert slot.current is not None, view
        super().require_quiet()


class SsmPlugins(WorldPlugins):
    def __init__(self, world: SsmWorld, runner: str, project: Path, manifest: Manifest) -> None:
        super().__init__(world, runner, project, manifest)
        self._ssm = TencentSsm({}, WorldLine(world, runner))

    def store(self, secret: Secret) -> SecretStore:
        return self._ssm


class WorldLine(Line):
    def __init__(self, world: SsmWorld, runner: str) -> None:
        super().__init__(world.emulated, lambda: world.now.timestamp() + world.skew.get(runner, 0))
        self._world = world
        self._runner = runner

    def call_once(self, service: str, action: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        self._world.calls.append(f"ssm.{action}")
        self._world.hook(self._runner, f"ssm.{action}", "before")
        answer = super().call_once(service, action, *arguments, **options)
        self._world.hook(self._runner, f"ssm.{action}", "after")
        return answer

    def _send(self, service: str, action: str, parameters: Mapping[str, Any], signed_at: int) -> bytes:
        if self._world.loses(self._runner, action, parameters):
            self._world.in_flight.append(self._signed(service, action, parameters, signed_at))
            raise Killed(action)
        self._world.hook(self._runner, f"ssm.{action}: sent", "before")
        return self._world.arrive(self._signed(service, action, parameters, signed_at))


@contextmanager
def begun(folder: Path) -> Iterator[SsmWorld]:
    """A world without consumers whose secret has its first generation."""
    with pytest.MonkeyPatch.context() as patch, stamina.set_testing(True, attempts=3):
        patch.setattr(tencent_ssm, "_LOOKS", (0.0, 0.0))
        world = SsmWorld(folder, consumers=False, emulated=Emulated.begin(patch))
        world.emulated.slot(STORED_AS)
        result = world.run(Request(initialize=True, wait=PATIENT))
        assert result.error is None, result
        world.calls.clear()
        world.events.clear()
        yield world
