"""An HTTPS server whose certificate can be changed under it: the next connection gets the new one."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rotation.tls import Material
from rotation.tls.handshake import server_context

_PATIENCE = 10.0  # seconds that a client may take for its handshake, and for each part of its request


class HttpsServer(ThreadingHTTPServer):
    """On 127.0.0.1. Without a certificate it hangs up. ``handler`` answers the requests."""

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self._presented: tuple[ssl.SSLContext, Callable[[], None]] | None = None

    def present(self, material: Material, used: Callable[[], None] = lambda: None) -> None:
        """Use this certificate from the next connection on, and call ``used`` after each handshake with it.

        Raises ssl.SSLError, ValueError or TypeError for one that cannot be used; the one before then stays.
        """
        self._presented = server_context(material), used

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a client that is slow with its handshake keeps nobody waiting."""
        if self._presented is None:
            return
        context, used = self._presented
        request.settimeout(_PATIENCE)
        with suppress(OSError), context.wrap_socket(request, server_side=True) as connection:  # or the client gave up
            used()
            super().finish_request(connection, client_address)
