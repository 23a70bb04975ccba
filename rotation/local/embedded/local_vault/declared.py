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
from rotation.secret_value import SecretValue

Arguments = Mapping[str, Any]
Declared = Mapping[str, Mapping[str, Arguments]]  # resources by kind and name
_REFERENCE = re.compile(r"\$\{(vault_\w+)\.([\w-]+)\.(\w+)\}")
_VARIABLE = re.compile(r"\$\{var\.(\w+)\}")


def provision(
    client: hvac.Client, stacks: Iterable[Mapping[str, Any]], variables: Mapping[str, SecretValue] | None = None
) -> tuple[str, ...]:
    """Make or correct what these stacks declare; return the names of their policies. Nothing is ever removed.
    ``variables`` are the values of Terraform's, by name.

    Raises :class:`LocalError` for a kind of resource that is not known here, for a variable without a value, and for
    what the server refuses.
    """
    found: dict[str, dict[str, Arguments]] = {}
    for stack in stacks:
        for kind, resources in stack.get("resource", {}).items():
            found.setdefault(kind, {}).update(resources)
    if unknown := sorted(found.keys() - _KINDS.keys()):
        raise LocalError(
            f"the embedded OpenBao cannot be given {', '.join(unknown)}",
            "Declare it for another environment, or add it to rotation/local/embedded/local_vault/declared.py.",
        )
    todo = [(put, _resolved(r, found, variables or {})) for kind, put in _KINDS.items() for r in _all(found, kind)]
    try:
        for put, resource in todo:
            put(client, resource)
    except (VaultError, requests.RequestException) as error:
        what = f"the embedded OpenBao refused what is declared: {error}"
    else:
        return tuple(policy["name"] for policy in _all(found, "vault_policy"))
    raise LocalError(what)  # out here, so that an error that knows the request is not its context


def _all(found: Declared, kind: str) -> Iterable[Arguments]:
    return found.get(kind, {}).values()


def _resolved(resource: Arguments, found: Declared, variables: Mapping[str, SecretValue]) -> dict[str, Any]:
    """The arguments with what they refer to, and without the CDK's and Terraform's own."""

    def value_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: value_of(inner) for name, inner in value.items()}
        return _text(value, found, variables) if isinstance(value, str) else value

    return {name: value_of(value) for name, value in resource.items() if name not in {"//", "lifecycle"}}


def _text(value: str, found: Declared, variables: Mapping[str, SecretValue]) -> str:
    """What Terraform makes of a text: an attribute of another resource, a variable's value, or the text with its
    doubled openings single."""
    if reference := _REFERENCE.fullmatch(value):
        kind, name, attribute = reference.groups()
        return str(found[kind][name][attribute])
    if variable := _VARIABLE.fullmatch(value):
        if variable[1] not in variables:
            raise LocalError(f"the variable {variable[1]} has no value here", "Declare it for another environment.")
        return variables[variable[1]].reveal()
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
    name, options = _split_off(role, "name")
    client.secrets.pki.create_or_update_role(name, options, mount_point=role["backend"])


def _connection(client: hvac.Client, connection: Arguments) -> None:
    server = connection["postgresql"]
    client.secrets.database.configure(
        connection["name"],
        "postgresql-database-plugin",
        allowed_roles=connection["allowed_roles"],
        mount_point=connection["backend"],
        connection_url=server["connection_url"],
        username=server["username"],
        password=server.get("password_wo"),
    )


def _static_role(client: hvac.Client, role: Arguments) -> None:
    """A server without `skip_import_rotation` rotates a role that it makes; one that is there is not rotated."""
    path, options = _split_off(role, "name")
    client.write_data(f"{role['backend']}/static-roles/{path}", data=options)


def _login(client: hvac.Client, backend: Arguments) -> None:
    if f"{backend['path']}/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method(backend["type"], backend.get("description"), path=backend["path"])


def _issuer(client: hvac.Client, backend: Arguments) -> None:
    _login(client, {**backend, "type": "jwt"})
    own = ("path", "description")
    client.write_data(f"auth/{backend['path']}/config", data={n: v for n, v in backend.items() if n not in own})


def _login_role(client: hvac.Client, role: Arguments) -> None:
    path, options = _split_off(role, "role_name")
    client.write_data(f"auth/{role['backend']}/role/{path}", data=options)


def _split_off(resource: Arguments, name: str) -> tuple[str, dict[str, Any]]:
    """The last part of a resource's path, and what is written there."""
    options = {option: value for option, value in resource.items() if option not in {"backend", name}}
    return resource[name], options


# By the kind of resource, each after those that it needs.
_KINDS: Mapping[str, Callable[[hvac.Client, Arguments], None]] = {
    "vault_mount": _mount,
    "vault_policy": _policy,
    "vault_transit_secret_backend_key": _key,
    "vault_pki_secret_backend_role": _pki_role,
    "vault_generic_endpoint": _endpoint,
    "vault_database_secret_backend_connection": _connection,
    "vault_database_secret_backend_static_role": _static_role,
    "vault_auth_backend": _login,
    "vault_approle_auth_backend_role": _login_role,
    "vault_jwt_auth_backend": _issuer,
    "vault_jwt_auth_backend_role": _login_role,
}
