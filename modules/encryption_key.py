"""EncryptionKey: a key that the vendor renews by itself and keyturn turns on demand."""

from __future__ import annotations

from modules.declarations import Key
from modules.resource import Stack
from modules.vendor import KeySpec, Vendor
from rotation import manifest


class EncryptionKey:
    """A key, its alias and its policy. ``address`` is the key's own as a Terraform expression, valid in its stack;
    ``declared`` goes to the manifest. ``readers`` may decrypt what the key protects."""

    def __init__(
        self, stack: Stack, vendor: Vendor, key: Key, *, deletion_days: int, readers: tuple[str, ...] = ()
    ) -> None:
        spec = KeySpec(key.name, native_days=key.native_days, deletion_days=deletion_days, readers=readers)
        self.address = vendor.key(stack, spec, key.where)
        self.declared = manifest.Key(service=vendor.key_service(), reference=vendor.key_reference(key.name))
