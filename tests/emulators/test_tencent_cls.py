"""The log service as it is emulated, asked by the official SDK."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest
from tencentcloud.cls.v20201016 import models
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

from rotation.local.tencent.cls import Cls
from tests.fixtures.scf import ask, make_topic, messages
from tests.fixtures.tencent import TencentCloud


@pytest.fixture
def topic(tencent: TencentCloud) -> str:
    return make_topic(tencent)


def write(cloud: TencentCloud, topic: str, *lines: str) -> None:
    cloud.cloud.service(Cls).write(topic, [{"SCF_Message": line, "SCF_Type": "Custom"} for line in lines])


def search(cloud: TencentCloud, topic: str, **more: Any) -> Any:
    to = int(cloud.clock.now() * 1000) + 1
    return ask(cloud, "cls", "SearchLog", {"TopicId": topic, "From": 0, "To": to, **more})


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a", "b", "c"]),
        ("*", ["a", "b", "c"]),
        ('"secret=orders/db generation=42"', ["a", "b"]),
        ('SCF_Message:"generation=42" AND error', ["b"]),
        ("42 NOT error", ["a"]),
        ("SCF_Type:custom generation", ["a", "b", "c"]),
        ("SCF_Type:42", []),
        ("gen", []),
    ],
)
def test_a_query_finds_words_and_phrases(tencent: TencentCloud, topic: str, query: str, found: list[str]) -> None:
    write(
        tencent,
        topic,
        "a INFO secret=orders/db generation=42 used",
        "b ERROR secret=orders/db generation=42 refused",
        "c INFO secret=orders/db generation=421 used",
    )
    assert [line[0] for line in messages(tencent, topic, query)] == found


def test_pages_follow_each_other_by_their_context(tencent: TencentCloud, topic: str) -> None:
    write(tencent, topic, *(f"line {number}" for number in range(25)))
    asked: dict[str, Any] = {"Limit": 10, "Sort": "asc", "To": int(tencent.clock.now() * 1000) + 1}
    seen: list[str] = []
    for last in (False, False, True):
        reply = search(tencent, topic, **asked)
        seen += [json.loads(log.LogJson)["SCF_Message"] for log in reply.Results]
        assert reply.ListOver is last
        asked["Context"] = reply.Context
    assert seen == [f"line {number}" for number in range(25)]
    with pytest.raises(TencentCloudSDKException) as refused:
        search(tencent, topic, **asked | {"QueryString": "other"})
    assert refused.value.code == "FailedOperation.InvalidContext"


def test_a_log_is_found_only_after_a_while(tencent: TencentCloud, topic: str) -> None:
    service = tencent.cloud.service(Cls)
    service.delay = 30
    try:
        write(tencent, topic, "late")
    finally:
        service.delay = 0
    assert messages(tencent, topic) == []
    tencent.clock.advance(31)
    assert messages(tencent, topic) == ["late"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"TopicId": "nowhere"}, "ResourceNotFound.TopicNotExist"),
        ({"Limit": 1001}, "InvalidParameterValue"),
        ({"From": 9_999_999_999_999}, "InvalidParameter"),
        ({"QueryString": "a OR (b)"}, "FailedOperation.SyntaxError"),
        ({"QueryString": "* | select 1"}, "FailedOperation.SyntaxError"),
        ({"Context": "x", "Offset": 1}, "InvalidParameter"),
        ({"Topics": []}, "UnknownParameter"),
    ],
)
def test_what_cannot_be_searched_is_refused(tencent: TencentCloud, topic: str, more: dict[str, Any], code: str) -> None:
    with pytest.raises(TencentCloudSDKException) as refused:
        search(tencent, topic, **more)
    assert refused.value.code == code


def test_every_field_that_the_sdk_knows_is_answered(tencent: TencentCloud, topic: str) -> None:
    write(tencent, topic, "one")
    asked = {"TopicId": topic, "From": 0, "To": int(tencent.clock.now() * 1000) + 1}
    raw = json.loads(tencent.client("cls").call("SearchLog", asked))["Response"]
    for model, fields in ((models.SearchLogResponse, raw), (models.LogInfo, raw["Results"][0])):
        known = set(re.findall(r":param _(\w+):", inspect.getsource(model.__init__)))
        assert fields.keys() | {"RequestId"} == known | {"RequestId"}
