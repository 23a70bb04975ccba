"""What every command on an environment works with, from the command line's options to the exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rotation.due import select
from rotation.engine import Engine, Event, Purpose, Request, Result
from rotation.errors import KeyturnError
from rotation.exit_codes import BLOCKED, DONE, FAILED, WAITING
from rotation.journal_place import open_journal
from rotation.local import environment
from rotation.manifest import Manifest
from rotation.model import Blocked, Done, Ending, StoreView, Trigger, Wait
from rotation.notifications import Notice, Notifier
from rotation.output import Output
from rotation.plugins import Plugins
from rotation.settings import Settings, Topic, load
from rotation.status import UNREADABLE, SecretStatus, note_schedules, statuses


@dataclass(frozen=True, slots=True)
class Session:
    """One command at work. ``wait`` is for how many seconds it stays for what time brings."""

    engine: Engine
    output: Output
    wait: float
    notifier: Notifier

    def names(self, asked: Sequence[str]) -> list[str]:
        """The names of declared secrets, or :class:`UsageError` for another one."""
        return [self.engine.manifest.secret(name).name for name in asked]

    def look(self, names: Sequence[str] = ()) -> dict[str, StoreView]:
        """What the stores say of these secrets, or of all. One of which a store tells nothing is warned of."""
        views = self._look(names)
        for name, view in sorted(views.items()):
            if view.trouble is not None:
                self.output.warn(f"{name}: {view.trouble}", view.trouble.remedy)
        return views

    def rows(self, seen: Mapping[str, StoreView]) -> list[SecretStatus]:
        """The status of each secret that the stores were asked about."""
        engine = self.engine
        return statuses(seen, engine.manifest, engine.journal, engine.rollout.pins(), datetime.now(UTC))

    def all(self) -> list[SecretStatus]:
        """The status of every secret."""
        return self.rows(self._look())

    def due(self, rows: Iterable[SecretStatus], trigger: Trigger) -> list[str]:
        """The secrets to turn now. Each of them, and each that is held, is said with the reason."""
        selection = select(rows, self.engine.manifest, datetime.now(UTC), trigger)
        for line in selection.lines():
            self.output.say(line)
        return sorted(selection.taken)

    def in_flight(self, rows: Iterable[SecretStatus]) -> list[str]:
        """The secrets whose rotation is open, in the store or in the journal, and those whose rings are yet to follow:
        the store's own rotation promotes and leaves pins alone."""
        opened = self.engine.journal.open_rotations()
        known = self.engine.manifest.secrets
        found = {row.secret for row in rows if row.pending is not None or _is_ahead(row)}
        return sorted(found | (set(opened) & set(known)))

    def unreadable(self, rows: Iterable[SecretStatus]) -> list[str]:
        """The secrets of which nobody can tell whether they are due, or in flight: a run over them says why."""
        return [row.secret for row in rows if row.phase == UNREADABLE]

    def _look(self, names: Sequence[str] = ()) -> dict[str, StoreView]:
        secrets = self.engine.manifest.secrets
        return self.engine.observer.stored((secrets[name] for name in names or secrets), troubled=True)

    def run(
        self,
        options: argparse.Namespace,
        names: Sequence[str],
        purpose: Purpose,
        *,
        initialize: bool = False,
        until: str | None = None,
    ) -> int:
        """Let the engine work on these secrets, print what became of them, and return the exit code."""
        if not names:
            self.output.result({"secrets": {}}, ["nothing to do: name a secret, or see `keyturn status`"])
            return DONE
        request = Request(
            purpose=purpose,
            initialize=initialize,
            outside=options.no_apply,
            until=until,
            override=getattr(options, "override", None),
            reason=getattr(options, "reason", purpose.value),
            wait=timedelta(seconds=self.wait if options.wait is None else options.wait),
        )
        note_schedules(self.engine.manifest, self.engine.journal)
        with self.output.progress():
            results = self.engine.run(sorted(names), request)
        document = {name: describe(result) for name, result in sorted(results.items())}
        self.output.result({"secrets": document}, [])
        self.say_troubles(results)
        return exit_code(results.values(), purpose)

    def say_troubles(self, results: Mapping[str, Result]) -> None:
        """Say what failed or is blocked, and what to do about it; let who is notified of what is blocked know, too."""
        for name, result in sorted(results.items()):
            if isinstance(result.decision, Blocked):
                print(f"blocked: {name}: {result.decision.reason}\n  {result.decision.remedy}", file=sys.stderr)  # noqa: T201
                self.notifier.advise(name, result.decision.remedy)
            if result.error is not None:
                print(f"error: {name}: {result.error}\n  {result.error.remedy}", file=sys.stderr)  # noqa: T201

    def tell_overdue(self) -> None:
        """Tell, once for each due date, what is overdue now."""
        if not self.notifier.wanted:
            return
        with suppress(KeyturnError):  # what cannot be told now is told by the next run, and fails nothing
            for row in self.all():
                if row.overdue_since is not None and row.due is not None:
                    what = f"due since {row.due:%Y-%m-%d %H:%M} UTC, and not rotated yet"
                    remedy = f"See `keyturn audit {row.secret}`, then `keyturn rotate {row.secret}`."
                    notice, due = Notice(Topic.OVERDUE, row.secret, what, remedy), row.due.isoformat()
                    self.notifier.tell_changed(Topic.OVERDUE, [notice], subject=row.secret, fingerprint=due)

    def tell_incident(self, system: str, what: str, reached: int = 0) -> None:
        """Tell, once, that an incident has begun or was closed; ``reached`` counts what the system could read."""
        notice = Notice(Topic.INCIDENT, system, f"{what}, {reached} secrets" if reached else what)
        self.notifier.tell_changed(Topic.INCIDENT, [notice], subject=f"incident {system}", fingerprint=what)


