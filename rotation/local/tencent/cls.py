"""Cloud Log Service (CLS) 2020-10-16, as far as reading goes: what functions printed can be searched.

A subset of CQL: terms joined by AND (or a blank), each with NOT before it: a word, a "phrase", ``field:word`` or
``field:"phrase"``. Texts are cut at CLS's default delimiters, and compared without case.

Not known of the real service, or not emulated: how long a log takes until it is found (here :attr:`Cls.delay`), SQL,
OR and brackets, several topics in one search, indexes (here everything has one), and UploadLog, which is protobuf.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from rotation.local.tencent.records import Table
from rotation.local.tencent.service import Fields, Parameters, Service, action
from rotation.local.tencent.wire import ApiError, Call

if TYPE_CHECKING:
    from rotation.local.tencent.cloud import Cloud

MOST_BY_CONTEXT = 10_000
CONTEXT_LIFE = 3600  # seconds

_DELIMITERS = re.compile(r"""[@&?|#()='",;:<>\[\]{}/ \n\t\r\\]+""")
_TERM = re.compile(r'\s*(?P<not>NOT\s+)?(?:(?P<field>\w+):)?(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"()|:]+))\s*', re.I)

Fits = Callable[[Mapping[str, str]], bool]


class Topic(BaseModel):
    topic: str
    logset: str
    name: str


class Log(BaseModel):
    """One log. Times are milliseconds since 1970; it is found from ``seen`` on."""

    topic: str
    time: int
    seen: int
    package: str
    number: int
    fields: dict[str, str]


class CreateLogset(Parameters):
    LogsetName: Annotated[str, Field(min_length=1, max_length=255)]


class CreateTopic(Parameters):
    LogsetId: str
    TopicName: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^|]+$")]
    Period: Annotated[int, Field(ge=1, le=3640)] | None = None


class SearchLog(Parameters):
    From: int
    To: int
    TopicId: str | None = None
    QueryString: Annotated[str, Field(max_length=12_288)] = ""
    QuerySyntax: int = 1
    Sort: str = "desc"
    Limit: Annotated[int, Field(ge=1, le=1000)] = 100
    Offset: Annotated[int, Field(ge=0)] | None = None
    Context: str | None = None
    SamplingRate: float | None = None
    UseNewAnalysis: bool = False
    HighLight: bool = False


