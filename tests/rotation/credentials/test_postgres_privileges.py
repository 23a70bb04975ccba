"""Differences between two users' privileges, planted one by one on a real server."""

from __future__ import annotations

import pytest

from rotation.credentials.postgres_user import PostgresUser
from rotation.model import Credential
from tests.contracts.credential_kind import installed
from tests.fixtures.postgresql import Database
from tests.rotation.credentials.test_postgres_user import Orders

_OBJECTS = """
CREATE SCHEMA depot;
CREATE TABLE public.audit (id int, note text);
CREATE VIEW public.latest AS SELECT 1 AS id;
CREATE SEQUENCE depot.numbers;
CREATE FUNCTION depot.secret_sum(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2';
REVOKE ALL ON FUNCTION depot.secret_sum FROM PUBLIC;
CREATE TYPE depot.mood AS ENUM ('good', 'bad');
REVOKE USAGE ON TYPE depot.mood FROM PUBLIC;
"""


@pytest.fixture
def orders(orders_database: Database) -> Orders:
    for statement in filter(str.strip, _OBJECTS.split(";")):
        orders_database.run(statement)
    return Orders(orders_database)


@pytest.fixture
def kind(orders: Orders) -> PostgresUser:
    return orders.kind()


@pytest.fixture
def users(kind: PostgresUser) -> tuple[Credential, Credential]:
    first = installed(kind, 1)
    return first, installed(kind, 2, first)


@pytest.mark.parametrize(
    ("plant", "lines"),
    [
        ("GRANT SELECT ON public.audit TO {old}", ["SELECT on table public.audit"]),
        (
            "GRANT INSERT ON public.audit TO {old} WITH GRANT OPTION",
            ["INSERT WITH GRANT OPTION on table public.audit", "INSERT on table public.audit"],
        ),
        ("GRANT DELETE ON public.latest TO {old}", ["DELETE on table public.latest"]),
        ("GRANT MAINTAIN ON public.audit TO {old}", ["MAINTAIN on table public.audit"]),
        ("GRANT UPDATE (note) ON public.audit TO {old}", ["UPDATE on column public.audit.note"]),
        ("GRANT USAGE ON SEQUENCE depot.numbers TO {old}", ["USAGE on sequence depot.numbers"]),
        ("GRANT USAGE ON SCHEMA depot TO {old}", ["USAGE on schema depot"]),
        (
            "GRANT EXECUTE ON FUNCTION depot.secret_sum TO {old}",
            ["EXECUTE on function depot.secret_sum(integer,integer)"],
        ),
        ("GRANT USAGE ON TYPE depot.mood TO {old}", ["USAGE on type depot.mood"]),
        ("GRANT SET ON PARAMETER log_statement TO {old}", ["SET on parameter log_statement"]),
        (
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_logdir() TO {old}",
            ["EXECUTE on function pg_ls_logdir()"],
        ),
        ("ALTER ROLE {old} CREATEDB", ["CREATEDB"]),
        ("ALTER ROLE {old} REPLICATION BYPASSRLS", ["REPLICATION", "BYPASSRLS"]),
        ("ALTER ROLE {new} NOINHERIT", ["INHERIT"]),
        ("ALTER ROLE {new} CONNECTION LIMIT 3", ["CONNECTION LIMIT -1"]),
        ("ALTER ROLE {new} VALID UNTIL '2040-01-01'", ["VALID UNTIL infinity"]),
        ("ALTER ROLE {old} SET statement_timeout = '5s'", ["setting statement_timeout"]),
        ("ALTER ROLE {old} IN DATABASE {database} SET work_mem = '5MB'", ["setting work_mem"]),
        (
            "GRANT pg_signal_backend TO {old} WITH INHERIT FALSE",
            ["SET ROLE to role pg_signal_backend"],
        ),
        (
            "GRANT pg_signal_backend TO {old} WITH SET FALSE, ADMIN TRUE",
            ["ADMIN OPTION on role pg_signal_backend", "inherited privileges of role pg_signal_backend"],
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {old}",
            ["SELECT on future tables of {owner} in schema public"],
        ),
        ("ALTER TABLE public.audit OWNER TO {old}", ["ownership of table public.audit"]),
        ("ALTER ROLE {old} SUPERUSER", ["SUPERUSER"]),
    ],
)
def test_a_difference_is_seen(
    kind: PostgresUser, orders: Orders, users: tuple[Credential, Credential], plant: str, lines: list[str]
) -> None:
    names = {"old": f"{orders.base}_a", "new": f"{orders.base}_b"}
    names |= {"owner": orders.database.owner, "database": orders.database.name}
    assert kind.missing(*users) == ()
    orders.database.run(plant.format(**names))
    try:
        missing = kind.missing(*users)
    finally:
        for user in (names["old"], names["new"]):  # grants on what all databases share would stay
            orders.database.run(f"DROP OWNED BY {user}")
    assert set(missing) >= {line.format(**names) for line in lines}
    if not plant.startswith(("ALTER TABLE", "ALTER ROLE {new} NOINHERIT")):  # these imply a line per privilege
        assert list(missing) == [line.format(**names) for line in lines]


def test_what_the_new_user_has_more_is_not_missing(
    kind: PostgresUser, orders: Orders, users: tuple[Credential, Credential]
) -> None:
    orders.database.run(f"GRANT SELECT ON public.audit TO {orders.base}_b")
    orders.database.run(f"ALTER ROLE {orders.base}_b CREATEDB")
    assert kind.missing(*users) == ()


def test_a_policy_that_names_a_user_is_not_seen(
    kind: PostgresUser, orders: Orders, users: tuple[Credential, Credential]
) -> None:
    """The documented limit: only the canary finds it."""
    orders.database.run("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    orders.database.run("ALTER TABLE orders FORCE ROW LEVEL SECURITY")
    orders.database.run(f"CREATE POLICY shop ON orders USING (session_user = '{orders.base}_a')")
    assert kind.missing(*users) == ()
