"""Secrets that SSM rotates itself, on the emulated Tencent Cloud and a real MariaDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import stamina

from rotation import plugins
from rotation.credentials import CredentialKind
from rotation.credentials.tencent_product_secret import TencentProductSecret
from rotation.errors import DeclarationError, TargetError, Unavailable
from rotation.local.tencent.ssm_product import Instance, ProductSecrets
from rotation.model import Acceptance, Credential, Strategy, Usage
from rotation.mysql import connected
from rotation.retries import until
from rotation.secret_value import SecretValue
from tests.contracts.credential_kind import SECRET, Make, OverlapContract, installed, issued
from tests.contracts.staging import ATTEMPTS
from tests.fixtures.mariadb import PLAIN, MysqlDatabase
from tests.fixtures.ports import closed_port
from tests.fixtures.tencent import REGION, TencentCloud, ask

_GRANT = {"PrivilegeName": "GlobalPrivileges", "Privileges": ["SELECT"]}


@dataclass(frozen=True)
class Product:
    """A product secret of an instance that is really there."""

    tencent: TencentCloud
    database: MysqlDatabase
    name: str

    def kind(self, strategy: Strategy = Strategy.ALTERNATING, **options: Any) -> TencentProductSecret:
        root = self.database.server.root
        given = {"product_secret": self.name, "host": root.host, "port": root.port, "dbname": self.database.name}
        given |= {"sslmode": PLAIN.sslmode, "patience": 5, **self.tencent.options, **options}
        return TencentProductSecret(given, strategy, lambda _: SecretValue(""))

    @property
    def rotations(self) -> int:
        return self.tencent.faults.calls().get("ssm.RotateProductSecret", 0)

    def ask(self, action: str, **parameters: Any) -> Any:
        return ask(self.tencent.client("ssm"), action, SecretName=self.name, **parameters)


@pytest.fixture
def product(tencent: TencentCloud, mysql_database: MysqlDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Product]:
    monkeypatch.setattr(tencent.cloud.tasks, "seconds", 0.05)
    root, instance = mysql_database.server.root, tencent.name("cdb")
    access = Instance(host=root.host, port=root.port, user=root.username, password=root.password.reveal())
    tencent.cloud.service(ProductSecrets).connect(instance, access)
    made = Product(tencent, mysql_database, tencent.name("product"))
    flow = made.ask(
        "CreateProductSecret",
        UserNamePrefix=f"p{mysql_database.name.removeprefix('orders_')}",
        ProductName="Mysql",
        InstanceID=instance,
        Domains=["%"],
        PrivilegesList=[_GRANT],
        EnableRotation=True,
        RotationFrequency=365,
        RotationBeginTime="2099-01-01 00:00:00",
    ).FlowID
    ssm = tencent.client("ssm")
    until(
        lambda: ask(ssm, "DescribeAsyncRequestInfo", FlowID=flow).TaskStatus,
        lambda status: status == 1,
        what="the product secret",
    )
    tencent.faults.forget_calls()
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield made
    for number in (1, 2):
        mysql_database.run(f"DROP USER IF EXISTS p{mysql_database.name.removeprefix('orders_')}_{number}@'%'")


@pytest.fixture
def kind(product: Product) -> TencentProductSecret:
    return product.kind()


class TestTencentProductSecret(OverlapContract):
    strategies = frozenset({Strategy.ALTERNATING})

    @pytest.fixture
    def make(self, product: Product) -> Make:
        return product.kind

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(Strategy.ALTERNATING)


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "tencent_product_secret") is TencentProductSecret


def test_the_first_value_is_what_ssm_has_and_the_next_one_is_rotated(
    kind: TencentProductSecret, product: Product
) -> None:
    first = installed(kind, 1)
    assert product.rotations == 0
    second = installed(kind, 2, first)
    assert product.rotations == 1
    assert (kind.check(first), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.ACCEPTED)
    assert "Password" not in second.value.reveal()


def test_retiring_rotates_once_more_and_the_next_value_is_that_one(
    kind: TencentProductSecret, product: Product
) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    for _ in range(2):
        kind.revoke(first, second)
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)
    third = installed(kind, 3, second)
    assert product.rotations == 2
    assert [kind.check(one) for one in (first, second, third)] == [
        Acceptance.DENIED,
        Acceptance.ACCEPTED,
        Acceptance.ACCEPTED,
    ]


def test_what_a_dead_run_had_rotated_is_taken_and_the_current_login_stays(
    kind: TencentProductSecret, product: Product
) -> None:
    first = installed(kind, 1)
    kind.issue(first)  # and died before it was staged
    second = installed(kind, 2, first)
    assert product.rotations == 1
    assert (kind.check(first), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.ACCEPTED)


def test_a_candidate_that_was_turned_down_does_not_cost_the_current_login(
    kind: TencentProductSecret, product: Product
) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(second, first)
    third = installed(kind, 3, first)
    assert product.rotations == 1
    assert (kind.check(first), kind.check(third)) == (Acceptance.ACCEPTED, Acceptance.ACCEPTED)


def test_a_generation_whose_account_was_rotated_since_cannot_be_installed_late(kind: TencentProductSecret) -> None:
    first = installed(kind, 1)
    second = installed(kind, 2, first)
    kind.revoke(first, second)
    with pytest.raises(TargetError, match="superseded"):
        kind.install(first, second)


@pytest.mark.parametrize("fault", ["lost_reply", "cut"])
def test_a_rotation_whose_answer_was_lost_is_found_and_not_made_again(
    kind: TencentProductSecret, product: Product, fault: str
) -> None:
    first = installed(kind, 1)
    product.tencent.faults.plan("ssm.RotateProductSecret", fault)
    second = installed(kind, 2, first)
    assert product.rotations == 1
    assert (kind.check(first), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.ACCEPTED)


def test_a_rotation_that_never_arrived_is_unavailable_and_made_by_the_next_run(product: Product) -> None:
    kind = product.kind(patience=0.3)
    first = installed(kind, 1)
    product.tencent.faults.plan("ssm.RotateProductSecret", "drop")
    with pytest.raises(Unavailable, match="does not show"):
        kind.issue(first)
    assert kind.check(installed(kind, 2, first)) is Acceptance.ACCEPTED
    assert kind.check(first) is Acceptance.ACCEPTED


def test_a_rotation_that_ssm_fails_says_so_and_leaves_the_current_login(
    kind: TencentProductSecret, product: Product
) -> None:
    first = installed(kind, 1)
    product.tencent.cloud.tasks.fail()
    with pytest.raises(TargetError, match="the product refused"):
        kind.issue(first)
    assert kind.check(first) is Acceptance.ACCEPTED
    assert kind.check(installed(kind, 2, first)) is Acceptance.ACCEPTED


def test_a_slow_rotation_is_awaited_and_then_left_to_the_next_run(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = product.kind(patience=0.3)
    first = installed(kind, 1)
    monkeypatch.setattr(product.tencent.cloud.tasks, "seconds", 200)
    with pytest.raises(Unavailable, match="end of the rotation"):
        kind.issue(first)
    with pytest.raises(TargetError, match="being rotated"):
        kind.issue(first)
    product.tencent.clock.advance(200)
    product.tencent.clock.run()
    second = installed(kind, 2, first)
    assert product.rotations == 2  # of which one was refused
    assert (kind.check(first), kind.check(second)) == (Acceptance.ACCEPTED, Acceptance.ACCEPTED)


def test_a_secret_that_ssm_rotates_often_or_never_is_refused(kind: TencentProductSecret, product: Product) -> None:
    kind.probe()
    product.ask("UpdateRotationStatus", EnableRotation=True, Frequency=30, RotationBeginTime="2099-01-01 00:00:00")
    with pytest.raises(TargetError, match="every 30 days"):
        kind.probe()
    product.ask("UpdateRotationStatus", EnableRotation=False)
    with pytest.raises(TargetError, match="not enabled"):
        kind.probe()


def test_open_sessions_are_counted_by_the_account_itself(kind: TencentProductSecret) -> None:
    first = installed(kind, 1)
    assert kind.usage(first, None) == Usage(sessions=0)
    with connected(kind._login(kind._version(first)), PLAIN):
        assert kind.usage(first, None) == Usage(sessions=1)
        assert kind.usage(first, replace(first, generation=2)) is None, "they are those of the current value"


def test_a_server_that_is_not_there_is_unknown(product: Product) -> None:
    first = issued(product.kind(), 1)
    assert product.kind(port=closed_port()).check(first) is Acceptance.UNKNOWN
    assert product.kind(endpoint=f"http://127.0.0.1:{closed_port()}").check(first) is Acceptance.UNKNOWN


@pytest.mark.parametrize("text", ["", "not json: hunter2", '{"product_secret": ["hunter2"]}'])
def test_a_value_of_another_shape_is_refused_without_showing_it(text: str) -> None:
    options = {"product_secret": "a", "host": "db", "dbname": "orders", "region": REGION}
    kind = TencentProductSecret(options, Strategy.ALTERNATING, lambda _: SecretValue(""))
    with pytest.raises(TargetError, match="generation 7 of orders/db is no reference") as caught:
        kind.check(Credential(SECRET, 7, SecretValue(text)))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
    with pytest.raises(TargetError, match="another product secret"):
        kind.check(Credential(SECRET, 7, SecretValue(json.dumps({"product_secret": "b", "version": "1"}))))


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"product_secret": "a b"}, "product_secret"), ({"patience": 0}, "patience"), ({"colour": "red"}, "colour")],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    right = {"product_secret": "a", "host": "db", "dbname": "orders", "region": REGION}
    with pytest.raises(DeclarationError, match=reason):
        TencentProductSecret(right | options, Strategy.ALTERNATING, lambda _: SecretValue(""))
