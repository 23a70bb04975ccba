"""What a compromised system could read, in which order it is turned, and that its old values die: in the simulated
world, also when the runner is killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from rotation import incident
from rotation.engine import Purpose, Request
from rotation.errors import DeclarationError, StoreError, UsageError
from rotation.exit_codes import FAILED
from rotation.incident_report import IGNORED, Report, State
from rotation.journal import Journal
from rotation.manifest import Consumer, Manifest, Plugin, Rehearsal, Secret
from rotation.model import Ring
from rotation.session import exit_code
from tests.scenarios import ROLL_BACK, ROTATE
from tests.world import NAME, PATIENT, Killed, Part, Side, World, memory_folder, no_hook

ADMIN, TOKEN = "orders/admin", "orders/token"
READER = "arn:aws:iam::123456789012:role/orders-api"


@dataclass
class Estate(World):
    """A world whose secrets have readers, and are made with each other."""

    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rehearsal: Rehearsal | None = None

    def secret(self, name: str = NAME) -> Secret:
        known = {"readers": self.readers.get(name, (READER,)), "reads": self.reads.get(name, ())}
        return super().secret(name).model_copy(update=known)

    @property
    def manifest(self) -> Manifest:
        return super().manifest.model_copy(update={"rehearsal": self.rehearsal})

    def respond(self, system: str = "orders-api", runner: str = "runner", wait: timedelta = PATIENT) -> Report:
        engine = self.engine(runner)
        try:
            return incident.respond(engine, [incident.begin(engine, system)], outside=False, wait=wait)
        finally:
            engine.journal.close()

    def close(self, system: str = "orders-api") -> Report:
        engine = self.engine()
        try:
            standing = incident.find(engine.manifest, engine.journal, system)
            assert standing is not None
            return incident.close(engine, [standing])
        finally:
            engine.journal.close()

    def audit(self) -> list[tuple[str, str, str]]:
        with Journal(self.journal, self.clock) as journal:
            return [(entry.secret, entry.event, entry.detail) for entry in journal.trail()]


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


@pytest.fixture
def world(folder: Path) -> Estate:
    return begun(folder)


def begun(folder: Path, names: tuple[str, ...] = (NAME, TOKEN), **settings: object) -> Estate:
    """An estate whose secrets have their first generation in use."""
    estate = Estate(folder, names=names, **settings)  # type: ignore[arg-type]
    rehearsal, estate.rehearsal = estate.rehearsal, None
    for name, result in estate.run_all(names, Request(initialize=True, wait=PATIENT)).items():
        assert result.error is None, result
        assert estate.parts[name].slot.current == 1
    estate.rehearsal = rehearsal
    estate.now += timedelta(days=1)
    return estate


def require_turned(world: Estate, report: Report, current: int = 2) -> None:
    """Every secret has a new value that everybody uses, and nothing lets the old one in."""
    assert report.over, report.text()
    assert {line.state for line in report.lines} == {State.RETIRED}
    world.require_quiet()
    for part in world.parts.values():
        assert (part.slot.current, part.slot.previous) == (current, None)
        assert sum(principal.password is not None for principal in part.principals.values()) == 1


# What a system could read


def manifest(*secrets: tuple[str, tuple[str, ...], tuple[str, ...]], holds: tuple[str, ...] = ()) -> Manifest:
    """Secrets by name, readers and what their kinds read, and a consumer that holds some."""
    plugin = Plugin(kind="world")
    base = {"store": plugin, "credential": plugin, "strategy": "alternating"}
    paces = {"bake": 0, "settle": 0, "patience": 0, "grace": 0}
    declared = {
        name: Secret.model_validate({"name": name, "stored_as": name, "readers": by, "reads": reads, **base, **paces})
        for name, by, reads in secrets
    }
    consumer = Consumer(
        name="holder", template=Path("t.j2"), format="yaml", secrets=holds, target=Plugin(kind="world"), rings={}
    )
    return Manifest(
        environment="test",
        order=0,
        sources="",
        pins=Path("pins.json"),
        secrets=declared,
        consumers={"holder": consumer} if holds else {},
    )


def test_a_system_is_a_reader_in_full_or_by_the_last_part_of_its_path_or_a_consumer() -> None:
    declared = manifest(("a", (READER,), ()), ("b", (), ()), ("c", ("role/other",), ()), holds=("b",))
    assert incident.reach(declared, READER) == {"a": f"read by {READER}"}
    assert incident.reach(declared, "orders-api") == {"a": f"read by {READER}"}
    assert incident.reach(declared, "holder") == {"b": "held by holder"}


@pytest.mark.parametrize("name", ["orders", "role", "", "123456789012:role/orders-api"])
def test_an_unknown_system_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(UsageError, match=f"known: {READER}, holder"):
        incident.reach(manifest(("a", (READER,), ()), ("b", (), ()), holds=("b",)), name)


def test_what_is_made_with_a_secret_in_reach_is_in_reach_at_any_distance_and_not_the_other_way_round() -> None:
    declared = manifest(
        ("admin", ("ops",), ()), ("db", ("app",), ("admin",)), ("copy", ("batch",), ("db",)), ("other", ("ops2",), ())
    )
    assert incident.reach(declared, "ops") == {
        "admin": "read by ops",
        "db": "made with admin",
        "copy": "made with db",
    }
    assert set(incident.reach(declared, "app")) == {"db", "copy"}


def test_makers_come_first_and_those_that_do_not_depend_on_each_other_together() -> None:
    declared = manifest(("a", ("x",), ("c",)), ("b", ("x",), ("c",)), ("c", ("x",), ()), ("d", ("x",), ("a", "b")))
    sorter = incident.in_order(declared, declared.secrets)
    waves = []
    while wave := sorter.get_ready():
        waves.append(set(wave))
        sorter.done(*wave)
    assert waves == [{"c"}, {"a", "b"}, {"d"}]


def test_secrets_that_are_made_with_each_other_are_refused_and_one_made_with_itself_is_not() -> None:
    with pytest.raises(DeclarationError, match="made with each other: "):
        incident.in_order(manifest(("a", ("x",), ("b",)), ("b", ("x",), ("a",))), ["a", "b"])
    assert incident.in_order(manifest(("a", ("x",), ("a",))), ["a"]).get_ready() == ("a",)


def test_what_no_stack_declares_is_left_to_people_by_name() -> None:
    declared = manifest(("a", ("x",), ("root", "b")), ("b", ("x",), ("root",)))
    assert incident.undeclared(declared, ["a", "b"]) == {"root": ("a", "b")}


# Turning


def test_everything_is_turned_once_and_no_old_value_lets_anybody_in(world: Estate) -> None:
    for part in world.parts.values():
        part.principals["a"].sessions = 3
    report = world.respond()
    require_turned(world, report)
    assert [(line.secret, line.old, line.new) for line in report.lines] == [(NAME, 1, 2), (TOKEN, 1, 2)]
    assert all(part.principals["a"].sessions == 0 for part in world.parts.values())
    assert report.took < timedelta(minutes=5), "it waits for no grace window"


def test_the_audit_trail_says_what_began_and_what_was_ignored(world: Estate) -> None:
    world.respond()
    world.close()
    of_incident = [(event, detail) for subject, event, detail in world.audit() if subject == "incident orders-api"]
    assert of_incident[0] == ("incident begins", f"{NAME}, {TOKEN}; {IGNORED}")
    assert of_incident[-1][0] == "incident closed"
    opened = [detail for subject, event, detail in world.audit() if (subject, event) == (NAME, "opened")]
    assert opened[-1] == "incident: compromised orders-api"


def test_a_previous_value_in_its_grace_window_holds_nothing_up(world: Estate) -> None:
    world.run_all(world.names, ROTATE)
    assert world.slot.previous == 1
    world.principals["a"].sessions = 1
    before = world.now
    require_turned(world, world.respond(), current=3)
    assert world.now - before < timedelta(minutes=5)


def test_the_old_value_lives_while_a_ring_does_not_run_the_new_one(world: Estate) -> None:
    world.reload_delay = None
    report = world.respond()
    assert {line.state for line in report.lines} == {State.FAILED}
    assert all("is deployed; nothing was revoked" in line.why and line.remedy for line in report.lines)
    assert all(part.accepts(1) for part in world.parts.values())
    world.reload_delay = timedelta(0)
    world.reloads = dict.fromkeys(Ring, world.now)
    require_turned(world, world.respond())


def test_one_that_is_turned_down_is_said_to_be_and_the_others_go_on(folder: Path) -> None:
    world = begun(folder, consumers=False)
    world.faults.lacks[2] = ("SELECT on orders",)
    bad, good = world.respond().lines
    assert (bad.state, bad.new, good.state) == (State.FAILED, None, State.RETIRED)
    assert "turned down" in bad.why
    again = world.respond()
    assert [(line.new, line.state) for line in again.lines] == [(3, State.RETIRED), (2, State.RETIRED)]


def test_a_target_that_is_down_is_said_and_the_next_run_goes_on(folder: Path) -> None:
    world = begun(folder, consumers=False)
    world.faults.target_down = True
    assert [line.state for line in world.respond().lines] == [State.FAILED, State.RETIRED]
    world.faults.target_down = False
    require_turned(world, world.respond())


def test_a_store_that_goes_down_midway_is_in_the_report_of_every_secret(world: Estate) -> None:
    def outage(runner: str, call: str, side: Side) -> None:
        if world.slot.pending is not None and call == "store.observe":
            raise StoreError("the store is down", "Start it.")

    world.hook = outage
    report = world.respond()
    assert {(line.state, line.why, line.remedy) for line in report.lines} == {
        (State.FAILED, "the store is down", "Start it.")
    }
    world.hook = no_hook
    require_turned(world, world.respond())


def test_a_store_that_goes_down_at_the_very_end_is_not_taken_for_success(folder: Path) -> None:
    world = begun(folder, consumers=False)

    def outage(runner: str, call: str, side: Side) -> None:
        if call == "store.observe" and all(
            p.slot.current == 2 and p.slot.previous is None for p in world.parts.values()
        ):
            raise StoreError("the store is down", "Start it.")

    world.hook = outage
    report = world.respond()
    assert not report.over
    assert exit_code(report.results.values(), Purpose.ROTATE) == FAILED
    world.hook = no_hook
    require_turned(world, world.respond())


def test_a_secret_without_a_value_had_nothing_to_read(folder: Path) -> None:
    world = begun(folder, consumers=False)
    world.parts[TOKEN] = Part()
    assert [line.state for line in world.respond().lines] == [State.RETIRED, State.EMPTY]
    assert world.parts[TOKEN].slot.current is None


def test_what_another_runner_holds_is_left_to_it_and_the_others_go_on(folder: Path) -> None:
    world = begun(folder, consumers=False)
    with Journal(world.journal, world.clock) as other, other.lease([TOKEN]):
        free, held = world.respond().lines
    assert (free.state, held.state) == (State.RETIRED, State.FAILED)
    assert "another runner" in held.why
    require_turned(world, world.respond())


def test_a_rehearsal_is_not_asked_for_and_that_is_on_record(folder: Path) -> None:
    world = begun(folder, rehearsal=Rehearsal(environment="staging", within=timedelta(days=1)))
    require_turned(world, world.respond())
    overridden = [detail for subject, event, detail in world.audit() if event == "overridden"]
    assert len(overridden) == len(world.names)
    assert all(detail.startswith("an incident: compromised orders-api (there is no evid") for detail in overridden)


# What was in flight when it began


def test_a_candidate_in_flight_is_taken_back_and_never_becomes_current(world: Estate) -> None:
    world.run(Request(until="observe", wait=PATIENT))
    world.now += timedelta(seconds=1)
    assert world.slot.pending == 2
    report = world.respond()
    assert report.over
    assert world.slot.rejected == {2}
    assert (world.slot.current, world.parts[TOKEN].slot.current) == (3, 2)
    world.require_quiet()


def test_one_whose_promotion_is_decided_is_finished_and_turned_once_more(world: Estate) -> None:
    def die(runner: str, call: str, side: Side) -> None:
        if (call, side) == ("store.promote: claim", "after"):
            raise Killed

    world.hook = die
    with pytest.raises(Killed):
        world.run(ROTATE)
    world.hook = no_hook
    world.now += timedelta(minutes=2)
    assert world.respond().over
    assert world.slot.accepted == {1, 2, 3}
    assert world.slot.current == 3
    world.require_quiet()


@pytest.mark.parametrize("until", ["stage", "test"])
def test_a_return_in_flight_does_not_bring_the_old_value_back_for_good(world: Estate, until: str) -> None:
    world.run(ROTATE)
    world.run(replace(ROLL_BACK, until=until))
    assert world.slot.pending == 3
    world.now += timedelta(seconds=1)
    assert world.respond().over
    assert world.slot.current == 4
    assert world.slot.values[4] not in [world.slot.values[g] for g in (1, 2, 3)]
    world.require_quiet()


def test_a_return_that_has_staged_nothing_is_called_off(world: Estate) -> None:
    world.run(ROTATE)
    with Journal(world.journal, world.clock) as journal:
        journal.open_rotation(NAME, 3, "rolled back by hand", carries=1)
    world.now += timedelta(seconds=1)
    assert world.respond().over
    assert world.slot.current == 3
    assert world.slot.values[3] not in [world.slot.values[g] for g in (1, 2)]


def test_a_return_in_the_middle_of_an_incident_is_not_taken_for_a_new_value(world: Estate) -> None:
    world.respond(wait=timedelta(0))
    world.run_all(world.names, Request(Purpose.RESUME, wait=PATIENT))
    world.run(ROLL_BACK)
    assert world.slot.current == 3
    assert world.respond().over
    assert (world.slot.current, world.parts[TOKEN].slot.current) == (4, 2)


# Makers and made


def made(folder: Path) -> Estate:
    """A login that is made with another one, which alone is in the system's reach."""
    return begun(
        folder,
        names=(ADMIN, NAME),
        consumers=False,
        readers={ADMIN: (READER,), NAME: ("role/else",)},
        reads={NAME: (ADMIN,)},
    )


