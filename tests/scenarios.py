"""Rotations in the simulated world, from an undisturbed success to the worst: shared by the crash and mutant tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rotation.engine import Purpose, Request, Result
from rotation.model import Done, Ending, Ring, Strategy
from tests.world import PATIENT, World, fresh

ROTATE = Request(wait=PATIENT)
INITIALIZE = Request(initialize=True, wait=PATIENT)
ROLL_BACK = Request(Purpose.ROLL_BACK, wait=PATIENT)
RETIRE = Request(Purpose.RETIRE, wait=PATIENT)
RESUME = Request(Purpose.RESUME, initialize=True, wait=PATIENT)


@dataclass(frozen=True)
class Scenario:
    """What is asked for in which world, how it ends undisturbed, and which generation is current then.

    ``resumption`` is what a person would ask for who finds it unfinished and has lost the journal.
    """

    name: str
    begin: Callable[[Path], World]
    request: Request
    ending: Ending
    current: int | None
    resumption: Request = RESUME

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def play(self, folder: Path) -> World:
        """Run it undisturbed; AssertionError when it does not end as it should."""
        world = self.begin(folder)
        self.require_end(world, world.run(self.request))
        return world

    def require_end(self, world: World, result: Result) -> None:
        if result.error is not None:
            raise AssertionError(f"{self.name} fails") from result.error
        assert isinstance(result.decision, Done), result
        assert (result.decision.ending, world.slot.current) == (self.ending, self.current)
        world.require_quiet()


def _with(prepare: Callable[[World], object], strategy: Strategy = Strategy.ALTERNATING) -> Callable[[Path], World]:
    def begin(folder: Path) -> World:
        world = fresh(folder, strategy)
        prepare(world)
        world.calls.clear()
        return world

    return begin


def _as_it_is(world: World) -> None:
    del world


def _bad(ring: Ring, generation: int) -> Callable[[World], object]:
    return lambda world: world.faults.bad_under.update({ring: {generation}})


def _lacking(world: World) -> None:
    world.faults.lacks[2] = ("SELECT on orders",)


def _rotated(world: World) -> None:
    world.run(ROTATE)


def _rotated_then_bad(world: World) -> None:
    world.run(ROTATE)
    world.faults.bad_under[Ring.CANARY] = {3}


def _out_of_grace(world: World) -> None:
    world.run(ROTATE)
    world.now += timedelta(hours=1)


def _slow(world: World) -> None:
    world.reload_delay = timedelta(seconds=5)


def _empty(prepare: Callable[[World], object] = _as_it_is) -> Callable[[Path], World]:
    def begin(folder: Path) -> World:
        world = World(folder)
        prepare(world)
        return world

    return begin


def _lonely(folder: Path) -> World:
    return fresh(folder, consumers=False)


def _quiet_application(folder: Path) -> World:
    return fresh(folder, tells_running=False)


def _quiet_and_slow(folder: Path) -> World:
    world = fresh(folder, tells_running=False, reload_delay=timedelta(seconds=5))
    world.faults.bad_under[Ring.STABLE] = {2}
    return world


def _deaf(times: int) -> Callable[[World], object]:
    return lambda world: world.faults.ignored_installs.update({2: times})


SCENARIOS = (
    Scenario("success", _with(_as_it_is), ROTATE, Ending.PROMOTED, 2),
    Scenario("the application reloads late", _with(_slow), ROTATE, Ending.PROMOTED, 2),
    Scenario("no consumers", _lonely, ROTATE, Ending.PROMOTED, 2),
    Scenario("nobody reports what runs", _quiet_application, ROTATE, Ending.PROMOTED, 2),
    Scenario("the target ignores the first install", _with(_deaf(1)), ROTATE, Ending.PROMOTED, 2),
    Scenario("the target ignores every install of the first candidate", _with(_deaf(99)), ROTATE, Ending.PROMOTED, 3),
    Scenario("a privilege is lacking", _with(_lacking), ROTATE, Ending.ROLLED_BACK, 1),
    Scenario("bad canary", _with(_bad(Ring.CANARY, 2)), ROTATE, Ending.ROLLED_BACK, 1),
    Scenario("bad stable ring", _with(_bad(Ring.STABLE, 2)), ROTATE, Ending.ROLLED_BACK, 1),
    Scenario("bad stable ring, reloads late and unseen", _quiet_and_slow, ROTATE, Ending.ROLLED_BACK, 1),
    Scenario(
        "rollback before promotion",
        _with(lambda world: world.run(Request(until="observe", wait=PATIENT))),
        ROLL_BACK,
        Ending.ROLLED_BACK,
        1,
        resumption=ROLL_BACK,
    ),
    Scenario("rollback after promotion", _with(_rotated), ROLL_BACK, Ending.PROMOTED, 3),
    Scenario("rollback to what is bad by now", _with(_rotated_then_bad), ROLL_BACK, Ending.ROLLED_BACK, 2),
    Scenario("retire", _with(_out_of_grace), RETIRE, Ending.UNCHANGED, 2),
    Scenario("rotate once more", _with(_rotated), ROTATE, Ending.PROMOTED, 3),
    Scenario("first value", _empty(), INITIALIZE, Ending.PROMOTED, 1),
    Scenario("first value is bad", _empty(_bad(Ring.CANARY, 1)), INITIALIZE, Ending.ROLLED_BACK, None),
    Scenario("single", _with(_as_it_is, Strategy.SINGLE), ROTATE, Ending.PROMOTED, 2),
    Scenario("single that lacks a privilege", _with(_lacking, Strategy.SINGLE), ROTATE, Ending.ROLLED_BACK, 1),
    Scenario("single that the target ignores", _with(_deaf(99), Strategy.SINGLE), ROTATE, Ending.PROMOTED, 3),
)