class Cls(Service):
    """``delay`` is how many seconds a log takes until a search finds it."""

    SERVICE = "cls"
    VERSION = "2020-10-16"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.delay = 0.0
        self._logsets: Table[Topic] = Table(cloud.records, "cls.logsets", Topic)
        self._topics: Table[Topic] = Table(cloud.records, "cls.topics", Topic)
        self._logs: Table[Log] = Table(cloud.records, "cls.logs", Log)

    @action()
    def create_logset(self, _: Call, asked: CreateLogset) -> Fields:
        logset = str(uuid.uuid4())
        self._logsets.put(logset, Topic(topic="", logset=logset, name=asked.LogsetName))
        return {"LogsetId": logset}

    @action()
    def create_topic(self, _: Call, asked: CreateTopic) -> Fields:
        if self._logsets.get(asked.LogsetId) is None:
            raise ApiError("ResourceNotFound.LogsetNotExist", f"The logset `{asked.LogsetId}` does not exist.")
        topics = self._topics.all().values()
        if any(topic.logset == asked.LogsetId and topic.name == asked.TopicName for topic in topics):
            raise ApiError("InvalidParameter.TopicConflict", "The topic's name is taken.")
        topic = str(uuid.uuid4())
        self._topics.put(topic, Topic(topic=topic, logset=asked.LogsetId, name=asked.TopicName))
        return {"TopicId": topic}

    def write(self, topic: str, logs: list[dict[str, str]], times: list[float] | None = None) -> None:
        """Put logs into a topic, with these times (seconds since 1970) or now. One package, as an agent sends it."""
        now = self.cloud.clock.now()
        package = uuid.uuid4().hex.upper()[:16]
        with self.cloud.records.transaction():
            for number, fields in enumerate(logs):
                time = times[number] if times else now
                seen = int((now + self.delay) * 1000)
                log = Log(topic=topic, time=int(time * 1000), seen=seen, package=package, number=number, fields=fields)
                self._logs.put(f"{package}-{number}", log)

    @action()
    def search_log(self, _: Call, asked: SearchLog) -> Fields:
        topic = self._topic(asked)
        found = self._found(asked, topic)
        first = self._first(asked)
        page = found[first : first + asked.Limit]
        if asked.Context is not None and first + len(page) > MOST_BY_CONTEXT:
            raise ApiError("FailedOperation.GetlogReachLimit", f"A context gives {MOST_BY_CONTEXT} logs at most.")
        return {
            "Context": self._context(asked, first + len(page)),
            "ListOver": first + len(page) >= len(found),
            "Analysis": False,
            "Results": [_shown(log, topic) for log in page],
            "ColNames": None,
            "AnalysisResults": None,
            "AnalysisRecords": None,
            "Columns": None,
            "SamplingRate": 1,
            "Topics": None,
        }

    def _topic(self, asked: SearchLog) -> Topic:
        if asked.TopicId is None:
            raise ApiError("InvalidParameter", "One of TopicId and Topics is needed; only TopicId is emulated.")
        if asked.Sort not in ("asc", "desc") or asked.QuerySyntax != 1:
            raise ApiError("InvalidParameter", "Sort is asc or desc; of QuerySyntax only 1 is emulated.")
        if asked.From >= asked.To:
            raise ApiError("InvalidParameter", "From is before To.")
        if (topic := self._topics.get(asked.TopicId)) is None:
            raise ApiError("ResourceNotFound.TopicNotExist", f"The topic `{asked.TopicId}` does not exist.")
        return topic

    def _found(self, asked: SearchLog, topic: Topic) -> list[Log]:
        fits = parse_query(asked.QueryString)
        now = self.cloud.clock.now() * 1000
        logs = [
            log
            for log in self._logs.all().values()
            if log.topic == topic.topic and log.seen <= now and asked.From <= log.time < asked.To and fits(log.fields)
        ]
        return sorted(logs, key=lambda log: (log.time, log.number), reverse=asked.Sort == "desc")

    def _first(self, asked: SearchLog) -> int:
        """Where the page begins. Raises :class:`ApiError` for a context of another search, or an old one."""
        if asked.Context is None:
            return asked.Offset or 0
        if asked.Offset is not None:
            raise ApiError("InvalidParameter", "Context and Offset exclude each other.")
        try:
            search, first, made = json.loads(base64.urlsafe_b64decode(asked.Context))
        except ValueError:
            search, first, made = "", 0, 0
        if search != _identity(asked) or self.cloud.clock.now() > made + CONTEXT_LIFE:
            raise ApiError("FailedOperation.InvalidContext", "The context is not of this search, or too old.")
        return int(first)

    def _context(self, asked: SearchLog, next_one: int) -> str:
        about = [_identity(asked), next_one, self.cloud.clock.now()]
        return base64.urlsafe_b64encode(json.dumps(about).encode()).decode()


def parse_query(text: str) -> Fits:
    """What a query asks of a log's fields. Raises :class:`ApiError` for what is not of the subset."""
    terms: list[Fits] = []
    rest = text.strip()
    if rest in ("", "*"):
        return lambda _: True
    while rest:
        found = _TERM.match(rest)
        if found is None:
            raise ApiError("FailedOperation.SyntaxError", "The query is not CQL, or not emulated.")
        terms.append(_term(found))
        rest = rest[found.end() :]
        if joined := re.match(r"AND\s+", rest, re.I):
            rest = rest[joined.end() :]
    return lambda fields: all(term(fields) for term in terms)


def _term(found: re.Match[str]) -> Fits:
    wanted = _words(found["phrase"] if found["phrase"] is not None else found["word"])
    field, negated = found["field"], bool(found["not"])

    def fits(fields: Mapping[str, str]) -> bool:
        texts = [fields.get(field, "")] if field else fields.values()
        return any(_within(wanted, _words(text)) for text in texts) is not negated

    return fits


def _words(text: str) -> list[str]:
    return [word for word in _DELIMITERS.split(text.lower()) if word]


def _within(wanted: list[str], words: list[str]) -> bool:
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def _identity(asked: SearchLog) -> str:
    about = asked.model_dump_json(exclude={"Context", "Offset"})
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def _shown(log: Log, topic: Topic) -> dict[str, Any]:
    return {
        "Time": log.time,
        "TopicId": topic.topic,
        "TopicName": topic.name,
        "Source": "127.0.0.1",
        "FileName": "",
        "PkgId": log.package,
        "PkgLogId": str(log.number),
        "HighLights": None,
        "LogJson": json.dumps(log.fields, ensure_ascii=False),
        "HostName": "",
        "RawLog": None,
        "IndexStatus": "",
        "TimeNanos": log.time * 1_000_000,
    }
