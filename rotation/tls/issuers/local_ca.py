"""An authority of one's own: its key is a secret in the same store, of the kind ``tls_authority`` or put there by hand.
Clients take the roots that they trust (``ca``) from there, too.

Nobody publishes what it has revoked, so it revokes nothing: what is retired is out of the store, and out of use for
the grace time, but valid until its end. Keep lifetimes short.
"""

# ruff: noqa: ARG002 (nothing is revoked, whatever it is)

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict

from rotation.credentials import ReadSecret
from rotation.errors import TargetError
from rotation.options import parse
from rotation.tls import PURPOSES, SKEW, Material, bundle, certify, general_names, is_root, key_usage, split
from rotation.tls.issuers import Issuer, Signed, Wanted


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    authority: str


class LocalCa(Issuer):
    """Option: ``authority``, the name of its secret in the store."""

    trust_comes_with_the_value = False

    def __init__(self, options: Mapping[str, Any], read: ReadSecret) -> None:
        self._options = parse(_Options, options, "local_ca")
        self._read = read

    def sign(self, wanted: Wanted) -> Signed:
        authority, now, key = self._authority(), datetime.now(UTC), wanted.request.public_key()
        if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
            raise TargetError("a certificate's key is RSA or EC")
        if authority.expired:
            raise TargetError(f"the authority {self._options.authority} has expired", "Rotate the authority first.")
        signing = ("digital_signature", "key_encipherment") if isinstance(key, RSAPublicKey) else ("digital_signature",)
        certificate = certify(
            wanted.request.subject,
            key,
            (now - SKEW, min(now + wanted.lifetime, authority.not_after)),
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (key_usage(*signing), True),
                (x509.ExtendedKeyUsage([PURPOSES[usage] for usage in wanted.usages]), False),
                (general_names(wanted.names), not list(wanted.request.subject)),
            ),
            (authority.x509.subject, authority.key()),
        )
        above = [authority.x509, *split(authority.chain)]
        return Signed(bundle([certificate]), bundle(found for found in above if not is_root(found)))

    def authorities(self) -> str:
        authority = self._authority()
        return authority.ca or authority.certificate

    def is_revoked(self, signed: Signed, authorities: str) -> bool:
        return False

    def revoke(self, signed: Signed) -> None:
        """Nothing to do: nobody would hear of it."""

    def _authority(self) -> Material:
        name = self._options.authority
        return Material.parse(self._read(name), f"the authority {name}")
