"""The stacks against Terraform's state and the cloud, by one plan per stack, which is not applied.

A plan refreshes the state first, and says in ``resource_drift`` what it found changed since the last apply, also in
attributes that the configuration leaves alone (``ignore_changes``); in its changes it says what an apply would do. So a
resource was changed outside Terraform, or it is declared and not applied.

Not every difference is one. Terraform writes an empty list where a refresh reads none, and an attribute that another
resource of the stack fills (the inline policies of a role, say) is only seen at the next refresh: what is explained by
the other resources of the stack is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rotation.drift import Class, Finding, Fix, Way, unchecked
from rotation.drift.comparison import Comparison, Outside, compare
from rotation.drift.scene import Scene
from rotation.errors import KeyturnError
from rotation.model import Place
from rotation.terraform import ResourceChange

MOST_NAMES = 6  # attributes that a finding names


def look(scene: Scene) -> list[Finding]:
    """Compare the environment's stacks. One that cannot be planned leaves the others alone."""
    manifest = scene.engine.manifest
    places = {
        address: (consumer.name, ring)
        for consumer in manifest.consumers.values()
        for ring, declared in consumer.rings.items()
        for address in declared.addresses
    }
    try:
        compared: Mapping[str, Comparison | KeyturnError] = (
            compare(scene.engine.project, manifest.stacks) if manifest.stacks else {}
        )
    except KeyturnError as error:
        compared = dict.fromkeys(manifest.stacks, error)
    found: list[Finding] = []
    for stack, comparison in compared.items():
        if isinstance(comparison, KeyturnError):
            found.append(unchecked(Way.DECLARED, stack, comparison, comparison.remedy, stack=stack))
        else:
            found += _findings(_Stack(stack, comparison, places, scene))
    return found


@dataclass(frozen=True, slots=True)
class _Stack:
    """One stack's comparison, and the places that its configuration objects are for."""

    name: str
    compared: Comparison
    places: Mapping[str, Place]
    scene: Scene

    def finding(self, aspect: str, found: Class, what: str, remedy: str, fix: Fix | None = None) -> Finding:
        place = self.places.get(aspect)
        secrets = self.scene.engine.manifest.consumers[place[0]].secrets if place else ()
        spots = (place,) if place else ()
        return Finding(Way.DECLARED, self.name, aspect, found, what, remedy, self.name, secrets, spots, fix)


def _findings(stack: _Stack) -> Iterator[Finding]:
    planned = {change.address: change for change in stack.compared.plan.changes if change.actions != ("read",)}
    seen = set()
    for outside in stack.compared.outside:
        if outside.address in planned or outside.attributes or outside.deleted:
            seen.add(outside.address)
            yield _changed_outside(stack, outside)
    for address, change in planned.items():
        if address not in seen:
            yield _not_applied(stack, change)
    if not planned:
        for output in stack.compared.plan.outputs:
            what = f"the output {output.name} is declared otherwise than it was applied"
            yield stack.finding(f"output.{output.name}", Class.UNEXPECTED, what, _deploy_it(stack))


def _changed_outside(stack: _Stack, outside: Outside) -> Finding:
    fix = Fix.DEPLOY if outside.address in stack.places else None
    if outside.deleted:
        remedy = f"Find out who deleted it. {_deploy_it(stack)}"
        return stack.finding(outside.address, Class.DELETED, "was deleted outside Terraform", remedy, fix)
    names = outside.attributes
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    what = f"was changed outside Terraform: {', '.join(names[:MOST_NAMES]) or 'some attributes'}{more}"
    remedy = f"Find out who changed it; take it into the declaration, or undo it. {_deploy_it(stack)}"
    return stack.finding(outside.address, Class.UNEXPECTED, what, remedy, fix)


def _not_applied(stack: _Stack, change: ResourceChange) -> Finding:
    what = f"is declared and not applied: {'/'.join(change.actions)}"
    place = stack.places.get(change.address)
    if place is not None and _is_moving(stack.scene, place):
        what = "changes with a rotation that is under way"
        return stack.finding(change.address, Class.EXPECTED, what, "Nothing: the rotation deploys it.")
    return stack.finding(change.address, Class.UNEXPECTED, what, _deploy_it(stack))


def _is_moving(scene: Scene, place: Place) -> bool:
    return not scene.in_flight.isdisjoint(scene.engine.manifest.consumers[place[0]].secrets)


def _deploy_it(stack: _Stack) -> str:
    return f"Review and deploy the stack: `keyturn deploy {stack.name}`."
