from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from rotation.errors import LocalError
from rotation.local.demo.load import within
from rotation.local.service import Service, answers_http, answers_tcp
from tests.fixtures.ports import closed_port, free_port

ENVIRONMENT = {"PATH": os.defpath, "PYTHONUNBUFFERED": "1"}
SERVES = "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), None).serve_forever()"
SERVES_AND_IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVES
Make = Callable[..., Service]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes services that are stopped at the end of the test."""
    with ExitStack() as stack:

        def service(code: str = SERVES, name: str = "server", port: int | None = None) -> Service:
            port = port or free_port()
            argv = (sys.executable, "-c", code, str(port))
            made = Service(name, argv, tmp_path, port, answers_tcp("127.0.0.1", port))
            stack.callback(made.stop, grace=0.2)
            return made

        yield service


def test_a_service_starts_once_is_found_again_and_stops(make: Make) -> None:
    service = make()
    assert service.pid is None
    assert service.start(ENVIRONMENT)
    pid = service.pid
    assert pid is not None
    assert service.ready
    assert not service.start(ENVIRONMENT)
    assert service.pid == pid
    assert service.stop()
    assert service.pid is None
    assert not service.ready
    assert not psutil.pid_exists(pid)
    assert not service.stop()


def test_a_service_is_in_a_session_of_its_own_and_its_log_is_private(make: Make) -> None:
    service = make()
    service.start(ENVIRONMENT)
    assert service.pid is not None
    assert os.getsid(service.pid) == service.pid
    assert stat.S_IMODE(service.log.stat().st_mode) == 0o600


def test_a_service_sees_only_the_variables_that_it_is_given(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "canary-value")
    service = make()
    service.start(ENVIRONMENT)
    assert psutil.Process(service.pid).environ().keys() <= {*ENVIRONMENT, "LC_CTYPE"}


def test_one_that_does_not_listen_to_a_polite_request_is_ended_by_force(make: Make) -> None:
    service = make(SERVES_AND_IGNORES_SIGTERM)
    service.start(ENVIRONMENT)
    assert service.stop(grace=0.2)
    assert service.pid is None


def test_one_that_was_killed_is_not_running_and_starts_again(make: Make) -> None:
    service = make()
    service.start(ENVIRONMENT)
    first = service.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    psutil.Process(first).wait(20)
    assert service.pid is None
    assert service.start(ENVIRONMENT)
    assert service.pid not in (None, first)


def test_another_process_with_the_same_number_is_neither_taken_for_it_nor_stopped(make: Make, tmp_path: Path) -> None:
    service, other = make(), make(name="other")
    other.start(ENVIRONMENT)
    assert other.pid is not None
    started = psutil.Process(other.pid).create_time()
    (tmp_path / "server.pid").write_text(json.dumps({"pid": other.pid, "started": started - 60}), encoding="utf-8")
    assert service.pid is None
    assert not service.stop()
    assert other.ready


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"pid": "x", "started": 0}'])
def test_a_damaged_pid_file_means_that_nothing_runs(make: Make, tmp_path: Path, text: str) -> None:
    (tmp_path / "server.pid").write_text(text, encoding="utf-8")
    service = make()
    assert service.pid is None
    assert service.start(ENVIRONMENT)


def test_one_that_ends_at_once_is_told_with_the_last_words_of_this_start(make: Make) -> None:
    service = make("import sys; sys.exit(f'no licence {sys.argv[1]}')")
    for _ in range(2):
        with pytest.raises(LocalError) as caught:
            service.start(ENVIRONMENT)
        assert str(caught.value) == f"server ended while it started: no licence {service.port}"
    assert "keyturn local down" in caught.value.remedy


def test_one_that_does_not_get_ready_is_told_and_not_left_running(make: Make) -> None:
    thinking = make("import time; print('thinking'); time.sleep(100)")
    service = replace(thinking, probe=lambda: not within(lambda: "thinking" in thinking.log.read_text()))
    with pytest.raises(LocalError, match=r"server was not ready after 0\.5 seconds: thinking"):
        service.start(ENVIRONMENT, patience=0.5)
    assert service.pid is None


def test_a_port_that_another_program_took_is_told_with_a_way_out(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port}, which server keeps, is taken") as caught:
            make(port=port).start(ENVIRONMENT)
    assert "--purge" in caught.value.remedy


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    port = free_port()
    service = Service("server", (str(tmp_path / "absent"),), tmp_path, port, answers_tcp("127.0.0.1", port))
    with pytest.raises(LocalError, match="cannot start server: No such file"):
        service.start(ENVIRONMENT)


@pytest.mark.parametrize(("answer", "ready"), [("200 OK", True), ("404 Not Found", True), ("503 Busy", False)])
def test_http_is_ready_when_it_answers_without_a_server_error(answer: str, ready: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=serve)
        thread.start()
        assert answers_http(f"http://127.0.0.1:{server.getsockname()[1]}/health")() is ready
        thread.join()


def test_nobody_there_is_not_ready() -> None:
    port = closed_port()
    assert not answers_http(f"http://127.0.0.1:{port}/health")()
    assert not answers_tcp("127.0.0.1", port)()
