"""The client of Tencent Cloud, on the emulator's wire."""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import stamina
from tencentcloud.common.credential import CVMRoleCredential

from rotation import tencentcloud
from rotation.errors import (
    ClockSkew,
    Conflict,
    DeclarationError,
    KeyturnError,
    LeaseHeld,
    OutcomeUnknown,
    StoreError,
    Unauthorized,
    Unavailable,
    UsageError,
)
from rotation.options import parse
from rotation.tencentcloud import Cloud, Connection, Manner, Throttled, connect
from tests.contracts.staging import told_by
from tests.fixtures.ports import closed_port
from tests.fixtures.scf import eventually
from tests.fixtures.tencent import TencentCloud

CANARY = "canary-2b7e-should-be-seen-nowhere"
DOING = Manner("do it", StoreError)
LIST = ("ssm", "ListSecrets", {"Limit": 1})


@pytest.fixture
def cloud(tencent: TencentCloud) -> Cloud:
    return Cloud(tencent.region, f"http://{tencent.endpoint}", timeout=5)


@pytest.fixture
def secret(tencent: TencentCloud, cloud: Cloud) -> str:
    name = tencent.name()
    cloud.call("ssm", "CreateSecret", {"SecretName": name, "SecretString": "first"}, DOING)
    return name


def put(cloud: Cloud, name: str, **more: Any) -> dict[str, Any]:
    parameters = {"SecretName": name, "VersionId": "v1", "SecretString": CANARY}
    return cloud.call_once("ssm", "PutSecretValue", parameters, replace(DOING, quiet=True, **more))


def read(cloud: Cloud, name: str, version_id: str) -> str:
    answer = cloud.call("ssm", "GetSecretValue", {"SecretName": name, "VersionId": version_id}, DOING)
    return str(answer["SecretString"])


def test_a_call_returns_the_answers_fields(cloud: Cloud, secret: str) -> None:
    assert read(cloud, secret, "SSM_Current") == "first"


def test_plugins_that_ask_for_the_same_share_their_calls(tencent: TencentCloud) -> None:
    connection = Connection(**tencent.options)
    assert connect(connection) is connect(Connection(**tencent.options))
    assert connect(connection) is not connect(connection.model_copy(update={"region": "ap-beijing"}))


def test_the_region_comes_from_the_option_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENCENTCLOUD_REGION", "ap-chengdu")
    assert connect(Connection()).region == "ap-chengdu"
    assert connect(Connection(region="ap-beijing")).region == "ap-beijing"
    monkeypatch.delenv("TENCENTCLOUD_REGION")
    with pytest.raises(UsageError, match="no region"):
        connect(Connection())


@pytest.mark.parametrize(
    "option", [{"region": "Guangzhou"}, {"endpoint": "127.0.0.1:80"}, {"timeout": 0}, {"retries": 3}]
)
def test_a_wrong_option_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match=next(iter(option))):
        parse(Connection, option, plugin="tencent_ssm")


# What answers mean


def test_a_server_that_cannot_be_reached_is_named_also_where_a_value_is_sent(cloud: Cloud) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(OutcomeUnknown, match=f"could not do it: no answer of {nowhere} came through"):
        put(Cloud(cloud.region, nowhere), "any")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("throttle", Throttled),
        ("internal", OutcomeUnknown),
        ("http_error", OutcomeUnknown),
        ("drop", OutcomeUnknown),
        ("lost_reply", OutcomeUnknown),
        ("cut", OutcomeUnknown),
        ("deny", Unauthorized),
    ],
)
def test_each_trouble_has_its_error_and_tells_no_value(
    tencent: TencentCloud, cloud: Cloud, secret: str, fault: str, error: type[KeyturnError]
) -> None:
    tencent.faults.plan("ssm.PutSecretValue", fault)
    with pytest.raises(error) as caught:
        put(cloud, secret)
    assert type(caught.value) is error
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    tencent.faults.plan("ssm.PutSecretValue", fault)
    assert CANARY not in told_by(lambda: put(cloud, secret))


