"""The AWS API of the embedded environment: moto's server with a Secrets Manager and a KMS that behave as documented.

``python -m rotation.local.aws --port 4566 --folder DIR`` serves on 127.0.0.1 until SIGTERM or SIGINT, and prints
its URL once it listens (``--port 0`` takes a free one). State is kept in DIR. Besides AWS's own API it answers:

- ``GET /keyturn/ready``
- ``GET /keyturn/calls`` ``{"secretsmanager.PutSecretValue": 3, …}``; ``DELETE`` sets the counts to zero
- ``POST /keyturn/faults`` a :class:`~rotation.local.aws.faults.Fault` as JSON; ``DELETE`` drops those still to come
- ``PUT /keyturn/settings`` :class:`Settings` as JSON
- ``DELETE /keyturn/state`` forgets all data
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

from rotation.local.aws import kms, secrets_manager
from rotation.local.aws.faults import Fault, Kind, refusal
from rotation.local.aws.snapshot import Snapshot
from rotation.local.aws.wire import Call, clock_error, error, json_answer, prepare, read_call
from rotation.local.fault_queue import FaultQueue

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger("aws")


@dataclass(frozen=True, slots=True)
class Settings:
    """``clock_offset_seconds`` moves the server's clock: its Date header, and which signatures it takes for expired."""

    clock_offset_seconds: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.clock_offset_seconds)


class Application:
    """WSGI: counts a call, misbehaves on demand, lets moto answer, and saves what changed before it replies."""

    def __init__(self, moto: WSGIApplication, snapshot: Snapshot) -> None:
        prepare()
        self._moto = moto
        self._snapshot = snapshot
        self._faults: FaultQueue[Fault] = FaultQueue()
        self.settings = Settings()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/keyturn/"):
            return self._control(Request(environ))(environ, start_response)
        started = time.monotonic()
        call = read_call(environ)
        answer = self._answer(call, environ)
        _log.info("%s %s %.0f ms", call, answer.status_code, (time.monotonic() - started) * 1000)
        return answer(environ, start_response)

    def _answer(self, call: Call, environ: WSGIEnvironment) -> Response:
        fault = self._faults.count(call)
        if fault and (refused := refusal(fault.kind, call)):
            return refused
        if fault and fault.kind is Kind.DROP:
            _drop_connection(call, environ)
        if fault and fault.kind is Kind.DELAY:
            time.sleep(fault.seconds)
        answer = clock_error(call, self.settings.now()) or self._apply(call, environ)
        if fault and fault.kind is Kind.LOST_REPLY:
            _drop_connection(call, environ)
        return answer

    def _apply(self, call: Call, environ: WSGIEnvironment) -> Response:
        """Let moto answer. One request at a time: its backends are plain objects that know of no threads."""
        with self._snapshot.applying:
            answer = self._ask_moto(call, environ)
            ticket = self._snapshot.applied(call.service, changed=call.changes)
        self._snapshot.save(call.service, ticket)
        return answer

    def _ask_moto(self, call: Call, environ: WSGIEnvironment) -> Response:
        try:
            body, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        except NotImplementedError:
            return error(call.service, 501, "NotImplemented", f"{call} is not part of the embedded AWS API")
        except Exception as problem:  # noqa: BLE001 - whatever moto stumbles over, the server goes on
            frames = "".join(traceback.format_tb(problem.__traceback__)[-4:])  # no message: it may quote a value
            _log.error("%s failed with %s\n%s", call, type(problem).__name__, frames)
            return error(call.service, 500, "InternalFailure", f"{call} failed with {type(problem).__name__}")
        return Response(b"".join(body), status, headers)

    def _control(self, request: Request) -> Response:
        try:
            return self._control_answer(f"{request.method} {request.path.removeprefix('/keyturn/')}", request)
        except (ValueError, TypeError) as problem:
            return json_answer({"error": str(problem)}, 400)

    def _control_answer(self, asked: str, request: Request) -> Response:
        match asked:
            case "GET ready":
                return json_answer({"ready": True})
            case "GET calls":
                return json_answer(self._faults.calls())
            case "DELETE calls":
                self._faults.forget_calls()
            case "POST faults":
                self._faults.add(Fault.from_json(json.loads(request.data)))
            case "DELETE faults":
                self._faults.clear()
            case "PUT settings":
                self.settings = Settings(**json.loads(request.data))
            case "DELETE state":
                self._snapshot.forget()
            case _:
                return json_answer({"error": f"there is no {asked}"}, 404)
        return json_answer({})


def _moto() -> WSGIApplication:
    """moto's server. It looks through its own folder twice a request to tell whose a host is, which takes a third of
    the request's time: each host is told once."""
    dispatcher = DomainDispatcherApplication(create_backend_app)
    vars(dispatcher)["get_backend_for_host"] = cache(dispatcher.get_backend_for_host)
    return dispatcher


def _drop_connection(call: Call, environ: WSGIEnvironment) -> NoReturn:
    _log.info("%s: connection dropped on demand", call)
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("dropped on demand")


def _handler(application: Application) -> type[MotoRequestHandler]:
    class Handler(MotoRequestHandler):
        """Shows the server's own clock, and leaves the log to the application: paths may hold what is private."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            moment = application.settings.now().timestamp() if timestamp is None else timestamp
            return super().date_time_string(moment)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    return Handler


def serve(port: int, folder: Path, *, until_input_ends: bool = False) -> None:
    """Serve until SIGTERM, SIGINT or, if so asked, the end of standard input.

    Port 0 takes a free one; the URL is printed once the server listens.
    Raises :class:`~rotation.errors.LocalError` for state that cannot be read, OSError for a port that is taken.
    """
    secrets_manager.install()
    kms.install()
    snapshot = Snapshot(folder)
    snapshot.load()
    application = Application(_moto(), snapshot)
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        _serve_on(listener, application, until_input_ends)


def _serve_on(listener: socket.socket, application: Application, until_input_ends: bool) -> None:
    port = listener.getsockname()[1]
    handler = _handler(application)
    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=handler, fd=listener.fileno())

    def stop(*_: Any) -> None:
        threading.Thread(target=server.shutdown).start()  # it waits for serve_forever, which this thread is in

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if until_input_ends:
        threading.Thread(target=_at_end_of_input, args=(stop,), daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.1)
    server.server_close()


def _at_end_of_input(stop: Callable[[], None]) -> None:
    while os.read(0, 1024):  # sys.stdin has a lock, which the interpreter would want at its end
        pass
    stop()
