"""Every real credential kind, on the real servers, with a runner that dies before or after every act.

The simulated world (test_crash.py) kills at every remote call; here the kinds, the store and the journal are the real
ones, and what is looked at in the end is what the servers themselves say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest

from rotation.adopt import adopt
from rotation.engine import Engine, Purpose, Request, Result
from rotation.journal import Journal
from rotation.manifest import Manifest, Plugin, Secret
from rotation.model import Acceptance, Act, Done, Ending, Strategy
from rotation.plugins import Plugins
from tests.fixtures.aws import REGION, AwsApi
from tests.fixtures.openbao import OpenBao
from tests.fixtures.postgresql import Database
from tests.world import Killed

NAME = "crash/secret"
WAIT = timedelta(seconds=60)
_numbers = count()


@dataclass
class Stage:
    """One secret of one kind with its first generation, and the means to run a runner on it."""

    folder: Path
    secret: Secret

    @classmethod
    def of(cls, folder: Path, stored_as: str, store: Plugin, credential: Plugin, strategy: Strategy) -> Self:
        """One whose slot is in the store already, without a value, and that waits for nothing but for its target."""
        now = timedelta(0)
        secret = Secret(
            name=NAME,
            stored_as=stored_as,
            store=store,
            credential=credential,
            strategy=strategy,
            **dict.fromkeys(("bake", "settle", "grace"), now),
            patience=timedelta(seconds=10),
        )
        return cls(folder, secret)

    @classmethod
    def on_vault(cls, folder: Path, openbao: OpenBao, mount: str, credential: Plugin, strategy: Strategy) -> Self:
        """One in a KV engine, whose store has a token of its own, so that the kind's may be as small as can be."""
        (folder / "store-token").write_text(openbao.token)
        openbao.client().secrets.kv.v2.update_metadata(NAME, mount_point=mount, custom_metadata={"made": "by hand"})
        auth = {"method": "token_file", "path": str(folder / "store-token")}
        store = Plugin(kind="vault_kv", options={"mount": mount, "address": openbao.address, "auth": auth})
        return cls.of(folder, NAME, store, credential, strategy)

    def run(self, request: Request, kill: tuple[Act, str] | None = None) -> Result:
        """A new runner. ``kill`` names the act that it dies at, and on which side of it."""
        manifest = Manifest(
            environment="test", order=0, sources="", pins=Path("pins.json"), secrets={NAME: self.secret}
        )
        with Journal(self.folder / "journal.sqlite3") as journal:
            engine = Engine(self.folder, manifest, Plugins(self.folder, manifest), journal, workers=1)
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

    def observed(self) -> dict[str, object]:
        """What store and target say: the labelled generations, and what the target accepts of them."""
        manifest = Manifest(
            environment="test", order=0, sources="", pins=Path("pins.json"), secrets={NAME: self.secret}
        )
        plugins = Plugins(self.folder, manifest)
        with Journal(self.folder / "journal.sqlite3") as journal:
            engine = Engine(self.folder, manifest, plugins, journal)
            view = engine.observer.stored([self.secret], fresh=True)[NAME]
            kind = plugins.kind(self.secret)
            labelled = {"current": view.current, "pending": view.pending, "previous": view.previous}
            return {
                label: version and (version.generation, kind.check(engine.custody.read(self.secret, version)))
                for label, version in labelled.items()
            }

    def adopt(self) -> int:
        """Take over what somebody else put into the store, and return its generation."""
        with Journal(self.folder / "journal.sqlite3") as journal:
            engine = self._engine(journal)
            view = engine.observer.stored([self.secret], fresh=True)[NAME]
            return adopt(self.secret, view, engine.plugins, engine.custody, journal)

    def _engine(self, journal: Journal) -> Engine:
        secrets = {NAME: self.secret}
        manifest = Manifest(environment="test", order=0, sources="", pins=Path("pins.json"), secrets=secrets)
        return Engine(self.folder, manifest, Plugins(self.folder, manifest), journal, workers=1)


