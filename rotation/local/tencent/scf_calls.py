"""Serverless Cloud Function (SCF) 2018-04-16: calls of functions, and timers.

A call runs the function's code in a child process (:mod:`rotation.local.tencent.scf_process`). What it prints goes to
its topic in CLS, in the fields of https://cloud.tencent.com/document/product/583/60336.

Asynchronous calls (timers always are) are tried again twice when the function fails, one and two minutes later
(https://www.tencentcloud.com/document/product/583/9708). A timer that was due several times since the last look, as
after a leap of the clock, fires once.

Not known of the real service, or not emulated: which calls are delivered twice (here on demand, by
:attr:`ScfCalls.copies`), tries again after errors of the platform, warm instances, memory limits, and routing by
RoutingKey.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sys
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rotation.local.tencent.cls import Cls
from rotation.local.tencent.scf import Scf, shown_trigger
from rotation.local.tencent.scf_process import Invocation, Outcome, run
from rotation.local.tencent.scf_records import (
    DEFAULT_ALIAS,
    LATEST,
    Event,
    Function,
    Functions,
    OfFunction,
    Trigger,
    Version,
    page,
)
from rotation.local.tencent.scf_timer import Timer
from rotation.local.tencent.service import Fields, Parameters, Service, action
from rotation.local.tencent.wire import ApiError, Call

if TYPE_CHECKING:
    from rotation.local.tencent.cloud import Cloud

MOST_SYNCHRONOUS = 6_000_000  # bytes
MOST_ASYNCHRONOUS = 128_000
MOST_WAITED = 300  # seconds that Invoke waits for an answer
TRIES_AGAIN = (60.0, 120.0)  # seconds after a failure
MOST_TRIGGERS = 10

TriggerName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}$")]


class Invoke(OfFunction):
    InvocationType: Literal["RequestResponse", "Event"] = "RequestResponse"
    Qualifier: str = LATEST
    ClientContext: str = "{}"
    LogType: str = "None"
    RoutingKey: str | None = None


class InvokeFunction(OfFunction):
    Qualifier: str = DEFAULT_ALIAS
    Event: str = "{}"
    LogType: str = "None"
    RoutingKey: str | None = None


class OfTrigger(OfFunction):
    TriggerName: TriggerName
    Type: str
    TriggerDesc: str = ""
    Qualifier: str = LATEST


class CreateTrigger(OfTrigger):
    Enable: Literal["OPEN", "CLOSE"] = "OPEN"
    CustomArgument: Annotated[str, Field(max_length=4096)] = ""
    Description: str = ""


class UpdateTriggerStatus(OfTrigger):
    Enable: Literal["OPEN", "CLOSE"]


class TriggerFilter(Parameters):
    Name: str
    Values: list[str]


class ListTriggers(OfFunction):
    Offset: Annotated[int, Field(ge=0)] = 0
    Limit: Annotated[int, Field(ge=1, le=100)] = 20
    OrderBy: str = "mod_time"
    Order: str = "DESC"
    Filters: Annotated[list[TriggerFilter], Field(default_factory=list)]


class ScfCalls(Service):
    """``copies`` is how often each event of a timer is delivered."""

    SERVICE = "scf"
    VERSION = "2018-04-16"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.copies = 1
        self._unpacking = threading.Lock()
        self._unpacked: Path | None = None
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="scf")
        self._running: set[Future[None]] = set()
        self._stopping = threading.Event()

    def close(self) -> None:
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)
        if self._unpacked is not None:
            shutil.rmtree(self._unpacked, ignore_errors=True)

    # Calls

    @action(rate=500, transaction=False)
    def invoke(self, call: Call, asked: Invoke) -> Fields:
        _check_payload(asked.ClientContext, MOST_SYNCHRONOUS)
        if asked.InvocationType == "RequestResponse":
            return self._answer(asked, asked.Qualifier, asked.ClientContext, call.region)
        _check_payload(asked.ClientContext, MOST_ASYNCHRONOUS)
        function = self._functions.get(asked)
        _resolve(function, asked.Qualifier)
        identifier = self._deliver(function, asked.Qualifier, asked.ClientContext, "invoke", self.cloud.clock.now())
        self.tick()
        empty = {"Log": "", "RetMsg": "", "ErrMsg": "", "MemUsage": 0, "Duration": 0, "BillDuration": 0}
        return {"Result": {**empty, "FunctionRequestId": identifier, "InvokeResult": 0}}

    @action(rate=500, transaction=False)
    def invoke_function(self, call: Call, asked: InvokeFunction) -> Fields:
        _check_payload(asked.Event, MOST_SYNCHRONOUS)
        return self._answer(asked, asked.Qualifier, asked.Event, call.region)

    def _answer(self, asked: OfFunction, qualifier: str, payload: str, region: str) -> Fields:
        function = self._functions.get(asked)
        identifier = str(uuid.uuid4())
        outcome, _ = self._call(function, qualifier, payload, {"TENCENTCLOUD_REGION": region}, identifier)
        return {
            "Result": {
                "Log": outcome.log[-4096:],
                "RetMsg": outcome.answer,
                "ErrMsg": outcome.error,
                "MemUsage": 0,
                "Duration": outcome.milliseconds,
                "BillDuration": int(outcome.milliseconds) + 1,
                "FunctionRequestId": identifier,
                "InvokeResult": 1 if outcome.error else 0,
            }
        }

    def _call(
        self, function: Function, qualifier: str, payload: str, more: Mapping[str, str], identifier: str
    ) -> tuple[Outcome, Version]:
        version, alias = _resolve(function, qualifier)
        settings = version.settings
        invocation = Invocation(
            request_id=identifier,
            folder=self._code(version.code),
            runtime=settings.runtime,
            handler=settings.handler,
            event=payload,
            environment={**self._environment(function, version), **more},
            seconds=min(settings.timeout, MOST_WAITED) if "TRIGGER_SRC" not in more else settings.timeout,
            memory=settings.memory,
        )
        outcome = run(invocation, self._stopping)
        self._log(function, version, alias, identifier, outcome)
        return outcome, version

    def _environment(self, function: Function, version: Version) -> dict[str, str]:
        """https://www.tencentcloud.com/document/product/583/32748"""
        settings = version.settings
        found = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "x",
            "LANG": "C.UTF-8",
            "SCF_NAMESPACE": function.namespace,
            "SCF_FUNCTIONNAME": function.name,
            "SCF_FUNCTIONVERSION": version.number,
            "TENCENTCLOUD_RUNENV": "SCF",
            **settings.variables,
        }
        if settings.role:
            key = self.cloud.identities.assume(settings.role, self.cloud.identities.account, 7200)
            found["TENCENTCLOUD_SECRETID"] = key.secret_id
            found["TENCENTCLOUD_SECRETKEY"] = key.secret_key
            found["TENCENTCLOUD_SESSIONTOKEN"] = key.token
        return found

    def _code(self, digest: str) -> Path:
        """The folder with the code, unpacked once."""
        with self._unpacking:
            if self._unpacked is None:
                self._unpacked = Path(tempfile.mkdtemp(prefix="keyturn-scf-"))
            folder = self._unpacked / digest
            if not folder.exists():
                code = self._functions.codes.get(digest)
                assert code is not None  # noqa: S101 - it is kept before a version names it
                _unpack(base64.b64decode(code.zip), folder)
        return folder

    def _log(self, function: Function, version: Version, alias: str, identifier: str, outcome: Outcome) -> None:
        if not version.settings.topic:
            return
        now = self.cloud.clock.now()
        fields = {
            "SCF_FunctionName": function.name,
            "SCF_Namespace": function.namespace,
            "SCF_StartTime": str(int(now * 1000 - outcome.milliseconds)),
            "SCF_LogTime": str(int(now * 1e9)),
            "SCF_RequestId": identifier,
            "SCF_Duration": str(int(outcome.milliseconds)),
            "SCF_Alias": alias,
            "SCF_Qualifier": version.number,
            "SCF_MemUsage": "0.000000",
            "SCF_Level": "INFO",
            "SCF_StatusCode": "433" if outcome.error else "200",
            "SCF_RetryNum": "0",
        }
        printed = [("Custom", line) for line in outcome.log.splitlines()]
        lines = [("Platform", f"START RequestId:{identifier}"), *printed, ("Platform", f"END RequestId:{identifier}")]
        logs = [{**fields, "SCF_Type": kind, "SCF_Message": line} for kind, line in lines]
        self.cloud.service(Cls).write(version.settings.topic, logs)

    # Timers

    @action()
    def create_trigger(self, _: Call, asked: CreateTrigger) -> Fields:
        function = self._functions.get(asked)
        _resolve(function, asked.Qualifier)
        if asked.Type != "timer":
            raise ApiError("InvalidParameterValue.Type", "Only timers are emulated.")
        if asked.TriggerName in function.triggers:
            raise ApiError("ResourceInUse.TriggerName", f"The trigger `{asked.TriggerName}` exists already.")
        if len(function.triggers) >= MOST_TRIGGERS:
            raise ApiError("LimitExceeded.Trigger", f"A function has {MOST_TRIGGERS} timers at most.")
        now = self.cloud.clock.now()
        trigger = Trigger(
            name=asked.TriggerName,
            cron=_cron(asked.TriggerDesc),
            message=asked.CustomArgument,
            qualifier=asked.Qualifier,
            description=asked.Description,
            enabled=asked.Enable == "OPEN",
            added=now,
            modified=now,
            checked=now,
        )
        function.triggers[trigger.name] = trigger
        self._functions.put(function)
        return {"TriggerInfo": shown_trigger(trigger)}

    @action()
    def update_trigger_status(self, _: Call, asked: UpdateTriggerStatus) -> Fields:
        function = self._functions.get(asked)
        trigger = _trigger(function, asked)
        now = self.cloud.clock.now()
        trigger.enabled, trigger.checked, trigger.modified = asked.Enable == "OPEN", now, now
        self._functions.put(function)
        return {}

    @action()
    def delete_trigger(self, _: Call, asked: OfTrigger) -> Fields:
        function = self._functions.get(asked)
        del function.triggers[_trigger(function, asked).name]
        self._functions.put(function)
        return {}

    @action()
    def list_triggers(self, _: Call, asked: ListTriggers) -> Fields:
        triggers = sorted(
            self._functions.get(asked).triggers.values(),
            key=lambda trigger: trigger.added if asked.OrderBy == "add_time" else trigger.modified,
            reverse=asked.Order == "DESC",
        )
        shown = [{**shown_trigger(trigger), "BoundResources": ""} for trigger in triggers]
        found = [one for one in shown if all(one.get(wanted.Name) in wanted.Values for wanted in asked.Filters)]
        return {"Triggers": page(found, asked.Offset, asked.Limit), "TotalCount": len(found)}

    def tick(self) -> None:
        """Fire the timers that are due, and begin the asynchronous calls whose time has come."""
        waiting = any(function.triggers for function in self._functions.all()) or self._functions.events.all()
        if not waiting:
            return
        with self.cloud.records.transaction():
            for function in self._functions.all():
                self._fire(function)
            due = [(key, event) for key, event in self._functions.events.all().items() if self._is_due(event)]
            for key, event in due:
                self._functions.events.remove(key)
                self._begin(key, event)

    def idle(self) -> bool:
        """Whether no asynchronous call is under way or due."""
        due = any(self._is_due(event) for event in self._functions.events.all().values())
        return not due and not any(not future.done() for future in list(self._running))

    def _fire(self, function: Function) -> None:
        now = self.cloud.clock.now()
        for trigger in function.triggers.values():
            at = Timer(trigger.cron).last(trigger.checked, now) if trigger.enabled else None
            if at is None:
                continue
            trigger.checked = at
            self._functions.put(function)
            event = {
                "Type": "Timer",
                "TriggerName": trigger.name,
                "Time": _utc(at),
                "Message": trigger.message,
            }
            for _ in range(self.copies):
                self._deliver(function, trigger.qualifier, json.dumps(event), "timer", now)

    def _deliver(
        self, function: Function, qualifier: str, payload: str, source: Literal["timer", "invoke"], due: float
    ) -> str:
        identifier = str(uuid.uuid4())
        event = Event(
            function=function.name,
            namespace=function.namespace,
            qualifier=qualifier,
            payload=payload,
            source=source,
            due=due,
        )
        self._functions.events.put(f"{identifier}/0", event)
        return identifier

    def _is_due(self, event: Event) -> bool:
        return event.due <= self.cloud.clock.now()

    def _begin(self, key: str, event: Event) -> None:
        future = self._pool.submit(self._run, key.partition("/")[0], event)
        self._running.add(future)
        future.add_done_callback(self._running.discard)

    def _run(self, identifier: str, event: Event) -> None:
        function = self._functions.find(event.function, event.namespace)
        if function is None:
            return
        source = {"TRIGGER_SRC": event.source}
        outcome, _ = self._call(function, event.qualifier, event.payload, source, identifier)
        if outcome.error and event.attempt < len(TRIES_AGAIN):
            due = self.cloud.clock.now() + TRIES_AGAIN[event.attempt]
            again = event.model_copy(update={"attempt": event.attempt + 1, "due": due})
            self._functions.events.put(f"{identifier}/{again.attempt}", again)

    @property
    def _functions(self) -> Functions:
        return self.cloud.service(Scf).functions


