"""Every kind of drift that needs no real server, planted in the simulated world, found, and put right where that is
safe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rotation import pins as pins_file
from rotation.drift import Class, Finding, Way
from rotation.drift.check import Drift, check
from rotation.drift.fixing import Tried, fix
from rotation.drift.memory import SUBJECT
from rotation.drift.scene import PATIENCE
from rotation.engine import Request
from rotation.errors import Unavailable
from rotation.journal import LEASE
from rotation.model import Ring
from rotation.secret_value import SecretValue
from tests.scenarios import RETIRE, ROTATE
from tests.world import CONSUMER, NAME, PATIENT, Killed, Side, World, fresh, memory_folder, no_hook

WAYS = (Way.STORED, Way.LIVE, Way.CONSUMED)
PINS = Path("stacks/pins/test.json")
CANARY, STABLE = f"{CONSUMER}/canary", f"{CONSUMER}/stable"


@pytest.fixture
def world() -> Iterator[World]:
    with memory_folder() as folder:
        made = fresh(folder)
        later(made)
        yield made


def later(world: World) -> None:
    """The clock stands while nobody waits; what is done at one instant is done while somebody looks."""
    world.now += timedelta(seconds=1)


def look(world: World, *ways: Way) -> Drift:
    engine = world.engine("detective")
    try:
        return check(engine, ways or WAYS)
    finally:
        engine.journal.close()


def fixed(world: World) -> tuple[list[Tried], Drift]:
    """Look, put right what can be, and look again."""
    engine = world.engine("detective")
    try:
        tried = fix(engine, check(engine, WAYS).findings, PATIENT)
        later(world)
        return tried, check(engine, WAYS)
    finally:
        engine.journal.close()


def found(drift: Drift) -> dict[str, Class]:
    return {finding.address: finding.found for finding in drift.findings}


def one(drift: Drift) -> Finding:
    (finding,) = drift.findings
    return finding


def kill_after(call: str) -> Callable[[str, str, Side], None]:
    def hook(runner: str, name: str, side: Side) -> None:
        if (name, side) == (call, "after") and runner == "runner":
            raise Killed

    return hook


def die_in(world: World, call: str) -> None:
    """A rotation whose runner is killed right after this call, and whose lease has run out since."""
    world.hook = kill_after(call)
    with pytest.raises(Killed):
        world.run(ROTATE)
    world.hook = no_hook
    world.now += LEASE + timedelta(seconds=1)


def repin(world: World, ring: Ring, generation: int | None) -> None:
    path = world.project / PINS
    pins_file.write(path, pins_file.load(path).with_(CONSUMER, ring, NAME, generation))


def turned(world: World) -> None:
    """To generation 2, with nothing left of the first."""
    world.run(ROTATE)
    world.now += timedelta(hours=1)
    world.run(RETIRE)
    world.require_quiet()
    later(world)


# Nothing is wrong


def test_a_quiet_world_has_no_drift(world: World) -> None:
    drift = look(world)
    assert drift.findings == ()
    assert drift.exit_code == 0


def test_a_look_changes_nothing(world: World) -> None:
    world.slot.values[9], world.slot.pending = SecretValue("9"), 9
    before = world.snapshot()
    look(world)
    assert world.snapshot() == before
    assert not {"store.stage", "store.discard", "target.install", "deploy.apply"}.intersection(world.calls)


# Rotations under way are no drift


def test_a_rotation_that_waits_for_its_next_run_is_expected(world: World) -> None:
    world.run(Request(until="canary"))
    assert found(look(world)) == {f"stored:{NAME}:pending": Class.EXPECTED}
    assert look(world).exit_code == 0


def test_a_look_in_the_middle_of_any_step_of_a_rotation_finds_no_drift(world: World) -> None:
    looks: list[Drift] = []

    def hook(runner: str, call: str, side: Side) -> None:
        if runner == "runner" and side == "after":
            looks.append(look(world))

    world.hook = hook
    world.run(ROTATE)
    assert len(looks) > 10
    assert {drift.exit_code for drift in looks} == {0}


def test_a_rotation_that_ends_while_it_is_looked_at_is_no_drift(world: World) -> None:
    """The stores are asked first; by the time that the rings are asked, everything has moved on."""

    def hook(runner: str, call: str, side: Side) -> None:
        if (runner, call, side) == ("detective", "deploy.deployed", "before") and "store.stage" not in world.calls:
            world.run(ROTATE)

    world.hook = hook
    drift = look(world)
    assert "store.stage" in world.calls
    assert drift.exit_code == 0, found(drift)


def test_a_kept_previous_generation_is_expected(world: World) -> None:
    world.run(ROTATE)
    assert found(look(world)) == {f"stored:{NAME}:previous": Class.EXPECTED}


# Stored


@pytest.mark.parametrize("call", ["store.stage", "target.install", "deploy.apply"])
def test_a_rotation_whose_runner_died_is_found_and_finished(world: World, call: str) -> None:
    die_in(world, call)
    finding = next(f for f in look(world).findings if f.address == f"stored:{NAME}:pending")
    assert (finding.found, finding.what) == (Class.UNEXPECTED, "generation 2 is pending, and its runner died")
    tried, after = fixed(world)
    assert f"stored:{NAME}:pending" in {one.address for one in tried}
    assert after.exit_code == 0
    assert (world.slot.current, world.running) == (2, dict.fromkeys(Ring, 2))


def test_a_rejected_candidate_whose_runner_died_is_discarded(world: World) -> None:
    world.faults.lacks[2] = ("SELECT on orders",)
    die_in(world, "store.reject")
    assert "generation 2 is being rolled back, and its runner died" in {f.what for f in look(world).findings}
    _, after = fixed(world)
    assert after.findings == ()
    assert (world.slot.current, world.slot.pending) == (1, None)
    world.require_quiet()


def test_a_rotation_that_nobody_goes_on_with_is_stuck_after_a_day(world: World) -> None:
    world.run(Request(until="canary"))
    world.now += PATIENCE + timedelta(minutes=5)
    finding = one(look(world))
    assert finding.found is Class.UNEXPECTED
    assert "longer than its rotation takes" in finding.what


def test_a_pending_version_that_no_journal_knows_is_stuck(world: World) -> None:
    world.run(Request(until="test"))
    world.lose_journal()
    assert found(look(world)) == {f"stored:{NAME}:pending": Class.UNEXPECTED}
    assert fixed(world)[1].exit_code == 0
    assert world.slot.current == 2


def test_a_leftover_pending_label_is_taken_away(world: World) -> None:
    turned(world)
    world.slot.pending = 1
    assert "generation 1 is still marked pending" in one(look(world)).what
    assert fixed(world)[1].findings == ()
    assert world.slot.pending is None
    world.require_quiet()


def test_a_generation_that_is_pinned_and_gone_goes_back_to_what_is_deployed(world: World) -> None:
    turned(world)
    repin(world, Ring.STABLE, 7)
    drift = look(world)
    assert found(drift)[f"stored:{NAME}:generation-7"] is Class.DELETED
    assert f"pinned or deployed at {STABLE}" in drift.findings[0].what + drift.findings[-1].what
    tried, after = fixed(world)
    assert [(one.address, one.problem) for one in tried if one.did == "re-pin"] == [(f"stored:{NAME}:generation-7", "")]
    assert after.findings == ()
    world.require_quiet()


def test_a_deployed_generation_that_is_gone_is_left_by_the_canary_first(world: World) -> None:
    turned(world)
    world.slot.values[3] = world.slot.values[2]
    world.slot.current = 3  # somebody moved on, and dropped what everybody uses
    drift = look(world, Way.STORED)
    assert found(drift) == {f"stored:{NAME}:generation-2": Class.DELETED}
    world.calls.clear()
    world.parts[NAME].installed[3] = world.parts[NAME].installed[2]
    _, after = fixed(world)
    assert after.exit_code == 0
    assert world.calls.count("deploy.apply") == 2
    assert world.running == dict.fromkeys(Ring, 3)


def test_a_slot_that_is_gone_is_deleted_and_left_to_a_person(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from rotation.model import StoreView
    from tests.world_plugins import WorldStore

    monkeypatch.setattr(WorldStore, "observe", lambda *_, **__: {NAME: StoreView(NAME, exists=False)})
    finding = one(look(world, Way.STORED))
    assert (finding.address, finding.found, finding.fix) == (f"stored:{NAME}:slot", Class.DELETED, None)


# Live


def test_a_current_generation_that_the_target_denies_is_left_to_a_person(world: World) -> None:
    turned(world)
    world.check = lambda: None  # type: ignore[method-assign]  # what must always hold does not: that is the plant
    world.principals["b"].password = "changed by hand"
    finding = one(look(world))
    assert (finding.address, finding.found, finding.fix) == (f"live:{NAME}:current", Class.UNEXPECTED, None)
    assert "denies generation 2" in finding.what


def test_a_target_that_cannot_be_asked_is_no_drift(world: World) -> None:
    world.faults.target_down = True
    drift = look(world)
    assert found(drift) == {f"live:{NAME}:check": Class.UNCHECKED}
    assert drift.exit_code == 1


def test_a_store_that_cannot_be_asked_leaves_nothing_to_say(world: World) -> None:
    def hook(runner: str, call: str, side: Side) -> None:
        if call == "store.observe":
            raise Unavailable("the store is down")

    world.hook = hook
    drift = look(world)
    assert {address.partition(":")[0] for address in found(drift)} == set(WAYS)
    assert set(found(drift).values()) == {Class.UNCHECKED}


def test_a_secret_that_its_store_withholds_leaves_just_that_unchecked() -> None:
    with memory_folder() as folder:
        world = fresh(folder, names=(NAME, "orders/api"))
        later(world)
        world.parts["orders/api"].faults.withheld = True
        drift = look(world)
        assert set(found(drift).values()) == {Class.UNCHECKED}
        assert "stored:orders/api:check" in found(drift)
        assert not any(NAME in finding.secrets for finding in drift.findings if finding.way is not Way.CONSUMED)
        assert drift.exit_code == 1


# Consumed


def test_a_pin_that_was_set_back_by_hand_is_brought_forward(world: World) -> None:
    world.run(ROTATE)
    later(world)
    repin(world, Ring.STABLE, 1)
    assert found(look(world)) == {
        f"stored:{NAME}:previous": Class.EXPECTED,
        f"consumed:{STABLE}:pin:{NAME}": Class.UNEXPECTED,
        f"consumed:{STABLE}:deployed:{NAME}": Class.UNEXPECTED,
        "consumed:stacks/config/rendered/test/stable/orders-api.yaml:rendered": Class.UNEXPECTED,
    }
    _, after = fixed(world)
    assert found(after) == {f"stored:{NAME}:previous": Class.EXPECTED}
    assert world.running == dict.fromkeys(Ring, 2)


def test_a_ring_that_runs_something_else_is_found_and_waited_for(world: World) -> None:
    world.run(ROTATE)
    later(world)
    world.running[Ring.CANARY] = 1
    assert found(look(world))[f"consumed:{CANARY}:running:{NAME}"] is Class.UNEXPECTED
    tried, after = fixed(world)
    assert after.exit_code == 2, "only the application can take it up"
    (attempt,) = tried
    assert "orders-api (canary) runs generation 1" in attempt.problem


def test_a_ring_that_does_not_say_what_it_runs_could_not_be_checked(world: World) -> None:
    world.running.clear()
    drift = look(world)
    assert set(found(drift).values()) == {Class.UNCHECKED}
    assert drift.exit_code == 1


def test_a_ring_whose_signals_never_say_what_runs_is_compared_as_far_as_that_goes() -> None:
    with memory_folder() as folder:
        assert look(fresh(folder, tells_running=False)).findings == ()


def test_a_rendered_file_that_was_edited_is_regenerated(world: World) -> None:
    path = world.project / "stacks/config/rendered/test/canary/orders-api.yaml"
    right = path.read_bytes()
    path.write_text("by: hand\n")
    finding = one(look(world))
    assert finding.address == "consumed:stacks/config/rendered/test/canary/orders-api.yaml:rendered"
    _, after = fixed(world)
    assert after.findings == ()
    assert path.read_bytes() == right
    assert "drift: re-render" in world.trail()


def test_a_template_that_cannot_be_rendered_could_not_be_checked(world: World) -> None:
    (world.project / f"stacks/config/{CONSUMER}.yaml.j2").write_text("{{ secretz }}")
    assert found(look(world)) == {f"consumed:{place}:check": Class.UNCHECKED for place in (CANARY, STABLE)}


def test_pins_of_what_is_not_declared_are_found(world: World) -> None:
    path = world.project / PINS
    pins_file.write(path, pins_file.load(path).with_("billing-api", Ring.STABLE, NAME, 1))
    finding = one(look(world, Way.CONSUMED))
    assert finding.address == f"consumed:{PINS}:undeclared"
    assert "billing-api" in finding.what


def test_pins_that_cannot_be_read_could_not_be_checked(world: World) -> None:
    (world.project / PINS).write_text("{")
    drift = look(world)
    assert found(drift) == {f"consumed:{PINS}:check": Class.UNCHECKED}


# Since when


def test_a_finding_keeps_the_time_when_it_was_first_seen_until_it_is_gone(world: World) -> None:
    path = world.project / "stacks/config/rendered/test/canary/orders-api.yaml"
    right, first = path.read_bytes(), world.now
    for passes in (0, 1):
        path.write_text("by: hand\n")
        assert one(look(world)).since == first + passes * timedelta(hours=2)
        world.now += timedelta(hours=1)
        assert one(look(world)).since == first + passes * timedelta(hours=2)
        assert look(world, Way.LIVE).findings == ()  # another way forgets nothing
        assert one(look(world)).since == first + passes * timedelta(hours=2)
        path.write_bytes(right)
        assert look(world).findings == ()
        world.now += timedelta(hours=1)


def test_what_cannot_be_checked_for_a_while_is_not_forgotten(world: World) -> None:
    turned(world)
    world.check = lambda: None  # type: ignore[method-assign]  # what must always hold does not: that is the plant
    world.principals["b"].password, first = "changed by hand", world.now
    assert one(look(world)).since == first
    world.now += timedelta(hours=1)
    world.faults.target_down = True
    assert one(look(world)).found is Class.UNCHECKED
    world.faults.target_down = False
    assert one(look(world)).since == first


def test_the_journal_keeps_what_was_found_last(world: World) -> None:
    repin(world, Ring.STABLE, 7)
    look(world)
    engine = world.engine()
    kept = engine.journal.notes(SUBJECT)
    engine.journal.close()
    assert json.loads(kept[f"stored:{NAME}:generation-7"].detail)["class"] == "deleted"


# What stands in the way


def test_a_secret_that_another_runner_holds_is_left_alone(world: World) -> None:
    engine, other = world.engine("detective"), world.engine("other")
    repin(world, Ring.STABLE, 7)
    drift = check(engine, WAYS)
    before = (world.project / PINS).read_bytes()
    with other.journal.lease([NAME]):
        tried = fix(engine, drift.findings, timedelta(0))
    assert all("another runner" in one.problem for one in tried)
    assert (world.project / PINS).read_bytes() == before
    for each in (engine, other):
        each.journal.close()
