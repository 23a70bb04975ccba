"""Judge one generation of a secret by the log lines that name it, wherever the lines come from.

Only lines that name the secret and the generation count, so that what the old generation broke is never held against
the new one. The defaults read lines like::

    2026-11-22T08:16:36.123Z ERROR ring=canary secret=orders/db generation=42 InsufficientPrivilege (42501)
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rotation.model import Health, Verdict
from rotation.redaction import redact

_SAMPLES = 3

Line = tuple[datetime, str]


def _attributes(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if not {"secret", "generation"} <= pattern.groupindex.keys():
        raise ValueError("the expression needs the named groups (?P<secret>…) and (?P<generation>…)")
    return pattern


class LineOptions(BaseModel):
    """More than ``max_errors`` error lines within any ``window`` seconds are bad; fewer than ``min_lines`` lines say
    nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    error: re.Pattern[str] = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b")
    attribution: Annotated[re.Pattern[str], AfterValidator(_attributes)] = re.compile(
        r"\bsecret=(?P<secret>\S+) generation=(?P<generation>\d+)\b"
    )
    window: float = Field(default=10.0, gt=0)
    max_errors: int = Field(default=0, ge=0)
    min_lines: int = Field(default=1, ge=1)


@dataclass(slots=True)
class _Count:
    """What was seen of one generation: its lines, those of them that are settled, the times of its errors, and the
    first few of them."""

    lines: int = 0
    settled: int = 0
    errors: list[datetime] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)

    def worst(self, window: timedelta) -> int:
        """The most errors within any window of this length; one at each end of it are in the same window."""
        times = sorted(self.errors)
        return max((i + 1 - bisect_left(times, time - window) for i, time in enumerate(times)), default=0)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: of which ``source``, about which generation of which secret, and since when. Lines after
    ``settled`` may have others before them that are still on their way: they are no evidence of health."""

    source: str
    secret: str
    generation: int
    since: datetime
    settled: datetime


def judge(lines: Iterable[Line], options: LineOptions, asked: Asked) -> Verdict:
    """How the generation has been doing by these lines."""
    count = _count(lines, options, asked)
    worst = count.worst(timedelta(seconds=options.window))
    seen = (
        f"{asked.source}: {count.lines} lines of {asked.secret} generation {asked.generation} "
        f"since {asked.since:%H:%M:%S}, {len(count.errors)} errors, at most {worst} within {options.window:g} s"
    )
    if worst > options.max_errors:
        return Verdict(Health.BAD, (seen, *count.samples))
    if count.settled < options.min_lines:
        until = f" until {asked.settled:%H:%M:%S}" if count.settled < count.lines else ""
        return Verdict(Health.UNKNOWN, (f"{seen} (needs {options.min_lines} lines{until})",))
    return Verdict(Health.GOOD, (seen,))


def _count(lines: Iterable[Line], options: LineOptions, asked: Asked) -> _Count:
    count = _Count()
    for time, line in lines:
        found = options.attribution.search(line)
        if not found or not _is(found, asked):
            continue
        count.lines += 1
        count.settled += time <= asked.settled
        if options.error.search(line):
            count.errors.append(time)
            if len(count.samples) < _SAMPLES:
                count.samples.append(redact(line, keep=(asked.secret,)))
    return count


def _is(found: re.Match[str], asked: Asked) -> bool:
    number = found["generation"]
    same = found["secret"] == asked.secret and number is not None and number.isdecimal()
    return same and int(number) == asked.generation
