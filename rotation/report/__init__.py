"""The posture of one environment as a page: one HTML file that needs no network and holds no value.

:func:`gather` reads what the stores (in batches), the manifest, the pins and the journal say, and
:func:`rotation.report.page.render` writes it down. A journal whose audit trail does not verify still gives a report,
which says so; one that cannot be read at all does not (:class:`~rotation.errors.JournalError`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from rotation.drift import Way
from rotation.drift.check import Drift, check
from rotation.drift.ignoring import Ignore
from rotation.journal import Journal
from rotation.manifest import Manifest
from rotation.model import StoreView
from rotation.report.due_calendar import Calendar, calendar
from rotation.report.history import Turn, turns
from rotation.report.posture import Standing, State, progress, standings
from rotation.session import Session
from rotation.status import SecretStatus

MOST_TURNS = 1_000  # rotations that the history shows


@dataclass(frozen=True, slots=True)
class Trail:
    """The audit trail: how many lines it has, and why it does not verify, None where it does."""

    lines: int
    flaw: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows. ``standings`` begin with the worst, ``turns`` with the newest; ``older`` tells that there
    are more of them. ``drift`` is None where nobody looked for it."""

    environment: str
    made_at: datetime
    version: str
    standings: tuple[Standing, ...]
    calendar: Calendar
    turns: tuple[Turn, ...]
    older: bool
    trail: Trail
    drift: Drift | None

    @property
    def counts(self) -> dict[State, int]:
        """How many secrets are in each state, the worst state first; states without a secret are left out."""
        counted = Counter(standing.state for standing in self.standings)
        return {state: counted[state] for state in State if state in counted}


def gather(session: Session, ways: Iterable[Way], rules: Sequence[Ignore] = ()) -> Report:
    """Look at every secret of the session's environment, and for drift in these ways. Raises what the stores raise
    when one cannot be reached."""
    engine = session.engine
    wanted = tuple(ways)
    drift = check(engine, wanted, rules) if wanted else None
    views = session.look()
    return made_of(engine.manifest, views, session.rows(views), engine.journal, engine.clock(), drift)


def made_of(
    manifest: Manifest,
    views: Mapping[str, StoreView],
    rows: Iterable[SecretStatus],
    journal: Journal,
    now: datetime,
    drift: Drift | None = None,
) -> Report:
    """The report on what the stores said (``views``, by name), on the status made from it, on the journal, and on the
    drift that was found."""
    past = journal.rotations(MOST_TURNS + 1)
    intents = journal.intents(min((rotation.opened for rotation in past), default=now))
    trail, flaw = journal.inspect()
    standing = standings(rows, views, manifest, progress(past, intents, trail, journal.holders()), now)
    history = turns(past[:MOST_TURNS], intents, trail, now, _names(manifest))
    worst_first = list(State)
    return Report(
        environment=manifest.environment,
        made_at=now,
        version=version("keyturn"),
        standings=tuple(sorted(standing, key=lambda one: (worst_first.index(one.state), one.secret.name))),
        calendar=calendar(standing, now),
        turns=tuple(sorted(history, key=lambda turn: turn.opened, reverse=True)),
        older=len(past) > MOST_TURNS,
        trail=Trail(len(trail), str(flaw) if flaw is not None else None),
        drift=drift,
    )


def _names(manifest: Manifest) -> set[str]:
    secrets = manifest.secrets.values()
    return {secret.name for secret in secrets} | {secret.stored_as for secret in secrets}
