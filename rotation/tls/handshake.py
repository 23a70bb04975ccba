"""Prove a certificate by TLS handshakes: one end has it, the other one trusts the declared authorities.

Both ends are in this process and talk through memory, with OpenSSL's rules at their strictest (RFC 5280): what passes
here passes with any client that trusts the same authorities.
"""

from __future__ import annotations

import secrets
import ssl
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from rotation.tls import Material, Usage, address_of

_MOST_TURNS = 10  # of either end; a handshake takes three
_UNCHECKED = "keyturn-check.invalid"


def problem(material: Material, authorities: str, names: Sequence[str], usages: Collection[Usage]) -> str | None:
    """What is wrong with a certificate where these authorities (PEM) are trusted; None if nothing is.

    As a "server" it is asked for by every one of the names, as a "client" by a server that wants a certificate.
    """
    if "server" in usages and not names:
        return "it is for no name that a client could ask for"
    try:
        if "server" in usages:
            server, client = server_context(material), client_context(authorities)
            for name in names:
                _shake_hands(client, server, _asked_for(name))
        if "client" in usages:
            _shake_hands(_anybodys_client(material), _asking_server(material, authorities), _UNCHECKED)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError as error:
        return (error.reason or "TLS fails").replace("_", " ").lower()
    except (ValueError, TypeError):
        return "the certificate, its key or the authorities are no PEM, or of an unknown kind"
    return None


def server_context(material: Material) -> ssl.SSLContext:
    """A server's context with a certificate. Raises ssl.SSLError, ValueError or TypeError where it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, material)
    return context


def client_context(authorities: str | None) -> ssl.SSLContext:
    """A client's context that trusts these authorities (PEM) and no other; None for those of the system."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python's own clients ask for, from 3.13 on
    if authorities is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=authorities)
    return context


def _asking_server(material: Material, authorities: str) -> ssl.SSLContext:
    context = server_context(material)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=authorities)
    return context


def _anybodys_client(material: Material) -> ssl.SSLContext:
    """A client that shows a certificate, and takes any server's: it is the server's judgment that counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _load(context, material)
    return context


def _load(context: ssl.SSLContext, material: Material) -> None:
    """The ssl module takes keys from files only: this one is encrypted with a password that is known nowhere else."""
    password = secrets.token_bytes(32).hex()
    encryption = BestAvailableEncryption(password.encode())
    encrypted = material.key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    with tempfile.TemporaryDirectory(prefix="keyturn-") as folder:
        path = Path(folder) / "certificate.pem"
        path.write_bytes(encrypted + f"{material.certificate}\n{material.chain}".encode())
        context.load_cert_chain(path, password=password)


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(_MOST_TURNS):
        if all([_is_through(end) for end in ends]):  # noqa: C419  # both take their turn
            return
    raise ssl.SSLError(f"the handshake for {name} does not end")


def _is_through(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _asked_for(name: str) -> str:
    """What a client asks for that is to get a certificate with this name."""
    return name if address_of(name) or not name.startswith("*.") else f"keyturn-check.{name.removeprefix('*.')}"


def untrusted(material: Material, authorities: str) -> str | None:
    """What is wrong with a certificate in use where these authorities are trusted, whatever it is declared to be."""
    return problem(material, authorities, material.names[:1], material.usages)
