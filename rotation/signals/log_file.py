"""A log file: errors that the application itself attributes to a secret's generation.

Only lines that name the secret and the generation count, so that what the old generation broke is never held against
the new one. The defaults read lines like::

    2026-11-22T08:16:36.123Z ERROR ring=canary secret=orders/db generation=42 InsufficientPrivilege (42501)
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rotation.log_tail import lines_since
from rotation.model import Health, Verdict
from rotation.options import parse
from rotation.redaction import redact
from rotation.signals import Signal

_SAMPLES = 3


def _attributes(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if not {"secret", "generation"} <= pattern.groupindex.keys():
        raise ValueError("the expression needs the named groups (?P<secret>…) and (?P<generation>…)")
    return pattern


def _has_a_group(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if pattern.groups < 1:
        raise ValueError("the expression needs a group that holds the time")
    return pattern


class LogFileOptions(BaseModel):
    """``path`` is relative to the working directory. More than ``max_errors`` error lines within any ``window`` seconds
    are bad; fewer than ``min_lines`` lines say nothing. ``timestamp`` stands at the line's start: ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    error: re.Pattern[str] = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b")
    attribution: Annotated[re.Pattern[str], AfterValidator(_attributes)] = re.compile(
        r"\bsecret=(?P<secret>\S+) generation=(?P<generation>\d+)\b"
    )
    timestamp: Annotated[re.Pattern[str], AfterValidator(_has_a_group)] = re.compile(
        r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
    )
    window: float = Field(default=10.0, gt=0)
    max_errors: int = Field(default=0, ge=0)
    min_lines: int = Field(default=1, ge=1)


@dataclass(slots=True)
class _Count:
    """What was seen of one generation: its lines, the times of its errors, and the first few of them."""

    lines: int = 0
    errors: list[datetime] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)

    def worst(self, window: timedelta) -> int:
        """The most errors within any window of this length; one at each end of it are in the same window."""
        times = sorted(self.errors)
        return max((i + 1 - bisect_left(times, time - window) for i, time in enumerate(times)), default=0)


class LogFile(Signal):
    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse(LogFileOptions, options, "signal log_file")

    def read(self, secret: str, generation: int, since: datetime, now: datetime) -> Verdict:
        name = self._options.path.name
        try:
            count = self._count(secret, generation, since, now)
        except OSError as error:
            return Verdict(Health.UNKNOWN, (f"{name} cannot be read: {error.strerror or error}",))
        worst = count.worst(timedelta(seconds=self._options.window))
        seen = (
            f"{name}: {count.lines} lines of {secret} generation {generation} since {since:%H:%M:%S}, "
            f"{len(count.errors)} errors, at most {worst} within {self._options.window:g} s"
        )
        if worst > self._options.max_errors:
            return Verdict(Health.BAD, (seen, *count.samples))
        if count.lines < self._options.min_lines:
            return Verdict(Health.UNKNOWN, (f"{seen} (needs {self._options.min_lines} lines)",))
        return Verdict(Health.GOOD, (seen,))

    def _count(self, secret: str, generation: int, since: datetime, now: datetime) -> _Count:
        count = _Count()
        for time, line in lines_since(self._options.path, since, self._options.timestamp):
            found = self._options.attribution.search(line)
            if time > now or not found or not _is(found, secret, generation):
                continue
            count.lines += 1
            if self._options.error.search(line):
                count.errors.append(time)
                if len(count.samples) < _SAMPLES:
                    count.samples.append(redact(line, keep=(secret,)))
        return count


def _is(found: re.Match[str], secret: str, generation: int) -> bool:
    number = found["generation"]
    return found["secret"] == secret and number is not None and number.isdecimal() and int(number) == generation
