"""Answers to ACME's http-01 challenges: texts at paths, which the directory fetches from a name's port 80.
https://datatracker.ietf.org/doc/html/rfc8555#section-8.3"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EADDRINUSE
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from rotation.errors import Unavailable, UsageError
from rotation.files import remove, write_atomically
from rotation.retries import retrying


@contextmanager
def from_folder(webroot: Path, path: str, text: str) -> Iterator[None]:
    """Have the file there, for a web server that shows the folder. A run that is killed leaves it: it says nothing."""
    file = webroot / path.lstrip("/")
    write_atomically(file, text)
    try:
        yield
    finally:
        remove(file)


@contextmanager
def from_here(address: str, path: str, text: str) -> Iterator[None]:
    """Answer at ``address`` ("host:port"), beside whatever else this process answers there. Raises
    :class:`UsageError` where it cannot listen, :class:`Unavailable` while another process does."""
    server = retrying(lambda: _Server.shared(address))
    server.answers[path] = text
    try:
        yield
    finally:
        server.answers.pop(path, None)  # orders may share a challenge: it is decided for all when one ends
        _Server.give_back(address)


class _Server(ThreadingHTTPServer):
    """One for all orders of this process at an address: they run at the same time. (Certbot's own, acme.standalone,
    answers one request after the other, so anybody's open connection would hold it.)"""

    daemon_threads = True
    _lock = threading.Lock()
    _running: dict[str, _Server] = {}  # noqa: RUF012 - all the process's

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address_family = AF_INET6 if host.startswith("[") else AF_INET
        super().__init__((host.strip("[]"), int(port)), _Handler)
        self.answers: dict[str, str] = {}
        self.users = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @classmethod
    def shared(cls, address: str) -> _Server:
        with cls._lock:
            if address not in cls._running:
                cls._running[address] = cls._started(address)
            server = cls._running[address]
            server.users += 1
            return server

    @classmethod
    def give_back(cls, address: str) -> None:
        with cls._lock:
            server = cls._running[address]
            server.users -= 1
            if not server.users:
                del cls._running[address]
                server.shutdown()
                server._thread.join()
                server.server_close()

    @classmethod
    def _started(cls, address: str) -> _Server:
        what = f"cannot answer ACME challenges at {address}"
        try:
            return cls(address)
        except OSError as error:
            if error.errno == EADDRINUSE:
                raise Unavailable(f"{what}: another program listens there", "Let it, and use webroot.") from error
            raise UsageError(f"{what}: {error.strerror or error}", "Listen at another port, or use webroot.") from error
        except OverflowError as error:
            raise UsageError(f"{what}: there is no such port") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever hangs up has no answer, and the directory says what it did not get."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30  # seconds, for a request to come

    def do_GET(self) -> None:
        text = self.server.answers.get(self.path)
        body = (text or "").encode()
        self.send_response(HTTPStatus.NOT_FOUND if text is None else HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
