"""The emulated Tencent Cloud on the wire: signatures, envelope, rates, clock and faults, by the official SDK."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.exception import TencentCloudSDKException

from rotation.local.tencent.cloud import Settings
from tests.fixtures.scf import eventually
from tests.fixtures.tencent import TencentCloud, ask, refused, running_tencent

SIGNED_AT = 1_800_000_000  # seconds since 1970, on which the SDK's clock stands in some tests


@pytest.fixture
def ssm(tencent: TencentCloud) -> Any:
    return tencent.client("ssm")


@pytest.fixture
def slot(tencent: TencentCloud, ssm: Any) -> str:
    """The name of a secret with the version "first"."""
    name = tencent.name()
    ask(ssm, "CreateSecret", SecretName=name, VersionId="first", SecretString="one")
    return name


def versions(client: Any, name: str) -> list[str]:
    return [version.VersionId for version in ask(client, "ListSecretVersionIds", SecretName=name).Versions or []]


def tamper(client: Any, change: Callable[[Any, Any], None]) -> None:
    """Let ``change(request, parameters)`` alter each of a client's requests after it was signed."""
    build = client._build_req_inter

    def altered(action: str, parameters: Any, request: Any, options: Any = None) -> None:
        build(action, parameters, request, options)
        change(request, parameters)

    client._build_req_inter = altered


def test_a_request_that_was_signed_with_another_key_is_refused(tencent: TencentCloud) -> None:
    forged = tencent.client("ssm", Credential(tencent.key.secret_id, "another-key"))
    with refused("AuthFailure.SignatureFailure"):
        ask(forged, "GetServiceStatus")


def test_an_unknown_secret_id_is_refused(tencent: TencentCloud) -> None:
    with refused("AuthFailure.SecretIdNotFound"):
        ask(tencent.client("ssm", Credential("AKIDnobody", "key")), "GetServiceStatus")


def test_a_body_that_was_changed_after_it_was_signed_is_refused_and_does_nothing(ssm: Any, slot: str) -> None:
    def change(request: Any, parameters: Any) -> None:
        request.data = request.data.replace("honest", "forged")

    tamper(ssm, change)
    with refused("AuthFailure.SignatureFailure"):
        ask(ssm, "PutSecretValue", SecretName=slot, VersionId="second", SecretString="honest")
    assert versions(ssm, slot) == ["first"]


def test_a_request_that_was_signed_for_another_port_is_refused(tencent: TencentCloud) -> None:
    elsewhere = tencent.client("ssm", endpoint="127.0.0.1:9")

    def redirect(request: Any, parameters: Any) -> None:
        request.host = tencent.endpoint  # the Host header stays as it was signed

    tamper(elsewhere, redirect)
    with refused("AuthFailure.SignatureFailure"):
        ask(elsewhere, "GetServiceStatus")


def test_a_signature_of_another_day_than_its_timestamp_is_refused(ssm: Any) -> None:
    def yesterday(request: Any, parameters: Any) -> None:
        key = ssm.credential.secret_key
        signature = ssm._get_tc3_signature(parameters, request, "2020-01-01", "ssm", key)
        scope = f"Credential={ssm.credential.secret_id}/2020-01-01/ssm/tc3_request"
        request.header["Authorization"] = (
            f"TC3-HMAC-SHA256 {scope}, SignedHeaders=content-type;host, Signature={signature}"
        )

    tamper(ssm, yesterday)
    with refused("AuthFailure.SignatureFailure"):
        ask(ssm, "GetServiceStatus")


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_signature_is_good_for_300_seconds_before_and_after(
    tencent: TencentCloud, ssm: Any, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    monkeypatch.setattr("tencentcloud.common.abstract_client.time", SimpleNamespace(time=lambda: SIGNED_AT))
    tencent.clock.stop(datetime.fromtimestamp(SIGNED_AT + seconds, UTC))
    assert ask(ssm, "GetServiceStatus").ServiceEnabled


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_signature_of_301_seconds_ago_or_ahead_is_refused(
    tencent: TencentCloud, ssm: Any, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    monkeypatch.setattr("tencentcloud.common.abstract_client.time", SimpleNamespace(time=lambda: SIGNED_AT))
    tencent.clock.stop(datetime.fromtimestamp(SIGNED_AT + seconds, UTC))
    with refused("AuthFailure.SignatureExpire"):
        ask(ssm, "GetServiceStatus")


def test_a_request_without_a_signature_is_refused(ssm: Any) -> None:
    with refused("AuthFailure.InvalidAuthorization"):
        ssm.call("GetServiceStatus", {}, options={"SkipSign": True})


def test_a_body_that_is_left_out_of_the_signature_is_refused(tencent: TencentCloud, ssm: Any) -> None:
    ssm.profile.unsignedPayload = True
    with refused("AuthFailure.SignatureFailure"):
        ask(ssm, "GetServiceStatus")


def test_a_temporary_key_needs_its_token_and_ends_with_it(tencent: TencentCloud) -> None:
    key = tencent.cloud.identities.assume("runner", "100000000001", 600)
    with_token = tencent.client("ssm", Credential(key.secret_id, key.secret_key, key.token))
    assert ask(with_token, "GetServiceStatus").ServiceEnabled
    for token in (None, "another-token"):
        with refused("AuthFailure.TokenFailure"):
            ask(tencent.client("ssm", Credential(key.secret_id, key.secret_key, token)), "GetServiceStatus")
    key = tencent.cloud.identities.assume("runner", "100000000001", 0)
    with refused("AuthFailure.TokenFailure"):
        ask(tencent.client("ssm", Credential(key.secret_id, key.secret_key, key.token)), "GetServiceStatus")


def test_a_lasting_key_has_no_token(tencent: TencentCloud) -> None:
    with refused("AuthFailure.TokenFailure"):
        ask(
            tencent.client("ssm", Credential(tencent.key.secret_id, tencent.key.secret_key, "token")),
            "GetServiceStatus",
        )


def test_service_version_action_and_region_must_be_there(tencent: TencentCloud, ssm: Any) -> None:
    with refused("InvalidAction"):
        ssm.call("PutSecret", {})
    with refused("InvalidAction"):
        tencent.client("kms").call("GetServiceStatusOfSsm", {})
    with refused("NoSuchProduct"):
        CommonClient("cvm", "2017-03-12", ssm.credential, tencent.region, ssm.profile).call("DescribeInstances", {})
    ssm._apiVersion = "2018-01-01"
    with refused("NoSuchVersion"):
        ask(ssm, "GetServiceStatus")
    nowhere = tencent.client("ssm")
    nowhere.region = ""
    with refused("MissingParameter"):
        ask(nowhere, "GetServiceStatus")


def test_a_get_request_is_refused(tencent: TencentCloud) -> None:
    with refused("InvalidRequest"):
        tencent.client("ssm", reqMethod="GET").call("GetServiceStatus", {})


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "MissingParameter"),
        ({"SecretName": "a", "Version": "b"}, "UnknownParameter"),
        ({"SecretName": 7}, "InvalidParameter"),
        ({"SecretName": "-a"}, "InvalidParameterValue"),
        ([], "InvalidParameter"),
    ],
)
def test_parameters_are_checked_by_name_type_and_value(ssm: Any, parameters: Any, code: str) -> None:
    with refused(code):
        ssm.call("DescribeSecret", parameters)