def opened(options: argparse.Namespace) -> tuple[Settings, Manifest]:
    """The settings and the environment that the options name. From here on the project's folder is the working
    directory: declarations name files relative to it."""
    settings = load(options.project)
    os.chdir(settings.project)
    manifest = Manifest.load(settings.project, options.environment)
    if manifest.embedded:
        os.environ.update(environment.environment_variables(settings.project))
    return settings, manifest


def _is_ahead(row: SecretStatus) -> bool:
    """Whether a ring is pinned to something else than what is current."""
    return row.current is not None and any(pinned != row.current for pinned in row.pins.values())


@contextmanager
def session(options: argparse.Namespace) -> Iterator[Session]:
    """Open what the options name, with the journal."""
    settings, manifest = opened(options)
    output = Output(machine=options.json)
    with (
        _stopped_cleanly(),
        open_journal(settings, options.environment, output.warn) as journal,
        Notifier(settings.notify, options.environment, journal, output.warn) as notifier,
    ):

        def say(event: Event) -> None:
            output.event(event)
            notifier.hear(event)

        yield Session(
            Engine(
                settings.project,
                manifest,
                Plugins(settings.project, manifest),
                journal,
                say=say,
                workers=settings.workers,
            ),
            output,
            settings.wait,
            notifier,
        )


@contextmanager
def _stopped_cleanly() -> Iterator[None]:
    """Let a pipeline's SIGTERM end the work as Ctrl-C does: with the leases given back and the journal sent."""

    def stop(*_: object) -> None:
        # The way out is taken once: pipelines send one signal after the other. A second Ctrl-C cuts it short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(result: Result) -> dict[str, Any]:
    """How a run left one secret, for machines."""
    if result.error is not None:
        return {"state": "failed", "reason": str(result.error), "remedy": result.error.remedy}
    return {"state": type(result.decision).__name__.lower(), **asdict(result.decision)} if result.decision else {}


def exit_code(results: Iterable[Result], purpose: Purpose) -> int:
    """The worst of what happened: an error, then what needs a person, then what waits."""
    codes = {DONE}
    for result in results:
        decision = result.decision
        if result.error is not None:
            codes.add(FAILED)
        elif isinstance(decision, Blocked):
            codes.add(BLOCKED)
        elif isinstance(decision, Done) and decision.ending is Ending.ROLLED_BACK:
            codes.add(DONE if purpose is Purpose.ROLL_BACK else BLOCKED)
        elif isinstance(decision, Wait):
            codes.add(WAITING)
    return next(code for code in (FAILED, BLOCKED, WAITING, DONE) if code in codes)


def short(path: Path, project: Path) -> str:
    """A path as it is shown: relative to the project where it is in there."""
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else str(path)
