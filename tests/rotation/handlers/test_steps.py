"""Secrets Manager's four steps, on the AWS API and a PostgreSQL server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
import stamina

from rotation.engine import Purpose, Request
from rotation.errors import Conflict, LeaseHeld, StoreError, TargetError, Unavailable, UsageError
from rotation.handlers.steps import Step, take
from rotation.manifest import Rehearsal
from rotation.model import Act, Done, Ending, Version
from tests.rotation.handlers.function import DB, STEPS, TOKEN, Function


@pytest.fixture(autouse=True)
def without_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


def test_four_steps_turn_a_secret_and_the_old_value_stays_valid_until_it_is_retired(function: Function) -> None:
    before = function.view().current
    token = function.ask()
    for step in STEPS:
        function.take(step, token)
    view = function.view()
    assert (view.current, view.previous, view.pending) == (Version(token, 2), before, None)
    assert function.accepted(view.current)
    assert function.accepted(before)
    with function.engine() as engine:
        engine.run([DB], Request(purpose=Purpose.RETIRE))
    assert not function.accepted(before)
    assert function.view().previous is None


def test_secrets_manager_and_keyturn_take_turns(function: Function) -> None:
    for generation in (2, 4):
        token = function.rotated(TOKEN)
        assert function.view(TOKEN).current == Version(token, generation)
        with function.engine() as engine:
            result = engine.run([TOKEN], Request())[TOKEN]
        assert isinstance(result.decision, Done)
        assert function.view(TOKEN).current.generation == generation + 1
        with function.engine() as engine:
            engine.run([TOKEN], Request(purpose=Purpose.RETIRE))
    assert not [label for label in function.labels(TOKEN) if label.startswith("KEYTURN_G")]


def test_every_step_may_be_repeated(function: Function) -> None:
    token = function.ask()
    for step in STEPS:
        function.take(step, token)
        after = function.view()
        function.take(step, token)
        assert function.view() == after
    for step in STEPS:  # and all of them once it is current, as Secrets Manager does after a lost answer
        assert "current" in function.take(step, token)
    assert function.view().current == Version(token, 2)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_died_half_way_is_finished_by_its_repetition_without_its_journal(
    function: Function, step: str
) -> None:
    token = function.ask()
    for earlier in STEPS[: STEPS.index(step)]:
        function.take(earlier, token)
    calls = {"createSecret": "PutSecretValue", "finishSecret": "UpdateSecretVersionStage"}
    if step in calls:
        function.api.faults("secretsmanager", calls[step], "lost_reply", times=2, after=1)
        with pytest.raises(Unavailable):
            function.take(step, token)
        function.api.clear_faults()
    else:
        function.take(step, token)
    for later in STEPS[STEPS.index(step) :]:
        function.take(later, token, journal="another")
    view = function.view()
    assert view.current.version_id == token
    assert view.pending is None
    assert function.accepted(view.current)
    assert len(function.users()) == 2


def test_a_step_before_createsecret_is_refused_and_the_target_is_not_touched(function: Function) -> None:
    token = function.ask()
    users = function.users()
    for step in STEPS[1:]:
        with pytest.raises(Conflict, match="createSecret did not come"):
            function.take(step, token)
    assert function.users() == users
    assert function.view().current.generation == 1


def test_a_token_that_secrets_manager_never_made_is_refused(function: Function) -> None:
    before = function.labels()
    for step in STEPS:
        with pytest.raises(Conflict, match="not pending"):
            function.take(step, str(uuid.uuid4()))
    assert function.labels() == before


def test_secrets_manager_refuses_another_rotation_until_this_one_ends(function: Function) -> None:
    token = function.ask()
    function.take("createSecret", token)
    with pytest.raises(function.client.exceptions.InvalidRequestException):
        function.ask()
    for step in STEPS[1:]:
        function.take(step, token)
    assert function.view().current == Version(token, 2)


def test_a_rotation_of_keyturns_own_in_flight_is_left_alone(function: Function) -> None:
    with function.engine() as engine:
        engine.run([DB], Request(until="stage"))
    pending = function.view().pending
    with pytest.raises(function.client.exceptions.InvalidRequestException):
        function.ask()
    for step in STEPS:
        with pytest.raises(Conflict, match="in flight: generation 2"):
            function.take(step, str(uuid.uuid4()))
    assert function.view().pending == pending


def test_a_runner_at_work_on_the_secret_is_not_disturbed(function: Function) -> None:
    token = function.ask()
    with function.engine() as engine, engine.journal.lease([DB]), pytest.raises(LeaseHeld):
        function.take("createSecret", token)
    function.take("createSecret", token)


@pytest.mark.parametrize("after", ["createSecret", "testSecret"])
def test_keyturn_can_finish_what_secrets_manager_began(function: Function, after: str) -> None:
    token = function.ask()
    for step in STEPS[: STEPS.index(after) + 1]:
        function.take(step, token)
    with function.engine("another") as engine:
        engine.run([DB], Request(purpose=Purpose.RESUME))
    assert function.view().current == Version(token, 2)
    assert "current" in function.take("finishSecret", token)


def test_keyturn_can_take_back_what_secrets_manager_began(function: Function) -> None:
    before = function.view().current
    token = function.ask()
    for step in STEPS[:3]:
        function.take(step, token)
    candidate = function.view().pending
    with function.engine() as engine:
        engine.run([DB], Request(purpose=Purpose.ROLL_BACK))
    assert not function.accepted(candidate)
    with pytest.raises(Conflict):
        function.take("finishSecret", token)
    assert function.view().current == before
    next_token = function.rotated()
    assert function.view().current == Version(next_token, 3)


def test_another_rotation_is_refused_while_the_old_value_is_kept_and_nothing_is_left_behind(function: Function) -> None:
    function.rotated()
    labels = function.labels()
    with pytest.raises(StoreError, match="generation 1 of orders/db is still kept"):
        function.take("createSecret", function.ask())
    assert function.labels() == labels
    with function.engine() as engine:
        engine.run([DB], Request(purpose=Purpose.RETIRE))
    function.rotated()
    assert function.view().current.generation == 3


def test_a_secret_with_a_foreign_value_is_refused(empty_function: Function) -> None:
    function = empty_function
    function.client.put_secret_value(SecretId=function.arn(), SecretString="by hand")
    token = function.ask()
    with pytest.raises(StoreError, match="not made by keyturn") as refused:
        function.take("createSecret", token)
    assert "keyturn adopt" in refused.value.remedy
    assert function.view().pending is None


def test_a_database_that_is_down_leaves_the_token_for_another_try(function: Function) -> None:
    token = function.ask()
    login = function.database.administrator.reveal()
    port = str(function.database.server.port)
    function.client.update_secret(SecretId=function.administrator, SecretString=login.replace(port, "9"))
    with pytest.raises(Unavailable):
        function.take("createSecret", token)
    assert function.view().pending == Version(token, None)
    function.client.update_secret(SecretId=function.administrator, SecretString=login)
    for step in STEPS:
        function.take(step, token)
    assert function.view().current == Version(token, 2)


def test_a_candidate_that_lacks_a_privilege_is_not_promoted(function: Function) -> None:
    user = function.users()[0]
    function.database.run(f"CREATE TABLE extra (id int); GRANT SELECT ON extra TO {user}")
    token = function.ask()
    for step in STEPS[:2]:
        function.take(step, token)
    for step in STEPS[2:]:
        with pytest.raises(TargetError, match="extra"):
            function.take(step, token)
    assert function.view().current.generation == 1
    with function.engine() as engine:
        result = engine.run([DB], Request(purpose=Purpose.RESUME))[DB]
    assert isinstance(result.decision, Done)
    assert result.decision.ending is Ending.ROLLED_BACK


def test_an_environment_that_asks_for_a_rehearsal_is_not_rotated_by_a_function(function: Function) -> None:
    rehearsal = Rehearsal(environment="staging", within=timedelta(days=7))
    function.manifest = function.manifest.model_copy(update={"rehearsal": rehearsal})
    with pytest.raises(UsageError, match="rehearsal"):
        function.take("createSecret", function.ask())
    assert function.view().pending is None


def test_a_secret_that_is_not_declared_and_an_event_that_is_no_step_are_refused(function: Function) -> None:
    function.client.create_secret(Name=f"{function.environment}/other", SecretString="x")
    arn = function.client.describe_secret(SecretId=f"{function.environment}/other")["ARN"]
    with function.engine() as engine:
        with pytest.raises(UsageError, match="other"):
            take(engine, Step.read({"Step": "createSecret", "SecretId": arn, "ClientRequestToken": str(uuid.uuid4())}))
        for event in ({"Step": "createSecret"}, {"Step": "x", "SecretId": arn, "ClientRequestToken": "x" * 32}):
            with pytest.raises(UsageError, match="not a step"):
                Step.read(event)


def test_the_trail_tells_of_each_step(function: Function) -> None:
    function.rotated()
    with function.engine() as engine:
        events = [entry.event for entry in engine.journal.trail(DB) if entry.generation == 2]
        assert engine.journal.rotation(DB) is None
        assert not engine.journal.unfinished(DB)
    assert events == ["opened", Act.STAGE, Act.INSTALL, Act.TEST, Act.TEST, Act.PROMOTE, Ending.PROMOTED]
