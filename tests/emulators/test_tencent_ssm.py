"""The emulated Secrets Manager of Tencent Cloud: secrets of users, by the official SDK."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tencentcloud.common.exception import TencentCloudSDKException

from rotation.local.tencent.cloud import Settings
from tests.fixtures.tencent import TencentCloud, ask, refused, running_tencent

DAY = 86400


@pytest.fixture
def ssm(tencent: TencentCloud) -> Any:
    return tencent.client("ssm")


@pytest.fixture
def name(tencent: TencentCloud, ssm: Any) -> str:
    """The name of a secret with the version SSM_Current."""
    name = tencent.name()
    ask(ssm, "CreateSecret", SecretName=name, SecretString="one")
    return name


def text(client: Any, name: str, version: str) -> str:
    value: str = ask(client, "GetSecretValue", SecretName=name, VersionId=version).SecretString
    return value


def put(client: Any, name: str, version: str, value: str = "value") -> None:
    ask(client, "PutSecretValue", SecretName=name, VersionId=version, SecretString=value)


def versions(client: Any, name: str) -> list[str]:
    return [version.VersionId for version in ask(client, "ListSecretVersionIds", SecretName=name).Versions or []]


def status(client: Any, name: str) -> str:
    found: str = ask(client, "DescribeSecret", SecretName=name).Status
    return found


def test_a_slot_as_terraforms_provider_makes_it_has_no_version_and_takes_a_first_value(
    tencent: TencentCloud, ssm: Any
) -> None:
    name = tencent.name()
    ask(ssm, "CreateSecret", SecretName=name, VersionId="default", SecretString="default")
    ask(ssm, "DeleteSecretVersion", SecretName=name, VersionId="default")
    assert ask(ssm, "ListSecretVersionIds", SecretName=name).Versions is None
    assert status(ssm, name) == "Enabled"
    with refused("ResourceNotFound"):
        text(ssm, name, "SSM_Current")
    put(ssm, name, "SSM_Current", "first")
    assert text(ssm, name, "SSM_Current") == "first"


def test_a_secret_is_made_once_with_the_version_ssm_current(ssm: Any, name: str) -> None:
    assert (versions(ssm, name), text(ssm, name, "SSM_Current")) == (["SSM_Current"], "one")
    with refused("ResourceInUse.SecretExists"):
        ask(ssm, "CreateSecret", SecretName=name, SecretString="two")
    assert text(ssm, name, "SSM_Current") == "one"


@pytest.mark.parametrize("values", [{}, {"SecretString": ""}, {"SecretString": "a", "SecretBinary": "YQ=="}])
def test_a_value_is_text_or_binary_and_not_both(ssm: Any, name: str, values: dict[str, str]) -> None:
    with refused("InvalidParameter"):
        ask(ssm, "PutSecretValue", SecretName=name, VersionId="v", **values)
    assert versions(ssm, name) == ["SSM_Current"]


def test_the_value_that_is_not_used_comes_back_empty(ssm: Any, name: str) -> None:
    binary = base64.b64encode(b"\x00\xff").decode()
    ask(ssm, "PutSecretValue", SecretName=name, VersionId="binary", SecretBinary=binary)
    found = ask(ssm, "GetSecretValue", SecretName=name, VersionId="binary")
    assert (found.SecretBinary, found.SecretString) == (binary, "")
    assert ask(ssm, "GetSecretValue", SecretName=name, VersionId="SSM_Current").SecretBinary == ""
    with refused("InvalidParameterValue"):
        ask(ssm, "PutSecretValue", SecretName=name, VersionId="v", SecretBinary="no base64!")


def test_a_version_that_exists_is_refused_even_with_its_own_value(ssm: Any, name: str) -> None:
    put(ssm, name, "g1", "same")
    for value in ("same", "other"):
        with refused("ResourceInUse.VersionIdExists"):
            put(ssm, name, "g1", value)
    assert text(ssm, name, "g1") == "same"


def test_of_many_who_put_the_same_version_at_once_one_wins(tencent: TencentCloud, name: str) -> None:
    def attempt(number: int) -> str:
        try:
            put(tencent.client("ssm"), name, "g1", f"of {number}")
        except TencentCloudSDKException as error:
            return str(error.code)
        return f"of {number}"

    with ThreadPoolExecutor(8) as runners:
        ends = list(runners.map(attempt, range(8)))
    (winner,) = [end for end in ends if end != "ResourceInUse.VersionIdExists"]
    assert text(tencent.client("ssm"), name, "g1") == winner


def test_an_eleventh_version_is_refused_until_one_is_deleted(ssm: Any, name: str) -> None:
    for number in range(9):
        put(ssm, name, f"g{number}")
    with refused("LimitExceeded"):
        put(ssm, name, "g9")
    ask(ssm, "DeleteSecretVersion", SecretName=name, VersionId="g0")
    put(ssm, name, "g9")
    assert len(versions(ssm, name)) == 10


def test_an_update_overwrites_one_version_in_place_on_no_condition(ssm: Any, name: str) -> None:
    put(ssm, name, "g1", "kept")
    ask(ssm, "UpdateSecret", SecretName=name, VersionId="SSM_Current", SecretString="two")
    assert (text(ssm, name, "SSM_Current"), text(ssm, name, "g1")) == ("two", "kept")
    with refused("ResourceNotFound"):
        ask(ssm, "UpdateSecret", SecretName=name, VersionId="nothing", SecretString="two")
    assert versions(ssm, name) == ["SSM_Current", "g1"]


def test_a_value_has_4096_bytes_at_most_unless_the_server_is_told_otherwise(ssm: Any, name: str) -> None:
    put(ssm, name, "full", "ä" * 2048)
    for action in ("PutSecretValue", "UpdateSecret"):
        with refused("InvalidParameterValue"):
            ask(
                ssm,
                action,
                SecretName=name,
                VersionId="full" if "Update" in action else "v",
                SecretString="ä" * 2048 + "x",
            )
    with refused("InvalidParameterValue"):
        binary = base64.b64encode(bytes(4097)).decode()
        ask(ssm, "PutSecretValue", SecretName=name, VersionId="v", SecretBinary=binary)
    with running_tencent(settings=Settings(value_limit=32768)) as larger:
        ask(larger.client("ssm"), "CreateSecret", SecretName="large", SecretString="x" * 32768)
        with refused("InvalidParameterValue"):
            ask(larger.client("ssm"), "CreateSecret", SecretName="larger", SecretString="x" * 32769)


@pytest.mark.parametrize("bad", ["", "_a", "-a", "a.b", "a/b", "ä", "a" * 129])
def test_a_secret_has_a_plain_name_of_at_most_128_bytes(ssm: Any, bad: str) -> None:
    with refused("InvalidParameterValue"):
        ask(ssm, "CreateSecret", SecretName=bad, SecretString="one")


@pytest.mark.parametrize("bad", ["", ".a", "_a", "a b", "a" * 65])
def test_a_version_has_a_plain_name_of_at_most_64_bytes(ssm: Any, name: str, bad: str) -> None:
    with refused("InvalidParameterValue"):
        put(ssm, name, bad)
    put(ssm, name, "a._-" + "a" * 60)


def test_the_value_of_a_disabled_secret_cannot_be_read_but_written(ssm: Any, name: str) -> None:
    ask(ssm, "DisableSecret", SecretName=name)
    with refused("ResourceUnavailable.ResourceDisabled"):
        text(ssm, name, "SSM_Current")
    put(ssm, name, "g1")
    ask(ssm, "UpdateSecret", SecretName=name, VersionId="SSM_Current", SecretString="two")
    ask(ssm, "EnableSecret", SecretName=name)
    assert text(ssm, name, "SSM_Current") == "two"


def test_a_secret_is_deleted_only_when_it_is_disabled(ssm: Any, name: str) -> None:
    with refused("OperationDenied"):
        ask(ssm, "DeleteSecret", SecretName=name)
    assert text(ssm, name, "SSM_Current") == "one"
    ask(ssm, "DisableSecret", SecretName=name)
    ask(ssm, "DeleteSecret", SecretName=name)
    with refused("ResourceNotFound.SecretNotExist"):
        ask(ssm, "DescribeSecret", SecretName=name)


def test_within_its_window_a_deleted_secret_can_be_restored_disabled(ssm: Any, name: str) -> None:
    ask(ssm, "DisableSecret", SecretName=name)
    ask(ssm, "DeleteSecret", SecretName=name, RecoveryWindowInDays=30)
    assert status(ssm, name) == "PendingDelete"
    with refused("ResourceUnavailable.ResourcePendingDeleted"):
        text(ssm, name, "SSM_Current")
    for action, more in (("EnableSecret", {}), ("PutSecretValue", {"VersionId": "v", "SecretString": "x"})):
        with refused("ResourceUnavailable.ResourcePendingDeleted"):
            ask(ssm, action, SecretName=name, **more)
    with refused("ResourceInUse.SecretExists"):
        ask(ssm, "CreateSecret", SecretName=name, SecretString="two")
    ask(ssm, "RestoreSecret", SecretName=name)
    assert status(ssm, name) == "Disabled"
    ask(ssm, "EnableSecret", SecretName=name)
    assert text(ssm, name, "SSM_Current") == "one"


def test_after_its_window_a_deleted_secret_is_gone(tencent: TencentCloud, name: str) -> None:
    ssm = tencent.client("ssm")
    ask(ssm, "DisableSecret", SecretName=name)
    ask(ssm, "DeleteSecret", SecretName=name, RecoveryWindowInDays=1)
    tencent.clock.advance(DAY - 60)
    tencent.clock.run()
    assert status(ssm, name) == "PendingDelete"
    tencent.clock.advance(DAY + 60)
    tencent.clock.run()
    with refused("ResourceNotFound.SecretNotExist"):
        ask(ssm, "RestoreSecret", SecretName=name)


@pytest.mark.parametrize("days", [-1, 31])
def test_a_recovery_window_has_at_most_30_days(ssm: Any, name: str, days: int) -> None:
    ask(ssm, "DisableSecret", SecretName=name)
    with refused("InvalidParameterValue"):
        ask(ssm, "DeleteSecret", SecretName=name, RecoveryWindowInDays=days)


def test_a_list_is_filtered_sorted_and_paged(tencent: TencentCloud, ssm: Any) -> None:
    stem = tencent.name("list")
    tencent.clock.stop()
    for number in range(3):
        tag = {"TagKey": "team", "TagValue": f"t{number}"}
        ask(ssm, "CreateSecret", SecretName=f"{stem}-{number}", SecretString="x", Tags=[tag])
        tencent.clock.advance(1)
    tencent.clock.run()
    ask(ssm, "DisableSecret", SecretName=f"{stem}-1")

    def names(**filters: Any) -> list[str]:
        found = ask(ssm, "ListSecrets", SearchSecretName=stem, **filters).SecretMetadatas
        return [secret.SecretName.removeprefix(f"{stem}-") for secret in found]

    assert names() == ["2", "1", "0"]
    assert names(OrderType=1, Offset=1, Limit=1) == ["1"]
    assert names(State=1) == ["2", "0"]
    assert names(TagFilters=[{"TagKey": "team", "TagValue": ["t0"]}]) == ["0"]
    assert names(SecretType=1) == []
    assert ask(ssm, "ListSecrets", SearchSecretName=stem, Limit=1).TotalCount == 3


def test_a_secret_with_all_its_versions_outlives_a_restart(tmp_path: Any) -> None:
    file = tmp_path / "cloud.sqlite"
    with running_tencent(file) as before:
        ask(before.client("ssm"), "CreateSecret", SecretName="kept", SecretString="one", Description="of mine")
        put(before.client("ssm"), "kept", "g1", "two")
        ask(before.client("ssm"), "DisableSecret", SecretName="kept")
    with running_tencent(file) as after:
        ssm = after.client("ssm", credential=None)
        found = ask(ssm, "DescribeSecret", SecretName="kept")
        assert (found.Status, found.Description) == ("Disabled", "of mine")
        ask(ssm, "EnableSecret", SecretName="kept")
        assert [text(ssm, "kept", version) for version in versions(ssm, "kept")] == ["one", "two"]
