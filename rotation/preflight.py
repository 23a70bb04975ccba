"""What cannot be started is refused before anything is changed."""

from __future__ import annotations

from rotation.errors import StoreError, UsageError
from rotation.manifest import Secret
from rotation.model import StoreView


def preflight(secret: Secret, view: StoreView, *, initialize: bool) -> None:
    """Refuse a secret without a slot, with a foreign version, or without a value when no first one is asked for."""
    if not view.exists:
        raise StoreError(
            f"the store has no slot {secret.stored_as} for {secret.name}",
            "Deploy the secrets stack of this environment (`cdktf deploy`), then run again.",
        )
    if view.current is not None and view.current.generation is None:
        raise StoreError(
            f"the current version of {secret.name} was not made by keyturn ({view.current.version_id})",
            f"If its value is right, take it over with `keyturn adopt {secret.name}`; else put the right version back.",
        )
    if view.pending is not None and view.pending.generation is None:
        raise StoreError(
            f"a pending version of {secret.name} was not made by keyturn ({view.pending.version_id})",
            "Finish or cancel the rotation that made it, then run again.",
        )
    if view.current is None and view.pending is None and not initialize:
        raise UsageError(
            f"{secret.name} has no value yet",
            f"Make its first one with `keyturn rotate --initialize {secret.name}`.",
        )
