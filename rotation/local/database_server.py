"""What the embedded database servers have in common: how one is started and stopped, and how its logins are kept."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from rotation.errors import LocalError
from rotation.file_lock import held
from rotation.files import write_private
from rotation.local.ports import HOST
from rotation.secret_value import SecretValue

MAX_CONNECTIONS = 200
_PASSWORD_BYTES = 24


# ── logins ──


def kept_login(path: Path, port: int, username: str, database: str, engine: str = "postgres") -> dict[str, Any]:
    """The login kept in a file, with the port of today; made with a random password where there is none."""
    password = (
        json.loads(path.read_text(encoding="utf-8"))["password"]
        if path.exists()
        else secrets.token_urlsafe(_PASSWORD_BYTES)
    )
    login = {"engine": engine, "host": HOST, "port": port, "username": username}
    login |= {"password": password, "dbname": database}
    write_private(path, json.dumps(login))
    return login


def superuser_of(server: str, folder: Path) -> SecretValue:
    """The login in ``superuser.json`` as JSON: engine, host, port, username, password, dbname.

    Raises :class:`LocalError` where no server was ever started.
    """
    try:
        return SecretValue((folder / "superuser.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LocalError(f"the embedded {server} has never been started here") from error


# ── start and stop ──


def await_login(server: str, log_in: Callable[[], object], refused: type[Exception], seconds: float) -> None:
    """Return when ``log_in`` raises no ``refused`` or :class:`LocalError`; after that many seconds raise the latter."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            log_in()
        except (LocalError, refused):
            if time.monotonic() > deadline:
                raise LocalError(f"the embedded {server} did not answer within {seconds:.0f} s") from None
            time.sleep(0.05)
        else:
            return


def only_one(server: str, folder: Path) -> AbstractContextManager[None]:
    busy = LocalError(f"an embedded {server} already runs on this folder")
    return held(folder / "lock", patience=0, busy=busy)


def await_leftovers(data: Path, seconds: float = 15) -> None:
    """Wait for the processes of a killed server to end, then drop its pid file.

    PostgreSQL itself would refuse to start when that old pid is by now another process of the same user, as happens
    when a container starts again. Every server process has the data folder as its working folder.
    """
    deadline = time.monotonic() + seconds
    while any(_works_in(process, data) for process in psutil.process_iter()):
        if time.monotonic() > deadline:
            raise LocalError("an older embedded server still runs on this folder and does not stop")
        time.sleep(0.05)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except psutil.Error:
        return False


def until_stopped(command: Sequence[str], stop: signal.Signals) -> int:
    """Run the server to its end; SIGTERM or SIGINT here is ``stop`` there."""
    server = subprocess.Popen(command, env=environment(), cwd="/")
    try:
        return server.wait()
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        server.send_signal(stop)
        return server.wait()


def environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
