"""Whatever goes wrong between a runner and the emulated Tencent Cloud, neither of them tells a value.

What a value is, is taken from the wire: everything secret that a runner has sent, or the cloud has answered.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import stamina

from rotation.engine import Request
from rotation.errors import KeyturnError
from rotation.local.demo.leaks import _sensitive
from rotation.local.tencent.wire import Request as Signed
from rotation.manifest import Key, Plugin
from rotation.model import Strategy
from tests.contracts.crash import WAIT, Stage
from tests.contracts.credential_kind import texts_of
from tests.fixtures.tencent import TencentCloud
from tests.rotation.credentials.test_tencent_cam_key import Robot
from tests.test_crash_ssm import TOKEN, folder, key_of_kms, on_tencent

__all__ = ["folder"]  # a fixture of that file

FAULTS = ("drop", "lost_reply", "cut", "http_error", "internal", "charset")
_HARMLESS = {"default", "promoting", "rejected"}  # what SSM keeps beside the values
_SECRET = ("SecretString", "Plaintext", "SecretAccessKey", "SecretKey")


@dataclass
class Wire:
    """A cloud's wire, and the secrets that were seen on it."""

    tencent: TencentCloud
    seen: set[str] = field(default_factory=set)

    def tap(self, patch: pytest.MonkeyPatch) -> None:
        answer = self.tencent.cloud.answer

        def tapped(request: Signed, writes_behind: int = 0) -> Mapping[str, Any]:
            self.learn(json.loads(request.body))
            answered = answer(request, writes_behind)
            self.learn(answered)
            return answered

        patch.setattr(self.tencent.cloud, "answer", tapped)

    def learn(self, content: Any) -> None:
        """Remember what is secret in a request or an answer, at any depth."""
        if isinstance(content, Mapping):
            for name, part in content.items():
                if name in _SECRET and isinstance(part, str):
                    self._remember(part)
                self.learn(part)

    def _remember(self, text: str) -> None:
        self.seen.update(value.decode() for value in _sensitive(text) if text not in _HARMLESS)
        if text.startswith("{"):
            self.learn(json.loads(text))


@pytest.fixture
def wire(timed_tencent: TencentCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    made = Wire(timed_tencent, {timed_tencent.key.secret_key})
    made.tap(monkeypatch)
    with stamina.set_testing(True, attempts=2):
        yield made


def _token(folder: Path, tencent: TencentCloud) -> tuple[Stage, list[str]]:
    stage = on_tencent(folder, tencent, TOKEN, Strategy.OVERLAPPING)
    return stage, ["ssm.PutSecretValue", "ssm.GetSecretValue", "ssm.UpdateSecret", "ssm.DeleteSecretVersion"]


def _sealed_token(folder: Path, tencent: TencentCloud) -> tuple[Stage, list[str]]:
    key = Key(service=Plugin(kind="tencent_kms", options=tencent.options), reference=key_of_kms(tencent))
    stage = on_tencent(folder, tencent, TOKEN, Strategy.OVERLAPPING, key)
    return stage, ["kms.GenerateDataKey", "kms.Decrypt"]


def _access_key(folder: Path, tencent: TencentCloud) -> tuple[Stage, list[str]]:
    credential = Plugin(kind="tencent_cam_key", options={"user": Robot.of(tencent).name, **tencent.options})
    stage = on_tencent(folder, tencent, credential, Strategy.OVERLAPPING)
    return stage, ["cam.CreateAccessKey", "cam.UpdateAccessKey", "sts.GetCallerIdentity"]


@pytest.mark.parametrize("make", [_token, _sealed_token, _access_key])
def test_no_failing_call_lets_a_value_out(
    wire: Wire,
    folder: Path,
    make: Callable[[Path, TencentCloud], tuple[Stage, list[str]]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    stage, calls = make(folder, wire.tencent)
    faults, errors = wire.tencent.faults, list[KeyturnError]()
    for fault, call in product(FAULTS, calls):
        faults.forget_calls()
        faults.plan(call, fault, times=1000)
        errors += _failed(stage)
        assert call in faults.calls()
        faults.clear()
        assert stage.run(Request()).error is None
        wire.seen.add(stage.value().reveal())
        stage.settle()
    assert len(errors) >= len(FAULTS)
    assert len(wire.seen) > len(FAULTS)
    said = {
        "errors": "".join(text for error in errors for text in texts_of(error)),
        "log": "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records),
        "output": "".join([*capfd.readouterr(), *(repr(event) for event in stage.told)]),
        **{path.name: path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()},
    }
    assert f"{calls[0]} refused: InternalError" in said["log"]
    assert "what='failed'" in said["output"]
    assert "crash/secret" in said["journal.sqlite3"]
    assert not [place for place, text in said.items() if any(value in text for value in wire.seen)]


def _failed(stage: Stage) -> list[KeyturnError]:
    """What a run ended with, if it was an error."""
    try:
        error = stage.run(Request()).error
    except KeyturnError as raised:
        error = raised
    return [error] if error else []


def test_a_value_in_the_log_of_the_sdk_would_be_found(
    wire: Wire, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is why that log is kept at INFO."""
    stage, _ = _token(folder, wire.tencent)
    with caplog.at_level(logging.DEBUG, "tencentcloud_sdk_common"):
        stage.run(Request(wait=WAIT))
    assert [value for value in wire.seen if value in caplog.text]