def test_the_maker_is_turned_and_retired_before_anything_that_is_made_with_it(folder: Path) -> None:
    world = made(folder)
    require_turned(world, world.respond())
    done = [(event.secret, event.what) for event in world.events if event.what in ("stage", "retire")]
    assert done[-4:] == [(ADMIN, "stage"), (ADMIN, "retire"), (NAME, "stage"), (NAME, "retire")]


def test_what_is_made_with_a_maker_that_cannot_be_turned_waits_for_it(folder: Path) -> None:
    world = made(folder)
    world.parts[ADMIN].faults.target_down = True
    maker, other = world.respond().lines
    assert (maker.state, other.state) == (State.FAILED, State.WAITING)
    assert "what it is made with" in other.why
    assert world.slot.current == 1
    world.parts[ADMIN].faults.target_down = False
    require_turned(world, world.respond())


# Again


def test_run_again_it_turns_nothing_again_and_says_since_when(world: Estate) -> None:
    first = world.respond()
    world.now += timedelta(hours=3)
    second = world.respond()
    require_turned(world, second)
    assert second.began == first.began
    assert second.took == first.took, "it does not become longer by looking at it"


def test_closed_the_next_one_begins_anew(world: Estate) -> None:
    world.respond()
    world.now += timedelta(hours=1)
    require_turned(world, world.close())
    report = world.respond()
    require_turned(world, report, current=3)
    assert [line.old for line in report.lines] == [2, 2]


