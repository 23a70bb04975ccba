"""What the demo looks at when a key is rotated: the sealed values, as they are in the store and opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rotation.custody import Custody
from rotation.errors import KeyServiceError, StoreError
from rotation.keys import VersionedKeys
from rotation.manifest import Manifest, Secret
from rotation.plugins import Plugins
from rotation.sealing import Placed, unseal
from rotation.secret_value import SecretValue

Envelopes = Mapping[str, Placed]  # by the declared names of their secrets


class Sealed:
    """The current values that one key seals. The process has what the environment's commands have."""

    def __init__(self, project: Path, environment: str, key: str) -> None:
        manifest = Manifest.load(project, environment)
        self._plugins = Plugins(project, manifest)
        self._custody = Custody(manifest, self._plugins)
        self._service = self._plugins.keys(manifest.keys[key])
        self._secrets = [secret for secret in manifest.secrets.values() if secret.sealed and secret.key == key]

    @property
    def ends_old_material(self) -> bool:
        """Whether the key service can be told to use older material no more."""
        return isinstance(self._service, VersionedKeys)

    def look(self) -> Envelopes:
        return {secret.name: self._stored(secret) for secret in self._secrets}

    def opens(self, envelope: Placed) -> bool:
        try:
            self._value(envelope)
        except KeyServiceError:
            return False
        return True

    def same_values_in_other_envelopes(self, before: Envelopes, after: Envelopes) -> bool:
        """Whether all of them, of the same generations, have been wrapped anew."""
        return all(
            envelope.generation == after[name].generation
            and envelope.stored != after[name].stored
            and self._value(envelope) == self._value(after[name])
            for name, envelope in before.items()
        )

    def _stored(self, secret: Secret) -> Placed:
        seen = self._plugins.store(secret).observe([secret.stored_as], fresh=True)[secret.stored_as]
        if seen.current is None:
            raise StoreError(f"{secret.name} has no value")
        return self._custody.stored(secret, seen.current)

    def _value(self, envelope: Placed) -> SecretValue:
        return unseal(envelope.stored, name=envelope.name, generation=envelope.generation, service=self._service)
