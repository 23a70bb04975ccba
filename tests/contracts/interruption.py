"""What every secret store must survive: runners that die, replies that get lost, and others who act meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from rotation.stores import SecretStore
from tests.contracts.staging import (
    EVERY_SCENARIO,
    Crossing,
    Killed,
    Moment,
    Scenario,
    Shape,
    StoreHarness,
    Trouble,
    current_of,
    die,
    every_point,
    one_pending,
    promote,
    reject,
    stage_own,
    text_of,
    together,
    two_current,
    two_pending,
    wins,
)


class InterruptionContract(StoreHarness):
    """Every method: run again, cut anywhere, with lost replies, against other runners."""

    @EVERY_SCENARIO
    def test_running_it_again_is_a_no_op(self, scenario: Scenario) -> None:
        store, name = self.open(), self.slot()
        scenario.prepare(store, name)
        scenario.act(store, name)
        before = store.observe([name])[name]
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
                with self.at_call(dying, nth, moment, die):
                    scenario.act(dying, name)
                break
            except Killed:
                scenario.act(self.open(), name)
                assert self.shape(name) == self.shape(whole), f"killed {moment.value} call {nth}"
        assert nth > 1

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
            (one_pending if first else two_pending)(one, name)
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
        assert nth > 1

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
        two_current(runners[0], name)
        assert together([partial(runner.discard, name, 1) for runner in runners]) == [True] * 4
        assert self.shape(name) == Shape(current=2, pending=None, previous=None, rejected=False, revision=0)
