"""A whole rotation of a secret in SSM whose consumer is a function: canary by an alias, health from its log topic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rotation.engine import Engine, Request
from rotation.journal import Journal
from rotation.manifest import Consumer, ConsumerRing, Manifest, Plugin, Secret, digest_of_sources
from rotation.model import Done, Ending, Ring, Strategy, Wait
from rotation.plugins import Plugins
from tests.fixtures.scf import ScfFunction, ask_ssm, make_topic
from tests.fixtures.tencent import TencentCloud

NAME, CONSUMER = "orders/session-key", "orders-api"
TEMPLATE = """\
SESSION_KEY_SECRET={{ secrets["orders/session-key"].name | dotenv }}
SESSION_KEY_VERSION={{ secrets["orders/session-key"].version_id | dotenv }}
SESSION_KEY_GENERATION={{ secrets["orders/session-key"].generation | dotenv }}
"""
CODE = """
import os
def main_handler(event, context):
    generation = os.environ.get("SESSION_KEY_GENERATION", "0")
    level = "ERROR" if generation == "2" else "INFO"
    print(level, "secret=orders/session-key generation=" + generation, "used")
    return generation
"""


class Shop:
    """A function that uses a session key, and the engine that turns it."""

    def __init__(self, cloud: TencentCloud, project: Path) -> None:
        self.cloud = cloud
        self.project = project
        self.topic = make_topic(cloud)
        self.function = ScfFunction.make(cloud, CODE, ClsTopicId=self.topic)
        self.stored_as = cloud.name("session-key")
        ask_ssm(cloud, "CreateSecret", SecretName=self.stored_as, VersionId="default", SecretString="x")
        (project / "orders-api.env.j2").write_text(TEMPLATE)
        health = Plugin(kind="tencent_cls", options={**cloud.options, "topic": self.topic, "delay": 0})
        none = timedelta(0)
        secret = Secret(
            name=NAME,
            stored_as=self.stored_as,
            store=Plugin(kind="tencent_ssm", options=cloud.options),
            credential=Plugin(kind="random_token"),
            strategy=Strategy.OVERLAPPING,
            bake=none,
            settle=none,
            patience=timedelta(minutes=5),
            grace=none,
        )
        consumer = Consumer(
            name=CONSUMER,
            template=Path("orders-api.env.j2"),
            format="dotenv",
            secrets=(NAME,),
            target=Plugin(kind="tencent_scf", options={**cloud.options, "function": self.function.name}),
            rings={
                ring: ConsumerRing(rendered=Path(f"rendered/{ring}.env"), addresses=(), signals=(health,))
                for ring in Ring
            },
        )
        self.manifest = Manifest(
            environment="test",
            order=1,
            sources=digest_of_sources(project),
            pins=Path("pins.json"),
            secrets={NAME: secret},
            consumers={CONSUMER: consumer},
        )

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        with Journal(self.project / "journal.sqlite3") as journal:
            yield Engine(self.project, self.manifest, Plugins(self.project, self.manifest), journal)

    def ending(self, *, initialize: bool = False) -> Ending | None:
        """How a run ended; None where it waits for what the function prints."""
        with self.engine() as engine:
            result = engine.run([NAME], Request(initialize=initialize))[NAME]
        if isinstance(result.decision, Wait):
            assert "no clear verdict yet" in result.decision.reason
            return None
        assert isinstance(result.decision, Done), result
        return result.decision.ending

    def as_a_pipeline(self, *, initialize: bool = False) -> Ending | None:
        """The same where what is to be deployed is deployed by others, with the stacks."""
        for _ in range(3):
            with self.engine() as engine:
                decision = engine.run([NAME], Request(initialize=initialize, outside=True))[NAME].decision
                if not isinstance(decision, Wait) or not decision.outside:
                    return decision.ending if isinstance(decision, Done) else None
                before = self.serve()
                assert engine.rollout.deploy_apart()[0].changed
                assert self.serve() != before
                assert engine.rollout.deploy_apart()[0].changed == (), "nothing is left to deploy"
        raise AssertionError("no end after 3 deployments")

    def serve(self) -> set[str]:
        """Calls of every version that the alias serves; returns the generations that they use."""
        alias = self.function.ask("GetAlias", Name="$DEFAULT")
        versions = [alias.FunctionVersion, *(one.Version for one in alias.RoutingConfig.AdditionalVersionWeights)]
        return {json.loads(self.function.call(version).RetMsg) for version in versions}

    def values(self) -> dict[str, str]:
        """What the store holds, by version."""
        listed = ask_ssm(self.cloud, "ListSecretVersionIds", SecretName=self.stored_as).Versions
        asked = [{"SecretName": self.stored_as, "VersionId": version.VersionId} for version in listed]
        return {one["VersionId"]: ask_ssm(self.cloud, "GetSecretValue", **one).SecretString for one in asked}


def test_a_function_follows_where_a_pipeline_deploys_and_comes_back_when_its_canary_fails(
    tencent: TencentCloud, tmp_path: Path
) -> None:
    shop = Shop(tencent, tmp_path)
    ways = []
    while (ending := shop.as_a_pipeline(initialize=True)) is None:
        ways.append(shop.serve())
    assert (ending, ways) == (Ending.PROMOTED, [{"0", "1"}, {"1"}])
    assert (shop.as_a_pipeline(), shop.serve()) == (None, {"1", "2"})
    assert (shop.as_a_pipeline(), shop.serve()) == (Ending.ROLLED_BACK, {"1"})


def test_a_candidate_that_fails_in_the_canary_is_taken_back_and_the_next_one_reaches_everybody(
    tencent: TencentCloud, tmp_path: Path
) -> None:
    shop = Shop(tencent, tmp_path)
    ways = [(shop.ending(initialize=True), shop.serve()) for _ in range(3)]
    assert ways == [(None, {"0", "1"}), (None, {"1"}), (Ending.PROMOTED, {"1"})]

    ways = [(shop.ending(), shop.serve()) for _ in range(2)]
    assert ways == [(None, {"1", "2"}), (Ending.ROLLED_BACK, {"1"})]
    assert shop.function.variables()["SESSION_KEY_GENERATION"] == "1"

    ways = [(shop.ending(), shop.serve()) for _ in range(3)]
    assert ways == [(None, {"1", "3"}), (None, {"3"}), (Ending.PROMOTED, {"3"})]
    assert shop.function.variables()["SESSION_KEY_VERSION"] == "g0000000003"
    values = {value for value in shop.values().values() if len(value) == 32}
    assert len(values) == 2
    shown = json.dumps(shop.function.variables()) + (tmp_path / "rendered/stable.env").read_text()
    assert not any(value in shown for value in values)
