"""What the stacks declare for Vault is what runs on the embedded server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import hvac
import hvac.exceptions
import pytest

from modules.declarations import Credential, Estate, Secret
from modules.runner_identity import RunnerIdentity
from modules.vault import AppRole, PostgresConnection, Vault
from modules.vendor import OidcTrust, Places
from modules.where import here
from rotation.credentials.vault_approle_secret_id import VaultApproleSecretId
from rotation.credentials.vault_database_role import VaultDatabaseRole
from rotation.errors import LocalError, Unauthorized
from rotation.local.embedded.local_vault.declared import provision
from rotation.model import Acceptance, Strategy
from rotation.model import Credential as CredentialValue
from rotation.secret_value import SecretValue
from rotation.stores.vault_kv import VaultKv
from tests.contracts.credential_kind import installed
from tests.contracts.staging import promoted, text_of
from tests.fixtures.oidc import ISSUER, Signer
from tests.fixtures.openbao import OpenBao, await_versions
from tests.fixtures.postgresql import Database
from tests.modules.conftest import bare_stack, synthesized

POLICY = '{"path":{"declared-kv/data/a":{"capabilities":["read"]}}}'
STACK = {
    "resource": {
        "vault_mount": {
            "declared-kv": {"path": "declared-kv", "type": "kv", "options": {"version": "2"}, "//": {}},
            "declared-transit": {"path": "declared-transit", "type": "transit"},
            "declared-pki": {"path": "declared-pki", "type": "pki", "max_lease_ttl_seconds": 7200},
        },
        "vault_policy": {"reader": {"name": "declared-reader", "policy": POLICY}},
        "vault_transit_secret_backend_key": {
            "orders": {
                "backend": "${vault_mount.declared-transit.path}",
                "name": "orders",
                "type": "aes256-gcm96",
                "derived": True,
                "exportable": False,
                "deletion_allowed": False,
                "auto_rotate_period": 7776000,
            }
        },
        "vault_generic_endpoint": {
            "slot": {
                "path": "declared-kv/metadata/slot",
                "data_json": '{"custom_metadata": {"note": "$${not} a reference"}}',
                "disable_delete": True,
            }
        },
        "vault_pki_secret_backend_role": {
            "orders": {
                "backend": "${vault_mount.declared-pki.path}",
                "name": "orders",
                "allowed_domains": ["orders.example.com"],
                "allow_any_name": False,
                "max_ttl": "3600",
            }
        },
    }
}


def test_what_is_declared_is_there_however_often_it_is_put_there(openbao: OpenBao) -> None:
    client = openbao.client()
    for _ in range(2):
        assert provision(client, [STACK, {}]) == ("declared-reader",)

    key = client.secrets.transit.read_key("orders", mount_point="declared-transit")["data"]
    assert key["derived"]
    assert not key["deletion_allowed"]
    assert key["auto_rotate_period"] == 7776000
    assert key["latest_version"] == 1
    role = client.secrets.pki.read_role("orders", mount_point="declared-pki")["data"]
    assert role["allowed_domains"] == ["orders.example.com"]
    slot = client.secrets.kv.v2.read_secret_metadata("slot", mount_point="declared-kv")["data"]
    assert slot["custom_metadata"] == {"note": "${not} a reference"}
    assert slot["versions"] == {}
    mounts = client.sys.list_mounted_secrets_engines()["data"]
    assert mounts["declared-pki/"]["config"]["max_lease_ttl"] == 7200
    client.secrets.kv.v2.create_or_update_secret("a", {"value": "one"}, mount_point="declared-kv")
    token = client.auth.token.create(policies=["declared-reader"], no_default_policy=True)["auth"]["client_token"]
    reader = openbao.client(token)
    assert reader.secrets.kv.v2.read_secret("a", mount_point="declared-kv", raise_on_deleted_version=True)
    with pytest.raises(hvac.exceptions.Forbidden):
        reader.secrets.kv.v2.read_secret("b", mount_point="declared-kv", raise_on_deleted_version=True)


def test_what_is_not_known_is_refused_before_anything_is_made(openbao: OpenBao) -> None:
    stack = {"resource": {"vault_mount": {"a": {"path": "never", "type": "kv"}}, "vault_audit": {"b": {}}}}
    with pytest.raises(LocalError, match="cannot be given vault_audit"):
        provision(openbao.client(), [stack])
    assert "never/" not in openbao.client().sys.list_mounted_secrets_engines()["data"]


def test_what_the_server_refuses_is_said(openbao: OpenBao) -> None:
    stack = {"resource": {"vault_mount": {"a": {"path": "declared-what", "type": "no-such-engine"}}}}
    with pytest.raises(LocalError, match="refused what is declared"):
        provision(openbao.client(), [stack])


def test_a_variable_without_a_value_is_refused_before_anything_is_made(openbao: OpenBao) -> None:
    server = {"connection_url": "postgresql://x", "username": "x", "password_wo": "${var.password}"}
    connection = {"name": "a", "backend": "never", "allowed_roles": [], "postgresql": server}
    mount = {"path": "never", "type": "kv"}
    stack = {"resource": {"vault_mount": {"a": mount}, "vault_database_secret_backend_connection": {"a": connection}}}
    with pytest.raises(LocalError, match="the variable password has no value"):
        provision(openbao.client(), [stack])
    assert "never/" not in openbao.client().sys.list_mounted_secrets_engines()["data"]


def _unread(name: str) -> SecretValue:
    raise AssertionError(f"{name} was read")


@pytest.fixture
def declared(openbao: OpenBao, orders_database: Database) -> Iterator[tuple[Vault, dict[str, Any], dict[str, Any]]]:
    """An environment on the server with two users' static roles and an AppRole, its stack, and the database's place;
    what it declares is taken away at the end."""
    name, host, port = orders_database.name, orders_database.server.host, orders_database.server.port
    administrator = json.loads(orders_database.administrator.reveal())["username"]
    for user in (f"{name}_a", f"{name}_b"):
        orders_database.run(f"CREATE ROLE {user} LOGIN PASSWORD 'old-password'")
        orders_database.run(f"GRANT {orders_database.owner} TO {user}")
        orders_database.run(f"GRANT {user} TO {administrator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    connection = PostgresConnection(
        "orders",
        url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{name}",
        username=administrator,
        users={"a": f"{name}_a", "b": f"{name}_b"},
        password="orders_password",
    )
    vault = Vault("roles", openbao.address, databases=(connection,), app_roles=(AppRole("billing", ("default",)),))
    place = {"host": host, "port": port, "dbname": name}
    kinds = {
        "orders/db": Credential("vault_database_role", vault.static_roles("a", "b") | place),
        "billing/vault": Credential("vault_approle_secret_id", vault.app_role("billing")),
    }
    secrets = tuple(Secret(secret, kind, strategy=Strategy.OVERLAPPING) for secret, kind in kinds.items())
    stack = bare_stack()
    vault.provide(stack)
    vault.prepare(stack, here())
    RunnerIdentity(stack, vault, Estate(secrets=secrets), keys={}, places=Places("config"), trusts=())
    with ExitStack() as cleanup:
        root = openbao.client()
        cleanup.callback(root.sys.disable_auth_method, vault.approle)
        for mount in (vault.kv, vault.transit, vault.database):
            cleanup.callback(root.sys.disable_secrets_engine, mount)
        yield vault, synthesized(stack), place


def test_static_roles_and_app_roles_that_are_declared_can_be_turned_with_the_declared_rights(
    openbao: OpenBao,
    orders_database: Database,
    declared: tuple[Vault, dict[str, Any], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vault, stack, place = declared
    password = json.loads(orders_database.administrator.reveal())["password"]
    for _ in range(2):
        assert provision(openbao.client(), [stack], {"orders_password": SecretValue(password)}) == (
            "keyturn-roles-runner",
        )
    made = openbao.client().auth.token.create(policies=["keyturn-roles-runner"], no_default_policy=True, ttl="1h")
    monkeypatch.setenv("VAULT_TOKEN", made["auth"]["client_token"])
    monkeypatch.delenv("VAULT_NAMESPACE", raising=False)

    logins = VaultDatabaseRole(vault.static_roles("a", "b") | place, Strategy.ALTERNATING, _unread)
    first = installed(logins, 1)
    second = installed(logins, 2, first)
    assert (logins.check(first), logins.check(second)) == (Acceptance.ACCEPTED, Acceptance.ACCEPTED)
    logins.revoke(first, second)
    assert (logins.check(first), logins.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)

    machines = VaultApproleSecretId(vault.app_role("billing"), Strategy.OVERLAPPING, _unread)
    login = CredentialValue("billing/vault", 1, machines.issue(None))
    machines.install(login, None)
    assert machines.check(login) is Acceptance.ACCEPTED


def test_putting_declared_roles_in_place_again_rotates_nothing(
    openbao: OpenBao, orders_database: Database, declared: tuple[Vault, dict[str, Any], dict[str, Any]]
) -> None:
    vault, stack, _ = declared
    password = SecretValue(json.loads(orders_database.administrator.reveal())["password"])
    seen = []
    for _ in range(2):
        provision(openbao.client(), [stack], {"orders_password": password})
        seen.append(openbao.client().secrets.database.get_static_credentials("a", mount_point=vault.database)["data"])
    assert seen[0]["password"] == seen[1]["password"]
    assert seen[0]["rotation_period"] == 10 * 365 * 24 * 60 * 60


def test_a_pipeline_logs_in_as_it_is_declared_and_no_other_job_or_audience_does(
    openbao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its issuer's key is given to the server, which would fetch it from the issuer's address."""
    monkeypatch.delenv("VAULT_NAMESPACE", raising=False)
    vault, signer, stack = Vault("jobs", openbao.address), Signer(), bare_stack()
    trust = OidcTrust(issuer=ISSUER, audience=openbao.address, claims={"sub": "repo:acme/orders"})
    secret = Secret("orders/token", Credential("random_token"), strategy=Strategy.OVERLAPPING)
    vault.provide(stack)
    vault.prepare(stack, here())
    RunnerIdentity(stack, vault, Estate(secrets=(secret,)), keys={}, places=Places("config"), trusts=(trust,))
    declared = synthesized(stack)
    (backend,) = declared["resource"]["vault_jwt_auth_backend"].values()
    assert backend.pop("oidc_discovery_url") == ISSUER
    backend["jwt_validation_pubkeys"] = [signer.public]
    root = openbao.client()
    with ExitStack() as cleanup:
        for mount in (vault.kv, vault.transit):
            cleanup.callback(root.sys.disable_secrets_engine, mount)
        cleanup.callback(root.sys.disable_auth_method, backend["path"])
        for _ in range(2):
            provision(root, [declared])
        await_versions(root, vault.kv)
        root.secrets.kv.v2.update_metadata("orders/token", custom_metadata={"a": "b"}, mount_point=vault.kv)
        auth = {"method": "jwt", "mount": backend["path"], "role": "keyturn", "token_variable": "CI_JWT"}
        store = VaultKv({"address": openbao.address, "mount": vault.kv, "auth": auth})
        for refused in ({"subject": "repo:acme/other"}, {"audience": "https://elsewhere.example"}):
            monkeypatch.setenv("CI_JWT", signer.token(**({"audience": openbao.address} | refused)))
            with pytest.raises(Unauthorized, match="log in") as told:
                store.observe(["orders/token"])
            assert "what the role is bound to" in told.value.remedy
        monkeypatch.setenv("CI_JWT", signer.token(openbao.address))
        promoted(store, "orders/token", 1)
        assert store.read("orders/token") == text_of(1)
        with pytest.raises(Unauthorized):
            store.read("orders/another")
        held = store._vault.ask(lambda client: client.auth.token.lookup_self(), "look up the runner's token")["data"]
        assert (held["policies"], held["ttl"] <= 3600) == (["keyturn-jobs-runner"], True)
