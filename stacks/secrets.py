"""The secrets: their slots. Values are the rotation's business."""

from __future__ import annotations

from modules.cdk import App
from modules.declarations import Estate
from modules.managed_secret import ManagedSecret
from modules.resource import Stack
from modules.rotation_trigger import rotate_by_store
from rotation.manifest import Secret
from stacks.environments import Environment
from stacks.state import keep_state

PART = "secrets"


class Secrets(Stack):
    """``secrets`` goes to the manifest."""

    def __init__(self, app: App, environment: Environment, estate: Estate) -> None:
        super().__init__(app, environment.stack(PART))
        environment.vendor.provide(self)
        keep_state(self, environment.state)
        self.secrets: dict[str, Secret] = {
            secret.name: ManagedSecret(
                self,
                environment.vendor,
                secret,
                pace=environment.pace,
                recovery_days=environment.recovery_days,
            ).declared
            for secret in estate.secrets
        }
        if environment.trigger is not None:
            rotate_by_store(self, environment.vendor, environment.trigger)
