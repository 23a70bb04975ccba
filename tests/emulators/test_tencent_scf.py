"""Serverless Cloud Function as it is emulated, asked by the official SDK."""

from __future__ import annotations

import inspect
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.scf.v20180416 import models

from rotation.local.tencent.scf import Scf
from rotation.local.tencent.scf_calls import ScfCalls
from rotation.local.tencent.scf_timer import Timer
from tests.fixtures.scf import ScfFunction, ask, make_topic, messages, zipped
from tests.fixtures.tencent import TencentCloud, running_tencent

ECHO = """
import os
def main_handler(event, context):
    print("called with", event)
    return {"event": event, "greeting": os.environ.get("GREETING"), "version": os.environ["SCF_FUNCTIONVERSION"]}
"""
MOODY = """
def main_handler(event, context):
    print("tried")
    raise ValueError("not today")
"""
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def refused(function: ScfFunction, action: str, **parameters: Any) -> str:
    with pytest.raises(TencentCloudSDKException) as error:
        function.ask(action, **parameters)
    return str(error.value.code)


@pytest.fixture
def function(tencent: TencentCloud) -> ScfFunction:
    return ScfFunction.make(tencent, ECHO, Environment={"Variables": [{"Key": "GREETING", "Value": "hello"}]})


@pytest.fixture
def calls(tencent: TencentCloud) -> Iterator[ScfCalls]:
    service = tencent.cloud.service(ScfCalls)
    yield service
    service.copies = 1


def test_a_change_is_under_way_for_a_while_and_refuses_another_one(function: ScfFunction) -> None:
    function.ask("UpdateFunctionConfiguration", Timeout=5)
    assert refused(function, "UpdateFunctionConfiguration", Timeout=6) == "FailedOperation.FunctionStatusError"
    assert refused(function, "PublishVersion") == "FailedOperation.FunctionStatusError"
    assert function.ask("GetFunction").Status == "Updating"
    assert function.ask("GetFunction").Status == "Active"
    number = function.ask("PublishVersion").FunctionVersion
    listed = function.ask("ListVersionByFunction").Versions
    assert {version.Version: version.Status for version in listed} == {"$LATEST": "Active", number: "Publishing"}


def test_a_change_can_fail(tencent: TencentCloud, function: ScfFunction) -> None:
    service = tencent.cloud.service(Scf)
    service.fails = True
    try:
        function.ask("UpdateFunctionConfiguration", Timeout=5)
        assert function.settle().Status == "UpdateFailed"
    finally:
        service.fails = False


def test_an_update_of_the_variables_replaces_all_of_them(function: ScfFunction) -> None:
    function.ask("UpdateFunctionConfiguration", Environment={"Variables": [{"Key": "OTHER", "Value": "1"}]})
    assert function.settle().Timeout == 60
    assert function.variables() == {"OTHER": "1"}


def test_a_version_keeps_what_it_was_published_with(function: ScfFunction) -> None:
    number = function.publish("first try")
    function.ask("UpdateFunctionConfiguration", Environment={"Variables": [{"Key": "GREETING", "Value": "bye"}]})
    function.settle()
    function.ask("UpdateFunctionCode", ZipFile=zipped({"index.py": ECHO.replace("greeting", "word")}))
    function.settle()
    assert json.loads(function.call(number).RetMsg) == {"event": {}, "greeting": "hello", "version": number}
    assert json.loads(function.call().RetMsg)["word"] == "bye"
    code = {q: function.ask("GetFunctionAddress", Qualifier=q).CodeSha256 for q in ("$LATEST", number)}
    assert code["$LATEST"] != code[number]
    assert function.ask("GetFunction", Qualifier=number).Description == "first try"


def test_an_alias_divides_calls_by_weight(function: ScfFunction) -> None:
    main, other = function.publish(), function.publish()
    weights = {"AdditionalVersionWeights": [{"Version": other, "Weight": 0.5}]}
    function.ask("UpdateAlias", Name="$DEFAULT", FunctionVersion=main, RoutingConfig=weights)
    alias = function.cloud.cloud.service(Scf).functions.find(function.name, "default").aliases["$DEFAULT"]  # type: ignore[union-attr]
    assert {alias.choose() for _ in range(100)} == {main, other}
    assert json.loads(function.call("$DEFAULT").RetMsg)["version"] in (main, other)
    function.ask("UpdateAlias", Name="$DEFAULT", FunctionVersion=other, RoutingConfig={"AdditionalVersionWeights": []})
    assert function.ask("GetAlias", Name="$DEFAULT").RoutingConfig.AdditionalVersionWeights == []
    assert refused(function, "DeleteFunction", Qualifier=other) == "UnsupportedOperation.AliasBind"


