"""Two runners at once on a KV engine and an AppRole of a real server: whatever the order of their calls, what consumers
read logs in, no generation comes back (I1, I3), and nothing is left over that nobody is told of.

The store's contract crosses two calls of the store (tests/contracts/interruption.py), the simulated world whole
rotations whose store takes one step a call (tests/test_race.py). Here whole rotations cross between any two requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import hvac
import hvac.exceptions
import pytest
import requests
import stamina
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rotation.credentials import ReportsLeftovers
from rotation.engine import Engine, Purpose, Request, Result
from rotation.errors import KeyturnError
from rotation.journal import Journal
from rotation.manifest import Manifest, Plugin, Secret
from rotation.model import Acceptance, Strategy
from rotation.plugins import Plugins
from rotation.stores.vault_kv import VaultKv
from tests.fixtures.openbao import OpenBao
from tests.racing import RUNNERS, Baton, compete
from tests.world import Broken, Side, memory_folder, no_hook

NAME = "race/secret"
LAST = "last"
WAIT = timedelta(seconds=20)
ROTATE, RETIRE, ROLL_BACK = (Request(p, wait=WAIT) for p in (Purpose.ROTATE, Purpose.RETIRE, Purpose.ROLL_BACK))
READS = ("GET", "LIST", "HEAD", "sleep")  # what changes nothing, a runner's pauses among it
_numbers = count(1)


class _Watched(requests.adapters.HTTPAdapter):
    """requests' own transport, which says when a runner sends something and when its answer has come."""

    def __init__(self, meet: Callable[[str, Side], None]) -> None:
        super().__init__()
        self._meet = meet

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self._meet(str(request.method), "before")
        answer = super().send(request, *args, **options)
        _ = answer.content  # the whole of it has come, and the connection is free again
        self._meet(str(request.method), "after")
        return answer


@dataclass
class Ground:
    """One secret whose values are secret IDs of a role of its own, with its first generation in use.

    ``folder`` has a token for each runner, so that each has a connection of its own; ``project`` gets the journals.
    """

    openbao: OpenBao
    folder: Path
    project: Path
    kv: str
    approle: str
    hook: Callable[[str, str, Side], None] = no_hook
    highest: int = 0
    root: hvac.Client = field(init=False)
    role: str = field(init=False)

    def __post_init__(self) -> None:
        self.root, self.role = self.openbao.client(), f"role-{next(_numbers)}"
        self.root.adapter.post(f"/v1/auth/{self.approle}/role/{self.role}", json={"token_ttl": "10m"})
        self.root.secrets.kv.v2.update_metadata(self.slot, mount_point=self.kv, custom_metadata={"made": "by hand"})
        self.run(Request(initialize=True, wait=WAIT))

    @property
    def slot(self) -> str:
        return f"{NAME}-{self.role}"

    def run(self, request: Request, runner: str = LAST, journal: Path | None = None) -> Result:
        with Journal(journal or self.project / f"{runner}.sqlite3") as kept:
            engine = self.engine(runner, kept)
            store = engine.plugins.store(engine.manifest.secret(NAME))
            assert isinstance(store, VaultKv)
            watched = _Watched(lambda method, side: self._meet(runner, method, side))
            store._vault.session.mount("http://", watched)
            try:
                return engine.run([NAME], request)[NAME]
            finally:
                watched.close()

    def engine(self, runner: str, journal: Journal) -> Engine:
        auth = {"method": "token_file", "path": str(self.folder / runner)}
        server = {"address": self.openbao.address, "auth": auth}
        turned = {"role": self.role, "mount": self.approle, "ledger": self.kv}
        now = timedelta(0)
        secret = Secret(
            name=NAME,
            stored_as=self.slot,
            store=Plugin(kind="vault_kv", options={"mount": self.kv} | server),
            credential=Plugin(kind="vault_approle_secret_id", options=turned | server),
            strategy=Strategy.OVERLAPPING,
            **dict.fromkeys(("bake", "settle", "grace"), now),
            patience=timedelta(seconds=10),
        )
        manifest = Manifest(environment="test", order=0, sources="", pins=Path("pins.json"), secrets={NAME: secret})
        plugins = Plugins(self.project, manifest)
        return Engine(
            self.project, manifest, plugins, journal, sleep=lambda _: self.hook(runner, "sleep", "before"), workers=1
        )

    def require_quiet(self) -> None:
        """Nothing is in flight, what is labelled logs in, and what else the role has is told as left over."""
        with Journal(self.project / f"{LAST}.sqlite3") as journal:
            engine = self.engine(LAST, journal)
            secret = engine.manifest.secret(NAME)
            seen = engine.observer.stored([secret], fresh=True)[NAME]
            kept = [engine.custody.read(secret, version) for version in (seen.current, seen.previous) if version]
            kind = engine.plugins.kind(secret)
            assert isinstance(kind, ReportsLeftovers)
            left = kind.leftovers(kept)
            assert seen.pending is None
            assert {kind.check(credential) for credential in kept} == {Acceptance.ACCEPTED}
            assert all(leftover.removable for leftover in left)
            assert self.registered() == len(kept) + len(left)

    def registered(self) -> int:
        """How many secret IDs the role has."""
        path = f"/v1/auth/{self.approle}/role/{self.role}/secret-id"
        return len(self.root.adapter.list(path)["data"]["keys"])

    def _meet(self, runner: str, method: str, side: Side) -> None:
        if side == "after" and method not in READS:
            self._check()
        self.hook(runner, method, side)

    def _check(self) -> None:
        """What must always hold, after every change."""
        kv = self.root.secrets.kv.v2
        try:
            ledger = kv.read_secret(f"_rotation/{self.slot}/ledger", self.kv, raise_on_deleted_version=True)
            read = kv.read_secret(self.slot, self.kv, raise_on_deleted_version=True)["data"]["data"]
        except hvac.exceptions.InvalidPath:
            return  # it has no value yet
        current = ledger["data"]["data"]["current"]
        generation = current["leaf"]["generation"] if current else 0
        if generation < self.highest:
            raise Broken(f"generation {generation} is current after {self.highest}")
        self.highest = generation
        looked_up = {"secret_id": read["secret_id"]}
        found = self.root.adapter.post(
            f"/v1/auth/{self.approle}/role/{self.role}/secret-id/lookup", json=looked_up, raise_exception=False
        )
        if isinstance(found, requests.Response):  # 204: the role has no such secret ID
            raise Broken("what consumers read does not log in")


