"""Where each environment is, and where its state is kept."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from main import build_app
from modules.vendor import AccountTrust, OidcTrust
from rotation.credentials.mysql_user import MysqlUser
from rotation.credentials.postgres_user import PostgresUser
from rotation.errors import DeclarationError
from rotation.local.embedded import embedded, names
from rotation.local.embedded.local_tencent import SIGNATURE_LIFE
from rotation.local.environment import config_bucket
from rotation.model import Ring, Strategy
from rotation.secret_value import SecretValue
from stacks.environments import environments, local, local_tencent, local_vault
from stacks.estate import estate


def _write_endpoints(project: Path, text: str) -> None:
    path = project / ".keyturn" / "local" / "endpoints.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def _terraform(project: Path, stack: str) -> dict[str, Any]:
    build_app(project, only=[stack]).synth()
    content: dict[str, Any] = json.loads((project / "cdktf.out" / "stacks" / stack / "cdk.tf.json").read_text())
    return content


def test_environments_come_in_their_order_and_under_names_of_their_own(project: Path) -> None:
    declared = environments(project)

    assert [environment.name for environment in declared] == [
        "local",
        "local-tencent",
        "local-vault",
        "staging",
        "production",
    ]
    assert sorted(declared, key=lambda environment: environment.order) == list(declared)
    assert len({environment.vendor.stored_as("orders/db") for environment in declared}) == 5
    assert len({environment.config for environment in declared}) == 5


def test_only_local_goes_fast_and_trusts_its_account(project: Path) -> None:
    here, on_tencent, on_vault, *remote = environments(project)

    assert here.pace.bake + here.pace.settle + here.pace.grace < timedelta(seconds=30)
    assert here.pace == on_vault.pace == on_tencent.pace
    assert here.trusts == on_tencent.trusts == (AccountTrust(),)
    assert on_vault.trusts == (), "its tokens are handed out by the embedded environment"
    for environment in remote:
        assert environment.pace.bake >= timedelta(minutes=15)
        assert environment.pace.grace >= timedelta(hours=24)
        assert all(isinstance(trust, OidcTrust) for trust in environment.trusts)


@pytest.mark.parametrize("name", names())
def test_every_embedded_environment_is_declared_as_it_is_run(project: Path, name: str) -> None:
    (environment,) = [environment for environment in environments(project) if environment.name == name]

    assert environment.is_local
    assert set(embedded(name).deployed) == {"foundation", "secrets", "application"} - environment.provisioned
    assert bool(environment.https) == embedded(name).has_https
    assert environment.config == config_bucket(name)


def test_local_finds_the_embedded_environment_where_it_says_it_is(project: Path) -> None:
    applications = {"canary": "http://127.0.0.1:5001", "stable": "http://127.0.0.1:5002"}
    _write_endpoints(project, json.dumps({"aws": "http://127.0.0.1:5000", "applications": applications, "more": 1}))

    assert dict(local(project).applications) == {Ring(ring): url for ring, url in applications.items()}
    (provider,) = _terraform(project, "application-local")["provider"]["aws"]
    assert set(provider["endpoints"].values()) == {"http://127.0.0.1:5000"}
    assert {"access_key", "secret_key"}.isdisjoint(provider)


def test_local_vault_finds_openbao_where_it_is_once_it_was_asked_for(project: Path) -> None:
    rings = {"canary": "http://127.0.0.1:5003", "stable": "http://127.0.0.1:5004"}
    https = {"canary": "127.0.0.1:5005", "stable": "127.0.0.1:5006"}
    others = {"local-vault": {"server": "http://127.0.0.1:5002", "applications": rings, "https": https}}
    _write_endpoints(project, json.dumps({"aws": "http://127.0.0.1:5000", "applications": rings, "others": others}))

    here = local_vault(project)
    assert dict(here.applications) == {Ring(ring): url for ring, url in rings.items()}
    assert dict(here.https) == {Ring(ring): address for ring, address in https.items()}
    assert here.vendor.store().options["address"] == "http://127.0.0.1:5002"
    (provider,) = _terraform(project, "secrets-local-vault")["provider"]["vault"]
    assert provider == {"address": "http://127.0.0.1:5002"}, "a token comes from the environment of whoever plans"


def test_local_tencent_finds_the_emulated_cloud_and_tells_which_database_there_is(project: Path) -> None:
    rings = {"canary": "http://127.0.0.1:5003", "stable": "http://127.0.0.1:5004"}
    tencent = {"server": "http://127.0.0.1:5002", "applications": rings, "database": "mysql"}
    places = {"aws": "http://127.0.0.1:5000", "applications": rings, "others": {"local-tencent": tencent}}
    _write_endpoints(project, json.dumps(places))

    here = local_tencent(project)
    server = {"region": "ap-guangzhou", "endpoint": "http://127.0.0.1:5002"}
    assert here.vendor.store().options == {**server, "signature_life": SIGNATURE_LIFE}
    assert here.vendor.key_service().options == server
    assert dict(here.applications) == {Ring(ring): url for ring, url in rings.items()}
    login = estate(here).secrets[0].credential
    assert login.kind == "mysql_user"
    assert login.options["administrator"] == "local-tencent--orders--db-admin"
    MysqlUser({**login.options}, Strategy.ALTERNATING, SecretValue)  # it takes the options


def test_local_tencent_does_with_postgresql_where_there_is_no_mariadb(project: Path) -> None:
    login = estate(local_tencent(project)).secrets[0].credential

    assert login.kind == "postgres_user"
    PostgresUser({**login.options}, Strategy.ALTERNATING, SecretValue)


def test_local_synthesizes_before_the_embedded_environment_was_ever_started(project: Path) -> None:
    (provider,) = _terraform(project, "application-local")["provider"]["aws"]

    assert set(provider["endpoints"].values()) == {"http://127.0.0.1:4566"}


ODD_DATABASE = {"server": "x", "applications": {}, "database": "oracle"}
ODD = json.dumps({"aws": "x", "applications": {}, "others": {"local-tencent": ODD_DATABASE}})


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"aws": "x"}', '{"aws": "x", "applications": {"beta": "y"}}', ODD])
def test_endpoints_that_cannot_be_understood_are_refused(project: Path, text: str) -> None:
    _write_endpoints(project, text)

    with pytest.raises(DeclarationError, match=r"\.keyturn/local/endpoints\.json cannot be understood"):
        environments(project)


def test_local_state_is_a_file_of_the_project_named_absolutely(project: Path) -> None:
    backend = _terraform(project, "secrets-local")["terraform"]["backend"]

    path = Path(backend["local"]["path"])
    assert path == project / ".keyturn" / "local" / "terraform" / "secrets-local.tfstate"


def test_other_state_is_in_s3_encrypted_and_locked(project: Path) -> None:
    backend = _terraform(project, "secrets-production")["terraform"]["backend"]

    assert backend["s3"] == {
        "bucket": "keyturn-state-444455556666",
        "key": "keyturn/secrets-production.tfstate",
        "region": "eu-central-1",
        "encrypt": True,
        "use_lockfile": True,
    }


@pytest.mark.parametrize(("stack", "version"), [("secrets-local", "3.39.0"), ("secrets-staging", "6.69.1")])
def test_the_provider_is_pinned(project: Path, stack: str, version: str) -> None:
    required = _terraform(project, stack)["terraform"]["required_providers"]

    assert required == {"aws": {"source": "hashicorp/aws", "version": version}}


def test_the_wrong_account_is_refused_by_the_provider(project: Path) -> None:
    (provider,) = _terraform(project, "secrets-staging")["provider"]["aws"]

    assert provider == {"region": "eu-central-1", "allowed_account_ids": ["111122223333"]}
