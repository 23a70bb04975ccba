"""What became of rotations, and where their time went."""

from __future__ import annotations

from datetime import timedelta

from rotation.model import Act, Ring
from rotation.report.history import OPEN, Phase, Turn, turns
from tests.fixtures.estate import NOW, Estate, Past

SECRET = "orders/db"


def seconds(turn: Turn) -> dict[str, float]:
    return {phase.value: took.total_seconds() for phase, took in turn.phases}


def history(made: Estate) -> list[Turn]:
    journal = made.journal
    trail, _ = journal.inspect()
    return turns(journal.rotations(9), journal.intents(NOW - timedelta(days=1)), trail, made.clock.now, {SECRET})


def past(made: Estate, goal: int = 2) -> Past:
    return Past(made.journal, made.clock, SECRET, goal)


def test_the_phases_of_a_promoted_rotation_add_up_to_the_time_it_took(empty: Estate) -> None:
    done = past(empty)
    done.begin()
    done.promote(baked=30, deployed=12, settled=10)
    (turn,) = history(empty)
    assert seconds(turn) == {
        "stage": 0.4,
        "install": 1.2,
        "test": 0.6,
        "canary": 9.6,
        "observe": 1800,
        "deploy": 12.1,
        "settle": 600,
        "promote": 0.3,
    }
    assert sum((took for _, took in turn.phases), timedelta(0)) == turn.took
    assert (turn.outcome, turn.why) == ("promoted", "generation 2 is current")


def test_after_a_rejection_all_is_undoing_whatever_act_it_is(empty: Estate) -> None:
    done = past(empty)
    done.begin()
    done.roll_back(minutes=10, evidence="3 of 20 requests failed")
    (turn,) = history(empty)
    assert seconds(turn)["observe"] == 600
    assert seconds(turn)["undo"] == 10.3
    assert turn.rolled_back
    assert turn.evidence == ("the canary is bad: 3 of 20 requests failed",)


def test_a_candidate_that_replaces_a_rejected_one_is_no_undoing(empty: Estate) -> None:
    done = past(empty)
    done.begin()
    done.do(Act.REJECT, seconds=1)
    done.do(Act.DISCARD, seconds=1)
    done.do(Act.STAGE, seconds=5)
    done.do(Act.INSTALL, seconds=5)
    (turn,) = history(empty)
    assert seconds(turn) == {"stage": 5.4, "install": 6.2, "test": 0.6, "canary": 9.6, "observe": 0, "undo": 2}


def test_an_open_rotation_lasts_until_now(empty: Estate) -> None:
    past(empty).begin()
    empty.clock.pass_by(minutes=5)
    (turn,) = history(empty)
    assert (turn.outcome, turn.closed) == (OPEN, None)
    assert turn.phases[-1] == (Phase.OBSERVE, timedelta(minutes=5))
    assert turn.took == timedelta(minutes=5, seconds=11.8)


def test_an_act_that_a_run_died_in_counts_until_the_next_one_begins(empty: Estate) -> None:
    empty.journal.open_rotation(SECRET, 2, "schedule")
    empty.journal.intend(SECRET, 2, Act.DEPLOY, Ring.CANARY)
    empty.clock.pass_by(minutes=3)
    past(empty).do(Act.DEPLOY, Ring.CANARY, seconds=10)
    (turn,) = history(empty)
    assert turn.phases == ((Phase.CANARY, timedelta(seconds=190)), (Phase.OBSERVE, timedelta(0)))


def test_a_rotation_before_its_first_act_has_no_phases(empty: Estate) -> None:
    empty.journal.open_rotation(SECRET, 2, "schedule")
    assert [turn.phases for turn in history(empty)] == [()]


def test_each_rotation_of_a_secret_has_its_own_acts_and_lines_alone(empty: Estate) -> None:
    for goal in (2, 3):
        done = past(empty, goal)
        done.begin()
        done.promote()
        empty.clock.pass_by(hours=1)
        empty.journal.audit(SECRET, goal - 1, "retire", "in between")
        empty.clock.pass_by(hours=1)
    newest, oldest = history(empty)
    assert (newest.goal, oldest.goal) == (3, 2)
    assert len(newest.timeline) == len(oldest.timeline) == 10
    assert newest.took == oldest.took


def test_what_is_quoted_is_redacted_and_names_are_not(empty: Estate) -> None:
    named = "orders/login-of-the-2nd-gateway-0123456789"
    empty.journal.open_rotation(named, 2, "manual: password=hunter2")
    empty.journal.audit(named, 2, "waits", f"token=abc for {named}")
    trail, _ = empty.journal.inspect()
    (turn,) = turns(empty.journal.rotations(9), (), trail, NOW, {named})
    assert turn.reason == "manual: password=••••"
    assert turn.timeline[-1].detail == f"token=•••• for {named}"


def test_a_journal_without_rotations_has_no_history(empty: Estate) -> None:
    assert history(empty) == []
