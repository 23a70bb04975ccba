"""A TLS endpoint, one for each instance of a ring: which generation's certificate it serves, and whether clients take
it.

- Which one it serves is told by the certificate's serial number, against those of the generations in the store.
- It is good when a client's handshake succeeds with the generation's certificate, and bad when the handshake fails
  over that certificate. Any other certificate, and an endpoint that does not shake hands at all, is unknown.
- Clients trust the roots in ``ca_file``; without that those that the generation's own kind names.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rotation.model import Health, Verdict
from rotation.options import parse
from rotation.signals import Recognises, ReportsRunning, Signal
from rotation.tls import serial_of
from rotation.tls.handshake import client_context

_Endpoint = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")]
_AT_ONCE = 8  # endpoints asked at the same time


class TlsEndpointOptions(BaseModel):
    """``secret`` is the name of the certificate's secret. ``endpoint`` for one instance, ``endpoints`` for several:
    "host:port". ``server_name`` is what clients ask for (default: the host). ``timeout`` is in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: str
    endpoint: _Endpoint | None = None
    endpoints: tuple[_Endpoint, ...] = ()
    server_name: str | None = None
    ca_file: Path | None = None
    timeout: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _names_an_endpoint(self) -> Self:
        if not self.all:
            raise ValueError("name the endpoint, or the endpoints of several instances")
        return self

    @property
    def all(self) -> tuple[str, ...]:
        return (self.endpoint, *self.endpoints) if self.endpoint else self.endpoints


class TlsEndpoint(Signal, ReportsRunning, Recognises):
    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse(TlsEndpointOptions, options, "signal tls_endpoint")
        self.secret = self._options.secret
        self._parts: Mapping[int, Mapping[str, str]] = {}

    def knowing(self, parts: Mapping[int, Mapping[str, str]]) -> Self:
        told = type(self)(self._options.model_dump())
        told._parts = dict(parts)
        return told

    def running(self, secret: str) -> int | None:
        if secret != self.secret:
            return None
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            served = set(threads.map(self._served, self._options.all))
        return served.pop() if len(served) == 1 else None

    def read(self, secret: str, generation: int, since: datetime, now: datetime) -> Verdict:
        del since, now  # an endpoint shows what it serves at present
        if secret != self.secret or generation not in self._parts:
            return Verdict(Health.UNKNOWN, (f"no certificate of generation {generation} of {secret} is known",))
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return Verdict.of(threads.map(lambda endpoint: self._judge(endpoint, generation), self._options.all))

    def _served(self, endpoint: str) -> int | None:
        try:
            return self._generation(self._connect(endpoint, _anything()))
        except OSError:
            return None

    def _judge(self, endpoint: str, generation: int) -> Verdict:
        try:
            served, wrong = self._tried(endpoint, generation)
        except (OSError, ValueError) as error:
            return Verdict(Health.UNKNOWN, (f"{endpoint} cannot be asked ({type(error).__name__})",))
        what = f"{self.secret} generation {generation}"
        if served != generation:
            shown = f"generation {served}" if served else "a certificate that is not in the store"
            return Verdict(Health.UNKNOWN, (f"{endpoint} serves {shown}, not {what}",))
        if wrong:
            return Verdict(Health.BAD, (f"{endpoint} serves {what}, and clients refuse it: {wrong}",))
        return Verdict(Health.GOOD, (f"{endpoint} serves {what}, and clients take it",))

    def _tried(self, endpoint: str, generation: int) -> tuple[int | None, str]:
        """Which generation it serves, and why a client refuses that, if it does."""
        client = self._client(generation)
        try:
            return self._generation(self._connect(endpoint, client)), ""
        except ssl.SSLCertVerificationError:
            served = self._generation(self._connect(endpoint, _anything()))
        try:  # once more: it may just have changed its certificate
            return self._generation(self._connect(endpoint, client)), ""
        except ssl.SSLCertVerificationError as error:
            return served, error.verify_message

    def _client(self, generation: int) -> ssl.SSLContext:
        path = self._options.ca_file
        return client_context(path.read_text("ascii") if path else self._parts[generation].get("ca") or None)

    def _connect(self, endpoint: str, client: ssl.SSLContext) -> x509.Certificate:
        """The certificate that it serves, after a handshake."""
        host, _, port = endpoint.rpartition(":")
        host = host.strip("[]")
        address, timeout = (host, int(port)), self._options.timeout
        with (
            socket.create_connection(address, timeout=timeout) as connection,
            client.wrap_socket(connection, server_hostname=self._options.server_name or host) as tls,
        ):
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")

    def _generation(self, certificate: x509.Certificate) -> int | None:
        """The newest generation with this certificate: a rollback may bring an old one back under a new number."""
        serial = serial_of(certificate)
        return max((number for number, part in self._parts.items() if part.get("serial") == serial), default=None)


def _anything() -> ssl.SSLContext:
    """A client that takes any certificate, to look at it: nothing is sent over the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
