"""The report's charts as SVG. The page's own style sheet colours them, so that they follow light and dark.

pygal makes plain, small SVG without a canvas or a network, with classes to style it by. What else it brings (style
sheets, scripts, tooltips, comments with addresses) is taken out here: the page allows nothing but its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any
from xml.etree import ElementTree

import pygal
from markupsafe import Markup
from pygal.style import Style

from rotation.report.due_calendar import WEEKS, Calendar
from rotation.report.history import Phase, Turn
from rotation.report.posture import Standing
from rotation.report.words import span

# It leaves an import hook for maps, of a kind that Python 3.11 warns of at every import and 3.12 does not call.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

_BUCKETS = ((0.25, "to 25 %"), (0.5, "to 50 %"), (0.75, "to 75 %"), (1.0, "to 100 %"), (float("inf"), "over"))
_FONT = Style(label_font_size=11, major_label_font_size=11, value_font_size=11, no_data_font_size=13)
_LAYOUT: dict[str, Any] = {
    "width": 360,
    "height": 200,
    "margin": 6,
    "style": _FONT,
    "css": [],
    "js": [],
    "show_legend": False,
    "show_y_guides": False,
    "show_y_labels": False,
    "print_values": True,
    "print_values_position": "top",
    "print_zeroes": False,
    "rounded_bars": 2,
    "truncate_label": -1,
    "no_data_text": "nothing yet",
}
_WEEKLY = {"x_labels_major_every": 3, "show_minor_x_labels": False}
_DROPPED = {"style", "script", "desc", "title"}
_NAMESPACE = re.compile(r' xmlns(:\w+)?="[^"]*"')  # inside HTML it goes without saying


def ages(standings: Iterable[Standing]) -> Markup:
    """How many secrets have reached which share of the age that their policy allows."""
    shares = [share for standing in standings if (share := standing.share) is not None]
    counts: dict[str, int] = {}
    low = float("-inf")
    for high, label in _BUCKETS:
        counts[label] = sum(low < share <= high for share in shares)
        low = high
    within = [None if label == "over" else count for label, count in counts.items()]
    over = [count if label == "over" else None for label, count in counts.items()]
    return _bars("ages", "Secrets by their share of the age that the policy allows", counts, (within, over))


def due_per_week(due: Calendar) -> Markup:
    """How many turns are due in each of the coming weeks."""
    counts = {f"{monday:%-d %b}": count for monday, count in due.per_week}
    return _bars("due", "Turns due per week, by its Monday", counts, (list(counts.values()),), **_WEEKLY)


def turns_per_week(past: Iterable[Turn], now: datetime) -> Markup:
    """How many rotations were promoted, and how many rolled back, in each of the weeks up to now."""
    monday = now.date() - timedelta(days=now.weekday())
    mondays = [monday - timedelta(weeks=back) for back in reversed(range(WEEKS))]
    promoted, rolled_back = dict.fromkeys(mondays, 0), dict.fromkeys(mondays, 0)
    for turn in past:
        if turn.closed is not None:
            week = turn.closed.date() - timedelta(days=turn.closed.weekday())
            counts = rolled_back if turn.rolled_back else promoted
            if week in counts:
                counts[week] += 1
    said = {f"{week:%-d %b}": f"{promoted[week]} promoted and {rolled_back[week]} rolled back" for week in mondays}
    series = (list(promoted.values()), list(rolled_back.values()))
    scale = {
        "show_y_labels": True,
        "show_y_guides": True,
        "print_values": False,
        "max_scale": 5,
    }  # figures in a stack would collide
    return _bars("turns", "Rotations ended per week", said, series, **_WEEKLY, **scale)


def phase_times(past: Iterable[Turn]) -> Markup:
    """The median time of each phase, over the rotations that went through it and are closed."""
    spent: dict[Phase, list[float]] = {}
    for turn in past:
        for phase, took in turn.phases if turn.closed is not None else ():
            spent.setdefault(phase, []).append(took.total_seconds())
    medians = {phase.value: median(spent[phase]) for phase in Phase if phase in spent}
    said = {phase: span(timedelta(seconds=seconds)) for phase, seconds in medians.items()}
    chart = pygal.HorizontalBar(
        **_LAYOUT | {"show_y_labels": True, "show_x_labels": False, "show_x_guides": False, "print_zeroes": True},
        formatter=lambda seconds: span(timedelta(seconds=seconds)),
        range=(0, max(medians.values(), default=1) * 1.25),  # room for the longest one's label
    )
    # pygal draws from the bottom up.
    chart.x_labels = list(reversed(medians))
    chart.add("median", list(reversed(medians.values())))
    return _svg(chart, "phases", "Median time of each phase of a rotation", said)


def _bars(
    name: str, title: str, said: Mapping[str, object], series: Sequence[Sequence[int | None]], **layout: Any
) -> Markup:
    """A stacked bar for each label in ``said``."""
    chart = pygal.StackedBar(**_LAYOUT | layout)
    chart.x_labels = list(said)
    if any(any(values) for values in series):
        for values in series:
            chart.add(None, values)
    return _svg(chart, name, title, said)


def _svg(chart: Any, name: str, title: str, said: Mapping[str, object]) -> Markup:
    root = chart.render_tree()
    _strip(root)
    root.attrib.update({"id": f"chart-{name}", "role": "img", "aria-labelledby": f"chart-{name}-title"})
    heading = ElementTree.Element("title", id=f"chart-{name}-title")
    heading.text = f"{title}. " + "; ".join(f"{label}: {value}" for label, value in said.items())
    root.insert(0, heading)
    # All text in it went through ElementTree, which escapes it.
    return Markup(_NAMESPACE.sub("", ElementTree.tostring(root, encoding="unicode")))  # noqa: S704


def _strip(element: Any) -> None:
    for child in list(element):
        tooltip = child.get("class", "").startswith("tooltip") if isinstance(child.tag, str) else True
        if tooltip or child.tag in _DROPPED:
            element.remove(child)
        else:
            _strip(child)
