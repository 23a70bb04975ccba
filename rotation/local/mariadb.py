"""The MariaDB server of the embedded environment: ``python -m rotation.local.mariadb --port N --folder DIR``.

It runs Debian's MariaDB (the package mariadb-server) in the foreground, on 127.0.0.1 only. The root user's login is
made at the first start in ``DIR/superuser.json`` (mode 0600); the data stays in ``DIR/data``. Where there is a
``DIR/server.cnf``, it is read as an option file; the machine's own are not.

SIGTERM and SIGINT stop it cleanly, and it ends with this process, as the embedded PostgreSQL does. It runs as the user
that starts it, root too: with borrowed capabilities alone, MariaDB 10.11 takes its own tables for moved ones, and
breaks them ("Zerofilling moved table").
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rotation.database_login import Login, Place, parse
from rotation.errors import KeyturnError, LocalError
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
from rotation.mysql import Transport, connected
from rotation.mysql.verifiers import verifier
from rotation.secret_value import SecretValue

_LEDGER = "keyturn"
_USER = ["--user=root"] if os.geteuid() == 0 else []  # it wants to be told
_FOLDERS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


@dataclass(frozen=True, slots=True)
class Sample:
    """What :func:`provision` makes. The names are identifiers; the administrator's login is kept under its name."""

    database: str = "orders"
    role: str = "orders_app"
    administrator: str = "keyturn_admin"


def installed() -> bool:
    """Whether MariaDB is on this machine."""
    return all(shutil.which(program, path=_FOLDERS) for program in ("mariadbd", "mariadb-install-db"))


def superuser(folder: Path) -> SecretValue:
    """The root user's login as JSON: engine, host, port, username, password, dbname.

    Raises :class:`LocalError` where no server was ever started.
    """
    return superuser_of("MariaDB", folder)


def await_ready(folder: Path, seconds: float = 30) -> None:
    """Return when the server answers its root user, or raise :class:`LocalError` after that many seconds."""
    await_login("MariaDB", lambda: _log_in(folder), KeyturnError, seconds)


def _log_in(folder: Path) -> None:
    with connected(_login(folder), Transport("disable")):
        pass


def provision(folder: Path, sample: Sample = Sample()) -> SecretValue:
    """Make the sample database and return its administrator's login as JSON, like :func:`superuser`. Idempotent.

    The role may read and write the database and its table ``orders``. The administrator may make users and hand out
    the role; :mod:`rotation.credentials.mysql_user` says what for.
    """
    root = _login(folder)
    path = folder / f"{sample.administrator}.json"
    login = kept_login(path, root.port, sample.administrator, sample.database, "mysql")
    provision_on(root, sample, SecretValue(login["password"]))
    return SecretValue(json.dumps(login))


def provision_on(root: Login, sample: Sample, password: SecretValue) -> None:
    """The same on any server, with a password for the administrator; ``root`` may do everything there."""
    database, role, administrator = sample.database, sample.role, f"{sample.administrator}@'%'"
    with connected(root, Transport("disable")) as connection:
        mariadb = connection.is_mariadb
        plugin = "mysql_native_password" if mariadb else "caching_sha2_password"
        kept = verifier(plugin, password.reveal())
        for statement in (
            f"CREATE DATABASE IF NOT EXISTS {_LEDGER}",
            f"CREATE DATABASE IF NOT EXISTS {database}",
            f"CREATE TABLE IF NOT EXISTS {database}.orders (id bigint AUTO_INCREMENT PRIMARY KEY, item text NOT NULL,"
            " placed_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)",
            f"CREATE ROLE IF NOT EXISTS {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON {database}.* TO {role}",
            f"CREATE USER IF NOT EXISTS {administrator}",
            f"ALTER USER {administrator} IDENTIFIED WITH {plugin} AS '{kept}'",
            f"GRANT CREATE USER, PROCESS ON *.* TO {administrator}",
            f"GRANT {'CONNECTION ADMIN' if mariadb else 'CONNECTION_ADMIN'} ON *.* TO {administrator}",
            f"GRANT SELECT ON mysql.* TO {administrator}",
            f"GRANT SELECT, INSERT, DELETE, CREATE ON {_LEDGER}.* TO {administrator}",
            f"GRANT {role} TO {administrator} WITH ADMIN OPTION",
        ):
            connection.run(statement)


def serve(folder: Path, port: int) -> int:
    """Run the server until a signal stops it; return the exit code."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve()
    data = folder / "data"
    with only_one("MariaDB", folder):
        login = kept_login(folder / "superuser.json", port, "root", "mysql", "mysql")
        await_leftovers(data)
        if not data.exists():
            _initialise(folder)
        _write_first_statements(data / "first.sql", login["password"])
        options = folder / "server.cnf"
        command = [
            *(str(_program("mariadbd")), f"--defaults-file={options}" if options.exists() else "--no-defaults"),
            *(f"--datadir={data}", f"--port={port}", f"--bind-address={HOST}", "--socket=server.sock"),
            *("--pid-file=server.pid", "--skip-name-resolve", f"--max-connections={MAX_CONNECTIONS}"),
            *(f"--init-file={data / 'first.sql'}", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"),
            *_USER,
        ]
        return until_stopped(["setpriv", "--pdeathsig=TERM", "--", *command], signal.SIGTERM)


def _initialise(folder: Path) -> None:
    """Make the data folder under another name, and give it its own when it is complete."""
    fresh = folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    command = [
        str(_program("mariadb-install-db")),
        "--no-defaults",
        f"--datadir={fresh}",
        "--skip-test-db",
        "--skip-name-resolve",
    ]
    command += ["--auth-root-authentication-method=normal", *_USER]
    try:
        subprocess.run(command, check=True, env=environment(), stdout=sys.stderr, cwd="/")
    except subprocess.CalledProcessError as error:
        raise LocalError(f"mariadb-install-db failed with exit code {error.returncode}") from error
    fresh.rename(folder / "data")


def _write_first_statements(path: Path, password: str) -> None:
    """What the server does before it listens: give its root user the password that is kept, and drop the others, who
    have none."""
    kept = verifier("mysql_native_password", password)
    root = f"root@'{HOST}'"
    statements = (
        f"CREATE USER IF NOT EXISTS {root}",
        f"ALTER USER {root} IDENTIFIED WITH mysql_native_password AS '{kept}'",
        f"GRANT ALL ON *.* TO {root} WITH GRANT OPTION",
        f"DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> '{HOST}'",  # noqa: S608  # a constant
        "FLUSH PRIVILEGES",
    )
    write_private(path, "".join(f"{statement};\n" for statement in statements))


def _program(name: str) -> Path:
    found = shutil.which(name, path=_FOLDERS)
    if found is None:
        raise LocalError(f"the program {name} is not there", "Install mariadb-server, then run again.")
    return Path(found)


def _login(folder: Path) -> Login:
    return parse(superuser(folder), "superuser.json", "MariaDB", Place(HOST, 3306, "mysql"))


if __name__ == "__main__":
    raise SystemExit(run("rotation.local.mariadb", "MariaDB", serve))