def _check_payload(payload: str, most: int) -> None:
    if len(payload.encode()) > most:
        raise ApiError("InvalidParameter.RequestTooLarge", f"The event is over {most} bytes.")
    try:
        json.loads(payload)
    except ValueError:
        raise ApiError("InvalidParameterValue.Param", "The event is no JSON.") from None


def _resolve(function: Function, qualifier: str) -> tuple[Version, str]:
    """The version that a call of this version or alias runs, and the alias; empty where it is no alias."""
    if qualifier == LATEST or qualifier in function.versions:
        return function.version(qualifier), ""
    try:
        alias = function.alias(qualifier)
    except ApiError:
        raise ApiError("ResourceNotFound.Qualifier", f"There is no version or alias `{qualifier}`.") from None
    return function.version(alias.choose()), alias.name


def _unpack(code: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, folder))
            if mode := entry.external_attr >> 16 & 0o777:
                path.chmod(mode)


def _trigger(function: Function, asked: OfTrigger) -> Trigger:
    trigger = function.triggers.get(asked.TriggerName)
    if trigger is None or trigger.qualifier != asked.Qualifier or asked.Type != "timer":
        raise ApiError("ResourceNotFound.Trigger", f"There is no such trigger `{asked.TriggerName}`.")
    return trigger


def _cron(description: str) -> str:
    """The expression, given by itself or as ``{"cron": "…"}``."""
    text = description.strip()
    if found := re.fullmatch(r'\{\s*"cron"\s*:\s*"([^"]*)"\s*\}', text):
        text = found[1]
    try:
        Timer(text)
    except ValueError as error:
        raise ApiError("InvalidParameterValue.TriggerDesc", f"The timer's expression: {error}.") from None
    return text


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
