"""Who signs certificates. Every file here is one issuer; a declaration names it as the issuer's ``kind``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rotation.credentials import ReadSecret
from rotation.tls import Usage, serial_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that is to be signed: for these names, of which the first is the subject's, and for this long."""

    request: x509.CertificateSigningRequest
    names: tuple[str, ...]
    usages: tuple[Usage, ...]
    lifetime: timedelta

    @property
    def pem(self) -> str:
        return self.request.public_bytes(Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate as it was signed, and the intermediate authorities between it and a root: PEM."""

    certificate: str
    chain: str

    @property
    def x509(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.encode())

    @property
    def serial(self) -> str:
        return serial_of(self.x509)


class Issuer(ABC):
    """An issuer gets a signing request, never a private key. ``options`` are those of the declaration, without its
    kind; ``read`` gives another secret of the same store. Methods raise :class:`~rotation.errors.Unavailable`,
    :class:`~rotation.errors.Unauthorized` and, for other refusals, :class:`~rotation.errors.TargetError`."""

    trust_comes_with_the_value: ClassVar[bool]  # or clients learn of new authorities by a secret of their own

    def __init__(self, options: Mapping[str, Any], read: ReadSecret) -> None: ...

    @abstractmethod
    def sign(self, wanted: Wanted) -> Signed: ...

    @abstractmethod
    def authorities(self) -> str:
        """The roots that clients are to trust now, as PEM: more than one while one takes over from another."""

    @abstractmethod
    def is_revoked(self, signed: Signed, authorities: str) -> bool:
        """``authorities`` are the roots that clients trust, as PEM."""

    @abstractmethod
    def revoke(self, signed: Signed) -> None:
        """Revoke a certificate. Idempotent."""
