"""Schedules: due, windows, blackouts, and clock changes."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from rotation.schedule import WEEKDAYS, Blackout, Origin, Schedule, Weekday, Window

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
DAY = timedelta(days=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(moment: datetime, zone: str) -> str:
    return moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %Z")


def weekly(opens: time, closes: time | None, *weekdays: Weekday, **others: Any) -> Schedule:
    return Schedule(
        every=30 * DAY, windows=(Window(weekdays=weekdays or WEEKDAYS, opens=opens, closes=closes),), **others
    )


moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(["UTC", BERLIN, NEW_YORK, "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"])
intervals = st.timedeltas(timedelta(minutes=1), 400 * DAY)
names = st.text(max_size=20)
times = st.times().map(lambda at: at.replace(second=0, microsecond=0))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    opens, closes = draw(times), draw(st.none() | times)
    assume(opens != closes)
    weekdays = draw(st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7, unique=True))
    return Window(weekdays=tuple(weekdays), opens=opens, closes=closes)


@st.composite
def blackouts(draw: st.DrawFn) -> Blackout:
    starts = draw(st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)))
    return Blackout(starts=starts, ends=starts + draw(st.timedeltas(timedelta(hours=3), 40 * DAY)), reason="a freeze")


schedules = st.builds(
    Schedule,
    every=intervals.filter(lambda every: every > timedelta(hours=1)),
    minimum_age=st.timedeltas(timedelta(seconds=1), timedelta(hours=1)),
    timezone=zones,
    windows=st.lists(windows(), max_size=3).map(tuple),
    blackouts=st.lists(blackouts(), max_size=3).map(tuple),
    jitter=st.timedeltas(timedelta(0), timedelta(minutes=59)),
    early=st.timedeltas(timedelta(0), timedelta(hours=1)),
    late=st.timedeltas(timedelta(0), 40 * DAY),
    since=st.none() | st.dates(date(2020, 1, 1), date(2040, 1, 1)) | moments,
    events=st.sets(st.sampled_from(("deployment", "incident"))).map(tuple),
)


# Due


@given(last=moments, every=intervals, jitter=st.floats(0, 0.99), name=names)
def test_due_is_never_before_the_interval_is_over_nor_after_the_jitter(
    last: datetime, every: timedelta, jitter: float, name: str
) -> None:
    schedule = Schedule(every=every, jitter=every * jitter)
    due = schedule.due_at(last, name)
    assert last + every <= due <= last + every + schedule.jitter
    assert due == Schedule.model_validate_json(schedule.model_dump_json()).due_at(last, name)


@given(last=moments, zone=zones, minimum=st.timedeltas(timedelta(0), 20 * DAY), name=names)
def test_a_cron_is_due_after_the_last_rotation_and_never_before_the_minimum_age(
    last: datetime, zone: str, minimum: timedelta, name: str
) -> None:
    schedule = Schedule(cron="30 2 * * *", timezone=zone, minimum_age=minimum)
    due = schedule.due_at(last, name)
    assert due > last
    assert due >= last + minimum
    assert due <= last + minimum + timedelta(hours=50)


def test_jitter_spreads_secrets_and_is_the_same_for_each_every_time() -> None:
    schedule = Schedule(every=30 * DAY, jitter=DAY)
    last = utc("2026-01-01")
    dues = [schedule.due_at(last, f"secret/{number}") for number in range(200)]
    assert dues == [schedule.due_at(last, f"secret/{number}") for number in range(200)]
    quarters = {int((due - last - 30 * DAY) / timedelta(hours=6)) for due in dues}
    assert quarters == {0, 1, 2, 3}


def test_an_interval_is_elapsed_time_whatever_the_clocks_did_meanwhile() -> None:
    schedule = Schedule(every=DAY, timezone=BERLIN)
    assert schedule.due_at(utc("2026-03-28T12:00"), "x") == utc("2026-03-29T12:00")


@pytest.mark.parametrize(
    ("cron", "zone", "last", "due"),
    [
        ("30 2 * * *", BERLIN, "2026-03-27T12:00", "2026-03-28 02:30 CET"),
        # In the skipped hour: right after it.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29 03:00 CEST"),
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", "2026-03-08 03:00 EDT"),
        # In the hour that repeats: once.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-25 02:30 CEST"),
        ("30 2 * * *", BERLIN, "2026-10-25T00:31", "2026-10-26 02:30 CET"),
        ("30 2 * * *", BERLIN, "2026-10-25T01:00", "2026-10-26 02:30 CET"),
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", "2026-11-01 01:30 EDT"),
        ("30 1 * * *", NEW_YORK, "2026-11-01T05:31", "2026-11-02 01:30 EST"),
        # Every hour goes on in both.
        ("0 * * * *", BERLIN, "2026-10-25T00:00", "2026-10-25 02:00 CET"),
        ("0 9 1 * *", NEW_YORK, "2026-02-15T00:00", "2026-03-01 09:00 EST"),
        # A firing at the moment of the last rotation is not another one.
        ("0 12 * * *", "UTC", "2026-05-01T12:00", "2026-05-02 12:00 UTC"),
    ],
)
def test_a_cron_is_read_in_its_time_zone(cron: str, zone: str, last: str, due: str) -> None:
    assert local(Schedule(cron=cron, timezone=zone).due_at(utc(last), "x"), zone) == due


def test_a_secret_that_was_just_turned_by_hand_lets_firings_pass() -> None:
    schedule = Schedule(cron="0 3 * * *", minimum_age=2 * DAY)
    assert schedule.due_at(utc("2026-05-01T02:59"), "x") == utc("2026-05-03T03:00")
    assert schedule.due_at(utc("2026-05-01T03:00"), "x") == utc("2026-05-03T03:00")
    assert schedule.due_at(utc("2026-05-01T03:01"), "x") == utc("2026-05-04T03:00")


def test_a_moment_without_a_time_zone_is_refused() -> None:
    for ask in (Schedule(every=DAY).opens_at, lambda at: Schedule(every=DAY).due_at(at, "x")):
        with pytest.raises(ValueError, match="needs a time zone"):
            ask(datetime(2026, 1, 1))


# Enabling


@pytest.mark.parametrize(
    ("declared", "last", "first_seen", "due", "origin"),
    [
        # Enabled long after the last rotation: not at once, but an interval after it was enabled.
        ({"every": 30 * DAY}, "2025-01-01", "2026-05-01T12:00", "2026-05-31 14:00 CEST", Origin.FIRST_SIGHT),
        ({"every": 30 * DAY}, "2026-05-03", "2026-05-01T12:00", "2026-06-02 02:00 CEST", Origin.LAST_ROTATION),
        ({"every": 30 * DAY}, "2026-05-01", None, "2026-05-31 02:00 CEST", Origin.LAST_ROTATION),
        ({"every": 30 * DAY, "immediately": True}, "2025-01-01", "2026-05-01", "2025-01-31 01:00 CET", None),
        # What is declared counts, and not what the journal has seen.
        ({"every": DAY, "since": date(2026, 5, 1)}, "2025-01-01", "2027-01-01", "2026-05-02 00:00 CEST", Origin.SINCE),
        ({"every": DAY, "since": datetime(2026, 5, 1, 9)}, "2025-01-01", None, "2026-05-02 09:00 CEST", Origin.SINCE),
        ({"every": DAY, "since": utc("2026-05-01T09:00")}, "2025-01-01", None, "2026-05-02 11:00 CEST", Origin.SINCE),
        ({"every": DAY, "since": date(2026, 5, 1)}, "2026-06-01", None, "2026-06-02 02:00 CEST", None),
        # A day of 23 or 25 hours: the interval is elapsed time from the first moment of the day on.
        ({"every": DAY, "since": date(2026, 3, 29)}, "2025-01-01", None, "2026-03-30 01:00 CEST", Origin.SINCE),
        ({"every": DAY, "since": date(2026, 10, 25)}, "2025-01-01", None, "2026-10-25 23:00 CET", Origin.SINCE),
        # A moment that the clocks skip is the end of the gap, one that they show twice is the first of the two.
        ({"every": DAY, "since": datetime(2026, 3, 29, 2, 30)}, "2025-01-01", None, "2026-03-30 03:00 CEST", None),
        ({"every": DAY, "since": datetime(2026, 10, 25, 2, 30)}, "2025-01-01", None, "2026-10-26 01:30 CET", None),
        # A cron lets the firings before pass, and one at that very moment too.
        ({"cron": "0 3 * * *"}, "2025-01-01", "2026-05-01T12:00", "2026-05-02 03:00 CEST", Origin.FIRST_SIGHT),
        ({"cron": "0 0 * * *", "since": date(2026, 5, 1)}, "2025-01-01", None, "2026-05-02 00:00 CEST", Origin.SINCE),
        ({"cron": "30 2 * * *", "since": date(2026, 3, 29)}, "2025-01-01", None, "2026-03-29 03:00 CEST", None),
        # The minimum age is the secret's, and not the schedule's.
        ({"cron": "0 3 * * *", "minimum_age": 5 * DAY}, "2026-04-28", "2026-05-01", "2026-05-03 03:00 CEST", None),
        ({"cron": "0 3 * * *", "minimum_age": 5 * DAY}, "2025-01-01", "2026-05-01", "2026-05-01 03:00 CEST", None),
    ],
)
def test_a_schedule_counts_from_when_it_was_enabled(
    declared: dict[str, Any], last: str, first_seen: str | None, due: str, origin: Origin | None
) -> None:
    schedule, seen = Schedule(timezone=BERLIN, **declared), utc(first_seen) if first_seen else None
    assert local(schedule.due_at(utc(last), "x", seen), BERLIN) == due
    if origin is not None:
        assert schedule.counts_from(utc(last), seen).origin is origin


@given(last=moments, seen=moments, every=intervals, cron=st.booleans(), since=st.none() | moments)
def test_enabling_rotates_nothing_at_once(
    last: datetime, seen: datetime, every: timedelta, cron: bool, since: datetime | None
) -> None:
    timing: dict[str, Any] = {"cron": "0 3 * * *"} if cron else {"every": every}
    schedule = Schedule(timezone=BERLIN, since=since, **timing)
    due = schedule.due_at(last, "x", seen)
    assert due > max(last, since or seen)
    assert due >= schedule.due_at(last, "x") or since is not None


# Grace before and after


@pytest.mark.parametrize(
    ("declared", "last", "early_from", "overdue_at"),
    [
        ({"every": 30 * DAY}, "2026-05-01", "2026-05-31 02:00 CEST", "2026-05-31 02:00 CEST"),
        (
            {"every": 30 * DAY, "early": 7 * DAY, "late": 2 * DAY},
            "2026-05-01",
            "2026-05-24 02:00 CEST",
            "2026-06-02 02:00 CEST",
        ),
        # Elapsed time, whatever the clocks do meanwhile.
        ({"every": 30 * DAY, "early": DAY, "late": DAY}, "2026-02-27", "2026-03-28 01:00 CET", "2026-03-30 02:00 CEST"),
        # Never taken along before the minimum age.
        ({"every": 30 * DAY, "early": 20 * DAY, "minimum_age": 15 * DAY}, "2026-05-01", "2026-05-16 02:00 CEST", None),
        (
            {"cron": "0 3 1 * *", "early": 7 * DAY, "late": DAY},
            "2026-05-02",
            "2026-05-25 03:00 CEST",
            "2026-06-02 03:00 CEST",
        ),
        # The wait for a window is no delay: the grace begins when it opens.
        (
            {"every": 30 * DAY, "late": DAY, "windows": (Window(weekdays=("wed",), opens=time(9)),)},
            "2026-05-01",
            None,
            "2026-06-04 09:00 CEST",
        ),
        # In spring, when it misses the hour that is skipped, and opens a week later.
        (
            {"every": DAY, "late": DAY, "windows": (Window(weekdays=("sun",), opens=time(2, 15), closes=time(2, 45)),)},
            "2026-03-27T12:00",
            None,
            "2026-04-06 02:15 CEST",
        ),
    ],
)
def test_there_is_grace_before_and_after_the_due_date(
    declared: dict[str, Any], last: str, early_from: str | None, overdue_at: str | None
) -> None:
    schedule = Schedule(timezone=BERLIN, **declared)
    due = schedule.due_at(utc(last), "x")
    if early_from is not None:
        assert local(schedule.early_from(utc(last), due), BERLIN) == early_from
    if overdue_at is not None:
        assert local(schedule.overdue_at(due), BERLIN) == overdue_at


def test_events_are_kept_once_and_in_the_same_order_every_time() -> None:
    schedule = Schedule(every=DAY, minimum_age=DAY, events=("incident", "deployment", "incident"))
    assert schedule.events == ("deployment", "incident")


# Windows and blackouts


def in_some_window(schedule: Schedule, moment: datetime) -> bool:
    """By the wall clock. In zones whose clocks changed within the day before or after, the wall clock cannot tell."""
    zone = ZoneInfo(schedule.timezone)
    now = moment.astimezone(zone)
    if (moment - DAY).astimezone(zone).utcoffset() != (moment + DAY).astimezone(zone).utcoffset():
        return True
    for window in schedule.windows:
        closes = window.closes or time(0)
        opened_on = now.date()
        if closes > window.opens:
            hit = window.opens <= now.time() < closes
        elif now.time() >= window.opens:
            hit = True
        else:
            hit, opened_on = now.time() < closes, now.date() - DAY
        if hit and WEEKDAYS[opened_on.weekday()] in window.weekdays:
            return True
    return not schedule.windows


def in_some_blackout(schedule: Schedule, moment: datetime) -> bool:
    spans = [blackout.span(ZoneInfo(schedule.timezone)) for blackout in schedule.blackouts]
    return any(starts <= moment < ends for starts, ends in spans)


@given(schedule=schedules, at=st.datetimes(datetime(2023, 6, 1), datetime(2027, 1, 1), timezones=st.just(UTC)))
def test_it_opens_in_a_window_and_in_no_blackout_and_stays_so_until_it_closes(schedule: Schedule, at: datetime) -> None:
    opens, closes = schedule.opens_at(at), schedule.closes_at(at)
    assert opens >= at
    assert schedule.opens_at(opens) == opens
    inside = [opens]
    if closes is not None:
        assert closes > opens
        assert schedule.opens_at(closes) > closes or in_some_window(schedule, closes)
        inside += [opens + (closes - opens) / 2, closes - timedelta(microseconds=1)]
    for moment in inside:
        assert in_some_window(schedule, moment)
        assert not in_some_blackout(schedule, moment)


@given(schedule=schedules, at=st.datetimes(datetime(2023, 6, 1), datetime(2027, 1, 1), timezones=st.just(UTC)))
def test_no_earlier_moment_would_have_done(schedule: Schedule, at: datetime) -> None:
    opens = schedule.opens_at(at)
    earlier = [at + (opens - at) * share / 8 for share in range(8)] + [opens - timedelta(minutes=1)]
    for moment in earlier:
        if at <= moment < opens:
            assert not in_some_window_for_certain(schedule, moment) or in_some_blackout(schedule, moment)


def in_some_window_for_certain(schedule: Schedule, moment: datetime) -> bool:
    zone = ZoneInfo(schedule.timezone)
    if (moment - DAY).astimezone(zone).utcoffset() != (moment + DAY).astimezone(zone).utcoffset():
        return False
    return in_some_window(schedule, moment)


@pytest.mark.parametrize(
    ("window", "zone", "at", "opens", "closes"),
    [
        ((time(2), time(4)), BERLIN, "2026-07-01T12:00", "2026-07-02 02:00 CEST", "2026-07-02 04:00 CEST"),
        ((time(22), time(4)), BERLIN, "2026-07-01T22:30", "2026-07-02 00:30 CEST", "2026-07-02 04:00 CEST"),
        ((time(22), time(4), "fri"), NEW_YORK, "2026-07-04T05:00", "2026-07-04 01:00 EDT", "2026-07-04 04:00 EDT"),
        ((time(22), time(4), "fri"), NEW_YORK, "2026-07-04T08:00", "2026-07-10 22:00 EDT", "2026-07-11 04:00 EDT"),
        ((time(0), None, "sat", "sun"), BERLIN, "2026-07-01T12:00", "2026-07-04 00:00 CEST", "2026-07-06 00:00 CEST"),
        # Spring: 02:00 to 03:00 is skipped.
        ((time(2), time(4)), BERLIN, "2026-03-28T12:00", "2026-03-29 03:00 CEST", "2026-03-29 04:00 CEST"),
        ((time(2, 15), time(2, 45)), BERLIN, "2026-03-28T12:00", "2026-03-30 02:15 CEST", "2026-03-30 02:45 CEST"),
        (
            (time(2, 15), time(2, 45), "sun"),
            BERLIN,
            "2026-03-23T12:00",
            "2026-04-05 02:15 CEST",
            "2026-04-05 02:45 CEST",
        ),
        ((time(1), time(2, 30)), NEW_YORK, "2026-03-08T00:00", "2026-03-08 01:00 EST", "2026-03-08 03:00 EDT"),
        # Autumn: 02:00 to 03:00 (01:00 to 02:00 in New York) is there twice.
        ((time(2), time(3)), BERLIN, "2026-10-24T12:00", "2026-10-25 02:00 CEST", "2026-10-25 03:00 CET"),
        ((time(2, 15), time(2, 45)), BERLIN, "2026-10-24T12:00", "2026-10-25 02:15 CEST", "2026-10-25 02:45 CEST"),
        ((time(0), time(1, 30)), NEW_YORK, "2026-11-01T00:00", "2026-11-01 00:00 EDT", "2026-11-01 01:30 EDT"),
    ],
)
def test_a_window_is_local_time(window: Any, zone: str, at: str, opens: str, closes: str) -> None:
    schedule = weekly(*window, timezone=zone)
    assert local(schedule.opens_at(utc(at)), zone) == opens
    end = schedule.closes_at(utc(at))
    assert end is not None
    assert local(end, zone) == closes


def test_without_windows_it_is_open_and_closes_only_for_a_blackout() -> None:
    at = utc("2026-12-20T12:00")
    assert (Schedule(every=DAY).opens_at(at), Schedule(every=DAY).closes_at(at)) == (at, None)
    freeze = Blackout(starts=date(2026, 12, 24), ends=date(2026, 12, 26), reason="holidays")
    schedule = Schedule(every=DAY, timezone=BERLIN, blackouts=(freeze,))
    assert schedule.closes_at(at) == utc("2026-12-23T23:00")
    assert schedule.opens_at(utc("2026-12-24T00:00")) == utc("2026-12-26T23:00")
    assert schedule.closes_at(utc("2026-12-24T00:00")) is None


def test_windows_that_never_leave_a_gap_never_close() -> None:
    always = (Window(opens=time(0), closes=time(12)), Window(opens=time(12)))
    assert Schedule(every=DAY, windows=always).closes_at(utc("2026-05-01T05:00")) is None


def test_a_blackout_in_the_middle_of_a_window_splits_it() -> None:
    freeze = Blackout(starts=utc("2026-05-01T02:00"), ends=utc("2026-05-01T03:00"), reason="a release")
    schedule = weekly(time(1), time(4), blackouts=(freeze,))
    assert schedule.closes_at(utc("2026-05-01T01:00")) == utc("2026-05-01T02:00")
    assert schedule.opens_at(utc("2026-05-01T02:30")) == utc("2026-05-01T03:00")
    assert schedule.closes_at(utc("2026-05-01T02:30")) == utc("2026-05-01T04:00")


# What is refused


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({}, "either an interval (every) or a cron"),
        ({"every": "P1D", "cron": "0 3 * * *"}, "either an interval (every) or a cron"),
        ({"every": "PT0S"}, "is more than nothing"),
        ({"every": "-P1D"}, "is more than nothing"),
        ({"every": "P1D", "jitter": "P1D"}, "jitter of 1 day, 0:00:00 reaches the interval"),
        ({"every": "P1D", "jitter": "-PT1S"}, "not negative"),
        ({"cron": "0 3,4 * * *", "jitter": "PT1H"}, "jitter of 1:00:00 reaches the interval of 1:00:00"),
        ({"every": "P1D", "minimum_age": "P2D"}, "below the minimum age of 2 days"),
        ({"cron": "0 3 30 2 *"}, "never fires"),
        ({"cron": "0 3 * *"}, "five fields"),
        ({"cron": "* 0 3 * * *"}, "five fields"),
        ({"cron": "61 3 * * *"}, "cannot be read"),
        ({"every": "P1D", "timezone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"every": "P1D", "timezone": "../etc/passwd"}, "no time zone"),
        ({"every": "P1D", "windows": [{"opens": "02:00", "closes": "02:00"}]}, "from 02:00:00 to 02:00:00 is empty"),
        ({"every": "P1D", "windows": [{"weekdays": [], "opens": "02:00"}]}, "never opens"),
        ({"every": "P1D", "windows": [{"opens": "02:00+01:00"}]}, "carry no offset"),
        ({"every": "P1D", "windows": [{"weekdays": ["holiday"]}]}, "'mon'"),
        (
            {"every": "P1D", "blackouts": [{"starts": "2026-12-26", "ends": "2026-12-24", "reason": "holidays"}]},
            "the blackout for 'holidays' ends before it starts",
        ),
        (
            {"every": "P1D", "blackouts": [{"starts": "2026-01-01", "ends": "2027-06-30", "reason": "freeze"}]},
            "no window open from 2026-01-01 until 2027-07-01",
        ),
        (
            {
                "every": "P1D",
                "windows": [{"weekdays": ["sun"], "opens": "02:00", "closes": "03:00"}],
                "blackouts": [
                    {"starts": "2026-01-01", "ends": "2026-08-31", "reason": "one"},
                    {"starts": "2026-09-02", "ends": "2027-03-01", "reason": "two"},
                ],
            },
            "no window open from 2026-01-01 until 2027-03-07",
        ),
        ({"every": "P1D", "window": []}, "Extra inputs"),
        ({"every": "P1D", "early": "P1D"}, "early of 1 day, 0:00:00 reaches the interval of 1 day"),
        ({"cron": "0 3,4 * * *", "early": "PT1H"}, "early of 1:00:00 reaches the interval of 1:00:00"),
        ({"every": "P1D", "early": "-PT1S"}, "not negative"),
        ({"every": "P1D", "late": "-PT1S"}, "not negative"),
        ({"every": "P1D", "events": ["deployment"]}, "would never rest without a minimum_age"),
        ({"every": "P1D", "events": ["full moon"]}, "'deployment' or 'incident'"),
        ({"every": "P1D", "events": ["schedule"]}, "'deployment' or 'incident'"),
        ({"every": "P1D", "events": "deployment"}, "valid tuple"),
        ({"events": ["deployment"]}, "either an interval (every) or a cron"),
        ({"every": "P1D", "since": "2026-01-01", "immediately": True}, "since says from when it counts"),
        ({"every": "P1D", "since": "the day before yesterday"}, "valid date"),
        ({"every": "P1D", "since": "9999-12-31"}, "counted from 9999-12-31, its first due date is beyond the calendar"),
        ({"cron": "0 3 * * *", "since": "9999-12-31T12:00"}, "beyond the calendar"),
        ({"every": "P9999999D"}, "beyond the calendar"),
        (
            {
                "every": "P1D",
                "since": "2026-06-01",
                "blackouts": [{"starts": "2026-01-01", "ends": "2027-06-30", "reason": "freeze"}],
            },
            "no window open from 2026-01-01 until 2027-07-01",
        ),
    ],
)
def test_what_cannot_be_satisfied_is_refused_with_the_reason(declared: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Schedule.model_validate(declared)
    assert reason in refused.value.errors()[0]["msg"]


def test_a_cron_outside_the_windows_is_fine_since_it_waits_for_the_next_one() -> None:
    schedule = Schedule(cron="0 12 * * *", windows=(Window(opens=time(2), closes=time(3)),))
    due = schedule.due_at(utc("2026-05-01T13:00"), "x")
    assert schedule.opens_at(due) == utc("2026-05-03T02:00")


@given(schedules)
def test_a_schedule_survives_json_and_pickling(schedule: Schedule) -> None:
    schedule.opens_at(utc("2026-05-01T00:00"))  # which fills what is cached
    assert Schedule.model_validate_json(schedule.model_dump_json()) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule  # noqa: S301  # our own


def test_a_day_is_kept_as_a_day_in_json() -> None:
    freeze = Blackout(starts=date(2026, 12, 24), ends=datetime(2026, 12, 26), reason="holidays")
    kept = Blackout.model_validate_json(freeze.model_dump_json())
    assert (type(kept.starts), type(kept.ends)) == (date, datetime)