@pytest.fixture(scope="module")
def grounds(openbao: OpenBao) -> Iterator[Callable[[Path], Ground]]:
    client, approle = openbao.client(), "approle-race"
    with ExitStack() as cleanup:
        kv = cleanup.enter_context(openbao.mount("kv-v2"))
        client.sys.enable_auth_method("approle", path=approle)
        cleanup.callback(client.sys.disable_auth_method, approle)
        cleanup.enter_context(stamina.set_testing(True, attempts=3))
        tokens = cleanup.enter_context(memory_folder())
        for runner in (*RUNNERS, LAST):
            (tokens / runner).write_text(openbao.token)
        yield lambda project: Ground(openbao, tokens, project, kv, approle)


def race(ground: Ground, turns: Sequence[bool], scripts: Sequence[Sequence[Request]]) -> None:
    baton = Baton(turns)
    ground.hook = baton.hook
    compete(ground, baton, scripts)
    ground.hook = no_hook


def require_quiet_after_one_more(ground: Ground) -> None:
    last = ground.run(Request(Purpose.RESUME, wait=WAIT))
    assert last.error is None, last
    ground.require_quiet()


asked = st.sampled_from((ROTATE, ROTATE, RETIRE, ROLL_BACK))
scripts = st.tuples(st.lists(asked, min_size=1, max_size=2), st.lists(asked, min_size=1, max_size=3))
RACE = settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@RACE
@given(st.lists(st.booleans(), max_size=150), scripts)
def test_two_runners_in_any_order_of_requests_break_nothing(
    grounds: Callable[[Path], Ground], turns: list[bool], scripts: tuple[list[Request], list[Request]]
) -> None:
    with memory_folder() as folder:
        ground = grounds(folder)
        race(ground, turns, scripts)
        require_quiet_after_one_more(ground)


@dataclass
class Sleep:
    """Before the nth change of the first runner's, the other one does all that it is asked for."""

    ground: Ground
    nth: int
    meanwhile: Sequence[Request]
    changes: int = 0

    def __call__(self, runner: str, method: str, side: Side) -> None:
        if runner == RUNNERS[0] and side == "before" and method not in READS:
            self.changes += 1
            if self.changes == self.nth:
                ask(self.ground, RUNNERS[1], self.meanwhile)


def ask(ground: Ground, runner: str, requests: Sequence[Request]) -> None:
    for request in requests:
        with suppress(KeyturnError):  # it may be refused: what matters is what is left
            ground.run(request, runner)


def test_a_runner_that_sleeps_before_any_change_of_its_own_breaks_nothing(grounds: Callable[[Path], Ground]) -> None:
    """When it wakes, what it was about to install or to promote has been replaced and retired by the other one."""
    for nth in count(1):
        with memory_folder() as folder:
            ground = grounds(folder)
            sleep = ground.hook = Sleep(ground, nth, (ROTATE, ROTATE, RETIRE))
            ask(ground, RUNNERS[0], (ROTATE,))
            ground.hook = no_hook
            require_quiet_after_one_more(ground)
            if sleep.changes < nth:
                break
    assert nth > 10
