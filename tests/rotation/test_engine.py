"""What a run does for each purpose, where it stops, what it waits for, and how one secret's trouble stays its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from rotation import pins as pins_file
from rotation.engine import PHASES, Engine, Purpose, Request, Result
from rotation.errors import (
    DeclarationError,
    DeployError,
    JournalError,
    KeyturnError,
    StoreError,
    Unavailable,
    UsageError,
)
from rotation.journal import Journal
from rotation.model import Act, Blocked, Done, Ending, Ring, Strategy, Wait
from tests.scenarios import RESUME, RETIRE, ROLL_BACK, ROTATE
from tests.world import CONSUMER, NAME, PATIENT, Killed, Side, World, fresh, memory_folder, no_hook

AT_ONCE = Request()
PINS = Path("stacks/pins/test.json")


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


@pytest.fixture
def world(folder: Path) -> World:
    return fresh(folder)


def fail_once(at: str, error: KeyturnError, side: Side = "before") -> Callable[[str, str, Side], None]:
    """A hook that makes the first call of this name fail."""
    left = [error]

    def hook(runner: str, call: str, where: Side) -> None:
        if call == at and where == side and left:
            raise left.pop()

    return hook


def decision(result: Result) -> Done | Wait | Blocked:
    assert result.error is None, result
    assert result.decision is not None
    return result.decision


def ended(result: Result) -> tuple[Ending, int]:
    done = decision(result)
    assert isinstance(done, Done), done
    return done.ending, done.generation


# How long a run stays


def test_a_run_that_may_not_wait_ends_at_once_and_says_until_when(world: World) -> None:
    started = world.now
    wait = decision(world.run(AT_ONCE))
    assert isinstance(wait, Wait)
    assert wait.until == started + world.secret().bake
    assert world.now == started


def test_a_run_waits_for_the_bake_time_and_no_longer_than_that_needs(world: World) -> None:
    started, spec = world.now, world.secret()
    assert ended(world.run(ROTATE)) == (Ending.PROMOTED, 2)
    assert timedelta(0) <= world.now - started - spec.bake - spec.settle < timedelta(seconds=2)


def test_a_run_that_may_wait_a_little_ends_when_that_is_over(world: World) -> None:
    started = world.now
    assert isinstance(decision(world.run(Request(wait=timedelta(seconds=3)))), Wait)
    assert timedelta(seconds=3) <= world.now - started < timedelta(seconds=4)


def test_no_time_is_spent_on_a_grace_window_that_outlasts_the_run(world: World) -> None:
    world.run(ROTATE)
    started = world.now
    wait = decision(world.run(Request(Purpose.RETIRE, wait=timedelta(seconds=30))))
    assert isinstance(wait, Wait)
    assert wait.surely
    assert world.now == started


def test_a_grace_window_that_ends_within_the_run_is_waited_for(world: World) -> None:
    world.run(ROTATE)
    assert ended(world.run(RETIRE)) == (Ending.UNCHANGED, 2)
    assert world.slot.previous is None


# Phases


@pytest.mark.parametrize("phase", PHASES[:-2])
def test_a_run_goes_as_far_as_it_is_told(world: World, phase: str) -> None:
    started = world.now
    wait = decision(world.run(Request(until=phase, wait=PATIENT)))
    assert isinstance(wait, Wait)
    assert wait.outside
    assert wait.reason == f"it was to go as far as {phase}"
    reached = PHASES.index(phase)
    assert world.slot.pending == 2
    assert (world.principals["b"].password is not None) == (reached >= PHASES.index("install"))
    assert (world.running[Ring.CANARY] == 2) == (reached >= PHASES.index("canary"))
    assert (world.now >= started + world.secret().bake) == (reached >= PHASES.index("observe"))
    assert (world.running[Ring.STABLE] == 2) == (reached >= PHASES.index("deploy"))


def test_a_run_that_stopped_at_a_phase_goes_on_from_there(world: World) -> None:
    for phase in PHASES[:-2]:
        world.run(Request(until=phase, wait=PATIENT))
    assert ended(world.run(ROTATE)) == (Ending.PROMOTED, 2)
    assert len(world.slot.values) == 2


def test_a_phase_does_not_hold_up_the_undoing_of_what_went_further(world: World) -> None:
    world.run(Request(until="canary", wait=PATIENT))
    world.faults.bad_under[Ring.CANARY] = {2}
    assert ended(world.run(Request(until="stage", wait=PATIENT))) == (Ending.ROLLED_BACK, 1)
    world.require_quiet()


def test_a_phase_does_not_hold_up_the_retirement_of_what_is_in_the_way(world: World) -> None:
    world.run(ROTATE)
    world.run(Request(until="stage", wait=PATIENT))
    assert (world.slot.previous, world.slot.pending) == (None, 3)


# Purposes


def test_resuming_starts_nothing(world: World) -> None:
    assert ended(world.run(RESUME)) == (Ending.UNCHANGED, 1)
    assert world.slot.pending is None
    assert world.trail()[-1] == "promoted"


def test_resuming_finishes_what_is_in_flight(world: World) -> None:
    world.run(AT_ONCE)
    assert ended(world.run(RESUME)) == (Ending.PROMOTED, 2)


def test_retiring_does_nothing_for_a_rotation_in_flight(world: World) -> None:
    world.run(Request(until="canary", wait=PATIENT))
    wait = decision(world.run(RETIRE))
    assert isinstance(wait, Wait)
    assert "finish it with `keyturn rotate`" in wait.reason
    assert world.running == {Ring.CANARY: 2, Ring.STABLE: 1}


def test_a_session_with_the_old_one_keeps_it_and_restarts_its_grace_window(world: World) -> None:
    world.run(ROTATE)
    world.now += timedelta(hours=1)
    world.principals["a"].sessions = 1
    wait = decision(world.run(Request(Purpose.RETIRE)))
    assert isinstance(wait, Wait)
    assert "1 open sessions" in wait.reason
    world.principals["a"].sessions = 0
    wait = decision(world.run(Request(Purpose.RETIRE)))
    assert isinstance(wait, Wait)
    assert wait.until == world.now + world.secret().grace
    assert ended(world.run(RETIRE)) == (Ending.UNCHANGED, 2)
    assert world.principals["a"].password is None


def test_the_sessions_of_a_login_that_is_replaced_in_place_keep_nothing(folder: Path) -> None:
    world = fresh(folder, Strategy.SINGLE)
    world.run(ROTATE)
    for principal in world.principals.values():
        principal.sessions = 1
    assert ended(world.run(RETIRE)) == (Ending.UNCHANGED, 2)
    assert world.slot.previous is None


def test_a_target_that_cannot_say_who_uses_the_old_one_keeps_it(world: World) -> None:
    world.run(ROTATE)
    world.now += timedelta(hours=1)
    world.hook = fail_once("target.usage", Unavailable("statistics are off"))
    wait = decision(world.run(Request(Purpose.RETIRE)))
    assert isinstance(wait, Wait)
    assert "cannot say who uses it" in wait.reason


def test_a_rollback_before_anything_is_staged_ends_the_rotation(world: World) -> None:
    world.run(ROTATE)
    assert isinstance(decision(world.run(AT_ONCE)), Wait)  # for the grace window of generation 1
    assert ended(world.run(ROLL_BACK)) == (Ending.ROLLED_BACK, 2)
    assert world.slot.previous == 1


def test_a_rollback_replaces_no_candidate_that_the_target_denied(world: World) -> None:
    world.faults.ignored_installs[2] = 99
    world.hook = fail_once("store.discard", StoreError("no"))
    assert world.run(ROTATE).error is not None
    assert ended(world.run(ROLL_BACK)) == (Ending.ROLLED_BACK, 1)
    assert set(world.slot.values) == {1, 2}


def test_a_rollback_that_the_promotion_overtook_brings_the_old_value_back(world: World) -> None:
    world.hook = fail_once("store.promote: move", Unavailable("the connection is lost"))
    assert world.run(ROTATE).error is not None
    assert ended(world.run(ROLL_BACK)) == (Ending.PROMOTED, 3)
    assert world.slot.values[3] == world.slot.values[1]
    assert world.trail().count("promoted") == 3


def test_a_rollback_without_its_journal_is_still_one(world: World) -> None:
    world.run(ROTATE)
    world.run(Request(Purpose.ROLL_BACK))
    world.lose_journal()
    assert ended(world.run(ROLL_BACK)) == (Ending.PROMOTED, 3)
    assert world.slot.values[3] == world.slot.values[1]


def test_a_rollback_to_what_is_retired_is_refused_with_the_way_forward(world: World) -> None:
    world.run(ROTATE)
    world.run(RETIRE)
    error = world.run(ROLL_BACK).error
    assert isinstance(error, StoreError)
    assert "the generation before the current one is retired" in str(error)
    assert "keyturn rotate" in error.remedy


def test_a_rollback_whose_value_is_retired_meanwhile_ends_and_does_not_block_the_next_rotation(world: World) -> None:
    world.run(ROTATE)
    world.hook = fail_once("store.stage", Unavailable("the store is down"))
    assert world.run(ROLL_BACK).error is not None
    world.run(RETIRE)
    assert world.slot.previous is None
    assert ended(world.run(ROTATE)) == (Ending.PROMOTED, 3)
    assert world.slot.values[3] not in (world.slot.values[1], world.slot.values[2])


def test_a_late_runner_cannot_revoke_what_was_brought_back(world: World) -> None:
    """It had decided to retire generation 1, and slept; since then generation 3 carries generation 1's value."""
    world.run(ROTATE)
    world.now += timedelta(hours=1)

    def sleep(runner: str, call: str, side: Side) -> None:
        if runner == "sleeper" and call == "target.revoke" and side == "before":
            assert ended(world.run(ROLL_BACK, "other", world.project / "other.sqlite3")) == (Ending.PROMOTED, 3)

    world.hook = sleep
    assert world.run(RETIRE, "sleeper").error is None
    assert world.slot.current == 3
    assert world.parts[NAME].accepts(3)


