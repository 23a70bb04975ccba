"""The emulated users, access keys and identities of Tencent Cloud, by the official SDK."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential

from tests.fixtures.tencent import TencentCloud, ask, refused

DAY = 86400


@pytest.fixture
def cam(tencent: TencentCloud) -> Any:
    return tencent.client("cam")


@pytest.fixture
def user(tencent: TencentCloud, cam: Any) -> int:
    """The UIN of a user without keys."""
    uin: int = ask(cam, "AddUser", Name=tencent.name("user")).Uin
    return uin


def new_key(client: Any, user: int, **more: Any) -> Any:
    return ask(client, "CreateAccessKey", TargetUin=user, **more).AccessKey


def keys(client: Any, user: int) -> dict[str, str]:
    found = ask(client, "ListAccessKeys", TargetUin=user).AccessKeys
    return {key.AccessKeyId: key.Status for key in found}


def identity(tencent: TencentCloud, credential: Credential) -> dict[str, str]:
    """What GetCallerIdentity says of who signs with it; the SDK's sts is a package of its own."""
    profile = tencent.client("ssm").profile
    client = CommonClient("sts", "2018-08-13", credential, tencent.region, profile)
    answer: dict[str, str] = client.call_json("GetCallerIdentity", {})["Response"]
    return answer


def test_a_new_key_signs_at_once_as_its_user(tencent: TencentCloud, cam: Any, user: int) -> None:
    key = new_key(cam, user, Description="keyturn-7")
    found = identity(tencent, Credential(key.AccessKeyId, key.SecretAccessKey))
    assert (found["UserId"], found["AccountId"], found["Type"]) == (str(user), "100000000001", "CAMUser")
    listed = ask(cam, "ListAccessKeys", TargetUin=user).AccessKeys
    assert [(one.AccessKeyId, one.Description) for one in listed] == [(key.AccessKeyId, "keyturn-7")]


def test_a_user_has_at_most_two_keys(cam: Any, user: int) -> None:
    first, second = new_key(cam, user), new_key(cam, user)
    with refused("OperationDenied.AccessKeyOverLimit"):
        new_key(cam, user)
    ask(cam, "UpdateAccessKey", TargetUin=user, AccessKeyId=first.AccessKeyId, Status="Inactive")
    with refused("OperationDenied.AccessKeyOverLimit"):
        new_key(cam, user)
    ask(cam, "DeleteAccessKey", TargetUin=user, AccessKeyId=first.AccessKeyId)
    third = new_key(cam, user)
    assert list(keys(cam, user)) == [second.AccessKeyId, third.AccessKeyId]


def test_a_key_that_is_inactive_or_deleted_does_not_sign(tencent: TencentCloud, cam: Any, user: int) -> None:
    key = new_key(cam, user)
    credential = Credential(key.AccessKeyId, key.SecretAccessKey)
    ask(cam, "UpdateAccessKey", TargetUin=user, AccessKeyId=key.AccessKeyId, Status="Inactive")
    with refused("AuthFailure.SecretIdNotFound"):
        identity(tencent, credential)
    ask(cam, "UpdateAccessKey", TargetUin=user, AccessKeyId=key.AccessKeyId, Status="Active")
    assert identity(tencent, credential)["UserId"] == str(user)
    ask(cam, "UpdateAccessKey", TargetUin=user, AccessKeyId=key.AccessKeyId, Status="Inactive")
    ask(cam, "DeleteAccessKey", TargetUin=user, AccessKeyId=key.AccessKeyId)
    with refused("AuthFailure.SecretIdNotFound"):
        identity(tencent, credential)


def test_an_active_key_is_not_deleted(cam: Any, user: int) -> None:
    key = new_key(cam, user)
    with refused("FailedOperation.Accesskey"):
        ask(cam, "DeleteAccessKey", TargetUin=user, AccessKeyId=key.AccessKeyId)
    assert keys(cam, user) == {key.AccessKeyId: "Active"}


def test_a_key_belongs_to_its_user_only(tencent: TencentCloud, cam: Any, user: int) -> None:
    key = new_key(cam, user)
    another = ask(cam, "AddUser", Name=tencent.name("user")).Uin
    for action, more in (("UpdateAccessKey", {"Status": "Inactive"}), ("DeleteAccessKey", {})):
        with refused("ResourceNotFound.SecretNotExist"):
            ask(cam, action, TargetUin=another, AccessKeyId=key.AccessKeyId, **more)
    with refused("ResourceNotFound.UserNotExist"):
        ask(cam, "ListAccessKeys", TargetUin=999)


def test_a_key_without_a_target_is_the_callers_own(tencent: TencentCloud, cam: Any, user: int) -> None:
    key = new_key(cam, user)
    own = tencent.client("cam", Credential(key.AccessKeyId, key.SecretAccessKey))
    made = ask(own, "CreateAccessKey").AccessKey
    assert set(keys(cam, user)) == {key.AccessKeyId, made.AccessKeyId}


def test_of_todays_use_nothing_is_said_before_tomorrow(
    tencent: TencentCloud, cam: Any, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(cam, user)

    def last_used() -> str | None:
        rows = ask(cam, "GetSecurityLastUsed", SecretIdList=[key.AccessKeyId]).SecretIdLastUsedRows
        day: str | None = rows[0].LastUsedDate
        return day

    tencent.clock.stop()
    monkeypatch.setattr("tencentcloud.common.abstract_client.time", SimpleNamespace(time=tencent.clock.now))
    identity(tencent, Credential(key.AccessKeyId, key.SecretAccessKey))
    used_on = f"{tencent.clock.moment():%Y-%m-%d}"
    assert last_used() is None
    tencent.clock.advance(DAY)
    identity(tencent, Credential(key.AccessKeyId, key.SecretAccessKey))
    assert last_used() == used_on


def test_a_user_with_keys_is_deleted_by_force_only(tencent: TencentCloud, cam: Any) -> None:
    name = tencent.name("user")
    made = ask(cam, "AddUser", Name=name, UseApi=1)
    assert identity(tencent, Credential(made.SecretId, made.SecretKey))["UserId"] == str(made.Uin)
    with refused("InvalidParameter.SubUserNameInUse"):
        ask(cam, "AddUser", Name=name)
    with refused("OperationDenied.HaveKeys"):
        ask(cam, "DeleteUser", Name=name)
    ask(cam, "DeleteUser", Name=name, Force=1)
    with refused("AuthFailure.SecretIdNotFound"):
        identity(tencent, Credential(made.SecretId, made.SecretKey))
    with refused("ResourceNotFound.UserNotExist"):
        ask(cam, "GetUser", Name=name)


def test_a_role_that_is_assumed_signs_for_a_while(tencent: TencentCloud) -> None:
    root = Credential(tencent.key.secret_id, tencent.key.secret_key)
    sts = CommonClient("sts", "2018-08-13", root, tencent.region, tencent.client("ssm").profile)
    role = {"RoleArn": "qcs::cam::uin/100000000001:roleName/runner", "RoleSessionName": "tests", "DurationSeconds": 900}
    made = sts.call_json("AssumeRole", role)["Response"]["Credentials"]
    credential = Credential(made["TmpSecretId"], made["TmpSecretKey"], made["Token"])
    found = identity(tencent, credential)
    assert (found["Type"], found["UserId"]) == ("CAMRole", "runner:tests")
