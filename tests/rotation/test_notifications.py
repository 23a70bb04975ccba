"""Notifications on real servers: what they say, to whom, and what a dead server costs."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from apprise.plugins.slack import NotifySlack

from rotation import notifications
from rotation.engine import Engine, Event
from rotation.journal import Journal
from rotation.notifications import MOST_LINES, Notice, Notifier
from rotation.output import Output
from rotation.session import Session
from rotation.settings import Notify, Topic
from rotation.status import SecretStatus
from tests.fixtures.ports import closed_port

# One of Apprise's own dependencies imports it where it is still there.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

SECRET = "orders/db"
TOKEN = "T0KEN4NOBODY"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Webhook:
    """An HTTP server that keeps what it is sent."""

    status: int = 200
    port: int = 0
    requests: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"json://user:{TOKEN}@127.0.0.1:{self.port}/{TOKEN}"

    @property
    def messages(self) -> list[str]:
        return [f"{body['title']}\n{body['message']}" for _, body in self.requests]


@contextmanager
def webhook(status: int = 200) -> Iterator[Webhook]:
    hook = Webhook(status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.requests.append((self.path, json.loads(body)))
            self.send_response(hook.status)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """An SMTP server for one message (RFC 5321, without extensions)."""
    said: list[str] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(b"220 ready\r\n")
            text = False
            for line in stream:
                said.append(line.decode())
                if text and line != b".\r\n":
                    continue
                answer = b"354 go on" if line.upper().startswith(b"DATA") else b"250 fine"
                text = line.upper().startswith(b"DATA")
                stream.write(answer + b"\r\n")
                if line.upper().startswith(b"QUIT"):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], said
        thread.join(10)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite3") as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "BUILD_URL"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Run:
    """Runs of commands with these recipients on one journal."""

    journal: Journal
    recipients: Sequence[Notify]
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def __call__(self) -> Iterator[Notifier]:
        def warn(what: str, follows: str) -> None:
            self.warnings.append(f"{what} {follows}")

        with Notifier(self.recipients, "production", self.journal, warn) as notifier:
            yield notifier


def to(url: str, *topics: Topic) -> Notify:
    return Notify.model_validate({"url": url, **({"events": topics} if topics else {})})


def event(what: str, detail: str = "", secret: str = SECRET) -> Event:
    return Event(NOW, secret, what, detail)


# What is said


def test_one_message_lists_what_became_of_every_secret(journal: Journal) -> None:
    journal.note(SECRET, "promoted", 41)
    journal.note("orders/key", "promoted", 6)
    with webhook() as hook:
        with Run(journal, [to(hook.url)])() as notifier:
            notifier.hear(event("stage", "generation 42 is staged"))
            notifier.hear(event("stage", "generation 7 is staged", "orders/key"))
            journal.note(SECRET, "promoted", 42)
            notifier.hear(event("promoted", "generation 42 is current"))
            notifier.hear(event("reject canary", "the canary ring is bad: 3 errors", "orders/key"))
            notifier.hear(event("rolled back", "the candidate was turned down (verdict)", "orders/key"))
            notifier.hear(event("blocked", "the store has no slot", "orders/new"))
            notifier.advise("orders/new", "Deploy the secrets stack.")
        assert hook.messages == [
            "keyturn production: 1 promoted, 1 rolled back, 1 blocked\n"
            "promoted: orders/db: 41 → 42\n"
            "rolled back: orders/key: back to 6, the canary ring is bad: 3 errors\n"
            "blocked: orders/new: the store has no slot. Deploy the secrets stack."
        ]


def test_a_run_without_news_says_nothing(journal: Journal) -> None:
    with webhook() as hook:
        with Run(journal, [to(hook.url)])() as notifier:
            notifier.hear(event("unchanged", "generation 42 is current"))
            notifier.hear(event("waits", "the canary bakes"))
        assert hook.requests == []


def test_each_recipient_is_told_what_it_wants_to_know(journal: Journal) -> None:
    with webhook() as all_of_it, webhook() as troubles, webhook() as nothing:
        recipients = [to(all_of_it.url), to(troubles.url, Topic.BLOCKED), to(nothing.url, Topic.DRIFT)]
        with Run(journal, recipients)() as notifier:
            notifier.hear(event("promoted", "generation 42 is current"))
            notifier.hear(event("blocked", "it is foreign", "orders/new"))
        assert all_of_it.messages[0].startswith("keyturn production: 1 promoted, 1 blocked\n")
        assert troubles.messages == ["keyturn production: 1 blocked\nblocked: orders/new: it is foreign"]
        assert nothing.requests == []


def test_a_thousand_secrets_make_one_message_of_bounded_length(journal: Journal) -> None:
    with webhook() as hook:
        with Run(journal, [to(hook.url)])() as notifier:
            for number in range(1000):
                notifier.hear(event("promoted", "generation 2 is current", f"orders/{number}"))
        (message,) = hook.messages
        assert "1000 promoted" in message
        assert message.endswith(f"and {1000 - MOST_LINES} more")


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        (
            {"GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "team/shop", "GITHUB_RUN_ID": "7"},
            "https://git.example/team/shop/actions/runs/7",
        ),
        ({"BUILD_URL": "https://ci.example/job/rotate/7/"}, "https://ci.example/job/rotate/7/"),
    ],
)
def test_a_message_leads_to_its_run(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with webhook() as hook:
        with Run(journal, [to(hook.url)])() as notifier:
            notifier.hear(event("promoted", "generation 42 is current"))
        assert hook.messages[0].endswith(f"\nRun: {url}")


def test_what_looks_like_a_credential_is_masked(journal: Journal) -> None:
    canary = "c4n4ry-Value-0123456789abcdef"
    with webhook() as hook:
        with Run(journal, [to(hook.url)])() as notifier:
            notifier.hear(event("reject", f"the canary ring is bad: login as orders password={canary} failed"))
            notifier.hear(event("rolled back"))
            notifier.hear(event("blocked", f"postgresql://orders:{canary}@db/orders does not answer", "orders/new"))
            notifier.advise("orders/new", f"Try token {canary}.")
        assert "login as orders" in hook.messages[0]
        assert canary not in json.dumps(hook.requests)


# What was told already


def test_an_overdue_secret_is_told_once_for_each_due_date(journal: Journal) -> None:
    notice = Notice(Topic.OVERDUE, SECRET, "due since yesterday")
    with webhook() as hook:
        run = Run(journal, [to(hook.url)])
        for due in ("2026-03-01", "2026-03-01", "2026-04-01"):
            with run() as notifier:
                notifier.tell_changed(Topic.OVERDUE, [notice], subject=SECRET, fingerprint=due)
        assert len(hook.requests) == 2


def test_drift_is_told_again_when_it_is_another_drift_or_comes_back(journal: Journal) -> None:
    one, other = (Notice(Topic.DRIFT, stack, "deleted") for stack in ("secrets", "application"))
    with webhook() as hook:
        run = Run(journal, [to(hook.url)])
        for found in ([one], [one], [one, other], [other, one], [], [], [one]):
            with run() as notifier:
                notifier.tell_changed(Topic.DRIFT, found)
        assert [message.splitlines()[0] for message in hook.messages] == [
            "keyturn production: 1 drift",
            "keyturn production: 2 drift",
            "keyturn production: 1 drift",
        ]


def test_only_what_is_overdue_is_told_as_that(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    due = NOW - timedelta(days=2)
    rows = [row("orders/on-time"), row("orders/due", due=due), row("orders/late", due=due, overdue_since=NOW)]
    monkeypatch.setattr(Session, "all", lambda _: rows)
    with webhook() as hook:
        run = Run(journal, [to(hook.url)])
        for _ in range(2):
            with run() as notifier:
                at_work(notifier).tell_overdue()
        assert [message.splitlines()[1] for message in hook.messages] == [
            "overdue: orders/late: due since 2026-02-27 12:00 UTC, and not rotated yet. "
            "See `keyturn audit orders/late`, then `keyturn rotate orders/late`."
        ]


def test_an_incident_is_told_when_it_begins_and_when_it_is_closed_and_not_in_between(journal: Journal) -> None:
    with webhook() as hook:
        run = Run(journal, [to(hook.url)])
        for what in ("begun 12:00", "begun 12:00", "closed", "begun 13:00", "closed"):
            with run() as notifier:
                at_work(notifier).tell_incident("orders-api", what, 0 if what == "closed" else 3)
        assert [message.splitlines()[1] for message in hook.messages] == [
            "incident: orders-api: begun 12:00, 3 secrets",
            "incident: orders-api: closed",
            "incident: orders-api: begun 13:00, 3 secrets",
            "incident: orders-api: closed",
        ]


def at_work(notifier: Notifier) -> Session:
    """A session that only tells: it has no engine."""
    return Session(cast("Engine", None), Output(machine=True), 0, notifier)


def row(secret: str, due: datetime | None = None, overdue_since: datetime | None = None) -> SecretStatus:
    return SecretStatus(
        secret=secret,
        phase="idle",
        current=1,
        pending=None,
        previous=None,
        age=timedelta(days=9),
        policy=None,
        due=due,
        held_until=None,
        pins={},
        overdue_since=overdue_since,
    )


def test_what_nobody_could_be_told_is_told_the_next_time(journal: Journal) -> None:
    notice = Notice(Topic.DRIFT, "secrets", "deleted")
    with webhook(status=500) as hook:
        run = Run(journal, [to(hook.url)])
        for status in (500, 200, 200):
            hook.status = status
            with run() as notifier:
                notifier.tell_changed(Topic.DRIFT, [notice])
        assert len(hook.requests) == 2


# Other ways to tell


def test_slack_gets_its_own_format(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook() as hook:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{hook.port}/services")
        run = Run(journal, [to("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#rotations")])
        with run() as notifier:
            notifier.hear(event("blocked", "the store has no slot"))
        ((path, body),) = hook.requests
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert body["channel"] == "#rotations"
    assert "blocked: orders/db: the store has no slot" in json.dumps(body["attachments"])
    assert run.warnings == []


def test_mail_is_sent(journal: Journal) -> None:
    with mail_server() as (port, said):
        where = f"mailto://127.0.0.1:{port}?smtp=127.0.0.1&mode=insecure&from=keyturn@shop.example&to=team@shop.example"
        run = Run(journal, [to(where)])
        with run() as notifier:
            notifier.hear(event("blocked", "the store has no slot"))
    assert run.warnings == []
    assert any("TO:<team@shop.example>" in line for line in said)
    assert "the store has no slot" in _decoded(said)


def _decoded(lines: Sequence[str]) -> str:
    """The lines, and those in base64 decoded, which mail with other characters than ASCII is."""
    text = "".join(lines)
    for part in text.replace("\r", "").split("\n\n"):
        try:
            text += base64.b64decode(part, validate=False).decode()
        except ValueError:
            continue
    return text


# Servers that are of no use


@contextmanager
def silent_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("json://127.0.0.1:{closed}/" + TOKEN, "JSON: its server was not reached"),
        ("json://127.0.0.1:{failing}/" + TOKEN, "JSON: its server answered 500"),
        ("json://127.0.0.1:{silent}/" + TOKEN, "JSON: its server was not reached"),
        ("json://127.0.0.1:{silent}/" + TOKEN + "?rto=30", "no answer within 6 s"),
        ("mailto://u:" + TOKEN + "@mail.example:{silent}?smtp=127.0.0.1&mode=insecure", "no answer within 6 s"),
        ("nonsense://" + TOKEN, "its URL is none that Apprise understands (setting notify)"),
        (TOKEN, "its URL is none that Apprise understands (setting notify)"),
        ("slack://" + TOKEN, "its URL is none that Apprise understands (setting notify)"),
    ],
)
def test_a_recipient_that_cannot_be_told_costs_one_warning(
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    url: str,
    told: str,
) -> None:
    limit = 6.0 if told == "no answer within 6 s" else 60.0
    monkeypatch.setattr(notifications.deliver, "__defaults__", (limit,))
    logged = _listen(monkeypatch)
    with webhook() as fine, webhook(500) as failing, silent_server() as silent:
        ports = {"failing": failing.port, "silent": silent, "closed": closed_port()}
        run, started = Run(journal, [to(url.format(**ports)), to(fine.url)]), time.monotonic()
        with run() as notifier:
            notifier.hear(event("promoted", "generation 42 is current"))
        assert time.monotonic() - started < 30, "as long as the server may take"
        assert len(fine.requests) == 1
    (warning,) = run.warnings
    assert told in warning
    assert warning.startswith("notification 1 of 2 could not be sent: ")
    (entry,) = journal.trail()
    assert (entry.event, entry.detail) == ("not notified", warning.partition(" The run")[0])
    assert TOKEN not in f"{warning} {entry} {capfd.readouterr()} {logged}"


def _listen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the handler that a program may have set up for all its logs."""
    logged: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: logged.append(record.getMessage()))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    return logged


