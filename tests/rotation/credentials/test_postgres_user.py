"""PostgreSQL users, on a real server and with an administrator that is no superuser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import psycopg
import pytest

from rotation import plugins
from rotation.credentials import CredentialKind, ReadSecret
from rotation.credentials.postgres_user import PostgresUser
from rotation.errors import DeclarationError, TargetError
from rotation.model import Acceptance, Credential, Strategy, Usage
from rotation.secret_value import SecretValue
from tests.contracts.credential_kind import SECRET, InPlaceContract, installed, issued
from tests.contracts.database_user import DatabaseUserContract, Users, UsersInTurnContract, user_of
from tests.fixtures.postgresql import Database


@dataclass(frozen=True)
class Orders(Users[PostgresUser]):
    """The users of a fresh database."""

    database: Database
    product: ClassVar[str] = "PostgreSQL"
    ended: ClassVar[type[Exception]] = psycopg.OperationalError

    def make(self, options: dict[str, Any], strategy: Strategy, read: ReadSecret) -> PostgresUser:
        return PostgresUser({"owner_role": self.database.owner} | options, strategy, read)

    def make_user(self, username: str, password: str) -> None:
        self.database.run(f"CREATE ROLE {username} LOGIN PASSWORD '{password}'")

    @contextmanager
    def session(self, credential: Credential) -> Iterator[Callable[[], object]]:
        with self.database.server.connect(self.database.name, **login_of(credential)) as session:
            yield lambda: session.execute("SELECT 1").fetchone()

    def comment(self, username: str) -> object:
        ((text,),) = self.database.run(f"SELECT shobj_description('{username}'::regrole, 'pg_authid')")
        return text


def login_of(credential: Credential) -> dict[str, Any]:
    """How psycopg logs in with it."""
    login = json.loads(credential.value.reveal())
    return {"user": login["username"], "password": login["password"]}


@pytest.fixture
def orders(orders_database: Database) -> Orders:
    return Orders(orders_database)


@pytest.fixture
def kind(orders: Orders) -> PostgresUser:
    return orders.kind()


class WithLog:
    @pytest.fixture
    def target_log(self, orders: Orders) -> Callable[[], str]:
        return orders.database.server.log.read_text


class TestAlternating(WithLog, UsersInTurnContract): ...


class TestSingle(WithLog, DatabaseUserContract, InPlaceContract):
    strategy = Strategy.SINGLE


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "postgres_user") is PostgresUser


def test_a_value_has_the_shape_that_aws_uses(orders: Orders) -> None:
    value = json.loads(orders.kind(password_length=40).issue(None).reveal())
    assert len(value.pop("password")) == 40
    assert value == {
        "engine": "postgres",
        "host": "127.0.0.1",
        "port": orders.database.server.port,
        "username": f"{orders.base}_a",
        "dbname": orders.database.name,
    }


def test_what_one_user_makes_the_other_can_change_and_it_survives_the_first_login(
    kind: PostgresUser, orders: Orders
) -> None:
    first = installed(kind, 1)
    orders.database.run("CREATE TABLE parcels (id int)", **login_of(first))
    orders.database.run("GRANT SELECT ON parcels TO PUBLIC", **login_of(first))
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    orders.database.run(f"DROP ROLE {login_of(first)['user']}")
    orders.database.run("ALTER TABLE parcels ADD item text", **login_of(second))
    orders.database.run("INSERT INTO parcels VALUES (1, 'pen')", **login_of(second))
    grants = "SELECT grantee FROM information_schema.role_table_grants WHERE table_name = 'parcels'"
    assert ("PUBLIC",) in orders.database.run(grants)


def test_the_administrator_that_has_ended_sessions_is_no_member_of_the_user_any_more(
    kind: PostgresUser, orders: Orders
) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(first, second, end_sessions=True)
    administrator = json.loads(orders.administrator.reveal())["username"]
    kept = f"SELECT pg_has_role('{administrator}', '{user_of(first)}', 'USAGE')"
    assert orders.database.run(kept) == [(False,)]


def test_usage_counts_sessions_but_not_keyturns_own(kind: PostgresUser, orders: Orders) -> None:
    first = installed(kind, 1)
    assert kind.usage(first, None) == Usage(sessions=0)
    name = orders.database.name
    with (
        orders.database.server.connect(name, **login_of(first)),
        orders.database.server.connect(name, **login_of(first), application_name="keyturn"),
    ):
        assert kind.usage(first, None) == Usage(sessions=1)


def test_somebody_elses_comment_is_kept(kind: PostgresUser, orders: Orders) -> None:
    first = installed(kind, 1)
    user = login_of(first)["user"]
    orders.database.run(f"COMMENT ON ROLE {user} IS 'the shop, ask Ann'")
    third = Credential(SECRET, 3, first.value)
    kind.install(third, first)
    kind.install(third, first)
    noted = 'keyturn: {"generation":3,"state":"installed","spent":3}'
    assert orders.comment(user) == f"the shop, ask Ann\n{noted}"


def test_a_garbled_note_stops_the_rotation_and_says_where(kind: PostgresUser, orders: Orders) -> None:
    first = installed(kind, 1)
    orders.database.run(f"COMMENT ON ROLE {login_of(first)['user']} IS 'keyturn: {{}} and {{\"state\": 1}}'")
    with pytest.raises(TargetError, match=f"comment of the role {login_of(first)['user']}"):
        kind.install(Credential(SECRET, 3, first.value), None)


class TestAnAdoptedUser:
    """A user from before keyturn, under a name of its own."""

    @pytest.fixture
    def legacy(self, orders: Orders) -> Credential:
        return orders.legacy()

    def test_it_cannot_be_revoked_without_the_right_to(self, kind: PostgresUser, legacy: Credential) -> None:
        second = installed(kind, 2, legacy)
        with pytest.raises(TargetError, match="permission denied"):
            kind.revoke(legacy, second)
        assert kind.check(legacy) is Acceptance.ACCEPTED

    def test_it_is_revoked_with_the_documented_grant(
        self, kind: PostgresUser, orders: Orders, legacy: Credential
    ) -> None:
        administrator = json.loads(orders.database.administrator.reveal())["username"]
        orders.database.run(
            f"GRANT {login_of(legacy)['user']} TO {administrator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
        )
        second = installed(kind, 2, legacy)
        kind.revoke(legacy, second)
        assert kind.check(legacy) is Acceptance.DENIED
        third = Credential(SECRET, 3, legacy.value)  # the rotation is undone after all
        kind.install(third, second)
        assert kind.check(third) is Acceptance.ACCEPTED

    def test_going_back_to_it_needs_no_right_while_it_is_accepted(self, kind: PostgresUser, legacy: Credential) -> None:
        second = installed(kind, 2, legacy)
        third = Credential(SECRET, 3, legacy.value)
        kind.install(third, second)
        assert kind.check(third) is Acceptance.ACCEPTED

    def test_what_it_owns_is_reported_as_missing(self, kind: PostgresUser, orders: Orders, legacy: Credential) -> None:
        orders.database.run(f"GRANT CREATE ON SCHEMA public TO {login_of(legacy)['user']}")
        orders.database.run("CREATE TABLE drafts (id int)", **login_of(legacy))
        assert "ownership of table public.drafts" in kind.missing(legacy, installed(kind, 2, legacy))


def test_a_superuser_works_as_the_administrator_too(orders: Orders) -> None:
    server = orders.database.server
    kind = orders.with_administrator(
        Strategy.ALTERNATING, {"username": server.username, "password": server.password.reveal()}
    )
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    with server.connect(orders.database.name, **login_of(first)) as session:
        kind.revoke(first, second, end_sessions=True)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)


def test_an_administrator_without_the_owner_role_is_refused_by_the_target_and_leaves_nothing(orders: Orders) -> None:
    orders.database.run("CREATE ROLE stranger NOLOGIN")
    try:
        kind = orders.kind(owner_role="stranger")
        first = issued(kind, 1)
        with pytest.raises(TargetError, match='permission denied to grant role "stranger"'):
            kind.install(first, None)
        assert kind.check(first) is Acceptance.DENIED
        assert orders.database.run(f"SELECT FROM pg_roles WHERE rolname = '{orders.base}_a'") == []
    finally:
        orders.database.run("DROP ROLE stranger")


class TestCheck:
    """Denied only when the server turned the login down; all else is unknown."""

    def test_a_user_that_may_not_log_in_is_denied(self, kind: PostgresUser, orders: Orders) -> None:
        first = installed(kind, 1)
        orders.database.run(f"ALTER ROLE {login_of(first)['user']} NOLOGIN")
        assert kind.check(first) is Acceptance.DENIED

    def test_a_user_out_of_connections_is_unknown(self, kind: PostgresUser, orders: Orders) -> None:
        first = installed(kind, 1)
        orders.database.run(f"ALTER ROLE {login_of(first)['user']} CONNECTION LIMIT 0")
        assert kind.check(first) is Acceptance.UNKNOWN


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"administrator": None}, "administrator"),
        ({"username_base": "Robert'); DROP"}, "username_base"),
        ({"username_base": "a" * 62}, "username_base"),
        ({"owner_role": ""}, "owner_role"),
        ({"username_base": "shop", "owner_role": "shop_a"}, "shop_a is also one of the users"),
        ({"password_length": 21}, "password_length"),
        ({"sslmode": "maybe"}, "sslmode"),
        ({"port": 70000}, "port"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    right = {"administrator": "admin", "username_base": "app", "owner_role": "owner", "dbname": "orders"}
    with pytest.raises(DeclarationError, match=reason):
        PostgresUser(right | options, Strategy.ALTERNATING, lambda _: SecretValue("{}"))
