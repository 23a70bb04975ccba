"""A log file: errors that the application itself attributes to a secret's generation (:mod:`rotation.log_health`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from rotation.log_health import Asked, LineOptions, judge
from rotation.log_tail import lines_since
from rotation.model import Health, Verdict
from rotation.options import parse
from rotation.signals import Signal


def _has_a_group(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if pattern.groups < 1:
        raise ValueError("the expression needs a group that holds the time")
    return pattern


class LogFileOptions(LineOptions):
    """``path`` is relative to the working directory. ``timestamp`` stands at the line's start: ISO 8601."""

    path: Path
    timestamp: Annotated[re.Pattern[str], AfterValidator(_has_a_group)] = re.compile(
        r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
    )


class LogFile(Signal):
    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse(LogFileOptions, options, "signal log_file")

    def read(self, secret: str, generation: int, since: datetime, now: datetime) -> Verdict:
        name = self._options.path.name
        lines = lines_since(self._options.path, since, self._options.timestamp)
        asked = Asked(name, secret, generation, since, settled=now)
        try:
            return judge(((time, line) for time, line in lines if time <= now), self._options, asked)
        except OSError as error:
            return Verdict(Health.UNKNOWN, (f"{name} cannot be read: {error.strerror or error}",))
