"""The log topic signal, on the emulated log service."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import stamina

from rotation.errors import DeclarationError
from rotation.local.tencent.cls import MOST_BY_CONTEXT, Cls
from rotation.model import Health
from rotation.plugins import load
from rotation.signals import Signal
from rotation.signals.tencent_cls import PAGE, TencentCls
from tests.contracts.signal import NOW, OTHER, SECRET, SINCE, SignalContract, Source
from tests.fixtures.scf import ScfFunction, make_topic
from tests.fixtures.tencent import TencentCloud


@pytest.fixture(autouse=True)
def few_attempts() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


class Topic(Source):
    """A topic with what an application printed, in the sample application's form."""

    def __init__(self, cloud: TencentCloud) -> None:
        self.cloud = cloud
        self.topic = make_topic(cloud)

    def write(self, *lines: str, at: datetime = SINCE + timedelta(seconds=1)) -> None:
        logs = [{"SCF_Message": line} for line in lines]
        self.cloud.cloud.service(Cls).write(self.topic, logs, [at.timestamp()] * len(logs))

    def signal(self, **options: Any) -> TencentCls:
        return TencentCls({**self.cloud.options, "topic": self.topic, **options})

    def unreadable(self) -> list[Signal]:
        nobody = {**self.cloud.options, "endpoint": "http://127.0.0.1:9"}
        return [
            TencentCls({**self.cloud.options, "topic": "nowhere"}),
            TencentCls({**nobody, "topic": self.topic}),
            self.signal(query="( OR"),
        ]

    def report(self, secret: str, generation: int, *, well: bool, remark: str = "") -> None:
        level = "INFO" if well else "ERROR"
        self.write(f"{level} ring=canary secret={secret} generation={generation} {remark or 'something'}")

    def health(self, **options: Any) -> Health:
        return self.signal(**options).read(SECRET, 42, SINCE, NOW).health


@pytest.fixture
def topic(tencent: TencentCloud) -> Topic:
    return Topic(tencent)


class TestTencentCls(SignalContract):
    @pytest.fixture
    def source(self, topic: Topic) -> Source:
        return topic


def test_it_is_found_by_its_name() -> None:
    assert load(Signal, "tencent_cls") is TencentCls


def test_what_is_too_young_is_no_evidence_of_health_but_its_errors_count(topic: Topic) -> None:
    topic.write(f"INFO secret={SECRET} generation=42 used", at=NOW - timedelta(seconds=59))
    verdict = topic.signal().read(SECRET, 42, SINCE, NOW)
    assert verdict.health is Health.UNKNOWN
    assert "until 08:09:00" in verdict.evidence[0]
    assert topic.health(delay=59) is Health.GOOD
    topic.write(f"ERROR secret={SECRET} generation=42 refused", at=NOW - timedelta(seconds=1))
    assert topic.health() is Health.BAD


def test_only_the_time_that_was_asked_for_counts(topic: Topic) -> None:
    for at in (SINCE - timedelta(milliseconds=1), NOW + timedelta(milliseconds=1)):
        topic.write(f"ERROR secret={SECRET} generation=42", at=at)
    assert topic.health() is Health.UNKNOWN
    for at in (SINCE, NOW):
        topic.write(f"ERROR secret={SECRET} generation=42", at=at)
        verdict = topic.signal(window=1).read(SECRET, 42, SINCE, NOW)
        assert verdict.health is Health.BAD
    assert "2 lines" in verdict.evidence[0]


def test_an_error_on_a_later_page_is_found(topic: Topic, tencent: TencentCloud) -> None:
    topic.write(f"ERROR secret={SECRET} generation=42 the oldest line of all", at=SINCE)
    topic.write(*[f"INFO secret={SECRET} generation=42 used"] * PAGE)
    verdict = topic.signal().read(SECRET, 42, SINCE, NOW)
    assert verdict.health is Health.BAD
    assert f"{PAGE + 1} lines" in verdict.evidence[0]
    assert tencent.faults.calls()["cls.SearchLog"] == 2


def test_more_than_can_be_read_is_unknown(topic: Topic) -> None:
    topic.write(*[f"INFO secret={SECRET} generation=42 used"] * (MOST_BY_CONTEXT + 1))
    verdict = topic.signal().read(SECRET, 42, SINCE, NOW)
    assert verdict.health is Health.UNKNOWN
    assert "narrow the query" in verdict.evidence[-1]


def test_the_query_and_the_field_are_the_users(topic: Topic) -> None:
    service = topic.cloud.cloud.service(Cls)
    fields = {"message": f"ERROR [{SECRET} at 42]", "app": "orders"}
    service.write(topic.topic, [fields, fields | {"app": "other"}], [SINCE.timestamp()] * 2)
    own = {"attribution": r"\[(?P<secret>\S+) at (?P<generation>\d+)\]", "field": "message"}
    query = 'app:orders AND "{secret} at {generation}"'
    verdict = topic.signal(**own, query=query).read(SECRET, 42, SINCE, NOW)
    assert verdict.health is Health.BAD
    assert "1 lines" in verdict.evidence[0]


@pytest.mark.parametrize("kind", ["throttle", "internal", "http_error", "drop", "cut", "charset"])
def test_a_topic_that_answers_badly_for_a_moment_is_asked_again(topic: Topic, tencent: TencentCloud, kind: str) -> None:
    topic.report(SECRET, 42, well=False)
    tencent.faults.plan("cls.SearchLog", kind)
    assert topic.health() is Health.BAD
    tencent.faults.plan("cls.SearchLog", "deny", times=9)
    assert topic.health() is Health.UNKNOWN


def test_a_page_that_does_not_tell_the_next_one_is_not_read_again_and_again(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.write(*[f"INFO secret={SECRET} generation=42 used"] * (PAGE + 1))
    monkeypatch.setattr(Cls, "_context", lambda *_: "")
    verdict = topic.signal().read(SECRET, 42, SINCE, NOW)
    assert verdict.health is Health.UNKNOWN
    assert "does not say where it goes on" in verdict.evidence[0]


def test_what_a_function_prints_is_attributed(topic: Topic, tencent: TencentCloud) -> None:
    code = f"def main_handler(event, context): print(f'ERROR secret={SECRET} generation={{event}} denied')"
    function = ScfFunction.make(tencent, code, ClsTopicId=topic.topic)
    for generation in (41, 42):
        function.call(event=generation)
    now = tencent.clock.moment() + timedelta(seconds=5)
    begun = now - timedelta(minutes=5)
    assert topic.signal().read(SECRET, 42, begun, now).health is Health.BAD
    assert topic.signal().read(SECRET, 43, begun, now).health is Health.UNKNOWN
    assert topic.signal().read(OTHER, 42, begun, now).health is Health.UNKNOWN


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "option topic"),
        ({"topic": "t", "delay": -1}, "option delay"),
        ({"topic": "t", "path": "x"}, "option path"),
        ({"topic": "t", "region": "Mars"}, "option region"),
        ({"topic": "t", "attribution": "x"}, r"option attribution: .*\?P<secret>"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(DeclarationError, match=f"signal tencent_cls: {named}"):
        TencentCls(options)