@pytest.fixture(params=["postgres_user", "postgres_user in place", "random_token"])
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, aws_environment: AwsApi, orders_database: Database
) -> Iterator[Stage]:
    number = next(_numbers)
    client = aws_environment.client("secretsmanager")
    slot, administrator = f"crash-{number}/secret", f"crash-{number}/administrator"
    client.create_secret(Name=slot)
    client.create_secret(Name=administrator, SecretString=orders_database.administrator.reveal())
    login = {
        "administrator": administrator,
        "username_base": f"crash_{number}",
        "owner_role": orders_database.owner,
        "dbname": orders_database.name,
    }
    credential, strategy = {
        "postgres_user": (Plugin(kind="postgres_user", options=login), Strategy.ALTERNATING),
        "postgres_user in place": (Plugin(kind="postgres_user", options=login), Strategy.SINGLE),
        "random_token": (Plugin(kind="random_token", options={"alphabet": "hex", "length": 40}), Strategy.OVERLAPPING),
    }[request.param]
    made = Stage.of(
        tmp_path, slot, Plugin(kind="aws_secrets_manager", options={"region": REGION}), credential, strategy
    )
    made.run(Request(initialize=True, wait=WAIT))
    yield made
    for user in ("", "_a", "_b"):
        _drop(orders_database, f"crash_{number}{user}")


def _drop(database: Database, user: str) -> None:
    if database.run(f"SELECT FROM pg_roles WHERE rolname = '{user}'"):
        database.run(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("act", [Act.STAGE, Act.INSTALL, Act.TEST, Act.PROMOTE])
def test_a_rotation_that_dies_at_an_act_is_finished_by_the_next_run(stage: Stage, act: Act, side: str) -> None:
    if dies(lambda: stage.run(Request(wait=WAIT), kill=(act, side))):
        result = stage.run(Request(wait=WAIT))
        assert isinstance(result.decision, Done), result
        assert result.decision.ending is Ending.PROMOTED
    else:  # this kind needs no such act: what it makes is accepted as it is
        assert (stage.secret.credential.kind, act) == ("random_token", Act.INSTALL)
    current = stage.observed()["current"]
    assert current == (2, Acceptance.ACCEPTED)
    assert stage.observed()["pending"] is None


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_retirement_that_dies_is_finished_by_the_next_run(stage: Stage, side: str) -> None:
    stage.run(Request(wait=WAIT))
    assert dies(lambda: stage.run(Request(purpose=Purpose.RETIRE, wait=WAIT), kill=(Act.RETIRE, side)))
    stage.run(Request(purpose=Purpose.RETIRE, wait=WAIT))
    assert stage.observed() == {"current": (2, Acceptance.ACCEPTED), "pending": None, "previous": None}


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("act", [Act.REJECT, Act.RESTORE, Act.DISCARD])
def test_a_rollback_that_dies_at_an_act_is_finished_by_the_next_run(stage: Stage, act: Act, side: str) -> None:
    stage.run(Request(until="test", wait=WAIT))
    assert stage.observed()["pending"] == (2, Acceptance.ACCEPTED)
    back = Request(purpose=Purpose.ROLL_BACK, wait=WAIT)
    if dies(lambda: stage.run(back, kill=(act, side))):
        result = stage.run(back)
        assert isinstance(result.decision, Done), result
        assert result.decision.ending is Ending.ROLLED_BACK
    else:  # only what was changed in place is to be put back
        assert act is Act.RESTORE
        assert stage.secret.strategy is not Strategy.SINGLE
    assert stage.observed() == {"current": (1, Acceptance.ACCEPTED), "pending": None, "previous": None}


def test_the_audit_trail_of_a_killed_rotation_says_how_it_ended(stage: Stage) -> None:
    assert dies(lambda: stage.run(Request(wait=WAIT), kill=(Act.PROMOTE, "after")))
    stage.run(Request(wait=WAIT))
    with Journal(stage.folder / "journal.sqlite3") as journal:
        events = [entry.event for entry in journal.trail(NAME)]
        assert events[-1] == "promoted"


def dies(run: Callable[[], object]) -> bool:
    try:
        run()
    except Killed:
        return True
    return False