def test_rotations_after_it_is_over_are_none_of_its_business(world: Estate) -> None:
    world.respond()
    world.now += timedelta(hours=1)
    world.run_all(world.names, ROTATE)
    world.run(Request(until="test", wait=PATIENT))
    assert (world.slot.current, world.slot.pending, world.parts[TOKEN].slot.previous) == (3, 4, 2)
    before = world.snapshot()
    assert world.respond().over
    assert world.snapshot() == before
    assert world.close().over


def test_it_is_not_closed_while_an_old_value_lives(world: Estate) -> None:
    world.respond(wait=timedelta(0))
    with pytest.raises(UsageError, match=f"not over: {NAME}, {TOKEN} still") as refused:
        world.close()
    assert "--done" in refused.value.remedy
    require_turned(world, world.respond())


def test_a_second_system_that_joins_later_turns_what_it_could_read_once_more(folder: Path) -> None:
    world = begun(folder, consumers=False, readers={NAME: (READER, "role/batch")})
    world.respond()
    world.now += timedelta(minutes=1)
    engine = world.engine()
    begins = [incident.begin(engine, system) for system in ("orders-api", "batch")]
    report = incident.respond(engine, begins, outside=False, wait=PATIENT)
    engine.journal.close()
    assert report.over
    assert (world.slot.current, world.parts[TOKEN].slot.current) == (3, 2)


