"""ManagedSecret: a slot in the store that Terraform owns, for values that the rotation owns."""

from __future__ import annotations

from pydantic import ValidationError

from modules.declarations import Pace, Secret
from modules.reason import reason
from modules.resource import Stack
from modules.vendor import SlotSpec, Vendor
from rotation import manifest
from rotation.errors import DeclarationError
from rotation.model import Strategy


class ManagedSecret:
    """A slot with its policy, tags and recovery window, and never a version: Terraform would overwrite the live value
    once it lost track of it. ``declared`` goes to the manifest."""

    def __init__(self, stack: Stack, vendor: Vendor, secret: Secret, *, pace: Pace, recovery_days: int) -> None:
        self.declared = _declared(vendor, secret, secret.pace or pace)
        if secret.strategy is Strategy.SINGLE:
            stack.warn(
                f"{secret.where}: {secret.name} has the strategy single: between its installation and its deployment "
                "consumers hold a dead credential. Prefer alternating or overlapping where the target can do it."
            )
        spec = SlotSpec(
            name=secret.name,
            description=secret.description,
            key=secret.key,
            readers=secret.readers,
            tags=secret.tags,
            recovery_days=recovery_days,
            credential=self.declared.credential,
        )
        vendor.slot(stack, spec, secret.where)


def _declared(vendor: Vendor, secret: Secret, pace: Pace) -> manifest.Secret:
    try:
        return manifest.Secret(
            name=secret.name,
            stored_as=vendor.stored_as(secret.name),
            store=vendor.store(),
            credential=manifest.Plugin(kind=secret.credential.kind, options=dict(secret.credential.options)),
            strategy=secret.strategy,
            key=secret.key,
            sealed=secret.sealed,
            schedule=secret.schedule.declared if secret.schedule else None,
            bake=pace.bake,
            settle=pace.settle,
            patience=pace.patience,
            grace=pace.grace,
            end_sessions=secret.end_sessions,
            readers=secret.readers,
            reads=secret.credential.reads,
        )
    except ValidationError as error:
        raise DeclarationError(f"{secret.where}: the secret {secret.name}: {reason(error)}") from error
