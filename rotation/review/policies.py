"""Policies that stand as JSON in a resource's attributes, and what one allows that another did not.

AWS's documents and those that look like them (Tencent Cloud's have the same words in lower case). What a statement
says by exclusion (NotAction, NotPrincipal, NotResource) cannot be listed: such a statement is compared as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

EVERYONE = "*"
_EXCLUSIONS = ("notaction", "notprincipal", "notresource")


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One action, allowed or denied to one principal (empty in a policy of its own principal) on one resource, under a
    condition (JSON, empty for none)."""

    principal: str
    action: str
    resource: str
    condition: str = ""

    def covers(self, other: Grant) -> bool:
        """Whether whoever has this has the other one, too."""
        return (
            self.principal in (EVERYONE, other.principal)
            and _matches(other.action, self.action)
            and _matches(other.resource, self.resource)
            and self.condition in ("", other.condition)
        )

    @property
    def is_open(self) -> bool:
        """Whether it is for everyone, or for every action on everything."""
        return self.principal == EVERYONE or (not self.principal and (self.action, self.resource) == ("*", "*"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What a document allows and denies. ``opaque`` are the statements by exclusion, as JSON."""

    allows: frozenset[Grant] = field(default_factory=frozenset)
    denies: frozenset[Grant] = field(default_factory=frozenset)
    opaque: frozenset[str] = field(default_factory=frozenset)

    def beyond(self, before: Policy) -> frozenset[Grant]:
        """What is allowed here, and was not before."""
        broad = [grant for grant in before.allows if _is_broad(grant)]
        new = self.allows - before.allows
        return frozenset(grant for grant in new if not any(was.covers(grant) for was in broad))

    def no_longer_denied(self, before: Policy) -> frozenset[Grant]:
        return before.denies - self.denies


def policies(attributes: Any, path: str = "") -> Iterator[tuple[str, Policy]]:
    """The policies in a resource's attributes, each with the path of its attribute."""
    if isinstance(attributes, str):
        parsed = parse(attributes)
        if parsed is not None:
            yield path, parsed
    elif isinstance(attributes, Mapping):
        for name, part in attributes.items():
            yield from policies(part, f"{path}.{name}" if path else name)
    elif isinstance(attributes, list):
        for at, part in enumerate(attributes):
            yield from policies(part, f"{path}[{at}]")


def parse(text: str) -> Policy | None:
    """The policy that a text is, or None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    statements = _lowered(content).get("statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    if not isinstance(statements, list):
        return None
    return _policy([_lowered(statement) for statement in statements if isinstance(statement, Mapping)])


def _policy(statements: Iterable[Mapping[str, Any]]) -> Policy:
    allows: set[Grant] = set()
    denies: set[Grant] = set()
    opaque: set[str] = set()
    for statement in statements:
        if any(name in statement for name in _EXCLUSIONS):
            opaque.add(json.dumps({n: statement[n] for n in sorted(statement) if n != "sid"}, sort_keys=True))
            continue
        side = allows if str(statement.get("effect", "")).lower() == "allow" else denies
        side.update(_grants(statement))
    return Policy(frozenset(allows), frozenset(denies), frozenset(opaque))


def _grants(statement: Mapping[str, Any]) -> Iterator[Grant]:
    condition = statement.get("condition") or ""
    if condition:
        condition = json.dumps(condition, sort_keys=True)
    for principal in _principals(statement.get("principal")):
        for action in _listed(statement.get("action")):
            for resource in _listed(statement.get("resource")) or [""]:
                yield Grant(principal, action, resource, condition)


def _principals(principal: Any) -> list[str]:
    """Each principal by its kind and name; those of the kind AWS, which are most, by their name alone."""
    if isinstance(principal, Mapping):
        return [
            name if kind == "AWS" or name == EVERYONE else f"{kind}: {name}"
            for kind, names in principal.items()
            for name in _listed(names)
        ]
    return _listed(principal) or [""]


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _lowered(content: Any) -> dict[str, Any]:
    return {str(name).lower(): part for name, part in content.items()} if isinstance(content, Mapping) else {}


def _is_broad(grant: Grant) -> bool:
    """Whether it can cover another grant than itself."""
    return not grant.condition or any(c in f"{grant.principal}{grant.action}{grant.resource}" for c in "*?")


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name.lower(), pattern.lower().replace("[", "[[]"))