# First values


def test_a_first_value_is_made_only_when_it_is_asked_for(folder: Path) -> None:
    world = World(folder)
    error = world.run(ROTATE).error
    assert isinstance(error, UsageError)
    assert "--initialize" in error.remedy
    assert world.slot.values == {}


# What goes wrong


def test_nothing_is_started_while_the_target_is_down(world: World) -> None:
    world.faults.target_down = True
    assert isinstance(world.run(ROTATE).error, Unavailable)
    assert world.slot.pending is None
    assert world.trail()[-1] == "promoted"


def test_a_target_that_goes_down_midway_is_waited_for_and_blocks_in_the_end(world: World) -> None:
    world.run(Request(until="canary", wait=PATIENT))
    world.faults.target_down = True
    started = world.now
    blocked = decision(world.run(ROTATE))
    assert isinstance(blocked, Blocked)
    assert "nothing was revoked" in blocked.reason
    assert world.now >= started + world.secret().patience
    assert world.trail()[-1] == "blocked"
    world.faults.target_down = False
    assert ended(world.run(ROTATE)) == (Ending.PROMOTED, 2)


def test_signals_that_say_nothing_block_and_promote_nothing(world: World) -> None:
    world.faults.silent_signals = True
    blocked = decision(world.run(ROTATE))
    assert isinstance(blocked, Blocked)
    assert "no clear verdict" in blocked.reason
    assert world.slot.current == 1
    world.faults.silent_signals = False
    assert ended(world.run(ROTATE)) == (Ending.PROMOTED, 2)


