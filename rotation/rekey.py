"""Give a key new material, and put every value that it seals into a fresh envelope. Values and generations stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rotation.engine import Engine
from rotation.errors import KeyturnError, UsageError
from rotation.journal import Journal
from rotation.manifest import Manifest, Secret
from rotation.model import Ring, StoreView
from rotation.plugins import Plugins
from rotation.stores import Rewrapping


def rotate_key(manifest: Manifest, name: str, plugins: Plugins, journal: Journal) -> str:
    """Rotate a declared key on demand and return its reference."""
    if name not in manifest.keys:
        raise UsageError(
            f"no key {name!r} is declared in {manifest.environment}",
            f"Name a declared key ({', '.join(sorted(manifest.keys)) or 'there is none'}).",
        )
    key = manifest.keys[name]
    plugins.keys(key).rotate(key.reference)
    journal.audit(f"key {name}", 0, "key rotated", key.reference)
    return key.reference


def rewrap(
    manifest: Manifest, name: str, engine: Engine, say: Callable[[str], None], *, outside: bool
) -> dict[str, str]:
    """Re-wrap the current value of every secret that this key seals, and deploy the new envelopes' references.

    Returns the secrets that have to wait, and why: a value whose rotation is in flight, or whose previous generation is
    not retired yet, is left for the next time. ``outside`` leaves the deployment to somebody else.
    """
    sealed = [secret for secret in manifest.secrets.values() if secret.sealed and secret.key == name]
    waiting: dict[str, str] = {}
    with engine.journal.lease([secret.name for secret in sealed]):
        views = engine.observer.stored(sealed, fresh=True)
        for secret in sealed:
            reason = _not_now(views[secret.name])
            if reason is None:
                say(f"{secret.name}: generation {_rewrap(secret, views[secret.name], engine)} is re-wrapped")
            else:
                waiting[secret.name] = reason
                say(f"{secret.name}: left for later, {reason}")
        _deploy([secret for secret in sealed if secret.name not in waiting], engine, say, outside=outside)
    return waiting


def _not_now(view: StoreView) -> str | None:
    if view.current is None or view.current.generation is None:
        return "it has no value of keyturn's"
    if view.pending is not None:
        return "a rotation is in flight"
    if view.previous is not None:
        return "its previous generation is not retired yet"
    return None


def _rewrap(secret: Secret, view: StoreView, engine: Engine) -> int:
    store = engine.plugins.store(secret)
    if not isinstance(store, Rewrapping) or view.current is None or view.current.generation is None:
        raise KeyturnError(f"the store of {secret.name} holds one envelope per generation", "Rotate it instead.")
    version = store.rewrap(secret.stored_as, view.current, engine.custody.sealed_again(secret, view.current))
    detail = f"{view.current.version_id} → {version.version_id}"
    engine.journal.audit(secret.name, view.current.generation, "re-wrapped", detail)
    return view.current.generation


def _deploy(secrets: Sequence[Secret], engine: Engine, say: Callable[[str], None], *, outside: bool) -> None:
    """The configuration names the new envelopes: canary first. The old envelopes stay readable meanwhile."""
    stored = engine.observer.stored(engine.manifest.neighbours(secret.name for secret in secrets), fresh=True)
    if outside:
        engine.rollout.regenerate(stored)
        return
    for ring in Ring:
        places = {place for secret in secrets for place in engine.rollout.places(secret.name, ring)}
        if places:
            say(f"{ring}: {engine.rollout.deploy(places, stored)}")
