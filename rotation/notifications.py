"""Tell people what became of a run: one message per run and recipient, through Apprise, at the run's end.

A message never costs more than it is worth: a recipient that does not answer delays nothing for longer than
:data:`LIMIT`, fails nothing, and leaves one line of warning and one in the audit trail. Texts hold names, generations
and redacted reasons. Addresses hold tokens: none is printed, and of Apprise's own log only a status code is quoted.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rotation.errors import KeyturnError
from rotation.journal import Journal
from rotation.pipeline import run_url
from rotation.redaction import redact
from rotation.settings import Notify, Topic

if TYPE_CHECKING:
    from rotation.engine import Event

LIMIT = 10.0  # seconds for all recipients together
MOST_LINES = 40
_ENDS = {topic.value: topic for topic in (Topic.PROMOTED, Topic.ROLLED_BACK, Topic.BLOCKED)}  # as the engine says them
_ALARMING = frozenset({Topic.ROLLED_BACK, Topic.BLOCKED, Topic.OVERDUE, Topic.INCIDENT})
_STATUS = re.compile(r"\berror=(\d{3})\b")

Warn = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Notice:
    """One line of a message. ``subject`` is a secret, a system or a stack; ``remedy`` is what to do."""

    topic: Topic
    subject: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        about = f"{self.subject}: {self.what}" if self.subject else self.what
        return f"{self.topic}: {about}" + (f". {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class _Mark:
    """What was told of a subject, so that it is told again only when it is something else."""

    subject: str
    topic: Topic
    fingerprint: str


class Notifier:
    """What a run has to tell, sent when the block ends, unless it is interrupted. Safe for the engine's threads."""

    def __init__(self, recipients: Sequence[Notify], environment: str, journal: Journal, warn: Warn) -> None:
        self._recipients = recipients
        self._environment = environment
        self._journal = journal
        self._warn = warn
        self._notices: list[Notice] = []
        self._marks: list[_Mark] = []
        self._before: dict[str, int | None] = {}
        self._rejected: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self._send()

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told of anything."""
        return bool(self._recipients)

    # What is to be told

    def hear(self, event: Event) -> None:
        """Keep what the engine says, if it is worth telling."""
        if not self.wanted:
            return
        secret = event.secret
        if secret not in self._before:
            promoted = self._journal.notes(secret).get("promoted")
            self._before[secret] = promoted.generation if promoted else None
        if event.what.startswith("reject"):
            self._rejected[secret] = event.detail
        if event.what in _ENDS:
            self.tell(Notice(_ENDS[event.what], secret, self._ending(event)))

    def _ending(self, event: Event) -> str:
        before, why = self._before[event.secret], self._rejected.get(event.secret)
        now = self._journal.notes(event.secret).get("promoted")
        if event.what == Topic.PROMOTED and now is not None and before not in (None, now.generation):
            return f"{before} → {now.generation}"
        if event.what == Topic.ROLLED_BACK:
            return (f"back to {before}, " if before else "") + (why or event.detail)
        return event.detail

    def advise(self, secret: str, remedy: str) -> None:
        """Say what to do about a secret that needs a person."""
        self._notices = [
            replace(notice, remedy=remedy) if (notice.topic, notice.subject) == (Topic.BLOCKED, secret) else notice
            for notice in self._notices
        ]

    def tell(self, notice: Notice) -> None:
        self._notices.append(notice)

    def tell_changed(
        self, topic: Topic, notices: Sequence[Notice], *, subject: str = "", fingerprint: str | None = None
    ) -> None:
        """Tell these unless just these were told last of this subject; without any, what was told is forgotten.

        ``fingerprint`` tells one telling from another (default: a digest of the notices).
        """
        memory = f"told {topic}"
        if not self.wanted:
            return
        if not notices:
            self._journal.forget(subject, memory)
            return
        fingerprint = fingerprint or _digest(notices)
        told = self._journal.notes(subject).get(memory)
        if told is None or told.detail != fingerprint:
            self._notices.extend(notices)
            self._marks.append(_Mark(subject, topic, fingerprint))

    # Sending

    def _send(self) -> None:
        if not self._notices or not self.wanted:
            return
        messages = {
            number: (recipient, text)
            for number, recipient in enumerate(self._recipients, 1)
            if (text := message(self._environment, self._notices, recipient)) is not None
        }
        problems = dict(zip(messages, deliver(list(messages.values())), strict=True))
        told = {
            topic for number, (recipient, _) in messages.items() if not problems[number] for topic in recipient.events
        }
        with suppress(KeyturnError):  # a journal that fails has said so already
            for mark in self._marks:
                if mark.topic in told:
                    self._journal.note(mark.subject, f"told {mark.topic}", 0, mark.fingerprint)
        for number, problem in problems.items():
            if problem is not None:
                what = f"notification {number} of {len(self._recipients)} could not be sent: {problem}"
                self._warn(what, "The run is not affected. Check the setting notify and whether its server answers.")
                with suppress(KeyturnError):
                    self._journal.audit("", 0, "not notified", what)


@dataclass(frozen=True, slots=True)
class Message:
    title: str
    body: str
    alarming: bool


def message(environment: str, notices: Iterable[Notice], recipient: Notify) -> Message | None:
    """One message on all that the recipient wants to know, None where there is nothing."""
    wanted = [notice for notice in notices if notice.topic in recipient.events]
    if not wanted:
        return None
    counts = Counter(notice.topic for notice in wanted)
    title = f"keyturn {environment}: " + ", ".join(f"{count} {topic}" for topic, count in counts.items())
    lines = [_line(notice) for notice in wanted[:MOST_LINES]]
    if len(wanted) > MOST_LINES:
        lines.append(f"and {len(wanted) - MOST_LINES} more")
    run = run_url()
    return Message(title, "\n".join([*lines, *([f"Run: {run}"] if run else [])]), not _ALARMING.isdisjoint(counts))


def _line(notice: Notice) -> str:
    kept = {notice.subject}
    return str(replace(notice, what=redact(notice.what, kept), remedy=redact(notice.remedy, kept)))


def _digest(notices: Iterable[Notice]) -> str:
    return hashlib.sha256("\n".join(sorted(map(str, notices))).encode()).hexdigest()


def deliver(messages: Sequence[tuple[Notify, Message]], limit: float = LIMIT) -> list[str | None]:
    """Send each message, side by side. Per message None, or why it was not sent within ``limit`` seconds."""
    _load()
    problems: list[str | None] = [f"no answer within {limit:g} s" for _ in messages]

    def send(index: int) -> None:
        problems[index] = _send_one(*messages[index])

    # Daemons: one that hangs does not keep the program from ending.
    threads = [threading.Thread(target=send, args=(index,), daemon=True) for index in range(len(messages))]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + limit
    for thread in threads:
        thread.join(max(ends - time.monotonic(), 0))
    return list(problems)


def _load() -> None:
    """Apprise loads all its services when it is first asked for one: that time is none that a server takes."""
    with suppress(ModuleNotFoundError):  # said of each message
        from apprise import Apprise

        Apprise.instantiate("json://127.0.0.1")


def _send_one(recipient: Notify, text: Message) -> str | None:
    """None, or why the message was not sent, in words that hold nothing of the address."""
    try:
        from apprise import Apprise, AppriseAsset, NotifyType
    except ModuleNotFoundError:
        return "it needs the package apprise: install keyturn with the extra notify"
    url = recipient.read()
    if url is None:
        return f"its URL is not there ({_whereabouts(recipient)})"
    with _Refusals() as refusals:
        try:
            service = Apprise.instantiate(url, asset=AppriseAsset(app_id="keyturn"))
            if service is None:
                return f"its URL is none that Apprise understands ({_whereabouts(recipient)})"
            kind = NotifyType.WARNING if text.alarming else NotifyType.INFO
            # The service is asked directly: Apprise's own pool of threads would hold up the end of the program.
            sent = service.notify(body=text.body, title=text.title, notify_type=kind)
        except Exception as error:  # noqa: BLE001  # whatever a service stumbles over, the run goes on
            return f"it failed with {type(error).__name__}"
    return None if sent else f"{service.service_name}: {refusals.said()}"


def _whereabouts(recipient: Notify) -> str:
    if recipient.url_environment is not None:
        return f"variable {recipient.url_environment}"
    return f"file {recipient.url_file}" if recipient.url_file is not None else "setting notify"


class _Refusals(logging.Handler):
    """Listens to Apprise's log of this thread: its messages name hosts and paths, so only a status code is taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self._log = logging.getLogger("apprise")
        self._statuses: list[str] = []

    def __enter__(self) -> Self:
        self._log.propagate = False
        self._log.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._statuses.extend(_STATUS.findall(record.getMessage()))

    def said(self) -> str:
        return f"its server answered {self._statuses[-1]}" if self._statuses else "its server was not reached"
