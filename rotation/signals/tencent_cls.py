"""A log topic of Tencent Cloud's Log Service (CLS): errors that the application attributes to a secret's generation.

The lines are judged as those of a log file (:mod:`rotation.log_health`). What a cloud function prints comes as the
field ``SCF_Message`` of one log each (https://cloud.tencent.com/document/product/583/60336).

- Logs come late: lines of the last ``delay`` seconds are no evidence of health, for there may be errors before them
  that are still on their way. Errors count at once. Where nothing is there, health is unknown.
- CLS gives at most 10,000 logs to one question; where there are more and none of them is bad, health is unknown, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rotation.errors import KeyturnError, Unavailable
from rotation.log_health import Asked, Line, LineOptions, judge
from rotation.model import Health, Verdict
from rotation.options import parse
from rotation.signals import Signal
from rotation.tencentcloud import Connection, Manner, connect

PAGE = 1000  # logs of one answer, CLS's most
MOST = 10_000  # logs of one question with all its pages, CLS's most
_CQL = 1  # the query language's number

_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "FailedOperation.ReadQpsLimit": Unavailable,
    "FailedOperation.SearchTimeout": Unavailable,
    "LimitExceeded.LogSearch": Unavailable,
}


class _Unreadable(KeyturnError):
    """The topic, or its answer, cannot be read."""


class TencentClsOptions(LineOptions, Connection):
    """``topic`` is the topic's ID; ``field`` is the one of its fields that holds the application's line.

    ``query`` finds the lines in CQL (https://www.tencentcloud.com/document/product/614/37803), where ``{secret}`` and
    ``{generation}`` stand for what is looked for; the topic needs a full-text index for the default. What it finds is
    looked at again with ``attribution``. ``delay`` is how many seconds a line may take into the topic.
    """

    topic: str = Field(min_length=1)
    query: str = '"secret={secret} generation={generation}"'
    field: str = "SCF_Message"
    delay: float = Field(default=60.0, ge=0)


class _Log(BaseModel):
    """One log of an answer. ``RawLog`` is there where CLS could not index it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    Time: int  # milliseconds since 1970
    LogJson: str | None = None
    RawLog: str | None = None

    def line(self, field: str) -> Line:
        fields = json.loads(self.LogJson or "{}")
        text = str(fields.get(field, "")) or self.RawLog or ""
        return datetime.fromtimestamp(self.Time / 1000, UTC), text


class TencentCls(Signal):
    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse(TencentClsOptions, options, "signal tencent_cls")

    def read(self, secret: str, generation: int, since: datetime, now: datetime) -> Verdict:
        settled = now - timedelta(seconds=self._options.delay)
        asked = Asked(f"topic {self._options.topic}", secret, generation, since, settled)
        try:
            lines = list(self._lines(asked, now))
        except KeyturnError as error:
            return Verdict(Health.UNKNOWN, (f"{asked.source} cannot be read: {error}",))
        verdict = judge(lines, self._options, asked)
        if verdict.health is Health.GOOD and len(lines) >= MOST:
            few = f"it has more than {MOST} lines since then, and only so many can be read: narrow the query"
            return Verdict(Health.UNKNOWN, (*verdict.evidence, few))
        return verdict

    def _lines(self, asked: Asked, now: datetime) -> Iterator[Line]:
        """All lines of that time, the newest first, as far as CLS gives them."""
        cloud = connect(self._options)
        names = {"secret": asked.secret, "generation": str(asked.generation)}
        query = {
            "TopicId": self._options.topic,
            "From": _milliseconds(asked.since),
            "To": _milliseconds(now) + 1,  # which is not included
            "QueryString": _filled(self._options.query, names),
            "QuerySyntax": _CQL,
            "Limit": PAGE,
            "UseNewAnalysis": True,
        }
        manner = Manner(f"search {asked.source}", _Unreadable, _REFUSALS, ("ListOver", "Analysis"))
        context: dict[str, str] = {}
        for _ in range(MOST // PAGE):
            reply = cloud.call("cls", "SearchLog", {**query, **context}, manner)
            yield from self._read(reply)
            if reply["ListOver"]:
                return
            if not reply.get("Context"):  # without one CLS would give the first page again
                raise _Unreadable("an answer does not say where it goes on")
            context = {"Context": str(reply["Context"])}

    def _read(self, reply: Mapping[str, Any]) -> Iterator[Line]:
        if reply["Analysis"]:
            raise _Unreadable("the query holds an SQL statement, and gives no lines", "Leave out | and what follows.")
        try:
            for log in reply.get("Results") or ():
                yield _Log.model_validate(log).line(self._options.field)
        except (ValidationError, ValueError) as error:
            raise _Unreadable(f"a log of topic {self._options.topic} is not as it is documented") from error


def _filled(query: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        query = query.replace(f"{{{name}}}", value)
    return query


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
