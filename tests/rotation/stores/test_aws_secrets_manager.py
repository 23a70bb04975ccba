"""AWS Secrets Manager, against the AWS API of the embedded environment."""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stamina
from botocore.config import Config

from rotation.aws import Quota
from rotation.errors import ClockSkew, Conflict, DeclarationError, StoreError, Unauthorized, Unavailable, UsageError
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore
from rotation.stores import aws_secrets_manager as plugin
from rotation.stores.aws_secrets_manager import AwsSecretsManager
from tests.contracts.interruption import InterruptionContract
from tests.contracts.rewrapping import RewrappingContract
from tests.contracts.secret_store import SecretStoreContract
from tests.contracts.staging import (
    CANARY,
    Moment,
    Shape,
    Trouble,
    current_of,
    promoted,
    rejected,
    text_of,
    told_by,
)
from tests.fixtures.aws import AwsApi

_numbers = itertools.count(1)
_FAULTS = {
    Trouble.THROTTLED: "throttle",
    Trouble.BROKEN: "error",
    Trouble.DROPPED: "drop",
    Trouble.LOST_REPLY: "lost_reply",
    Trouble.DENIED: "deny",
}


@cache
def _runners() -> Iterator[AwsSecretsManager]:
    """Ten runners, in turn: one keeps nothing but its client, and boto3 takes 0.1 s to make that."""
    return itertools.cycle([AwsSecretsManager({}) for _ in range(10)])


