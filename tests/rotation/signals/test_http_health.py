"""The health endpoint signal, against real HTTP servers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rotation import plugins
from rotation.errors import DeclarationError
from rotation.model import Health
from rotation.signals import ReportsRunning, Signal
from rotation.signals.http_health import HttpHealth
from tests.contracts.signal import NOW, SECRET, SINCE, SignalContract, Source


class Instance:
    """One instance's endpoint; what it answers can be changed at any time."""

    def __init__(self) -> None:
        self.code = 200
        self.body: bytes = b"{}"
        self.pause = 0.0
        instance = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(instance.code)
                self.send_header("Content-Length", str(len(instance.body)))
                self.end_headers()
                for number in range(len(instance.body)) if instance.pause else ():
                    self.wfile.write(instance.body[number : number + 1])
                    time.sleep(instance.pause)
                if not instance.pause:
                    self.wfile.write(instance.body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    return  # the reader had enough

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/health"

    def says(self, status: object = "ok", generations: object = None, *, code: int = 200, **others: Any) -> None:
        self.code = code
        self.body = json.dumps({"status": status, "generations": generations, **others}).encode()


@contextmanager
def running() -> Iterator[Instance]:
    instance = Instance()
    thread = threading.Thread(target=instance.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield instance
    finally:
        instance.server.shutdown()
        thread.join()
        instance.server.server_close()


@pytest.fixture
def start() -> Iterator[Callable[[], Instance]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(running())


@pytest.fixture
def instance(start: Callable[[], Instance]) -> Instance:
    return start()


@pytest.fixture
def dead() -> Iterator[str]:
    """An address that nobody answers at: bound, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/health"


class Endpoint(Source):
    def __init__(self, start: Callable[[], Instance], dead: str) -> None:
        self.start, self.dead = start, dead
        self.instance = start()

    def signal(self) -> Signal:
        return HttpHealth({"url": self.instance.url})

    def unreadable(self) -> list[Signal]:
        garbled, listing, slow = self.start(), self.start(), self.start()
        garbled.body, listing.body = b"<html>", b"[]"
        slow.pause = 0.05
        slow.says("ok", {SECRET: 42})
        return [HttpHealth({"url": url, "timeout": 0.2}) for url in (self.dead, garbled.url, listing.url, slow.url)]

    def report(self, secret: str, generation: int, *, well: bool, remark: str = "") -> None:
        self.instance.says("ok" if well else remark or "failing", {secret: generation})


class TestHttpHealth(SignalContract):
    @pytest.fixture
    def source(self, start: Callable[[], Instance], dead: str) -> Source:
        return Endpoint(start, dead)


def health(*instances: Instance | str, **options: Any) -> Health:
    urls = [instance if isinstance(instance, str) else instance.url for instance in instances]
    return HttpHealth({"urls": urls} | options).read(SECRET, 42, SINCE, NOW).health


def test_it_is_found_by_its_name() -> None:
    assert plugins.load(Signal, "http_health") is HttpHealth
    assert issubclass(HttpHealth, ReportsRunning)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": "ok", "generations": {SECRET: 42}, "code": 204}, Health.UNKNOWN),  # 204 carries no body
        ({"status": "ok", "generations": {SECRET: 42}, "code": 202}, Health.GOOD),
        ({"status": "ok", "generations": {SECRET: 42}, "code": 503}, Health.BAD),
        ({"status": "ok", "generations": {SECRET: 42}, "code": 404}, Health.UNKNOWN),
        ({"status": "ok", "generations": {SECRET: 42}, "code": 302}, Health.UNKNOWN),
        ({"status": "starting", "generations": {SECRET: 42}}, Health.UNKNOWN),
        ({"status": None, "generations": {SECRET: 42}}, Health.UNKNOWN),
        ({"status": "failing", "generations": {SECRET: 42}}, Health.BAD),
        ({"status": "failing", "generations": {SECRET: 41}}, Health.UNKNOWN),
        ({"status": "failing", "generations": {SECRET: 41}, "failing": {SECRET: 42}}, Health.BAD),
        ({"status": "failing", "generations": {SECRET: 42}, "failing": {SECRET: 43}}, Health.UNKNOWN),
        ({"status": "failing", "generations": {SECRET: 42}, "failing": {"orders/api-token": 7}}, Health.UNKNOWN),
        ({"status": "failing", "generations": {SECRET: 42}, "failing": []}, Health.BAD),
        ({"status": "ok", "generations": {SECRET: "42"}}, Health.UNKNOWN),
        ({"status": "ok", "generations": {SECRET: True}}, Health.UNKNOWN),
        ({"status": "ok", "generations": 42}, Health.UNKNOWN),
    ],
)
def test_one_answer_is_weighed(instance: Instance, answer: dict[str, Any], expected: Health) -> None:
    instance.says(**answer)
    assert health(instance) is expected


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"status": "ok", "generations": {SECRET: 42}}, Health.GOOD),
        ({"status": "failing", "generations": {SECRET: 42}}, Health.BAD),
        ({"status": "ok", "generations": {SECRET: 41}}, Health.UNKNOWN),
        ({"status": "failing", "generations": {SECRET: 41}}, Health.UNKNOWN),
    ],
)
def test_the_worst_instance_speaks_for_the_ring(
    start: Callable[[], Instance], second: dict[str, Any], expected: Health
) -> None:
    one, other = start(), start()
    one.says("ok", {SECRET: 42})
    other.says(**second)
    assert health(one, other) is expected
    assert health(other, one) is expected


def test_an_instance_that_cannot_be_asked_leaves_the_ring_unknown(instance: Instance, dead: str) -> None:
    instance.says("ok", {SECRET: 42})
    assert health(instance, dead) is Health.UNKNOWN


def test_what_every_instance_reports_is_running(start: Callable[[], Instance], dead: str) -> None:
    one, other = start(), start()
    one.says("ok", {SECRET: 42})
    other.says("failing", {SECRET: 42, "orders/api-token": 7})
    signal = HttpHealth({"url": one.url, "urls": [other.url]})
    assert signal.running(SECRET) == 42
    assert signal.running("orders/api-token") is None
    other.says("ok", {SECRET: 43})
    assert signal.running(SECRET) is None
    assert HttpHealth({"urls": [one.url, dead]}).running(SECRET) is None


def test_an_endpoint_may_use_its_own_words(instance: Instance) -> None:
    instance.body = json.dumps({"status": "UP", "credentials": {SECRET: 42}}).encode()
    assert health(instance, expect_status="UP", generations="credentials") is Health.GOOD
    instance.body = json.dumps({"status": "BOOTING", "credentials": {SECRET: 42}}).encode()
    assert health(instance, generations="credentials", pending_status="BOOTING") is Health.UNKNOWN


def test_an_answer_that_does_not_end_is_given_up(instance: Instance) -> None:
    instance.body = b" " * 2_000_000 + b"{}"
    (evidence,) = HttpHealth({"url": instance.url}).read(SECRET, 42, SINCE, NOW).evidence
    assert "cannot be asked (TimeoutError)" in evidence


def test_a_login_in_the_address_is_not_in_the_evidence(dead: str) -> None:
    url = dead.replace("://", "://monitor:hunter2@")
    (evidence,) = HttpHealth({"url": url}).read(SECRET, 42, SINCE, NOW).evidence
    assert "hunter2" not in evidence


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, ".*name the instance's url"),
        ({"url": "ftp://x"}, "option url"),
        ({"urls": ["ftp://x"]}, "option urls.0"),
        ({"url": "http://x", "timeout": 0}, "option timeout"),
        ({"url": "http://x", "verify": False}, "option verify"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(DeclarationError, match=f"signal http_health: {named}"):
        HttpHealth(options)