@pytest.mark.parametrize("fault", ["lost_reply", "cut"])
def test_what_was_applied_is_there_though_its_answer_was_lost(
    tencent: TencentCloud, cloud: Cloud, secret: str, fault: str
) -> None:
    tencent.faults.plan("ssm.PutSecretValue", fault)
    with pytest.raises(OutcomeUnknown):
        put(cloud, secret)
    assert read(cloud, secret, "v1") == CANARY


def test_a_refusal_is_known_by_its_code_or_the_part_before_the_dot(cloud: Cloud, secret: str) -> None:
    put(cloud, secret)
    with pytest.raises(Conflict, match=r"do it: Tencent Cloud answered ResourceInUse\.VersionIdExists$"):
        put(cloud, secret, refuse={"ResourceInUse.VersionIdExists": Conflict})
    with pytest.raises(Conflict):
        put(cloud, secret, refuse={"ResourceInUse": Conflict})
    with pytest.raises(StoreError):
        put(cloud, secret)


@pytest.mark.parametrize("there", [True, False])
def test_an_answer_of_another_content_type_is_read_like_any_other(
    tencent: TencentCloud, cloud: Cloud, secret: str, *, there: bool
) -> None:
    """The SDK overlooks errors in it."""
    tencent.faults.plan("ssm.GetSecretValue", "charset")
    if there:
        assert read(cloud, secret, "SSM_Current") == "first"
    else:
        with pytest.raises(StoreError, match="ResourceNotFound"):
            read(cloud, secret, "none")


def test_an_answer_without_what_it_should_tell_is_no_answer(cloud: Cloud) -> None:
    with pytest.raises(OutcomeUnknown):
        cloud.call_once(*LIST, replace(DOING, requires=("NoSuchField",)))


def test_it_is_tried_again_while_it_is_unavailable(tencent: TencentCloud, cloud: Cloud) -> None:
    with stamina.set_testing(True, attempts=3):
        tencent.faults.plan("ssm.ListSecrets", "drop", times=2)
        assert "TotalCount" in cloud.call(*LIST, DOING)
        tencent.faults.plan("ssm.ListSecrets", "throttle", times=3)
        with pytest.raises(Unavailable):
            cloud.call(*LIST, DOING)