def test_an_address_that_is_not_there_is_named_by_its_place(journal: Journal, tmp_path: Path) -> None:
    run = Run(journal, [Notify(url_environment="NOT_SET_ANYWHERE"), Notify(url_file=tmp_path / "absent")])
    with run() as notifier:
        notifier.hear(event("promoted", "generation 42 is current"))
    of_variable, of_file = run.warnings
    assert "its URL is not there (variable NOT_SET_ANYWHERE)" in of_variable
    assert f"its URL is not there (file {tmp_path / 'absent'})" in of_file


def test_a_run_that_fails_tells_what_it_had_done(journal: Journal) -> None:
    with webhook() as hook:
        with pytest.raises(LookupError), Run(journal, [to(hook.url)])() as notifier:
            _promote_and_fail(notifier)
        assert len(hook.requests) == 1


def test_a_run_that_is_stopped_does_not_wait_for_its_messages(journal: Journal) -> None:
    with webhook() as hook:
        with pytest.raises(KeyboardInterrupt), Run(journal, [to(hook.url)])() as notifier:
            _promote_and_fail(notifier, KeyboardInterrupt)
        assert hook.requests == []


def _promote_and_fail(notifier: Notifier, error: type[BaseException] = LookupError) -> None:
    notifier.hear(event("promoted", "generation 42 is current"))
    raise error


def test_nobody_to_tell_costs_nothing(journal: Journal) -> None:
    with Run(journal, [])() as notifier:
        notifier.hear(event("promoted", "generation 42 is current"))
        notifier.tell_changed(Topic.DRIFT, [Notice(Topic.DRIFT, "secrets", "deleted")])
    assert journal.notes("") == {}
