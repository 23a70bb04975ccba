"""Two runners at once, with no memory in common: whatever the order of their calls, nothing breaks (I1-I5, P6, P11).

Each runner is a thread with a journal of its own, and only the one that holds the baton goes on: at each remote call it
hands the baton to whom the drawn schedule names. So a schedule is an interleaving, and a failure can be run again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rotation import rollout
from rotation.engine import Request, Result
from rotation.errors import KeyturnError, LeaseHeld
from rotation.journal import LEASE
from rotation.model import Health
from tests.scenarios import RESUME, RETIRE, ROLL_BACK, ROTATE
from tests.world import Broken, Side, World, fresh, memory_folder, no_hook

RUNNERS = ("one", "other")
PATIENCE = 30.0  # seconds of real time for any of this to happen: it takes milliseconds


@dataclass
class Baton:
    """Lets one of two threads go on at a time. ``turns`` says, call by call, who goes next; after it they alternate."""

    turns: Sequence[bool]
    holder: str = RUNNERS[0]
    finished: set[str] = field(default_factory=set)
    passed: threading.Condition = field(default_factory=threading.Condition)
    calls: int = 0

    def hook(self, runner: str, call: str, side: Side) -> None:
        """Between two remote calls somebody else may go first."""
        if side == "before":
            self.wait(runner)
            self.hand_on()
            self.wait(runner)

    def hand_on(self) -> None:
        with self.passed:
            other = self.turns[self.calls] if self.calls < len(self.turns) else self.calls % 2 == 0
            self.calls += 1
            self._give(RUNNERS[1] if other else RUNNERS[0])

    def wait(self, runner: str) -> None:
        with self.passed:
            if not self.passed.wait_for(lambda: self.holder == runner, PATIENCE):
                raise Broken(f"{runner} waits for a baton that nobody hands on")

    def finish(self, runner: str) -> None:
        with self.passed:
            self.finished.add(runner)
            self._give(next(name for name in RUNNERS if name != runner))

    def _give(self, runner: str) -> None:
        left = [name for name in RUNNERS if name not in self.finished]
        self.holder = runner if runner in left else left[0] if left else ""
        self.passed.notify_all()


@dataclass
class Runner:
    """What one runner is asked for, one after the other; ``results`` tell what came of it."""

    name: str
    requests: Sequence[Request]
    results: list[Result | BaseException] = field(default_factory=list)

    def work(self, world: World, baton: Baton) -> None:
        try:
            baton.wait(self.name)
            for request in self.requests:
                self._run(world, request)
        except BaseException as error:  # noqa: BLE001  # raised again where the test can see it
            self.results.append(error)
        finally:
            baton.finish(self.name)

    def _run(self, world: World, request: Request) -> None:
        journal = world.project / f"{self.name}.sqlite3"
        try:
            self.results.append(world.run(request, self.name, journal))
        except KeyturnError as error:
            self.results.append(error)


def race(world: World, turns: Sequence[bool], scripts: Sequence[Sequence[Request]]) -> list[Runner]:
    """Let both work to their ends in this order of calls; raise what broke."""
    baton = Baton(turns)
    world.hook = baton.hook
    runners = [Runner(name, script) for name, script in zip(RUNNERS, scripts, strict=True)]
    threads = [threading.Thread(target=runner.work, args=(world, baton)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    world.hook = no_hook
    for error in (result for runner in runners for result in runner.results):
        if isinstance(error, BaseException) and not isinstance(error, KeyturnError):
            raise error
    return runners


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
