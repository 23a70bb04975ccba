"""Secrets of one run that share a consumer restart it once per ring, whatever stands between each and its rollout; and
nobody waits for one that is not coming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.engine import Request, Result
from rotation.errors import StoreError
from rotation.manifest import Secret
from rotation.model import Blocked, Done, Ending, Ring, Wait
from tests.scenarios import ROTATE
from tests.world import NAME, PATIENT, Side, World, fresh, memory_folder

OTHER = "orders/api"
TWO = (NAME, OTHER)
FIVE = (*TWO, "orders/cache", "orders/mail", "orders/queue")
ONE_PER_RING = len(Ring)


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


@pytest.fixture
def two(folder: Path) -> World:
    return fresh(folder, names=TWO)


class Unequal(World):
    """``bakes`` are the times for which single secrets' canaries are watched."""

    bakes: dict[str, timedelta] = {}  # noqa: RUF012  # set per world

    def secret(self, name: str = NAME) -> Secret:
        return super().secret(name).model_copy(update={"bake": self.bakes.get(name, super().secret(name).bake)})


def ending(result: Result) -> tuple[Ending, int]:
    assert isinstance(result.decision, Done), result
    return result.decision.ending, result.decision.generation


def deployments(world: World) -> int:
    return world.calls.count("deploy.apply")


def rotate_all(world: World) -> dict[str, Result]:
    world.calls.clear()
    return world.run_all(world.names, ROTATE)


# Together


def _deaf(world: World, name: str, installs: int) -> None:
    world.parts[name].faults.ignored_installs = {world.parts[name].slot.current or 0: 0, 2: installs, 3: installs}


def _in_the_way(world: World, name: str) -> None:
    """Its last rotation left a generation that has to be retired first."""
    world.run_all([name], ROTATE)
    world.now += timedelta(hours=1)


def _staged(world: World, name: str) -> None:
    world.run_all([name], Request(until="stage", wait=PATIENT))


def _tested(world: World, name: str) -> None:
    world.run_all([name], Request(until="test", wait=PATIENT))


def _in_its_canary(world: World, name: str) -> None:
    world.run_all([name], Request(until="canary", wait=PATIENT))


def _both_late(world: World) -> None:
    _in_the_way(world, NAME)
    _deaf(world, OTHER, 2)


def _far_apart(world: World) -> None:
    _in_the_way(world, OTHER)
    _tested(world, NAME)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda world: _deaf(world, OTHER, 1),
        lambda world: _deaf(world, OTHER, 2),
        lambda world: _in_the_way(world, OTHER),
        _both_late,
        lambda world: _staged(world, OTHER),
        lambda world: _tested(world, NAME),
        _far_apart,
    ],
    ids=["one more install", "two more", "one to retire", "both", "staged before", "tested before", "far apart"],
)
def test_two_secrets_with_unequal_ways_make_one_deployment_per_ring(
    two: World, prepare: Callable[[World], object]
) -> None:
    prepare(two)
    before = {name: two.parts[name].slot.current or 0 for name in TWO}
    results = rotate_all(two)
    assert {name: ending(result) for name, result in results.items()} == {
        name: (Ending.PROMOTED, generation + 1) for name, generation in before.items()
    }
    assert deployments(two) == ONE_PER_RING
    two.require_quiet()


def test_five_secrets_with_unequal_ways_make_one_deployment_per_ring(folder: Path) -> None:
    world = fresh(folder, names=FIVE)
    _deaf(world, FIVE[1], 1)
    _deaf(world, FIVE[2], 2)
    _in_the_way(world, FIVE[3])
    _tested(world, FIVE[4])
    results = rotate_all(world)
    assert {ending(result)[0] for result in results.values()} == {Ending.PROMOTED}
    assert deployments(world) == ONE_PER_RING
    world.require_quiet()


def test_a_secret_whose_canary_is_watched_lets_a_late_one_catch_up_for_the_stable_ring(two: World) -> None:
    _in_its_canary(two, NAME)
    results = rotate_all(two)
    assert {ending(result) for result in results.values()} == {(Ending.PROMOTED, 2)}
    assert deployments(two) == ONE_PER_RING


def test_the_stable_ring_waits_for_the_canary_that_is_watched_longest(folder: Path) -> None:
    world = _unequal(folder, timedelta(minutes=5))
    results = rotate_all(world)
    assert {ending(result) for result in results.values()} == {(Ending.PROMOTED, 2)}
    assert deployments(world) == ONE_PER_RING
    world.require_quiet()


def _unequal(folder: Path, bake: timedelta) -> World:
    world = Unequal(folder, names=TWO)
    world.bakes = {OTHER: bake}
    world.run_all(TWO, Request(initialize=True, wait=PATIENT))
    return world


def test_a_run_that_ends_while_one_canary_is_watched_leaves_the_other_for_the_next_run_too(folder: Path) -> None:
    world = _unequal(folder, timedelta(minutes=5))
    world.calls.clear()
    results = world.run_all(TWO, Request(wait=timedelta(minutes=1)))
    wait = results[NAME].decision
    assert isinstance(wait, Wait)
    assert wait.reason == f"the stable ring gets generation 2 together with {OTHER}"
    assert wait.until is not None
    assert world.parts[NAME].running == {Ring.CANARY: 2, Ring.STABLE: 1}
    assert {ending(result) for result in world.run_all(TWO, ROTATE).values()} == {(Ending.PROMOTED, 2)}
    assert deployments(world) == ONE_PER_RING


