"""The demo's part for ``local-vault`` alone: the certificate of the application's HTTPS servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import hvac
from cryptography import x509

from rotation.local.demo.load import within
from rotation.local.demo.tls_clients import Seen, clients
from rotation.local.embedded.local_vault.provisioning import PKI
from rotation.local.environment import place_of
from rotation.local.service import port_of
from rotation.model import Ring

if TYPE_CHECKING:
    from rotation.local.demo.scenario import Demo

CERTIFICATE = "orders/tls"
NAME = "orders.localhost"


def certificate_rotation(demo: Demo) -> None:
    demo.title("(h) the certificate of the application's HTTPS servers is rotated under clients that always connect")
    place = place_of(demo.project, demo.environment)
    pki = hvac.Client(place.server, timeout=10).secrets.pki  # without a token: what it is asked for is public
    ports = {ring: port_of(address) for ring, address in place.https.items()}
    with clients(ports, pki.read_ca_certificate(mount_point=PKI), NAME) as seen:
        demo.expect(_meet(seen, 1), f"both rings serve HTTPS as {NAME}")
        demo.keyturn("rotate", CERTIFICATE)
        demo.expect(_meet(seen, 2), "clients of both rings meet the new certificate")
        old, new = seen[Ring.STABLE].kinds
        demo.expect(old not in _revoked(pki), "the old one is not revoked while somebody might still serve it")
        demo.keyturn("retire", CERTIFICATE)
        demo.expect(_revoked(pki) >= {old}, f"once retired it is on OpenBao's revocation list: {old:040x}")
        demo.expect(new not in _revoked(pki), "the new one is not")
    failures = [failure for each in seen.values() for failure in each.failures]
    for failure in failures[:3]:
        demo.say(f"     {failure}")
    handshakes = len(failures) + sum(len(each.serials) for each in seen.values())
    demo.expect(not failures, f"{handshakes} handshakes, {len(failures)} failed")
    demo.expect(all(each.kinds == [old, new] for each in seen.values()), "no client met any other certificate")


def _meet(seen: Mapping[Ring, Seen], certificates: int) -> bool:
    """Whether the clients of every ring meet so many certificates, one after the other, within the patience."""
    return within(lambda: all(len(each.kinds) == certificates for each in seen.values()))


def _revoked(pki: hvac.api.secrets_engines.Pki) -> set[int]:
    listed = x509.load_pem_x509_crl(pki.read_crl(mount_point=PKI).encode())
    return {entry.serial_number for entry in listed}
