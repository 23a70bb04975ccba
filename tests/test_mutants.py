"""Take away each safety check in turn, and see that some test notices: a check that nobody would miss is not tested.

A mutant is a patch; its witness is a check that exists already (a table's case, a scenario, an engine's test) or a
short story of two runners. The witness passes as things are, and must fail under the patch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from rotation import coalescing, decide, engine, incident, rollout
from rotation.errors import KeyturnError
from rotation.evidence import Evidence
from rotation.journal import Journal
from rotation.manifest import Manifest
from rotation.model import Acceptance, Act, Decision, Ring, Step, StoreView
from rotation.opening import Opening
from rotation.pins import Pins
from tests import world_plugins
from tests.rotation import test_coalescing, test_decide, test_engine, test_evidence, test_incident
from tests.scenarios import ROTATE, SCENARIOS
from tests.test_race import test_with_one_journal_the_second_runner_is_told_to_wait
from tests.world import Side, World, fresh, memory_folder, no_hook

Patch = Callable[[pytest.MonkeyPatch], None]
Witness = Callable[[Path], None]


@dataclass(frozen=True)
class Mutant:
    name: str
    patch: Patch
    witness: Witness

    def __str__(self) -> str:
        return self.name


# Patches


def without_rule(rule: object) -> Patch:
    return lambda patch: patch.setattr(decide, "RULES", tuple(r for r in decide.RULES if r is not rule))


def says_nothing(name: str) -> Patch:
    """A guard of the state machine that has no objection, whatever it sees."""
    return lambda patch: patch.setattr(decide, name, always(None))


def always(answer: object) -> Callable[..., object]:
    """A function that gives one answer, whatever it is asked."""

    def answering(*arguments: object, **options: object) -> object:
        del arguments, options
        return answer

    return answering


def replaced(place: object, name: str, by: object) -> Patch:
    return lambda patch: patch.setattr(place, name, by)


@contextlib.contextmanager
def no_lease(journal: Journal, secrets: Sequence[str]) -> Iterator[None]:
    yield


def no_intents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journal, "intend", always(0))
    patch.setattr(Journal, "settle", always(None))


def install_only_what_is_denied(patch: pytest.MonkeyPatch) -> None:
    real = decide._install

    def lazy(*arguments: Any) -> Decision | None:
        decision = real(*arguments)
        accepted = arguments[1].candidate is Acceptance.ACCEPTED
        return None if accepted and isinstance(decision, Step) and decision.act is Act.INSTALL else decision

    patch.setattr(decide, "_install", lazy)


def undecided_forever(patch: pytest.MonkeyPatch) -> None:
    """A store that does not show that a promotion was decided."""
    real = world_plugins._view

    def blind(*arguments: Any) -> StoreView:
        return replace(real(*arguments), promoting=False)

    patch.setattr(world_plugins, "_view", blind)


def promotes_anything(patch: pytest.MonkeyPatch) -> None:
    """A store that compares nothing: the last one to write wins."""

    def promote(store: world_plugins.WorldStore, name: str, generation: int, expected: object) -> None:
        with store._call("promote: claim", name) as slot:
            slot.accepted.add(generation)
        with store._call("promote: move", name) as slot:
            slot.previous, slot.current, slot.pending = slot.current, generation, None

    patch.setattr(world_plugins.WorldStore, "promote", promote)


def moved_blindly(self: rollout.Rollout, pins: Pins, moves: Sequence[rollout.Move], seen: Pins) -> Pins:
    for move in moves:
        for consumer, ring in self.places(move.secret, move.ring):
            pins = pins.with_(consumer, ring, move.secret, move.generation)
    return pins


def unhurried(manifest: Manifest, names: Iterable[str]) -> Manifest:
    del names
    return manifest


def in_any_order(manifest: Manifest, names: Iterable[str]) -> TopologicalSorter[str]:
    sorter = TopologicalSorter(dict.fromkeys(names, ()))
    sorter.prepare()
    return sorter


# Witnesses


def case(sentence: str) -> Witness:
    (found,) = [case for case in test_decide.CASES if case.sentence == sentence]

    def decided(folder: Path) -> None:
        del folder
        test_decide.test_decision(found)

    return decided


def scenario(name: str) -> Witness:
    (found,) = [scenario for scenario in SCENARIOS if scenario.name == name]

    def play(folder: Path) -> None:
        found.play(folder)

    return play


def story(test: Callable[[World], None]) -> Witness:
    return lambda folder: test(fresh(folder))


def story_of_two(test: Callable[[World], None]) -> Witness:
    return lambda folder: test(fresh(folder, names=test_coalescing.TWO))


def overtaken(at: str, requests: int = 1) -> Witness:
    """A runner sleeps before this call while another one does whole rotations; after it, all is quiet."""

    def play(folder: Path) -> None:
        world = fresh(folder)

        def sleep(runner: str, call: str, side: Side) -> None:
            if runner == "sleeper" and call == at and side == "before":
                world.hook = no_hook
                for number in range(requests):
                    world.run(ROTATE, "other", world.project / f"other{number}.sqlite3")

        world.hook = sleep
        world.run(ROTATE, "sleeper")
        world.run(ROTATE, "last", world.project / "last.sqlite3")
        world.require_quiet()

    return play


def rejected_in_its_sleep(folder: Path) -> None:
    """A runner is about to promote while another one sees the canary turn bad and takes the candidate back."""
    world = fresh(folder)

    def sleep(runner: str, call: str, side: Side) -> None:
        if runner == "sleeper" and call == "store.promote: claim" and side == "before":
            world.hook = no_hook
            world.faults.bad_under[Ring.CANARY] = {2}
            world.run(ROTATE, "other", world.project / "other.sqlite3")

    world.hook = sleep
    world.run(ROTATE, "sleeper")
    world.require_quiet()


def first_value_is_asked_for(folder: Path) -> None:
    test_engine.test_a_first_value_is_made_only_when_it_is_asked_for(folder)


def of_incident(test: Callable[[test_incident.Estate], None]) -> Witness:
    return lambda folder: test(test_incident.begun(folder))


MUTANTS = (
    Mutant(
        "a missing slot is ignored", without_rule(decide.slot_exists), case("without a slot a person is waited for")
    ),
    Mutant(
        "foreign versions are treated like ours",
        without_rule(decide.versions_are_ours),
        case("a foreign current version is not touched"),
    ),
    Mutant(
        "leftovers are taken for candidates",
        without_rule(decide.discard_leftover),
        case("what is older than the current one is left over from a dead run"),
    ),
    Mutant("rejected candidates go on", without_rule(decide.undo_rejected), scenario("bad canary")),
    Mutant("candidates are revoked under their rings", says_nothing("_leave_candidate"), scenario("bad canary")),
    Mutant(
        "in place, nothing is restored",
        says_nothing("_current_is_accepted"),
        scenario("single that lacks a privilege"),
    ),
    Mutant(
        "candidates are revoked though the current one is denied",
        says_nothing("_current_is_accepted"),
        case("and never when it denies the current one"),
    ),
    Mutant(
        "a carried value is revoked in its grace window",
        says_nothing("_shared_value_is_unused"),
        case("one that carries the previous value waits as long as that is kept: both are one credential"),
    ),
    Mutant("candidates are not installed", says_nothing("_install"), scenario("success")),
    Mutant(
        "accepted values are not installed as the new generation",
        install_only_what_is_denied,
        story(test_engine.test_a_late_runner_cannot_revoke_what_was_brought_back),
    ),
    Mutant("candidates are not tested", says_nothing("_test"), scenario("a privilege is lacking")),
    Mutant("signals are not heard", says_nothing("_condemned"), scenario("bad canary")),
    Mutant("rings are not watched", says_nothing("_judge"), case("the canary is watched for the bake time")),
    Mutant("rings are not waited for", says_nothing("_bring"), scenario("success")),
    Mutant(
        "the stable ring is left out",
        replaced(decide, "_rings", always([Ring.CANARY])),
        scenario("success"),
    ),
    Mutant("nobody follows the current generation", without_rule(decide.follow_current), scenario("single")),
    Mutant("rotations do not end", without_rule(decide.finish), scenario("success")),
    Mutant(
        "nothing is retired before the next is staged",
        without_rule(decide.retire_previous),
        scenario("rotate once more"),
    ),
    Mutant(
        "what is in use is retired",
        says_nothing("_in_use"),
        story(test_engine.test_a_session_with_the_old_one_keeps_it_and_restarts_its_grace_window),
    ),
    Mutant("retiring goes on to rotate", without_rule(decide.nothing_wanted), scenario("retire")),
    Mutant(
        "candidates are tried without end",
        replaced(decide, "MOST_CANDIDATES", 10**6),
        case("after three candidates that the target denied it ends"),
    ),
    Mutant(
        "installs are tried without end",
        replaced(decide, "MOST_INSTALLS", 10**6),
        scenario("the target ignores every install of the first candidate"),
    ),
    Mutant(
        "promotions that were decided are not seen",
        undecided_forever,
        story(test_engine.test_a_rollback_that_the_promotion_overtook_brings_the_old_value_back),
    ),
    Mutant("the store compares nothing", promotes_anything, rejected_in_its_sleep),
    Mutant(
        "the target remembers nothing",
        replaced(world_plugins, "_admits", always(True)),
        overtaken("target.install", requests=3),
    ),
    Mutant(
        "intents are not recorded", no_intents, story(test_engine.test_what_a_dead_run_had_begun_is_said_by_the_next)
    ),
    Mutant(
        "there is no preflight",
        replaced(engine, "preflight", always(None)),
        first_value_is_asked_for,
    ),
    Mutant(
        "the target is not asked before the start",
        replaced(Opening, "_probe", always(None)),
        story(test_engine.test_nothing_is_started_while_the_target_is_down),
    ),
    Mutant(
        "there are no leases",
        replaced(Journal, "lease", no_lease),
        test_with_one_journal_the_second_runner_is_told_to_wait,
    ),
    Mutant(
        "a rollback forgets that it is one with its journal",
        replaced(Opening, "_carried", always(None)),
        story(test_engine.test_a_rollback_without_its_journal_is_still_one),
    ),
    Mutant(
        "pins are moved from wherever they are",
        replaced(rollout.Rollout, "_moved", moved_blindly),
        story(test_engine.test_pins_that_somebody_else_moves_are_not_overwritten),
    ),
    Mutant(
        "pins to what was dropped meanwhile stay",
        replaced(rollout, "_refuse_outdated", always(None)),
        story(test_engine.test_a_pin_to_what_is_discarded_meanwhile_is_taken_back),
    ),
    Mutant(
        "what was deployed is looked at once",
        replaced(engine, "IRREVERSIBLE", ()),
        test_engine.test_the_deployment_is_looked_at_again_before_anything_is_revoked,
    ),
    Mutant(
        "pins are not put off for companions",
        replaced(engine, "put_off", always({})),
        story_of_two(
            test_coalescing.test_an_application_that_takes_up_its_canary_late_is_awaited_by_all_of_its_secrets
        ),
    ),
    Mutant(
        "whoever waits holds its companions",
        replaced(coalescing, "_rings_ahead", always(tuple(Ring))),
        story_of_two(test_coalescing.test_a_companion_that_waits_for_its_target_holds_nobody),
    ),
    Mutant(
        "values from before an incident count as new",
        replaced(incident._Response, "_is_new", always(True)),
        of_incident(test_incident.test_everything_is_turned_once_and_no_old_value_lets_anybody_in),
    ),
    Mutant(
        "candidates from before an incident go on",
        replaced(incident, "candidate_of", always(None)),
        of_incident(test_incident.test_a_candidate_in_flight_is_taken_back_and_never_becomes_current),
    ),
    Mutant(
        "returns from before an incident are staged",
        replaced(incident._Response, "_is_void", always(False)),
        of_incident(test_incident.test_a_return_that_has_staged_nothing_is_called_off),
    ),
    Mutant(
        "old values have their grace in an incident",
        replaced(Manifest, "urgent", unhurried),
        of_incident(test_incident.test_everything_is_turned_once_and_no_old_value_lets_anybody_in),
    ),
    Mutant(
        "an incident does not wait for makers",
        replaced(incident, "in_order", in_any_order),
        test_incident.test_what_is_made_with_a_maker_that_cannot_be_turned_waits_for_it,
    ),
    Mutant(
        "a rehearsal is not asked for",
        replaced(Evidence, "require", always(None)),
        test_evidence.test_a_first_value_needs_it_too,
    ),
    Mutant(
        "steps without effect are repeated",
        replaced(engine, "MOST_TRIES", 50),
        test_engine.test_an_undo_that_fails_stops_and_is_on_record,
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_check_that_is_taken_away_is_missed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    with memory_folder() as folder:
        mutant.witness(folder)
    mutant.patch(monkeypatch)
    with memory_folder() as folder, pytest.raises((AssertionError, KeyturnError, pytest.fail.Exception)):
        mutant.witness(folder)


def test_every_rule_has_a_mutant() -> None:
    cells = [cell.cell_contents for mutant in MUTANTS for cell in mutant.patch.__closure__ or ()]
    unmutated = [rule for rule in decide.RULES if not any(cell is rule for cell in cells)]
    assert unmutated == [decide.advance_candidate], "which is mutated in its parts"