def test_a_refusal_quotes_no_value(ssm: Any, slot: str) -> None:
    with pytest.raises(TencentCloudSDKException) as error:
        ssm.call("PutSecretValue", {"SecretName": slot, "VersionId": "v", "SecretString": ["canary-of-the-wire"]})
    assert error.value.code == "InvalidParameter"
    assert "canary" not in str(error.value)


def test_regions_know_nothing_of_each_other(tencent: TencentCloud, slot: str) -> None:
    elsewhere = tencent.client("ssm")
    elsewhere.region = "ap-shanghai"
    with refused("ResourceNotFound.SecretNotExist"):
        ask(elsewhere, "DescribeSecret", SecretName=slot)


def test_each_action_has_a_bucket_that_the_clock_fills(tencent: TencentCloud, ssm: Any, slot: str) -> None:
    tencent.clock.stop()
    for _ in range(40):
        ask(ssm, "ListSecretVersionIds", SecretName=slot)
    with refused("RequestLimitExceeded"):
        ask(ssm, "ListSecretVersionIds", SecretName=slot)
    assert ask(ssm, "DescribeSecret", SecretName=slot).SecretName == slot
    tencent.clock.advance(1 / 16)
    for _ in range(2):
        ask(ssm, "ListSecretVersionIds", SecretName=slot)
    with refused("RequestLimitExceeded"):
        ask(ssm, "ListSecretVersionIds", SecretName=slot)


def test_rates_can_be_left_out() -> None:
    with running_tencent(settings=Settings(throttled=False)) as unlimited:
        unlimited.clock.stop()
        for _ in range(21):
            ask(unlimited.client("ssm"), "GetServiceStatus")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("throttle", "RequestLimitExceeded"),
        ("internal", "InternalError"),
        ("deny", "UnauthorizedOperation"),
        ("http_error", "ServerNetworkError"),
        ("drop", "ClientNetworkError"),
    ],
)
def test_a_call_that_fails_before_it_is_applied_changes_nothing(
    tencent: TencentCloud, ssm: Any, slot: str, kind: str, code: str
) -> None:
    tencent.faults.plan("ssm.PutSecretValue", kind)
    with refused(code):
        ask(ssm, "PutSecretValue", SecretName=slot, VersionId="second", SecretString="two")
    assert versions(ssm, slot) == ["first"]
    ask(ssm, "PutSecretValue", SecretName=slot, VersionId="second", SecretString="two")


@pytest.mark.parametrize(("kind", "code"), [("lost_reply", "ClientNetworkError"), ("cut", "ChunkedEncodingError")])
def test_a_call_whose_reply_is_lost_is_applied(
    tencent: TencentCloud, ssm: Any, slot: str, kind: str, code: str
) -> None:
    tencent.faults.plan("ssm.PutSecretValue", kind)
    with refused(code):
        ask(ssm, "PutSecretValue", SecretName=slot, VersionId="second", SecretString="two")
    assert versions(ssm, slot) == ["first", "second"]