def test_what_is_not_there_or_not_allowed_is_refused(tencent: TencentCloud, function: ScfFunction) -> None:
    stranger = ScfFunction(tencent, "stranger")
    same = {"AdditionalVersionWeights": [{"Version": "$LATEST", "Weight": 0.1}]}

    def variables(key: str, value: str) -> dict[str, Any]:
        return {"Environment": {"Variables": [{"Key": key, "Value": value}]}}

    configure = "UpdateFunctionConfiguration"
    assert refused(stranger, "GetFunction") == "ResourceNotFound.Function"
    assert refused(function, "GetAlias", Name="live") == "ResourceNotFound.Alias"
    assert refused(function, "GetFunction", Qualifier="9") == "ResourceNotFound.FunctionVersion"
    assert refused(function, "Invoke", Qualifier="live") == "ResourceNotFound.Qualifier"
    assert refused(function, "CreateAlias", Name="$DEFAULT", FunctionVersion="$LATEST") == "ResourceInUse.Alias"
    assert refused(function, "UpdateAlias", Name="$DEFAULT", FunctionVersion="$LATEST", RoutingConfig=same) == (
        "InvalidParameterValue.AdditionalVersionWeights"
    )
    assert refused(function, configure, **variables("SCF_X", "1")) == ("InvalidParameterValue.EnvironmentSystemProtect")
    assert refused(function, configure, **variables("LONG", "x" * 4096)) == (
        "InvalidParameterValue.EnvironmentExceededLimit"
    )
    assert refused(function, configure, **variables("EMPTY", "")) == "InvalidParameterValue"
    assert refused(function, configure, Timeout=901) == "InvalidParameterValue"
    assert refused(function, configure, MemorySize=100) == "InvalidParameterValue.MemorySize"
    assert refused(function, "PublishVersion", Description="a/b") == "InvalidParameterValue"
    assert refused(function, configure, L5Enable="TRUE") == "UnknownParameter"
    assert refused(function, "Invoke", ClientContext="no JSON") == "InvalidParameterValue.Param"
    assert refused(function, "Invoke", ClientContext=json.dumps("x" * 6_000_000)) == "InvalidParameter.RequestTooLarge"


def test_errors_of_a_function_come_in_band_and_a_late_one_is_ended(tencent: TencentCloud) -> None:
    result = ScfFunction.make(tencent, MOODY).call()
    assert (result.RetMsg, "ValueError: not today" in result.ErrMsg) == ("", True)
    slow = ScfFunction.make(tencent, "import time\ndef main_handler(event, context): time.sleep(60)", Timeout=1)
    assert "timed out after 1 seconds" in slow.call().ErrMsg
    assert "exited with 3" in ScfFunction.make(tencent, "import os\nos._exit(3)").call().ErrMsg


