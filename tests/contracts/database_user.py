"""What every kind that turns users of a database server must do, beyond what all kinds with a target must."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pytest

from rotation.credentials import CredentialKind, HasAdministrator, ReadSecret, ReportsUsage
from rotation.errors import TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Strategy, Usage
from rotation.secret_value import SecretValue
from tests.contracts.credential_kind import SECRET, Make, OverlapContract, TargetContract, installed
from tests.fixtures.ports import closed_port

KindOf = TypeVar("KindOf", bound=CredentialKind)


class MakesKinds(Protocol):
    @property
    def kind(self) -> Make: ...


class TurnsContract(TargetContract):
    """For kinds that have two principals in turn, or one that changes in place. ``orders`` makes them."""

    strategies = frozenset({Strategy.ALTERNATING, Strategy.SINGLE})
    strategy: Strategy

    @pytest.fixture
    def make(self, orders: MakesKinds) -> Make:
        return orders.kind

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(self.strategy)


class Database(Protocol):
    """A database of a server. ``administrator`` is a login in AWS's shape."""

    @property
    def name(self) -> str: ...

    @property
    def administrator(self) -> SecretValue: ...


@dataclass(frozen=True)
class Users(ABC, Generic[KindOf]):
    """A database, and the kinds that turn its users: ``…_a`` and ``…_b``, or one without an ending."""

    database: Database

    product: ClassVar[str]
    ended: ClassVar[type[Exception]]  # what a session raises that the server has ended

    @abstractmethod
    def make(self, options: dict[str, Any], strategy: Strategy, read: ReadSecret) -> KindOf:
        """A kind with these options, and those that are the server's own."""

    @abstractmethod
    def make_user(self, username: str, password: str) -> None:
        """A user that somebody else makes."""

    @abstractmethod
    def session(self, credential: Credential) -> AbstractContextManager[Callable[[], object]]:
        """An open session, as what asks the server for something there."""

    @property
    def base(self) -> str:
        """What the users' names begin with."""
        return f"{self.database.name}_usr"

    @property
    def administrator(self) -> SecretValue:
        return self.database.administrator

    def with_administrator(self, strategy: Strategy, changes: dict[str, Any], **options: Any) -> KindOf:
        """A kind whose administrator's secret says something else."""
        login = SecretValue(json.dumps(json.loads(self.administrator.reveal()) | changes))
        own = {"administrator": "orders/admin", "username_base": self.base, "dbname": self.database.name}
        return self.make(own | options, strategy, {"orders/admin": login}.__getitem__)

    def kind(self, strategy: Strategy = Strategy.ALTERNATING, **options: Any) -> KindOf:
        return self.with_administrator(strategy, {}, **options)

    def adopted(self, generation: int = 1, username: str = "legacy", **changes: Any) -> Credential:
        """The credential of a user that somebody else made (and must have made, with the password "old-password")."""
        login = json.loads(self.administrator.reveal())
        login |= {"username": f"{self.base}_{username}", "password": "old-password"} | changes
        return Credential(SECRET, generation, SecretValue(json.dumps(login)))

    def legacy(self) -> Credential:
        """The credential of a user that somebody else has made, under a name of its own."""
        credential = self.adopted()
        self.make_user(user_of(credential), "old-password")
        return credential


def user_of(credential: Credential) -> str:
    return str(json.loads(credential.value.reveal())["username"])


