"""Real credential kinds, stores and keys, on the real servers, with a runner that dies before or after every act.

The kinds that have much to prepare do so in tests of their own (tests/rotation/credentials).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from rotation.engine import Request
from rotation.manifest import Key, Plugin
from rotation.model import Strategy
from tests.contracts.crash import WAIT, CrashContract, Stage
from tests.fixtures.aws import REGION, AwsApi
from tests.fixtures.openbao import OpenBao
from tests.fixtures.postgresql import Database
from tests.fixtures.tls import NAMES, Pki
from tests.world import memory_folder

_TOKEN = Plugin(kind="random_token", options={"alphabet": "hex", "length": 40})
_numbers = count()


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


class TestPostgresUser(CrashContract):
    """In AWS Secrets Manager."""

    @pytest.fixture(params=[Strategy.ALTERNATING, Strategy.SINGLE])
    def stage(
        self,
        request: pytest.FixtureRequest,
        folder: Path,
        aws_environment: AwsApi,
        orders_database: Database,
    ) -> Iterator[Stage]:
        number = next(_numbers)
        administrator = f"crash-{number}/administrator"
        client = aws_environment.client("secretsmanager")
        client.create_secret(Name=administrator, SecretString=orders_database.administrator.reveal())
        options = {
            "administrator": administrator,
            "username_base": f"crash_{number}",
            "owner_role": orders_database.owner,
            "dbname": orders_database.name,
        }
        yield _on_aws(folder, aws_environment, Plugin(kind="postgres_user", options=options), request.param)
        for user in ("", "_a", "_b"):
            _drop(orders_database, f"crash_{number}{user}")


class TestRandomToken(CrashContract):
    """In AWS Secrets Manager."""

    @pytest.fixture
    def stage(self, folder: Path, aws_environment: AwsApi) -> Stage:
        return _on_aws(folder, aws_environment, _TOKEN, Strategy.OVERLAPPING)


class TestSealedTokenOnVault(CrashContract):
    """In a KV engine, sealed with a transit key."""

    @pytest.fixture
    def stage(self, folder: Path, vault_environment: OpenBao, kv_mount: str, transit_mount: str) -> Stage:
        vault_environment.client().secrets.transit.create_key("orders", derived=True, mount_point=transit_mount)
        options = {"mount": transit_mount, "address": vault_environment.address}
        key = Key(service=Plugin(kind="vault_transit", options=options), reference="orders")
        return _begun(Stage.on_vault(folder, vault_environment, kv_mount, _TOKEN, Strategy.OVERLAPPING, key))


class TestTlsCertificate(CrashContract):
    """From a PKI engine, in a KV engine."""

    @pytest.fixture
    def stage(self, folder: Path, pki: Pki, kv_mount: str) -> Stage:
        options = {"issuer": pki.issuer(address=pki.server.address), "names": list(NAMES)}
        credential = Plugin(kind="tls_certificate", options=options)
        return _begun(Stage.on_vault(folder, pki.server, kv_mount, credential, Strategy.OVERLAPPING))


def _on_aws(folder: Path, api: AwsApi, credential: Plugin, strategy: Strategy) -> Stage:
    slot = f"crash-{next(_numbers)}/secret"
    api.client("secretsmanager").create_secret(Name=slot)
    store = Plugin(kind="aws_secrets_manager", options={"region": REGION})
    return _begun(Stage.of(folder, slot, store, credential, strategy))


def _begun(stage: Stage) -> Stage:
    stage.run(Request(initialize=True, wait=WAIT))
    return stage


def _drop(database: Database, user: str) -> None:
    if database.run(f"SELECT FROM pg_roles WHERE rolname = '{user}'"):
        database.run(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')
