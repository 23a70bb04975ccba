"""A runner that dies at any remote call is followed by one that ends as if nothing had happened (I6, P1, P3, P13).

A run is *forked* at every call: the world, the files and the journal are copied as the runner would leave them if it
were killed there, before the call reaches the world or after it did and before the answer came back. A place where
the same call finds the same world as before is the same place. Each fork is then run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rotation.engine import Result
from rotation.model import Done
from tests.scenarios import SCENARIOS, Scenario
from tests.world import Side, World, memory_folder

MOST_PASSES = 2
RECOVERIES_KILLED = 3  # of the runs that recover, in each scenario, how many are killed at every change in turn


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


@dataclass(frozen=True)
class Death:
    """Where a runner died, and the world that it left."""

    place: str
    world: World


def deaths(scenario: Scenario, world: World, folder: Path, *, at_changes: bool = False) -> list[Death]:
    """The world as the runner would leave it if it died at each place of this run (``at_changes``: at each place where
    a call changes something)."""
    found: list[Death] = []
    seen: set[tuple[str, str, str]] = set()

    def fork(runner: str, call: str, side: Side) -> None:
        place = (call, side, repr(world.snapshot()) + repr([p.principals for p in world.parts.values()]))
        if place not in seen and (changes(call) or (side == "before" and not at_changes)):
            seen.add(place)
            name = f"call {len(world.calls)}, {side} {call}"
            found.append(Death(name, world.fork(folder / f"death{len(found)}")))

    world.hook = fork
    scenario.require_end(world, run_again(world, scenario))
    return found


def changes(call: str) -> bool:
    """Whether it matters that the call reached the world: one that only asks leaves nothing behind."""
    return call not in {
        "store.observe",
        "store.read",
        "target.check",
        "target.usage",
        "target.missing",
        "target.probe",
        "deploy.deployed",
        "signal.read",
        "signal.running",
    }


def run_again(world: World, scenario: Scenario) -> Result:
    for _ in range(MOST_PASSES):
        result = world.run(scenario.request)
        if isinstance(result.decision, Done):
            break
    return result


def recover(world: World, scenario: Scenario, undisturbed: World) -> None:
    """With its journal: the same end state, and the trail ends as it does undisturbed."""
    scenario.require_end(world, run_again(world, scenario))
    assert world.snapshot() == undisturbed.snapshot()
    assert world.trail()[-1] == undisturbed.trail()[-1]


def recover_without_journal(world: World, scenario: Scenario, undisturbed: World) -> None:
    """Without it: what is in flight is finished; what was not begun, or was undone, is asked for again, and ends in
    the same state but for the numbers of generations, because one that was used is never used again."""
    world.lose_journal()
    for request in (scenario.resumption, scenario.request):
        if renumbered(world) != renumbered(undisturbed):
            result = world.run(request)
            assert isinstance(result.decision, Done), result
    assert renumbered(world) == renumbered(undisturbed)
    world.require_quiet()


def renumbered(world: World) -> str:
    """The snapshot with each generation's number replaced by its rank among those that are still kept."""
    kept = sorted({g for g in (world.slot.current, world.slot.previous, world.slot.pending) if g is not None})
    text = repr(world.snapshot())
    for rank, generation in enumerate(kept):
        text = text.replace(f": {generation}", f": #{rank}")
    return text


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_run_that_dies_at_any_call_is_finished_by_the_next(
    scenario: Scenario, folder: Path, subtests: pytest.Subtests
) -> None:
    undisturbed = scenario.play(folder / "undisturbed")
    for death in deaths(scenario, scenario.begin(folder / "run"), folder):
        with subtests.test(f"{scenario.name}: {death.place}"):
            recover(death.world, scenario, undisturbed)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_run_that_dies_at_any_call_and_loses_its_journal_is_finished_by_the_next(
    scenario: Scenario, folder: Path, subtests: pytest.Subtests
) -> None:
    undisturbed = scenario.play(folder / "undisturbed")
    for death in deaths(scenario, scenario.begin(folder / "run"), folder):
        with subtests.test(f"{scenario.name}: {death.place}"):
            recover_without_journal(death.world, scenario, undisturbed)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_recovery_that_dies_too_is_finished_by_the_one_after(
    scenario: Scenario, folder: Path, subtests: pytest.Subtests
) -> None:
    undisturbed = scenario.play(folder / "undisturbed")
    first = deaths(scenario, scenario.begin(folder / "run"), folder)
    midway = [death for death in first if "after" in death.place]
    for number, death in enumerate(midway[:: max(1, len(midway) // RECOVERIES_KILLED)]):
        for second in deaths(scenario, death.world, folder / f"second{number}", at_changes=True):
            with subtests.test(f"{scenario.name}: {death.place}; then {second.place}"):
                recover(second.world, scenario, undisturbed)
