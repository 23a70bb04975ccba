"""One stack against its state and the cloud, from a plan that is made and thrown away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotation import deploy
from rotation.errors import DeployError
from rotation.terraform import Plan

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True)
class Outside:
    """A resource that was changed outside Terraform since it was last applied. ``attributes`` are the names of those
    that nothing in the stack explains; a deleted resource has none."""

    address: str
    deleted: bool
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``plan`` is what an apply would do; ``outside`` what was changed by somebody else."""

    plan: Plan
    outside: tuple[Outside, ...]


def compare(project: Path, stacks: Sequence[str]) -> dict[str, Comparison | DeployError]:
    """Plan these stacks as they are declared, one after the other: a plan takes all the time and memory that there is.
    Raises :class:`DeployError` where they cannot even be synthesized."""
    with deploy.alone(project):
        folder = deploy.synth(project, stacks)
        return {stack: _compare(project, folder / stack) for stack in stacks}


def _compare(project: Path, folder: Path) -> Comparison | DeployError:
    try:
        terraform = deploy.prepare(project, folder)
        with deploy.saved_plan(project, terraform) as (path, plan):
            return Comparison(plan, changed_outside(terraform.document(path)))
    except DeployError as error:
        return error


def changed_outside(document: Mapping[str, Json]) -> tuple[Outside, ...]:
    """The ``resource_drift`` of what ``terraform show -json PLAN`` prints (developer.hashicorp.com: JSON output).

    The values are compared as they are, also sensitive ones; nothing but names comes out.
    """
    declared, texts = _declared(document), _texts_by_resource(document)
    found = []
    for resource in document.get("resource_drift", ()):
        address, change = resource["address"], resource["change"]
        elsewhere = {text for other, held in texts.items() if other != address for text in held}
        names = _unexplained(change, declared.get(address.partition("[")[0], frozenset()), elsewhere)
        found.append(Outside(address, change["actions"] == ["delete"], tuple(sorted(names))))
    return tuple(sorted(found, key=lambda outside: outside.address))


def _unexplained(change: Mapping[str, Json], declared: frozenset[str], elsewhere: set[str]) -> Iterator[str]:
    before, after = change.get("before") or {}, change.get("after") or {}
    if not after:
        return
    for name in before.keys() | after.keys():
        old, new = set(_leaves(before.get(name))), set(_leaves(after.get(name)))
        by_others = not old - new and all(isinstance(leaf, str) and leaf in elsewhere for leaf in new - old)
        if old != new and (name in declared or not by_others):
            yield name


def _leaves(value: Json, path: str = "") -> Iterator[Json]:
    """The texts in a value; of numbers and flags, which mean nothing by themselves, also where they stand. Empty texts
    and containers are left out: providers write them for what is not there."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}")
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, path)
    elif isinstance(value, str):
        if value:
            yield value
    elif value is not None:
        yield (path, value)


def _declared(document: Mapping[str, Json]) -> dict[str, frozenset[str]]:
    """The names of the arguments that the configuration gives, by address."""
    module = document.get("configuration", {}).get("root_module", {})
    return {r["address"]: frozenset(r.get("expressions", ())) for r in module.get("resources", ())}


def _texts_by_resource(document: Mapping[str, Json]) -> dict[str, frozenset[str]]:
    """The texts in the attributes of every resource, as they are now."""
    module = document.get("prior_state", {}).get("values", {}).get("root_module", {})
    return {
        resource["address"]: frozenset(leaf for leaf in _leaves(resource.get("values", {})) if isinstance(leaf, str))
        for resource in module.get("resources", ())
    }
