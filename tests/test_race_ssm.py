"""Runners that meet at a store that compares nothing (Tencent SSM), with pauses far beyond their leases, and kills.

All runners share one journal: the lease in it is what this store rests on, together with signatures that die, a wait,
and a second look (see :class:`rotation.stores.PromotesUnderLease`). Each of the first stories needs one of the four.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation import decide, engine, rekey
from rotation.adopt import adopt
from rotation.credentials import ReportsLeftovers
from rotation.drift import Class, Finding, Fix, Way
from rotation.drift.fixing import fix
from rotation.engine import Purpose, Request
from rotation.errors import Conflict, KeyturnError, LeaseHeld
from rotation.journal import LEASE, Journal
from rotation.local.tencent.wire import Request as Signed
from rotation.model import Credential, Leftover, Version
from rotation.stores.tencent_ssm import CURRENT, TencentSsm
from tests.scenarios import RESUME, RETIRE, ROLL_BACK, ROTATE
from tests.ssm_world import STORED_AS, SsmWorld, begun
from tests.tencent_line import Line
from tests.world import PATIENT, Broken, Killed, Side, memory_folder, no_hook
from tests.world_plugins import WorldKind

BEYOND_THE_LEASE = LEASE + timedelta(seconds=1)
AHEAD = 299.0  # seconds: of a clock that is further ahead the cloud accepts nothing
AND_RETIRE = Request(retire=True, wait=PATIENT)
ONWARD = (AND_RETIRE, AND_RETIRE)


def others_go_on(world: SsmWorld, requests: Sequence[Request]) -> None:
    """A runner was held up: its lease runs out, and another one does all that is asked for."""
    world.now += BEYOND_THE_LEASE
    for request in requests:
        world.run(request, "other")


def sleeps_at(world: SsmWorld, call: str, requests: Sequence[Request]) -> None:
    """Let the runner "sleeper" be held up at the first such call while another one goes on."""

    def sleep(runner: str, name: str, side: Side) -> None:
        if (runner, name, side) == ("sleeper", call, "before"):
            world.hook = no_hook
            others_go_on(world, requests)

    world.hook = sleep


def loses_its_promotion(world: SsmWorld) -> None:
    """Kill the runner "dying" when its request to overwrite the current version has just left it."""

    def loses(runner: str, action: str, parameters: Any) -> bool:
        return runner == "dying" and action == "UpdateSecret" and parameters["VersionId"] == CURRENT

    world.loses = loses
    world.skew["dying"] = AHEAD
    with pytest.raises(Killed):
        world.run(ROTATE, "dying")


def end_well(world: SsmWorld) -> None:
    """Whatever happened: one more runner, and all is quiet."""
    world.hook = no_hook
    others_go_on(world, (RESUME, RETIRE))
    world.require_quiet()


# A story for each of the four rules


def test_a_runner_that_slept_before_it_signed_finds_its_lease_lost(tmp_path: Path) -> None:
    with begun(tmp_path) as world:
        sleeps_at(world, "ssm.UpdateSecret", ONWARD)
        slept = world.run(ROTATE, "sleeper")
        assert isinstance(slept.error, LeaseHeld)
        end_well(world)
        assert world.slot.current == 3


def test_what_a_runner_signed_before_it_slept_is_refused(tmp_path: Path) -> None:
    with begun(tmp_path) as world:
        sleeps_at(world, "ssm.UpdateSecret: sent", ONWARD)
        slept = world.run(ROTATE, "sleeper")
        assert slept.error is not None
        end_well(world)
        assert world.slot.current == 3


def test_what_a_killed_runner_has_sent_arrives_before_anything_is_revoked_or_never(tmp_path: Path) -> None:
    with begun(tmp_path) as world:
        loses_its_promotion(world)
        others_go_on(world, ONWARD)
        world.deliver()
        end_well(world)


def test_what_arrives_after_the_last_look_is_seen_before_the_old_one_is_revoked(tmp_path: Path) -> None:
    """A rollback makes what the dead runner was about to promote the old generation. What it sent arrives, and then
    the runner that is about to retire that is held up, between its look at the store and its decision."""
    with begun(tmp_path) as world:
        died_at = world.now
        loses_its_promotion(world)
        others_go_on(world, (ROTATE, ROLL_BACK))

        def hang(runner: str, call: str, side: Side) -> None:
            late = world.now - died_at > timedelta(seconds=450)
            if (runner, call, side) == ("retiring", "target.usage", "before") and late:
                world.hook = no_hook
                world.deliver()
                world.stall(runner, 800)

        world.hook = hang
        world.run(RETIRE, "retiring")
        assert world.hook is no_hook
        assert not world.in_flight
        end_well(world)
        assert world.slot.current == 3


def test_the_clocks_of_three_machines_may_each_be_as_wrong_as_the_cloud_lets_them(tmp_path: Path) -> None:
    """What the first one sent is good for longest, the second one's note is of too early a time, and the third one,
    which is to retire what the first was about to promote, believes that it is later than it is."""
    with begun(tmp_path) as world:
        world.now += timedelta(hours=1)  # since the first generation was made
        loses_its_promotion(world)
        sent_at = world.now
        world.skew |= {"other": -AHEAD, "retiring": AHEAD}
        others_go_on(world, (ROTATE, ROLL_BACK))
        while (kept := "g0000000002" in world.emulated.values(STORED_AS)) and world.now - sent_at < PATIENT:
            world.now += BEYOND_THE_LEASE
            world.run(Request(Purpose.RETIRE), "retiring")
        assert not kept
        world.deliver()
        world.skew.clear()
        end_well(world)
        assert world.slot.current == 3


def without_leases(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journal, "require_lease", lambda *_: None)


def signed_when_it_leaves(patch: pytest.MonkeyPatch) -> None:
    """As the SDK signs: with the time at which it does."""
    signed = Line._signed

    def late(self: Line, service: str, action: str, parameters: Mapping[str, Any], signed_at: int) -> Signed:
        del signed_at
        return signed(self, service, action, parameters, int(self._clock()))

    patch.setattr(Line, "_signed", late)


def without_a_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "_settles", lambda *_: None)


def without_a_second_look(patch: pytest.MonkeyPatch) -> None:
    """Also without the one that the engine takes to see whether what is deployed has changed."""
    patch.setattr(engine, "IRREVERSIBLE", ())
    patch.setattr(TencentSsm, "confirm", lambda self, *_: self._holds())


@pytest.mark.parametrize(
    ("rule", "story"),
    [
        (without_leases, test_a_runner_that_slept_before_it_signed_finds_its_lease_lost),
        (signed_when_it_leaves, test_what_a_runner_signed_before_it_slept_is_refused),
        (without_a_wait, test_what_a_killed_runner_has_sent_arrives_before_anything_is_revoked_or_never),
        (without_a_second_look, test_what_arrives_after_the_last_look_is_seen_before_the_old_one_is_revoked),
    ],
)
def test_without_any_one_of_the_rules_consumers_read_what_the_target_denies(
    rule: Callable[[pytest.MonkeyPatch], None],
    story: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    rule(monkeypatch)
    with pytest.raises(Broken, match="denies what consumers read"):
        story(tmp_path)


def test_who_was_held_up_between_store_and_journal_makes_no_value_for_a_login_in_use(tmp_path: Path) -> None:
    """What it saw in the store is of before the other one's rotation, and the journal's number of after it."""
    with begun(tmp_path) as world:
        probe = iter(["before the rotation is opened"])

        def sleep(runner: str, call: str, side: Side) -> None:
            if (runner, call, side) == ("sleeper", "target.check", "after") and next(probe, None) is None:
                world.hook = no_hook
                others_go_on(world, (ROTATE,))

        world.hook = sleep
        with suppress(KeyturnError):
            world.run(ROTATE, "sleeper")
        end_well(world)


# Everywhere


def calls_of(request: Request) -> list[tuple[str, Side]]:
    """The calls of an undisturbed run, as the hook sees them."""
    seen: list[tuple[str, Side]] = []
    with memory_folder() as folder, begun(folder) as world:
        world.hook = lambda _, call, side: seen.append((call, side))
        world.run(request)
    return seen


def pauses(calls: Sequence[tuple[str, Side]]) -> list[int]:
    """The numbers of all calls, each before it is sent and, on the wire, before it is applied."""
    return [n for n, (_, side) in enumerate(calls) if side == "before"]


def changing(calls: Sequence[tuple[str, Side]]) -> list[int]:
    """Those of the calls that change something."""
    of_target = ("target.check", "target.missing", "target.probe", "target.usage")
    reading = ("ssm.GetSecretValue", "ssm.ListSecretVersionIds", *of_target)
    return [n for n in pauses(calls) if not calls[n][0].startswith(reading)]


@pytest.mark.timeout(900)  # it runs hundreds of rotations
@pytest.mark.parametrize(
    ("where", "requests"),
    [(pauses, ONWARD), (changing, (ROLL_BACK, ROTATE)), (changing, (ROTATE,))],
    ids=["at any call, for two rotations", "at any change, for a rollback", "at any change, for the same rotation"],
)
def test_a_runner_that_sleeps_while_another_goes_on_breaks_nothing(
    where: Callable[[Sequence[tuple[str, Side]]], list[int]], requests: Sequence[Request]
) -> None:
    for nth in where(calls_of(AND_RETIRE)):
        with memory_folder() as folder, begun(folder) as world:
            sleeps_at_number(world, nth, requests)
            with suppress(KeyturnError):
                world.run(AND_RETIRE, "sleeper")
            end_well(world)


def sleeps_at_number(world: SsmWorld, nth: int, requests: Sequence[Request]) -> None:
    count = iter(range(nth))

    def sleep(runner: str, name: str, side: Side) -> None:
        del name, side
        if runner == "sleeper" and next(count, None) is None:
            world.hook = no_hook
            others_go_on(world, requests)

    world.hook = sleep


@pytest.mark.parametrize("action", ["PutSecretValue", "UpdateSecret", "DeleteSecretVersion"])
def test_what_a_killed_runner_has_sent_breaks_nothing_whenever_it_arrives(action: str) -> None:
    """It arrives at one of the looks of those who go on, the sooner ones with a signature that is still good."""
    for nth in (1, 3, 5, 8, 12, 16):
        with memory_folder() as folder, begun(folder) as world:
            world.skew["dying"] = AHEAD
            world.loses = lambda runner, sent, _: (runner, sent) == ("dying", action)
            with pytest.raises(Killed):
                world.run(AND_RETIRE, "dying")
            arrives_at_look(world, nth)
            others_go_on(world, ONWARD)
            world.deliver()
            end_well(world)


def arrives_at_look(world: SsmWorld, nth: int) -> None:
    count = iter(range(nth))

    def arrive(runner: str, call: str, side: Side) -> None:
        del runner
        if (call, side) == ("ssm.ListSecretVersionIds", "before") and next(count, None) is None:
            world.hook = no_hook
            world.deliver()

    world.hook = arrive


def test_with_the_journal_the_dead_runners_request_is_not_forgotten(tmp_path: Path) -> None:
    """Nobody knows any more that it was sent: the time counts from when the next one sees what is current."""
    with begun(tmp_path) as world:
        loses_its_promotion(world)
        world.lose_journal()
        others_go_on(world, ONWARD)
        world.deliver()
        end_well(world)


def test_a_runner_whose_journal_was_replaced_promotes_nothing(tmp_path: Path) -> None:
    with begun(tmp_path) as world:

        def replaced(runner: str, name: str, side: Side) -> None:
            if (runner, name, side) == ("sleeper", "ssm.UpdateSecret", "before"):
                world.hook = no_hook
                world.lose_journal()
                others_go_on(world, ONWARD)

        world.hook = replaced
        with suppress(KeyturnError):
            world.run(ROTATE, "sleeper")
        end_well(world)


def test_what_others_made_current_is_adopted_without_being_sent_again(tmp_path: Path) -> None:
    with begun(tmp_path) as world:
        runner, secret = world.engine(), world.secret()
        same = {"password": world.principals["a"].password, "username": "a"}  # but written in another way
        world.emulated.ask("UpdateSecret", SecretName=STORED_AS, VersionId=CURRENT, SecretString=json.dumps(same))
        view = runner.observer.stored([secret], fresh=True)[secret.name]
        assert view.current == Version(CURRENT, None)
        world.calls.clear()
        assert adopt(secret, view, runner.plugins, runner.custody, runner.journal) == 2
        runner.journal.close()
        assert "ssm.UpdateSecret" not in world.calls
        end_well(world)
        assert world.slot.current == 2


def test_what_others_make_current_while_it_is_adopted_is_not_overwritten(tmp_path: Path) -> None:
    """SSM has one name for whatever is current, so the second foreign value looks like the first."""
    with begun(tmp_path) as world:

        def overwrite(password: str) -> None:
            world.principals["a"].password = password
            value = json.dumps({"username": "a", "password": password})
            world.emulated.ask("UpdateSecret", SecretName=STORED_AS, VersionId=CURRENT, SecretString=value)

        def meanwhile(runner: str, call: str, side: Side) -> None:
            if (runner, call, side) == ("runner", "ssm.PutSecretValue", "before"):
                world.hook = no_hook
                overwrite("second")

        overwrite("first")
        runner, secret = world.engine(), world.secret()
        view = runner.observer.stored([secret], fresh=True)[secret.name]
        world.hook = meanwhile
        with runner.journal.lease([secret.name]):
            with pytest.raises(Conflict, match="somebody else has changed"):
                adopt(secret, view, runner.plugins, runner.custody, runner.journal)
            assert json.loads(world.emulated.values(STORED_AS)[CURRENT])["password"] == "second"
            view = runner.observer.stored([secret], fresh=True)[secret.name]
            assert adopt(secret, view, runner.plugins, runner.custody, runner.journal) == 3
        runner.journal.close()
        end_well(world)
        assert world.slot.current == 3


@pytest.mark.parametrize("arrives", [True, False])
def test_a_decision_that_somebody_deletes_costs_a_wait_and_no_login(tmp_path: Path, *, arrives: bool) -> None:
    """A rollback finds nothing decided about the candidate whose promotion is on its way."""
    with begun(tmp_path) as world:
        loses_its_promotion(world)
        decided = {"SecretName": STORED_AS, "VersionId": "g0000000002.decided"}
        world.emulated.ask("DeleteSecretVersion", **decided)
        others_go_on(world, (Request(Purpose.ROLL_BACK),))
        assert world.principals["b"].password is not None
        if arrives:
            world.deliver()
            others_go_on(world, (ROLL_BACK,))
            assert world.adopt("other").error is None
        else:
            others_go_on(world, (ROLL_BACK,))
            assert world.principals["b"].password is None
            world.deliver()
        end_well(world)


class Listing(WorldKind, ReportsLeftovers):
    """One whose target lists its logins."""

    def leftovers(self, kept: Sequence[Credential]) -> tuple[Leftover, ...]:
        raise NotImplementedError

    def lock_out(self, principal: str, kept: Sequence[Credential]) -> None:
        with self._asked("target.lock_out"):
            self._part.principals[principal].password = None


@pytest.mark.parametrize("overwritten", [False, True])
def test_a_leftover_is_not_locked_out_once_consumers_read_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, overwritten: bool
) -> None:
    """Somebody lets a retired login in again, and puts its value back while drift is being put right."""
    with begun(tmp_path) as world:
        value = world.emulated.values(STORED_AS)[CURRENT]
        world.run(AND_RETIRE)
        world.principals["a"].password = json.loads(value)["password"]
        runner = world.engine()
        monkeypatch.setattr(runner.plugins, "kind", lambda secret: Listing(world, "runner", secret.name))

        def overwrite(runner: str, call: str, side: Side) -> None:
            if overwritten and (call, side) == ("ssm.GetSecretValue", "after"):
                world.hook = no_hook if reads.pop() else world.hook
                if world.hook is no_hook:
                    world.emulated.ask("UpdateSecret", SecretName=STORED_AS, VersionId=CURRENT, SecretString=value)

        reads = [True, False, False, False]  # the store's current version, its generation, its decision; then ours
        world.hook = overwrite
        leftover = Finding(
            *(Way.LIVE, world.secret().name, "leftover-a", Class.UNEXPECTED, "", ""),
            secrets=(world.secret().name,),
            fix=Fix.LOCK_OUT,
        )
        (tried,) = fix(runner, [leftover], timedelta(0))
        runner.journal.close()
        assert ("no longer current" in tried.problem) is overwritten
        assert (world.principals["a"].password is None) is not overwritten


def test_a_keys_older_material_is_kept_while_an_older_envelope_could_arrive(tmp_path: Path) -> None:
    with begun(tmp_path) as world:
        runner, secret = world.engine(), world.secret()
        view = runner.observer.stored([secret], fresh=True)[secret.name]
        assert view.changed_at is not None
        assert rekey._end_of_grace(secret, view, runner.plugins) == view.changed_at + timedelta(seconds=1200)
        runner.journal.close()
