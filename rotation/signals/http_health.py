"""A health endpoint, one for each instance of a ring. It answers with a JSON object::

    {"status": "ok", "generations": {"orders/db": 42}, "failing": {"orders/db": 43}}

``generations`` is what the instance uses. ``failing``, which an instance may leave out, blames generations: those that
it could not switch to, or that fail in use. While it blames some, the others are not held to account for its status.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Self

import urllib3
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rotation.model import Health, Verdict
from rotation.options import parse
from rotation.redaction import redact
from rotation.signals import ReportsRunning, Signal

_Url = Annotated[str, Field(pattern="^https?://")]
_AT_ONCE = 8  # instances asked at the same time
_LONGEST = 1024 * 1024  # bytes of an answer that are read


class HttpHealthOptions(BaseModel):
    """``url`` for one instance or ``urls`` for several. ``timeout`` is in seconds, for connecting and for answering.

    ``expect_status`` is what ``status`` says when all is well, ``pending_status`` what it says while it cannot tell
    yet; ``generations`` is that field's name in the answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: _Url | None = None
    urls: tuple[_Url, ...] = ()
    timeout: float = Field(default=2.0, gt=0)
    expect_status: str = "ok"
    pending_status: str = "starting"
    generations: str = "generations"

    @model_validator(mode="after")
    def _names_an_instance(self) -> Self:
        if not self.instances:
            raise ValueError("name the instance's url, or the urls of several")
        return self

    @property
    def instances(self) -> tuple[str, ...]:
        return (self.url, *self.urls) if self.url else self.urls


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one instance said; ``problem`` tells why there is nothing that can be understood."""

    url: str
    code: int = 0
    status: object = None
    generations: Mapping[str, Any] = field(default_factory=dict)
    failing: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    def runs(self, secret: str) -> int | None:
        generation = self.generations.get(secret)
        return generation if type(generation) is int else None


class HttpHealth(Signal, ReportsRunning):
    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse(HttpHealthOptions, options, "signal http_health")

    def running(self, secret: str) -> int | None:
        reports = {answer.runs(secret) for answer in self._ask()}
        return reports.pop() if len(reports) == 1 else None

    def read(self, secret: str, generation: int, since: datetime, now: datetime) -> Verdict:
        del since, now  # the endpoint tells how things are at present, whenever that is
        return Verdict.of(self._judge(answer, secret, generation) for answer in self._ask())

    def _judge(self, answer: _Answer, secret: str, generation: int) -> Verdict:
        said, health = self._weigh(answer, secret, generation)
        return Verdict(health, (redact(f"{answer.url} {said}", keep=(secret,)),))

    def _weigh(self, answer: _Answer, secret: str, generation: int) -> tuple[str, Health]:
        what = f"{secret} generation {generation}"
        if answer.problem:
            return answer.problem, Health.UNKNOWN
        if answer.failing.get(secret) == generation:
            return f"says that it fails with {what}", Health.BAD
        if (running := answer.runs(secret)) != generation:
            return f"runs generation {running} of {secret}, not {generation}", Health.UNKNOWN
        said = f"answers {answer.code} {answer.status!r} with {what}"
        if 200 <= answer.code < 300 and answer.status == self._options.expect_status:
            return said, Health.GOOD
        if answer.failing:
            return f"{said}, and blames {', '.join(sorted(answer.failing))}", Health.UNKNOWN
        not_ok = isinstance(answer.status, str) and answer.status not in {
            self._options.expect_status,
            self._options.pending_status,
        }
        return said, Health.BAD if not_ok or answer.code >= 500 else Health.UNKNOWN

    def _ask(self) -> list[_Answer]:
        """One answer per instance, in the order of the options."""
        urls = self._options.instances
        with urllib3.PoolManager(retries=False) as client, ThreadPoolExecutor(min(len(urls), _AT_ONCE)) as threads:
            return list(threads.map(lambda url: self._ask_one(client, url), urls))

    def _ask_one(self, client: urllib3.PoolManager, url: str) -> _Answer:
        timeout = self._options.timeout
        try:
            response = client.request("GET", url, timeout=timeout, redirect=False, preload_content=False)
            with response:
                content = json.loads(_body(response, time.monotonic() + timeout))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return _Answer(url, problem=f"cannot be asked ({type(error).__name__})")
        except ValueError:
            return _Answer(url, problem=f"answers {response.status}, and not with JSON")
        if not isinstance(content, dict):
            return _Answer(url, problem=f"answers {response.status}, and not with a JSON object")
        generations, failing = (content.get(name) for name in (self._options.generations, "failing"))
        return _Answer(
            url,
            response.status,
            content.get("status"),
            generations if isinstance(generations, dict) else {},
            failing if isinstance(failing, dict) else {},
        )


def _body(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The answer's body, unless it is too long or comes too slowly."""
    body = bytearray()
    while chunk := response.read1(64 * 1024):
        body += chunk
        if len(body) > _LONGEST or time.monotonic() > deadline:
            raise TimeoutError
    return bytes(body)
