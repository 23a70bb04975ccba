"""Faults that the demo and the tests plant in the sample database, and take away again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import sql

from rotation.local.embedded import embedded
from rotation.local.embedded.local import Local
from rotation.local.postgresql import superuser

POLICY = "CREATE POLICY planted ON public.orders USING (session_user = {0}) WITH CHECK (session_user = {0})"


class Plants:
    """The sample database of an environment as PostgreSQL's superuser sees it. ``rule`` is what
    :meth:`policy_for_one_user` makes, in words."""

    rule: ClassVar[str] = "a row-level policy"

    def __init__(self, project: Path, environment: str = Local.name) -> None:
        self._folder = project / ".keyturn" / "local" / "postgresql"
        self._database = embedded(environment).database
        self._principals = (f"{self._database}_app_a", f"{self._database}_app_b")

    @contextmanager
    def grant_to_one_user_only(self) -> Iterator[None]:
        """A table that only the login in use may read: a grant that was given to it directly."""
        used = self._used()
        self._execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS public.audit (line text)"),
            sql.SQL("GRANT SELECT ON public.audit TO {}").format(sql.Identifier(used)),
        )
        try:
            yield
        finally:
            self.clear()

    @contextmanager
    def policy_for_one_user(self) -> Iterator[None]:
        """A row-level policy on the orders that names the login in use: another one may connect, and writes nothing."""
        used = sql.Literal(self._used())
        self._execute(
            sql.SQL("ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY"),
            sql.SQL("ALTER TABLE public.orders FORCE ROW LEVEL SECURITY"),
            sql.SQL(POLICY).format(used),
        )
        try:
            yield
        finally:
            self.clear()

    def let_in_again(self) -> str:
        """Let the application's other login in, as a database administrator might who did not know why it was locked.
        Returns its name."""
        used = self._used()
        (other,) = (user for user in self._principals if user != used)
        password = sql.Literal(secrets.token_urlsafe())
        self._execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(other), password))
        return other

    def clear(self) -> None:
        """Take away what was planted, also by a run that died."""
        self._execute(
            sql.SQL("DROP TABLE IF EXISTS public.audit"),
            sql.SQL("DROP POLICY IF EXISTS planted ON public.orders"),
            sql.SQL("ALTER TABLE public.orders NO FORCE ROW LEVEL SECURITY"),
            sql.SQL("ALTER TABLE public.orders DISABLE ROW LEVEL SECURITY"),
        )

    def _used(self) -> str:
        """The application's login that has the most sessions now."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT usename FROM pg_stat_activity WHERE usename = ANY (%s) "
                "GROUP BY 1 ORDER BY count(*) DESC LIMIT 1",
                [list(self._principals)],
            ).fetchone()
        return str(row[0]) if row else self._principals[0]

    def _execute(self, *statements: sql.SQL | sql.Composed) -> None:
        with self._connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def _connect(self) -> psycopg.Connection[Any]:
        login = json.loads(superuser(self._folder).reveal())
        return psycopg.connect(
            host=login["host"],
            port=login["port"],
            user=login["username"],
            password=login["password"],
            dbname=self._database,
        )
