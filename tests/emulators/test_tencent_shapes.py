"""Each action of the emulated SSM, KMS and CAM answers with all the fields of the SDK's model, and no others."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tencentcloud.common.abstract_model import AbstractModel

from tests.fixtures.oidc import ISSUER, Signer
from tests.fixtures.tencent import TencentCloud, running_tencent

SERVICES = ("ssm", "kms", "cam")


class Recorder:
    """Asks by the SDK, and compares each raw answer with the SDK's model of it."""

    def __init__(self, cloud: TencentCloud) -> None:
        self._clients = {service: cloud.client(service) for service in SERVICES}
        self.asked: set[tuple[str, str]] = set()

    def ask(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        client = self._clients[service]
        models = importlib.import_module(type(client).__module__.rpartition(".")[0] + ".models")
        request = getattr(models, f"{action}Request")()
        request._deserialize(parameters)
        raw: dict[str, Any] = json.loads(client.call(action, request._serialize()))["Response"]
        answer = getattr(models, f"{action}Response")()
        answer._deserialize(raw)
        assert list(differences(f"{service}.{action}", answer, raw)) == []
        self.asked.add((service, action))
        return raw


def differences(where: str, model: Any, raw: Any) -> Iterator[str]:
    """Where an answer and the SDK's model of it have not the same fields."""
    if isinstance(model, AbstractModel):
        fields = {name[1:]: value for name, value in vars(model).items() if name != "_headers"}
        yield from (f"{where} lacks {name}" for name in sorted(fields.keys() - raw.keys()))
        yield from (f"{where} has {name}" for name in sorted(raw.keys() - fields.keys()))
        for name in fields.keys() & raw.keys():
            yield from differences(f"{where}.{name}", fields[name], raw[name])
    elif isinstance(model, list) and model:
        yield from differences(f"{where}[0]", model[0], raw[0])


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with running_tencent() as cloud:
        cloud.cloud.tasks.seconds = 0
        recorder = Recorder(cloud)
        ask_ssm(recorder)
        ask_product_secrets(recorder)
        ask_kms(recorder)
        ask_cam(recorder)
        yield recorder


def ask_ssm(recorder: Recorder) -> None:
    def ask(action: str, **parameters: Any) -> None:
        recorder.ask("ssm", action, SecretName="one", **parameters)

    ask("CreateSecret", SecretString="x")
    ask("PutSecretValue", VersionId="g1", SecretString="x")
    ask("UpdateSecret", VersionId="g1", SecretString="y")
    ask("GetSecretValue", VersionId="g1")
    ask("ListSecretVersionIds")
    ask("DescribeSecret")
    ask("UpdateDescription", Description="mine")
    ask("DeleteSecretVersion", VersionId="g1")
    recorder.ask("ssm", "ListSecrets")
    recorder.ask("ssm", "GetServiceStatus")
    for action in ("DisableSecret", "EnableSecret", "DisableSecret"):
        ask(action)
    ask("DeleteSecret", RecoveryWindowInDays=1)
    ask("RestoreSecret")


def ask_product_secrets(recorder: Recorder) -> None:
    grant = {"PrivilegeName": "GlobalPrivileges", "Privileges": ["SELECT"]}
    begin = "2099-01-01 00:00:00"
    flow = recorder.ask(
        "ssm",
        "CreateProductSecret",
        SecretName="two",
        UserNamePrefix="app",
        ProductName="Mysql",
        InstanceID="cdb-1",
        Domains=["%"],
        PrivilegesList=[grant],
        EnableRotation=True,
        RotationBeginTime=begin,
    )["FlowID"]
    recorder.ask("ssm", "DescribeAsyncRequestInfo", FlowID=flow)
    recorder.ask("ssm", "DescribeSupportedProducts")
    for action in ("RotateProductSecret", "DescribeRotationDetail", "DescribeRotationHistory", "DescribeSecret"):
        recorder.ask("ssm", action, SecretName="two")
    recorder.ask("ssm", "ListSecrets", SecretType=1)
    recorder.ask("ssm", "UpdateRotationStatus", SecretName="two", EnableRotation=True, RotationBeginTime=begin)


def ask_kms(recorder: Recorder) -> None:
    key = recorder.ask("kms", "CreateKey", Alias="one")["KeyId"]

    def ask(action: str, **parameters: Any) -> dict[str, Any]:
        return recorder.ask("kms", action, KeyId=key, **parameters)

    ask("GenerateDataKey", KeySpec="AES_256")
    sealed = ask("Encrypt", Plaintext="YQ==")["CiphertextBlob"]
    recorder.ask("kms", "Decrypt", CiphertextBlob=sealed)
    recorder.ask("kms", "ReEncrypt", CiphertextBlob=sealed)
    recorder.ask("kms", "DescribeKeys", KeyIds=[key])
    for action in ("ListKeys", "ListKeyDetail"):
        recorder.ask("kms", action)
    ask("UpdateAlias", Alias="other")
    ask("UpdateKeyDescription", Description="mine")
    rotation = ("EnableKeyRotation", "GetKeyRotationStatus", "RotateKey", "DescribeKey", "DisableKeyRotation")
    for action in (*rotation, "DisableKey", "EnableKey", "DisableKey"):
        ask(action)
    ask("ScheduleKeyDeletion", PendingWindowInDays=7)
    ask("CancelKeyDeletion")


def ask_cam(recorder: Recorder) -> None:
    uin = recorder.ask("cam", "AddUser", Name="bob", UseApi=1)["Uin"]
    recorder.ask("cam", "UpdateUser", Name="bob", Remark="a friend")
    recorder.ask("cam", "GetUser", Name="bob")

    def ask(action: str, **parameters: Any) -> dict[str, Any]:
        return recorder.ask("cam", action, TargetUin=uin, **parameters)

    key = ask("CreateAccessKey")["AccessKey"]["AccessKeyId"]
    ask("ListAccessKeys")
    recorder.ask("cam", "GetSecurityLastUsed", SecretIdList=[key])
    ask("UpdateAccessKey", AccessKeyId=key, Status="Inactive")
    ask("DeleteAccessKey", AccessKeyId=key)
    recorder.ask("cam", "DeleteUser", Name="bob", Force=1)
    keys = base64.b64encode(Signer().jwks.encode()).decode()
    provider = {"Name": "ci", "IdentityUrl": ISSUER, "ClientId": ["keyturn"], "IdentityKey": keys}
    recorder.ask("cam", "CreateOIDCConfig", **provider)
    recorder.ask("cam", "CreateRole", RoleName="runner", PolicyDocument='{"statement": []}')


def test_every_emulated_action_answers_as_the_sdks_model_says(recorder: Recorder, tencent: TencentCloud) -> None:
    emulated = {(service, name) for service, _, name in tencent.cloud.actions if service in SERVICES}
    assert recorder.asked == emulated


def test_an_answer_with_another_field_or_without_one_would_be_seen() -> None:
    models = importlib.import_module("tencentcloud.ssm.v20190923.models")
    answer = models.ListSecretVersionIdsResponse()
    raw = {"SecretName": "a", "Versions": [{"VersionId": "v", "Created": 1}], "RequestId": "r"}
    with pytest.warns(UserWarning, match="useless"):
        answer._deserialize(raw)
    assert list(differences("it", answer, raw)) == ["it.Versions[0] lacks CreateTime", "it.Versions[0] has Created"]
