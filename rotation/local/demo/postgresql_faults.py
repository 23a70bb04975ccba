"""Faults in a sample database that is PostgreSQL's."""

from __future__ import annotations

import json
import secrets
from typing import Any, ClassVar

import psycopg
from psycopg import sql

from rotation.local.demo.database_faults import DatabaseFaults
from rotation.local.embedded import FOLDER
from rotation.local.postgresql import superuser

POLICY = "CREATE POLICY planted ON public.orders USING (session_user = {0}) WITH CHECK (session_user = {0})"


class PostgresqlFaults(DatabaseFaults):
    """With a table of its own for the grant."""

    rule: ClassVar[str] = "a row-level policy"

    def _grant(self, user: str) -> None:
        self._execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS public.audit (line text)"),
            sql.SQL("GRANT SELECT ON public.audit TO {}").format(sql.Identifier(user)),
        )

    def _rule(self, user: str) -> None:
        self._execute(
            sql.SQL("ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY"),
            sql.SQL("ALTER TABLE public.orders FORCE ROW LEVEL SECURITY"),
            sql.SQL(POLICY).format(sql.Literal(user)),
        )

    def _let_in(self, user: str) -> None:
        password = sql.Literal(secrets.token_urlsafe())
        self._execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(user), password))

    def clear(self) -> None:
        self._execute(
            sql.SQL("DROP TABLE IF EXISTS public.audit"),
            sql.SQL("DROP POLICY IF EXISTS planted ON public.orders"),
            sql.SQL("ALTER TABLE public.orders NO FORCE ROW LEVEL SECURITY"),
            sql.SQL("ALTER TABLE public.orders DISABLE ROW LEVEL SECURITY"),
        )

    def _used(self) -> str:
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
        login = json.loads(superuser(self._project / FOLDER / "postgresql").reveal())
        return psycopg.connect(
            host=login["host"],
            port=login["port"],
            user=login["username"],
            password=login["password"],
            dbname=self._database,
        )
