"""The stores against what keyturn put there, and against what is pinned or deployed.

Versions without a label that somebody else put there are not looked for: no store lists them in batches, and nothing
ever uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rotation.drift import Class, Finding, Fix, Way, unchecked
from rotation.drift.scene import Scene
from rotation.engine import candidate_of
from rotation.manifest import Secret
from rotation.model import Place, StoreView, Version

MOST_SECOND_LOOKS = 50  # secrets: a batch may be minutes behind, so what it accuses is looked at again, up to here


def look(scene: Scene) -> list[Finding]:
    """What is wrong in the stores. Makes no call but a second, fresh look at the secrets that a batch accuses."""
    used = scene.used()
    found = {secret.name: list(_look(secret, view, scene, used)) for secret, view in scene.secrets}
    suspects = [name for name, findings in found.items() if any(finding.counts for finding in findings)]
    secrets = scene.engine.manifest.secrets
    if suspects and len(suspects) <= MOST_SECOND_LOOKS:
        fresh = scene.engine.observer.stored((secrets[name] for name in suspects), fresh=True)
        found |= {name: list(_look(secrets[name], view, scene, used)) for name, view in fresh.items()}
    return [*_troubles(scene), *(finding for findings in found.values() for finding in findings)]


def _troubles(scene: Scene) -> Iterator[Finding]:
    for trouble in scene.troubles:
        if trouble.secrets:
            yield unchecked(Way.STORED, trouble.what, trouble.error, trouble.error.remedy, trouble.secrets)


def _look(secret: Secret, view: StoreView, scene: Scene, used: dict[str, dict[int, list[Place]]]) -> Iterator[Finding]:
    here = used.get(secret.name, {})
    if not view.exists:
        yield _no_slot(secret, known=bool(here))
        return
    findings = [*_current(secret, view, known=bool(here)), *_pending(secret, view, scene), *_previous(secret, view)]
    findings += _missing(secret, view, here)
    for finding in findings:
        yield replace(finding, found=Class.EXPECTED) if secret.name in scene.work.busy else finding


def _finding(secret: Secret, aspect: str, found: Class, what: str, remedy: str, fix: Fix | None = None) -> Finding:
    return Finding(Way.STORED, secret.name, aspect, found, what, remedy, secrets=(secret.name,), fix=fix)


def _no_slot(secret: Secret, *, known: bool) -> Finding:
    if known:
        what = f"the slot {secret.stored_as} is gone or about to be deleted, and its generations are in use"
        remedy = f"Restore it in {secret.store.kind} while that can be done."
        return _finding(secret, "slot", Class.DELETED, what, remedy)
    remedy = "Deploy the secrets stack, or take the declaration out."
    return _finding(secret, "slot", Class.UNEXPECTED, f"the store has no slot {secret.stored_as}", remedy)


def _current(secret: Secret, view: StoreView, *, known: bool) -> Iterator[Finding]:
    if view.current is not None and view.current.generation is None:
        remedy = f"Find out who put it there; then `keyturn adopt {secret.name}`, or put the right version back."
        what = f"the current version ({view.current.version_id}) was not made by keyturn"
        yield _finding(secret, "current", Class.UNEXPECTED, what, remedy)
    elif view.current is None and known:
        remedy = "Put the right version back as the current one, or roll the consumers' pins back."
        yield _finding(secret, "value", Class.DELETED, "there is no current value any more, and it is in use", remedy)
    elif view.current is None and view.pending is None:
        remedy = f"Make it with `keyturn rotate --initialize {secret.name}`."
        yield _finding(secret, "value", Class.EXPECTED, "the first value is still to be made", remedy)


def _pending(secret: Secret, view: StoreView, scene: Scene) -> Iterator[Finding]:
    candidate = candidate_of(view)
    if view.pending is not None and view.pending.generation is None:
        remedy = "Finish or cancel the other rotation (in AWS: cancel-rotate-secret)."
        what = f"a pending version ({view.pending.version_id}) was not made by keyturn"
        yield _finding(secret, "pending", Class.UNEXPECTED, what, remedy)
    elif candidate is not None or secret.name in scene.work.opened:
        yield _rotation(secret, view, candidate, scene)
    elif view.pending is not None:
        what = f"generation {view.pending.generation} is still marked pending, though a newer one is current"
        yield _stuck(secret, what)


def _rotation(secret: Secret, view: StoreView, candidate: int | None, scene: Scene) -> Finding:
    doing = "is being rolled back" if view.rejected else "is pending"
    what = f"generation {candidate} {doing}" if candidate else "a rotation is open, and nothing is staged yet"
    if secret.name in scene.in_flight:
        remedy = "Nothing: the rotation is under way."
        return _finding(secret, "pending", Class.EXPECTED, what, remedy)
    if secret.name in scene.work.dead:
        return _stuck(secret, f"{what}, and its runner died")
    return _stuck(secret, f"{what} for longer than its rotation takes, and no runner works on it")


def _stuck(secret: Secret, what: str) -> Finding:
    remedy = f"Let keyturn finish or discard it: `keyturn rotate {secret.name}`, or `keyturn rollback {secret.name}`."
    return _finding(secret, "pending", Class.UNEXPECTED, what, remedy, Fix.RESUME)


def _previous(secret: Secret, view: StoreView) -> Iterator[Finding]:
    if view.previous is not None and view.previous.generation is not None:
        what = f"generation {view.previous.generation} is kept until it is retired"
        yield _finding(secret, "previous", Class.EXPECTED, what, "Nothing, or `keyturn retire` after its grace time.")


def _missing(secret: Secret, view: StoreView, used: dict[int, list[Place]]) -> Iterator[Finding]:
    """Generations that are pinned or deployed and not in the store. Without a current one there is nothing to go to."""
    held = {version.generation for version in view.versions}
    fix = Fix.REPIN if _is_ours(view.current) else None
    for generation, places in sorted(used.items()):
        if generation not in held:
            where = ", ".join(f"{consumer}/{ring}" for consumer, ring in sorted(places))
            what = f"generation {generation} is pinned or deployed at {where}, and the store does not hold it"
            remedy = "Take the pins back from version control, or let `--fix` bring them to the current generation."
            finding = _finding(secret, f"generation-{generation}", Class.DELETED, what, remedy, fix)
            yield replace(finding, places=tuple(sorted(places)))


def _is_ours(version: Version | None) -> bool:
    return version is not None and version.generation is not None
