"""Static roles of the database engine, on a real OpenBao and a real PostgreSQL, with a token that may do just that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hvac
import psycopg
import pytest
import stamina

from modules import vault_policies as policies
from rotation import plugins
from rotation.credentials import CredentialKind, vault_database_role
from rotation.credentials.vault_database_role import VaultDatabaseRole
from rotation.engine import Purpose, Request
from rotation.errors import Conflict, DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.manifest import Plugin
from rotation.model import Acceptance, Credential, Strategy, Usage
from rotation.secret_value import SecretValue
from tests.contracts.crash import NAME, WAIT, CrashContract, Stage
from tests.contracts.credential_kind import SECRET, InPlaceContract, OverlapContract, installed, issued
from tests.contracts.database_user import TurnsContract
from tests.fixtures.openbao import OpenBao, Proxy
from tests.fixtures.ports import closed_port
from tests.fixtures.postgresql import Database, Server, fresh_database

DECADE = "87600h"
RIGHT = {"roles": ["a", "b"], "host": "db", "dbname": "orders", "address": "http://127.0.0.1:1"}


@dataclass(frozen=True)
class Orders:
    """A database with the users ``…_a`` and ``…_b``, their static roles ``a`` and ``b``, and a runner's token."""

    database: Database
    openbao: OpenBao
    mount: str
    ledger: str
    token: str

    def user(self, role: str) -> str:
        return f"{self.database.name}_{role}"

    def options(self, strategy: Strategy = Strategy.ALTERNATING) -> dict[str, Any]:
        server = self.database.server
        roles = ["a"] if strategy is Strategy.SINGLE else ["a", "b"]
        place = {"host": server.host, "port": server.port, "dbname": self.database.name}
        return {"roles": roles, "mount": self.mount, "ledger": self.ledger, "address": self.openbao.address} | place

    def kind(self, strategy: Strategy = Strategy.ALTERNATING, **options: Any) -> VaultDatabaseRole:
        return VaultDatabaseRole(self.options(strategy) | options, strategy, _never_read)

    def static_creds(self, role: str) -> dict[str, Any]:
        client = self.openbao.client()
        found: dict[str, Any] = client.secrets.database.get_static_credentials(role, mount_point=self.mount)["data"]
        return found

    def rotated_by_somebody_else(self, role: str) -> None:
        self.openbao.client().secrets.database.rotate_static_role_credentials(role, mount_point=self.mount)

    def login(self, role: str) -> dict[str, Any]:
        """How psycopg logs in as the role's user now."""
        found = self.static_creds(role)
        return {"user": found["username"], "password": found["password"]}

    def adopted(self, generation: int = 1) -> Credential:
        """A value that refers to a role from before keyturn."""
        return Credential(SECRET, generation, SecretValue(json.dumps({"static_creds": f"{self.mount}/static-creds/a"})))


def _never_read(name: str) -> SecretValue:
    raise AssertionError(f"it needs no other secret, and asked for {name}")


def role_of(credential: Credential) -> str:
    return str(json.loads(credential.value.reveal())["static_creds"]).rpartition("/")[2]


