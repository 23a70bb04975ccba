"""X.509 certificates with their private keys: what such a secret's value is, and what its parts say.

The value is JSON, all of it PEM but for the serial, ready for a consumer to write to files or to load::

    {"certificate": …, "chain": …, "private_key": …, "ca": …, "serial": "3a:5f:…"}

``chain`` are the intermediate authorities that a server sends after its certificate, without the root. ``ca`` are the
roots that clients are to trust: during a change of authority more than one; empty where they come by another way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from rotation.errors import TargetError
from rotation.secret_value import SecretValue

SKEW = timedelta(minutes=1)  # by which a client's clock may be behind
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
Usage = Literal["server", "client"]
PURPOSES: Mapping[Usage, x509.ObjectIdentifier] = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}
KeyType = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"]
_CURVES = {"ec-p256": ec.SECP256R1, "ec-p384": ec.SECP384R1}
_KEY_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_NOT_READABLE = "Put a certificate with its private key there, as JSON with PEM fields, or rotate to a new one."


@dataclass(frozen=True)
class Material:
    """A certificate and all that goes with it, as PEM; the private key is shown to nobody."""

    certificate: str
    private_key: SecretValue = field(repr=False)
    chain: str = ""
    ca: str = ""

    @classmethod
    def parse(cls, value: SecretValue, what: str) -> Self:
        """Read a value; ``what`` names it in the :class:`TargetError` for a value that is none."""
        try:
            fields: dict[str, Any] = json.loads(value.reveal())
            texts = {name: str(fields.get(name) or "") for name in ("chain", "ca")}
            found = cls(str(fields["certificate"]), SecretValue(str(fields["private_key"])), **texts)
            found.x509, found.key()  # what cannot be read shows here
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        else:
            return found
        # Out here, so that the error that quotes the text is not this one's context.
        raise TargetError(f"{what} is no certificate with its private key", _NOT_READABLE)

    def key(self) -> PrivateKey:
        """The private key. ValueError or TypeError where it is none that signs."""
        key = load_pem_private_key(self.private_key.reveal().encode(), password=None)
        if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
            raise TypeError("a private key is RSA or EC")
        return key

    def to_value(self) -> SecretValue:
        return SecretValue(json.dumps(self.public() | {"private_key": self.private_key.reveal()}, sort_keys=True))

    @cached_property
    def x509(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.encode())

    @property
    def serial(self) -> str:
        return serial_of(self.x509)

    @property
    def not_after(self) -> datetime:
        return self.x509.not_valid_after_utc

    @property
    def expired(self) -> bool:
        return self.not_after <= datetime.now(UTC)

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names and IP addresses that it is for."""
        try:
            extension = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        dns, addresses = (extension.get_values_for_type(kind) for kind in (x509.DNSName, x509.IPAddress))
        return (*dns, *map(str, addresses))

    @property
    def usages(self) -> tuple[Usage, ...]:
        try:
            purposes = list(self.x509.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        except x509.ExtensionNotFound:
            return tuple(PURPOSES)
        return tuple(usage for usage, purpose in PURPOSES.items() if purpose in purposes)

    def at(self, share: float) -> datetime:
        """When this share of its lifetime is over."""
        begun = self.x509.not_valid_before_utc
        return begun + (self.not_after - begun) * share

    def public(self) -> dict[str, str]:
        """What anybody may know of it: who connects to the server gets to see it."""
        return {"certificate": self.certificate, "chain": self.chain, "ca": self.ca, "serial": self.serial}


def serial_of(certificate: x509.Certificate) -> str:
    """The serial number as Vault writes it: bytes in hexadecimal, with colons."""
    number = certificate.serial_number
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8)).hex(":")


def address_of(name: str) -> IPv4Address | IPv6Address | None:
    """The IP address that a name is; None for a DNS name."""
    try:
        return ip_address(name)
    except ValueError:
        return None


def general_names(names: Iterable[str]) -> x509.SubjectAlternativeName:
    """DNS names and IP addresses as the certificate's extension. ValueError for what is neither."""
    addresses = ((name, address_of(name)) for name in names)
    return x509.SubjectAlternativeName([x509.IPAddress(ip) if ip else x509.DNSName(name) for name, ip in addresses])


def bundle(certificates: Iterable[x509.Certificate]) -> str:
    """These certificates as one PEM text, each once."""
    return "".join(dict.fromkeys(found.public_bytes(Encoding.PEM).decode() for found in certificates))


def split(text: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, which may have none."""
    return x509.load_pem_x509_certificates(text.encode()) if text.strip() else []


def is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def key_usage(*allowed: str) -> x509.KeyUsage:
    """The extension that allows these uses (by the argument names of :class:`cryptography.x509.KeyUsage`) alone."""
    return x509.KeyUsage(**{use: use in allowed for use in _KEY_USES})


def certify(
    subject: x509.Name,
    public_key: RSAPublicKey | EllipticCurvePublicKey,
    lifetime: tuple[datetime, datetime],
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    signer: tuple[x509.Name, PrivateKey],
) -> x509.Certificate:
    """A certificate with a random serial number, signed by this name with this key. ``extensions`` say of each whether
    it is critical; the identifiers of both keys are added."""
    name, key = signer
    builder = x509.CertificateBuilder(name, subject, public_key, x509.random_serial_number(), *lifetime)
    identifiers: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False),
    )
    for extension, critical in (*extensions, *identifiers):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


def new_key(key_type: KeyType) -> PrivateKey:
    if key_type in _CURVES:
        return ec.generate_private_key(_CURVES[key_type]())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(key_type.removeprefix("rsa-")))


def key_text(key: PrivateKey) -> SecretValue:
    """A private key as PEM (PKCS #8)."""
    return SecretValue(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
