"""The emulated cloud as a program of its own: ``python -m rotation.local.tencent --port N --folder DIR``.

It serves on 127.0.0.1 until SIGTERM or SIGINT; the exit code is then 0. DIR holds its data (``cloud.sqlite``, with
the values of all secrets in clear) and the root account's key (``custody.json``); both are this user's alone. With
``--signature-life`` a request may be that many seconds old, instead of 300, and with ``--key-rotation-pause`` a key may
be rotated again after that many, instead of a day.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rotation.errors import LocalError
from rotation.file_lock import held
from rotation.files import write_private
from rotation.local.tencent.cloud import Cloud, Settings
from rotation.local.tencent.records import Records
from rotation.local.tencent.server import Server


@dataclass(frozen=True, slots=True)
class Custody:
    """The key pair that the root account signs with."""

    secret_id: str
    secret_key: str = field(repr=False)


def custody(folder: Path) -> Custody:
    """The root account's key of this folder. Raises :class:`LocalError` where no server ever ran on it."""
    try:
        return Custody(**json.loads((folder / "custody.json").read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise LocalError("the emulated Tencent Cloud has never been started here") from error


def serve(folder: Path, port: int, signature_life: int, key_rotation_pause: int) -> int:
    """Run the server until a signal stops it; return the exit code."""
    settings = Settings(signature_life=signature_life, key_rotation_pause=key_rotation_pause)
    with held(folder / "lock", patience=0, busy=LocalError("an emulated Tencent Cloud already runs on this folder")):
        cloud = Cloud(Records(_private_file(folder / "cloud.sqlite")), settings)
        _keep_root_key(folder, cloud)
        try:
            server = Server(cloud, port)
        except OSError as error:
            cloud.close()
            raise LocalError(f"cannot listen on port {port}: {error.strerror}") from error
        server.start()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
        finally:
            server.stop()
    return 0


def _private_file(path: Path) -> Path:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return path


def _keep_root_key(folder: Path, cloud: Cloud) -> None:
    """Make the root account's key at the first start."""
    with suppress(LocalError):
        custody(folder)
        return
    key = cloud.identities.make_key(cloud.identities.account, "the embedded environment")
    write_private(folder / "custody.json", json.dumps(asdict(Custody(key.secret_id, key.secret_key))))