def test_an_application_that_takes_up_its_canary_late_is_awaited_by_all_of_its_secrets(two: World) -> None:
    two.reload_delay = timedelta(seconds=5)
    _deaf(two, OTHER, 2)
    assert {ending(result) for result in rotate_all(two).values()} == {(Ending.PROMOTED, 2)}
    assert deployments(two) == ONE_PER_RING


# Nobody waits for one that is not coming


def test_a_companion_that_fails_holds_nobody(two: World) -> None:
    """Its second install fails for good, while the first secret's pin is put off for it."""
    _deaf(two, OTHER, 2)
    installs = iter(range(100))

    def hook(runner: str, call: str, side: Side) -> None:
        if call == "target.install" and side == "before" and next(installs) == 2:
            raise StoreError("no more installs")

    two.hook = hook
    results = rotate_all(two)
    assert isinstance(results[OTHER].error, StoreError)
    assert ending(results[NAME]) == (Ending.PROMOTED, 2)
    assert deployments(two) == ONE_PER_RING
    assert two.parts[OTHER].slot.current == 1


def test_a_companion_whose_steps_show_no_effect_holds_nobody(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even in a run that may not wait at all."""
    monkeypatch.setattr("rotation.decide.MOST_INSTALLS", 10**6)
    _deaf(two, OTHER, 10**6)
    two.run_all(TWO, Request())
    assert two.parts[NAME].running[Ring.CANARY] == 2
    assert ending(two.run_all(TWO, ROTATE)[NAME]) == (Ending.PROMOTED, 2)


def test_a_companion_that_is_blocked_holds_nobody(two: World) -> None:
    """The target denies each of its candidates, until a person has to look."""
    two.parts[OTHER].faults.ignored_installs = dict.fromkeys(range(2, 20), 99)
    results = rotate_all(two)
    assert isinstance(results[OTHER].decision, Blocked)
    assert ending(results[NAME]) == (Ending.PROMOTED, 2)
    assert deployments(two) == ONE_PER_RING


def test_a_companion_that_waits_for_its_target_holds_nobody(two: World) -> None:
    _staged(two, OTHER)
    two.parts[OTHER].faults.target_down = True
    done: list[timedelta] = []
    started = two.now

    def hook(runner: str, call: str, side: Side) -> None:
        if two.parts[NAME].slot.current == 2 and not done:
            done.append(two.now - started)

    two.hook = hook
    results = rotate_all(two)
    spec = two.secret()
    assert ending(results[NAME]) == (Ending.PROMOTED, 2)
    assert done[0] < spec.bake + spec.settle + timedelta(seconds=5)
    assert isinstance(results[OTHER].decision, Blocked)


def test_a_companion_whose_target_goes_down_while_its_canary_is_watched_holds_nobody(two: World) -> None:
    world = two
    _in_its_canary(world, OTHER)
    world.parts[OTHER].faults.target_down = True
    assert ending(rotate_all(world)[NAME]) == (Ending.PROMOTED, 2)


def test_a_companion_that_waits_for_a_grace_window_holds_nobody(two: World) -> None:
    two.run_all([OTHER], ROTATE)
    two.parts[OTHER].principals["a"].sessions = 1  # for ever
    results = rotate_all(two)
    assert isinstance(results[OTHER].decision, Wait)
    assert ending(results[NAME]) == (Ending.PROMOTED, 2)
    assert deployments(two) == ONE_PER_RING


def test_a_companion_whose_signals_say_nothing_holds_the_stable_ring_until_it_is_blocked(two: World) -> None:
    two.parts[OTHER].faults.silent_signals = True
    results = rotate_all(two)
    assert isinstance(results[OTHER].decision, Blocked)
    assert ending(results[NAME]) == (Ending.PROMOTED, 2)
    assert deployments(two) == ONE_PER_RING


@pytest.mark.parametrize("ring", Ring)
def test_a_companion_that_is_rejected_midway_holds_nobody(two: World, ring: Ring) -> None:
    _deaf(two, OTHER, 1)
    two.parts[OTHER].faults.bad_under[ring] = {2}
    results = rotate_all(two)
    assert ending(results[OTHER]) == (Ending.ROLLED_BACK, 1)
    assert ending(results[NAME]) == (Ending.PROMOTED, 2)
    assert two.now < two.events[0].at + timedelta(minutes=5)
    two.require_quiet()


def test_a_companion_that_lacks_a_privilege_holds_nobody(two: World) -> None:
    two.parts[OTHER].faults.lacks[2] = ("SELECT on orders",)
    results = rotate_all(two)
    assert ending(results[OTHER]) == (Ending.ROLLED_BACK, 1)
    assert ending(results[NAME]) == (Ending.PROMOTED, 2)
    assert deployments(two) == ONE_PER_RING


def test_a_secret_that_is_not_in_the_run_holds_nobody(two: World) -> None:
    _staged(two, OTHER)
    two.calls.clear()
    assert ending(two.run_all([NAME], ROTATE)[NAME]) == (Ending.PROMOTED, 2)
    assert deployments(two) == ONE_PER_RING