class DatabaseUserContract(TurnsContract):
    """For both strategies."""

    @pytest.fixture
    def unreachable(self, orders: Users[CredentialKind]) -> CredentialKind:
        return orders.with_administrator(self.strategy, {"port": closed_port()})

    @pytest.fixture
    def unauthorized(self, orders: Users[CredentialKind]) -> CredentialKind:
        return orders.with_administrator(self.strategy, {"password": "not-the-password"})

    def hidden_part(self, value: SecretValue) -> str:
        return str(json.loads(value.reveal())["password"])

    @pytest.fixture
    def administrator(self, orders: Users[CredentialKind]) -> SecretValue:
        return orders.administrator

    def test_the_probe_tells_a_dead_server_from_a_refused_administrator(
        self, kind: CredentialKind, unreachable: CredentialKind, unauthorized: CredentialKind
    ) -> None:
        _probe(kind)
        with pytest.raises(Unavailable):
            _probe(unreachable)
        with pytest.raises(Unauthorized):
            _probe(unauthorized)

    def test_a_missing_database_is_unknown(self, kind: CredentialKind) -> None:
        login = json.loads(installed(kind, 1).value.reveal()) | {"dbname": "nowhere"}
        assert kind.check(Credential(SECRET, 1, SecretValue(json.dumps(login)))) is Acceptance.UNKNOWN

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "not json: hunter2",
            '{"username": "hunter2"}',
            '{"password": ["hunter2"]}',
            '{"UserName": "hunter2"}',
            '{"Password": ["hunter2"]}',
        ],
    )
    def test_a_value_of_another_shape_is_refused_without_showing_it(
        self, kind: CredentialKind, orders: Users[CredentialKind], text: str
    ) -> None:
        with pytest.raises(TargetError, match=f"generation 7 of orders/db is not a {orders.product} login") as caught:
            kind.check(Credential(SECRET, 7, SecretValue(text)))
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


class UsersInTurnContract(DatabaseUserContract, OverlapContract):
    """For two users."""

    strategy = Strategy.ALTERNATING

    def test_two_users_take_turns_and_come_back_after_a_revocation(
        self, kind: CredentialKind, orders: Users[CredentialKind]
    ) -> None:
        current: Credential | None = None
        users = []
        for generation in range(1, 5):
            new = installed(kind, generation, current)
            if current is not None:
                kind.revoke(current, new)
                assert kind.check(current) is Acceptance.DENIED
            assert kind.check(new) is Acceptance.ACCEPTED
            users.append(user_of(new))
            current = new
        assert users == [f"{orders.base}_a", f"{orders.base}_b"] * 2

    def test_an_open_session_goes_on_after_a_revocation_unless_it_is_to_end(
        self, kind: CredentialKind, orders: Users[CredentialKind]
    ) -> None:
        first = installed(kind, 1)
        second = installed(kind, 2, first)
        assert isinstance(kind, ReportsUsage)
        assert kind.usage(first, second) == Usage(sessions=0)
        with orders.session(first) as ask:
            kind.revoke(first, second)
            ask()
            assert kind.usage(first, second) == Usage(sessions=1)
            assert kind.usage(first, replace(first, generation=3)) is None, "they are those of the current value"
            kind.revoke(first, second, end_sessions=True)
            with pytest.raises(orders.ended):
                ask()

    def test_the_first_rotation_of_an_adopted_user_goes_to_a(
        self, kind: CredentialKind, orders: Users[CredentialKind]
    ) -> None:
        legacy = orders.legacy()
        assert kind.check(legacy) is Acceptance.ACCEPTED
        second = installed(kind, 2, legacy)
        assert user_of(second) == f"{orders.base}_a"
        assert kind.check(legacy) is Acceptance.ACCEPTED

    def test_an_adopted_user_is_not_made_again_when_it_is_gone(
        self, kind: CredentialKind, orders: Users[CredentialKind]
    ) -> None:
        with pytest.raises(TargetError, match="no longer has"):
            kind.install(orders.adopted(2, "nobody"), None)

    def test_keyturns_own_administrator_is_never_revoked(
        self, kind: CredentialKind, orders: Users[CredentialKind]
    ) -> None:
        administrator = Credential(SECRET, 1, orders.administrator)
        with pytest.raises(TargetError, match="own administrator"):
            kind.revoke(administrator, installed(kind, 2, administrator))


def _probe(kind: CredentialKind) -> None:
    assert isinstance(kind, HasAdministrator)
    kind.probe()
