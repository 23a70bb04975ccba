"""What people, pipelines and issues get to read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from rotation.drift import Class, Finding, Fix, Way, unchecked
from rotation.drift.check import Drift
from rotation.drift.fixing import Tried, left
from rotation.drift.ignoring import Ignore
from rotation.drift.reporting import MOST_CHARACTERS, document, lines, reports

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
STACKS = ("foundation-test", "secrets-test", "application-test")
STUCK = Finding(Way.STORED, "orders/db", "pending", Class.UNEXPECTED, "is stuck", "resume", fix=Fix.RESUME, since=NOW)
CHANGED = Finding(
    Way.DECLARED, "secrets-test", "aws_kms_key.k", Class.DELETED, "was deleted", "restore", "secrets-test", since=NOW
)
UNKNOWN = replace(unchecked(Way.LIVE, "orders/db", "no answer", "look"), since=NOW)
MOVING = replace(STUCK, found=Class.EXPECTED)


def drift(*findings: Finding, ways: tuple[Way, ...] = tuple(Way), expired: tuple[Ignore, ...] = ()) -> Drift:
    return Drift("test", STACKS, NOW, ways, findings, expired)


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ((), 0),
        ((MOVING, replace(STUCK, found=Class.IGNORED)), 0),
        ((UNKNOWN,), 1),
        ((STUCK,), 2),
        ((CHANGED,), 2),
        ((STUCK, UNKNOWN), 2),
    ],
)
def test_drift_is_told_from_what_could_not_be_checked(findings: tuple[Finding, ...], code: int) -> None:
    assert drift(*findings).exit_code == code


def test_every_stack_has_a_report_of_its_own_by_which_its_issue_is_found_again() -> None:
    made = reports(drift(STUCK, CHANGED))
    assert [report.stack for report in made] == [*STACKS, "test"]
    assert [report.open for report in made] == [False, True, False, True]
    for report in made:
        assert report.title == f"Drift in {report.stack}"
        assert report.body.startswith(f"{report.marker}\n## {report.title}\n")
    assert "`declared:secrets-test:aws_kms_key.k` | 2026-11-22 02:30 | was deleted | restore" in made[1].body
    assert "stored:orders/db:pending" not in made[1].body
    assert "Nothing found" in made[0].body


def test_what_could_not_be_checked_keeps_an_issue_open_and_a_rotation_does_not() -> None:
    assert reports(drift(UNKNOWN))[-1].open
    assert not reports(drift(MOVING))[-1].open


def test_an_issue_is_not_closed_by_a_look_in_another_way() -> None:
    assert [report.stack for report in reports(drift(ways=(Way.STORED,)))] == []
    assert [report.stack for report in reports(drift(ways=(Way.DECLARED,)))] == list(STACKS)
    assert [report.stack for report in reports(drift(STUCK, ways=(Way.STORED,)))] == ["test"]


def test_a_report_keeps_what_matters_when_it_is_too_long_for_an_issue() -> None:
    many = [replace(MOVING, subject=f"orders/token-{number}") for number in range(2_000)]
    body = reports(drift(STUCK, *many))[-1].body
    assert len(body) < MOST_CHARACTERS
    assert "stored:orders/db:pending" in body
    assert "lines more: see `keyturn drift`." in body


def test_words_of_others_are_shown_as_they_are() -> None:
    evil = replace(STUCK, what="a | b <img src=x> @everyone\n## heading")
    body = reports(drift(evil))[-1].body
    assert "a \\| b &lt;img src=x> @\u200beveryone ## heading" in body


def test_machines_get_all_of_it() -> None:
    rule = Ignore(address="live:*", reason="over", until=date(2026, 1, 1))
    told = document(
        drift(STUCK, UNKNOWN, expired=(rule,)), [Tried(STUCK.address, "resume", "no way")], {STUCK.address: ""}
    )
    told = json.loads(json.dumps(told, default=str))
    assert (told["drift"], told["unchecked"]) == (True, True)
    assert told["findings"][0] == {
        "address": "stored:orders/db:pending",
        "way": "stored",
        "class": "unexpected",
        "what": "is stuck",
        "remedy": "resume",
        "since": "2026-11-22 02:30:00+00:00",
        "secrets": [],
        "fix": "resume",
    }
    assert told["fixes"] == [{"address": STUCK.address, "did": "resume", "problem": "no way", "fixed": False}]
    assert told["expired"] == [{"address": "live:*", "reason": "over", "until": "2026-01-01"}]
    assert len(told["reports"]) == 4


def test_people_get_a_table_for_each_class_and_what_was_fixed_and_what_was_not() -> None:
    gone = Tried("live:orders/db:leftover-app_a", "lock out")
    tried = [gone, Tried(STUCK.address, "resume", "the target does not answer")]
    text = lines(drift(STUCK, CHANGED, UNKNOWN), tried, left(tried, [STUCK, CHANGED]))
    assert text[0] == "unexpected (1)"
    assert text[1].split() == [STUCK.address, "2026-11-22", "02:30", "is", "stuck"]
    assert text[2] == "      → resume (--fix does it)"
    assert "deleted (1)" in text
    assert "could not check (1)" in text
    assert "fixed   live:orders/db:leftover-app_a: lock out" in text
    assert f"left    {STUCK.address}: resume did not help: the target does not answer" in text
    assert text[-1] == "test: 2 findings are drift, 1 could not be checked (declared, stored, live, consumed)"