def test_the_log_of_the_sdk_tells_no_value(cloud: Cloud, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        put(cloud, secret)
    assert CANARY not in caplog.text


# Who the runner is


@pytest.fixture
def no_keys(tencent: TencentCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A runner that has nothing in its environment, nor at home, and that is no machine of the cloud's."""
    for name in [name for name in os.environ if name.startswith("TENCENTCLOUD_SECRET")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tencentcloud, "_METADATA", ("127.0.0.1", 9))  # where nobody listens


@pytest.mark.usefixtures("no_keys")
def test_without_credentials_it_says_what_to_set(cloud: Cloud) -> None:
    with pytest.raises(Unauthorized, match="no credentials") as caught:
        cloud.call_once(*LIST, DOING)
    assert "TENCENTCLOUD_SECRET_ID" in caught.value.remedy


@pytest.mark.usefixtures("no_keys")
def test_keys_come_from_a_cloud_functions_environment_and_change_there(
    tencent: TencentCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENCENTCLOUD_SECRETID", tencent.key.secret_id)
    monkeypatch.setenv("TENCENTCLOUD_SECRETKEY", "another")
    with pytest.raises(Unauthorized, match="SignatureFailure"):
        cloud.call_once(*LIST, DOING)
    monkeypatch.setenv("TENCENTCLOUD_SECRETKEY", tencent.key.secret_key)
    assert cloud.call_once(*LIST, DOING)
    monkeypatch.setenv("TENCENTCLOUD_SESSIONTOKEN", "a token that nobody gave")
    with pytest.raises(Unauthorized, match="TokenFailure"):
        cloud.call_once(*LIST, DOING)


@pytest.mark.usefixtures("no_keys")
def test_keys_come_from_the_file_of_tencents_own_tools(tencent: TencentCloud, cloud: Cloud, tmp_path: Any) -> None:
    file = tmp_path / ".tencentcloud/credentials"
    file.parent.mkdir()
    file.write_text(f"[default]\nsecret_id = {tencent.key.secret_id}\nsecret_key = {tencent.key.secret_key}\n")
    assert cloud.call_once(*LIST, DOING)


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    "text", ["secret_key = {}\n", "[else]\nsecret_key = {}\n", "[default]\n{}\n", "[default]\n\xff"]
)
def test_a_file_that_is_none_of_theirs_is_named_and_not_quoted(cloud: Cloud, tmp_path: Any, text: str) -> None:
    file = tmp_path / ".tencentcloud/credentials"
    file.parent.mkdir()
    file.write_bytes(text.format(CANARY).encode("latin-1"))
    said = told_by(lambda: cloud.call_once(*LIST, DOING))
    assert "the file .tencentcloud/credentials cannot be used" in said
    assert CANARY not in said


@pytest.mark.usefixtures("no_keys")
def test_metadata_that_cannot_be_reached_are_not_waited_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy, ExitStack() as waiting:
        for _ in range(2):  # so many wait to be accepted, and the next one hears nothing
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(busy.getsockname())
        monkeypatch.setattr(tencentcloud, "_METADATA", busy.getsockname())
        monkeypatch.setattr(tencentcloud, "CONNECT_TIMEOUT", 0.5)
        asked: list[CVMRoleCredential] = []
        monkeypatch.setattr(CVMRoleCredential, "get_credential", asked.append)
        with pytest.raises(Unauthorized, match="no credentials"):
            cloud.call_once(*LIST, DOING)
    assert not asked


# Requests that are bound to a lease


def test_the_time_is_taken_then_the_lease_is_checked_then_the_request_is_signed_with_that_time(
    tencent: TencentCloud, secret: str
) -> None:
    """A runner that is held up after it checked its lease: what it sends is too old by then."""
    offset = 0.0

    def clock() -> float:
        return tencent.clock.now() + offset

    cloud = Cloud(tencent.region, f"http://{tencent.endpoint}", clock=clock)
    overwrite = ("ssm", "UpdateSecret", {"SecretName": secret, "VersionId": "SSM_Current", "SecretString": "late"})
    with pytest.raises(ClockSkew, match="SignatureExpire"):
        cloud.call_once(*overwrite, DOING, holds=lambda: tencent.clock.advance(302))
    assert read(cloud, secret, "SSM_Current") == "first"
    cloud.call_once(*overwrite, DOING, holds=lambda: tencent.clock.advance(290))
    assert read(cloud, secret, "SSM_Current") == "late"


def test_a_request_that_is_held_up_in_the_network_is_refused(tencent: TencentCloud, cloud: Cloud, secret: str) -> None:
    tencent.faults.plan("ssm.PutSecretValue", "hold")
    failed: list[KeyturnError] = []

    def send() -> None:
        try:
            put(cloud, secret)
        except KeyturnError as error:
            failed.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    eventually(lambda: tencent.faults.held == 1)
    tencent.clock.advance(302)
    tencent.faults.release()
    sending.join()
    tencent.clock.run()
    assert [type(error) for error in failed] == [ClockSkew]
    with pytest.raises(StoreError, match="ResourceNotFound"):
        read(cloud, secret, "v1")


def test_without_the_lease_nothing_is_sent(tencent: TencentCloud, cloud: Cloud) -> None:
    def lost() -> None:
        raise LeaseHeld("another runner has it")

    tencent.faults.forget_calls()
    with pytest.raises(LeaseHeld):
        cloud.call_once(*LIST, DOING, holds=lost)
    assert not tencent.faults.calls()


def test_a_wrong_clock_is_told(tencent: TencentCloud, cloud: Cloud) -> None:
    tencent.clock.run(offset=400)
    with pytest.raises(ClockSkew):
        cloud.call_once(*LIST, DOING)


def test_calls_keep_to_the_rate_that_the_cloud_allows() -> None:
    allowed = {
        action: tencentcloud._limiter("ap-test", "ssm", action).buckets()[0].rates[0].limit for action in ACTIONS
    }
    assert allowed == ACTIONS


ACTIONS = {"GetSecretValue": 300, "PutSecretValue": 100, "DeleteSecretVersion": 50, "ListSecretVersionIds": 40, "X": 20}
