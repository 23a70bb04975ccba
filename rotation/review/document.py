"""The document that rules and comments are made from: what changes, per stack, without sensitive values.

Stable: what is here stays, under these names. Rules in Rego get it as ``input`` (:meth:`Document.data`)::

    {"format": 1,
     "stacks": [{"name": "secrets-production", "environment": "production", "embedded": false, "planned": true,
                 "digest": "…", "changes": [
                   {"address": "aws_kms_key.orders", "type": "aws_kms_key", "actions": ["update"],
                    "before": {…}, "after": {…}, "unknown": ["arn"], "sensitive": []}],
                 "outputs": [{"name": "…", "actions": ["create"], "before": null, "after": …, "sensitive": false}]}],
     "rotations": [{"secret": "orders/db", "before": 41, "after": 42, "ring": "canary", "consumer": "orders-api"}]}

``before`` and ``after`` are null where there is no object; a sensitive value is "(sensitive)" there, one that is known
after apply "(known after apply)", and ``sensitive`` and ``unknown`` list the paths of such values in ``after``.
``actions`` are Terraform's words, and "declare" where stacks were only synthesized and there is nothing to compare
them with: then ``planned`` is false.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rotation import saved_plans
from rotation.errors import UsageError
from rotation.terraform import SENSITIVE, UNKNOWN, Json, covered, masked, masked_document
from rotation.value_carriers import RESOURCES, arguments_of

_PINS = re.compile(r"terraform_data\.pins-(?P<consumer>.+)-(?P<ring>canary|stable)")
DECLARED = ("declare",)  # the actions where there is nothing to compare with
_AGAIN = "Make it anew: `keyturn deploy --out FOLDER`, or `terraform show -json PLAN`."


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one resource. ``type`` is Terraform's; addresses of data sources begin with "data."."""

    address: str
    type: str
    actions: tuple[str, ...]
    before: Json = None
    after: Json = None
    unknown: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()

    @property
    def deletes(self) -> bool:
        """Whether what is there now goes, also to make room for another."""
        return "delete" in self.actions

    @property
    def is_data(self) -> bool:
        return self.address.startswith("data.") or ".data." in self.address


@dataclass(frozen=True, slots=True)
class Output:
    name: str
    actions: tuple[str, ...]
    before: Json = None
    after: Json = None
    sensitive: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack. ``embedded`` tells that its servers are those of the embedded environment."""

    name: str
    environment: str
    embedded: bool
    planned: bool
    digest: str
    changes: tuple[Change, ...]
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Rotation:
    """A pin that moves. ``before`` and ``after`` are generations, None where there is no pin."""

    secret: str
    before: int | None
    after: int | None
    ring: str
    consumer: str

    def __str__(self) -> str:
        return f"{self.secret} {self.before or 'no value'} → {self.after or 'no pin'} ({self.ring})"


@dataclass(frozen=True, slots=True)
class Document:
    stacks: tuple[Stack, ...]
    format: int = 1

    @property
    def rotations(self) -> tuple[Rotation, ...]:
        """The pins that these plans move, in order."""
        moving = (change for _, change in self.changes() if change.actions != DECLARED)
        return tuple(rotation for change in moving for rotation in _rotations(change))

    def changes(self) -> Iterator[tuple[Stack, Change]]:
        """Every change with its stack."""
        for stack in self.stacks:
            for change in stack.changes:
                yield stack, change

    def data(self) -> dict[str, Any]:
        """The document as JSON's types."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data | {"rotations": [asdict(rotation) for rotation in self.rotations]}


def of_plans(plans: Mapping[str, Mapping[str, Json]], environment: str, *, embedded: bool) -> Document:
    """The document of these plans by stack: documents of :func:`~rotation.terraform.masked_document`."""
    return Document(tuple(_stack(name, environment, embedded, plan) for name, plan in plans.items()))


def read_plan(path: Path) -> dict[str, Json] | None:
    """A plan's JSON as ``terraform show -json`` or `keyturn deploy --out` wrote it, masked. None for the ``plans.json``
    that lies beside them. Raises :class:`UsageError` for anything else."""
    content = _read(path)
    if {"terraform", "stacks", "sources"} <= content.keys():
        return None
    if "rotations" in content:
        raise UsageError(f"{path.name} is a rotation plan, not Terraform's", "Give it with --rotation.")
    version = str(content.get("format_version", ""))
    if not version:
        raise UsageError(f"{path.name} is not a plan of Terraform", _AGAIN)
    if version.partition(".")[0] != "1":
        raise UsageError(f"{path.name} is a plan of format {version}, and keyturn reads 1.x", "Use Terraform 1.x.")
    if "resource_changes" not in content and ("values" in content or "planned_values" not in content):
        raise UsageError(f"{path.name} is a state or an empty document, not a plan", _AGAIN)
    if content.get("errored"):
        raise UsageError(f"{path.name} is the plan of a run that failed: it is not whole", _AGAIN)
    try:
        shown = masked_document(content) | {"keyturn": content.get("keyturn", {})}
        _stack(path.stem, "", False, shown)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{path.name} is a damaged plan: {type(error).__name__} at {error}", _AGAIN) from error
    return shown


