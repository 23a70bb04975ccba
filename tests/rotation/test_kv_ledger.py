"""The ledger's rules, by themselves and in any order."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.errors import Conflict
from rotation.kv_ledger import Decision, Leaf, Ledger

CREATED = "2026-11-22T12:00:00Z"


def promoted(ledger: Ledger, generation: int, base: int) -> Ledger:
    return ledger.staged(generation, base).accepted(generation, base).moved(base + 1, CREATED)


def test_a_promotion_makes_the_old_generation_previous() -> None:
    ledger = promoted(promoted(Ledger(), 1, 0), 2, 1)
    assert ledger.promoted == 2
    assert (ledger.previous, ledger.pending, ledger.moving) == (Leaf(generation=1), None, None)


def test_a_second_promotion_drops_what_was_previous() -> None:
    ledger = promoted(promoted(promoted(Ledger(), 1, 0), 2, 1), 3, 2)
    assert ledger.previous == Leaf(generation=2)
    assert ledger.is_spent(1)
    assert Leaf(generation=1) in ledger.dropping


def test_a_version_that_is_not_the_one_on_the_way_changes_nothing() -> None:
    ledger = Ledger().staged(1, 0).accepted(1, 0)
    assert ledger.moved(2, CREATED) == ledger


def test_who_accepted_cannot_reject_and_who_rejected_cannot_accept() -> None:
    staged = Ledger().staged(1, 0)
    with pytest.raises(Conflict, match="is being promoted"):
        staged.accepted(1, 0).rejected(1)
    with pytest.raises(Conflict, match="was rejected"):
        staged.rejected(1).accepted(1, 0)


def test_nothing_displaces_what_can_still_become_current() -> None:
    accepted = Ledger().staged(1, 0).accepted(1, 0)
    with pytest.raises(Conflict, match="generation 1 is being made current"):
        accepted.staged(2, 0)
    moved_on = accepted.staged(2, 1)  # by others: the write for 1 cannot succeed any more
    assert (moved_on.pending, moved_on.kept) == (2, (Leaf(generation=1),))


def test_what_gives_way_to_what_is_adopted_is_kept_until_it_is_dropped() -> None:
    ledger = promoted(promoted(Ledger(), 1, 0), 2, 1).staged(3, 2)
    adopted = promoted(ledger, 4, 3)  # after a version of others
    assert adopted.promoted == 4
    assert adopted.earlier == (Leaf(generation=2), Leaf(generation=3), Leaf(generation=1))
    for generation in (3, 1, 2):
        assert not adopted.is_spent(generation)
        adopted = adopted.dropped(generation)
        assert adopted.is_spent(generation)
    assert adopted.earlier == ()


def test_a_rewrap_keeps_the_generation_and_the_envelope_before() -> None:
    once = promoted(Ledger(), 1, 0).rewrapping(Leaf(generation=1, revision=1), 1).moved(2, CREATED)
    assert once.current is not None
    assert (once.current.leaf, once.replaced) == (Leaf(generation=1, revision=1), Leaf(generation=1))
    assert not once.dropping
    twice = once.rewrapping(Leaf(generation=1, revision=2), 2).moved(3, CREATED)
    assert twice.replaced == Leaf(generation=1, revision=1)
    assert twice.dropping == (Leaf(generation=1),)
    assert not twice.is_spent(1)


def test_all_envelopes_of_a_generation_are_dropped_with_it() -> None:
    rewrapped = promoted(Ledger(), 1, 0).rewrapping(Leaf(generation=1, revision=1), 1).moved(2, CREATED)
    dropped = promoted(rewrapped, 2, 2).dropped(1)
    assert {str(leaf) for leaf in dropped.dropping} == {"g1", "g1-r1", "g1-r2"}, "the last might have been begun"
    assert dropped.replaced is None


@pytest.mark.parametrize("text", ["g0", "g01", "g1-r0", "g1-r", "x1", "ledger", "g1/", "gold", ""])
def test_what_is_no_leaf_is_not_taken_for_one(text: str) -> None:
    assert Leaf.parse(text) is None


@given(st.integers(1, 10**10), st.integers(0, 999))
def test_a_leafs_name_says_all_of_it(generation: int, revision: int) -> None:
    leaf = Leaf(generation=generation, revision=revision)
    assert Leaf.parse(str(leaf)) == leaf


@given(st.lists(st.tuples(st.sampled_from(["stage", "accept", "move", "reject", "drop"]), st.integers(1, 6))))
def test_in_any_order_current_never_goes_back_and_what_is_spent_stays_so(acts: list[tuple[str, int]]) -> None:
    ledger, version, spent = Ledger(), 0, set[int]()
    for act, generation in acts:
        before = ledger
        with suppress(Conflict):
            if act == "stage" and not ledger.is_spent(generation):
                ledger = ledger.staged(generation, version)
            elif act == "accept":
                ledger = ledger.accepted(generation, version)
            elif act == "reject":
                ledger = ledger.rejected(generation)
            elif act == "drop":
                ledger = ledger.dropped(generation)
            elif act == "move" and ledger.moving is not None:
                version += 1
                ledger = ledger.moved(version, CREATED)
        spent |= {number for number in range(1, 7) if before.is_spent(number)}
        assert ledger.promoted >= before.promoted
        assert all(ledger.is_spent(number) for number in spent)
        assert not any(ledger.leaf(number) for number in spent)
        assert ledger.highest >= max(ledger.promoted, ledger.pending or 0)
        assert (ledger.moving is not None) == (ledger.pending is not None and ledger.decision is Decision.ACCEPTED)
        assert Ledger.model_validate(ledger.model_dump(mode="json")) == ledger
