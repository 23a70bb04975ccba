"""A version that others made current is adopted while a candidate is at the canary: whatever the order, and wherever a
runner dies, nothing that runs is denied, and in the end the target lets in what is adopted and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.engine import Purpose, Request
from rotation.errors import KeyturnError, StoreError
from rotation.journal import LEASE
from rotation.model import Done, Ring, Strategy
from tests.scenarios import RESUME, RETIRE, ROLL_BACK, ROTATE
from tests.test_crash import changes
from tests.world import PATIENT, Killed, Side, World, fresh, memory_folder, no_hook

AT_THE_CANARY = Request(until="canary", wait=PATIENT)


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


def nothing_is_in_flight(world: World) -> None:
    del world


def candidate_at_the_canary(world: World) -> None:
    world.run(AT_THE_CANARY)
    assert world.running == {Ring.CANARY: 2, Ring.STABLE: 1}


def candidate_that_nobody_uses(world: World) -> None:
    world.run(Request(until="test", wait=PATIENT))


def candidate_that_is_pinned_only(world: World) -> None:
    """The runner died before it deployed."""
    rotate_and_die(world, "deploy.apply", "before")


def candidate_that_is_rejected(world: World) -> None:
    """The runner died when it had taken the canary back, and not the stable ring's candidate yet."""
    world.faults.bad_under[Ring.CANARY] = {2}
    rotate_and_die(world, "store.reject", "after")


def rotate_and_die(world: World, at: str, on: Side) -> None:
    def die(runner: str, call: str, side: Side) -> None:
        if (call, side) == (at, on):
            raise Killed

    world.hook = die
    with pytest.raises(Killed):
        world.run(ROTATE)
    world.hook = no_hook
    world.now += LEASE + timedelta(seconds=1)


def rollback_at_the_canary(world: World) -> None:
    """Generation 3 carries the value of generation 1, which is kept beside the current one."""
    world.run(ROTATE)
    world.run(Request(Purpose.ROLL_BACK, until="canary", wait=PATIENT))
    assert world.running[Ring.CANARY] == 3


STATES = (
    nothing_is_in_flight,
    candidate_at_the_canary,
    candidate_that_nobody_uses,
    candidate_that_is_pinned_only,
    candidate_that_is_rejected,
    rollback_at_the_canary,
)
in_every_state = pytest.mark.parametrize("prepare", STATES)
Prepare = Callable[[World], None]


def end_well(world: World) -> None:
    """Retire all that is out of use: only the current login is left."""
    world.hook = no_hook
    world.now += LEASE + timedelta(seconds=1)
    result = world.run(RESUME)
    assert isinstance(result.decision, Done), result
    world.now += timedelta(hours=1)
    result = world.run(RETIRE)
    assert isinstance(result.decision, Done), result
    world.require_quiet()
    assert world.slot.waiting == []
    assert [name for name, login in world.principals.items() if login.password] == ["legacy"]


def test_the_sessions_of_a_login_do_not_keep_the_version_whose_copy_was_adopted(folder: Path) -> None:
    world = fresh(folder)
    (login,) = (name for name, principal in world.principals.items() if principal.password is not None)
    password = world.principals[login].password or ""
    world.put_by_hand(login, password)
    world.adopt()
    world.principals[login].sessions = 8
    world.now += timedelta(hours=1)
    assert isinstance(world.run(RETIRE).decision, Done)
    assert world.slot.waiting == []
    assert world.principals[login].password == password


@in_every_state
def test_all_that_an_adopted_version_replaces_is_retired(folder: Path, prepare: Prepare) -> None:
    world = fresh(folder)
    prepare(world)
    world.put_by_hand("legacy", "by hand")
    result = world.adopt()
    assert isinstance(result.decision, Done), result
    world.require_quiet()
    end_well(world)


@in_every_state
def test_an_adoption_that_dies_at_any_call_is_finished_by_the_next(
    folder: Path, prepare: Prepare, subtests: pytest.Subtests
) -> None:
    world = fresh(folder / "run")
    prepare(world)
    world.put_by_hand("legacy", "by hand")
    world.calls.clear()
    forks: list[tuple[str, World]] = []

    def fork(runner: str, call: str, side: Side) -> None:
        if changes(call):
            forks.append((f"{len(world.calls)}, {side} {call}", world.fork(folder / f"death{len(forks)}")))

    world.hook = fork
    world.adopt()
    for number, (place, left) in enumerate(forks):
        with subtests.test(place):
            if number % 2:
                left.lose_journal()
            if left.slot.foreign is not None:
                assert left.adopt().error is None
            end_well(left)


