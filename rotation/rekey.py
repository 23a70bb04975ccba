"""Give a key new material, and put every value that it seals into a fresh envelope. Values and generations stay.

Where the key service keeps the older material apart (:class:`~rotation.keys.VersionedKeys`), it can be told not to use
it any more. That is done on evidence alone, by :func:`raise_minimum`:

- the current, pending and previous version of every secret that the key seals has been read, and each wrapped key tells
  the material that wrapped it: none is older than the new minimum;
- nothing is in flight, and no previous generation is left: a rollback needs its envelope;
- nothing changed in the store for the secret's grace, and a deployment finds nothing to change: no consumer still reads
  an envelope that was replaced.

Only this environment's secrets can be looked at: what another environment seals with the same key is not seen, nor are
copies that were made elsewhere. An administrator can lower a minimum again for as long as the key is not trimmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from rotation.engine import Engine
from rotation.errors import KeyServiceError, KeyturnError, UsageError
from rotation.journal import Journal
from rotation.keys import KeyService, MaterialVersions, VersionedKeys
from rotation.manifest import Key, Manifest, Secret
from rotation.model import Ring, StoreView
from rotation.plugins import Plugins
from rotation.sealing import Placed, wrapping
from rotation.sealing import rewrap as rewrapped
from rotation.secret_value import SecretValue
from rotation.stores import PromotesUnderLease, Rewrapping, under_lease

Say = Callable[[str], None]
Views = Mapping[str, StoreView]


def rotate_key(manifest: Manifest, name: str, plugins: Plugins, journal: Journal) -> str:
    """Rotate a declared key on demand and return its reference."""
    key = _declared(manifest, name)
    plugins.keys(key).rotate(key.reference)
    journal.audit(_subject(name), 0, "key rotated", key.reference)
    return key.reference


def weaknesses(manifest: Manifest, name: str, plugins: Plugins) -> list[str]:
    """What the service says of a declared key that a key should not have."""
    key = _declared(manifest, name)
    seen = plugins.keys(key).observe([key.reference])[key.reference]
    found = {"its material can be exported": seen.exportable, "one call deletes it for good": seen.deletable}
    return [what for what, holds in found.items() if holds]


def rewrap(manifest: Manifest, name: str, engine: Engine, say: Say, *, outside: bool) -> dict[str, str]:
    """Re-wrap the current value of every secret that this key seals, and deploy the new envelopes' references.

    What is under the key's present material already is left as it is, where the service can tell. Returns the secrets
    that have to wait, and why: a value whose rotation is in flight, or whose previous generation is not retired yet, is
    left for the next time. ``outside`` leaves the deployment to somebody else.
    """
    sealed = [secret for secret in manifest.secrets.values() if secret.sealed and secret.key == name]
    with engine.journal.lease([secret.name for secret in sealed]):
        views = engine.observer.stored(sealed, fresh=True, troubled=True)
        waiting = _waiting(sealed, views)
        for left, reason in waiting.items():
            say(f"{left}: left for later, {reason}")
        ready = [secret for secret in sealed if secret.name not in waiting]
        for secret, view, envelope in _anew(manifest.keys[name], ready, views, engine):
            say(f"{secret.name}: generation {_replace(secret, view, envelope, engine)} is re-wrapped")
        _deploy(ready, engine, say, outside=outside)
    return waiting


def raise_minimum(manifest: Manifest, name: str, engine: Engine, say: Say) -> dict[str, str]:
    """Let the key unwrap nothing older than what it still has to; return the secrets that hold it back, and why."""
    key = _declared(manifest, name)
    service = _versioned(key, engine.plugins.keys(key))
    # A secret may still hold what it was sealed with before it was declared with another key, or unsealed.
    members = [s for s in manifest.secrets.values() if s.key and manifest.keys[s.key].service == key.service]
    with engine.journal.lease([secret.name for secret in members]):
        seen = service.versions(key.reference)
        if seen.minimum == seen.latest:
            say(f"{key.reference} unwraps with its latest material alone, {seen.latest}")
            return {}
        views = engine.observer.stored(members, fresh=True)
        oldest = _oldest(key, service, members, views, engine)
        ours = [s for s in members if s.name in oldest or (s.sealed and s.key == name and views[s.name].versions)]
        waiting = _recent(ours, views, engine) | _waiting(ours, views)
        if not waiting and min(oldest.values(), default=0) > seen.minimum:
            waiting = _undeployed(ours, engine)
            if not waiting:
                _raise(name, service, seen, min(oldest.values()), engine, say)
        waiting = _behind(oldest, seen) | waiting
    for secret, reason in waiting.items():
        say(f"{secret}: holds the minimum of {key.reference}, {reason}")
    return waiting


def _declared(manifest: Manifest, name: str) -> Key:
    if name not in manifest.keys:
        raise UsageError(
            f"no key {name!r} is declared in {manifest.environment}",
            f"Name a declared key ({', '.join(sorted(manifest.keys)) or 'there is none'}).",
        )
    return manifest.keys[name]


def _versioned(key: Key, service: KeyService) -> VersionedKeys:
    if not isinstance(service, VersionedKeys):
        raise KeyServiceError(
            f"{key.service.kind} keeps all material of the key {key.reference} in use",
            "Where older material must go, declare a new key, rotate what the old one seals, and delete the old one.",
        )
    return service


def _subject(key: str) -> str:
    return f"key {key}"


def _waiting(secrets: Iterable[Secret], views: Views) -> dict[str, str]:
    reasons = {secret.name: _not_now(views[secret.name]) for secret in secrets}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _not_now(view: StoreView) -> str | None:
    if view.trouble is not None:
        return str(view.trouble)
    if view.current is None or view.current.generation is None:
        return "it has no value of keyturn's"
    if view.pending is not None:
        return "a rotation is in flight"
    if view.previous is not None:
        return "its previous generation is not retired yet"
    return None


# Re-wrapping


def _anew(
    key: Key, secrets: Sequence[Secret], views: Views, engine: Engine
) -> Iterable[tuple[Secret, StoreView, SecretValue]]:
    """The secrets whose envelope is not under the key's present material, each with one that is."""
    service = engine.plugins.keys(key)
    found = {s.name: engine.custody.stored(s, version) for s in secrets if (version := views[s.name].current)}
    if isinstance(service, VersionedKeys):
        latest = service.versions(key.reference).latest
        found = {name: value for name, value in found.items() if _version(key, service, value) != latest}
    envelopes = rewrapped(list(found.values()), key=key.reference, service=service)
    return [
        (engine.manifest.secrets[name], views[name], envelope) for name, envelope in zip(found, envelopes, strict=True)
    ]