def test_an_application_that_never_reloads_blocks_and_loses_nothing(world: World) -> None:
    world.reload_delay = None
    blocked = decision(world.run(ROTATE))
    assert isinstance(blocked, Blocked)
    assert "though generation 2 of orders/db is deployed" in blocked.reason
    assert isinstance(decision(world.run(Request(Purpose.ROLL_BACK, wait=PATIENT))), Done)
    world.deployed[CONSUMER, Ring.CANARY] = {NAME: 1}
    world.require_quiet()


@pytest.mark.parametrize(
    "call", ["store.stage", "target.install", "deploy.apply", "store.promote: claim", "store.promote: clear"]
)
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_call_that_fails_ends_the_run_and_the_next_run_goes_on(world: World, call: str, side: Side) -> None:
    world.hook = fail_once(call, DeployError("the network is down"), side)
    assert isinstance(world.run(ROTATE).error, DeployError)
    assert "network" in world.trail_details()[-1]
    assert ended(world.run(ROTATE)) == (Ending.PROMOTED, 2)
    world.require_quiet()


def test_an_act_whose_intent_cannot_be_recorded_does_not_happen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(journal: Journal, secret: str, generation: int, act: Act, ring: Ring | None = None) -> int:
        raise JournalError("the disk is full")

    monkeypatch.setattr(Journal, "intend", full)
    with pytest.raises(JournalError, match="the disk is full"):
        world.run(ROTATE)
    assert set(world.slot.values) == {1}


def test_an_undo_that_fails_stops_and_is_on_record(folder: Path) -> None:
    world = fresh(folder, Strategy.SINGLE)
    world.faults.lacks[2] = ("SELECT on orders",)
    world.faults.ignored_installs[1] = 99
    error = world.run(ROTATE).error
    assert error is not None
    assert "restore of generation 1 of orders/db was done 5 times and shows no effect" in str(error)
    assert world.trail()[-1] == "undo failed"


