"""The report on an incident: what became of each secret, what is left to people, and how long it took. No value is in
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rotation.engine import Result
from rotation.output import table

IGNORED = "windows, blackouts, the minimum age and the evidence of rehearsals are ignored"


class State(StrEnum):
    RETIRED = "retired"  # turned, and the old value is dead
    TURNED = "turned"  # everybody uses the new value, and the old one still works
    WAITING = "waiting"
    FAILED = "failed"
    EMPTY = "empty"  # there was no value to be read


@dataclass(frozen=True, slots=True)
class Line:
    """One secret. ``old`` was current when the incident began, ``new`` is what replaced it. ``why`` says what a state
    that is not the last one waits for, or what failed; ``remedy`` what to do about that."""

    secret: str
    reached: str
    old: int | None
    new: int | None
    state: State
    why: str = ""
    remedy: str = ""

    @property
    def over(self) -> bool:
        return self.state in (State.RETIRED, State.EMPTY)


@dataclass(frozen=True, slots=True)
class Report:
    """``began`` is by system. ``by_hand`` are secrets that keyturn does not manage, with those made with them.
    ``took`` is from the first beginning to the end, or until now. ``results`` are as of the engine."""

    environment: str
    began: Mapping[str, datetime]
    lines: tuple[Line, ...]
    by_hand: Mapping[str, tuple[str, ...]]
    took: timedelta
    results: Mapping[str, Result]

    @property
    def over(self) -> bool:
        return all(line.over for line in self.lines)

    def document(self) -> dict[str, object]:
        """For machines."""
        return {
            "environment": self.environment,
            "systems": dict(self.began),
            "over": self.over,
            "took": self.took,
            "secrets": {
                line.secret: {
                    "reached": line.reached,
                    "old": line.old,
                    "new": line.new,
                    "state": line.state,
                    "why": line.why,
                    "remedy": line.remedy,
                }
                for line in self.lines
            },
            "by_hand": {name: list(made) for name, made in self.by_hand.items()},
        }

    def text(self) -> list[str]:
        """For people."""
        rows = [(li.secret, _turn(li), li.state, _sentence(li) or li.reached) for li in self.lines]
        return [
            *(f"{system}: compromised since {when(at)}" for system, at in self.began.items()),
            *table(("secret", "generation", "state", "why"), rows),
            *(f"by hand: {line}" for line in self._by_hand()),
            f"{self._summary()}; it took {self._span()}",
        ]

    def markdown(self) -> str:
        rows = [(li.secret, _turn(li), li.state, li.reached, _sentence(li)) for li in self.lines]
        lines = [
            f"# Incident in {self.environment}",
            "",
            *(f"- `{system}`: compromised since {when(at)}" for system, at in self.began.items()),
            f"- {self._summary()}; it took {self._span()}",
            f"- {IGNORED}",
            "",
            "| Secret | Generation | State | Reached | To do |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows),
        ]
        if self.by_hand:
            lines += ["", "## To be turned by hand", "", *(f"- {line}" for line in self._by_hand())]
        return "\n".join(lines) + "\n"

    def _by_hand(self) -> list[str]:
        return [
            f"{name}, which no stack declares: if a system could read it, replace it ({', '.join(made)} made with it)"
            for name, made in self.by_hand.items()
        ]

    def _summary(self) -> str:
        over = sum(line.over for line in self.lines)
        return f"{over} of {len(self.lines)} secrets are done with" + ("" if self.over else ": run it again to go on")

    def _span(self) -> str:
        return str(timedelta(seconds=round(self.took.total_seconds())))


def _turn(line: Line) -> str:
    return f"{line.old or '-'} → {line.new or '-'}"


def _sentence(line: Line) -> str:
    return " ".join(filter(None, (f"{line.why}." if line.why else "", line.remedy)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
