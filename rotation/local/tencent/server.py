"""The emulated cloud on the wire: one HTTP server on 127.0.0.1 for all services, COS among them by its host names.

Besides the services' own API it answers, for tests and for the embedded environment:

- ``GET /keyturn/ready``
- ``GET /keyturn/calls`` ``{"ssm.PutSecretValue": 3, …}``; ``DELETE`` sets the counts to zero
- ``POST /keyturn/faults`` a :class:`~rotation.local.tencent.faults.Fault` as JSON; ``DELETE`` drops those still to come
  and releases the calls that are held
- ``PUT /keyturn/clock`` ``{"offset_seconds": 600}``
- ``PUT /keyturn/tasks`` :class:`~rotation.local.tencent.cloud.Tasks` as JSON: how asynchronous tasks go from now on
- ``PUT /keyturn/instances/ID`` a database that the secrets of an instance are made and rotated on:
  :class:`~rotation.local.tencent.ssm_product.Instance` as JSON
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import traceback
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NoReturn, cast

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Response
from werkzeug.wsgi import get_input_stream

from rotation.local.tencent.cloud import Cloud, Tasks
from rotation.local.tencent.faults import Fault, Faults, Kind, refuse
from rotation.local.tencent.ssm_product import Instance, ProductSecrets
from rotation.local.tencent.wire import ApiError, Request, refusal, reply

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

HOST = "127.0.0.1"
_TICK = 0.2  # seconds

_log = logging.getLogger("tencent")


class Application:
    """WSGI: counts a call, misbehaves on demand, and lets the cloud answer."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.faults = Faults()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = _read(environ)
        if request.path.startswith("/keyturn/"):
            return self._control(request)(environ, start_response)
        return self._answer(request, environ)(environ, start_response)

    def _answer(self, request: Request, environ: WSGIEnvironment) -> Response:
        fault = self.faults.count(request)
        kind = fault.kind if fault else None
        if fault:
            self._before(fault, environ)
        if kind is Kind.HTTP_ERROR:
            return Response("Internal Server Error", 500, content_type="text/html")
        answer = self._cos_answer(request, fault) if request.bucket else self._api_answer(request, fault)
        if kind is Kind.LOST_REPLY:
            _drop_connection(environ)
        if kind is Kind.CUT:
            body = answer.get_data()
            answer.data = body[: len(body) // 2]
            answer.content_length = len(body)
        return answer

    def _cos_answer(self, request: Request, fault: Fault | None) -> Response:
        try:
            return self.cloud.cos.answer(request, fault)
        except Exception as problem:  # noqa: BLE001  # as below
            _log_failure(f"{request.service}.{request.operation}", problem)
            return Response(status=500)

    def _api_answer(self, request: Request, fault: Fault | None) -> Response:
        charset = "; charset=utf-8" if fault and fault.kind is Kind.CHARSET else ""
        return Response(self._body(request, fault), 200, content_type=f"application/json{charset}")

    def _before(self, fault: Fault, environ: WSGIEnvironment) -> None:
        """What a fault does before the cloud looks at the call."""
        if fault.kind is Kind.DROP:
            _drop_connection(environ)
        if fault.kind is Kind.DELAY:
            self.cloud.clock.wait(fault.seconds)
        if fault.kind is Kind.HOLD:
            self.faults.hold()

    def _body(self, request: Request, fault: Fault | None) -> bytes:
        """The answer's bytes: the cloud's fields in their envelope, or its refusal."""
        try:
            if fault:
                refuse(fault.kind)
            return reply(self.cloud.answer(request, fault.writes if fault and fault.kind is Kind.STALE else 0))
        except ApiError as error:
            _log.info("%s.%s refused: %s", request.service, request.operation, error.code)
            return refusal(error)
        except Exception as problem:  # noqa: BLE001  # whatever a service stumbles over, the server goes on
            _log_failure(f"{request.service}.{request.operation}", problem)
            return refusal(ApiError("InternalError", f"The emulator failed with {type(problem).__name__}."))

    def _control(self, request: Request) -> Response:
        try:
            value = self._control_answer(f"{request.method} {request.path.removeprefix('/keyturn/')}", request)
        except (ValueError, TypeError, KeyError) as problem:
            return _json({"error": type(problem).__name__}, 400)
        return _json({"error": "there is no such thing"}, 404) if value is None else _json(value)

    def _control_answer(self, asked: str, request: Request) -> Mapping[str, Any] | None:
        match asked:
            case "GET ready":
                return {"ready": True}
            case "GET calls":
                return self.faults.calls()
            case "DELETE calls":
                self.faults.forget_calls()
            case "POST faults":
                self.faults.add(Fault.from_json(json.loads(request.body)))
            case "DELETE faults":
                self.faults.clear()
            case "PUT clock":
                self.cloud.clock.run(float(json.loads(request.body)["offset_seconds"]))
            case "PUT tasks":
                self.cloud.tasks = Tasks(**json.loads(request.body))
            case _ if asked.startswith("PUT instances/"):
                instance = Instance.model_validate_json(request.body)
                self.cloud.service(ProductSecrets).connect(asked.removeprefix("PUT instances/"), instance)
            case _:
                return None
        return {}


def _log_failure(what: str, problem: Exception) -> None:
    """Where it failed, without a message: that may quote a value."""
    frames = "".join(traceback.format_tb(problem.__traceback__)[-4:])
    _log.error("%s failed with %s\n%s", what, type(problem).__name__, frames)


def _read(environ: WSGIEnvironment) -> Request:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
    }
    body = get_input_stream(environ).read()
    return Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], headers, body, environ.get("QUERY_STRING", ""))


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


def _drop_connection(environ: WSGIEnvironment) -> NoReturn:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("dropped on demand")


class _Handler(WSGIRequestHandler):
    """Tells the cloud's own time, and writes no log of its own: most requests' line is POST /."""

    def date_time_string(self, timestamp: float | None = None) -> str:  # the header Date; http.server's name
        clock = cast(Application, self.server.app).cloud.clock
        return formatdate(clock.now() if timestamp is None else timestamp, usegmt=True)

    def log(self, type: str, message: str, *args: Any) -> None:  # werkzeug's name
        pass


class Server:
    """The cloud on a port of 127.0.0.1 (0 for a free one), served by a thread of this process."""

    def __init__(self, cloud: Cloud, port: int = 0) -> None:
        """Raises OSError for a port that is taken."""
        self.application = Application(cloud)
        self._cloud = cloud
        with socket.create_server((HOST, port), backlog=128) as listener:  # werkzeug would end the program instead
            port = listener.getsockname()[1]
            self._http = ThreadedWSGIServer(HOST, port, self.application, _Handler, fd=listener.fileno())
        self._http.daemon_threads = False  # so that they are waited for at the end
        self.address = f"{HOST}:{port}"
        cloud.names |= {self.address, f"localhost:{port}"}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="tencent"),
            threading.Thread(target=self._tick, name="tencent-clock"),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop serving; return when the last call was answered and the records are closed. Again, it does nothing."""
        self._stopping.set()
        self.application.faults.clear()
        self._cloud.clock.close()
        self._http.shutdown()
        for thread in self._threads:
            thread.join()
        self._http.server_close()
        self._cloud.close()

    def _tick(self) -> None:
        while not self._stopping.wait(_TICK):
            try:
                self._cloud.tick()
            except Exception as problem:  # noqa: BLE001  # what is due next must be done all the same
                _log_failure("what is due", problem)
