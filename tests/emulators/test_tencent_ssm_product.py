"""The secrets that the emulated SSM of Tencent Cloud makes and rotates itself, by the official SDK."""

from __future__ import annotations

import json
from typing import Any

import pymysql
import pytest
from pymysql.constants import ER

from rotation.local.tencent.ssm_product import Instance, ProductSecrets
from tests.fixtures.mariadb import MysqlServer
from tests.fixtures.tencent import TencentCloud, ask, refused, running_tencent

DAY = 86400
GRANT = {"PrivilegeName": "GlobalPrivileges", "Privileges": ["SELECT", "SHOW DATABASES"]}
LATER = {"EnableRotation": True, "RotationBeginTime": "2099-01-01 00:00:00"}


@pytest.fixture
def ssm(tencent: TencentCloud) -> Any:
    return tencent.client("ssm")


def create(tencent: TencentCloud, instance: str = "cdb-unknown", **more: Any) -> str:
    """The name of a secret whose account was made."""
    name = tencent.name()
    made = begin_to_create(tencent, name, instance, **more)
    assert outcome(tencent, made.FlowID) == 1
    return name


def begin_to_create(tencent: TencentCloud, name: str, instance: str = "cdb-unknown", **more: Any) -> Any:
    return ask(
        tencent.client("ssm"),
        "CreateProductSecret",
        SecretName=name,
        UserNamePrefix="app",
        ProductName="Mysql",
        InstanceID=instance,
        Domains=["%"],
        PrivilegesList=[GRANT],
        **{**LATER, **more},
    )


def outcome(tencent: TencentCloud, flow: int) -> int:
    """How a task ended, when its time is over."""
    tencent.clock.advance(tencent.cloud.tasks.seconds + 0.001)
    tencent.clock.run()
    status: int = ask(tencent.client("ssm"), "DescribeAsyncRequestInfo", FlowID=flow).TaskStatus
    return status


def rotate(tencent: TencentCloud, name: str) -> int:
    return outcome(tencent, ask(tencent.client("ssm"), "RotateProductSecret", SecretName=name).FlowID)


def value(tencent: TencentCloud, name: str, version: str = "SSM_Current") -> dict[str, str]:
    text = ask(tencent.client("ssm"), "GetSecretValue", SecretName=name, VersionId=version).SecretString
    login: dict[str, str] = json.loads(text)
    return login


def test_a_secret_is_created_later_and_cannot_be_read_before(tencent: TencentCloud, ssm: Any) -> None:
    name = tencent.name()
    tencent.clock.stop()
    flow = begin_to_create(tencent, name).FlowID
    assert ask(ssm, "DescribeAsyncRequestInfo", FlowID=flow).TaskStatus == 0
    assert ask(ssm, "DescribeSecret", SecretName=name).Status == "Creating"
    with refused("ResourceUnavailable.ResourceUninitialized"):
        value(tencent, name)
    assert outcome(tencent, flow) == 1
    assert set(value(tencent, name)) == {"UserName", "Password"}
    assert ask(ssm, "DescribeSecret", SecretName=name).SecretType == 1


def test_a_secret_whose_account_is_refused_is_failed_and_can_be_deleted(tencent: TencentCloud, ssm: Any) -> None:
    name = tencent.name()
    tencent.cloud.tasks.fail()
    assert outcome(tencent, begin_to_create(tencent, name).FlowID) == 2
    assert ask(ssm, "DescribeSecret", SecretName=name).Status == "Failed"
    ask(ssm, "DeleteSecret", SecretName=name)


def test_two_accounts_take_turns_and_earlier_values_can_be_read(tencent: TencentCloud, ssm: Any) -> None:
    name = create(tencent)
    values = [value(tencent, name)]
    for _ in range(2):
        assert rotate(tencent, name) == 1
        values.append(value(tencent, name))
    first, second, third = (login["UserName"] for login in values)
    assert first == third != second
    assert {first[:4], second[:4]} == {"app_"}
    assert len({login["Password"] for login in values}) == 3
    history = ask(ssm, "DescribeRotationHistory", SecretName=name)
    assert [value(tencent, name, version) for version in history.VersionIDs] == list(reversed(values))
    in_effect, waiting = history.AccountInfoList
    assert (in_effect.AccountName, waiting.AccountName) == (first, second)


def test_a_history_has_ten_values_at_most(tencent: TencentCloud, ssm: Any) -> None:
    name = create(tencent)
    for _ in range(11):
        assert rotate(tencent, name) == 1
    assert ask(ssm, "DescribeRotationHistory", SecretName=name).TotalCount == 10


def test_a_rotation_that_fails_leaves_the_value_in_effect(tencent: TencentCloud) -> None:
    name = create(tencent)
    before = value(tencent, name)
    tencent.cloud.tasks.fail()
    assert rotate(tencent, name) == 2
    assert value(tencent, name) == before
    assert rotate(tencent, name) == 1
    assert value(tencent, name)["UserName"] != before["UserName"]


def test_a_rotation_takes_its_time_and_there_is_one_at_once(tencent: TencentCloud, ssm: Any) -> None:
    name = create(tencent)
    before = value(tencent, name)
    tencent.clock.stop()
    tencent.cloud.tasks.seconds = 120
    flow = ask(ssm, "RotateProductSecret", SecretName=name).FlowID
    with refused("FailedOperation"):
        ask(ssm, "RotateProductSecret", SecretName=name)
    tencent.clock.advance(119)
    assert ask(ssm, "DescribeAsyncRequestInfo", FlowID=flow).TaskStatus == 0
    assert value(tencent, name) == before
    tencent.clock.advance(1)
    assert ask(ssm, "DescribeAsyncRequestInfo", FlowID=flow).TaskStatus == 1
    assert value(tencent, name) != before


