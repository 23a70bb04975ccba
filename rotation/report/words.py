"""How spans and schedules read on the page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from rotation.schedule import WEEKDAYS, Blackout, Schedule, Window


def span(span: timedelta | None) -> str:
    """Two units at most: "23 d", "1 d 4 h", "2 min 5 s", "0.4 s"."""
    if span is None:
        return "–"
    if span < timedelta(seconds=10):
        return f"{span.total_seconds():.1f} s"
    seconds = round(span.total_seconds())
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    size = next(number for number, (_, length) in enumerate(units) if seconds >= length)
    (unit, length), smaller = units[size], units[size + 1 : size + 2]
    words = [f"{seconds // length} {unit}"]
    for lesser, lesser_length in smaller:
        if seconds < 10 * length and (rest := seconds % length // lesser_length):
            words.append(f"{rest} {lesser}")
    return " ".join(words)


def rhythm(schedule: Schedule) -> str:
    """When it is due: "every 30 d", "cron 0 3 * * 1"."""
    return f"every {span(schedule.every)}" if schedule.every is not None else f"cron {schedule.cron}"


def window(window: Window) -> str:
    """When it may act: "mon–thu 09:00–16:00"."""
    closes = f"{window.closes:%H:%M}" if window.closes else "24:00"
    return f"{_weekdays(window)} {window.opens:%H:%M}–{closes}"


def blackout(blackout: Blackout) -> str:
    """When it may not: "2026-12-20 to 2027-01-02: freeze"."""
    return f"{blackout.starts:%Y-%m-%d} to {blackout.ends:%Y-%m-%d}: {blackout.reason}"


def pinned(pins: Mapping[str, int]) -> list[tuple[str, str]]:
    """Each consumer, and the generation that it is pinned to: in every ring the same ("41"), or ring by ring
    ("canary 42, stable 41"). ``pins`` are generations by consumer/ring."""
    consumers: dict[str, dict[str, int]] = {}
    for place, generation in pins.items():
        consumer, _, ring = place.rpartition("/")
        consumers.setdefault(consumer, {})[ring] = generation
    return [(consumer, _generations(rings)) for consumer, rings in consumers.items()]


def _generations(rings: Mapping[str, int]) -> str:
    if len(rings) > 1 and len(set(rings.values())) == 1:
        return str(next(iter(rings.values())))
    return ", ".join(f"{ring} {generation}" for ring, generation in rings.items())


def _weekdays(window: Window) -> str:
    days = [day for day in WEEKDAYS if day in window.weekdays]
    if len(days) == len(WEEKDAYS):
        return "daily"
    together = WEEKDAYS.index(days[-1]) - WEEKDAYS.index(days[0]) + 1 == len(days)
    return f"{days[0]}–{days[-1]}" if together and len(days) > 2 else ", ".join(days)