def test_a_rotation_since_it_began_counts_whoever_asked_for_it(world: Estate) -> None:
    world.respond(wait=timedelta(0))
    world.run_all(world.names, ROTATE)
    assert world.slot.current == 2
    require_turned(world, world.respond())


# Killed


def play(folder: Path, name: str) -> Estate:
    (folder / name).mkdir()
    world = begun(folder / name, consumers=name != "lonely")
    if name == "in flight":
        world.run(Request(until="test", wait=PATIENT))
        world.now += timedelta(seconds=1)
    world.calls.clear()
    return world


def killed_at(world: Estate, number: int) -> bool:
    """Respond, and die before the call of this number; False when there are fewer."""
    seen = 0

    def die(runner: str, call: str, side: Side) -> None:
        nonlocal seen
        seen += side == "before"
        if seen > number:
            raise Killed

    world.hook = die
    try:
        world.respond()
    except Killed:
        return True
    finally:
        world.hook = no_hook
    return False


@pytest.mark.parametrize("name", ["shared", "lonely", "in flight"])
def test_killed_anywhere_it_ends_with_every_secret_turned_exactly_once_more(folder: Path, name: str) -> None:
    start = play(folder, name)
    expected = {secret: part.slot.pending or 1 for secret, part in start.parts.items()}
    number, died = 0, True
    while died:
        world = start.fork(folder / f"{name} {number}")
        died = killed_at(world, number)
        world.now += timedelta(minutes=2)
        report = world.respond()
        assert report.over, (number, report.text())
        world.require_quiet()
        for secret, part in world.parts.items():
            assert max(part.slot.values) == part.slot.current == expected[secret] + 1, (number, secret)
            assert part.slot.previous is None
        number += 3
    assert number > 40