def test_only_an_enabled_secret_with_its_rotation_enabled_is_rotated(tencent: TencentCloud, ssm: Any) -> None:
    name = create(tencent, EnableRotation=False)
    with refused("FailedOperation.RotationForbidden"):
        ask(ssm, "RotateProductSecret", SecretName=name)
    ask(ssm, "UpdateRotationStatus", SecretName=name, Frequency=30, **LATER)
    ask(ssm, "DisableSecret", SecretName=name)
    with refused("ResourceUnavailable.ResourceDisabled"):
        ask(ssm, "RotateProductSecret", SecretName=name)
    ask(ssm, "EnableSecret", SecretName=name)
    assert rotate(tencent, name) == 1


def test_users_cannot_write_to_a_products_secret(tencent: TencentCloud, ssm: Any) -> None:
    name = create(tencent)
    before = value(tencent, name)
    for action in ("PutSecretValue", "UpdateSecret"):
        with refused("OperationDenied.AutoRotatedResource"):
            ask(ssm, action, SecretName=name, VersionId="SSM_Current", SecretString="mine")
    with refused("OperationDenied.AutoRotatedResource"):
        ask(ssm, "DeleteSecretVersion", SecretName=name, VersionId="SSM_Current")
    assert value(tencent, name) == before


def test_a_users_secret_is_not_rotated_by_a_product(tencent: TencentCloud, ssm: Any) -> None:
    name = tencent.name()
    ask(ssm, "CreateSecret", SecretName=name, SecretString="mine")
    for action in ("RotateProductSecret", "DescribeRotationDetail", "DescribeRotationHistory"):
        with refused("OperationDenied"):
            ask(ssm, action, SecretName=name)


@pytest.mark.parametrize("days", [29, 366])
def test_a_rotation_comes_every_30_to_365_days(tencent: TencentCloud, ssm: Any, days: int) -> None:
    with refused("InvalidParameterValue"):
        ask(ssm, "UpdateRotationStatus", SecretName=create(tencent), EnableRotation=True, Frequency=days)
    with refused("InvalidParameterValue"):
        begin_to_create(tencent, tencent.name(), RotationFrequency=days)
    with refused("MissingParameter"):
        begin_to_create(tencent, tencent.name(), RotationBeginTime=None)


def test_the_cloud_rotates_by_itself_when_the_days_are_over(tencent: TencentCloud, ssm: Any) -> None:
    name = create(tencent)
    before = value(tencent, name)
    ask(ssm, "UpdateRotationStatus", SecretName=name, EnableRotation=True, Frequency=30)  # from now on
    pass_time(tencent, 1)
    first = value(tencent, name)
    assert first != before
    pass_time(tencent, 29 * DAY)
    assert value(tencent, name) == first
    pass_time(tencent, 30 * DAY + 60)
    assert value(tencent, name) not in (before, first)


def pass_time(tencent: TencentCloud, seconds: float) -> None:
    """Let the cloud do what is due in so long, and in its tasks' time after it."""
    tencent.clock.advance(seconds)
    tencent.clock.advance(tencent.cloud.tasks.seconds)
    tencent.clock.run()


def test_a_rotation_under_way_is_finished_after_a_restart(tmp_path: Any) -> None:
    with running_tencent(tmp_path / "cloud.sqlite") as before:
        name = create(before)
        first = value(before, name)
        before.clock.stop()
        flow = ask(before.client("ssm"), "RotateProductSecret", SecretName=name).FlowID
    with running_tencent(tmp_path / "cloud.sqlite") as after:
        assert outcome(after, flow) == 1
        assert value(after, name)["UserName"] != first["UserName"]


def test_accounts_are_really_changed_on_an_instance_that_is_known(tencent: TencentCloud, mysql: MysqlServer) -> None:
    instance, root = tencent.name("cdb"), mysql.root
    access = Instance(host=root.host, port=root.port, user=root.username, password=root.password.reveal())
    tencent.cloud.service(ProductSecrets).connect(instance, access)
    name = create(tencent, instance)
    first = value(tencent, name)
    assert may_show_databases(mysql, first)
    assert rotate(tencent, name) == 1
    second = value(tencent, name)
    assert may_show_databases(mysql, second)
    assert may_show_databases(mysql, first), "the account that waits still works"
    assert rotate(tencent, name) == 1
    assert not may_show_databases(mysql, first)
    for user in (first, second):
        mysql.run(f"DROP USER '{user['UserName']}'@'%'")


def test_an_instance_that_does_not_answer_fails_the_rotation_and_says_no_password(tencent: TencentCloud) -> None:
    instance = tencent.name("cdb")
    access = Instance(host="127.0.0.1", port=9, user="root", password="canary-of-the-instance")
    tencent.cloud.service(ProductSecrets).connect(instance, access)
    flow = begin_to_create(tencent, tencent.name(), instance).FlowID
    assert outcome(tencent, flow) == 2
    told = ask(tencent.client("ssm"), "DescribeAsyncRequestInfo", FlowID=flow).Description
    assert told == "the instance answered with error 2003"


def may_show_databases(server: MysqlServer, login: dict[str, str]) -> bool:
    """Whether a login is let in, with its privileges. Any other end is an error."""
    try:
        connection = pymysql.connect(
            host=server.root.host, port=server.root.port, user=login["UserName"], password=login["Password"]
        )
    except pymysql.err.OperationalError as error:
        if error.args[0] != ER.ACCESS_DENIED_ERROR:
            raise
        return False
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        return ("mysql",) in cursor.fetchall()