@pytest.fixture(scope="module")
def with_users(postgresql: Server) -> Iterator[Database]:
    """One database for all tests here, as each has static roles of its own, whose making changes the passwords."""
    with fresh_database(postgresql) as database:
        administrator = json.loads(database.administrator.reveal())["username"]
        for user in (f"{database.name}_a", f"{database.name}_b"):
            database.run(f"CREATE ROLE {user} LOGIN PASSWORD 'old-password'")
            database.run(f"GRANT {database.owner} TO {user}")
            database.run(f"GRANT {user} TO {administrator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        yield database


@pytest.fixture
def orders(
    with_users: Database, openbao: OpenBao, database_mount: str, kv_mount: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Orders]:
    client = openbao.client()
    rules = policies.turn_static_roles(database_mount, ("a", "b"), kv_mount)
    with ExitStack() as cleanup:
        token = cleanup.enter_context(openbao.policy(policies.document(rules)))
        orders = Orders(with_users, openbao, database_mount, kv_mount, token)
        _connect(client, orders, json.loads(with_users.administrator.reveal()))
        for role in ("a", "b"):
            client.secrets.database.create_static_role(
                role, "orders", orders.user(role), [], rotation_period=DECADE, mount_point=database_mount
            )
        monkeypatch.setenv("VAULT_TOKEN", token)
        monkeypatch.delenv("VAULT_NAMESPACE", raising=False)
        cleanup.enter_context(stamina.set_testing(True, attempts=3))
        yield orders


def _connect(client: hvac.Client, orders: Orders, administrator: dict[str, Any]) -> None:
    server = orders.database.server
    client.secrets.database.configure(
        "orders",
        "postgresql-database-plugin",
        allowed_roles=["a", "b"],
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{server.host}:{server.port}/{orders.database.name}",
        username=administrator["username"],
        password=administrator["password"],
        password_authentication="scram-sha-256",
        mount_point=orders.mount,
    )


@pytest.fixture
def kind(orders: Orders) -> VaultDatabaseRole:
    return orders.kind()


class VaultDatabaseRoleContract(TurnsContract):
    @pytest.fixture
    def unreachable(self, orders: Orders) -> CredentialKind:
        return orders.kind(self.strategy, address=f"http://127.0.0.1:{closed_port()}")

    @pytest.fixture
    def unauthorized(self, orders: Orders, monkeypatch: pytest.MonkeyPatch) -> CredentialKind:
        monkeypatch.setenv("ANOTHER_TOKEN", "not-a-token")
        return orders.kind(self.strategy, auth={"method": "token", "variable": "ANOTHER_TOKEN"})

    @pytest.fixture(autouse=True)
    def _orders(self, orders: Orders) -> None:
        self.orders = orders

    def hidden_part(self, value: SecretValue) -> str:
        """A value is a reference: what nobody may see is the password that it leads to, and the runner's token."""
        if value.reveal() == self.orders.token:
            return value.reveal()
        return str(self.orders.static_creds(value.reveal().partition("static-creds/")[2][0])["password"])

    @pytest.fixture
    def administrator(self, orders: Orders) -> SecretValue:
        return SecretValue(orders.token)

    @pytest.fixture
    def target_log(self, orders: Orders) -> Callable[[], str]:
        return orders.openbao.log.read_text


class TestAlternating(VaultDatabaseRoleContract, OverlapContract):
    strategy = Strategy.ALTERNATING


class TestSingle(VaultDatabaseRoleContract, InPlaceContract):
    strategy = Strategy.SINGLE

    def test_the_database_denies_the_old_password_when_the_new_one_is_installed(
        self, kind: CredentialKind, orders: Orders
    ) -> None:
        first = installed(kind, 1)
        old = orders.login("a")
        installed(kind, 2, first)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            orders.database.run("SELECT 1", **old)


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "vault_database_role") is VaultDatabaseRole


def test_a_value_says_where_the_password_is_and_never_what_it_is(kind: VaultDatabaseRole, orders: Orders) -> None:
    value = json.loads(installed(kind, 1).value.reveal())
    assert len(value.pop("id")) == 32
    server = orders.database.server
    assert value == {
        "engine": "postgres",
        "host": server.host,
        "port": server.port,
        "dbname": orders.database.name,
        "static_creds": f"{orders.mount}/static-creds/a",
    }
    assert orders.database.run("SELECT 1", **orders.login("a")) == [(1,)]


def test_two_roles_take_turns_and_a_revoked_password_opens_nothing(kind: VaultDatabaseRole, orders: Orders) -> None:
    current: Credential | None = None
    for generation, role in enumerate("abab", start=1):
        new = installed(kind, generation, current)
        assert (role_of(new), kind.check(new)) == (role, Acceptance.ACCEPTED)
        if current is not None:
            old = orders.login(role_of(current))
            kind.revoke(current, new)
            assert kind.check(current) is Acceptance.DENIED
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                orders.database.run("SELECT 1", **old)
        current = new


