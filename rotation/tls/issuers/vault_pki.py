"""A role of the PKI engine of Vault or OpenBao (https://openbao.org/api-docs/secret/pki/). What the runner needs::

    path "pki/sign/ROLE"  { capabilities = ["update"] }
    path "pki/revoke"     { capabilities = ["update"] }

The engine shows its issuers, and what it has signed and revoked, to anybody.

Clients are to trust every root that the mount knows. So a new root is trusted before it signs anything: it is added to
the mount, and made its default after the next rotation.
"""

# ruff: noqa: ARG002 (it needs no other secret, and knows itself what it has revoked)

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any

import hvac
from cryptography import x509
from pydantic import Field

from rotation.credentials import ReadSecret
from rotation.errors import TargetError
from rotation.options import parse
from rotation.tls import address_of, bundle, is_root
from rotation.tls.issuers import Issuer, Signed, Wanted
from rotation.vault import Connection, connect

_Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")]


class _Options(Connection):
    mount: _Path = "pki"
    role: _Path


class VaultPki(Issuer):
    """Options: ``mount`` of the engine, ``role``, and those of :class:`~rotation.vault.Connection`. The role must keep
    what it signs (``no_store`` false), for it to be revoked."""

    trust_comes_with_the_value = True

    def __init__(self, options: Mapping[str, Any], read: ReadSecret) -> None:
        self._options = parse(_Options, options, "vault_pki")

    def sign(self, wanted: Wanted) -> Signed:
        addresses = [name for name in wanted.names if address_of(name)]
        order = {
            "csr": wanted.pem,
            "common_name": wanted.names[0],
            "alt_names": ",".join(name for name in wanted.names if name not in addresses),
            "ip_sans": ",".join(addresses),
            "ttl": f"{wanted.lifetime // timedelta(seconds=1)}s",
        }
        path = f"{self._options.mount}/sign/{self._options.role}"
        # A lost reply leaves a certificate that nobody keeps the private key of: signing again does no harm.
        data = self._ask(f"get a certificate signed at {path}", lambda c: c.write_data(path, data=order))["data"]
        return Signed(data["certificate"].strip() + "\n", bundle(c for c in _chain(data) if not is_root(c)))

    def authorities(self) -> str:
        mount = self._options.mount
        listed = self._ask(f"list the issuers of {mount}", lambda c: c.list(f"{mount}/issuers"))
        numbers = listed["data"]["keys"] if listed else ()
        roots = bundle(found for number in numbers for found in self._with_chain(number) if is_root(found))
        if not roots:
            raise TargetError(
                f"the mount {mount} knows no root",
                "Make one; or import the one in use, the field `ca` of its certificates' secrets "
                f"(`vault write {mount}/issuers/import/cert pem_bundle=@ca.pem`); or declare `trust`, a file of roots.",
            )
        return roots

    def is_revoked(self, signed: Signed, authorities: str) -> bool:
        path = f"{self._options.mount}/cert/{signed.serial}"
        found = self._ask(f"look up the certificate {signed.serial}", lambda c: c.read(path))
        return bool(found and found["data"].get("revocation_time"))

    def revoke(self, signed: Signed) -> None:
        path, which = f"{self._options.mount}/revoke", {"serial_number": signed.serial}
        self._ask(f"revoke the certificate {signed.serial}", lambda c: c.write_data(path, data=which))

    def _with_chain(self, issuer: str) -> list[x509.Certificate]:
        path = f"{self._options.mount}/issuer/{issuer}/json"
        found = self._ask(f"read the issuer {issuer}", lambda c: c.read(path))
        return _chain(found["data"]) if found else []

    def _ask(self, doing: str, call: Callable[[hvac.Client], Any]) -> Any:
        return connect(self._options).ask(call, doing, otherwise=TargetError)


def _chain(data: Mapping[str, Any]) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(text.encode()) for text in data.get("ca_chain") or ()]
