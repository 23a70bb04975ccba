"""The report as HTML. Everything is escaped by Jinja2; the page allows no loading, and no style or script but its own,
which it names by their digests."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from datetime import datetime, timedelta
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rotation.drift import Class, Finding
from rotation.report import Report, charts, words
from rotation.report.history import OPEN, Phase, Turn
from rotation.report.posture import ALARMING, WAITING, State

MOST_ALARMS = 12  # that are listed before the table of all
MOST_ROLLBACKS = 20  # that are told in full
MOST_NAMES = 40  # of one day's secrets


def render(report: Report) -> str:
    """The page."""
    style, script = _own("page.css"), _own("page.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    findings = report.drift.findings if report.drift is not None else ()
    rollbacks = [turn for turn in report.turns if turn.rolled_back]
    busiest = max((len(day.secrets) for week in report.calendar.weeks for day in week), default=0)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            policy=policy,
            style=style,
            script=script,
            alarms=[standing for standing in report.standings if standing.state in ALARMING],
            drifted=sum(finding.counts for finding in findings),
            findings=Counter(finding.found for finding in findings).items(),
            outcomes=Counter(turn.outcome for turn in report.turns).most_common(),
            rollbacks=rollbacks,
            schedules=Counter(one.secret.schedule for one in report.standings if one.secret.schedule is not None),
            busiest=busiest,
            most_alarms=MOST_ALARMS,
            most_rollbacks=MOST_ROLLBACKS,
            most_names=MOST_NAMES,
            charts={
                "ages": charts.ages(report.standings),
                "due": charts.due_per_week(report.calendar),
                "turns": charts.turns_per_week(report.turns, report.made_at),
                "phases": charts.phase_times(report.turns),
            },
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rotation.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "span": words.span,
        "when": _when,
        "number": lambda number: f"{number:,}",
        "rhythm": words.rhythm,
        "window": words.window,
        "pinned": words.pinned,
        "blackout": words.blackout,
        "tone": _tone,
        "outcome_tone": _outcome_tone,
        "finding_tone": _finding_tone,
        "rank": list(State).index,
        "slug": lambda text: text.replace(" ", "-"),
        "strip": _strip,
    }
    return environment


def _own(name: str) -> Markup:
    # Files of this package, and not somebody's words.
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))  # noqa: S704


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _when(moment: datetime) -> Markup:
    return Markup('<time datetime="{:%Y-%m-%dT%H:%MZ}">{:%Y-%m-%d %H:%M}</time>').format(moment, moment)


def _tone(state: State) -> str:
    if state in ALARMING:
        return "alarm"
    if state in WAITING:
        return "wait"
    return "busy" if state is State.ROTATING else "good"


def _strip(turn: Turn) -> list[tuple[Phase, float, float]]:
    """A rotation's phases as parts of a whole of 100: where each begins, and how wide it is."""
    whole = sum((took for _, took in turn.phases), timedelta(0)) or timedelta(1)
    parts = []
    begun = 0.0
    for phase, took in turn.phases:
        wide = 100 * (took / whole)
        parts.append((phase, round(begun, 2), round(wide, 2)))
        begun += wide
    return parts


def _outcome_tone(turn: Turn) -> str:
    return "alarm" if turn.rolled_back else "busy" if turn.outcome == OPEN else "good"


def _finding_tone(finding: Finding) -> str:
    if finding.counts:
        return "alarm"
    return "wait" if finding.found is Class.UNCHECKED else "busy" if finding.found is Class.EXPECTED else ""
