"""What is declared on Vault: mounts, keys, policies, roles and connections, and no value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import hvac
import pytest

from modules.declarations import Credential, Estate, Key, Pace, Secret
from modules.encryption_key import EncryptionKey
from modules.managed_secret import ManagedSecret
from modules.resource import Resource, Stack
from modules.rotation_trigger import RotationTrigger, Trigger
from modules.runner_identity import RunnerIdentity
from modules.secretless import refusals
from modules.vault import AppRole, PkiRole, PostgresConnection, Vault
from modules.vendor import AccountTrust, KeySpec, OidcTrust, Places, Trust
from modules.where import here
from rotation.errors import DeclarationError
from rotation.model import Strategy
from tests.fixtures.openbao import OpenBao, are_forbidden
from tests.modules.conftest import bare_stack, only, synthesized

MOUNT, TRANSIT = "keyturn-staging", "keyturn-staging-transit"
GITHUB = OidcTrust(
    issuer="https://token.actions.githubusercontent.com",
    audience="https://vault.example.com",
    claims={"sub": "repo:example/orders:environment:staging", "repository_owner": "example"},
)
JENKINS = OidcTrust(
    issuer="https://jenkins.example.com/oidc", audience="vault", claims={"sub": "job/rotate", "folder": "${not}"}
)
ESTATE = Estate(
    keys=(Key("orders", native_days=90), Key("idle")),
    secrets=(
        Secret(
            "orders/db",
            Credential("postgres_user", reads=("orders/db-admin",)),
            strategy=Strategy.ALTERNATING,
            description="The login",
            readers=("orders-api",),
            tags={"team": "${orders}"},
        ),
        Secret("orders/token", Credential("random_token"), strategy=Strategy.OVERLAPPING, key="orders", sealed=True),
    ),
)
PACE = Pace(*[timedelta(seconds=1)] * 4)


def vault(**others: Any) -> Vault:
    return Vault("staging", "https://vault.example.com", **others)


def _stack(vendor: Vault) -> Stack:
    stack = bare_stack()
    vendor.provide(stack)
    return stack


def _foundation(vendor: Vault, *trusts: Trust) -> Stack:
    stack = _stack(vendor)
    vendor.prepare(stack, here())
    keys = {
        key.name: EncryptionKey(stack, vendor, key, deletion_days=30, readers=("orders-api",)).address
        for key in ESTATE.keys
    }
    RunnerIdentity(stack, vendor, ESTATE, keys=keys, places=Places("config"), trusts=trusts)
    return stack


def _rules(stack: Stack, name: str) -> dict[str, list[str]]:
    declared = synthesized(stack)["resource"]["vault_policy"][name]
    return {path: rule["capabilities"] for path, rule in json.loads(declared["policy"])["path"].items()}


def test_every_environment_has_mounts_of_its_own() -> None:
    mounts = synthesized(_foundation(vault()))["resource"]["vault_mount"]

    assert {(mount["path"], mount["type"]) for mount in mounts.values()} == {(MOUNT, "kv"), (TRANSIT, "transit")}
    assert mounts[MOUNT]["options"] == {"version": "2"}


def test_a_key_derives_renews_itself_and_can_be_neither_exported_nor_deleted() -> None:
    key = synthesized(_foundation(vault()))["resource"]["vault_transit_secret_backend_key"]["key-orders"]

    assert {name: value for name, value in key.items() if name != "//"} == {
        "backend": f"${{vault_mount.{TRANSIT}.path}}",
        "name": "orders",
        "type": "aes256-gcm96",
        "derived": True,
        "exportable": False,
        "deletion_allowed": False,
        "auto_rotate_period": 90 * 24 * 60 * 60,
        "lifecycle": {"ignore_changes": ["min_decryption_version"]},
    }


def test_a_key_s_name_holds_no_slash_where_the_engine_takes_none() -> None:
    vendor, stack = vault(), _stack(vault())
    vendor.key(stack, KeySpec("orders/inner", native_days=1, deletion_days=1, readers=()), here())

    assert only(stack, "vault_transit_secret_backend_key")["name"] == vendor.key_reference("orders/inner")
    assert "/" not in vendor.key_reference("orders/inner")


def test_store_and_keys_are_named_for_the_rotation() -> None:
    vendor = vault(namespace="team", auth={"method": "jwt", "role": "keyturn"})

    where = {"address": "https://vault.example.com", "namespace": "team", "auth": {"method": "jwt", "role": "keyturn"}}
    assert vendor.store().kind == "vault_kv"
    assert vendor.store().options == {"mount": MOUNT, **where}
    assert vendor.key_service().kind == "vault_transit"
    assert vendor.key_service().options == {"mount": TRANSIT, **where}
    (provider,) = synthesized(_stack(vendor))["provider"]["vault"]
    assert provider == {"address": "https://vault.example.com", "namespace": "team"}


def test_a_slot_is_its_metadata_and_the_policy_of_its_readers_and_never_a_value() -> None:
    stack = _stack(vault())
    for secret in ESTATE.secrets:
        ManagedSecret(stack, vault(), secret, pace=PACE, recovery_days=7)

    content = synthesized(stack)
    slots = content["resource"].pop("vault_generic_endpoint")
    assert slots["orders--db"]["path"] == f"{MOUNT}/metadata/orders/db"
    assert json.loads(slots["orders--db"]["data_json"]) == {
        "custom_metadata": {"description": "The login", "team": "$${orders}"}
    }
    assert all(slot["disable_delete"] for slot in slots.values()), "values outlive a declaration that is gone"
    assert content["resource"].keys() == {"vault_policy"}
    assert only(stack, "vault_policy")["name"] == "keyturn-staging-read-orders--db"
    assert set(_rules(stack, "policy-read-orders--db")) == {
        f"{MOUNT}/data/orders/db",
        f"{MOUNT}/data/_rotation/orders/db/+",
    }


def test_pipelines_are_trusted_by_their_claims() -> None:
    resources = synthesized(_foundation(vault(), GITHUB, JENKINS))["resource"]

    github, jenkins = (resources["vault_jwt_auth_backend_role"][name] for name in ("ci-0", "ci-1"))
    assert github["bound_claims"] == GITHUB.claims
    assert github["bound_claims_type"] == "string"
    assert github["bound_audiences"] == ["https://vault.example.com"]
    assert github["token_policies"] == ["keyturn-staging-runner"]
    assert github["token_no_default_policy"]
    assert jenkins["bound_claims"]["folder"] == "$${not}", "a claim is no Terraform expression"
    issuers = {backend["bound_issuer"] for backend in resources["vault_jwt_auth_backend"].values()}
    assert issuers == {GITHUB.issuer, JENKINS.issuer}


def test_there_is_no_account_to_trust() -> None:
    with pytest.raises(DeclarationError, match="no account"):
        _foundation(vault(), AccountTrust())


def test_there_are_no_functions_to_call() -> None:
    stack, vendor = _stack(vault()), vault()
    with pytest.raises(DeclarationError, match=r"test_vault\.py:\d+: Vault has no functions"):
        RotationTrigger(
            stack, vendor, Estate(), Trigger(), environment="staging", keys={}, journal=("bucket", "journals")
        )


def test_certificates_are_issued_for_the_declared_domains_only() -> None:
    role = PkiRole("orders-api", ("orders.example.com",), ttl=timedelta(days=30))
    stack = _foundation(vault(pki_roles=(role,)))

    declared = only(stack, "vault_pki_secret_backend_role")
    assert declared["allowed_domains"] == ["orders.example.com"]
    assert not any(declared[may] for may in ("allow_any_name", "allow_subdomains", "allow_ip_sans", "allow_localhost"))
    assert declared["max_ttl"] == str(30 * 24 * 60 * 60)
    assert declared["key_type"] == "any", "or the engine signs RSA keys alone"
    mount = synthesized(stack)["resource"]["vault_mount"]["keyturn-staging-pki"]
    assert mount["max_lease_ttl_seconds"] > 10 * int(declared["max_ttl"]), "its authority outlives what it signs"
    assert vault().issuer("orders-api") == {
        "kind": "vault_pki",
        "mount": mount["path"],
        "role": "orders-api",
        "address": "https://vault.example.com",
    }
    assert "keyturn-staging-pki/sign/orders-api" in _rules(stack, "policy-runner")


def test_a_database_s_password_is_written_and_never_kept() -> None:
    connection = PostgresConnection(
        "orders",
        url="postgresql://{{username}}:{{password}}@db.example.com/orders",
        username="vault",
        users={"orders-app": "orders_app"},
        password="orders_db_password",
        password_version=3,
    )
    stack = _foundation(vault(databases=(connection,)))

    content = synthesized(stack)
    ephemeral = {"type": "string", "sensitive": True, "ephemeral": True}
    assert content["variable"]["orders_db_password"] == ephemeral | {"default": ""}, "a plan needs no value"
    server = only(stack, "vault_database_secret_backend_connection")["postgresql"]
    assert server["password_wo"] == "${var.orders_db_password}"
    assert server["password_wo_version"] == 3
    assert "password" not in server
    assert list(refusals(content)) == []


def test_the_runner_may_turn_what_the_declared_kinds_turn_on_this_server_and_nothing_on_others() -> None:
    on_this = {"roles": ("orders-a", "orders-b"), "host": "db", "dbname": "orders", "ledger": MOUNT}
    secret_id = {"role": "billing", "ledger": MOUNT}
    elsewhere = {"role": "other", "address": "https://other.example.com"}
    kinds = {
        "orders/db": Credential("vault_database_role", on_this),
        "orders/vault": Credential("vault_approle_secret_id", secret_id),
        "orders/other": Credential("vault_approle_secret_id", elsewhere),
    }
    secrets = tuple(Secret(name, kind, strategy=Strategy.OVERLAPPING) for name, kind in kinds.items())
    stack = _stack(vault())
    RunnerIdentity(stack, vault(), Estate(secrets=secrets), keys={}, places=Places("config"), trusts=())

    rules = _rules(stack, "policy-runner")
    assert rules["database/rotate-role/orders-b"] == ["create", "update"]
    assert rules[f"{MOUNT}/data/_keyturn/database/orders-a"] == ["create", "read", "update"]
    assert rules["auth/approle/role/billing/custom-secret-id"] == ["create", "update"]
    assert rules[f"{MOUNT}/data/_keyturn/approle/billing/orders/vault"] == ["create", "read", "update"]
    assert not any("role/other" in path for path in rules)


ORDERS = PostgresConnection(
    "orders",
    url="postgresql://{{username}}:{{password}}@db.example.com/orders",
    username="vault",
    users={"orders-a": "orders_app_a", "orders-b": "orders_app_b"},
)
BILLING = AppRole("billing", ("billing-reads",), token_ttl=timedelta(minutes=20))


def test_a_static_role_is_made_after_its_connection_and_is_rotated_by_nobody_but_keyturn() -> None:
    stack = _foundation(vault(databases=(ORDERS,)))

    content = synthesized(stack)
    connection = only(stack, "vault_database_secret_backend_connection")
    assert connection["allowed_roles"] == ["orders-a", "orders-b"]
    role = content["resource"]["vault_database_secret_backend_static_role"]["static-role-orders-a"]
    assert {name: value for name, value in role.items() if name != "//"} == {
        "backend": f"${{vault_mount.{MOUNT}-database.path}}",
        "name": "orders-a",
        "db_name": "${vault_database_secret_backend_connection.database-orders.name}",
        "username": "orders_app_a",
        "rotation_period": 10 * 365 * 24 * 60 * 60,
        "skip_import_rotation": True,
    }
    assert list(refusals(content)) == []


def test_an_app_role_s_secret_ids_end_only_when_they_are_turned() -> None:
    stack = _foundation(vault(app_roles=(BILLING,)))

    assert only(stack, "vault_auth_backend")["path"] == f"{MOUNT}-approle"
    role = only(stack, "vault_approle_auth_backend_role")
    assert {name: value for name, value in role.items() if name != "//"} == {
        "backend": f"${{vault_auth_backend.{MOUNT}-approle.path}}",
        "role_name": "billing",
        "bind_secret_id": True,
        "secret_id_num_uses": 0,
        "secret_id_ttl": 0,
        "token_policies": ["billing-reads"],
        "token_ttl": 20 * 60,
        "token_max_ttl": 24 * 60 * 60,
    }


def test_the_options_of_a_secret_lead_to_the_roles_that_are_declared() -> None:
    vendor = vault(databases=(ORDERS,), app_roles=(BILLING,))
    place = {"host": "db.example.com", "dbname": "orders"}
    kinds = {
        "orders/db": Credential("vault_database_role", vendor.static_roles("orders-a", "orders-b") | place),
        "billing/vault": Credential("vault_approle_secret_id", vendor.app_role("billing")),
    }
    secrets = tuple(Secret(n, k, strategy=Strategy.OVERLAPPING, readers=("app",)) for n, k in kinds.items())
    stack = _stack(vendor)
    RunnerIdentity(stack, vendor, Estate(secrets=secrets), keys={}, places=Places("config"), trusts=())
    for secret in secrets:
        ManagedSecret(stack, vendor, secret, pace=PACE, recovery_days=7)

    rules = _rules(stack, "policy-runner")
    assert rules[f"{MOUNT}-database/rotate-role/orders-a"] == ["create", "update"]
    assert rules[f"{MOUNT}/data/_keyturn/{MOUNT}-database/orders-b"] == ["create", "read", "update"]
    assert rules[f"auth/{MOUNT}-approle/role/billing/custom-secret-id"] == ["create", "update"]
    assert not any("/config" in path or path.startswith("sys/") for path in rules)
    read = _rules(stack, "policy-read-orders--db")
    assert [path for path in read if "static-creds" in path] == [
        f"{MOUNT}-database/static-creds/{role}" for role in ("orders-a", "orders-b")
    ]
    assert not any("static-creds" in path or "auth/" in path for path in _rules(stack, "policy-read-billing--vault"))


@pytest.mark.parametrize(
    "kind",
    [
        Credential("vault_database_role", vault().static_roles("orders-a", "orders-c")),
        Credential("vault_approle_secret_id", vault().app_role("orders-c")),
    ],
    ids=lambda kind: kind.kind,
)
def test_a_role_that_is_not_declared_is_found_out_at_synth(kind: Credential) -> None:
    vendor = vault(databases=(ORDERS,), app_roles=(BILLING,))
    estate = Estate(secrets=(Secret("orders/it", kind, strategy=Strategy.OVERLAPPING),))
    with pytest.raises(DeclarationError, match=r"the secret orders/it turns the role orders-c, which is not declared"):
        RunnerIdentity(_stack(vendor), vendor, estate, keys={}, places=Places("config"), trusts=())


def test_a_secret_that_another_one_reads_is_turned_all_the_same() -> None:
    authority = Secret("internal/ca", Credential("tls_authority"), strategy=Strategy.OVERLAPPING)
    leaf = Secret("orders/tls", Credential("tls_certificate", reads=("internal/ca",)), strategy=Strategy.OVERLAPPING)
    alone, read = _stack(vault()), _stack(vault())
    for stack, secrets in ((alone, (authority,)), (read, (authority, leaf))):
        RunnerIdentity(stack, vault(), Estate(secrets=secrets), keys={}, places=Places("config"), trusts=())

    assert _rules(alone, "policy-runner").items() <= _rules(read, "policy-runner").items()
    assert _rules(read, "policy-runner")[f"{MOUNT}/data/internal/ca"] == ["create", "read", "update"]


def test_a_name_that_a_policy_would_take_for_many_is_refused() -> None:
    greedy = Secret("a/b", Credential("vault_approle_secret_id", {"role": "*"}), strategy=Strategy.OVERLAPPING)
    stack = _stack(vault())
    with pytest.raises(DeclarationError, match="an option of the secret a/b is '\\*'"):
        RunnerIdentity(stack, vault(), Estate(secrets=(greedy,)), keys={}, places=Places("config"), trusts=())


def test_the_schema_is_the_pinned_version_s() -> None:
    with pytest.raises(DeclarationError, match="there is no argument auto_rotate_perod; did you mean auto_rotate_"):
        Resource(
            _stack(vault()),
            "key",
            "vault_transit_secret_backend_key",
            {"backend": "transit", "name": "x", "auto_rotate_perod": 1},
        )


@contextmanager
def _mounts(server: OpenBao) -> Iterator[hvac.Client]:
    """What the foundation declares, made by hand, as root."""
    root = server.client()
    root.sys.enable_secrets_engine("kv", MOUNT, options={"version": "2"})
    root.sys.enable_secrets_engine("transit", TRANSIT)
    for name in ("orders", "idle"):
        root.secrets.transit.create_key(name, derived=True, mount_point=TRANSIT)
    try:
        yield root
    finally:
        for mount in (MOUNT, TRANSIT):
            root.sys.disable_secrets_engine(mount)


def test_the_runner_can_do_its_work_on_a_real_server_and_nothing_else(openbao: OpenBao) -> None:
    rules: str = synthesized(_foundation(vault()))["resource"]["vault_policy"]["policy-runner"]["policy"]
    with _mounts(openbao) as root, openbao.policy(rules) as token:
        runner = openbao.client(token)
        kv, root_kv = runner.secrets.kv.v2, root.secrets.kv.v2
        kv.create_or_update_secret("_rotation/orders/db/g1", {"value": "one"}, cas=0, mount_point=MOUNT)
        kv.create_or_update_secret("orders/db", {"value": "one"}, cas=0, mount_point=MOUNT)
        assert kv.list_secrets("_rotation/orders/db", mount_point=MOUNT)["data"]["keys"] == ["g1"]
        kv.delete_metadata_and_all_versions("_rotation/orders/db/g1", mount_point=MOUNT)
        transit = runner.secrets.transit
        transit.rotate_key("orders", mount_point=TRANSIT)
        transit.update_key_configuration("orders", min_decryption_version=2, mount_point=TRANSIT)
        assert runner.auth.token.renew_self()["auth"]["client_token"] == token
        for name in ("orders/db-admin", "orders/db-administrators", "billing/db"):
            root_kv.create_or_update_secret(name, {"value": "two"}, mount_point=MOUNT)
        assert kv.read_secret("orders/db-admin", mount_point=MOUNT, raise_on_deleted_version=True)
        are_forbidden(
            lambda: kv.read_secret("orders/db-administrators", mount_point=MOUNT, raise_on_deleted_version=True),
            lambda: kv.read_secret("billing/db", mount_point=MOUNT, raise_on_deleted_version=True),
            lambda: kv.create_or_update_secret("orders/db-admin", {"value": "x"}, mount_point=MOUNT),
            lambda: kv.delete_metadata_and_all_versions("orders/db", mount_point=MOUNT),
            lambda: kv.delete_metadata_and_all_versions("_rotation/orders/db/ledger", mount_point=MOUNT),
            lambda: kv.list_secrets("", mount_point=MOUNT),
            lambda: transit.delete_key("orders", mount_point=TRANSIT),
            lambda: transit.update_key_configuration("orders", deletion_allowed=True, mount_point=TRANSIT),
            lambda: transit.generate_data_key("idle", "plaintext", context="eA==", mount_point=TRANSIT),
            lambda: runner.sys.disable_secrets_engine(MOUNT),
            lambda: runner.sys.create_or_update_policy("mine", rules),
            runner.auth.token.create,
        )


def test_a_reader_reads_its_secret_on_a_real_server_and_nothing_else(openbao: OpenBao) -> None:
    stack = _stack(vault())
    ManagedSecret(stack, vault(), ESTATE.secrets[0], pace=PACE, recovery_days=7)
    rules: str = only(stack, "vault_policy")["policy"]
    with _mounts(openbao) as root, openbao.policy(rules) as token:
        for name in ("orders/db", "_rotation/orders/db/g1", "orders/db-admin", "orders/token"):
            root.secrets.kv.v2.create_or_update_secret(name, {"value": "one"}, mount_point=MOUNT)
        kv = openbao.client(token).secrets.kv.v2
        for name in ("orders/db", "_rotation/orders/db/g1"):
            assert kv.read_secret(name, mount_point=MOUNT, raise_on_deleted_version=True)
        are_forbidden(
            lambda: kv.read_secret("orders/db-admin", mount_point=MOUNT, raise_on_deleted_version=True),
            lambda: kv.read_secret("orders/token", mount_point=MOUNT, raise_on_deleted_version=True),
            lambda: kv.create_or_update_secret("orders/db", {"value": "x"}, mount_point=MOUNT),
            lambda: kv.create_or_update_secret("_rotation/orders/db/g1", {"value": "x"}, mount_point=MOUNT),
            lambda: kv.delete_metadata_and_all_versions("orders/db", mount_point=MOUNT),
        )
