"""Puts in place, on the embedded OpenBao, what the stacks declare for Terraform's Vault provider, which is not a Python
package. It reads the synthesized stacks, so what is declared is what runs; a kind of resource that it does not know is
refused, not left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import hvac
import requests
from hvac.exceptions import VaultError

from rotation.errors import LocalError

Arguments = Mapping[str, Any]
_MOUNTED = re.compile(r"\$\{vault_mount\.([\w-]+)\.path\}")


def provision(client: hvac.Client, stacks: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Make or correct what these stacks declare; return the names of their policies. Nothing is ever removed.

    Raises :class:`LocalError` for a kind of resource that is not known here, and for what the server refuses.
    """
    found: dict[str, dict[str, Arguments]] = {}
    for stack in stacks:
        for kind, resources in stack.get("resource", {}).items():
            found.setdefault(kind, {}).update(resources)
    if unknown := sorted(found.keys() - _KINDS.keys()):
        raise LocalError(
            f"the embedded OpenBao cannot be given {', '.join(unknown)}",
            "Declare it for another environment, or add it to rotation/local/vault_declared.py.",
        )
    mounts = {name: resource["path"] for name, resource in found.get("vault_mount", {}).items()}
    try:
        for kind, put in _KINDS.items():
            for resource in found.get(kind, {}).values():
                put(client, _resolved(resource, mounts))
    except (VaultError, requests.RequestException) as error:
        raise LocalError(f"the embedded OpenBao refused what is declared: {error}") from error
    return tuple(policy["name"] for policy in found.get("vault_policy", {}).values())


def _resolved(resource: Arguments, mounts: Mapping[str, str]) -> dict[str, Any]:
    """The arguments with the paths of mounts, and without the CDK's and Terraform's own."""
    return {
        name: _text(value, mounts) if isinstance(value, str) else value
        for name, value in resource.items()
        if name not in {"//", "lifecycle"}
    }


def _text(value: str, mounts: Mapping[str, str]) -> str:
    """What Terraform makes of a text: a reference to a mount, or the text with its doubled openings single."""
    if reference := _MOUNTED.fullmatch(value):
        return mounts[reference[1]]
    return value.replace("$${", "${").replace("%%{", "%{")


def _mount(client: hvac.Client, mount: Arguments) -> None:
    if f"{mount['path']}/" not in client.sys.list_mounted_secrets_engines()["data"]:
        lease = {"max_lease_ttl": f"{mount['max_lease_ttl_seconds']}s"} if "max_lease_ttl_seconds" in mount else None
        client.sys.enable_secrets_engine(
            mount["type"],
            mount["path"],
            description=mount.get("description"),
            options=mount.get("options"),
            config=lease,
        )


def _policy(client: hvac.Client, policy: Arguments) -> None:
    client.sys.create_or_update_policy(policy["name"], policy["policy"])


def _key(client: hvac.Client, key: Arguments) -> None:
    """The engine makes a key that is there already into the same one; what else is set can be changed."""
    transit, name, mount = client.secrets.transit, key["name"], key["backend"]
    transit.create_key(name, derived=key["derived"], key_type=key["type"], mount_point=mount)
    transit.update_key_configuration(
        name,
        deletion_allowed=key["deletion_allowed"],
        exportable=key["exportable"],
        auto_rotate_period=f"{key['auto_rotate_period']}s",
        mount_point=mount,
    )


def _endpoint(client: hvac.Client, endpoint: Arguments) -> None:
    client.adapter.post(f"/v1/{endpoint['path']}", json=json.loads(endpoint["data_json"]))


def _pki_role(client: hvac.Client, role: Arguments) -> None:
    options = {name: value for name, value in role.items() if name not in {"backend", "name"}}
    client.secrets.pki.create_or_update_role(role["name"], options, mount_point=role["backend"])


# By the kind of resource, each after those that it needs.
_KINDS: Mapping[str, Callable[[hvac.Client, Arguments], None]] = {
    "vault_mount": _mount,
    "vault_policy": _policy,
    "vault_transit_secret_backend_key": _key,
    "vault_pki_secret_backend_role": _pki_role,
    "vault_generic_endpoint": _endpoint,
}