def test_without_its_journal_it_begins_anew_and_no_old_value_lives(folder: Path) -> None:
    start = play(folder, "lonely")
    number, died = 0, True
    while died:
        world = start.fork(folder / f"lost {number}")
        died = killed_at(world, number)
        world.lose_journal()
        world.now += timedelta(minutes=2)
        report = world.respond()
        assert report.over, (number, report.text())
        world.require_quiet()
        for part in world.parts.values():
            assert part.slot.current is not None
            assert part.slot.current >= 2
            assert part.slot.previous is None
        number += 7


# Reports


def test_the_report_has_all_that_people_need_and_no_value(folder: Path) -> None:
    world = begun(folder, consumers=False, reads={NAME: ("orders|root",)})
    world.parts[TOKEN].faults.target_down = True
    report = world.respond()
    text, page = "\n".join(report.text()), report.markdown()
    for shown in (text, page):
        assert NAME in shown
        assert "1 → 2" in shown
        assert "1 of 2 secrets are done with: run it again to go on" in shown
        assert "the target is down" in shown
        assert "canary-" not in shown
    assert "orders|root, which no stack declares" in page
    assert f"| {TOKEN} | 1 → - | failed |" in page
    document = report.document()
    assert document["by_hand"] == {"orders|root": [NAME]}
    assert document["over"] is False


def test_a_pipe_in_a_reason_does_not_break_the_table(folder: Path) -> None:
    world = begun(folder, consumers=False)
    world.faults.lacks[2] = ("SELECT on a|b",)
    for line in world.respond().markdown().splitlines():
        assert not line.startswith("|") or line.replace("\\|", "").count("|") == 6
