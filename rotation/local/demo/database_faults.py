"""Faults that the demo and the tests plant in the sample database, and take away again. Each kind of database has its
own way (postgresql_faults.py, mysql_faults.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from rotation.local.embedded import embedded
from rotation.local.environment import place_of


class DatabaseFaults(ABC):
    """The sample database of an environment as its superuser sees it. ``rule`` is what :meth:`policy_for_one_user`
    makes, in words."""

    rule: ClassVar[str]

    def __init__(self, project: Path, environment: str) -> None:
        self._project = project
        self._database = embedded(environment).database
        self._principals = (f"{self._database}_app_a", f"{self._database}_app_b")

    @contextmanager
    def grant_to_one_user_only(self) -> Iterator[None]:
        """Something that only the login in use may read: a grant that was given to it directly."""
        self._grant(self._used())
        try:
            yield
        finally:
            self.clear()

    @contextmanager
    def policy_for_one_user(self) -> Iterator[None]:
        """A rule on the orders that names the login in use: another one may connect, and writes nothing."""
        self._rule(self._used())
        try:
            yield
        finally:
            self.clear()

    def let_in_again(self) -> str:
        """Let the application's other login in, as a database administrator might who did not know why it was locked.
        Returns its name."""
        used = self._used()
        (other,) = (user for user in self._principals if user != used)
        self._let_in(other)
        return other

    @abstractmethod
    def clear(self) -> None:
        """Take away what was planted, also by a run that died."""

    @abstractmethod
    def _used(self) -> str:
        """The application's login that has the most sessions now."""

    @abstractmethod
    def _grant(self, user: str) -> None: ...

    @abstractmethod
    def _rule(self, user: str) -> None: ...

    @abstractmethod
    def _let_in(self, user: str) -> None:
        """With a password that nobody knows."""


def faults_of(project: Path, environment: str) -> DatabaseFaults:
    """What makes faults in an environment's database."""
    if place_of(project, environment).database == "mysql":
        from rotation.local.demo.mysql_faults import MysqlFaults

        return MysqlFaults(project, environment)
    from rotation.local.demo.postgresql_faults import PostgresqlFaults

    return PostgresqlFaults(project, environment)