def _version(key: Key, service: VersionedKeys, value: Placed) -> int | None:
    """The number of this key's material that seals the value; None where this key does not seal it."""
    seen = wrapping(value)
    return service.version_of(seen.wrapped) if seen is not None and seen.key == key.reference else None


def _replace(secret: Secret, view: StoreView, envelope: SecretValue, engine: Engine) -> int:
    store = under_lease(engine.plugins.store(secret), lambda: engine.journal.require_lease(secret.name))
    if not isinstance(store, Rewrapping) or view.current is None or view.current.generation is None:
        raise KeyturnError(f"the store of {secret.name} holds one envelope per generation", "Rotate it instead.")
    version = store.rewrap(secret.stored_as, view.current, envelope)
    detail = f"{view.current.version_id} → {version.version_id}"
    engine.journal.audit(secret.name, view.current.generation, "re-wrapped", detail)
    return view.current.generation


def _deploy(secrets: Sequence[Secret], engine: Engine, say: Say, *, outside: bool) -> None:
    """The configuration names the new envelopes: canary first. The old envelopes stay readable meanwhile."""
    stored = engine.observer.stored(engine.manifest.neighbours(secret.name for secret in secrets), fresh=True)
    if outside:
        engine.rollout.regenerate(stored)
        return
    for ring in Ring:
        places = {place for secret in secrets for place in engine.rollout.places(secret.name, ring)}
        if places:
            say(f"{ring}: {engine.rollout.deploy(places, stored)}")


# Raising the minimum


def _oldest(
    key: Key, service: VersionedKeys, secrets: Iterable[Secret], views: Views, engine: Engine
) -> dict[str, int]:
    """The oldest of this key's materials that seals anything the store keeps of a secret, where one does."""
    found = {
        secret.name: [
            number
            for version in views[secret.name].versions
            if (number := _version(key, service, engine.custody.stored(secret, version))) is not None
        ]
        for secret in secrets
    }
    return {name: min(numbers) for name, numbers in found.items() if numbers}


def _recent(secrets: Iterable[Secret], views: Views, engine: Engine) -> dict[str, str]:
    """The secrets whose replaced envelope somebody may still read: changed in the store within their grace."""
    ends = {secret.name: _end_of_grace(secret, views[secret.name], engine.plugins) for secret in secrets}
    return {
        name: "the store does not say when it changed"
        if end is None
        else f"it changed, and its grace ends at {end:%Y-%m-%d %H:%M} UTC"
        for name, end in ends.items()
        if end is None or engine.clock() < end
    }


def _end_of_grace(secret: Secret, view: StoreView, plugins: Plugins) -> datetime | None:
    """Where a re-wrap that was sent before could still arrive, no sooner than that it cannot."""
    store = plugins.store(secret)
    grace = max(secret.grace, store.settle) if isinstance(store, PromotesUnderLease) else secret.grace
    return view.changed_at and view.changed_at + grace


def _undeployed(secrets: Sequence[Secret], engine: Engine) -> dict[str, str]:
    """All of these secrets, if a consumer's configuration was not up to date until now; else none."""
    stored = engine.observer.stored(engine.manifest.neighbours(secret.name for secret in secrets), fresh=True)
    changed = [
        address
        for ring in Ring
        if (places := {place for secret in secrets for place in engine.rollout.places(secret.name, ring)})
        for deployment in engine.rollout.apply(places, stored)
        for address in deployment.changed
    ]
    reason = f"what its consumers run was deployed only now: {', '.join(changed)}"
    return {secret.name: reason for secret in secrets} if changed else {}


def _raise(name: str, service: VersionedKeys, seen: MaterialVersions, minimum: int, engine: Engine, say: Say) -> None:
    reference = engine.manifest.keys[name].reference
    change = f"{seen.minimum} → {minimum} of {seen.latest}"
    engine.journal.audit(_subject(name), 0, "raises the minimum", change)
    service.raise_minimum(reference, minimum)
    engine.journal.audit(_subject(name), 0, "minimum raised", change)
    say(f"{reference} unwraps nothing any more that is older than its material {minimum} of {seen.latest}")


def _behind(oldest: Mapping[str, int], seen: MaterialVersions) -> dict[str, str]:
    return {
        name: f"it is sealed with material {number} of {seen.latest}: re-wrap it (--rewrap-only)"
        for name, number in oldest.items()
        if number < seen.latest
    }
