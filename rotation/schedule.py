"""When a secret is due. Pure: it looks at no clock of its own."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict


class Schedule(BaseModel):
    """An interval or a cron expression, and when it may act."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: timedelta | None = None
    cron: str | None = None
    timezone: str = "UTC"
    jitter: timedelta = timedelta(0)
