"""Versions whose id Secrets Manager chose, beside keyturn's own, against the AWS API of the embedded environment."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import stamina
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from rotation.errors import Conflict, GenerationSpent
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores.aws_secrets_manager import AwsSecretsManager
from tests.contracts.staging import Killed, Moment, Shape, current_of, die, promoted, text_of
from tests.fixtures.aws import AwsApi

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:keyturn"


@dataclass
class Slot:
    """A secret whose generation 1 is current."""

    api: AwsApi
    store: AwsSecretsManager
    name: str = field(default_factory=lambda: f"keyturn-token-tests/{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        self.client: Any = self.api.client("secretsmanager")
        self.client.create_secret(Name=self.name)
        promoted(self.store, self.name, 1)

    @property
    def shape(self) -> Shape:
        return Shape.of(AwsSecretsManager({}).observe([self.name])[self.name])

    @property
    def labels(self) -> dict[str, str]:
        versions = self.client.describe_secret(SecretId=self.name)["VersionIdsToStages"]
        return {label: version for version, labels in versions.items() for label in labels}

    def ask(self) -> str:
        """What `aws secretsmanager rotate-secret` does before it calls the function; returns the token."""
        token = str(uuid.uuid4())
        self.client.rotate_secret(SecretId=self.name, ClientRequestToken=token, RotationLambdaARN=FUNCTION)
        return token

    def staged(self, generation: int) -> str:
        token = self.ask()
        self.store.stage_token(self.name, token, generation, text_of(generation))
        return token

    def turned(self, generation: int) -> str:
        token = self.staged(generation)
        self.store.promote(self.name, generation, current_of(self.store, self.name))
        return token


@pytest.fixture
def slot(aws_environment: AwsApi) -> Iterator[Slot]:
    with stamina.set_testing(True, attempts=3):
        yield Slot(aws_environment, AwsSecretsManager({}))


def test_a_version_of_secrets_managers_choice_is_a_generation_like_every_other(slot: Slot) -> None:
    store, name = slot.store, slot.name
    token = slot.staged(2)
    view = store.observe([name])[name]
    assert view.pending == Version(token, 2)
    assert (view.highest, view.rejected, view.promoting) == (2, False, False)
    assert store.read(name, view.pending) == text_of(2)
    store.promote(name, 2, view.current)
    assert slot.shape == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)
    assert store.read(name) == text_of(2)
    store.discard(name, 1)
    promoted(store, name, 3)
    assert store.observe([name])[name].previous == Version(token, 2)
    store.discard(name, 2)
    assert slot.shape == Shape(current=3, pending=None, previous=None, rejected=False, revision=0)
    assert not [label for label in slot.labels if label.startswith("KEYTURN_G")]


def test_it_is_seen_alike_by_one_call_for_each_and_by_one_call_for_a_hundred(slot: Slot) -> None:
    slot.staged(2)
    others = [f"{slot.name}-{number}" for number in range(20)]
    seen = slot.store.observe([slot.name, *others])[slot.name]
    assert seen == slot.store.observe([slot.name])[slot.name]
    slot.api.forget_calls()
    slot.store.observe([slot.name, *others])
    assert slot.api.calls() == {"secretsmanager.ListSecrets": 1}


def test_it_can_be_rejected_and_dropped_and_its_generation_stays_spent(slot: Slot) -> None:
    store, name = slot.store, slot.name
    slot.staged(2)
    store.reject(name, 2)
    with pytest.raises(Conflict):
        store.promote(name, 2, current_of(store, name))
    store.discard(name, 2)
    assert slot.shape == Shape(current=1, pending=None, previous=None, rejected=False, revision=0)
    with pytest.raises(GenerationSpent) as spent:
        store.stage(name, 2, SecretValue("again"))
    assert spent.value.highest == 2
    token = slot.ask()
    with pytest.raises(GenerationSpent):
        store.stage_token(name, token, 2, SecretValue("again"))


def test_staging_its_generation_again_returns_its_value(slot: Slot) -> None:
    token = slot.staged(2)
    assert slot.store.stage(slot.name, 2, SecretValue("another runner's")) == text_of(2)
    assert slot.store.observe([slot.name])[slot.name].pending == Version(token, 2)


def test_the_step_that_stages_it_may_be_repeated_and_keeps_the_first_value(slot: Slot) -> None:
    token = slot.staged(2)
    slot.store.stage_token(slot.name, token, 3, SecretValue("second"))
    view = slot.store.observe([slot.name])[slot.name]
    assert view.pending == Version(token, 2)
    assert slot.store.read(slot.name, view.pending) == text_of(2)


def test_nothing_is_staged_for_a_token_that_is_not_pending(slot: Slot) -> None:
    slot.store.stage(slot.name, 2, text_of(2))
    with pytest.raises(Conflict):
        slot.store.stage_token(slot.name, str(uuid.uuid4()), 3, text_of(3))
    assert slot.shape == Shape(current=1, pending=2, previous=None, rejected=False, revision=0)


def test_secrets_manager_refuses_a_second_rotation_while_one_is_pending(slot: Slot) -> None:
    token = slot.staged(2)
    with pytest.raises(slot.client.exceptions.InvalidRequestException, match="isn't complete"):
        slot.ask()
    assert slot.store.observe([slot.name])[slot.name].pending == Version(token, 2)


def test_a_version_that_claims_two_generations_is_foreign(slot: Slot) -> None:
    token = slot.staged(2)
    slot.client.update_secret_version_stage(
        SecretId=slot.name, VersionStage="KEYTURN_G0000000009", MoveToVersionId=token
    )
    assert slot.store.observe([slot.name])[slot.name].pending == Version(token, None)


def test_a_label_does_not_change_the_generation_of_keyturns_own_version(slot: Slot) -> None:
    own = slot.store.predict(slot.name, 1)
    slot.client.update_secret_version_stage(
        SecretId=slot.name, VersionStage="KEYTURN_G0000000009", MoveToVersionId=own.version_id
    )
    assert current_of(slot.store, slot.name) == own


def test_a_released_token_leaves_the_secret_as_it_was(slot: Slot) -> None:
    before = slot.labels
    slot.store.release_token(slot.name, slot.ask())
    assert slot.labels == before
    slot.store.release_token(slot.name, str(uuid.uuid4()))
    slot.ask()  # Secrets Manager sees nothing in progress


def test_a_token_with_a_value_is_not_released(slot: Slot) -> None:
    token = slot.staged(2)
    slot.store.release_token(slot.name, token)
    assert slot.store.observe([slot.name])[slot.name].pending == Version(token, 2)


def test_a_rewrapped_version_of_secrets_managers_choice_leaves_no_label_behind(slot: Slot) -> None:
    slot.turned(2)
    slot.store.discard(slot.name, 1)
    slot.store.rewrap(slot.name, slot.store.observe([slot.name])[slot.name].current or Version("", None), text_of(2))
    assert slot.shape == Shape(current=2, pending=None, previous=None, rejected=False, revision=1)
    assert not [label for label in slot.labels if label.startswith("KEYTURN_G")]


def _stage(slot: Slot, token: str) -> None:
    slot.store.stage_token(slot.name, token, slot.store.observe([slot.name])[slot.name].highest + 1, text_of(2))


def _staged(slot: Slot) -> str:
    return slot.staged(2)


def _rejected(slot: Slot) -> str:
    token = slot.staged(2)
    slot.store.reject(slot.name, 2)
    return token


def _replaced(slot: Slot) -> str:
    token = slot.turned(2)
    slot.store.discard(slot.name, 1)
    promoted(slot.store, slot.name, 3)
    return token


Cut = tuple[Callable[[Slot], str], Callable[[Slot, str], None], tuple[Shape, ...]]
CUTS: dict[str, Cut] = {
    # A gap in the generations is no harm; a generation that goes back or is used twice would be.
    "stage it": (Slot.ask, _stage, (Shape(1, 2, None, False, 0), Shape(1, 3, None, False, 0))),
    "promote it": (
        _staged,
        lambda s, _: s.store.promote(s.name, 2, current_of(s.store, s.name)),
        (Shape(2, None, 1, False, 0),),
    ),
    "reject it": (_staged, lambda s, _: s.store.reject(s.name, 2), (Shape(1, 2, None, True, 0),)),
    "drop it after its rejection": (
        _rejected,
        lambda s, _: s.store.discard(s.name, 2),
        (Shape(1, None, None, False, 0),),
    ),
    "drop it after its time": (
        _replaced,
        lambda s, _: s.store.discard(s.name, 2),
        (Shape(3, None, None, False, 0),),
    ),
}


@pytest.mark.parametrize("what", CUTS)
def test_a_run_that_dies_at_any_call_is_finished_by_the_next(aws_environment: AwsApi, what: str) -> None:
    prepare, act, ends = CUTS[what]
    for nth, moment in ((nth, moment) for nth in itertools.count(1) for moment in Moment):
        slot = Slot(aws_environment, AwsSecretsManager({}))
        token = prepare(slot)
        with _cut(slot.store, nth, moment) as cut, suppress(Killed):
            act(slot, token)
        slot.store = AwsSecretsManager({})
        act(slot, token)
        assert slot.shape in ends
        assert len([label for label in slot.labels if label.startswith("KEYTURN_G")]) <= 1
        if not cut:
            assert nth > 2
            return


@contextmanager
def _cut(store: AwsSecretsManager, nth: int, moment: Moment) -> Iterator[list[int]]:
    """Die at the nth call; the list tells whether there was one."""
    event = {Moment.BEFORE: "before-send", Moment.AFTER: "after-call"}[moment] + ".secrets-manager"
    count, cut = itertools.count(1), list[int]()

    def pass_by(**_: object) -> None:
        if next(count) == nth:
            cut.append(nth)
            die()

    store._client.meta.events.register(event, pass_by)  # the SDK's own hooks are where every call passes
    try:
        yield cut
    finally:
        store._client.meta.events.unregister(event, pass_by)


class MixedHistories(RuleBasedStateMachine):
    """Secrets Manager's versions and keyturn's, in any order: the rules of the protocol hold for both."""

    api: AwsApi

    def __init__(self) -> None:
        super().__init__()
        self.slot = Slot(self.api, AwsSecretsManager({}))
        self.token: str | None = None
        self.past = [1]
        self.values = {1: text_of(1)}

    @property
    def view(self) -> Any:
        return self.slot.store.observe([self.slot.name])[self.slot.name]

    def _idle(self) -> bool:
        return self.view.pending is None

    @precondition(_idle)
    @rule(gap=st.integers(0, 2))
    def keyturn_stages(self, gap: int) -> None:
        generation = self.view.highest + 1 + gap
        with suppress(GenerationSpent):
            self.values[generation] = self.slot.store.stage(self.slot.name, generation, text_of(generation))

    @precondition(_idle)
    @rule()
    def secrets_manager_stages(self) -> None:
        generation = self.view.highest + 1
        token = self.slot.ask()
        with suppress(GenerationSpent):
            self.slot.store.stage_token(self.slot.name, token, generation, text_of(generation))
            self.values[generation] = text_of(generation)
        self.slot.store.release_token(self.slot.name, token)

    @rule()
    def somebody_promotes(self) -> None:
        view = self.view
        if view.pending is None:
            return
        try:
            self.slot.store.promote(self.slot.name, view.pending.generation, view.current)
        except Conflict:
            assert view.rejected
        else:
            self.past.append(view.pending.generation)

    @rule()
    def somebody_rejects_and_drops(self) -> None:
        if (pending := self.view.pending) is not None:
            self.slot.store.reject(self.slot.name, pending.generation)
            self.slot.store.discard(self.slot.name, pending.generation)

    @rule()
    def somebody_retires(self) -> None:
        if (previous := self.view.previous) is not None:
            self.slot.store.discard(self.slot.name, previous.generation)

    @invariant()
    def generations_only_increase_and_keep_their_values(self) -> None:
        view = self.view
        assert self.past == sorted(set(self.past))
        assert view.current.generation == self.past[-1]
        for version in filter(None, (view.current, view.pending, view.previous)):
            assert version.generation is not None
            assert self.slot.store.read(self.slot.name, version) == self.values[version.generation]
        assert len([label for label in self.slot.labels if label.startswith("KEYTURN_G")]) <= 3


def test_mixed_histories_keep_generations_increasing(aws_environment: AwsApi) -> None:
    MixedHistories.api = aws_environment
    run_state_machine_as_test(
        MixedHistories,
        settings=settings(
            max_examples=8,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