def test_what_gave_way_is_not_said_to_be_promoted(folder: Path) -> None:
    world = fresh(folder)
    candidate_at_the_canary(world)
    before = len(world.trail())
    world.put_by_hand("legacy", "by hand")
    world.adopt()
    assert "promoted" not in world.trail()[before:]
    assert "it gives way to a version that is adopted" in world.trail_details()


def test_adopting_the_candidates_own_value_needs_no_further_generation(folder: Path) -> None:
    world = fresh(folder)
    candidate_at_the_canary(world)
    content = world.parts["orders/db"].content(2)
    world.put_by_hand(content["username"], content["password"])
    world.adopt()
    assert (world.slot.current, world.slot.waiting) == (2, [1])
    world.require_quiet()


def test_a_rollback_does_not_bring_back_the_candidate_that_gave_way(folder: Path) -> None:
    world = fresh(folder)
    candidate_at_the_canary(world)
    world.put_by_hand("legacy", "by hand")
    world.adopt()
    result = world.run(ROLL_BACK)
    assert isinstance(result.error, StoreError)
    assert "1, 2 are kept since a version was adopted" in str(result.error)
    end_well(world)


def test_a_generation_that_was_used_before_is_passed_over_without_a_journal_too(folder: Path) -> None:
    world = fresh(folder)
    candidate_that_is_rejected(world)
    world.run(RESUME)
    assert (world.slot.current, world.slot.pending) == (1, None)
    world.lose_journal()
    world.put_by_hand("legacy", "by hand")
    assert world.adopt().error is None
    assert world.slot.current == 3
    end_well(world)


def test_in_place_the_one_login_follows_what_is_adopted(folder: Path) -> None:
    world = fresh(folder, Strategy.SINGLE)
    world.run(Request(until="test", wait=PATIENT))
    world.put_by_hand("a", "by hand")
    world.adopt()
    world.now += timedelta(hours=1)
    assert isinstance(world.run(RETIRE).decision, Done)
    world.require_quiet()
    assert (world.slot.current, world.slot.waiting) == (3, [])


def test_a_value_that_the_target_denies_is_not_brought_back(folder: Path) -> None:
    """Somebody gave the current login another password: the one before it would lock out what is current."""
    world = fresh(folder, consumers=False)
    world.put_by_hand("a", "by hand")
    world.adopt()
    assert world.slot.waiting == [1]
    result = world.run(ROLL_BACK)
    assert isinstance(result.error, StoreError)
    assert "denies" in str(result.error)
    assert (world.slot.current, world.slot.pending) == (2, None)


@pytest.mark.parametrize("request_", [RETIRE, ROLL_BACK, ROTATE], ids=["retire", "rollback", "rotate"])
@pytest.mark.parametrize("prepare", [candidate_at_the_canary, rollback_at_the_canary])
def test_a_runner_that_sleeps_at_any_change_while_others_adopt_breaks_nothing(
    folder: Path, prepare: Prepare, request_: Request, subtests: pytest.Subtests
) -> None:
    count = sleep_at(folder / "count", prepare, request_, None)
    for nth in range(count):
        with subtests.test(f"call {nth}"):
            sleep_at(folder / f"at{nth}", prepare, request_, nth)


def sleep_at(folder: Path, prepare: Prepare, request: Request, nth: int | None) -> int:
    """Let a runner be held up at its nth change while somebody else adopts; return how many it made."""
    world = fresh(folder)
    prepare(world)
    calls = 0

    def sleep(runner: str, call: str, side: Side) -> None:
        nonlocal calls
        if runner == "sleeper" and side == "before" and changes(call):
            if calls == nth:
                world.hook = no_hook
                world.put_by_hand("legacy", "by hand")
                world.adopt("other", world.project / "other.sqlite3")
            calls += 1

    world.hook = sleep
    with suppress(KeyturnError):
        world.run(request, "sleeper")
    if nth is not None:
        world.lose_journal()
        end_well(world)
    return calls
