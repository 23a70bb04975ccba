"""What the stacks declare for Tencent Cloud is what is in the emulated one, and no value with it."""

from __future__ import annotations

from typing import Any

import pytest

from rotation.errors import LocalError
from rotation.local.embedded.local_tencent.declared import provision
from rotation.tencentcloud import Cloud, Manner
from tests.fixtures.tencent import TencentCloud

LOOK = Manner("look", LocalError)


@pytest.fixture
def cloud(tencent: TencentCloud) -> Cloud:
    return Cloud(tencent.region, f"http://{tencent.endpoint}")


def _slot(name: str, **others: Any) -> dict[str, Any]:
    secret = {"secret_name": name, "description": "of $${orders}", "tags": {"team": "$${a}"}, **others}
    return {"tencentcloud_ssm_secret": {"slot": {"//": {}, "lifecycle": {}, **secret}}}


def _key(alias: str) -> dict[str, Any]:
    key = {"alias": alias, "description": "d", "key_usage": "ENCRYPT_DECRYPT", "is_enabled": True}
    return {"tencentcloud_kms_key": {"key": key}}


def _looking_up(alias: str, name: str) -> dict[str, Any]:
    return {
        "resource": _slot(name, kms_key_id="${local.key-a}"),
        "data": {"tencentcloud_kms_keys": {"key-a": {"search_key_alias": alias}}},
    }


def test_what_is_declared_is_there_however_often_it_is_put_there(cloud: Cloud, tencent: TencentCloud) -> None:
    alias, name = tencent.name("keyturn-key"), tencent.name()
    longer = {"resource": _key(f"{alias}-2")}  # the search for the other one finds it as well
    policies = {"tencentcloud_cam_policy": {"a": {"name": "a", "document": "{}"}}}
    for _ in range(2):
        provision(cloud, [longer, {"resource": {**_key(alias), **policies}}, _looking_up(alias, name), {}])

    described = cloud.call("ssm", "DescribeSecret", {"SecretName": name}, LOOK)
    listed = cloud.call("kms", "ListKeyDetail", {"SearchKeyAlias": alias}, LOOK)["KeyMetadatas"]
    keys = {key["Alias"]: key for key in listed}
    assert keys.keys() == {alias, f"{alias}-2"}, "each was made once"
    assert all(key["KeyState"] == "Enabled" and key["KeyRotationEnabled"] for key in keys.values())
    assert described["KmsKeyId"] == keys[alias]["KeyId"]
    assert described["Description"] == "of ${orders}"
    assert described["Status"] == "Enabled"
    assert not _versions(cloud, name)


def test_a_slot_that_was_left_with_its_placeholder_is_emptied_and_one_with_values_keeps_them(
    cloud: Cloud, tencent: TencentCloud
) -> None:
    name = tencent.name()
    client = {"SecretName": name, "SecretString": "default", "VersionId": "default"}
    cloud.call("ssm", "CreateSecret", client, LOOK)
    cloud.call("ssm", "PutSecretValue", {**client, "VersionId": "SSM_Current", "SecretString": "kept"}, LOOK)

    provision(cloud, [{"resource": _slot(name)}])

    assert _versions(cloud, name) == ["SSM_Current"]


def test_what_is_not_known_is_refused_before_anything_is_made(cloud: Cloud, tencent: TencentCloud) -> None:
    name = tencent.name()
    with pytest.raises(LocalError, match="cannot be given tencentcloud_mysql_instance"):
        provision(cloud, [{"resource": {**_slot(name), "tencentcloud_mysql_instance": {"a": {}}}}])

    assert not _found(cloud, name)


def test_a_slot_whose_key_is_nowhere_is_not_made(cloud: Cloud, tencent: TencentCloud) -> None:
    alias, name = tencent.name("keyturn-key"), tencent.name()
    with pytest.raises(LocalError, match=f"no key with the alias {alias}"):
        provision(cloud, [_looking_up(alias, name)])

    assert not _found(cloud, name)


def test_what_the_cloud_refuses_and_that_nobody_answers_is_said(tencent: TencentCloud, cloud: Cloud) -> None:
    with pytest.raises(LocalError, match="could not make the secret no/slash"):
        provision(cloud, [{"resource": _slot("no/slash")}])
    with pytest.raises(LocalError, match=r"cannot be given what is declared: .*no answer"):
        provision(Cloud(tencent.region, "http://127.0.0.1:9"), [{"resource": _slot(tencent.name())}])


def _versions(cloud: Cloud, name: str) -> list[str]:
    versions = cloud.call("ssm", "ListSecretVersionIds", {"SecretName": name}, LOOK)["Versions"] or []
    return [version["VersionId"] for version in versions]


def _found(cloud: Cloud, name: str) -> list[Any]:
    found: list[Any] = cloud.call("ssm", "ListSecrets", {"SearchSecretName": name}, LOOK)["SecretMetadatas"]
    return found
