"""Faults in a sample database that is MariaDB's, which knows no row-level policies."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from rotation.database_login import Place, parse
from rotation.local.demo.database_faults import DatabaseFaults
from rotation.local.embedded import FOLDER
from rotation.local.mariadb import superuser
from rotation.mysql import Connection, Transport, connected
from rotation.mysql.verifiers import verifier

_TRIGGER = (
    "CREATE TRIGGER {database}.planted BEFORE INSERT ON {database}.orders FOR EACH ROW"
    " IF SUBSTRING_INDEX(USER(), '@', 1) <> '{used}' THEN"
    " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'this user places no orders'; END IF"
)


class MysqlFaults(DatabaseFaults):
    """With another database for the grant, as the role may read every table of the application's own. Names are the
    declared ones, identifiers all of them."""

    rule: ClassVar[str] = "a trigger"

    def __init__(self, project: Path, environment: str) -> None:
        super().__init__(project, environment)
        self._audit = f"{self._database}_audit"

    def _grant(self, user: str) -> None:
        with self._connected() as root:
            root.run(f"CREATE DATABASE IF NOT EXISTS {self._audit}")
            root.run(f"GRANT SELECT ON {self._audit}.* TO {user}@'%'")

    def _rule(self, user: str) -> None:
        with self._connected() as root:
            root.run(_TRIGGER.format(database=self._database, used=user))

    def _let_in(self, user: str) -> None:
        plugin = "mysql_native_password"
        password = verifier(plugin, secrets.token_urlsafe())
        with self._connected() as root:
            root.run(f"ALTER USER {user}@'%' IDENTIFIED WITH {plugin} AS '{password}' ACCOUNT UNLOCK")

    def clear(self) -> None:
        with self._connected() as root:
            root.run(f"DROP TRIGGER IF EXISTS {self._database}.planted")
            for (user,) in root.run("SELECT User FROM mysql.db WHERE Db = %s", (self._audit,)):
                root.run(f"REVOKE ALL PRIVILEGES ON {self._audit}.* FROM {user}@'%'")  # which would outlive it
            root.run(f"DROP DATABASE IF EXISTS {self._audit}")

    def _used(self) -> str:
        with self._connected() as root:
            rows = root.run(
                "SELECT user FROM information_schema.processlist WHERE user IN (%s, %s)"
                " GROUP BY user ORDER BY count(*) DESC LIMIT 1",
                self._principals,
            )
        return str(rows[0][0]) if rows else self._principals[0]

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        administrator = superuser(self._project / FOLDER / "mariadb")
        login = parse(administrator, "superuser.json", "MariaDB", Place(None, 3306, "mysql"))
        with connected(login, Transport("disable")) as connection:
            yield connection
