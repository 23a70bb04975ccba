"""What a store must do that can hold another envelope of a current generation's value."""

from __future__ import annotations

from functools import partial

import pytest

from rotation.errors import Conflict
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores import Rewrapping, SecretStore
from tests.contracts.staging import (
    Crossing,
    Killed,
    Shape,
    StoreHarness,
    die,
    every_point,
    promoted,
    text_of,
    two_pending,
    wins,
)


class RewrappingContract(StoreHarness):
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

    def test_a_consumer_can_read_the_envelope_that_was_replaced_until_it_is_deployed_anew(self) -> None:
        (store, rewrapping), name = self.rewrapping(), self.slot()
        promoted(store, name, 1)
        before = store.predict(name, 1)
        for text in ("envelope 1", "envelope 2"):
            replaced = store.read(name, before)
            after = rewrapping.rewrap(name, before, SecretValue(text))
            assert (store.read(name, before), store.read(name, after)) == (replaced, SecretValue(text))
            before = after
        promoted(store, name, 2)
        assert store.read(name, before) == SecretValue("envelope 2")

    def test_rewrapping_waits_for_a_rotation_to_end(self) -> None:
        (store, rewrapping), name = self.rewrapping(), self.slot()
        two_pending(store, name)
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
                with self.at_call(dying, nth, moment, die):
                    rewrapping.rewrap(name, expected, SecretValue("envelope"))
                break
            except Killed:
                (store, again) = self.rewrapping()
                again.rewrap(name, expected, SecretValue("another envelope"))
                assert self.shape(name) == Shape(current=1, pending=None, previous=None, rejected=False, revision=1)
                assert store.read(name).reveal() in ("envelope", "another envelope")
        assert nth > 1

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
        assert nth > 1
