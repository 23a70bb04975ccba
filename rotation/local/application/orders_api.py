"""The sample application's threads and its command line."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from botocore.exceptions import BotoCoreError, ClientError
from hvac.exceptions import VaultError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from rotation.errors import KeyturnError
from rotation.local.application.database import Database, Server
from rotation.local.application.https import HttpsServer
from rotation.local.application.record import Record
from rotation.local.application.values import Configuration, ConfigurationObject, Ssm, Values, Vault, Wanted
from rotation.secret_value import SecretValue
from rotation.tls import Material

KEPT_ORDERS = 10_000  # the load goes on for as long as the environment is up
DATABASE = "orders/db"
TOKEN = "orders/api-token"  # noqa: S105  # the secret's name
CERTIFICATE = "orders/tls"
_POLL = 0.2  # seconds between two looks at the configuration
_RETRY = 1.0  # seconds between two tries to switch
_WORKERS = 4
_FAILURES = (
    *(KeyturnError, ClientError, BotoCoreError, VaultError, requests.RequestException, SQLAlchemyError),
    *(OSError, ValueError, KeyError),
)


@dataclass(frozen=True, slots=True)
class Options:
    name: str
    ring: str
    port: int
    bucket: str
    key: str
    log: Path
    rate: float
    https_port: int | None
    vault: str | None
    vault_token: Path | None
    ssm: str | None
    database: Server


class OrderLost(SQLAlchemyError):
    """An order that was just placed cannot be read back."""


class Application:
    """The threads that place orders, watch the configuration, count, and answer; from :meth:`start` to :meth:`stop`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._record = Record(options.ring, options.log)
        self._configuration = ConfigurationObject(options.bucket, options.key)
        vault = Vault(options.vault, options.vault_token) if options.vault and options.vault_token else None
        self._values = Values(vault, Ssm(options.ssm) if options.ssm else None)
        self._database = Database(options.database)
        self._token: tuple[int, SecretValue] | None = None
        self._wanted: dict[str, Wanted] = {}
        self._used: dict[str, Wanted] = {}
        self._retry_at: dict[str, float] = {}
        self._stopping = threading.Event()
        handler = self._handler()
        self._https = HttpsServer(options.https_port, handler) if options.https_port else None
        self._servers = [ThreadingHTTPServer(("127.0.0.1", options.port), handler)]
        self._servers += [self._https] if self._https else []
        work: list[Callable[[], None]] = [self._watch, self._count, *[self._place_orders] * _WORKERS]
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]
        self._answering = [
            threading.Thread(target=each.serve_forever, args=(0.1,), daemon=True) for each in self._servers
        ]

    def start(self) -> None:
        for thread in (*self._threads, *self._answering):
            thread.start()

    def stop(self) -> None:
        """End cleanly: orders under way are finished."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(15)
        self._database.close()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._record.close()

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL):
            try:
                configuration = self._configuration.changed()
            except (ClientError, BotoCoreError, ValueError) as error:
                self._record.cannot_read_configuration(error)
            else:
                self._record.reads_configuration()
                self._want(configuration)
            self._switch()

    def _want(self, configuration: Configuration | None) -> None:
        if configuration is not None:
            self._wanted = configuration.secrets
            self._retry_at.clear()
            self._record.awaits(frozenset(self._wanted))

    def _switch(self) -> None:
        """Use what is wanted, secret by secret: what ails one does not hold up the other."""
        for secret, wanted in self._wanted.items():
            if self._used.get(secret) == wanted:
                self._record.uses(secret, wanted.generation)
            elif time.monotonic() >= self._retry_at.get(secret, 0.0):
                try:
                    self._use(secret, wanted)
                except _FAILURES as error:
                    self._retry_at[secret] = time.monotonic() + _RETRY
                    self._record.cannot_use(secret, wanted.generation, error)

    def _use(self, secret: str, wanted: Wanted) -> None:
        value, generation = self._values.value(wanted), wanted.generation
        if secret == DATABASE:
            self._database.switch(generation, value)
        elif secret == TOKEN:
            self._token = (generation, value)
        elif secret == CERTIFICATE and self._https is not None:
            material = Material.parse(value, secret)
            self._https.present(material, lambda: self._record.used(CERTIFICATE, generation))
        self._used[secret] = wanted
        self._record.uses(secret, wanted.generation)

    def _count(self) -> None:
        while not self._stopping.wait(1.0):
            self._record.write_counts()

    def _place_orders(self) -> None:
        """One worker: its share of the rate, however long each order takes."""
        pause = _WORKERS / self._options.rate
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + pause, time.monotonic() - 1.0)  # what could not be done for over a second is not made up
            with self._database.pool() as pool:
                if pool is None:
                    continue
                try:
                    with pool.connection() as connection:
                        number = place_order(connection, f"an order of {self._options.name}")
                except SQLAlchemyError as error:
                    self._record.failed(DATABASE, pool.generation, error)
                    continue
                self._record.succeeded(DATABASE, pool.generation)
            self._sign(number)

    def _sign(self, number: int) -> None:
        if (token := self._token) is not None:
            generation, value = token
            hmac.digest(value.reveal().encode(), str(number).encode(), hashlib.sha256)
            self._record.used(TOKEN, generation)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        record = self._record

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                body = json.dumps(record.health()).encode()
                if self.path != "/health":
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # http.server's name
                """Say nothing: whoever asks for health asks often."""

        return Handler


_INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
_FIND = text("SELECT 1 FROM orders WHERE id = :number AND item = :item")
_DROP = text("DELETE FROM orders WHERE id = :number")


def place_order(connection: Connection, item: str) -> int:
    """Insert an order, read it back, drop one of long ago, and return its number."""
    number: int = connection.execute(_INSERT, {"item": item}).scalar_one()
    if connection.execute(_FIND, {"number": number, "item": item}).first() is None:
        raise OrderLost(f"order {number} cannot be read back")
    connection.execute(_DROP, {"number": number - KEPT_ORDERS})
    return number


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m rotation.local.application", description="The sample application.")
    parser.add_argument("--name", default="orders-api")
    parser.add_argument("--ring", required=True, choices=["canary", "stable"])
    parser.add_argument("--port", required=True, type=int, help="of GET /health on 127.0.0.1")
    parser.add_argument("--config", required=True, metavar="s3://BUCKET/KEY")
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--rate", default=40.0, type=float, help="orders per second")
    parser.add_argument("--https-port", type=int, help="of the same over TLS, with the certificate in orders/tls")
    parser.add_argument("--vault", metavar="URL", help="of a server that the configuration may name")
    parser.add_argument("--vault-token", type=Path, metavar="FILE", help="with the token for it")
    parser.add_argument("--ssm", metavar="URL", help="of a Tencent Cloud that the configuration may name")
    parser.add_argument(
        "--database", default="postgresql", choices=["postgresql", "mysql"], help="that takes the orders"
    )
    given = parser.parse_args(arguments)
    config = urlsplit(given.config)
    if config.scheme != "s3" or not config.netloc or len(config.path) < 2:
        parser.error(f"--config is not of the form s3://BUCKET/KEY: {given.config}")
    if given.rate <= 0:
        parser.error("--rate is more than nothing")
    if (given.vault is None) != (given.vault_token is None):
        parser.error("--vault and --vault-token go together")
    return Options(
        name=given.name,
        ring=given.ring,
        port=given.port,
        bucket=config.netloc,
        key=config.path[1:],
        log=given.log,
        rate=given.rate,
        https_port=given.https_port,
        vault=given.vault,
        vault_token=given.vault_token,
        ssm=given.ssm,
        database=given.database,
    )


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    options = parse(arguments)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    application = Application(options)
    application.start()
    stop.wait()
    application.stop()
    return 0
