"""What each command does: a small function, named like the command, that takes options and returns an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rotation import planning
from rotation import rekey as keys
from rotation.adopt import adopt as take_over
from rotation.engine import Engine, Purpose, Request, Result
from rotation.files import write_atomically
from rotation.journal import Journal
from rotation.local import environment, providers
from rotation.manifest import Manifest
from rotation.model import Blocked, Done, Ending, StoreView, Wait
from rotation.output import Output, table
from rotation.planning import RotationPlan, plan_rotations
from rotation.plugins import Plugins
from rotation.settings import find_project, load
from rotation.status import SecretStatus, describe, statuses

DONE, FAILED, CHANGES, WAITING, BLOCKED = 0, 1, 2, 3, 4
LOCAL = "local"
FEW = 10  # so many secrets are looked at again before they are planned: a store's list may be minutes behind


def run(command: str, options: argparse.Namespace) -> int:
    """Run one of this module's commands by its name on the command line."""
    return COMMANDS[command](options)


@dataclass(frozen=True, slots=True)
class _Session:
    """What every command on an environment works with."""

    engine: Engine
    output: Output
    wait: float

    def names(self, asked: Sequence[str]) -> list[str]:
        return [self.engine.manifest.secret(name).name for name in asked]


@contextmanager
def _session(options: argparse.Namespace) -> Iterator[_Session]:
    settings = load(options.project)
    os.chdir(settings.project)  # declarations name files relative to the project
    manifest = Manifest.load(settings.project, options.environment)
    if options.environment == LOCAL:
        os.environ.update(environment.environment_variables(settings.project))
    output = Output(machine=options.json)
    with Journal(settings.journal_of(options.environment)) as journal:
        yield _Session(
            Engine(
                settings.project,
                manifest,
                Plugins(settings.project, manifest),
                journal,
                say=output.event,
                workers=settings.workers,
            ),
            output,
            settings.wait,
        )


def local(options: argparse.Namespace) -> int:
    output = Output(machine=options.json)
    project = find_project(options.project or Path.cwd())
    if options.what == "env":
        variables = environment.environment_variables(project) | providers.tool_environment(project)
        output.result(variables, [f"export {name}={value}" for name, value in variables.items()])
        return DONE
    if options.what == "up":
        environment.up(project, output.say)
    if options.what == "down":
        environment.down(project, output.say, purge=options.purge)
    services = environment.status(project)
    if not services:
        output.say("the embedded environment has not been started here: `keyturn local up` does")
    rows = [
        (s.name, s.address, str(s.pid or "-"), "ready" if s.ready else "starting" if s.pid else "stopped")
        for s in services
    ]
    lines = table(("service", "address", "process", "state"), rows) if rows else []
    output.result({"services": [asdict(s) for s in services]}, lines)
    return DONE if options.what == "down" or (services and all(s.ready for s in services)) else FAILED


def status(options: argparse.Namespace) -> int:
    with _session(options) as session:
        rows = _rows(session, _look(session, session.names(options.secrets)))
        document = {"environment": options.environment, "secrets": [asdict(row) for row in rows]}
        session.output.result(document, describe(rows))
    return DONE


def plan(options: argparse.Namespace) -> int:
    with _session(options) as session:
        names, seen = session.names(options.secrets), None
        if not names:
            seen = _look(session)
            rows = _rows(session, seen)
            names = _due(rows) + ([] if options.due else _in_flight(session, rows))
        if len(set(names)) <= FEW:
            seen = None
        made = plan_rotations(session.engine, set(names), seen)
        if options.out:
            write_atomically(options.out, made.model_dump_json(indent=1) + "\n")
        session.output.result(made.model_dump(mode="json"), planning.describe(made))
        return CHANGES if made.rotations else DONE


def rotate(options: argparse.Namespace) -> int:
    with _session(options) as session:
        purpose, names = Purpose.ROTATE, session.names(options.secrets)
        if options.plan:
            reviewed = RotationPlan.load(options.plan)
            names = [rotation.secret for rotation in reviewed.rotations]
            reviewed.refuse_if_moved(plan_rotations(session.engine, names))
        elif options.due:
            names = sorted({*names, *_due(_all(session))})
        elif options.initialize and not names:
            names = [row.secret for row in _all(session) if row.phase == "empty"]
        elif not names:
            purpose, names = Purpose.RESUME, _in_flight(session, _all(session))
        return _run(session, options, names, purpose, initialize=options.initialize, until=options.until)


def rollback(options: argparse.Namespace) -> int:
    with _session(options) as session:
        return _run(session, options, session.names(options.secrets), Purpose.ROLL_BACK)


def retire(options: argparse.Namespace) -> int:
    with _session(options) as session:
        names = session.names(options.secrets) or [row.secret for row in _all(session) if row.previous is not None]
        return _run(session, options, names, Purpose.RETIRE)


