"""A TLS certificate with its private key, for servers, for clients, or for both. The value's shape: see
:mod:`rotation.tls`.

The private key is made here, and goes to the store and nowhere else: issuers get a signing request. Consumers take
certificate and key from the store, so there is nothing to install. What is *accepted* is proved with the value itself:

- a TLS handshake for every declared name, in memory, with a client that trusts the issuer's authorities (or those in
  the file ``trust``) and checks chain, names, validity and key usage; for the usage "client" with a server that does;
- ``least_left`` of the declared lifetime is left (a share; by default any),
- and the issuer has not revoked it.

Old and new are valid side by side ("overlapping"); the old one is revoked when it is retired.

**A change of authority** needs a time in which clients trust both.

- With the issuer ``local_ca`` clients take the roots from the authority's own secret: rotate that, then this one.
- With ``vault_pki`` the value brings the mount's roots (its ``ca``). Add a root to the mount and rotate, for clients to
  learn of it; make it the mount's default and rotate, for it to sign; then take the old one away.
- A new certificate that clients with what the current value brought would not trust, or that brings no trust in the
  current one, is turned down before it gets anywhere: so servers and clients may get it in any order.

**Renewal.** A certificate is due when the share ``renew_after`` of its lifetime is over, if the schedule does not ask
for it earlier.
"""

# ruff: noqa: ARG002 (a certificate does not depend on the one before it, and is installed nowhere)

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rotation.credentials import ReadSecret
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Strategy
from rotation.options import parse
from rotation.plugins import load
from rotation.secret_value import SecretValue
from rotation.tls import KeyType, Material, PrivateKey, Usage, address_of, general_names, key_text, new_key
from rotation.tls.handshake import problem, untrusted
from rotation.tls.issuers import Issuer, Signed, Wanted
from rotation.tls.kind import CertificateKind, material_of

# A wildcard stands for one whole label, the first one. https://datatracker.ietf.org/doc/html/rfc6125#section-6.4.3
_DNS_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_LONGEST_COMMON_NAME = 64  # RFC 5280, ub-common-name


def _checked(name: str) -> str:
    if address_of(name) is None and (len(name) > 253 or not _DNS_NAME.fullmatch(name)):
        raise ValueError(f"{name!r} is neither a DNS name in lower case nor an IP address")
    return name


class _Issuer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: _Issuer
    names: Annotated[tuple[Annotated[str, AfterValidator(_checked)], ...], Field(min_length=1, max_length=100)]
    usages: Annotated[tuple[Usage, ...], Field(min_length=1)] = ("server",)
    key_type: KeyType = "ec-p256"
    lifetime: Annotated[timedelta, Field(ge=timedelta(minutes=1), le=timedelta(days=3650))] = timedelta(days=30)
    renew_after: Annotated[float, Field(gt=0, lt=1)] = 2 / 3
    least_left: Annotated[float, Field(ge=0, lt=1)] = 0.0
    trust: Path | None = None


class TlsCertificate(CertificateKind):
    """Options: ``issuer`` (its ``kind``, a file in rotation/tls/issuers, with that one's options), ``names`` (DNS names
    and IP addresses, the first one the subject's), ``usages`` ("server", "client"), ``key_type``, ``lifetime``,
    ``renew_after``, ``least_left`` and ``trust``."""

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        self._refuse_other(strategy, "tls_certificate")
        self._options = parse(_Options, options, "tls_certificate")
        self.renew_after = self._options.renew_after
        declared = self._options.issuer
        self._issuer = load(Issuer, declared.kind)(declared.model_extra or {}, read)
        self._brings_trust = self._issuer.trust_comes_with_the_value and self._options.trust is None

    def issue(self, current: Credential | None) -> SecretValue:
        """Have a new key's certificate signed, and prove it before it is stored: an issuer may leave out a name."""
        key = new_key(self._options.key_type)
        signed = self._issuer.sign(self._wanted(key))
        authorities = self._authorities()
        material = Material(signed.certificate, key_text(key), signed.chain, authorities if self._brings_trust else "")
        if wrong := self._problem(material, authorities):
            raise TargetError(
                f"the certificate that {self._options.issuer.kind} signed is not fit for use: {wrong}",
                "Compare the issuer's rules (its role, its authorities) with the declaration.",
            )
        return material.to_value()

    def check(self, credential: Credential) -> Acceptance:
        material = material_of(credential)
        try:
            authorities = self._authorities()
            if self._problem(material, authorities) or self._issuer.is_revoked(_signed(material), authorities):
                return Acceptance.DENIED
        except (Unavailable, Unauthorized):
            return Acceptance.UNKNOWN
        return Acceptance.ACCEPTED

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        """Revoke it at its issuer, unless it has expired. Open connections go on: TLS asks once, at their start."""
        material = material_of(old)
        if current is not None and material_of(current).serial == material.serial:
            return
        if not material.expired:
            self._issuer.revoke(_signed(material))

    def missing(self, old: Credential, new: Credential) -> tuple[str, ...]:
        """What servers and clients of different rings would not accept of each other while they have one of the two."""
        before, after = material_of(old), material_of(new)
        lacks: list[str] = []
        if before.ca and (wrong := self._problem(after, before.ca)):
            lacks.append(f"trust by clients that know generation {old.generation}'s authorities only ({wrong})")
        if not before.expired and (wrong := untrusted(before, self._trusted_with(after))):
            lacks.append(f"an authority for servers that still have generation {old.generation} ({wrong})")
        return tuple(lacks)

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        issuer, names = self._options.issuer.kind, ", ".join(self._options.names)
        signing = f"{issuer} signs a certificate for {names}, for {self._options.lifetime}"
        return (signing,) if current is None else (signing, f"{issuer} revokes generation {current}'s certificate")

    def _wanted(self, key: PrivateKey) -> Wanted:
        names = self._options.names
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= _LONGEST_COMMON_NAME else []
        request = x509.CertificateSigningRequestBuilder(x509.Name(subject), [])
        request = request.add_extension(general_names(names), critical=not subject)
        return Wanted(request.sign(key, hashes.SHA256()), names, self._options.usages, self._options.lifetime)

    def _trusted_with(self, material: Material) -> str:
        return material.ca or self._authorities()

    def _authorities(self) -> str:
        path = self._options.trust
        if path is None:
            return self._issuer.authorities()
        try:
            return path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise DeclarationError(
                f"tls_certificate: the file {path} cannot be read: {type(error).__name__}"
            ) from error

    def _problem(self, material: Material, authorities: str) -> str | None:
        """What is wrong with it for clients, and servers, that trust these authorities."""
        left = (material.not_after - datetime.now(UTC)) / self._options.lifetime
        if left < self._options.least_left:
            return f"{max(left, 0):.0%} of the declared lifetime is left, fewer than {self._options.least_left:.0%}"
        return problem(material, authorities, self._options.names, self._options.usages)


def _signed(material: Material) -> Signed:
    return Signed(material.certificate, material.chain)
