"""A server of the embedded environment, running by itself: it outlives the command that started it, and is found again
by a file that holds its process id and when that process started."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from rotation.errors import LocalError
from rotation.files import remove, write_atomically

Probe = Callable[[], bool]

_LOOK_AGAIN = 0.05  # seconds
_TO_BE_GONE = 15.0  # seconds for the kernel to end what was killed
_SAME_START = 2.0  # seconds: psutil derives the start from the time of boot, which moves a little with the clock


def answers_http(url: str) -> Probe:
    """A probe that asks for ``url`` and is content with any answer that is no server error."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}".rstrip("?")

    def probe() -> bool:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=2)
        try:
            connection.request("GET", target)
            return connection.getresponse().status < 500
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return probe


def answers_tcp(host: str, port: int) -> Probe:
    """A probe that connects and hangs up."""

    def probe() -> bool:
        with suppress(OSError), socket.create_connection((host, port), timeout=2):
            return True
        return False

    return probe


@dataclass(frozen=True, slots=True)
class Service:
    """A child process with a log, ready when ``probe`` says so.

    ``port`` is the loopback port that it is to listen on; ``folder`` gets ``<name>.pid``, and ``logs/<name>.out``
    for what it prints.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    port: int
    probe: Probe

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self.name}.out"

    def start(self, environment: Mapping[str, str], patience: float = 60) -> bool:
        """Start it unless it runs, and wait until it is ready. Returns whether it was started here.

        Raises :class:`LocalError`, with the end of its log, when its port is taken, when it ends at once, or when it
        is not ready after ``patience`` seconds; what was started here is then stopped.
        """
        if self.pid is not None:
            self._wait_until_ready(patience)
            return False
        self._refuse_taken_port()
        said_before = self.log.stat().st_size if self.log.exists() else 0
        self._spawn(environment)
        try:
            self._wait_until_ready(patience, said_before)
        except BaseException:
            self.stop()
            raise
        return True

    def stop(self, grace: float = 15) -> bool:
        """End it: politely, and by force after ``grace`` seconds. Returns whether it ran."""
        process = self._process()
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
                try:
                    process.wait(grace)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait(_TO_BE_GONE)
        remove(self._pid_file)
        return process is not None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process()
        return process.pid if process else None

    @property
    def ready(self) -> bool:
        return self._process() is not None and self.probe()

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def _process(self) -> psutil.Process | None:
        """The process that was started here, never another one that got its number since."""
        try:
            noted = json.loads(self._pid_file.read_text(encoding="utf-8"))
            process = psutil.Process(noted["pid"])
            same = abs(process.create_time() - noted["started"]) < _SAME_START
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, psutil.NoSuchProcess, ValueError, KeyError, TypeError):
            return None

    def _spawn(self, environment: Mapping[str, str]) -> None:
        """Start it in a session of its own, so that no terminal's Ctrl-C reaches it. The log is added to.

        posix_spawn, for an object of subprocess.Popen warns when it is dropped before its child ends.
        """
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            pid = os.posix_spawn(
                self.argv[0],
                self.argv,
                dict(environment),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise LocalError(f"cannot start {self.name}: {error.strerror}") from error
        process = psutil.Process(pid)
        try:
            write_atomically(self._pid_file, json.dumps({"pid": pid, "started": process.create_time()}))
        except BaseException:  # without its number on file nobody would ever stop it
            process.kill()
            process.wait()
            raise

    def _wait_until_ready(self, patience: float, said_before: int = 0) -> None:
        deadline = time.monotonic() + patience
        while not self.probe():
            if self.pid is None:
                raise LocalError(f"{self.name} ended while it started: {self._last_words(said_before)}")
            if time.monotonic() >= deadline:
                raise LocalError(
                    f"{self.name} was not ready after {patience:g} seconds: {self._last_words(said_before)}"
                )
            time.sleep(_LOOK_AGAIN)

    def _refuse_taken_port(self) -> None:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise LocalError(
                    f"port {self.port}, which {self.name} keeps, is taken by another program",
                    "Stop that program; or give up the local data and its ports: `keyturn local down --purge`.",
                ) from error

    def _last_words(self, said_before: int) -> str:
        """The last lines that it printed since its log had that many bytes."""
        said = self.log.read_bytes()[said_before:].decode(errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or "it printed nothing"


def python_service(folder: Path, name: str, module: str, url: str, route: str, *options: str) -> Service:
    """A server that is ``rotation.local.<module>``, on the port of its ``url``; ready when ``route`` answers."""
    port = port_of(url)
    argv = (sys.executable, "-m", f"rotation.local.{module}", "--port", str(port), *options)
    return Service(name, argv, folder, port, answers_http(url + route))


def database_service(folder: Path, name: str, port: int, await_ready: Callable[[Path, float], None]) -> Service:
    """A database server that is ``rotation.local.<name>``, with its data in the folder of its name; ready when
    ``await_ready``, given that and how many seconds it may take, raises no :class:`LocalError`."""
    data = folder / name

    def answers_its_superuser() -> bool:
        try:
            await_ready(data, 0)
        except LocalError:
            return False
        return True

    argv = (sys.executable, "-m", f"rotation.local.{name}", "--port", str(port), "--folder", str(data))
    return Service(name, argv, folder, port, answers_its_superuser)


def port_of(address: str) -> int:
    """The port of a URL without a path, or of host:port."""
    return int(address.rpartition(":")[2])