class TestAwsSecretsManager(SecretStoreContract, InterruptionContract, RewrappingContract):
    value_bytes = 65_536
    bad_names = ("", "with space", "tilde~", "x" * 513, "line\nbreak")

    @pytest.fixture(autouse=True)
    def server(self, aws_environment: AwsApi) -> None:
        self.api = aws_environment
        self.raw: Any = aws_environment.client("secretsmanager")

    def open(self) -> AwsSecretsManager:
        return next(_runners())

    def slot(self) -> str:
        name = f"keyturn-store-tests/{next(_numbers):04d}-{uuid.uuid4().hex[:8]}"
        self.raw.create_secret(Name=name)
        return name

    def put_foreign(self, name: str, text: str) -> str:
        version_id: str = self.raw.put_secret_value(SecretId=name, SecretString=text)["VersionId"]
        return version_id

    @contextmanager
    def at_every_call(self, store: SecretStore, moment: Moment, do: Callable[[], None]) -> Iterator[None]:
        assert isinstance(store, AwsSecretsManager)
        events = store._client.meta.events  # the SDK's own hooks are the one place where every call passes
        event = {Moment.BEFORE: "before-send", Moment.AFTER: "after-call"}[moment] + ".secrets-manager"

        def pass_by(**_: object) -> None:
            do()

        events.register(event, pass_by)
        try:
            yield
        finally:
            events.unregister(event, pass_by)

    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        self.api.faults("secretsmanager", "*", _FAULTS[kind], times=times, after=after)

    # what AWS does of its own

    def test_a_first_value_that_aws_itself_made_current_counts_as_pending_until_it_is_promoted(self) -> None:
        store, name = self.open(), self.first_value_that_aws_made_current()
        assert self.shape(name) == Shape(current=None, pending=1, previous=None, rejected=False, revision=0)
        with pytest.raises(StoreError):
            store.read(name)
        store.promote(name, 1, None)
        assert self.shape(name) == Shape(current=1, pending=None, previous=None, rejected=False, revision=0)
        assert store.read(name) == text_of(1)

    def test_a_rejected_first_value_that_aws_itself_made_current_can_be_dropped_and_replaced(self) -> None:
        store, name = self.open(), self.first_value_that_aws_made_current()
        store.reject(name, 1)
        assert self.shape(name) == Shape(current=None, pending=1, previous=None, rejected=True, revision=0)
        with pytest.raises(Conflict):
            store.promote(name, 1, None)
        store.discard(name, 1)
        assert self.shape(name) == Shape(None, None, None, False, 0)
        with pytest.raises(StoreError):
            store.read(name)
        promoted(store, name, 2)
        assert self.shape(name) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)

    def first_value_that_aws_made_current(self) -> str:
        name, store = self.slot(), self.open()
        store.stage(name, 1, text_of(1))
        labels = self.raw.describe_secret(SecretId=name)["VersionIdsToStages"][store.predict(name, 1).version_id]
        if "AWSCURRENT" not in labels:
            self.raw.update_secret_version_stage(
                SecretId=name, VersionStage="AWSCURRENT", MoveToVersionId=store.predict(name, 1).version_id
            )
        return name

    def test_a_secret_scheduled_for_deletion_does_not_exist_and_is_not_written(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        self.raw.delete_secret(SecretId=name, RecoveryWindowInDays=7)
        assert not store.observe([name])[name].exists
        assert not store.observe([name, *map(str, range(20))])[name].exists
        with pytest.raises(StoreError):
            store.stage(name, 2, text_of(2))
        with pytest.raises(StoreError):
            store.promote(name, 2, store.predict(name, 1))

    def test_a_binary_value_is_refused(self) -> None:
        store, name = self.open(), self.slot()
        self.raw.put_secret_value(SecretId=name, SecretBinary=b"\x00\x01")
        with pytest.raises(StoreError, match="binary"):
            store.read(name)

    def test_a_version_id_that_only_looks_like_ours_is_foreign(self) -> None:
        store, name = self.open(), self.slot()
        lookalike = f"g0000000007-{uuid.uuid4()}"
        self.raw.put_secret_value(SecretId=name, SecretString="x", ClientRequestToken=lookalike)
        assert current_of(store, name) == Version(lookalike, None)

    def test_aws_own_consumers_read_the_promoted_value_and_never_a_pending_one(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        store.stage(name, 2, text_of(2))
        assert self.raw.get_secret_value(SecretId=name)["SecretString"] == text_of(1).reveal()
        store.promote(name, 2, store.predict(name, 1))
        assert self.raw.get_secret_value(SecretId=name)["SecretString"] == text_of(2).reveal()

    def test_after_a_rotation_only_aws_own_labels_and_the_markers_are_left(self) -> None:
        store, name = self.open(), self.slot()
        for generation in (1, 2, 3):
            promoted(store, name, generation)
        rejected(store, name, 4)
        store.discard(name, 4)
        labels = self.raw.describe_secret(SecretId=name)["VersionIdsToStages"]
        assert labels.pop(store.predict(name, 3).version_id) == ["AWSCURRENT"]
        assert labels.pop(store.predict(name, 2).version_id) == ["AWSPREVIOUS"]
        assert sorted(itertools.chain(*labels.values())) == ["KEYTURN_ACCEPTED", "KEYTURN_OPEN", "KEYTURN_REJECTED"]
        for marker in labels:
            text = self.raw.get_secret_value(SecretId=name, VersionId=marker)["SecretString"]
            assert "holds no secret" in text

    # calls

    def test_a_rotation_makes_few_calls(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        expected = store.predict(name, 1)
        self.api.forget_calls()
        store.stage(name, 2, text_of(2))
        store.promote(name, 2, expected)
        store.discard(name, 1)
        assert self.api.calls() == {
            "secretsmanager.PutSecretValue": 1,
            "secretsmanager.DescribeSecret": 4,
            "secretsmanager.UpdateSecretVersionStage": 4,
        }

    def test_observing_few_makes_one_fresh_call_for_each(self) -> None:
        store, names = self.open(), [self.slot() for _ in range(3)]
        self.api.forget_calls()
        store.observe(names)
        assert self.api.calls() == {"secretsmanager.DescribeSecret": 3}

    def test_observing_many_makes_one_call_for_each_hundred(self) -> None:
        folder = f"keyturn-hundreds-{uuid.uuid4().hex[:8]}"
        names = [f"{folder}/{number:03d}" for number in range(250)]
        for name in names:
            self.raw.create_secret(Name=name, SecretString="x")
        store = self.open()
        self.api.forget_calls()
        views = store.observe(names)
        assert self.api.calls() == {"secretsmanager.ListSecrets": 3}
        assert all(view.exists and view.current for view in views.values())

    def test_every_attempt_of_all_threads_keeps_the_quota(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(plugin.QUOTAS, "DescribeSecret", Quota(f"test {uuid.uuid4()}", 10))
        stores, name = [AwsSecretsManager({}), AwsSecretsManager({})], self.slot()
        self.trouble(Trouble.THROTTLED, times=2)
        started = time.monotonic()
        threads = [threading.Thread(target=_observe_often, args=(store, name, 12)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started > 1.9  # 26 attempts at 10 a second

    # refusals

    def test_a_wrong_clock_is_told(self) -> None:
        store, name = self.open(), self.slot()
        self.api.set_clock(-1000)
        try:
            with pytest.raises(ClockSkew, match="clock"):
                store.observe([name])
        finally:
            self.api.set_clock(0)
        assert store.observe([name])[name].exists

    def test_a_dead_server_is_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(Unavailable):
            AwsSecretsManager({}).observe(["a"])

    def test_a_server_that_does_not_answer_in_time_is_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plugin, "CONFIG", Config(read_timeout=0.2, retries={"total_max_attempts": 1}))
        self.api.faults("secretsmanager", "DescribeSecret", "delay", times=1, seconds=0.6)
        with stamina.set_testing(True, attempts=1), pytest.raises(Unavailable):
            AwsSecretsManager({}).observe(["a"])

    def test_no_credentials_is_unauthorized(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(Unauthorized):
            AwsSecretsManager({}).observe(["a"])

    def test_no_region_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(UsageError, match="region"):
            AwsSecretsManager({})
        AwsSecretsManager({"region": "eu-west-1"})

    def test_an_unknown_option_is_a_wrong_declaration(self) -> None:
        with pytest.raises(DeclarationError, match="regoin"):
            AwsSecretsManager({"regoin": "eu-west-1"})

    def test_a_refused_call_tells_what_was_refused(self) -> None:
        store, name = self.open(), self.slot()
        self.trouble(Trouble.DENIED, times=1)
        with pytest.raises(Unauthorized, match=name):
            store.stage(name, 1, SecretValue("x"))


class _Parrot(BaseHTTPRequestHandler):
    """Refuses every request, and quotes it."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = json.dumps({"__type": "ValidationException", "message": f"no good: {asked}"}).encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


def test_a_server_that_quotes_a_value_does_not_get_it_into_an_error_or_a_log(
    aws_environment: AwsApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Parrot) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            store = AwsSecretsManager({})
            with caplog.at_level(logging.DEBUG):
                told = told_by(lambda: store.stage("orders/db", 1, SecretValue(CANARY)))
        finally:
            server.shutdown()
            thread.join()
    assert "ValidationException" in told
    assert CANARY not in told + caplog.text


def test_the_family_does_not_import_the_sdk() -> None:
    check = "import sys, rotation.stores, rotation.keys; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def _observe_often(store: SecretStore, name: str, times: int) -> None:
    for _ in range(times):
        store.observe([name])
