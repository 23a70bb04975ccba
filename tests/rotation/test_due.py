"""What a run takes that asks for what is due: that, what is best turned along with it, and nothing that has to wait."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.due import Selection, reason_of, select
from rotation.journal import Journal
from rotation.manifest import Consumer, ConsumerRing, Plugin
from rotation.model import Reason, Ring, Trigger
from rotation.pins import Pins
from rotation.schedule import Schedule, Window
from rotation.status import SecretStatus, statuses
from tests.rotation.test_status import DAY, LONG_AGO, NOW, manifest, secret, view
from tests.world import memory_folder

DB, API, MAIL = "orders/db", "orders/api", "mail/smtp"
DUE = Schedule(every=30 * DAY, since=NOW - 31 * DAY)
SOON = Schedule(every=30 * DAY, since=NOW - 25 * DAY, early=7 * DAY)  # in five days
LATER = Schedule(every=30 * DAY, since=NOW - 20 * DAY, early=7 * DAY)  # in ten days
NOT_TODAY = (Window(weekdays=("fri",)),)


def consumer(name: str, *secrets: str) -> Consumer:
    ring = ConsumerRing(rendered=Path("rendered.yaml"), addresses=())
    target = Plugin(kind="none")
    return Consumer(
        name=name,
        template=Path("a.yaml.j2"),
        format="yaml",
        secrets=secrets,
        target=target,
        rings=dict.fromkeys(Ring, ring),
    )


def chosen(
    schedules: dict[str, Schedule | None],
    *consumers: Consumer,
    trigger: Trigger = Trigger.SCHEDULE,
    empty: tuple[str, ...] = (),
    age: timedelta = NOW - LONG_AGO,
) -> Selection:
    """Select at :data:`NOW` among secrets of that age; ``empty`` ones have no value."""
    declared = manifest(*(secret(name, schedule) for name, schedule in schedules.items())).model_copy(
        update={"consumers": {each.name: each for each in consumers}}
    )
    views = {name: view(name, None if name in empty else NOW - age) for name in schedules}
    with memory_folder() as folder, Journal(folder / "journal.sqlite3", lambda: NOW) as journal:
        rows: list[SecretStatus] = statuses(views, declared, journal, Pins(), NOW)
    return select(rows, declared, NOW, trigger)


SHARED = consumer("orders-api", DB, API)


def test_what_is_due_is_taken_and_says_since_when() -> None:
    assert chosen({DB: DUE, API: LATER, MAIL: None}) == Selection({DB: "due since 2026-11-17 12:00 UTC"}, {})


def test_what_waits_for_a_window_is_held_and_says_until_when() -> None:
    held = DUE.model_copy(update={"windows": NOT_TODAY})
    selection = chosen({DB: held, API: DUE}, SHARED)
    assert selection.held == {DB: "due since 2026-11-17 12:00 UTC, held until 2026-11-20 00:00 UTC"}
    assert set(selection.taken) == {API}
    assert list(selection.lines()) == [
        "orders/api: due since 2026-11-17 12:00 UTC",
        "orders/db: due since 2026-11-17 12:00 UTC, held until 2026-11-20 00:00 UTC",
    ]


def test_what_shares_a_consumer_and_is_early_enough_is_taken_along() -> None:
    taken = chosen({DB: DUE, API: SOON}, SHARED).taken
    assert taken[API] == "taken along: shares orders-api with orders/db"


@pytest.mark.parametrize(
    ("companion", "consumers"),
    [
        (LATER, (SHARED,)),
        (SOON.model_copy(update={"early": timedelta(0)}), (SHARED,)),
        (SOON.model_copy(update={"windows": NOT_TODAY}), (SHARED,)),
        (SOON, (consumer("one", DB), consumer("another", API))),
        (SOON, ()),
        (None, (SHARED,)),
    ],
    ids=["too early", "no grace before", "outside its window", "another consumer", "no consumer", "no schedule"],
)
def test_nothing_else_is_taken_along(companion: Schedule | None, consumers: tuple[Consumer, ...]) -> None:
    assert set(chosen({DB: DUE, API: companion}, *consumers).taken) == {DB}


def test_a_secret_younger_than_its_minimum_age_is_not_taken_along() -> None:
    young = Schedule(every=30 * DAY, since=NOW - 25 * DAY, early=7 * DAY, minimum_age=10 * DAY)
    immediate = Schedule(every=5 * DAY, immediately=True)
    assert set(chosen({DB: immediate, API: young}, SHARED, age=9 * DAY).taken) == {DB}


def test_what_is_held_takes_nobody_along() -> None:
    held = DUE.model_copy(update={"windows": NOT_TODAY})
    assert chosen({DB: held, API: SOON}, SHARED).taken == {}


def test_what_is_taken_along_takes_nobody_along_itself() -> None:
    taken = chosen({DB: DUE, API: SOON, MAIL: SOON}, SHARED, consumer("mailer", API, MAIL)).taken
    assert set(taken) == {DB, API}


def test_what_has_no_value_is_neither_due_nor_taken_along() -> None:
    assert set(chosen({DB: DUE, API: SOON, MAIL: DUE}, SHARED, empty=(API, MAIL)).taken) == {DB}


# Events


def on(event: str, **others: object) -> Schedule:
    return Schedule.model_validate({"every": 300 * DAY, "events": (event,), "minimum_age": DAY, **others})


def test_after_a_deployment_it_takes_what_is_to_be_turned_then_and_nothing_else_that_is_due() -> None:
    schedules: dict[str, Schedule | None] = {DB: on("deployment"), API: DUE, MAIL: on("incident")}
    assert chosen(schedules, trigger=Trigger.DEPLOYMENT).taken == {DB: "due after each deployment"}
    assert chosen(schedules, trigger=Trigger.INCIDENT).taken == {MAIL: "due after each incident"}
    for trigger in (Trigger.SCHEDULE, Trigger.MANUAL):
        assert set(chosen(schedules, trigger=trigger).taken) == {API}


def test_an_event_takes_along_what_is_early_enough() -> None:
    taken = chosen({DB: on("deployment"), API: SOON}, SHARED, trigger=Trigger.DEPLOYMENT).taken
    assert taken[API] == "taken along: shares orders-api with orders/db"


def test_after_an_event_the_minimum_age_and_the_windows_hold() -> None:
    aged, windowed = on("deployment", minimum_age=10 * DAY), on("deployment", windows=NOT_TODAY)
    assert chosen({DB: aged}, trigger=Trigger.DEPLOYMENT, age=9 * DAY) == Selection({}, {})
    assert set(chosen({DB: aged}, trigger=Trigger.DEPLOYMENT, age=10 * DAY).taken) == {DB}
    held = "due after each deployment, held until 2026-11-20 00:00 UTC"
    assert chosen({DB: windowed}, trigger=Trigger.DEPLOYMENT) == Selection({}, {DB: held})


# Reasons


@pytest.mark.parametrize(
    ("text", "trigger", "words", "kept"),
    [
        ("schedule", Trigger.SCHEDULE, "", "schedule"),
        ("deployment: release 4.2", Trigger.DEPLOYMENT, "release 4.2", "deployment: release 4.2"),
        ("Incident:  the runner was\n compromised ", Trigger.INCIDENT, "the runner was compromised", None),
        ("manual: at 10:30", Trigger.MANUAL, "at 10:30", "manual: at 10:30"),
        ("a person left", Trigger.MANUAL, "a person left", "manual: a person left"),
        ("ticket: 4711", Trigger.MANUAL, "ticket: 4711", "manual: ticket: 4711"),
        ("incidentally", Trigger.MANUAL, "incidentally", "manual: incidentally"),
        ("incident:", Trigger.INCIDENT, "", "incident"),
        ("", Trigger.MANUAL, "", "manual"),
    ],
)
def test_a_reason_is_a_trigger_and_words(text: str, trigger: Trigger, words: str, kept: str | None) -> None:
    reason = Reason.parse(text)
    assert reason == Reason(trigger, words)
    assert str(reason) == (kept or str(reason))
    assert Reason.parse(str(reason)) == reason


@pytest.mark.parametrize(
    ("due", "text", "trigger"),
    [
        (True, None, Trigger.SCHEDULE),
        (False, None, Trigger.MANUAL),
        (True, "deployment", Trigger.DEPLOYMENT),
        (True, "the quarter ends", Trigger.MANUAL),
        (False, "incident: a leak", Trigger.INCIDENT),
    ],
)
def test_without_a_reason_what_is_due_is_turned_for_its_schedule(due: bool, text: str | None, trigger: Trigger) -> None:
    assert reason_of(argparse.Namespace(due=due, reason=text)).trigger is trigger