def test_with_a_charset_in_the_content_type_the_sdk_takes_a_refusal_for_an_empty_answer(
    tencent: TencentCloud, ssm: Any
) -> None:
    tencent.faults.plan("ssm.DescribeSecret", "charset")
    assert ask(ssm, "DescribeSecret", SecretName="nobody").SecretName is None
    with refused("ResourceNotFound.SecretNotExist"):
        ask(ssm, "DescribeSecret", SecretName="nobody")


def test_a_stale_read_does_not_see_the_last_writes_and_loses_none(tencent: TencentCloud, ssm: Any, slot: str) -> None:
    for version in ("second", "third"):
        ask(ssm, "PutSecretValue", SecretName=slot, VersionId=version, SecretString=version)
    tencent.faults.plan("ssm.ListSecretVersionIds", "stale", writes=2)
    tencent.faults.plan("ssm.ListSecretVersionIds", "stale")
    assert [versions(ssm, slot) for _ in range(3)] == [["first"], ["first", "second"], ["first", "second", "third"]]


def test_a_call_that_is_delayed_beyond_its_signature_is_refused(tencent: TencentCloud, ssm: Any, slot: str) -> None:
    tencent.clock.stop()
    tencent.faults.plan("ssm.PutSecretValue", "delay", seconds=302)
    with refused("AuthFailure.SignatureExpire"):
        ask(ssm, "PutSecretValue", SecretName=slot, VersionId="late", SecretString="two")
    tencent.clock.run()
    assert versions(ssm, slot) == ["first"]


@pytest.mark.parametrize(("seconds", "left"), [(0, ["first", "held"]), (302, ["first"])])
def test_a_call_that_is_held_is_judged_when_it_is_released(
    tencent: TencentCloud, ssm: Any, slot: str, seconds: int, left: list[str]
) -> None:
    tencent.clock.stop()
    tencent.faults.plan("ssm.PutSecretValue", "hold")
    codes: list[str] = []

    def put() -> None:
        try:
            ask(tencent.client("ssm"), "PutSecretValue", SecretName=slot, VersionId="held", SecretString="two")
        except TencentCloudSDKException as error:
            codes.append(error.code)

    runner = threading.Thread(target=put)
    runner.start()
    eventually(lambda: tencent.faults.held == 1)
    assert versions(ssm, slot) == ["first"]
    tencent.clock.advance(seconds)
    tencent.faults.release()
    runner.join()
    tencent.clock.run()
    assert versions(ssm, slot) == left
    assert codes == ([] if "held" in left else ["AuthFailure.SignatureExpire"])


def test_a_delayed_call_goes_on_when_the_clock_was_moved_or_the_server_stops() -> None:
    with running_tencent() as cloud, ThreadPoolExecutor() as threads:
        for name in ("moved", "stopped"):
            cloud.faults.plan("ssm.CreateSecret", "delay", seconds=200)
            call = threads.submit(ask, cloud.client("ssm"), "CreateSecret", SecretName=name, SecretString="x")
            eventually(lambda: cloud.clock.waiting == 1)
            assert not call.done()
            if name == "moved":
                cloud.clock.advance(200)
                assert call.result(timeout=60).SecretName == name
                cloud.clock.run()
        cloud.server.stop()
        assert call.result(timeout=60).SecretName == name


def test_faults_come_after_as_many_calls_as_they_were_told(tencent: TencentCloud, ssm: Any, slot: str) -> None:
    tencent.faults.plan("ssm.*", "internal", after=1, times=2)
    ask(ssm, "DescribeSecret", SecretName=slot)
    for action in ("DescribeSecret", "ListSecretVersionIds"):
        with refused("InternalError"):
            ask(ssm, action, SecretName=slot)
    assert versions(ssm, slot) == ["first"]
    assert tencent.faults.calls()["ssm.DescribeSecret"] == 2


def test_a_service_that_stumbles_answers_internal_error_and_logs_no_value(
    tencent: TencentCloud, ssm: Any, slot: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(self: Any, secret: Any) -> None:
        raise ValueError(secret.versions["second"].text)

    monkeypatch.setattr("rotation.local.tencent.ssm_records.Secrets.put", stumble)
    with refused("InternalError"):
        ask(ssm, "PutSecretValue", SecretName=slot, VersionId="second", SecretString="canary-of-a-value")
    assert "ssm.PutSecretValue failed with ValueError" in caplog.text
    assert "canary" not in caplog.text
    monkeypatch.undo()
    assert versions(ssm, slot) == ["first"]


def test_requests_that_no_sdk_would_send_are_refused(tencent: TencentCloud) -> None:
    for method, path, body in (("POST", "/", b"\xff\x00"), ("PUT", "/", b""), ("POST", "/elsewhere", b"{}")):
        connection = http.client.HTTPConnection(tencent.endpoint, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            code = json.loads(answer.read())["Response"]["Error"]["Code"]
        finally:
            connection.close()
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert code == ("MissingParameter" if (method, path) == ("POST", "/") else "InvalidRequest")
