"""Puts in place, on the emulated Tencent Cloud, what the stacks declare for Terraform's provider, which is not a Python
package. It reads the synthesized stacks, so what is declared is what is there; a kind of resource that it does not know
is refused, not left out.

Roles and policies have no effect: the emulated CAM lets whoever signs do everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rotation.errors import KeyturnError, LocalError
from rotation.tencentcloud import Cloud, Manner

Arguments = Mapping[str, Any]
_LOOKED_UP = re.compile(r"\$\{local\.([\w-]+)\}")  # by the data source of the same name
_PLACEHOLDER = "default"  # the version, and the value, that the provider makes a secret with


def provision(cloud: Cloud, stacks: Iterable[Mapping[str, Any]]) -> None:
    """Make or correct what these stacks declare. Nothing is ever removed.

    Raises :class:`LocalError` for a kind of resource that is not known here, and for what the cloud refuses.
    """
    found: dict[str, list[Arguments]] = {}
    aliases: dict[str, str] = {}  # of the keys that are looked up, by the name of the data source
    for stack in stacks:
        for kind, resources in stack.get("resource", {}).items():
            found.setdefault(kind, []).extend(resources.values())
        for name, source in stack.get("data", {}).get("tencentcloud_kms_keys", {}).items():
            aliases[name] = source["search_key_alias"]
    if unknown := sorted(found.keys() - _KINDS.keys() - _WITHOUT_EFFECT):
        raise LocalError(
            f"the emulated Tencent Cloud cannot be given {', '.join(unknown)}",
            "Declare it for another environment, or add it to rotation/local/embedded/local_tencent/declared.py.",
        )
    try:
        for kind, put in _KINDS.items():
            for resource in found.get(kind, ()):
                put(cloud, {name: _resolved(cloud, value, aliases) for name, value in resource.items()})
    except LocalError:
        raise
    except KeyturnError as error:
        raise LocalError(f"the emulated Tencent Cloud cannot be given what is declared: {error}") from error


def _resolved(cloud: Cloud, value: Any, aliases: Mapping[str, str]) -> Any:
    """What Terraform makes of an argument: a key that is looked up, or a text with its doubled openings single."""
    if isinstance(value, Mapping):
        return {name: _resolved(cloud, inner, aliases) for name, inner in value.items()}
    if not isinstance(value, str):
        return value
    if looked_up := _LOOKED_UP.fullmatch(value):
        alias = aliases[looked_up[1]]
        if (key := _find(cloud, alias)) is None:
            raise LocalError(f"no key with the alias {alias} is in the emulated Tencent Cloud")
        return key["KeyId"]
    return value.replace("$${", "${").replace("%%{", "%{")


def _find(cloud: Cloud, alias: str) -> Mapping[str, Any] | None:
    """The key with just this alias: the search is for all whose alias has it as a part."""
    doing = Manner(f"look for the key {alias}", LocalError, requires=("KeyMetadatas",))
    listed = cloud.call("kms", "ListKeyDetail", {"SearchKeyAlias": alias, "Limit": 200}, doing)["KeyMetadatas"]
    return next((key for key in listed if key["Alias"] == alias), None)


def _key(cloud: Cloud, key: Arguments) -> None:
    alias = key["alias"]
    doing = Manner(f"make the key {alias}", LocalError, requires=("KeyId",))
    if (there := _find(cloud, alias)) is None:
        wanted = {"Alias": alias, "Description": key["description"], "KeyUsage": key["key_usage"]}
        there = cloud.call_once("kms", "CreateKey", wanted, doing)
    identifier = {"KeyId": there["KeyId"]}
    cloud.call("kms", "EnableKey", identifier, Manner(f"enable the key {alias}", LocalError))
    cloud.call("kms", "EnableKeyRotation", identifier, Manner(f"let the key {alias} renew itself", LocalError))


class _IsThere(LocalError):
    """There is a secret of that name."""


def _slot(cloud: Cloud, slot: Arguments) -> None:
    """A secret without a version, made as the provider makes it."""
    name, description = slot["secret_name"], slot.get("description", "")
    doing = Manner(f"make the secret {name}", LocalError, {"ResourceInUse": _IsThere}, requires=("SecretName",))
    wanted = {
        "SecretName": name,
        "Description": description,
        "VersionId": _PLACEHOLDER,
        "SecretString": _PLACEHOLDER,
        "Tags": [{"TagKey": tag, "TagValue": value} for tag, value in slot["tags"].items()],
        **({"KmsKeyId": slot["kms_key_id"]} if "kms_key_id" in slot else {}),
    }
    try:
        cloud.call_once("ssm", "CreateSecret", wanted, doing)
    except _IsThere:
        described = {"SecretName": name, "Description": description}
        cloud.call("ssm", "UpdateDescription", described, Manner(f"describe the secret {name}", LocalError))
    _without_placeholder(cloud, name)


def _without_placeholder(cloud: Cloud, name: str) -> None:
    """Whoever was stopped between the two calls has left it."""
    doing = Manner(f"list the versions of the secret {name}", LocalError, requires=("SecretName",))
    versions = cloud.call("ssm", "ListSecretVersionIds", {"SecretName": name}, doing)["Versions"] or ()
    if any(version["VersionId"] == _PLACEHOLDER for version in versions):
        placeholder = {"SecretName": name, "VersionId": _PLACEHOLDER}
        cloud.call("ssm", "DeleteSecretVersion", placeholder, Manner(f"empty the secret {name}", LocalError))


# By the kind of resource, each after those that it needs.
_KINDS: Mapping[str, Callable[[Cloud, Arguments], None]] = {
    "tencentcloud_kms_key": _key,
    "tencentcloud_ssm_secret": _slot,
}
_WITHOUT_EFFECT = frozenset(
    {"tencentcloud_cam_policy", "tencentcloud_cam_role", "tencentcloud_cam_role_policy_attachment_by_name"}
)
