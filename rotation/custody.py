"""The one place where values go to and from a store: sealed ones are sealed on the way in and opened on the way out."""

from __future__ import annotations

from rotation.errors import DeclarationError, StoreError
from rotation.keys import KeyService
from rotation.manifest import Manifest, Secret
from rotation.model import Credential, Version
from rotation.plugins import Plugins
from rotation.sealing import Placed, is_sealed, seal, unseal
from rotation.secret_value import SecretValue
from rotation.stores import TokenStaging


class Custody:
    """Credentials of one environment's secrets, in clear in memory only.

    A generation's version never changes, so it is read once; the credential is kept for as long as this object. A
    foreign version may be overwritten in place, so it is read each time.
    """

    def __init__(self, manifest: Manifest, plugins: Plugins) -> None:
        self._manifest = manifest
        self._plugins = plugins
        self._read: dict[tuple[str, str], Credential] = {}

    def read(self, secret: Secret, version: Version) -> Credential:
        """The credential that a version holds; a foreign version counts as generation 0."""
        kept = self._read.get((secret.name, version.version_id))
        if kept is None:
            stored = self._plugins.store(secret).read(secret.stored_as, version)
            kept = self._open(secret, version.generation or 0, stored)
            if version.generation is not None:
                self._read[secret.name, version.version_id] = kept
        return kept

    def stage(self, secret: Secret, generation: int, value: SecretValue) -> Credential:
        """Put a value in the store as this generation, pending, and return the credential that is there now: another
        runner's, if that one was first."""
        stored = self._seal(secret, generation, value) if secret.sealed else value
        winner = self._plugins.store(secret).stage(secret.stored_as, generation, stored)
        if secret.sealed and not is_sealed(winner):
            raise StoreError(
                f"generation {generation} of {secret.name} is in the store unsealed, though it is declared sealed",
                "Somebody else put it there: find out who, and take it back with `keyturn rollback`.",
            )
        return self._open(secret, generation, winner)

    def stage_token(self, secret: Secret, token: str, generation: int, value: SecretValue) -> None:
        """Put a value as this generation in the version that the store itself made pending under this token; another
        runner's stays there, if that one was first."""
        store = self._plugins.store(secret)
        if not isinstance(store, TokenStaging):
            raise DeclarationError(f"the store of {secret.name} makes no versions by itself")
        stored = self._seal(secret, generation, value) if secret.sealed else value
        store.stage_token(secret.stored_as, token, generation, stored)

    def stored(self, secret: Secret, version: Version) -> Placed:
        """What the store itself holds of a version: still sealed where it was sealed."""
        stored = self._plugins.store(secret).read(secret.stored_as, version)
        return Placed(stored, secret.stored_as, version.generation or 0)

    def _seal(self, secret: Secret, generation: int, value: SecretValue) -> SecretValue:
        key, service = self._key(secret)
        return seal(value, name=secret.stored_as, generation=generation, key=key, service=service)

    def _open(self, secret: Secret, generation: int, stored: SecretValue) -> Credential:
        if not is_sealed(stored):
            return Credential(secret.name, generation, stored)
        _, service = self._key(secret)
        value = unseal(stored, name=secret.stored_as, generation=generation, service=service)
        return Credential(secret.name, generation, value)

    def _key(self, secret: Secret) -> tuple[str, KeyService]:
        if secret.key is None:
            raise DeclarationError(f"the value of {secret.name} is sealed, and it declares no key")
        key = self._manifest.keys[secret.key]
        return key.reference, self._plugins.keys(key)
