"""The foundation: keys, the place of configuration objects, the runner's identity, and what triggers rotations."""

from __future__ import annotations

from modules.cdk import App
from modules.declarations import Estate
from modules.encryption_key import EncryptionKey
from modules.resource import Stack
from modules.rotation_trigger import RotationTrigger
from modules.runner_identity import DeployerIdentity, RunnerIdentity
from modules.vendor import Places
from modules.where import here
from rotation.manifest import Key
from stacks.environments import Environment, S3State
from stacks.state import keep_state

PART = "foundation"


class Foundation(Stack):
    """``keys`` goes to the manifest."""

    def __init__(self, app: App, environment: Environment, estate: Estate) -> None:
        super().__init__(app, environment.stack(PART))
        environment.vendor.provide(self)
        keep_state(self, environment.state)
        environment.vendor.prepare(self, here())
        keys = {
            key.name: EncryptionKey(
                self,
                environment.vendor,
                key,
                deletion_days=environment.deletion_days,
                readers=_readers(estate, key.name),
            )
            for key in estate.keys
        }
        self.keys: dict[str, Key] = {name: key.declared for name, key in keys.items()}
        places = _places(environment)
        RunnerIdentity(
            self,
            environment.vendor,
            estate,
            keys={name: key.address for name, key in keys.items()},
            places=places,
            trusts=environment.trusts,
        )
        if environment.configured_by is None:
            environment.configuration.config_place(self, environment.config, here())
        elif PART not in environment.provisioned:  # else the application stack is all that Terraform has
            environment.configured_by.provide(self)
            environment.configured_by.config_place(self, environment.config, here())
            if trusts := environment.config_trusts:
                DeployerIdentity(self, environment.configured_by, estate, places=places, trusts=trusts)
        if environment.trigger is not None:
            RotationTrigger(
                self,
                environment.vendor,
                estate,
                environment.trigger,
                environment=environment.name,
                keys={name: key.address for name, key in keys.items()},
                journal=environment.journal,
            )


def _places(environment: Environment) -> Places:
    state, application = environment.state, environment.stack("application")
    kept = (state.bucket, state.key(application)) if isinstance(state, S3State) else None
    return Places(environment.config, kept, environment.journal)


def _readers(estate: Estate, key: str) -> tuple[str, ...]:
    """Whoever reads a secret that the key protects."""
    return tuple(sorted({reader for secret in estate.secrets if secret.key == key for reader in secret.readers}))
