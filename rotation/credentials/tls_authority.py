"""An authority of one's own that signs TLS certificates: its certificate and key, for the issuer ``local_ca``.

The value is shaped as in :mod:`rotation.tls`. Its consumers are the clients: they trust what ``ca`` holds. A rotation
is a change of authority with a time of double trust, by the order of every rotation:

- the new generation's ``ca`` holds the new root and the one that signs until now: clients of the canary ring, then
  all, come to trust both, while the old one still signs;
- at promotion, when every client trusts it, the new one begins to sign: ``local_ca`` takes what is current;
- every further generation drops the roots that sign none of the ``certificates`` any more (secrets of the kind
  ``tls_certificate``, by their names in the store), but never the one before it.

A generation that does not trust a certificate that one of them still uses is turned down.
"""

# ruff: noqa: ARG002 (nothing knows an authority but its clients: nothing is installed, nothing revoked)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field

from rotation.credentials import ReadSecret
from rotation.model import Acceptance, Credential, Strategy
from rotation.options import parse
from rotation.secret_value import SecretValue
from rotation.tls import SKEW, KeyType, Material, Usage, bundle, certify, key_text, key_usage, new_key, split
from rotation.tls.handshake import problem, untrusted
from rotation.tls.issuers import Wanted
from rotation.tls.issuers.local_ca import LocalCa
from rotation.tls.kind import CertificateKind, material_of

_USES: tuple[Usage, ...] = ("server", "client")


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    common_name: Annotated[str, Field(min_length=1, max_length=40)]
    certificates: tuple[str, ...] = ()
    key_type: KeyType = "ec-p384"
    lifetime: Annotated[timedelta, Field(ge=timedelta(minutes=1), le=timedelta(days=9131))] = timedelta(days=1826)
    renew_after: Annotated[float, Field(gt=0, lt=1)] = 2 / 3


class TlsAuthority(CertificateKind):
    """Options: ``common_name``, ``certificates``, ``key_type``, ``lifetime`` and ``renew_after`` (a share of it)."""

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        self._refuse_other(strategy, "tls_authority")
        self._options = parse(_Options, options, "tls_authority")
        self.renew_after = self._options.renew_after
        self._read = read

    def issue(self, current: Credential | None) -> SecretValue:
        key, now = new_key(self._options.key_type), datetime.now(UTC)
        # A name of its own for each root, so that no client takes one for the other.
        number = f"{x509.random_serial_number():x}"[:8]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{self._options.common_name} {number}")])
        root = certify(
            name,
            key.public_key(),
            (now - SKEW, now + self._options.lifetime),
            (
                (x509.BasicConstraints(ca=True, path_length=0), True),
                (key_usage("key_cert_sign", "crl_sign"), True),
            ),
            (name, key),
        )
        material = Material(bundle([root]), key_text(key), ca=bundle([root]))
        if current is not None:
            material = replace(material, ca=bundle([root, *self._still_needed(material_of(current))]))
        return material.to_value()

    def check(self, credential: Credential) -> Acceptance:
        """Sign a certificate with it, and shake hands with that."""
        name = "keyturn-check.invalid"
        key = new_key("ec-p256")
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
        issuer = LocalCa({"authority": credential.secret}, lambda _: credential.value)
        if material_of(credential).expired:
            return Acceptance.DENIED
        signed = issuer.sign(Wanted(request, (name,), _USES, timedelta(minutes=5)))
        leaf = Material(signed.certificate, key_text(key), signed.chain)
        return Acceptance.DENIED if problem(leaf, issuer.authorities(), [name], _USES) else Acceptance.ACCEPTED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        """Nothing to do: it signs no more, and is trusted for as long as ``ca`` holds it."""

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        """The certificates in use that clients with the new generation would not trust."""
        authorities = material_of(new).ca
        leaves = {name: self._leaf(name) for name in self._options.certificates}
        used = {name: leaf for name, leaf in leaves.items() if not leaf.expired}
        return tuple(
            f"the root of {name} ({wrong})" for name, leaf in used.items() if (wrong := untrusted(leaf, authorities))
        )

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        return (f"a new root, {self._options.common_name}, which signs once generation {new} is promoted",)

    def _trusted_with(self, material: Material) -> str:
        return material.ca or material.certificate

    def _leaf(self, name: str) -> Material:
        return Material.parse(self._read(name), f"the current value of {name}")

    def _still_needed(self, current: Material) -> list[x509.Certificate]:
        """The root that signs until now, and those before it that a certificate in use comes from."""
        leaves = [self._leaf(name) for name in self._options.certificates]
        older = [root for root in split(current.ca) if root != current.x509]
        return [current.x509, *(r for r in older if any(untrusted(leaf, bundle([r])) is None for leaf in leaves))]
