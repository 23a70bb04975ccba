"""Differences between two users' privileges, planted one by one on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rotation.errors import TargetError
from rotation.model import Credential
from tests.contracts.credential_kind import installed
from tests.fixtures.mariadb import MysqlServer, fresh_mysql_database
from tests.rotation.credentials.test_mysql_user import Orders

Pair = tuple[Orders, Credential, Credential]


@pytest.fixture(scope="module")
def pair(mysql: MysqlServer) -> Iterator[Pair]:
    """Two users of a database with something in it; each test takes back what it grants."""
    with fresh_mysql_database(mysql) as database:
        database.run("CREATE TABLE audit (id int, note text)")
        database.run("CREATE PROCEDURE tidy() SELECT 1")
        database.run(f"CREATE ROLE {database.name}_sub")
        orders = Orders(database)
        first = installed(orders.kind(), 1)
        try:
            yield orders, first, installed(orders.kind(), 2, first)
        finally:
            database.run(f"DROP ROLE {database.name}_sub")


@pytest.mark.parametrize(
    ("plant", "back", "lines"),
    [
        ("GRANT CREATE VIEW ON {db}.* TO {old}", "REVOKE CREATE VIEW ON {db}.* FROM {old}", ["CREATE VIEW on {db}.*"]),
        ("GRANT DROP ON {db}.audit TO {old}", "REVOKE DROP ON {db}.audit FROM {old}", ["DROP on {db}.audit"]),
        (
            "GRANT SELECT ON {db}.audit TO {old} WITH GRANT OPTION",
            "REVOKE SELECT, GRANT OPTION ON {db}.audit FROM {old}",
            ["GRANT OPTION on {db}.audit"],
        ),
        (
            "GRANT REFERENCES (id, note) ON {db}.audit TO {old}",
            "REVOKE REFERENCES (id, note) ON {db}.audit FROM {old}",
            ["REFERENCES on {db}.audit.id", "REFERENCES on {db}.audit.note"],
        ),
        (
            "GRANT EXECUTE ON PROCEDURE {db}.tidy TO {old}",
            "REVOKE EXECUTE ON PROCEDURE {db}.tidy FROM {old}",
            ["EXECUTE on procedure {db}.tidy"],
        ),
        ("GRANT RELOAD ON *.* TO {old}", "REVOKE RELOAD ON *.* FROM {old}", ["RELOAD on *.*"]),
        ("GRANT ALL ON {db}.* TO {old}", "REVOKE ALL ON {db}.* FROM {old}", ["ALL PRIVILEGES on {db}.*"]),
        ("GRANT ALL ON `orders%`.* TO {old}", "REVOKE ALL ON `orders%`.* FROM {old}", ["ALL PRIVILEGES on orders%.*"]),
        ("GRANT {db}_sub TO {old}", "REVOKE {db}_sub FROM {old}", ["role {db}_sub"]),
        (
            "GRANT {db}_sub TO {old} WITH ADMIN OPTION",
            "REVOKE {db}_sub FROM {old}",
            ["ADMIN OPTION on role {db}_sub", "role {db}_sub"],
        ),
        (
            "ALTER USER {new} WITH MAX_USER_CONNECTIONS 3",
            "ALTER USER {new} WITH MAX_USER_CONNECTIONS 0",
            ["max_user_connections unlimited"],
        ),
        # what is covered by something wider, or by the role
        ("GRANT SELECT ON {db}.* TO {old}", "REVOKE SELECT ON {db}.* FROM {old}", []),
        ("GRANT SELECT (id) ON {db}.audit TO {old}", "REVOKE SELECT (id) ON {db}.audit FROM {old}", []),
        ("GRANT RELOAD ON *.* TO {new}", "REVOKE RELOAD ON *.* FROM {new}", []),
    ],
)
def test_a_difference_is_seen(pair: Pair, plant: str, back: str, lines: list[str]) -> None:
    orders, first, second = pair
    names = {"old": f"'{orders.base}_a'@'%'", "new": f"'{orders.base}_b'@'%'", "db": orders.database.name}
    kind = orders.kind()
    assert kind.missing(first, second) == ()
    orders.database.run(plant.format(**names))
    try:
        missing = kind.missing(first, second)
    finally:
        orders.database.run(back.format(**names))
    assert list(missing) == [line.format(**names) for line in lines]


def test_a_wider_grant_of_the_new_user_covers_a_narrower_one_of_the_old(pair: Pair) -> None:
    orders, first, second = pair
    old, new, name = f"'{orders.base}_a'@'%'", f"'{orders.base}_b'@'%'", orders.database.name
    pattern = name.replace("_", r"\_")[:-1] + "%"
    grants = [
        (f"CREATE VIEW ON {name}.* TO {old}", f"CREATE VIEW ON {name}.* FROM {old}"),
        (f"DROP ON {name}.audit TO {old}", f"DROP ON {name}.audit FROM {old}"),
        (f"ALL ON `{pattern}`.* TO {new}", f"ALL ON `{pattern}`.* FROM {new}"),
    ]
    for grant, _ in grants:
        orders.database.run(f"GRANT {grant}")
    try:
        assert orders.kind().missing(first, second) == ()
        assert orders.kind().missing(second, first) == (f"ALL PRIVILEGES on {pattern}.*",)
    finally:
        for _, back in grants:
            orders.database.run(f"REVOKE {back}")


def test_what_the_role_has_through_another_role_is_both_users_alike(pair: Pair) -> None:
    orders, first, second = pair
    name, role = orders.database.name, orders.database.role
    orders.database.run(f"GRANT CREATE VIEW ON {name}.* TO {name}_sub")
    orders.database.run(f"GRANT {name}_sub TO {role}")
    orders.database.run(f"GRANT CREATE VIEW ON {name}.* TO '{orders.base}_a'@'%'")
    try:
        assert orders.kind().missing(first, second) == ()
    finally:
        orders.database.run(f"REVOKE {name}_sub FROM {role}")
        orders.database.run(f"REVOKE CREATE VIEW ON {name}.* FROM '{orders.base}_a'@'%'")


def test_a_user_that_is_gone_is_an_error(pair: Pair) -> None:
    orders, first, _ = pair
    with pytest.raises(TargetError, match="has no user"):
        orders.kind().missing(first, orders.adopted(2, "nobody"))
