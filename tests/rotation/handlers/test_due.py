"""Scheduled events, on the AWS API and a PostgreSQL server, with a pipeline that takes dispatches."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
import stamina
import yaml

from rotation.engine import Engine, Request
from rotation.errors import KeyturnError, StoreError, Unauthorized, Unavailable
from rotation.handlers.dispatch import send
from rotation.handlers.due import RESERVE, turn_due
from rotation.manifest import Dispatch, Rehearsal
from rotation.model import StoreView
from rotation.secret_value import SecretValue
from rotation.stores.aws_secrets_manager import AwsSecretsManager
from tests.contracts.staging import told_by
from tests.fixtures.project import CHECKOUT
from tests.rotation.handlers.function import DB, TOKEN, USED, Function

CI_TOKEN = "canary-ci-token-5d1f"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Pipeline(ThreadingHTTPServer):
    """Keeps what it is sent, and answers with ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.status = 204
        self.taken: list[tuple[dict[str, str], str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dispatches"


class _Taking(BaseHTTPRequestHandler):
    server: Pipeline

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.taken.append((dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(autouse=True)
def without_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    with Pipeline() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def dispatch(function: Function, pipeline: Pipeline) -> Dispatch:
    name = f"{function.environment}/ci-token"
    function.client.create_secret(Name=name, SecretString=f"{CI_TOKEN}\n")
    return Dispatch(kind="github", url=pipeline.url, token=name)


def _give_the_used_one_a_value(function: Function) -> None:
    """What the pipeline did once: a function cannot."""
    store = function.plugins.store(function.manifest.secrets[USED])
    store.stage(function.manifest.secrets[USED].stored_as, 1, SecretValue("v"))
    store.promote(function.manifest.secrets[USED].stored_as, 1, None)


def _later(engine: Engine, by: timedelta = DAY) -> Engine:
    engine.clock = engine.observer._clock = lambda: datetime.now(UTC) + by
    return engine


def _tick(
    function: Function, dispatch: Dispatch | None = None, *, seconds: float = 900, later: timedelta = DAY
) -> dict[str, Any]:
    with function.engine() as engine:
        return turn_due(_later(engine, later), dispatch, lambda: seconds)


def _generations(function: Function) -> list[int]:
    return [function.view(name).current.generation for name in (DB, TOKEN)]


def test_what_is_due_and_has_no_consumers_is_turned_in_full(function: Function) -> None:
    assert _tick(function, later=timedelta(0))["secrets"] == {}
    assert _tick(function)["secrets"] == {DB: "promoted", TOKEN: "promoted"}
    old = function.view().previous
    assert old is not None
    assert function.accepted(old)
    assert _tick(function, later=timedelta(0))["secrets"] == {DB: "unchanged", TOKEN: "unchanged"}  # retired now
    assert function.view().previous is None
    assert not function.accepted(old)


def test_an_event_that_is_delivered_twice_turns_nothing_twice(function: Function) -> None:
    with function.engine() as engine:
        due = _later(engine)
        turn_due(due, None, lambda: 900)
        engine.clock = lambda: datetime.now(UTC)
        turn_due(engine, None, lambda: 900)
    assert _generations(function) == [2, 2]


def test_near_its_limit_the_function_begins_nothing_and_the_next_tick_goes_on(function: Function) -> None:
    result = _tick(function, seconds=RESERVE - 1)
    assert (result["secrets"], sorted(result["left"])) == ({}, [TOKEN, DB])
    assert _generations(function) == [1, 1]
    times = iter([RESERVE + 1, RESERVE - 1])
    with function.engine() as engine:
        assert len(turn_due(_later(engine), None, lambda: next(times))["left"]) == 1
    _tick(function)
    assert sorted(_generations(function)) in ([2, 2], [2, 3])


def test_what_a_killed_function_left_is_finished_first(function: Function) -> None:
    with function.engine() as engine:
        engine.run([DB], Request(until="install"))
    assert _tick(function, later=timedelta(0))["secrets"] == {DB: "promoted"}
    assert _generations(function) == [2, 1]


def test_a_secret_that_another_runner_holds_is_left_to_it(function: Function) -> None:
    with function.engine() as engine, engine.journal.lease([DB]):
        result = _tick(function)
    assert "another runner" in result["secrets"][DB]
    assert _generations(function) == [1, 2]


def test_a_secret_with_consumers_is_handed_to_the_pipeline_once(
    function: Function, pipeline: Pipeline, dispatch: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    _give_the_used_one_a_value(function)
    result = _tick(function, dispatch, later=2 * HOUR)
    assert result["asked_for"] == [USED]
    ((headers, body),) = pipeline.taken
    assert headers["Authorization"] == f"Bearer {CI_TOKEN}"
    inputs = {"environments": json.dumps([function.environment]), "trigger": "schedule", "words": USED}
    assert json.loads(body) == {"ref": "main", "inputs": inputs}
    result = _tick(function, dispatch, later=3 * HOUR)
    assert (result["for_the_pipeline"], result["asked_for"]) == ([USED], [])
    assert len(pipeline.taken) == 1
    assert _tick(function, dispatch, later=7 * HOUR)["asked_for"] == [USED]  # the pipeline has not done it
    assert CI_TOKEN not in caplog.text
    assert CI_TOKEN.encode() not in (function.project / "journal.sqlite3").read_bytes()
    assert function.view(USED).current.generation == 1


def test_without_a_pipeline_what_it_would_turn_is_reported(function: Function) -> None:
    _give_the_used_one_a_value(function)
    result = _tick(function)
    assert (result["for_the_pipeline"], result["asked_for"]) == ([USED], [])


@pytest.mark.parametrize(
    "changes", [{"rehearsal": Rehearsal(environment="staging", within=7 * DAY)}, {"rehearses": True}]
)
def test_an_environment_with_a_rehearsal_leaves_everything_to_the_pipeline(
    function: Function, dispatch: Dispatch, changes: dict[str, Any]
) -> None:
    function.manifest = function.manifest.model_copy(update=changes)
    assert _tick(function, dispatch)["asked_for"] == [TOKEN, DB]
    assert _generations(function) == [1, 1]


def test_a_dead_pipeline_fails_the_invocation_after_the_rest_is_done(function: Function, dispatch: Dispatch) -> None:
    _give_the_used_one_a_value(function)
    dead = dispatch.model_copy(update={"url": "http://127.0.0.1:9/dispatches"})
    with pytest.raises(KeyturnError, match="cannot be reached"):
        _tick(function, dead)
    assert _generations(function) == [2, 2]
    assert _tick(function, dispatch, later=timedelta(0))["asked_for"] == []  # nothing is due at that time
    assert _tick(function, dispatch)["asked_for"] == [USED]  # what failed was not noted as asked


def test_a_database_that_is_down_fails_the_invocation_and_the_others_are_turned(function: Function) -> None:
    login = function.database.administrator.reveal()
    port = str(function.database.server.port)
    function.client.update_secret(SecretId=function.administrator, SecretString=login.replace(port, "9"))
    with pytest.raises(KeyturnError, match=DB):
        _tick(function)
    assert _generations(function) == [1, 2]


def test_a_secret_that_its_store_withholds_fails_the_invocation_and_the_others_are_turned(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    withheld, observe = function.manifest.secrets[DB].stored_as, AwsSecretsManager.observe

    def without_one(store: AwsSecretsManager, names: Sequence[str], *, fresh: bool = False) -> dict[str, StoreView]:
        views = observe(store, names, fresh=fresh)
        trouble = StoreView(withheld, exists=False, trouble=StoreError("it is disabled"))
        return views | ({withheld: trouble} if withheld in views else {})

    monkeypatch.setattr(AwsSecretsManager, "observe", without_one)
    with pytest.raises(KeyturnError, match=f"{DB}: it is disabled"):
        _tick(function)
    monkeypatch.undo()
    assert _generations(function) == [1, 2]


def test_jenkins_is_asked_by_its_build_parameters(pipeline: Pipeline) -> None:
    dispatch = Dispatch(kind="jenkins", url=pipeline.url, token="t")
    send(dispatch, "staging", ["a", "b"], SecretValue("user:token"))
    ((headers, body),) = pipeline.taken
    assert headers["authorization"].startswith("Basic ")
    asked = {"ACTION": ["rotate"], "ENVIRONMENT": ["staging"], "TRIGGER": ["schedule"], "WORDS": ["a, b"]}
    assert parse_qs(body) == asked


def test_the_inputs_are_those_that_the_workflow_and_the_jenkinsfile_take(pipeline: Pipeline) -> None:
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/rotate.yml").read_text())
    known = workflow[True]["workflow_dispatch"]["inputs"]  # "on" is true to a YAML 1.1 parser
    send(Dispatch(kind="github", url=pipeline.url, token="t"), "staging", ["a"] * 20, SecretValue("t"))
    inputs = json.loads(pipeline.taken[0][1])["inputs"]
    assert inputs.keys() <= known.keys()
    assert inputs["trigger"] in known["trigger"]["options"]
    assert inputs["words"].endswith(" and 10 more")
    send(Dispatch(kind="jenkins", url=pipeline.url, token="t"), "staging", ["a"], SecretValue("u:t"))
    jenkinsfile = (CHECKOUT / "Jenkinsfile").read_text()
    for name, (value,) in parse_qs(pipeline.taken[1][1]).items():
        declared = next(line for line in jenkinsfile.splitlines() if f"(name: '{name}'" in line)
        assert "choices:" not in declared or f"'{value}'" in declared


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Unauthorized), (404, KeyturnError), (302, KeyturnError)]
)
def test_a_refusal_is_told_without_the_token_and_a_redirect_is_not_followed(
    pipeline: Pipeline, status: int, error: type[KeyturnError]
) -> None:
    pipeline.status = status
    dispatch = Dispatch(kind="github", url=pipeline.url, token="t")
    with pytest.raises(error, match=str(status)):
        send(dispatch, "staging", ["a"], SecretValue(CI_TOKEN))
    assert len(pipeline.taken) == 1
    assert CI_TOKEN not in told_by(lambda: send(dispatch, "staging", ["a"], SecretValue(CI_TOKEN)))


def test_a_busy_pipeline_is_asked_again(pipeline: Pipeline) -> None:
    pipeline.status = 503
    with pytest.raises(Unavailable):
        send(Dispatch(kind="github", url=pipeline.url, token="t"), "staging", ["a"], SecretValue("t"))
    assert len(pipeline.taken) == 2