def adopt(options: argparse.Namespace) -> int:
    with _session(options) as session:
        engine, (name,) = session.engine, session.names([options.secret])
        secret = engine.manifest.secrets[name]
        with engine.journal.lease([name]):
            view = engine.observer.stored([secret], fresh=True)[name]
            generation = take_over(secret, view, engine.plugins, engine.custody, engine.journal)
        session.output.say(f"{name}: its value is generation {generation} now")
        return _run(session, options, [name], Purpose.RESUME)  # the rings follow, canary first


def render(options: argparse.Namespace) -> int:
    with _session(options) as session:
        engine = session.engine
        stored = engine.observer.stored(engine.manifest.secrets.values())
        rendered = engine.rollout.regenerate(stored, check=options.check)
        stale = [file for file in rendered if file.changed]
        verb = "is stale" if options.check else "is regenerated"
        session.output.result(
            {"files": [{"path": _short(f.path, engine.project), "changed": f.changed} for f in rendered]},
            [f"{_short(file.path, engine.project)} {verb}" for file in stale]
            or [f"{len(rendered)} files are what their templates and pins say"],
        )
        return CHANGES if options.check and stale else DONE


def rekey(options: argparse.Namespace) -> int:
    with _session(options) as session:
        engine, say = session.engine, session.output.say
        if not options.rewrap_only:
            say(f"{keys.rotate_key(engine.manifest, options.key, engine.plugins, engine.journal)} has new material")
        waiting = keys.rewrap(engine.manifest, options.key, engine, say, outside=options.no_apply)
        session.output.result({"key": options.key, "waiting": waiting})
        return WAITING if waiting else DONE


def audit(options: argparse.Namespace) -> int:
    with _session(options) as session:
        entries = session.engine.journal.trail(options.secret)
        lines = [f"{e.at[:19]}  {e.secret:<18}  {e.generation:>4}  {e.event:<14}  {e.detail}" for e in entries]
        session.output.result({"entries": [asdict(entry) for entry in entries]}, lines)
    return DONE


def _run(
    session: _Session,
    options: argparse.Namespace,
    names: Sequence[str],
    purpose: Purpose,
    *,
    initialize: bool = False,
    until: str | None = None,
) -> int:
    if not names:
        session.output.result({"secrets": []}, ["nothing to do: name a secret, or see `keyturn status`"])
        return DONE
    request = Request(
        purpose=purpose,
        initialize=initialize,
        outside=options.no_apply,
        until=until,
        reason=getattr(options, "reason", purpose.value),
        wait=timedelta(seconds=session.wait if options.wait is None else options.wait),
    )
    with session.output.progress():
        results = session.engine.run(sorted(names), request)
    document = {name: _document(result) for name, result in sorted(results.items())}
    session.output.result({"secrets": document}, [])
    for name, result in sorted(results.items()):
        if result.error is not None:
            print(f"error: {name}: {result.error}\n  {result.error.remedy}", file=sys.stderr)  # noqa: T201
    return _exit_code(results.values(), purpose)


def _document(result: Result) -> dict[str, Any]:
    if result.error is not None:
        return {"state": "failed", "reason": str(result.error), "remedy": result.error.remedy}
    return {"state": type(result.decision).__name__.lower(), **asdict(result.decision)} if result.decision else {}


def _exit_code(results: Iterable[Result], purpose: Purpose) -> int:
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


def _look(session: _Session, names: Sequence[str] = ()) -> dict[str, StoreView]:
    """What the stores say of these secrets, or of all."""
    engine = session.engine
    return engine.observer.stored(engine.manifest.secrets[name] for name in names or engine.manifest.secrets)


def _rows(session: _Session, seen: Mapping[str, StoreView]) -> list[SecretStatus]:
    engine = session.engine
    return statuses(seen, engine.manifest, engine.journal, engine.rollout.pins(), datetime.now(UTC))


def _all(session: _Session) -> list[SecretStatus]:
    return _rows(session, _look(session))


def _due(rows: Iterable[SecretStatus]) -> list[str]:
    """What is due, holds a value, and may be turned now."""
    now = datetime.now(UTC)
    return [row.secret for row in rows if row.due and row.due <= now and row.held_until is None]


def _in_flight(session: _Session, rows: Iterable[SecretStatus]) -> list[str]:
    opened = session.engine.journal.open_rotations()
    known = session.engine.manifest.secrets
    return sorted({row.secret for row in rows if row.pending is not None} | (set(opened) & set(known)))


def _short(path: Path, project: Path) -> str:
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else str(path)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    command.__name__: command
    for command in (local, status, plan, rotate, rollback, retire, adopt, render, rekey, audit)
}