def _read(path: Path) -> dict[str, Json]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"the plan {path.name} cannot be read: {error.strerror}", _AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is not one JSON document, or not a whole one", _AGAIN) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path.name} is not a plan of Terraform", _AGAIN)
    return content


def _stack(name: str, environment: str, embedded: bool, plan: Mapping[str, Json]) -> Stack:
    about = plan.get("keyturn", {})
    changes = [_change(resource, resource["change"]) for resource in plan["resource_changes"]]
    changes += [Change(action["address"], action["type"], ("invoke",)) for action in plan["action_invocations"]]
    deferred = (later["resource_change"] for later in plan["deferred_changes"])
    changes += [Change(later["address"], later["type"], ("defer",)) for later in deferred]
    outputs = [_output(n, c) for n, c in sorted(plan["output_changes"].items()) if c["actions"] != ["no-op"]]
    return Stack(
        name=str(about.get("stack", name)),
        environment=str(about.get("environment", environment)),
        embedded=bool(about.get("embedded", embedded)),
        planned=True,
        digest=str(about.get("digest", "")),
        changes=tuple(sorted(changes, key=lambda change: change.address)),
        outputs=tuple(outputs),
    )


def _change(resource: Mapping[str, Json], change: Mapping[str, Json]) -> Change:
    actions = tuple(change["actions"])
    if "previous_address" in resource or "importing" in change:
        actions = (*(() if actions == ("no-op",) else actions), "import" if "importing" in change else "move")
    unknown = change.get("after_unknown")
    after = masked(change["after"], unknown, UNKNOWN)
    return Change(
        address=resource["address"],
        type=resource["type"],
        actions=actions,
        before=change["before"],
        after=after,
        unknown=tuple(_paths(unknown)),
        sensitive=tuple(sorted({*_held(change.get("after_sensitive"), after), *_carried(resource["type"], after)})),
    )


def _output(name: str, change: Mapping[str, Json]) -> Output:
    after = masked(change["after"], change.get("after_unknown"), UNKNOWN)
    sensitive = change.get("after_sensitive") is True and after is not None
    return Output(name, tuple(change["actions"]), change["before"], after, sensitive)


def _paths(mask: Json, path: str = "") -> Iterator[str]:
    """The paths at which a mask says true."""
    if mask is True:
        yield path
    elif isinstance(mask, dict):
        for name, part in mask.items():
            yield from _paths(part, f"{path}.{name}" if path else name)
    elif isinstance(mask, list):
        for at, part in enumerate(mask):
            yield from _paths(part, f"{path}[{at}]")


def _held(mask: Json, value: Json, path: str = "") -> Iterator[str]:
    """The paths that a mask calls sensitive and at which there is something."""
    if mask is True and value not in (None, "", [], {}):
        yield path
    elif isinstance(mask, dict) and isinstance(value, dict):
        for name, part in mask.items():
            yield from _held(part, value.get(name), f"{path}.{name}" if path else name)
    elif isinstance(mask, list) and isinstance(value, list):
        for at, (part, item) in enumerate(zip(mask, value, strict=False)):
            yield from _held(part, item, f"{path}[{at}]")


def _carried(kind: str, value: Json) -> Iterator[str]:
    """The paths of arguments that are known to carry a value."""
    names = arguments_of(RESOURCES.get(kind))

    def within(part: Json, path: str) -> Iterator[str]:
        if isinstance(part, dict):
            for name, inner in part.items():
                here = f"{path}.{name}" if path else name
                if name in names and inner and isinstance(inner, (str, dict, list)):
                    yield here
                else:
                    yield from within(inner, here)
        elif isinstance(part, list):
            for at, inner in enumerate(part):
                yield from within(inner, f"{path}[{at}]")

    return within(value, "")


def _rotations(change: Change) -> Iterator[Rotation]:
    found = _PINS.fullmatch(change.address)
    if found is None:
        return
    before, after = _generations(change.before), _generations(change.after)
    for secret in sorted({*before, *after}):
        if before.get(secret) != after.get(secret):
            yield Rotation(secret, before.get(secret), after.get(secret), found["ring"], found["consumer"])


