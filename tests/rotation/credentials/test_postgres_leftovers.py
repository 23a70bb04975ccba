"""Logins that a retired generation left behind, or that somebody let in again, on a real server."""

from __future__ import annotations

import pytest

from rotation.credentials.postgres_user import PostgresUser
from rotation.errors import TargetError
from rotation.model import Acceptance, Credential, Leftover, Strategy
from tests.contracts.credential_kind import installed
from tests.fixtures.postgresql import Database
from tests.rotation.credentials.test_postgres_user import Orders, login_of


@pytest.fixture
def orders(orders_database: Database) -> Orders:
    return Orders(orders_database)


@pytest.fixture
def kind(orders: Orders) -> PostgresUser:
    return orders.kind()


@pytest.fixture
def turned(kind: PostgresUser) -> tuple[Credential, Credential]:
    """A first generation that was retired, and the second one, which is current."""
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    return first, second


def let_in(orders: Orders, credential: Credential) -> str:
    """Undo its retirement, as a database administrator would."""
    login = login_of(credential)
    orders.database.run(f"ALTER ROLE {login['user']} LOGIN PASSWORD '{login['password']}'")
    return str(login["user"])


def test_a_retired_login_is_no_leftover(kind: PostgresUser, turned: tuple[Credential, Credential]) -> None:
    assert kind.leftovers([turned[1]]) == ()


def test_a_generation_that_is_kept_explains_its_login(kind: PostgresUser) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    assert kind.leftovers([second, first]) == ()
    assert kind.leftovers([second]) == (Leftover(login_of(first)["user"], retired=False, sessions=0),)


def test_a_retired_login_that_was_let_in_again_is_found_and_locked_out(
    kind: PostgresUser, orders: Orders, turned: tuple[Credential, Credential]
) -> None:
    first, second = turned
    user = let_in(orders, first)
    (left,) = kind.leftovers([second])
    assert left == Leftover(user, retired=True, sessions=0)
    assert left.removable
    for _ in range(2):
        kind.lock_out(user, [second])
    assert kind.leftovers([second]) == ()
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)


def test_a_leftover_that_is_in_use_stays(
    kind: PostgresUser, orders: Orders, turned: tuple[Credential, Credential]
) -> None:
    first, second = turned
    user = let_in(orders, first)
    with orders.database.server.connect(orders.database.name, **login_of(first)):
        assert kind.leftovers([second]) == (Leftover(user, retired=True, sessions=1),)
        with pytest.raises(TargetError, match="in use"):
            kind.lock_out(user, [second])
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_login_that_keyturn_never_locked_out_stays(kind: PostgresUser) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    with pytest.raises(TargetError, match="was not locked out by keyturn"):
        kind.lock_out(login_of(first)["user"], [second])
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_login_that_a_kept_generation_uses_or_that_is_another_s_stays(
    kind: PostgresUser, orders: Orders, turned: tuple[Credential, Credential]
) -> None:
    for principal in (login_of(turned[1])["user"], orders.database.owner):
        with pytest.raises(TargetError, match="no leftover"):
            kind.lock_out(principal, [turned[1]])


def test_a_single_user_leaves_nothing_behind(orders: Orders) -> None:
    kind = orders.kind(Strategy.SINGLE)
    assert kind.leftovers([installed(kind, 1)]) == ()
