"""MySQL users on the real server, in AWS Secrets Manager, with a runner that dies before or after every act."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rotation.engine import Request
from rotation.manifest import Plugin
from rotation.model import Strategy
from tests.contracts.crash import WAIT, CrashContract, Stage
from tests.fixtures.aws import REGION, AwsApi
from tests.fixtures.mariadb import PLAIN, MysqlDatabase
from tests.world import memory_folder


class TestMysqlUser(CrashContract):
    @pytest.fixture(params=[Strategy.ALTERNATING, Strategy.SINGLE])
    def stage(
        self, request: pytest.FixtureRequest, aws_environment: AwsApi, mysql_database: MysqlDatabase
    ) -> Iterator[Stage]:
        name = mysql_database.name
        slot, administrator = f"crash-mysql-{name}/secret", f"crash-mysql-{name}/administrator"
        client = aws_environment.client("secretsmanager")
        client.create_secret(Name=slot)
        client.create_secret(Name=administrator, SecretString=mysql_database.administrator.reveal())
        options = {"administrator": administrator, "username_base": f"{name}_usr", "role": mysql_database.role}
        options |= {"dbname": name, "sslmode": PLAIN.sslmode}
        store = Plugin(kind="aws_secrets_manager", options={"region": REGION})
        with memory_folder() as folder:
            made = Stage.of(Path(folder), slot, store, Plugin(kind="mysql_user", options=options), request.param)
            made.run(Request(initialize=True, wait=WAIT))
            yield made