def _generations(pins: Json) -> dict[str, int]:
    given = pins.get("input") if isinstance(pins, dict) else None
    return {name: int(g) for name, g in given.items() if isinstance(g, int)} if isinstance(given, dict) else {}


# ── without a plan ──


@dataclass(frozen=True, slots=True)
class _Environment:
    name: str
    embedded: bool


def of_synth(folder: Path, base: Path | None) -> Document:
    """The document of synthesized stacks, compared with those of ``base`` where there is one: what is declared changes,
    not what is deployed. References to other resources stay as they are written, "${…}"."""
    stacks = _synthesized(folder)
    if not stacks:
        raise UsageError(f"{folder.name} holds no synthesized stacks", "Synthesize them with `cdktf synth`.")
    old = _synthesized(base) if base else {}
    known = _environments(folder) | (_environments(base) if base else {})
    names = sorted({*stacks, *old})
    return Document(tuple(_compared(name, old.get(name), stacks.get(name), known, base) for name in names))


def _synthesized(folder: Path) -> dict[str, dict[str, Json]]:
    inside = folder / "stacks" if (folder / "stacks").is_dir() else folder
    return {path.parent.name: _read(path) for path in sorted(inside.glob("*/cdk.tf.json"))}


def _environments(folder: Path) -> dict[str, _Environment]:
    """The environment of each stack, from the manifests that synth wrote beside the stacks."""
    found: dict[str, _Environment] = {}
    for path in sorted((folder / "manifests").glob("*.json")):
        manifest = _read(path)
        environment = _Environment(str(manifest.get("environment", path.stem)), manifest.get("embedded") is True)
        found |= {str(stack): environment for stack in manifest.get("stacks", ())}
    return found


def _compared(
    name: str,
    old: dict[str, Json] | None,
    new: dict[str, Json] | None,
    known: Mapping[str, _Environment],
    base: Path | None,
) -> Stack:
    environment = known.get(name, _Environment(name.rpartition("-")[2], embedded=False))
    blocks, before = dict(_blocks(new or {})), dict(_blocks(old or {}))
    addresses = sorted({*blocks, *before})
    changes = (_difference(a, before.get(a), blocks.get(a), compared=base is not None) for a in addresses)
    return Stack(
        name=name,
        environment=environment.name,
        embedded=environment.embedded,
        planned=False,
        digest="",
        changes=tuple(change for change in changes if change is not None),
        outputs=tuple(_declared_outputs(old or {}, new or {})),
    )


def _blocks(stack: Mapping[str, Json]) -> Iterable[tuple[str, dict[str, Json]]]:
    for section, prefix in (("resource", ""), ("data", "data.")):
        for kind, named in stack.get(section, {}).items():
            for name, block in named.items():
                yield f"{prefix}{kind}.{name}", {n: part for n, part in block.items() if n != "//"}


def _difference(address: str, before: Json, after: Json, *, compared: bool) -> Change | None:
    if before == after:
        return None
    kind = address.removeprefix("data.").partition(".")[0]
    carriers = arguments_of(RESOURCES.get(kind))
    actions = _actions(before, after) if compared else DECLARED
    shown = (covered(before, carriers), covered(after, carriers))
    return Change(address, kind, actions, *shown, sensitive=tuple(sorted(_carried(kind, after))))


def _actions(before: Json, after: Json) -> tuple[str, ...]:
    return ("create",) if before is None else ("delete",) if after is None else ("update",)


def _declared_outputs(old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[Output]:
    before, after = old.get("output", {}), new.get("output", {})
    for name in sorted({*before, *after}):
        was, is_now = before.get(name), after.get(name)
        if was != is_now:
            sensitive = bool(is_now and is_now.get("sensitive"))
            values = (_output_value(was), _output_value(is_now))
            yield Output(name, _actions(was, is_now), *values, sensitive=sensitive)


def _output_value(block: Mapping[str, Json] | None) -> Json:
    if block is None:
        return None
    return SENSITIVE if block.get("sensitive") else block.get("value")


def named(paths: Sequence[Path]) -> dict[str, dict[str, Json]]:
    """The plans of these files, or of the folders that `keyturn deploy --out` made, by stack."""
    files = [file for path in paths for file in (saved_plans.shown_files(path) if path.is_dir() else (path,))]
    plans: dict[str, dict[str, Json]] = {}
    for path in files:
        plan = read_plan(path)
        if plan is not None:
            stack = str(plan["keyturn"].get("stack", path.stem))
            if stack in plans:
                raise UsageError(f"there are two plans of {stack}", "Give one plan for each stack.")
            plans[stack] = plan
    if not plans:
        raise UsageError("there is no plan to review", _AGAIN)
    return plans