def test_pins_that_somebody_edited_to_what_is_not_there_are_refused_and_nothing_is_changed(world: World) -> None:
    pins = pins_file.load(world.project / PINS).with_(CONSUMER, Ring.STABLE, NAME, 9)
    pins_file.write(world.project / PINS, pins)
    before = world.snapshot()
    with pytest.raises(DeclarationError, match="generation 9 of orders/db, which the store does not hold"):
        world.run(ROTATE)
    assert world.snapshot() == before


def test_pins_that_somebody_else_moves_are_not_overwritten(world: World) -> None:
    """Another runner takes the candidate back while this one is about to pin it."""

    def move(runner: str, call: str, side: Side) -> None:
        if runner == "one" and call == "signal.running" and side == "after" and world.slot.pending == 2:
            world.hook = no_hook
            world.run(Request(until="canary", wait=PATIENT), "other", world.project / "other.sqlite3")

    world.run(Request(until="test", wait=PATIENT))
    world.hook = move
    assert ended(world.run(ROTATE, "one")) == (Ending.PROMOTED, 2)
    assert "overtaken" in {event.what for event in world.events}


def test_a_pin_to_what_is_discarded_meanwhile_is_taken_back(world: World) -> None:
    world.run(Request(until="test", wait=PATIENT))
    looks = 0

    def discard(runner: str, call: str, side: Side) -> None:
        nonlocal looks
        if runner == "one" and pins_file.load(world.project / PINS).of(CONSUMER, Ring.CANARY, NAME) == 2 and not looks:
            looks += 1
            world.slot.undecided, world.slot.pending = 1, None
            world.slot.rejected.add(2)
            world.principals["b"].password = None

    world.hook = discard
    world.run(ROTATE, "one")
    assert looks == 1
    world.require_quiet()


def test_the_deployment_is_looked_at_again_before_anything_is_revoked(folder: Path) -> None:
    """Since this run began, another one deployed the candidate, took its pin back, and died; and nobody reports."""
    world = fresh(folder, tells_running=False)
    world.run(Request(until="test", wait=PATIENT))
    others_journal = world.project / "other.sqlite3"

    def die(runner: str, call: str, side: Side) -> None:
        if call == "deploy.apply" and side == "before":
            raise Killed

    def meddle(runner: str, call: str, side: Side) -> None:
        world.hook = no_hook
        world.run(Request(until="canary", wait=PATIENT), "other", others_journal)
        world.faults.bad_under[Ring.CANARY] = {2}
        world.hook = die
        with pytest.raises(Killed):
            world.run(ROTATE, "other", others_journal)
        world.hook = no_hook

    world.hook = lambda runner, call, side: meddle(runner, call, side) if call == "store.observe" else None
    assert ended(world.run(ROTATE, "one")) == (Ending.ROLLED_BACK, 1)
    world.require_quiet()


def test_what_a_dead_run_had_begun_is_said_by_the_next(world: World) -> None:
    def die(runner: str, call: str, side: Side) -> None:
        if call == "store.stage":
            raise Killed

    world.hook = die
    with pytest.raises(Killed):
        world.run(ROTATE)
    world.hook = no_hook
    world.run(ROTATE)
    said = [event.detail for event in world.events if event.what == "resumes"]
    assert [text.split(" begun")[0] for text in said] == ["an earlier run died in: stage of generation 2"]
    assert any(detail.startswith("interrupted") for detail in world.trail_details())


# Somebody else deploys


def test_a_deployment_by_somebody_else_is_waited_for_and_then_noticed(world: World) -> None:
    outside = replace(ROTATE, outside=True)
    for ring in Ring:
        wait = decision(world.run(outside))
        assert isinstance(wait, Wait)
        assert wait.outside
        assert f"orders-api ({ring})" in wait.reason
        assert "deploy.apply" not in world.calls
        deploy_pins(world)
    assert ended(world.run(outside)) == (Ending.PROMOTED, 2)


def deploy_pins(world: World) -> None:
    """What `cdktf deploy` in a pipeline does."""
    pins = pins_file.load(world.project / PINS)
    for consumer, ring in pins.places():
        world.deployed[consumer, ring] = dict(pins.at(consumer, ring))
        world.reloads[ring] = world.now


# Several secrets


THREE = (NAME, "orders/api", "orders/cache")


@pytest.fixture
def three(folder: Path) -> World:
    return fresh(folder, names=THREE)


def test_secrets_that_share_a_consumer_share_its_deployments(three: World) -> None:
    results = three.run_all(THREE, ROTATE)
    assert {name: ended(result) for name, result in results.items()} == dict.fromkeys(THREE, (Ending.PROMOTED, 2))
    assert three.calls.count("deploy.apply") == len(Ring)
    three.require_quiet()


