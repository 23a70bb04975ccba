"""The same faults as in plants.py, in a sample database that is MariaDB's, which knows no row-level policies."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from rotation.database_login import Place, parse
from rotation.local.embedded import FOLDER, embedded
from rotation.local.environment import place_of
from rotation.local.mariadb import superuser
from rotation.local.plants import Plants
from rotation.mysql import Connection, Transport, connected
from rotation.mysql.verifiers import verifier

_TRIGGER = (
    "CREATE TRIGGER {database}.planted BEFORE INSERT ON {database}.orders FOR EACH ROW"
    " IF SUBSTRING_INDEX(USER(), '@', 1) <> '{used}' THEN"
    " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'this user places no orders'; END IF"
)


class MysqlPlants:
    """The sample database of an environment as MariaDB's root user sees it. Names are the declared ones, identifiers
    all of them."""

    rule: ClassVar[str] = "a trigger"

    def __init__(self, project: Path, environment: str) -> None:
        self._folder = project / FOLDER / "mariadb"
        self._database = embedded(environment).database
        self._audit = f"{self._database}_audit"
        self._principals = (f"{self._database}_app_a", f"{self._database}_app_b")

    @contextmanager
    def grant_to_one_user_only(self) -> Iterator[None]:
        """Another database that only the login in use may read: a grant that was given to it directly. The role may
        read every table of the application's own."""
        with self._connected() as root:
            root.run(f"CREATE DATABASE IF NOT EXISTS {self._audit}")
            root.run(f"GRANT SELECT ON {self._audit}.* TO {self._used(root)}@'%'")
        try:
            yield
        finally:
            self.clear()

    @contextmanager
    def policy_for_one_user(self) -> Iterator[None]:
        """A trigger on the orders that names the login in use: another one may connect, and writes nothing."""
        with self._connected() as root:
            root.run(_TRIGGER.format(database=self._database, used=self._used(root)))
        try:
            yield
        finally:
            self.clear()

    def let_in_again(self) -> str:
        """Let the application's other login in, as a database administrator might who did not know why it was locked.
        Returns its name."""
        plugin = "mysql_native_password"
        password = verifier(plugin, secrets.token_urlsafe())
        with self._connected() as root:
            used = self._used(root)
            (other,) = (user for user in self._principals if user != used)
            root.run(f"ALTER USER {other}@'%' IDENTIFIED WITH {plugin} AS '{password}' ACCOUNT UNLOCK")
        return other

    def clear(self) -> None:
        """Take away what was planted, also by a run that died."""
        with self._connected() as root:
            root.run(f"DROP TRIGGER IF EXISTS {self._database}.planted")
            for (user,) in root.run("SELECT User FROM mysql.db WHERE Db = %s", (self._audit,)):
                root.run(f"REVOKE ALL PRIVILEGES ON {self._audit}.* FROM {user}@'%'")  # which would outlive it
            root.run(f"DROP DATABASE IF EXISTS {self._audit}")

    def _used(self, root: Connection) -> str:
        """The application's login that has the most sessions now."""
        rows = root.run(
            "SELECT user FROM information_schema.processlist WHERE user IN (%s, %s)"
            " GROUP BY user ORDER BY count(*) DESC LIMIT 1",
            self._principals,
        )
        return str(rows[0][0]) if rows else self._principals[0]

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        login = parse(superuser(self._folder), "superuser.json", "MariaDB", Place(None, 3306, "mysql"))
        with connected(login, Transport("disable")) as connection:
            yield connection


AnyPlants = Plants | MysqlPlants


def plants_of(project: Path, environment: str) -> AnyPlants:
    """What plants faults in an environment's database."""
    on_mysql = place_of(project, environment).database == "mysql"
    return MysqlPlants(project, environment) if on_mysql else Plants(project, environment)
