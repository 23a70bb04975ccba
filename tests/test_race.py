"""Two runners at once, with no memory in common: whatever the order of their calls, nothing breaks (I1-I5, P6, P11)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rotation import rollout
from rotation.engine import Request
from rotation.errors import LeaseHeld
from rotation.journal import LEASE
from rotation.model import Health
from tests.racing import Baton, compete
from tests.scenarios import RESUME, RETIRE, ROLL_BACK, ROTATE
from tests.world import Side, World, fresh, memory_folder, no_hook


def race(world: World, turns: Sequence[bool], scripts: Sequence[Sequence[Request]]) -> None:
    baton = Baton(turns)
    world.hook = baton.hook
    compete(world, baton, scripts)
    world.hook = no_hook


def require_quiet_after_one_more(world: World) -> None:
    world.now += LEASE + timedelta(seconds=1)
    last = world.run(RESUME, "last", world.project / "last.sqlite3")
    assert last.error is None, last
    world.require_quiet()


requests = st.sampled_from((ROTATE, ROTATE, RETIRE, ROLL_BACK))
scripts = st.tuples(st.lists(requests, min_size=1, max_size=2), st.lists(requests, min_size=1, max_size=3))
interleavings = st.lists(st.booleans(), max_size=200)
RACE = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target],
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the lock of the pins may be asleep: the other one is told so at once."""
    monkeypatch.setattr(rollout, "PATIENCE", 0.0)


def test_with_one_journal_the_second_runner_is_told_to_wait(tmp_path: Path) -> None:
    world = fresh(tmp_path)
    told: list[str] = []

    def meet(runner: str, call: str, side: Side) -> None:
        if runner == "one" and call == "store.stage" and side == "after":
            with pytest.raises(LeaseHeld) as caught:
                world.run(ROTATE, "other")
            told.append(str(caught.value))

    world.hook = meet
    assert world.run(ROTATE, "one").error is None
    assert len(told) == 1
    world.require_quiet()


@RACE
@given(interleavings, scripts)
def test_two_runners_in_any_order_break_nothing(
    turns: list[bool], scripts: tuple[list[Request], list[Request]]
) -> None:
    with memory_folder() as folder:
        world = fresh(folder)
        race(world, turns, scripts)
        require_quiet_after_one_more(world)


@RACE
@given(st.integers(0, 250), scripts, st.booleans())
def test_a_runner_that_sleeps_at_any_call_while_the_other_goes_on_breaks_nothing(
    call: int, scripts: tuple[list[Request], list[Request]], tells_running: bool
) -> None:
    """It wakes when the other one has finished all that it was asked for, up to three rotations later."""
    with memory_folder() as folder:
        world = fresh(folder, tells_running=tells_running)
        race(world, [False] * call + [True] * 5000, scripts)
        require_quiet_after_one_more(world)


@RACE
@given(interleavings)
def test_runners_that_judge_differently_do_not_both_have_their_way(turns: list[bool]) -> None:
    """One sees a bad ring where the other sees a good one: either the candidate is promoted or it is rejected."""
    with memory_folder() as folder:
        world = fresh(folder)
        world.faults.opinions = {"one": Health.BAD, "other": Health.GOOD}
        race(world, turns, ([ROTATE], [ROTATE]))
        world.faults.opinions.clear()
        require_quiet_after_one_more(world)