def test_the_trouble_of_one_secret_leaves_the_others_going(three: World) -> None:
    three.parts["orders/api"].faults.target_down = True
    results = three.run_all(THREE, ROTATE)
    assert isinstance(results["orders/api"].error, Unavailable)
    assert ended(results[NAME]) == ended(results["orders/cache"]) == (Ending.PROMOTED, 2)
    assert three.parts["orders/api"].slot.current == 1


def test_a_secret_that_its_store_withholds_fails_with_its_neighbours_and_holds_up_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = World(folder, names=THREE).manifest
    sharing = declared.consumers[CONSUMER].model_copy(update={"secrets": THREE[:2]})
    manifest = declared.model_copy(update={"consumers": {CONSUMER: sharing}})
    monkeypatch.setattr(World, "manifest", property(lambda _: manifest))
    world = fresh(folder, names=THREE)
    world.parts[THREE[1]].faults.withheld = True
    results = world.run_all(THREE, ROTATE)
    assert str(results[THREE[0]].error) == str(results[THREE[1]].error) == f"{THREE[1]} is disabled"
    assert ended(results[THREE[2]]) == (Ending.PROMOTED, 2)
    assert [world.parts[name].slot.current for name in THREE] == [1, 1, 2]
    world.parts[THREE[1]].faults.withheld = False
    results = world.run_all(THREE[:2], ROTATE)
    assert {name: ended(result) for name, result in results.items()} == dict.fromkeys(THREE[:2], (Ending.PROMOTED, 2))


def test_what_its_store_begins_to_withhold_in_the_middle_of_a_rotation_is_gone_on_with(three: World) -> None:
    three.run_all(THREE, Request(until="canary", wait=PATIENT))
    three.parts["orders/api"].faults.withheld = True
    assert all(isinstance(result.error, StoreError) for result in three.run_all(THREE, RESUME).values())
    three.parts["orders/api"].faults.withheld = False
    results = three.run_all(THREE, RESUME)
    assert {name: ended(result) for name, result in results.items()} == dict.fromkeys(THREE, (Ending.PROMOTED, 2))
    three.require_quiet()


def test_a_secret_that_breaks_midway_leaves_the_others_going(three: World) -> None:
    three.hook = fail_once("target.install", StoreError("no"))
    results = three.run_all(THREE, ROTATE)
    assert sorted(type(result.error).__name__ for result in results.values()) == ["NoneType", "NoneType", "StoreError"]


def test_one_bad_secret_is_rolled_back_and_the_others_are_promoted(three: World) -> None:
    three.parts["orders/api"].faults.bad_under[Ring.CANARY] = {2}
    results = three.run_all(THREE, ROTATE)
    assert ended(results["orders/api"]) == (Ending.ROLLED_BACK, 1)
    assert ended(results[NAME]) == ended(results["orders/cache"]) == (Ending.PROMOTED, 2)
    three.require_quiet()


def test_first_values_of_a_consumer_are_deployed_together(folder: Path) -> None:
    world = World(folder, names=THREE)
    world.run_all(THREE[:2], Request(initialize=True, wait=PATIENT))
    assert "deploy.apply" not in world.calls
    world.run_all(THREE[2:], Request(initialize=True, wait=PATIENT))
    assert world.deployed == {(CONSUMER, ring): dict.fromkeys(THREE, 1) for ring in Ring}


# Values


def test_no_value_is_in_any_file_or_event_of_a_run(world: World) -> None:
    world.faults.lacks[2] = ("SELECT on orders",)
    for request in (ROTATE, ROTATE, ROLL_BACK, RETIRE):
        world.run(request)
    values = [value.reveal() for value in world.slot.values.values()]
    passwords = [world.parts[NAME].content(generation)["password"] for generation in world.slot.values]
    assert len(set(passwords)) >= 3
    left = {path: path.read_bytes() for path in world.project.rglob("*") if path.is_file()}
    assert any(path.name == "journal.sqlite3" for path in left)
    for value in (*values, *passwords):
        for path, content in left.items():
            assert value.encode() not in content, path
        assert all(value not in str(event) for event in world.events)


def test_an_engine_says_nothing_unless_somebody_listens(world: World) -> None:
    engine = world.engine()
    silent = Engine(engine.project, engine.manifest, engine.plugins, engine.journal, clock=world.clock)
    assert silent.run([NAME], RESUME)[NAME].error is None
    engine.journal.close()
