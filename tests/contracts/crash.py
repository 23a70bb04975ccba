"""What every credential kind, store and key service must survive in a real rotation: a runner that dies before or
after any act.

The simulated world (tests/test_crash.py) kills at every remote call; here the kinds, the store, the key service and the
journal are the real ones, and what is looked at in the end is what the servers themselves say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from rotation.adopt import adopt
from rotation.engine import Engine, Event, Purpose, Request, Result
from rotation.journal import Journal
from rotation.manifest import Key, Manifest, Plugin, Secret
from rotation.model import Acceptance, Act, Done, Ending, Strategy
from rotation.plugins import Plugins
from rotation.secret_value import SecretValue
from rotation.stores import PromotesUnderLease
from tests.fixtures.openbao import OpenBao
from tests.world import Killed

NAME = "crash/secret"
WAIT = timedelta(seconds=60)

SIDES = pytest.mark.parametrize("side", ["before", "after"])


@dataclass
class Stage:
    """One secret of one kind, and the means to run a runner on it. ``folder`` has the journal. ``clock`` is the
    runner's, and ``advance`` moves it by so many seconds; both are the emulated cloud's where there is one. ``told`` is
    all that the runners have said."""

    folder: Path
    secret: Secret
    keys: Mapping[str, Key] = field(default_factory=dict)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    advance: Callable[[float], None] | None = None
    told: list[Event] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        folder: Path,
        stored_as: str,
        store: Plugin,
        credential: Plugin,
        strategy: Strategy,
        key: Key | None = None,
    ) -> Self:
        """One whose slot is in the store already, without a value, and that waits for nothing but for its target. Its
        values are sealed with the key, if there is one."""
        now = timedelta(0)
        secret = Secret(
            name=NAME,
            stored_as=stored_as,
            store=store,
            credential=credential,
            strategy=strategy,
            key=key and "key",
            sealed=key is not None,
            **dict.fromkeys(("bake", "settle", "grace"), now),
            patience=timedelta(seconds=10),
        )
        return cls(folder, secret, {"key": key} if key else {})

    @classmethod
    def on_vault(
        cls,
        folder: Path,
        openbao: OpenBao,
        mount: str,
        credential: Plugin,
        strategy: Strategy,
        key: Key | None = None,
    ) -> Self:
        """One in a KV engine, whose store has a token of its own, so that the kind's may be as small as can be."""
        (folder / "store-token").write_text(openbao.token)
        openbao.client().secrets.kv.v2.update_metadata(NAME, mount_point=mount, custom_metadata={"made": "by hand"})
        auth = {"method": "token_file", "path": str(folder / "store-token")}
        store = Plugin(kind="vault_kv", options={"mount": mount, "address": openbao.address, "auth": auth})
        return cls.of(folder, NAME, store, credential, strategy, key)

    def run(self, request: Request, kill: tuple[Act, str] | None = None) -> Result:
        """A new runner. ``kill`` names the act that it dies at, and on which side of it."""
        with self._journal() as journal:
            engine = self._engine(journal)
            perform = engine.acts.perform

            def perform_or_die(secret: Secret, seen: Any, step: Any) -> str:
                if kill == (step.act, "before"):
                    raise Killed
                detail = perform(secret, seen, step)
                if kill == (step.act, "after"):
                    raise Killed
                return detail

            engine.acts.perform = perform_or_die  # type: ignore[method-assign]
            return engine.run([NAME], request)[NAME]

    def settle(self) -> None:
        """Let the time pass that the store waits for before anything is retired; most wait for none."""
        with self._journal() as journal:
            store = self._engine(journal).plugins.store(self.secret)
        if isinstance(store, PromotesUnderLease):
            assert self.advance is not None, "nobody moves this clock"
            self.advance(store.settle.total_seconds())

    def observed(self) -> dict[str, object]:
        """What store and target say: the labelled generations, and what the target accepts of them."""
        with self._journal() as journal:
            engine = self._engine(journal)
            view = engine.observer.stored([self.secret], fresh=True)[NAME]
            kind = engine.plugins.kind(self.secret)
            labelled = {"current": view.current, "pending": view.pending, "previous": view.previous}
            return {
                label: version and (version.generation, kind.check(engine.custody.read(self.secret, version)))
                for label, version in labelled.items()
            }

    def value(self) -> SecretValue:
        """The current value, in clear."""
        with self._journal() as journal:
            engine = self._engine(journal)
            current = engine.observer.stored([self.secret], fresh=True)[NAME].current
            assert current is not None
            return engine.custody.read(self.secret, current).value

    def adopt(self) -> int:
        """Take over what somebody else put into the store, and return its generation."""
        with self._journal() as journal:
            engine = self._engine(journal)
            view = engine.observer.stored([self.secret], fresh=True)[NAME]
            return adopt(self.secret, view, engine.plugins, engine.custody, journal)

    def events(self) -> list[str]:
        """What the audit trail has, in its order."""
        with self._journal() as journal:
            return [entry.event for entry in journal.trail(NAME)]

    def _journal(self) -> Journal:
        return Journal(self.folder / "journal.sqlite3", self.clock)

    def _engine(self, journal: Journal) -> Engine:
        manifest = Manifest(
            environment="test",
            order=0,
            sources="",
            pins=Path("pins.json"),
            keys=dict(self.keys),
            secrets={NAME: self.secret},
        )
        plugins = Plugins(self.folder, manifest)
        return Engine(self.folder, manifest, plugins, journal, self.told.append, self.clock, workers=1)


