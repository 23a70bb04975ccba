"""Clients that connect to HTTPS servers all the time, and keep account of the certificates that they meet."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rotation.model import Ring
from rotation.tls.handshake import client_context

_FOR_EACH = 2  # clients of each server
_PAUSE = 0.02  # seconds between two connections of a client
_TIMEOUT = 10


@dataclass
class Seen:
    """What the clients of one server met: the certificates' serial numbers in their order, and what went wrong."""

    serials: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> list[int]:
        """Each certificate once, in the order in which it was first met."""
        return list(dict.fromkeys(self.serials))


def shake_hands(port: int, context: ssl.SSLContext, name: str) -> Mapping[str, Any]:
    """Ask for /health on 127.0.0.1 as a client of ``name`` does, and return the server's certificate as the ssl module
    tells it. Raises OSError (ssl.SSLError is one) for a handshake or an answer that fails."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        tls.sendall(f"GET /health HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
        # In TLS 1.3 a client is through before the server is: only an answer tells that both are.
        with tls.makefile("rb") as answer:
            status = answer.readline()
        if status.split()[1:2] != [b"200"]:
            raise ConnectionError(f"the server answers {status!r}")
        return tls.getpeercert() or {}


@contextmanager
def clients(ports: Mapping[Ring, int], authorities: str, name: str) -> Iterator[Mapping[Ring, Seen]]:
    """A few for each ring's server, for the length of a block, which trust these authorities (PEM)."""
    seen, stop = {ring: Seen() for ring in ports}, threading.Event()
    context = client_context(authorities)

    def connect(ring: Ring) -> None:
        while not stop.is_set():
            try:
                shown = shake_hands(ports[ring], context, name)
                seen[ring].serials.append(int(str(shown["serialNumber"]), 16))
            except OSError as error:
                seen[ring].failures.append(repr(error))
            stop.wait(_PAUSE)

    threads = [threading.Thread(target=connect, args=(ring,), daemon=True) for ring in ports for _ in range(_FOR_EACH)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