def test_a_lost_reply_to_rotate_role_does_not_rotate_twice(orders: Orders, openbao_proxy: Proxy) -> None:
    openbao_proxy.fault("lost after", "rotate-role")
    kind = orders.kind(address=openbao_proxy.address)
    first = installed(kind, 1)
    assert openbao_proxy.calls[f"POST /v1/{orders.mount}/rotate-role/a"] == 1
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_request_to_rotate_that_was_lost_is_sent_again(orders: Orders, openbao_proxy: Proxy) -> None:
    openbao_proxy.fault("lost before", "rotate-role")
    kind = orders.kind(address=openbao_proxy.address)
    first = installed(kind, 1)
    assert openbao_proxy.calls[f"POST /v1/{orders.mount}/rotate-role/a"] == 2
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_run_that_dies_after_the_rotation_is_finished_by_the_next_without_another(
    orders: Orders, openbao_proxy: Proxy
) -> None:
    """The ledger's first write says what is to be rotated, its second that it was."""
    ledger = f"{orders.ledger}/data/_keyturn/{orders.mount}/a"
    for method in ("POST", "PUT"):
        openbao_proxy.fault("answered", f"{method} /v1/{ledger}", after=1, times=3)
    kind = orders.kind()
    first = issued(kind, 1)
    with pytest.raises(Exception, match="could not write"):
        orders.kind(address=openbao_proxy.address).install(first, None)
    rotated = orders.static_creds("a")["last_vault_rotation"]
    assert kind.check(first) is Acceptance.DENIED
    kind.install(first, None)
    assert orders.static_creds("a")["last_vault_rotation"] == rotated
    assert kind.check(first) is Acceptance.ACCEPTED


def test_the_place_of_a_run_that_died_before_the_rotation_is_taken_after_a_while(
    orders: Orders, openbao_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_database_role, "_TURN_SECONDS", 1.0)
    openbao_proxy.fault("answered", "rotate-role", times=3)
    first = issued(orders.kind(), 1)
    with pytest.raises(Unavailable):
        orders.kind(address=openbao_proxy.address).install(first, None)
    kind = orders.kind()
    kind.install(first, None)
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_password_that_was_changed_in_the_database_is_replaced_by_another_installation(
    kind: VaultDatabaseRole, orders: Orders
) -> None:
    first = installed(kind, 1)
    orders.database.run(f"ALTER ROLE {orders.user('a')} PASSWORD 'somebody-else-s'")
    assert kind.check(first) is Acceptance.DENIED
    kind.install(first, None)
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_retirement_whose_run_died_after_the_rotation_is_finished_and_ends_it_for_good(
    kind: VaultDatabaseRole, orders: Orders
) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    orders.rotated_by_somebody_else("a")  # as the dead run did, which could not note it any more
    rotated = orders.static_creds("a")["last_vault_rotation"]
    kind.revoke(first, second)
    assert orders.static_creds("a")["last_vault_rotation"] == rotated
    with pytest.raises(TargetError, match="superseded"):
        kind.install(first, second)


def test_a_rotation_behind_keyturns_back_is_found_and_the_next_generation_repairs_it(
    kind: VaultDatabaseRole, orders: Orders
) -> None:
    first = installed(kind, 1)
    orders.rotated_by_somebody_else("a")
    assert kind.check(first) is Acceptance.DENIED
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    assert kind.check(second) is Acceptance.ACCEPTED


def test_a_candidate_that_was_rotated_behind_keyturns_back_is_installed_again(
    kind: VaultDatabaseRole, orders: Orders
) -> None:
    first = installed(kind, 1)
    orders.rotated_by_somebody_else("a")
    kind.install(first, None)
    assert kind.check(first) is Acceptance.ACCEPTED


