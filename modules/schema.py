"""Check a resource's arguments against the schema of the provider version that an environment pins.

The schemas in schemas/ are reduced to the resources in use and to what a declaration may set. Each block has
``required`` and ``optional`` arguments ({name: type}), ``computed`` ones (names), and nested ``blocks`` with their
``nesting`` (list, set or single), ``min`` and ``max`` (0: no limit). AWS 3.39.0 comes from ``terraform providers schema
-json``; 6.69.1 was read off its typed bindings, which do not tell the computed arguments, nor sets from lists.
Tencent Cloud's comes from ``terraform providers schema -json`` too, but for its data sources, which were read off
https://github.com/tencentcloudstack/terraform-provider-tencentcloud (services/kms/data_source_tc_kms_keys.go and
services/cam/data_source_tc_cam_users.go).
``absent`` lists resources that other versions have and this one has not; ``data`` has the data sources, where any are
in use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from rotation.errors import DeclarationError

FOLDER = Path(__file__).parent / "schemas"


class Block(TypedDict):
    required: dict[str, str]
    optional: dict[str, str]
    computed: list[str]
    blocks: dict[str, Nested]


class Nested(Block):
    nesting: str
    min: int
    max: int


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of one provider."""

    provider: str
    version: str
    configuration: Block | None
    resources: Mapping[str, Block]
    absent: frozenset[str]
    data: Mapping[str, Block]

    @staticmethod
    @cache
    def load(name: str, version: str) -> Schema:
        """Read ``schemas/<name>-<version>.json``. Raises :class:`DeclarationError` for a version without one."""
        path = FOLDER / f"{name}-{version}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json")))
            raise DeclarationError(
                f"there is no schema of the provider {name} {version} (there are: {known})",
                "Pin one of these versions in stacks/environments.py, or add the reduced schema to modules/schemas/.",
            ) from None
        return Schema(
            provider=content["provider"],
            version=content["version"],
            configuration=content.get("configuration"),
            resources=content["resources"],
            absent=frozenset(content["absent"]),
            data=content.get("data", {}),
        )

    def has(self, resource: str) -> bool:
        return resource in self.resources

    def problems(self, resource: str, arguments: Mapping[str, Any]) -> list[str]:
        """What is wrong with a resource, one sentence each; empty when nothing is."""
        if resource in self.absent:
            return [f"{self.provider} {self.version} has no resource {resource}; other versions of it have"]
        return self._problems(self.resources, resource, arguments)

    def problems_of_data(self, source: str, arguments: Mapping[str, Any]) -> list[str]:
        """What is wrong with a data source."""
        return self._problems(self.data, source, arguments)

    def problems_of_configuration(self, arguments: Mapping[str, Any]) -> list[str]:
        """What is wrong with the provider's own block."""
        return list(_check(self.configuration, arguments, "")) if self.configuration else []

    def _problems(self, known: Mapping[str, Block], kind: str, arguments: Mapping[str, Any]) -> list[str]:
        if kind not in known:
            return [f"the schema of {self.provider} {self.version} has no {kind}{_hint(kind, known)}"]
        return list(_check(known[kind], arguments, ""))


def _check(block: Block, arguments: Mapping[str, Any], path: str) -> Iterator[str]:
    types = block["required"] | block["optional"]
    for name, value in arguments.items():
        if name in block["blocks"]:
            yield from _check_nested(block["blocks"][name], value, f"{path}{name}")
        elif name in types:
            yield from _check_type(types[name], value, f"{path}{name}")
        elif name in block["computed"]:
            yield f"{path}{name} is computed by the provider and cannot be set"
        else:
            yield f"there is no argument {path}{name}{_hint(name, (*types, *block['blocks']))}"
    for name in block["required"]:
        if arguments.get(name) is None:
            yield f"the argument {path}{name} is missing"
    for name, nested in block["blocks"].items():
        if nested["min"] and arguments.get(name) is None:
            yield f"the block {path}{name} is missing"


def _check_nested(nested: Nested, value: Any, path: str) -> Iterator[str]:
    if value is None or is_reference(value):
        return
    blocks = [value] if isinstance(value, Mapping) else value
    if not isinstance(blocks, (list, tuple)) or not all(isinstance(block, Mapping) for block in blocks):
        yield f"{path} is a block: give it a mapping, or a list of them, not {_kind(value)}"
        return
    most = 1 if nested["nesting"] == "single" else nested["max"]
    if most and len(blocks) > most:
        yield f"there can be at most {most} of the block {path}, and there are {len(blocks)}"
    if len(blocks) < nested["min"]:
        yield f"there must be at least {nested['min']} of the block {path}, and there are {len(blocks)}"
    for block in blocks:
        yield from _check(nested, block, f"{path}.")


def _check_type(wanted: str, value: Any, path: str) -> Iterator[str]:
    if value is None or wanted == "dynamic" or is_reference(value):
        return
    outer, _, inner = wanted.rstrip(")").partition("(")
    if outer == "map" and isinstance(value, Mapping):
        for key, element in value.items():
            yield from _check_type(inner, element, f'{path}["{key}"]')
    elif outer in {"list", "set"} and isinstance(value, (list, tuple, set, frozenset)):
        for number, element in enumerate(value):
            yield from _check_type(inner, element, f"{path}[{number}]")
    elif not _is(outer, value):
        yield f"{path} must be {wanted}, not {_kind(value)}"


def _is(wanted: str, value: Any) -> bool:
    if wanted == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "bool": bool}.get(wanted, ()))


def is_reference(value: Any) -> bool:
    """Whether Terraform or the CDK puts in the value later: an expression, a token, or an object that resolves."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return isinstance(value[0], str) and value[0].startswith("#{Token[")
    return (isinstance(value, str) and "${" in value) or hasattr(value, "resolve")


def _kind(value: Any) -> str:
    """The type alone: an error never quotes what was given, which could be a value."""
    return "mapping" if isinstance(value, Mapping) else type(value).__name__


def _hint(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
