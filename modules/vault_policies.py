"""Vault's policies, as plain data: {path: rule}. https://developer.hashicorp.com/vault/docs/concepts/policies

In a path, `+` stands for one segment and a last `*` for any end. Neither can be in a declared name, so nothing that is
declared opens more than itself. Whatever is not allowed is denied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rotation.errors import DeclarationError

Rule = Mapping[str, Any]
Rules = dict[str, Rule]

_MINIMUM: Mapping[str, list[str]] = {"min_decryption_version": []}  # any value of this parameter


def document(rules: Mapping[str, Rule]) -> str:
    """The policy as JSON, which Vault takes as it takes HCL. The same rules are always the same text."""
    return json.dumps({"path": dict(sorted(rules.items()))}, separators=(",", ":"))


def _may(*capabilities: str) -> dict[str, Any]:
    return {"capabilities": list(capabilities)}


def keep_token() -> Rules:
    """To look at one's own token and renew it, which else comes with Vault's default policy and much more."""
    return {"auth/token/lookup-self": _may("read"), "auth/token/renew-self": _may("update")}


def read_secret(mount: str, name: str) -> Rules:
    """A secret as its consumers read it: the current value, and the generation that a ring is pinned to."""
    return {f"{mount}/data/{name}": _may("read"), f"{mount}/data/_rotation/{name}/+": _may("read")}


def look_at_secrets(mount: str, names: Iterable[str]) -> Rules:
    """The values of these secrets, and which of them is current."""
    rules: Rules = {}
    for name in names:
        rules |= {
            f"{mount}/data/{name}": _may("read"),
            f"{mount}/metadata/{name}": _may("read"),
            f"{mount}/data/_rotation/{name}/+": _may("read"),
            f"{mount}/metadata/_rotation/{name}/": _may("list"),
        }
    return rules


def turn_secrets(mount: str, names: Iterable[str]) -> Rules:
    """To stage, promote and discard these secrets' generations, which lie below `_rotation/` with the ledger
    (rotation/stores/vault_kv.py). Only a generation there is ever deleted: neither the ledger nor what is current."""
    names = list(names)
    rules = look_at_secrets(mount, names)
    for name in names:
        staged = f"_rotation/{name}"
        rules |= {
            f"{mount}/data/{name}": _may("create", "read", "update"),
            f"{mount}/data/{staged}/+": _may("create", "read", "update"),
            f"{mount}/undelete/{staged}/+": _may("create", "update"),
            # Not "g*", which would also stand for the folder of a secret whose name goes on with "/g…".
            f"{mount}/metadata/{staged}/+": _may("delete"),
            f"{mount}/metadata/{staged}/ledger": _may("deny"),
        }
    return rules


def turn_keys(mount: str, keys: Iterable[str]) -> Rules:
    """To look at keys, give them new material, and give up old material."""
    rules: Rules = {}
    for key in keys:
        rules |= {
            f"{mount}/keys/{key}": _may("read"),
            f"{mount}/keys/{key}/rotate": _may("create", "update"),
            # Nothing else of it, for a key that may be deleted or exported is also configured here.
            f"{mount}/keys/{key}/config": _may("create", "update") | {"allowed_parameters": _MINIMUM},
            f"{mount}/rewrap/{key}": _may("create", "update"),
        }
    return rules


def seal_values(mount: str, keys: Iterable[str]) -> Rules:
    """Data keys, and what opens them."""
    rules: Rules = {}
    for key in keys:
        rules |= {f"{mount}/datakey/plaintext/{key}": _may("create", "update")} | open_sealed(mount, key)
    return rules


def open_sealed(mount: str, key: str) -> Rules:
    return {f"{mount}/decrypt/{key}": _may("create", "update")}


def issue_certificates(mount: str, roles: Iterable[str]) -> Rules:
    """To have requests signed, and to revoke what was issued."""
    rules: Rules = {f"{mount}/sign/{role}": _may("create", "update") for role in roles}
    return rules | {f"{mount}/revoke": _may("create", "update"), f"{mount}/cert/+": _may("read")}


def turn_static_roles(mount: str, roles: Iterable[str], ledger: str) -> Rules:
    """What rotation/credentials/vault_database_role.py needs."""
    rules: Rules = {}
    for role in roles:
        rules |= {
            f"{mount}/static-roles/{role}": _may("read"),
            f"{mount}/static-creds/{role}": _may("read"),
            f"{mount}/rotate-role/{role}": _may("create", "update"),
            f"{ledger}/data/_keyturn/{mount}/{role}": _may("create", "read", "update"),
        }
    return rules


def turn_secret_ids(mount: str, role: str, secret: str, ledger: str) -> Rules:
    """What rotation/credentials/vault_approle_secret_id.py needs for a secret, by its declared name."""
    path, may_post = f"auth/{mount}/role/{role}", _may("create", "update")
    return {
        path: _may("read"),
        f"{path}/role-id": _may("read"),
        f"{path}/custom-secret-id": may_post,
        f"{path}/secret-id": _may("list"),
        f"{path}/secret-id/lookup": may_post,
        f"{path}/secret-id-accessor/lookup": may_post,
        f"{path}/secret-id-accessor/destroy": may_post,
        f"{ledger}/data/_keyturn/{mount}/{role}/{secret}": _may("create", "read", "update"),
    }


def turn_credential(secret: str, kind: str, options: Mapping[str, Any]) -> Rules:
    """What a secret's credential kind needs of the server beside its store: nothing, where its target is another."""

    def named(option: str, default: str = "") -> str:
        return _exact(secret, str(options.get(option, default)))

    ledger = named("ledger", "secret")
    if kind == "vault_database_role":
        roles = [_exact(secret, str(role)) for role in options.get("roles", ())]
        return turn_static_roles(named("mount", "database"), roles, ledger)
    if kind == "vault_approle_secret_id":
        return turn_secret_ids(named("mount", "approle"), named("role"), secret, ledger)
    return {}


def follow_value(secret: str, kind: str, options: Mapping[str, Any]) -> Rules:
    """What a secret's readers need of the server beside its value: to read what it refers to."""
    if kind != "vault_database_role":
        return {}
    mount = _exact(secret, str(options.get("mount", "database")))
    roles = [_exact(secret, str(role)) for role in options.get("roles", ())]
    return {f"{mount}/static-creds/{role}": _may("read") for role in roles}


def _exact(secret: str, name: str) -> str:
    if "*" in name or "+" in name:
        raise DeclarationError(f"an option of the secret {secret} is {name!r}, which a policy takes for many names")
    return name
