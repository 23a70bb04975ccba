"""What the credential kinds for certificates share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from rotation.credentials import ComparesPrivileges, CredentialKind, DescribesOperations, Expires, HasPublicPart
from rotation.errors import DeclarationError
from rotation.model import Credential, Strategy
from rotation.tls import Material


class CertificateKind(CredentialKind, ComparesPrivileges, DescribesOperations, Expires, HasPublicPart):
    """Certificates with their keys: the old one is valid beside the new one. ``renew_after`` is a share of the
    lifetime."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.OVERLAPPING})
    renew_after: float

    def install(self, new: Credential, current: Credential | None) -> None:
        """Nothing to do: consumers take it from the store, and nobody else has to know it."""

    def renew_at(self, credential: Credential) -> datetime:
        return material_of(credential).at(self.renew_after)

    def public_part(self, credential: Credential) -> Mapping[str, str]:
        """Its ``certificate``, ``chain``, ``ca`` (what clients trust now) and ``serial``."""
        material = material_of(credential)
        return material.public() | {"ca": self._trusted_with(material)}

    @abstractmethod
    def _trusted_with(self, material: Material) -> str:
        """The roots that those trust who meet this certificate, as PEM."""

    def _refuse_other(self, strategy: Strategy, name: str) -> None:
        if strategy not in self.strategies:
            known = ", ".join(sorted(self.strategies))
            raise DeclarationError(f"{name} has no strategy {strategy} (it has: {known})")


def material_of(credential: Credential) -> Material:
    return Material.parse(credential.value, f"generation {credential.generation} of {credential.secret}")
