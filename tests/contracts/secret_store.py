"""What every secret store must do: rotation/stores/__init__.py, sentence by sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from rotation.errors import Conflict, GenerationSpent, LimitExceeded, StoreError, Unauthorized, Unavailable
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore
from tests.contracts.staging import (
    ATTEMPTS,
    CANARY,
    SCENARIOS,
    Killed,
    Moment,
    Shape,
    StoreHarness,
    Trouble,
    adopted,
    current_of,
    die,
    every_point,
    one_rejected,
    promoted,
    rejected,
    text_of,
    three_pending_after_a_rejected_one,
    told_by,
    two_current,
    two_pending,
    two_rejected,
)


class SecretStoreContract(StoreHarness):
    """What one undisturbed runner sees, and how it is told of trouble."""

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
        two_current(store, name)
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

    def test_what_gives_way_to_an_adopted_version_is_kept_until_it_is_dropped(self) -> None:
        store, name = self.open(), self.slot()
        two_pending(store, name)
        adopted(store, name, 3, self.put_foreign(name, "by hand"))
        assert self.kept(name) == (3, [2, 1])
        assert [store.read(name, store.predict(name, generation)) for generation in (1, 2)] == [text_of(1), text_of(2)]
        assert store.stage(name, 2, SecretValue("other")) == text_of(2)
        with pytest.raises(Conflict):
            store.promote(name, 2, store.predict(name, 3))
        store.discard(name, 2)
        assert self.kept(name) == (3, [1])
        store.discard(name, 1)
        assert self.kept(name) == (3, [])
        with pytest.raises(GenerationSpent):
            store.stage(name, 2, text_of(2))
        promoted(store, name, 4)
        assert self.kept(name) == (4, [3])

    def test_a_rejected_candidate_is_kept_too_when_it_gives_way(self) -> None:
        store, name = self.open(), self.slot()
        two_rejected(store, name)
        adopted(store, name, 3, self.put_foreign(name, "by hand"))
        assert self.kept(name) == (3, [2, 1])

    def test_an_adoption_that_dies_at_any_call_is_finished_by_the_next(self) -> None:
        for nth, moment in every_point():
            store, name = self.open(), self.slot()
            two_pending(store, name)
            foreign = self.put_foreign(name, "by hand")
            dying = self.open()
            try:
                with self.at_call(dying, nth, moment, die):
                    adopted(dying, name, 3, foreign)
            except Killed:
                if current_of(store, name) == Version(foreign, None):
                    adopted(store, name, 3, foreign)
                assert self.kept(name) == (3, [2, 1]), (nth, moment)
                continue
            break

    def kept(self, name: str) -> tuple[int | None, list[int]]:
        """The current generation, and those that wait to be dropped."""
        view = self.open().observe([name])[name]
        waiting = [version.generation for version in (view.previous, *view.kept) if version and version.generation]
        return view.current.generation if view.current else None, waiting

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
        assert store.predict(name, 8).version_id != predicted.version_id
        assert (store.predict(other, 7).version_id != predicted.version_id) is self.ids_tell_secrets_apart

    def test_staging_a_generation_again_returns_the_value_that_is_there(self) -> None:
        store, name = self.open(), self.slot()
        store.stage(name, 1, SecretValue("first"))
        assert self.open().stage(name, 1, SecretValue("second")) == SecretValue("first")
        assert store.read(name, store.predict(name, 1)) == SecretValue("first")

    def test_staging_the_current_and_the_previous_generation_again_returns_their_values(self) -> None:
        store, name = self.open(), self.slot()
        two_current(store, name)
        assert store.stage(name, 2, SecretValue("other")) == text_of(2)
        assert store.stage(name, 1, SecretValue("other")) == text_of(1)
        assert self.shape(name) == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)

    @pytest.mark.parametrize("again", ["the same value", "another value"])
    def test_a_dropped_generation_is_spent(self, again: str) -> None:
        store, name = self.open(), self.slot()
        two_rejected(store, name)
        store.discard(name, 2)
        with pytest.raises(GenerationSpent) as spent:
            store.stage(name, 2, text_of(2) if again == "the same value" else SecretValue(again))
        assert spent.value.highest == 2
        assert self.shape(name) == Shape(current=1, pending=None, previous=None, rejected=False, revision=0)

    def test_a_retired_generation_is_spent(self) -> None:
        store, name = self.open(), self.slot()
        two_current(store, name)
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
        with self.at_call(store, 1, Moment.BEFORE, die), pytest.raises(LimitExceeded, match=str(self.value_bytes)):
            store.stage(name, 1, SecretValue("é" * (self.value_bytes // 2) + "x"))

    def test_a_bad_name_is_refused_before_anything_is_sent(self) -> None:
        store = self.open()
        for name in self.bad_names:
            with self.at_call(store, 1, Moment.BEFORE, die), pytest.raises(LimitExceeded):
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
        two_current(store, name)
        assert self.shape(name) == Shape(current=2, pending=None, previous=1, rejected=False, revision=0)
        assert store.read(name) == text_of(2)

    def test_a_wrong_expectation_is_a_conflict_and_leaves_the_candidate_open(self) -> None:
        store, name = self.open(), self.slot()
        two_pending(store, name)
        for wrong in (None, store.predict(name, 9), Version("by-hand-0000000000000000000000000000", None)):
            with pytest.raises(Conflict):
                store.promote(name, 2, wrong)
        store.reject(name, 2)
        assert self.shape(name) == Shape(current=1, pending=2, previous=None, rejected=True, revision=0)

    def test_promoting_a_rejected_generation_is_a_conflict(self) -> None:
        store, name = self.open(), self.slot()
        two_rejected(store, name)
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
        two_pending(store, name)
        self.open().stage(name, 3, text_of(3))
        with pytest.raises(Conflict):
            store.promote(name, 2, store.predict(name, 1))
        assert self.shape(name) == Shape(current=1, pending=3, previous=None, rejected=False, revision=0)

    def test_current_never_goes_back_to_a_lower_generation(self) -> None:
        store, name = self.open(), self.slot()
        promoted(store, name, 5)
        with suppress(GenerationSpent):  # where a store only remembers that higher ones were there
            store.stage(name, 4, text_of(4))
        with pytest.raises(Conflict):
            store.promote(name, 4, store.predict(name, 5))

    def test_a_change_by_others_while_promoting_is_a_conflict(self) -> None:
        store, name = self.open(), self.slot()
        two_pending(store, name)
        expected = current_of(store, name)
        self.put_foreign(name, "by hand")
        with pytest.raises(Conflict):
            store.promote(name, 2, expected)
        assert store.read(name) == SecretValue("by hand")

    # reject and discard

    def test_a_rejected_generation_stays_readable(self) -> None:
        store, name = self.open(), self.slot()
        two_rejected(store, name)
        assert self.shape(name) == Shape(current=1, pending=2, previous=None, rejected=True, revision=0)
        assert store.read(name, store.predict(name, 2)) == text_of(2)

    def test_a_promoted_generation_cannot_be_rejected(self) -> None:
        store, name = self.open(), self.slot()
        two_current(store, name)
        with pytest.raises(Conflict):
            store.reject(name, 2)
        with pytest.raises(Conflict):
            store.reject(name, 1)

    def test_a_rejected_first_value_can_be_dropped_and_replaced(self) -> None:
        store, name = self.open(), self.slot()
        one_rejected(store, name)
        store.discard(name, 1)
        assert self.shape(name) == Shape(None, None, None, False, 0)
        promoted(store, name, 2)
        assert self.shape(name) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)

    def test_dropping_the_rejected_generation_makes_room_for_the_next(self) -> None:
        store, name = self.open(), self.slot()
        three_pending_after_a_rejected_one(store, name)
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
        two_pending(store, name)
        with pytest.raises(Conflict):
            store.discard(name, 2)
        store.promote(name, 2, store.predict(name, 1))

    def test_dropping_the_previous_generation_leaves_a_rejected_candidate_rejected(self) -> None:
        store, name = self.open(), self.slot()
        two_current(store, name)
        rejected(store, name, 3)
        store.discard(name, 1)
        assert self.shape(name) == Shape(current=2, pending=3, previous=None, rejected=True, revision=0)

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
            lambda: _observed(store, [name]),
            lambda: _observed(store, [name, *map(str, range(20))]),
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


def _observed(store: SecretStore, names: Sequence[str]) -> None:
    """As :meth:`rotation.observer.Observer.stored`: a trouble of one secret alone may be its view's, and is raised."""
    for view in store.observe(names).values():
        if view.trouble is not None:
            raise view.trouble