def test_a_function_has_its_variables_its_context_and_the_keys_of_its_role_and_nothing_else(
    tencent: TencentCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_CANARY", "hunter2")
    code = "import os\ndef main_handler(event, context): return {'context': context, 'environ': dict(os.environ)}"
    answer = json.loads(ScfFunction.make(tencent, code, Role="runner", Timeout=7).call().RetMsg)
    assert (answer["context"]["time_limit_in_ms"], answer["context"]["memory_limit_in_mb"]) == (7000, "128")
    assert "KEYTURN_CANARY" not in answer["environ"]
    assert tencent.key.secret_id not in answer["environ"].values()
    keys = {name for name in answer["environ"] if name.startswith("TENCENTCLOUD_SE")}
    assert keys == {"TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY", "TENCENTCLOUD_SESSIONTOKEN"}


def test_a_custom_runtime_is_started_by_its_bootstrap(tencent: TencentCloud) -> None:
    bootstrap = """#!/bin/sh
base="http://$SCF_RUNTIME_API:$SCF_RUNTIME_API_PORT/runtime"
exec python3 -c "
import os, sys, urllib.request
base = sys.argv[1]
urllib.request.urlopen(urllib.request.Request(base + '/init/ready', data=b' ')).close()
event = urllib.request.urlopen(base + '/invocation/next').read()
urllib.request.urlopen(urllib.request.Request(base + '/invocation/response', data=b'{\\"got\\": ' + event + b'}'))
" "$base"
"""
    code = {"ZipFile": zipped({"bootstrap": bootstrap})}
    function = ScfFunction.make(tencent, "", Code=code, Runtime="CustomRuntime")
    assert json.loads(function.call(event={"a": 1}).RetMsg) == {"got": {"a": 1}}


# Timers


def test_a_timer_fires_by_the_clock_and_its_event_may_come_twice(tencent: TencentCloud, calls: ScfCalls) -> None:
    topic = make_topic(tencent)
    function = ScfFunction.make(tencent, ECHO, ClsTopicId=topic)
    # A clock that stands within the 300 s for which a signature is good.
    begun = datetime.fromtimestamp(time.time() // 120 * 120, UTC)
    tencent.clock.stop(begun)
    timer = {"TriggerName": "often", "Type": "timer", "TriggerDesc": "0 */2 * * * * *", "CustomArgument": "turn"}
    made = function.ask("CreateTrigger", **timer).TriggerInfo
    assert (made.TriggerDesc, made.Enable, made.Qualifier) == ('{"cron":"0 */2 * * * * *"}', 1, "$LATEST")
    tencent.clock.advance(119)
    function.wait()
    assert messages(tencent, topic) == []
    calls.copies = 2
    tencent.clock.advance(1)
    function.wait()
    printed = messages(tencent, topic, '"called with"')
    assert len(printed) == 2
    due = f"{begun + timedelta(minutes=2):%Y-%m-%dT%H:%M:%SZ}"
    event = {"Type": "Timer", "TriggerName": "often", "Time": due, "Message": "turn"}
    assert all(str(event) in line for line in printed)
    function.ask("UpdateTriggerStatus", **{name: timer[name] for name in ("TriggerName", "Type")}, Enable="CLOSE")
    tencent.clock.advance(120)
    function.wait()
    assert len(messages(tencent, topic, '"called with"')) == 2
    assert [trigger.Enable for trigger in function.ask("ListTriggers").Triggers] == [0]
    function.ask("DeleteTrigger", TriggerName="often", Type="timer")
    assert function.ask("ListTriggers").TotalCount == 0


def test_an_asynchronous_call_that_fails_is_tried_again_twice(tencent: TencentCloud) -> None:
    topic = make_topic(tencent)
    function = ScfFunction.make(tencent, MOODY, ClsTopicId=topic)
    tencent.clock.stop()
    function.ask("Invoke", InvocationType="Event", ClientContext="{}")
    tried = []
    for seconds in (59, 1, 119, 1, 90):
        function.wait()
        tried.append(len(messages(tencent, topic, "tried")))
        tencent.clock.advance(seconds)
    function.wait()
    assert [*tried, len(messages(tencent, topic, "tried"))] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("cron", ["* * * * *", "0 0 24 * * * *", "0 0 0 * * * 1969", "0 0 0 * * 7-8 *", "often"])
def test_what_is_no_cron_of_seven_fields_is_refused(tencent: TencentCloud, function: ScfFunction, cron: str) -> None:
    asked = {"TriggerName": "odd", "Type": "timer", "TriggerDesc": cron}
    assert refused(function, "CreateTrigger", **asked) == "InvalidParameterValue.TriggerDesc"


def test_the_last_time_of_a_timer() -> None:
    at = NOON.timestamp()
    every_5_minutes = Timer("0 */5 * * * * *")
    assert every_5_minutes.last(at - 1, at) == at
    assert every_5_minutes.last(at, at + 299) is None
    assert every_5_minutes.last(at, at + 301) == at + 300
    assert Timer("0 0 20 * * SUN 2026").last(at - 1, at) == at  # noon in UTC is 20 o'clock in Beijing
    assert Timer("0 0 20 * * * 2027").last(at - 86400, at) is None


# What it keeps


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    with running_tencent(tmp_path / "cloud.sqlite3") as first:
        function = ScfFunction.make(first, ECHO)
        number = function.publish()
        function.ask("CreateAlias", Name="live", FunctionVersion=number)
    with running_tencent(tmp_path / "cloud.sqlite3") as second:
        again = ScfFunction(second, function.name)
        assert json.loads(again.call("live").RetMsg)["version"] == number


def _fields(model: type) -> set[str]:
    return set(re.findall(r":param _(\w+):", inspect.getsource(model.__init__))) - {"RequestId"}  # type: ignore[misc]


def test_every_field_that_the_sdk_knows_is_answered(tencent: TencentCloud, function: ScfFunction) -> None:
    number = function.publish()
    asked: dict[str, dict[str, Any]] = {
        "GetFunction": {},
        "GetFunctionAddress": {},
        "PublishVersion": {},
        "ListVersionByFunction": {},
        "GetAlias": {"Name": "$DEFAULT"},
        "ListAliases": {},
        "ListTriggers": {},
        "CreateTrigger": {"TriggerName": "t", "Type": "timer", "TriggerDesc": "0 0 0 1 1 * 2099"},
        "Invoke": {"Qualifier": number},
    }
    client = tencent.client("scf")
    for action, parameters in asked.items():
        raw = json.loads(client.call(action, {"FunctionName": function.name, **parameters}))["Response"]
        assert raw.keys() - {"RequestId"} == _fields(getattr(models, f"{action}Response")), action
    result = json.loads(client.call("Invoke", {"FunctionName": function.name}))["Response"]["Result"]
    assert result.keys() == _fields(models.Result)
    listed = json.loads(client.call("ListTriggers", {"FunctionName": function.name}))["Response"]["Triggers"]
    assert listed[0].keys() == _fields(models.TriggerInfo)
    assert ask(tencent, "scf", "GetFunction", {"FunctionName": function.name}).CodeSize > 0
