"""A scheduled event: everything that is due, as `keyturn rotate --due` would find it.

- A secret without consumers is turned here, in full: its rotation is finished or begun, and what it replaced is retired
  once its grace is over.
- A secret with consumers is handed to the pipeline, for neither Terraform nor git are in a function. So is every secret
  of an environment with a rehearsal, on either side of it: its evidence is committed with the code.
- Secrets are taken one after the other, those in flight first. None is begun that could meet the function's time limit;
  the next tick takes it. A function that is killed all the same is a runner that died: the next one resumes.
- An event that is delivered twice changes nothing: what is in work is leased, what was turned is no longer due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rotation.due import select
from rotation.engine import Engine, Request, Result
from rotation.errors import KeyturnError, LeaseHeld
from rotation.handlers.dispatch import send
from rotation.manifest import Dispatch, Manifest
from rotation.model import Blocked, Done, Ending, Reason, Trigger, Wait
from rotation.opening import Purpose
from rotation.plugins import load
from rotation.status import SecretStatus, statuses
from rotation.stores import SecretStore

RESERVE = 60.0  # seconds before the function's limit from which no other secret is begun
HANDED = "handed over"  # the journal's note on a secret that the pipeline was asked to turn
AGAIN = timedelta(hours=6)  # after which the pipeline is asked again for what is still due

REASON = str(Reason(Trigger.SCHEDULE))


@dataclass(frozen=True, slots=True)
class _Work:
    secret: str
    purpose: Purpose


def turn_due(engine: Engine, dispatch: Dispatch | None, remaining: Callable[[], float]) -> dict[str, Any]:
    """Turn or hand over what is due; ``remaining`` tells for how many seconds the function may still run.

    Returns by secret what became of it, which ones were handed over, and which are left for the next tick. Raises
    :class:`KeyturnError` at the end when a secret needs a person or nobody could be asked to deploy.
    """
    manifest, now = engine.manifest, engine.clock()
    views = engine.observer.stored(manifest.secrets.values(), troubled=True)
    rows = statuses(views, manifest, engine.journal, engine.rollout.pins(), now)
    due = select(rows, manifest, now).taken
    own = [row for row in rows if _turned_here(manifest, row.secret)]
    secrets: dict[str, str] = {}
    left, problems = [], [f"{name}: {view.trouble}" for name, view in views.items() if view.trouble]
    for work in _works(engine, own, due):
        if remaining() < RESERVE:
            left.append(work.secret)
            continue
        secrets[work.secret], problem = _do(engine, work)
        problems += [f"{work.secret}: {problem}"] if problem else []
    handed = [name for name in due if not _turned_here(manifest, name)]
    try:
        asked = _hand_over(engine, dispatch, handed, now)
    except KeyturnError as error:
        asked = []
        problems.append(str(error))
    result = {"secrets": secrets, "for_the_pipeline": handed, "asked_for": asked, "left": left}
    if problems:
        raise KeyturnError("; ".join(problems), "Look at `keyturn status` and `keyturn audit`.")
    return result


def _turned_here(manifest: Manifest, secret: str) -> bool:
    return not (manifest.consumers_of(secret) or manifest.rehearsal or manifest.rehearses)


def _works(engine: Engine, rows: Sequence[SecretStatus], due: dict[str, str]) -> Iterator[_Work]:
    """What is to be done, most urgent first: what is in flight, what is due, what may be over its grace."""
    opened = set(engine.journal.open_rotations())
    in_flight = [row.secret for row in rows if row.pending is not None or row.secret in opened]
    to_begin = [row for row in rows if row.secret in due and row.secret not in in_flight]
    old = [row.secret for row in rows if row.previous is not None and row.secret not in {*in_flight, *due}]
    yield from (_Work(name, Purpose.RESUME) for name in in_flight)
    yield from (_Work(row.secret, Purpose.ROTATE) for row in sorted(to_begin, key=_due_date))
    yield from (_Work(name, Purpose.RETIRE) for name in old)


def _due_date(row: SecretStatus) -> datetime:
    return row.due or datetime.max.replace(tzinfo=UTC)


def _do(engine: Engine, work: _Work) -> tuple[str, str | None]:
    """How it went, and what is wrong with it."""
    try:
        result = engine.run([work.secret], Request(purpose=work.purpose, reason=REASON))[work.secret]
    except LeaseHeld as held:
        return str(held), None
    except KeyturnError as error:
        result = Result(work.secret, error=error)
    return _told(result)


def _told(result: Result) -> tuple[str, str | None]:
    decision = result.decision
    if result.error is not None:
        return "failed", str(result.error)
    if isinstance(decision, Blocked):
        return "blocked", decision.reason
    if isinstance(decision, Done):
        return decision.ending, decision.reason if decision.ending is Ending.ROLLED_BACK else None
    return (f"waits: {decision.reason}" if isinstance(decision, Wait) else ""), None


def _hand_over(engine: Engine, dispatch: Dispatch | None, secrets: Sequence[str], now: datetime) -> list[str]:
    """Ask the pipeline, unless it was asked for all of these a short while ago. Return for which it was asked."""
    handed = engine.journal.noted(HANDED)
    fresh = [name for name in secrets if (note := handed.get(name)) is None or note.at + AGAIN <= now]
    if dispatch is None or not fresh:
        return []
    store = load(SecretStore, dispatch.store.kind)(dispatch.store.options)
    send(dispatch, engine.manifest.environment, secrets, store.read(dispatch.token))
    for name in secrets:
        engine.journal.note(name, HANDED, 0)
    return list(secrets)