class CrashContract:
    """A kind's own test says how to make a stage whose first generation is current."""

    @pytest.fixture
    def stage(self) -> Stage:
        raise NotImplementedError

    @pytest.fixture
    def kept(self) -> Callable[[], int] | None:
        """Counts the credentials that the target has of this secret, where that can be counted."""
        return None

    @SIDES
    @pytest.mark.parametrize("act", [Act.STAGE, Act.INSTALL, Act.TEST, Act.PROMOTE])
    def test_a_rotation_that_dies_at_an_act_is_finished_by_the_next_run(
        self, stage: Stage, kept: Callable[[], int] | None, act: Act, side: str
    ) -> None:
        assert dies(lambda: stage.run(Request(wait=WAIT), kill=(act, side)))
        result = stage.run(Request(wait=WAIT))
        assert isinstance(result.decision, Done), result
        assert result.decision.ending is Ending.PROMOTED
        assert stage.events()[-1] == "promoted"
        assert stage.observed() == {
            "current": (2, Acceptance.ACCEPTED),
            "pending": None,
            "previous": (1, Acceptance.DENIED if stage.secret.strategy is Strategy.SINGLE else Acceptance.ACCEPTED),
        }
        assert kept is None or kept() == 2

    @SIDES
    def test_a_retirement_that_dies_is_finished_by_the_next_run(
        self, stage: Stage, kept: Callable[[], int] | None, side: str
    ) -> None:
        stage.run(Request(wait=WAIT))
        stage.settle()
        assert dies(lambda: stage.run(Request(purpose=Purpose.RETIRE, wait=WAIT), kill=(Act.RETIRE, side)))
        stage.run(Request(purpose=Purpose.RETIRE, wait=WAIT))
        assert stage.observed() == {"current": (2, Acceptance.ACCEPTED), "pending": None, "previous": None}
        assert kept is None or kept() == 1

    @SIDES
    @pytest.mark.parametrize("act", [Act.REJECT, Act.RESTORE, Act.DISCARD])
    def test_a_rollback_that_dies_at_an_act_is_finished_by_the_next_run(
        self, stage: Stage, kept: Callable[[], int] | None, act: Act, side: str
    ) -> None:
        stage.run(Request(until="test", wait=WAIT))
        assert stage.observed()["pending"] == (2, Acceptance.ACCEPTED)
        back = Request(purpose=Purpose.ROLL_BACK, wait=WAIT)
        died = dies(lambda: stage.run(back, kill=(act, side)))
        # Only what was changed in place is to be put back.
        assert died is (act is not Act.RESTORE or stage.secret.strategy is Strategy.SINGLE)
        if died:
            result = stage.run(back)
            assert isinstance(result.decision, Done), result
            assert result.decision.ending is Ending.ROLLED_BACK
        assert stage.events()[-1] == "rolled back"
        assert stage.observed() == {"current": (1, Acceptance.ACCEPTED), "pending": None, "previous": None}
        assert kept is None or kept() == 1


def dies(run: Callable[[], object]) -> bool:
    try:
        run()
    except Killed:
        return True
    return False
