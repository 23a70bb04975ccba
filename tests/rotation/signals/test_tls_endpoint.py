"""The TLS endpoint signal, against real TLS servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation import plugins
from rotation.errors import DeclarationError
from rotation.model import Credential, Health
from rotation.signals import Recognises, ReportsRunning, Signal
from rotation.signals.tls_endpoint import TlsEndpoint
from tests.contracts.signal import NOW, SECRET, SINCE, SignalContract, Source
from tests.fixtures.tls import Shelf, TlsServer, material, serving


class Estate:
    """Three generations of a certificate for 127.0.0.1, and one for another name; each with its public part."""

    def __init__(self, shelf: Shelf) -> None:
        kind = shelf.local_ca(names=["127.0.0.1", "orders.test"])
        other = shelf.local_ca(names=["shop.test"])
        self.values = {n: Credential(SECRET, n, (other if n == 44 else kind).issue(None)) for n in (41, 42, 43, 44)}
        self.parts = {number: kind.public_part(value) for number, value in self.values.items()}

    def signal(self, *endpoints: str, known: tuple[int, ...] = (41, 42), **options: Any) -> TlsEndpoint:
        signal = TlsEndpoint({"secret": SECRET, "endpoints": endpoints, **options})
        return signal.knowing({number: self.parts[number] for number in known})


@pytest.fixture
def estate(shelf: Shelf) -> Estate:
    return Estate(shelf)


@pytest.fixture
def serve(estate: Estate) -> Iterator[Callable[[int], TlsServer]]:
    with ExitStack() as stack:
        yield lambda generation: stack.enter_context(serving(material(estate.values[generation])))


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def chatty() -> Iterator[str]:
    """An endpoint that speaks, and not TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"220 ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def dead() -> Iterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


class Endpoint(Source):
    """What goes badly is a client that asks for a name that the certificate is not for."""

    def __init__(self, estate: Estate, server: TlsServer, unreadable: list[str]) -> None:
        self._estate, self._server, self._unreadable = estate, server, unreadable
        self._asked_for = "127.0.0.1"

    def signal(self) -> Signal:
        return self._estate.signal(self._server.endpoint, server_name=self._asked_for)

    def unreadable(self) -> list[Signal]:
        missing = self._estate.signal(self._server.endpoint, ca_file="none.pem")
        return [*(self._estate.signal(endpoint, timeout=0.2) for endpoint in self._unreadable), missing]

    def report(self, secret: str, generation: int, *, well: bool, remark: str = "") -> None:
        self._server.present(material(self._estate.values[generation if secret == SECRET else 43]))
        self._asked_for = "127.0.0.1" if well else "elsewhere.test"


class TestTlsEndpoint(SignalContract):
    @pytest.fixture
    def source(self, estate: Estate, serve: Callable[[int], TlsServer], dead: str, silent: str, chatty: str) -> Source:
        return Endpoint(estate, serve(43), [dead, silent, chatty])


def test_it_is_found_by_its_name() -> None:
    found = plugins.load(Signal, "tls_endpoint")
    assert found is TlsEndpoint
    assert issubclass(found, ReportsRunning)
    assert issubclass(found, Recognises)


def health(signal: Signal, generation: int = 42) -> Health:
    return signal.read(SECRET, generation, SINCE, NOW).health


def test_what_every_instance_serves_is_running(estate: Estate, serve: Callable[[int], TlsServer], dead: str) -> None:
    one, other = serve(42), serve(42)
    signal = estate.signal(one.endpoint, other.endpoint)
    assert (signal.running(SECRET), signal.running("orders/api-token")) == (42, None)
    assert estate.signal(one.endpoint, dead).running(SECRET) is None
    other.present(material(estate.values[41]))
    assert signal.running(SECRET) is None
    one.present(material(estate.values[41]))
    assert signal.running(SECRET) == 41
    one.present(material(estate.values[43]))
    assert estate.signal(one.endpoint).running(SECRET) is None


def test_the_worst_instance_speaks_for_the_ring(estate: Estate, serve: Callable[[int], TlsServer]) -> None:
    right, wrong, old = serve(42), serve(44), serve(41)
    known = (41, 42, 44)
    assert health(estate.signal(right.endpoint, known=known)) is Health.GOOD
    assert health(estate.signal(wrong.endpoint, known=known), 44) is Health.BAD
    assert health(estate.signal(right.endpoint, old.endpoint, known=known)) is Health.UNKNOWN


def test_a_certificate_that_came_back_is_known_by_its_newest_generation(
    estate: Estate, serve: Callable[[int], TlsServer]
) -> None:
    signal = TlsEndpoint({"secret": SECRET, "endpoint": serve(41).endpoint})
    assert signal.knowing({41: estate.parts[41], 42: estate.parts[42], 43: estate.parts[41]}).running(SECRET) == 43


def test_a_certificate_that_has_expired_in_use_is_bad(
    estate: Estate, shelf: Shelf, serve: Callable[[int], TlsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    class AnHourAgo(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(hours=1)

    kind = shelf.local_ca(names=["127.0.0.1"], lifetime="PT1M")
    monkeypatch.setattr("rotation.tls.issuers.local_ca.datetime", AnHourAgo)
    monkeypatch.setattr(kind, "_problem", lambda *_: None)
    expired = Credential(SECRET, 42, kind.issue(None))
    server = serve(41)
    server.present(material(expired))
    signal = TlsEndpoint({"secret": SECRET, "endpoint": server.endpoint}).knowing({42: kind.public_part(expired)})
    verdict = signal.read(SECRET, 42, SINCE, NOW)
    assert verdict.health is Health.BAD
    assert verdict.evidence[0].endswith("and clients refuse it: certificate has expired")


def test_clients_may_trust_what_a_file_holds(
    estate: Estate, serve: Callable[[int], TlsServer], tmp_path: Path, shelf: Shelf
) -> None:
    server = serve(42)
    (tmp_path / "ours.pem").write_text(estate.parts[42]["ca"])
    (tmp_path / "other.pem").write_text(material(Credential("", 1, shelf.authority().issue(None))).certificate)
    assert health(estate.signal(server.endpoint, ca_file=str(tmp_path / "ours.pem"))) is Health.GOOD
    assert health(estate.signal(server.endpoint, ca_file=str(tmp_path / "other.pem"))) is Health.BAD


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"secret": SECRET}, ".*name the endpoint"),
        ({"endpoint": "h:1"}, "option secret"),
        ({"secret": SECRET, "endpoint": "https://orders.test"}, "option endpoint"),
        ({"secret": SECRET, "endpoint": "orders.test"}, "option endpoint"),
        ({"secret": SECRET, "endpoints": ["h:1", "h"]}, "option endpoints.1"),
        ({"secret": SECRET, "endpoint": "h:1", "timeout": 0}, "option timeout"),
        ({"secret": SECRET, "endpoint": "h:1", "verify": False}, "option verify"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(DeclarationError, match=f"signal tls_endpoint: {named}"):
        TlsEndpoint(options)
