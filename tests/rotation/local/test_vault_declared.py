"""What the stacks declare for Vault is what runs on the embedded server."""

from __future__ import annotations

import hvac.exceptions
import pytest

from rotation.errors import LocalError
from rotation.local.vault_declared import provision
from tests.fixtures.openbao import OpenBao

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
