"""Run a function's code as SCF does: in a child process that takes its event from the runtime API, and answers there.

The protocol is Custom Runtime's (https://www.tencentcloud.com/document/product/583/38129): ``bootstrap`` posts to
``/runtime/init/ready``, gets ``/runtime/invocation/next``, and posts to ``/runtime/invocation/response`` or ``/error``.
A function on one of the Python runtimes is called by a bootstrap of this module's own. Each call has a process of its
own: no instance is used twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
CUSTOM = "CustomRuntime"
_LOOK = 0.05  # seconds

_PYTHON_BOOTSTRAP = """
import importlib, json, os, sys, traceback, urllib.request
sys.path.insert(0, os.getcwd())
base = "http://%s:%s/runtime/" % (os.environ["SCF_RUNTIME_API"], os.environ["SCF_RUNTIME_API_PORT"])
def post(path, body):
    urllib.request.urlopen(urllib.request.Request(base + path, data=body.encode(), method="POST")).close()
module, _, name = os.environ["_HANDLER"].rpartition(".")
function = getattr(importlib.import_module(module), name)
post("init/ready", " ")
with urllib.request.urlopen(base + "invocation/next") as asked:
    event, context = json.load(asked), {key.lower(): value for key, value in asked.headers.items()}
context["time_limit_in_ms"] = int(context["time_limit_in_ms"])
try:
    answer, path = function(event, context), "invocation/response"
except Exception as error:
    traceback.print_exc()
    answer, path = {"errorCode": 1, "errorMessage": "%s: %s" % (type(error).__name__, error)}, "invocation/error"
sys.stdout.flush()
post(path, json.dumps(answer))
"""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call. ``event`` is JSON; ``environment`` is all that the process gets; ``seconds`` is its limit."""

    request_id: str
    folder: Path
    runtime: str
    handler: str
    event: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    seconds: int
    memory: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """``answer`` is the handler's in JSON, ``error`` what went wrong; one of both is empty. ``log`` is what it printed,
    ``milliseconds`` how long it took."""

    answer: str
    error: str
    log: str
    milliseconds: float


def run(invocation: Invocation, stopping: threading.Event) -> Outcome:
    """Call the function, and end its process with all that it started; at once when the cloud is stopping."""
    started = time.monotonic()
    with _RuntimeApi(invocation) as api, tempfile.TemporaryFile() as printed:
        serving = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            child = _start(invocation, api.server_port, printed)
            error = _wait(child, api, invocation.seconds, stopping)
        finally:
            api.shutdown()
            serving.join()
        printed.seek(0)
        log = printed.read().decode(errors="replace")
    return Outcome(api.answer, error or api.error, log, (time.monotonic() - started) * 1000)


def _start(invocation: Invocation, port: int, printed: IO[bytes]) -> subprocess.Popen[bytes]:
    own = [str(invocation.folder / "bootstrap")]
    # -S: nothing can be imported but what the archive holds, and Python's own library.
    python = [sys.executable, "-S", "-c", _PYTHON_BOOTSTRAP]
    return subprocess.Popen(
        own if invocation.runtime == CUSTOM else python,
        cwd=invocation.folder,
        env={
            **invocation.environment,
            "SCF_RUNTIME_API": HOST,
            "SCF_RUNTIME_API_PORT": str(port),
            "_HANDLER": invocation.handler,
        },
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait(child: subprocess.Popen[bytes], api: _RuntimeApi, seconds: int, stopping: threading.Event) -> str:
    """Wait for the answer, end the process, and say what is wrong with that; empty where there is an answer."""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline and not stopping.is_set():
            if api.answered.wait(_LOOK):
                return ""
            if child.poll() is not None:  # what it sent last may be on its way
                return "" if api.answered.wait(10 * _LOOK) else f"the process exited with {child.returncode}"
        return f"Invoking task timed out after {seconds} seconds"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


class _RuntimeApi(ThreadingHTTPServer):
    """What the function's process talks to during one call."""

    daemon_threads = True

    def __init__(self, invocation: Invocation) -> None:
        super().__init__((HOST, 0), _Answering)
        self.invocation = invocation
        self.answered = threading.Event()
        self.given = False
        self.answer = ""
        self.error = ""


class _Answering(BaseHTTPRequestHandler):
    server: _RuntimeApi

    def do_GET(self) -> None:
        if self.path != "/runtime/invocation/next" or self.server.given:
            self.server.answered.wait()  # there is no other event: the process ends while it waits for one
            return self._reply(404, b"")
        self.server.given = True
        return self._reply(200, self.server.invocation.event.encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        match self.path:
            case "/runtime/invocation/response":
                self.server.answer = body
            case "/runtime/invocation/error":
                self.server.error = body
            case "/runtime/init/ready":
                return self._reply(200, b"")
            case _:
                return self._reply(404, b"")
        self._reply(200, b"")
        self.server.answered.set()
        return None

    def _reply(self, status: int, body: bytes) -> None:
        invocation = self.server.invocation
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Request_id", invocation.request_id)
        self.send_header("Memory_limit_in_mb", str(invocation.memory))
        self.send_header("Time_limit_in_ms", str(invocation.seconds * 1000))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...