class TestAnAdoptedRole:
    def test_it_is_accepted_as_it_is_and_nothing_is_rotated(self, kind: VaultDatabaseRole, orders: Orders) -> None:
        before = orders.static_creds("a")
        assert kind.check(orders.adopted()) is Acceptance.ACCEPTED
        assert orders.static_creds("a") | {"ttl": 0} == before | {"ttl": 0}

    def test_the_first_rotation_goes_to_the_other_role_and_the_adopted_one_is_then_retired(
        self, kind: VaultDatabaseRole, orders: Orders
    ) -> None:
        adopted = orders.adopted()
        second = installed(kind, 2, adopted)
        assert (role_of(second), kind.check(adopted)) == ("b", Acceptance.ACCEPTED)
        kind.revoke(adopted, second)
        assert (kind.check(adopted), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)

    def test_going_back_to_it_rotates_nothing_while_it_is_accepted(
        self, kind: VaultDatabaseRole, orders: Orders
    ) -> None:
        before = orders.static_creds("a")["password"]
        third = orders.adopted(3)
        kind.install(third, installed(kind, 2, orders.adopted()))
        assert kind.check(third) is Acceptance.ACCEPTED
        assert orders.static_creds("a")["password"] == before


def test_sessions_are_counted_and_end_only_when_they_are_to(kind: VaultDatabaseRole, orders: Orders) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    assert kind.usage(first, second) == Usage(sessions=0)
    with orders.database.server.connect(orders.database.name, **orders.login("a")) as session:
        assert kind.usage(first, second) == Usage(sessions=1)
        assert kind.usage(first, replace(first, generation=3)) is None, "they are those of the current value"
        kind.revoke(first, second)
        assert session.execute("SELECT 1").fetchone() == (1,)
        kind.revoke(first, second, end_sessions=True)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_a_privilege_that_only_the_old_user_has_is_reported(kind: VaultDatabaseRole, orders: Orders) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    assert kind.missing(first, second) == ()
    orders.database.run(f"REVOKE {orders.database.owner} FROM {orders.user('b')}")
    try:
        assert "DELETE on table public.orders" in kind.missing(first, second)
    finally:
        orders.database.run(f"GRANT {orders.database.owner} TO {orders.user('b')}")


def test_a_role_that_vault_rotates_by_itself_is_refused_before_anything_is_changed(
    kind: VaultDatabaseRole, orders: Orders
) -> None:
    kind.probe()
    orders.openbao.client().secrets.database.create_static_role(
        "b", "orders", orders.user("b"), [], rotation_period="24h", mount_point=orders.mount
    )
    with pytest.raises(TargetError, match="rotates the static role b on its own, every 86400 s"):
        kind.probe()


def test_the_runners_token_can_do_nothing_more(orders: Orders) -> None:
    runner = orders.openbao.client(orders.token)
    beyond: list[Callable[[], object]] = [
        lambda: runner.secrets.database.create_static_role(
            "a", "orders", orders.user("b"), ["ALTER ROLE x SUPERUSER"], mount_point=orders.mount
        ),
        lambda: runner.secrets.database.delete_static_role("a", mount_point=orders.mount),
        lambda: runner.secrets.database.read_connection("orders", mount_point=orders.mount),
        lambda: runner.secrets.database.get_static_credentials("c", mount_point=orders.mount),
        lambda: runner.secrets.kv.v2.delete_metadata_and_all_versions(
            f"_keyturn/{orders.mount}/a", mount_point=orders.ledger
        ),
        lambda: runner.secrets.kv.v2.create_or_update_secret("orders", {}, mount_point=orders.ledger),
    ]
    for attempt in beyond:
        with pytest.raises(hvac.exceptions.Forbidden):
            attempt()


def test_a_ledger_that_was_deleted_stops_the_installation_and_says_how_to_take_it_back(
    kind: VaultDatabaseRole, orders: Orders
) -> None:
    first = installed(kind, 1)
    orders.openbao.client().secrets.kv.v2.delete_latest_version_of_secret(
        f"_keyturn/{orders.mount}/a", mount_point=orders.ledger
    )
    with pytest.raises(Conflict) as caught:
        kind.install(first, None)
    assert "vault kv undelete" in caught.value.remedy


def test_a_garbled_note_stops_the_rotation_and_says_where(kind: VaultDatabaseRole, orders: Orders) -> None:
    orders.openbao.client().secrets.kv.v2.create_or_update_secret(
        f"_keyturn/{orders.mount}/a", {"record": "nobody"}, mount_point=orders.ledger
    )
    with pytest.raises(TargetError, match=r"_keyturn/database-\d+/a was changed"):
        installed(kind, 1)


