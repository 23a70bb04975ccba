"""What every secret store must do: rotation/stores/__init__.py, sentence by sentence."""

from __future__ import annotations

import itertools
import logging
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import ClassVar

import pytest
import stamina

from rotation.errors import (
    Conflict,
    GenerationSpent,
    KeyturnError,
    LimitExceeded,
    StoreError,
    Unauthorized,
    Unavailable,
)
from rotation.model import StoreView, Version
from rotation.secret_value import SecretValue
from rotation.stores import Rewrapping, SecretStore

ATTEMPTS = 3  # of one call while these tests run, without pauses
CANARY = "canary-9f31c7-should-be-seen-nowhere"


class Moment(Enum):
    """Where a remote call is cut into: before it is sent, or after its answer came."""

    BEFORE = "before"
    AFTER = "after"


class Trouble(Enum):
    """How a server misbehaves."""

    THROTTLED = "throttled"
    BROKEN = "broken"  # answers with an internal error
    DROPPED = "dropped"  # closes the connection before it applies anything
    LOST_REPLY = "lost reply"  # applies, then closes the connection
    DENIED = "denied"


class Killed(BaseException):
    """The runner dies here."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A view without ids: what two ways to the same end must agree on."""

    current: int | None
    pending: int | None
    previous: int | None
    rejected: bool
    revision: int

    @classmethod
    def of(cls, view: StoreView) -> Shape:
        current, pending, previous = (v.generation if v else None for v in (view.current, view.pending, view.previous))
        return cls(current, pending, previous, view.rejected, view.current.revision if view.current else 0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A prepared secret, and one act on it that may be cut anywhere."""

    sentence: str
    prepare: Callable[[SecretStore, str], None]
    act: Callable[[SecretStore, str], object]


def every_point() -> Iterator[tuple[int, Moment]]:
    """Before and after the first remote call, the second, and so on without end."""
    return ((nth, moment) for nth in itertools.count(1) for moment in Moment)


def text_of(generation: int) -> SecretValue:
    return SecretValue(f"value of generation {generation}")


def current_of(store: SecretStore, name: str) -> Version | None:
    return store.observe([name])[name].current


def promoted(store: SecretStore, name: str, generation: int) -> None:
    store.stage(name, generation, text_of(generation))
    store.promote(name, generation, current_of(store, name))


def rejected(store: SecretStore, name: str, generation: int) -> None:
    store.stage(name, generation, text_of(generation))
    store.reject(name, generation)


def _nothing(_store: SecretStore, _name: str) -> None: ...


def _one_pending(store: SecretStore, name: str) -> None:
    store.stage(name, 1, text_of(1))


def _one_current(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)


def _two_pending(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)
    store.stage(name, 2, text_of(2))


def _two_current(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)
    promoted(store, name, 2)


def _one_rejected(store: SecretStore, name: str) -> None:
    rejected(store, name, 1)


def _two_rejected(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)
    rejected(store, name, 2)


def _three_pending_after_a_rejected_one(store: SecretStore, name: str) -> None:
    _two_rejected(store, name)
    store.discard(name, 2)
    store.stage(name, 3, text_of(3))


# ``expected`` is what a runner sees when it starts: a resumed run observes afresh, as the engine does.
def _promote(generation: int) -> Callable[[SecretStore, str], object]:
    return lambda store, name: store.promote(name, generation, current_of(store, name))


SCENARIOS = (
    Scenario("stage a first value", _nothing, lambda s, n: s.stage(n, 1, text_of(1))),
    Scenario("stage a second value", _one_current, lambda s, n: s.stage(n, 2, text_of(2))),
    Scenario("promote the first value", _one_pending, _promote(1)),
    Scenario("promote the second value", _two_pending, _promote(2)),
    Scenario("promote after a rejected one", _three_pending_after_a_rejected_one, _promote(3)),
    Scenario("reject the first value", _one_pending, lambda s, n: s.reject(n, 1)),
    Scenario("reject the second value", _two_pending, lambda s, n: s.reject(n, 2)),
    Scenario("discard the rejected first value", _one_rejected, lambda s, n: s.discard(n, 1)),
    Scenario("discard the rejected second value", _two_rejected, lambda s, n: s.discard(n, 2)),
    Scenario("discard the previous value", _two_current, lambda s, n: s.discard(n, 1)),
)
EVERY_SCENARIO = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.sentence)


class SecretStoreContract(ABC):
    """Inherit this and say how to make what it needs."""

    value_bytes: ClassVar[int]
    bad_names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def open(self) -> SecretStore:
        """One runner's store; each runner opens its own."""

    @abstractmethod
    def slot(self) -> str:
        """The name of a new slot without a value."""

    @abstractmethod
    def put_foreign(self, name: str, text: str) -> str:
        """Another tool makes a value current; return its version id."""

    @abstractmethod
    def at_every_call(self, store: SecretStore, moment: Moment, do: Callable[[], None]) -> AbstractContextManager[None]:
        """Run ``do`` at every remote call of this store object."""

    def at_call(
        self, store: SecretStore, nth: int, moment: Moment, do: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Run ``do`` at the nth (from 1) remote call of this store object."""
        count = itertools.count(1)
        return self.at_every_call(store, moment, lambda: do() if next(count) == nth else None)

    @abstractmethod
    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        """The store's server misbehaves for so many calls, once so many have passed."""

    @pytest.fixture(autouse=True)
    def without_pauses(self) -> Iterator[None]:
        with stamina.set_testing(True, attempts=ATTEMPTS):
            yield

    def shape(self, name: str) -> Shape:
        return Shape.of(self.open().observe([name])[name])

    # observe

    def test_an_absent_slot_does_not_exist(self) -> None:
        view = self.open().observe(["keyturn/there-is-no-such-slot"])["keyturn/there-is-no-such-slot"]
        assert not view.exists
        assert (view.current, view.pending, view.previous, view.highest) == (None, None, None, 0)

    def test_an_empty_slot_exists_and_holds_nothing(self) -> None:
        name = self.slot()
        view = self.open().observe([name])[name]
        assert view.exists
        assert view.reference
        assert Shape.of(view) == Shape(None, None, None, False, 0)
        assert view.highest == 0

    def test_observing_shows_current_pending_and_previous(self) -> None:
        store, name = self.open(), self.slot()
        _two_current(store, name)
        store.stage(name, 3, text_of(3))
        view = store.observe([name])[name]
        assert Shape.of(view) == Shape(current=2, pending=3, previous=1, rejected=False, revision=0)
        assert view.highest == 3
        assert view.changed_at is not None
        assert view.changed_at.tzinfo is not None

    def test_observing_many_tells_the_same_as_observing_each(self) -> None:
        store = self.open()
        names = [self.slot() for _ in range(12)]
        for name, scenario in zip(names, SCENARIOS, strict=False):
            scenario.prepare(store, name)
        asked = [*names, "keyturn/there-is-no-such-slot", names[0]]
        assert store.observe(asked) == {name: store.observe([name])[name] for name in asked}

    def test_observing_nothing_is_nothing(self) -> None:
        assert self.open().observe([]) == {}

    def test_a_version_made_by_others_is_foreign(self) -> None:
        store, name = self.open(), self.slot()
        version_id = self.put_foreign(name, "by hand")
        assert current_of(store, name) == Version(version_id, None)
        assert store.read(name) == SecretValue("by hand")

    def test_a_foreign_current_version_can_be_rotated_away(self) -> None:
        store, name = self.open(), self.slot()
        self.put_foreign(name, "by hand")
        promoted(store, name, 1)
        assert store.read(name) == text_of(1)

    # stage, read, predict

    def test_a_staged_value_is_pending_and_readable_but_not_current(self) -> None:
        store, name = self.open(), self.slot()
        assert store.stage(name, 1, text_of(1)) == text_of(1)
        assert store.observe([name])[name].pending == store.predict(name, 1)
        assert store.read(name, store.predict(name, 1)) == text_of(1)
        with pytest.raises(StoreError):
            store.read(name)

    def test_a_version_is_known_before_it_exists(self) -> None:
        store, name, other = self.open(), self.slot(), self.slot()
        predicted = store.predict(name, 7)
        store.stage(name, 7, text_of(7))
        assert store.observe([name])[name].pending == predicted
        assert predicted.generation == 7
        assert len({predicted.version_id, store.predict(name, 8).version_id, store.predict(other, 7).version_id}) == 3

    def test_staging_a_generation_again_returns_the_value_that_is_there(self) -> None:
        store, name = self.open(), self.slot()
        store.stage(name, 1, SecretValue("first"))
        assert self.open().stage(name, 1, SecretValue("second")) == SecretValue("first")
        assert store.read(name, store.predict(name, 1)) == SecretValue("first")

    def test_staging_the_current_and_the_previous_generation_again_returns_their_values(self) -> None:
        store, name = self.open(), self.slot()
        _two_current(store, name)
        assert store.stage(name, 2, SecretValue("other")) == text_of(2)
        assert store.stage(name, 1, SecretValue("other")) == text_of(1)
        assert self.shape(name) == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)

    @pytest.mark.parametrize("again", ["the same value", "another value"])
    def test_a_dropped_generation_is_spent(self, again: str) -> None:
        store, name = self.open(), self.slot()
        _two_rejected(store, name)
        store.discard(name, 2)
        with pytest.raises(GenerationSpent) as spent:
            store.stage(name, 2, text_of(2) if again == "the same value" else SecretValue(again))
        assert spent.value.highest == 2
        assert self.shape(name) == Shape(current=1, pending=None, previous=None, rejected=False, revision=0)

    def test_a_retired_generation_is_spent(self) -> None:
        store, name = self.open(), self.slot()
        _two_current(store, name)
        store.discard(name, 1)
        with pytest.raises(GenerationSpent) as spent:
            store.stage(name, 1, SecretValue("again"))
        assert spent.value.highest == 2

    def test_a_value_as_large_as_the_limit_is_kept_whole(self) -> None:
        store, name = self.open(), self.slot()
        value = SecretValue("é" * (self.value_bytes // 2))
        store.stage(name, 1, value)
        assert store.read(name, store.predict(name, 1)) == value

    def test_a_value_over_the_limit_is_refused_before_anything_is_sent(self) -> None:
        store, name = self.open(), self.slot()
        with self.at_call(store, 1, Moment.BEFORE, _die), pytest.raises(LimitExceeded, match=str(self.value_bytes)):
            store.stage(name, 1, SecretValue("é" * (self.value_bytes // 2) + "x"))

    def test_a_bad_name_is_refused_before_anything_is_sent(self) -> None:
        store = self.open()
        for name in self.bad_names:
            with self.at_call(store, 1, Moment.BEFORE, _die), pytest.raises(LimitExceeded):
                store.stage(name, 1, text_of(1))

    @pytest.mark.parametrize("text", ["", " ", '{"a": "\u20ac\\n\\""}', "line\nline\r\n", "\U0001f511"])
    def test_any_text_comes_back_as_it_was(self, text: str) -> None:
        store, name = self.open(), self.slot()
        if not text:
            with pytest.raises(LimitExceeded):
                store.stage(name, 1, SecretValue(text))
            return
        store.stage(name, 1, SecretValue(text))
        assert store.read(name, store.predict(name, 1)).reveal() == text

    def test_reading_what_is_not_there_is_refused(self) -> None:
        store, name = self.open(), self.slot()
        with pytest.raises(StoreError):
            store.read(name, store.predict(name, 1))
        with pytest.raises(StoreError):
            store.read(name)
        with pytest.raises(StoreError):
            store.read("keyturn/there-is-no-such-slot")

    def test_staging_without_a_slot_is_refused(self) -> None:
        with pytest.raises(StoreError):
            self.open().stage("keyturn/there-is-no-such-slot", 1, text_of(1))

    # promote

    def test_promoting_makes_it_current_and_the_old_one_previous(self) -> None:
        store, name = self.open(), self.slot()
        _two_current(store, name)
        assert self.shape(name) == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)
        assert store.read(name) == text_of(2)

    def test_a_wrong_expectation_is_a_conflict_and_leaves_the_candidate_open(self) -> None:
        store, name = self.open(), self.slot()
        _two_pending(store, name)
        for wrong in (None, store.predict(name, 9), Version("by-hand-0000000000000000000000000000", None)):
            with pytest.raises(Conflict):
                store.promote(name, 2, wrong)
        store.reject(name, 2)
        assert self.shape(name) == Shape(current=1, pending=2, previous=None, rejected=True, revision=0)

    def test_promoting_a_rejected_generation_is_a_conflict(self) -> None:
        store, name = self.open(), self.slot()
        _two_rejected(store, name)
        with pytest.raises(Conflict):
            store.promote(name, 2, store.predict(name, 1))
        assert current_of(store, name) == store.predict(name, 1)

    def test_promoting_what_was_never_staged_is_a_conflict(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        with pytest.raises(Conflict):
            store.promote(name, 2, store.predict(name, 1))

    def test_promoting_what_a_later_generation_displaced_is_a_conflict(self) -> None:
        store, name = self.open(), self.slot()
        _two_pending(store, name)
        self.open().stage(name, 3, text_of(3))
        with pytest.raises(Conflict):
            store.promote(name, 2, store.predict(name, 1))
        assert self.shape(name) == Shape(current=1, pending=3, previous=None, rejected=False, revision=0)

    def test_current_never_goes_back_to_a_lower_generation(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 5)
        store.stage(name, 4, text_of(4))
        with pytest.raises(Conflict):
            store.promote(name, 4, store.predict(name, 5))

    def test_a_change_by_others_while_promoting_is_a_conflict(self) -> None:
        store, name = self.open(), self.slot()
        _two_pending(store, name)
        expected = current_of(store, name)
        self.put_foreign(name, "by hand")
        with pytest.raises(Conflict):
            store.promote(name, 2, expected)
        assert store.read(name) == SecretValue("by hand")

    # reject and discard

    def test_a_rejected_generation_stays_readable(self) -> None:
        store, name = self.open(), self.slot()
        _two_rejected(store, name)
        assert self.shape(name) == Shape(current=1, pending=2, previous=None, rejected=True, revision=0)
        assert store.read(name, store.predict(name, 2)) == text_of(2)

    def test_a_promoted_generation_cannot_be_rejected(self) -> None:
        store, name = self.open(), self.slot()
        _two_current(store, name)
        with pytest.raises(Conflict):
            store.reject(name, 2)
        with pytest.raises(Conflict):
            store.reject(name, 1)

    def test_a_rejected_first_value_can_be_dropped_and_replaced(self) -> None:
        store, name = self.open(), self.slot()
        _one_rejected(store, name)
        store.discard(name, 1)
        assert self.shape(name) == Shape(None, None, None, False, 0)
        promoted(store, name, 2)
        assert self.shape(name) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)

    def test_dropping_the_rejected_generation_makes_room_for_the_next(self) -> None:
        store, name = self.open(), self.slot()
        _three_pending_after_a_rejected_one(store, name)
        assert self.shape(name) == Shape(current=1, pending=3, previous=None, rejected=False, revision=0)
        store.promote(name, 3, store.predict(name, 1))
        assert store.read(name) == text_of(3)

    def test_the_current_generation_cannot_be_dropped(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 1)
        with pytest.raises(Conflict):
            store.discard(name, 1)
        assert store.read(name) == text_of(1)

    def test_a_candidate_nobody_rejected_cannot_be_dropped(self) -> None:
        store, name = self.open(), self.slot()
        _two_pending(store, name)
        with pytest.raises(Conflict):
            store.discard(name, 2)
        store.promote(name, 2, store.predict(name, 1))

    def test_dropping_the_previous_generation_leaves_a_rejected_candidate_rejected(self) -> None:
        store, name = self.open(), self.slot()
        _two_current(store, name)
        rejected(store, name, 3)
        store.discard(name, 1)
        assert self.shape(name) == Shape(current=2, pending=3, previous=None, rejected=True, revision=0)

    # every method: again, cut anywhere, with lost replies, against others

    @EVERY_SCENARIO
    def test_running_it_again_is_a_no_op(self, scenario: Scenario) -> None:
        store, name = self.open(), self.slot()
        scenario.prepare(store, name)
        scenario.act(store, name)
        before = store.observe([name])[name]
        if "reject the" in scenario.sentence or "stage" in scenario.sentence or "promote" in scenario.sentence:
            scenario.act(self.open(), name)
        scenario.act(store, name)
        assert Shape.of(store.observe([name])[name]) == Shape.of(before)

    @EVERY_SCENARIO
    def test_killed_at_any_remote_call_it_is_finished_by_running_it_again(self, scenario: Scenario) -> None:
        whole = self.slot()
        scenario.prepare(self.open(), whole)
        scenario.act(self.open(), whole)
        for nth, moment in every_point():
            name, dying = self.slot(), self.open()
            scenario.prepare(self.open(), name)
            try:
                with self.at_call(dying, nth, moment, _die):
                    scenario.act(dying, name)
                break
            except Killed:
                scenario.act(self.open(), name)
                assert self.shape(name) == self.shape(whole), f"killed {moment.value} call {nth}"

    @EVERY_SCENARIO
    @pytest.mark.parametrize("trouble", [t for t in Trouble if t is not Trouble.DENIED], ids=lambda t: t.value)
    def test_a_passing_trouble_at_any_remote_call_changes_nothing(self, scenario: Scenario, trouble: Trouble) -> None:
        whole, store = self.slot(), self.open()
        scenario.prepare(store, whole)
        calls = self.calls_of(store, lambda: scenario.act(store, whole))
        for nth in range(calls):
            name = self.slot()
            scenario.prepare(store, name)
            self.trouble(trouble, times=1, after=nth)
            scenario.act(store, name)
            assert self.shape(name) == self.shape(whole), f"{trouble.value} at call {nth + 1}"

    def calls_of(self, store: SecretStore, act: Callable[[], object]) -> int:
        """How many remote calls an act makes."""
        counted: list[int] = []
        with self.at_every_call(store, Moment.BEFORE, lambda: counted.append(1)):
            act()
        return len(counted)

    @pytest.mark.parametrize("first", [False, True], ids=["a later value", "the first value"])
    @pytest.mark.parametrize("promoter_starts", [True, False], ids=["promoter first", "rejecter first"])
    def test_wherever_promote_and_reject_cross_exactly_one_wins(self, first: bool, promoter_starts: bool) -> None:
        generation = 1 if first else 2
        for nth, moment in every_point():
            name, one, other = self.slot(), self.open(), self.open()
            (_one_pending if first else _two_pending)(one, name)
            expected = current_of(one, name)
            acts = [partial(promote, generation, expected), partial(reject, generation)]
            outer, inner = acts if promoter_starts else reversed(acts)
            crossing = Crossing(partial(inner, other, name))
            with self.at_call(one, nth, moment, crossing):
                outer_won = wins(partial(outer, one, name))
            if crossing.won is None:
                break
            won = [outer_won, crossing.won]
            assert sum(won) == 1, f"crossed {moment.value} call {nth}: {won}"
            promoter_won = outer_won is promoter_starts
            shape = self.shape(name)
            assert (shape.current == generation, shape.rejected) == (promoter_won, not promoter_won)

    def test_of_promoting_and_rejecting_threads_exactly_one_kind_wins(self) -> None:
        name, runners = self.slot(), [self.open() for _ in range(4)]
        for generation in range(1, 26):
            runners[0].stage(name, generation, text_of(generation))
            expected = current_of(runners[0], name)

            acts = [partial(promote, generation, expected), partial(reject, generation)] * 2
            won = together([partial(act, runner, name) for act, runner in zip(acts, runners, strict=True)])
            assert won in ([True, False, True, False], [False, True, False, True])
            if won[1]:
                assert self.shape(name).rejected
                runners[0].discard(name, generation)
            else:
                assert self.shape(name).current == generation

    def test_threads_that_stage_the_same_generation_all_get_the_winners_value(self) -> None:
        name, runners = self.slot(), [self.open() for _ in range(4)]
        for generation in range(1, 8):
            got: list[str] = []
            work = [partial(stage_own, generation, got, runner, name) for runner in runners]
            assert together(work) == [True] * 4
            assert len(set(got)) == 1
            assert runners[0].read(name, runners[0].predict(name, generation)).reveal() == got[0]

    def test_threads_that_discard_the_same_generation_all_succeed(self) -> None:
        name, runners = self.slot(), [self.open() for _ in range(4)]
        _two_current(runners[0], name)
        assert together([partial(runner.discard, name, 1) for runner in runners]) == [True] * 4
        assert self.shape(name) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)

    # errors

    @pytest.mark.parametrize("trouble", [Trouble.THROTTLED, Trouble.BROKEN, Trouble.DROPPED], ids=lambda t: t.value)
    def test_a_lasting_trouble_is_unavailable(self, trouble: Trouble) -> None:
        store, name = self.open(), self.slot()
        for act in self.every_act(store, name):
            self.trouble(trouble, times=ATTEMPTS)
            with pytest.raises(Unavailable):
                act()

    def test_a_refused_runner_is_unauthorized_at_once(self) -> None:
        store, name = self.open(), self.slot()
        for act in self.every_act(store, name):
            self.trouble(Trouble.DENIED, times=1)
            with pytest.raises(Unauthorized):
                act()

    def every_act(self, store: SecretStore, name: str) -> list[Callable[[], object]]:
        return [
            lambda: store.observe([name]),
            lambda: store.observe([name, *map(str, range(20))]),
            lambda: store.stage(name, 1, SecretValue(CANARY)),
            lambda: store.read(name),
            lambda: store.promote(name, 1, None),
            lambda: store.reject(name, 1),
            lambda: store.discard(name, 1),
        ]

    def test_no_error_and_no_log_tells_a_value(self, caplog: pytest.LogCaptureFixture) -> None:
        store, name = self.open(), self.slot()
        told: list[str] = []
        with caplog.at_level(logging.DEBUG):
            for trouble in (Trouble.THROTTLED, Trouble.BROKEN, Trouble.DROPPED, Trouble.DENIED):
                self.trouble(trouble, times=1 if trouble is Trouble.DENIED else ATTEMPTS)
                told.append(told_by(lambda: store.stage(name, 1, SecretValue(CANARY))))
            store.stage(name, 1, SecretValue(CANARY))
            assert store.read(name, store.predict(name, 1)) == SecretValue(CANARY)
            store.stage(name, 1, SecretValue(f"{CANARY}-other"))
            store.reject(name, 1)
            told.append(told_by(lambda: store.promote(name, 1, None)))
            store.discard(name, 1)
            told.append(told_by(lambda: store.stage(name, 1, SecretValue(CANARY))))
            told.append(told_by(lambda: store.stage(name, 2, SecretValue(CANARY * 10_000))))
            told.append(told_by(lambda: store.stage("keyturn/there-is-no-such-slot", 1, SecretValue(CANARY))))
        assert all(told)
        assert CANARY not in "".join(told)
        assert CANARY not in caplog.text
        assert CANARY not in repr(vars(store))


class RewrappingContract(SecretStoreContract):
    """For a store that is also :class:`~rotation.stores.Rewrapping`."""

    def rewrapping(self) -> tuple[SecretStore, Rewrapping]:
        store = self.open()
        assert isinstance(store, Rewrapping)
        return store, store

    def test_a_rewrapped_generation_stays_the_same_generation(self) -> None:
        (store, rewrapping), name = self.rewrapping(), self.slot()
        promoted(store, name, 1)
        new = rewrapping.rewrap(name, store.predict(name, 1), SecretValue("another envelope"))
        assert (new.generation, new.revision) == (1, 1)
        view = store.observe([name])[name]
        assert view.current == new
        assert Shape.of(view) == Shape(current=1, pending=None, previous=None, rejected=False, revision=1)
        assert store.read(name) == SecretValue("another envelope")

    def test_rewrapping_again_and_rotating_on_go_well(self) -> None:
        (store, rewrapping), name = self.rewrapping(), self.slot()
        promoted(store, name, 1)
        first = rewrapping.rewrap(name, store.predict(name, 1), SecretValue("envelope 1"))
        assert rewrapping.rewrap(name, store.predict(name, 1), SecretValue("envelope 1b")) == first
        second = rewrapping.rewrap(name, first, SecretValue("envelope 2"))
        assert (second.generation, second.revision) == (1, 2)
        promoted(store, name, 2)
        assert self.shape(name) == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)
        assert store.observe([name])[name].previous == second
        store.discard(name, 1)
        assert self.shape(name) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)

    def test_rewrapping_waits_for_a_rotation_to_end(self) -> None:
        (store, rewrapping), name = self.rewrapping(), self.slot()
        _two_pending(store, name)
        with pytest.raises(Conflict):
            rewrapping.rewrap(name, store.predict(name, 1), SecretValue("envelope"))
        store.promote(name, 2, store.predict(name, 1))
        with pytest.raises(Conflict):
            rewrapping.rewrap(name, store.predict(name, 2), SecretValue("envelope"))
        store.discard(name, 1)
        assert rewrapping.rewrap(name, store.predict(name, 2), SecretValue("envelope")).revision == 1

    def test_rewrapping_a_foreign_or_another_version_is_a_conflict(self) -> None:
        (store, rewrapping), name = self.rewrapping(), self.slot()
        promoted(store, name, 1)
        version_id = self.put_foreign(name, "by hand")
        for expected in (Version(version_id, None), store.predict(name, 1)):
            with pytest.raises(Conflict):
                rewrapping.rewrap(name, expected, SecretValue("envelope"))
        assert store.read(name) == SecretValue("by hand")

    def test_killed_at_any_remote_call_a_rewrap_is_finished_by_running_it_again(self) -> None:
        for nth, moment in every_point():
            (dying, rewrapping), name = self.rewrapping(), self.slot()
            promoted(dying, name, 1)
            expected = dying.predict(name, 1)
            try:
                with self.at_call(dying, nth, moment, _die):
                    rewrapping.rewrap(name, expected, SecretValue("envelope"))
                break
            except Killed:
                (store, again) = self.rewrapping()
                again.rewrap(name, expected, SecretValue("another envelope"))
                assert self.shape(name) == Shape(current=1, pending=None, previous=None, rejected=False, revision=1)
                assert store.read(name).reveal() in ("envelope", "another envelope")

    def test_a_rewrap_that_crosses_a_promotion_loses_or_comes_first(self) -> None:
        for nth, moment in every_point():
            (one, rewrapping), other, name = self.rewrapping(), self.open(), self.slot()
            promoted(one, name, 1)
            crossing = Crossing(partial(promoted, other, name, 2))
            with self.at_call(one, nth, moment, crossing):
                wins(partial(rewrapping.rewrap, name, one.predict(name, 1), SecretValue("envelope")))
            if crossing.won is None:
                break
            assert other.read(name) == text_of(2), f"crossed {moment.value} call {nth}"


def _die() -> None:
    raise Killed


def promote(generation: int, expected: Version | None, store: SecretStore, name: str) -> None:
    store.promote(name, generation, expected)


def reject(generation: int, store: SecretStore, name: str) -> None:
    store.reject(name, generation)


def stage_own(generation: int, got: list[str], store: SecretStore, name: str) -> None:
    """Stage a value that no other runner would, and note which one it became."""
    got.append(store.stage(name, generation, SecretValue(f"{id(store)}-{generation}")).reveal())


def wins(act: Callable[[], object]) -> bool:
    """Act; False where someone else moved first."""
    try:
        act()
    except Conflict:
        return False
    return True


@dataclass
class Crossing:
    """What another runner does in the middle of an act. ``won`` is None until it has done it."""

    act: Callable[[], object]
    won: bool | None = None

    def __call__(self) -> None:
        self.won = wins(self.act)


def together(work: Sequence[Callable[[], object]]) -> list[bool]:
    """Run each act in its own thread, all at once; tell which ones won and which met a Conflict."""
    start = threading.Barrier(len(work))

    def run(act: Callable[[], object]) -> bool:
        start.wait(timeout=10)
        return wins(act)

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work, timeout=60))


def told_by(act: Callable[[], object]) -> str:
    """All that an error says: its text, its causes and contexts, their attributes, and the traceback."""
    with pytest.raises(KeyturnError) as caught:
        act()
    told = "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        told += f"{error!s} {error!r} {error.args!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__
    return told
