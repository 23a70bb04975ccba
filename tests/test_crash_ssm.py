"""Real credential kinds in Tencent Cloud's store, on the emulated cloud, with a runner that dies at every act.

The store waits for 1200 s before anything is retired. The clock of the runner, by which it signs as well, is the
emulated cloud's, and is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rotation.engine import Purpose, Request
from rotation.manifest import Key, Plugin
from rotation.model import Acceptance, Act, Strategy, Wait
from tests.contracts.crash import WAIT, CrashContract, Stage, dies
from tests.fixtures.mariadb import PLAIN, MysqlDatabase
from tests.fixtures.tencent import TencentCloud, ask
from tests.rotation.credentials.test_tencent_cam_key import Robot, robot
from tests.rotation.credentials.test_tencent_product_secret import Product, product
from tests.world import memory_folder

__all__ = ["product", "robot"]  # fixtures of those files

TOKEN = Plugin(kind="random_token", options={"alphabet": "hex", "length": 40})


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


class TestSealedToken(CrashContract):
    """Sealed with a key of KMS."""

    @pytest.fixture
    def stage(self, folder: Path, timed_tencent: TencentCloud) -> Stage:
        key = Key(
            service=Plugin(kind="tencent_kms", options=timed_tencent.options), reference=key_of_kms(timed_tencent)
        )
        return on_tencent(folder, timed_tencent, TOKEN, Strategy.OVERLAPPING, key)

    def test_what_a_dead_promotion_replaced_is_kept_for_as_long_as_its_request_might_still_arrive(
        self, stage: Stage
    ) -> None:
        """The time counts from when the next run has found out that it is dead."""
        assert dies(lambda: stage.run(Request(wait=WAIT), kill=(Act.PROMOTE, "after")))
        stage.settle()
        stage.run(Request(wait=WAIT))
        retire = Request(purpose=Purpose.RETIRE, wait=WAIT)
        kept = stage.run(retire).decision
        assert isinstance(kept, Wait)
        assert "could still arrive" in kept.reason
        assert stage.observed()["previous"] == (1, Acceptance.ACCEPTED)
        stage.settle()
        stage.run(retire)
        assert stage.observed() == {"current": (2, Acceptance.ACCEPTED), "pending": None, "previous": None}


class TestTencentCamKey(CrashContract):
    @pytest.fixture
    def stage(self, folder: Path, timed_tencent: TencentCloud, robot: Robot) -> Stage:
        credential = Plugin(kind="tencent_cam_key", options={"user": robot.name, **timed_tencent.options})
        return on_tencent(folder, timed_tencent, credential, Strategy.OVERLAPPING)

    @pytest.fixture
    def kept(self, robot: Robot) -> Callable[[], int]:
        keys, uin = robot.tencent.cloud.identities.keys, str(robot.uin)
        return lambda: sum(key.uin == uin for key in keys.all().values())


class TestMysqlUser(CrashContract):
    """In the shape that Tencent's consumer SDK reads."""

    @pytest.fixture
    def stage(self, folder: Path, timed_tencent: TencentCloud, mysql_database: MysqlDatabase) -> Stage:
        administrator = timed_tencent.name("administrator")
        login = mysql_database.administrator.reveal()
        ask(timed_tencent.client("ssm"), "CreateSecret", SecretName=administrator, SecretString=login)
        options = {"administrator": administrator, "username_base": f"{mysql_database.name}_usr", "shape": "tencent"}
        options |= {"role": mysql_database.role, "dbname": mysql_database.name, "sslmode": PLAIN.sslmode}
        credential = Plugin(kind="mysql_user", options=options)
        return on_tencent(folder, timed_tencent, credential, Strategy.ALTERNATING)


class TestTencentProductSecret(CrashContract):
    @pytest.fixture
    def stage(self, folder: Path, timed_tencent: TencentCloud, product: Product) -> Stage:
        root, database = product.database.server.root, product.database.name
        options = {"product_secret": product.name, "host": root.host, "port": root.port, "dbname": database}
        options |= {"sslmode": PLAIN.sslmode, "patience": 5, **timed_tencent.options}
        credential = Plugin(kind="tencent_product_secret", options=options)
        return on_tencent(folder, timed_tencent, credential, Strategy.ALTERNATING)


def on_tencent(
    folder: Path, tencent: TencentCloud, credential: Plugin, strategy: Strategy, key: Key | None = None
) -> Stage:
    """A stage whose first generation is current, in a secret as Terraform makes it."""
    ssm, name = tencent.client("ssm"), tencent.name("crash")
    ask(ssm, "CreateSecret", SecretName=name, VersionId="default", SecretString="default")
    ask(ssm, "DeleteSecretVersion", SecretName=name, VersionId="default")
    store = Plugin(kind="tencent_ssm", options=tencent.options)
    stage = Stage.of(folder, name, store, credential, strategy, key)
    stage.clock, stage.advance = tencent.clock.moment, tencent.clock.advance
    stage.run(Request(initialize=True, wait=WAIT))
    return stage


def key_of_kms(tencent: TencentCloud) -> str:
    alias = tencent.name("key")
    ask(tencent.client("kms"), "CreateKey", Alias=alias)
    return alias