def test_a_role_that_is_gone_from_vault_is_an_error_and_no_denial(kind: VaultDatabaseRole, orders: Orders) -> None:
    first = installed(kind, 1)
    orders.openbao.client().secrets.database.delete_static_role("a", mount_point=orders.mount)
    with pytest.raises(TargetError, match="static-creds/a"):
        kind.check(first)


def test_a_sealed_server_is_unknown(kind: VaultDatabaseRole, orders: Orders) -> None:
    first = installed(kind, 1)
    with orders.openbao.sealed():
        assert kind.check(first) is Acceptance.UNKNOWN
    assert kind.check(first) is Acceptance.ACCEPTED


def test_the_probe_tells_a_refused_runner(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "not-a-token")
    with pytest.raises(Unauthorized):
        orders.kind().probe()


def test_what_it_will_do_is_said_without_asking_anybody(orders: Orders) -> None:
    kind = orders.kind(address=f"http://127.0.0.1:{closed_port()}")
    (only,) = kind.operations(1, None)
    assert only == f"{orders.mount}/rotate-role/a: Vault makes the password of generation 1"
    turn, retirement = kind.operations(2, 1)
    assert "for a or b, the one that generation 1 does not use" in turn
    assert "when generation 1 is retired" in retirement


@pytest.mark.parametrize("text", ["", "not json: hunter2", '{"password": "hunter2"}', '{"static_creds": ["hunter2"]}'])
def test_a_value_of_another_shape_is_refused_without_showing_it(text: str) -> None:
    kind = VaultDatabaseRole(RIGHT, Strategy.ALTERNATING, _never_read)
    with pytest.raises(TargetError, match="generation 7 of orders/db does not refer to a static role") as caught:
        kind.check(Credential(SECRET, 7, SecretValue(text)))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_value_that_refers_elsewhere_is_not_followed(kind: VaultDatabaseRole) -> None:
    elsewhere = Credential(SECRET, 1, SecretValue('{"static_creds": "sys/policy/root"}'))
    with pytest.raises(TargetError, match="not one of a, b"):
        kind.check(elsewhere)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"roles": ["a"]}, "the strategy alternating takes 2"),
        ({"roles": ["a", "a"]}, "two different roles"),
        ({"roles": ["a", "../b"]}, "roles"),
        ({"mount": "database/"}, "mount"),
        ({"host": None}, "host"),
        ({"port": 0}, "port"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        VaultDatabaseRole(RIGHT | options, Strategy.ALTERNATING, _never_read)


class TestWithTheEngine(CrashContract):
    """The kind in a real rotation, with its values in a KV engine."""

    @pytest.fixture(params=[Strategy.ALTERNATING, Strategy.SINGLE])
    def stage(self, request: pytest.FixtureRequest, tmp_path: Path, orders: Orders) -> Stage:
        credential = Plugin(kind="vault_database_role", options=orders.options(request.param))
        made = Stage.on_vault(tmp_path, orders.openbao, orders.ledger, credential, request.param)
        made.run(Request(initialize=True, wait=WAIT))
        return made


def test_a_role_in_use_is_taken_over_without_a_rotation_and_then_turned(orders: Orders, tmp_path: Path) -> None:
    credential = Plugin(kind="vault_database_role", options=orders.options())
    stage = Stage.on_vault(tmp_path, orders.openbao, orders.ledger, credential, Strategy.ALTERNATING)
    by_hand = {"static_creds": f"{orders.mount}/static-creds/a"}
    orders.openbao.client().secrets.kv.v2.create_or_update_secret(NAME, by_hand, mount_point=orders.ledger)
    before = orders.static_creds("a")["password"]
    assert stage.adopt() == 1
    assert stage.observed()["current"] == (1, Acceptance.ACCEPTED)
    assert orders.static_creds("a")["password"] == before
    stage.run(Request(wait=WAIT))
    stage.run(Request(purpose=Purpose.RETIRE, wait=WAIT))
    assert stage.observed() == {"current": (2, Acceptance.ACCEPTED), "pending": None, "previous": None}
    assert orders.static_creds("a")["password"] != before
