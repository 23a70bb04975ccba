"""Begin a run on one secret: bring the journal up to date with what is found, then open what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from rotation.credentials import HasAdministrator
from rotation.custody import Custody
from rotation.errors import StoreError, Unavailable
from rotation.journal import Journal, Rotation
from rotation.manifest import Secret
from rotation.model import Acceptance, Ending, Rejection, StoreView, Strategy
from rotation.plugins import Plugins


class Purpose(StrEnum):
    """What a run is for."""

    ROTATE = "rotate"  # start a rotation, or go on with the one that is in flight
    RESUME = "resume"  # go on with what is in flight, start nothing
    ROLL_BACK = "roll back"  # take the candidate back; after promotion, bring the previous value back
    RETIRE = "retire"  # retire the previous generation, and nothing else


class Opening:
    """Opens rotations in the journal for one run's purpose; ``reason`` is put on record with them. ``rehearsed`` raises
    for a secret that no new rotation may be opened of, for want of a rehearsal."""

    def __init__(
        self,
        plugins: Plugins,
        custody: Custody,
        journal: Journal,
        purpose: Purpose,
        reason: str,
        *,
        rehearsed: Callable[[Secret], None],
    ) -> None:
        self._plugins = plugins
        self._custody = custody
        self._journal = journal
        self._purpose = purpose
        self._reason = reason
        self._rehearsed = rehearsed

    def open(self, secret: Secret, view: StoreView) -> None:
        """Open what is asked for, or leave open what is in flight. Raises Unavailable for a target that cannot be
        asked, UsageError for want of a rehearsal, and StoreError where there is nothing to roll back to."""
        self._recall_rejection(secret, view)
        self._close_what_ended(secret, view)
        standing, candidate = self._journal.rotation(secret.name), candidate_of(view)
        if standing is not None:
            self._take_back(standing, view)
        elif candidate is not None and self._purpose is not Purpose.RETIRE:
            self._journal.open_rotation(secret.name, candidate, self._reason, carries=self._carried(secret, view))
        elif candidate is None and self._purpose is Purpose.ROTATE:
            self._rehearsed(secret)
            self._probe(secret, view)
            self._journal.open_rotation(secret.name, self._following(secret, view), self._reason)
        elif candidate is None and self._purpose is Purpose.ROLL_BACK:
            self.open_return(secret, view)

    def open_return(self, secret: Secret, view: StoreView) -> None:
        """Open the rotation that brings the previous generation's value back."""
        carries = previous_of(secret, view)
        self._require_accepted(secret, view)
        self._journal.open_rotation(secret.name, self._following(secret, view), self._reason, carries)

    def _recall_rejection(self, secret: Secret, view: StoreView) -> None:
        candidate, noted = candidate_of(view), self._journal.notes(secret.name).get("rejected")
        if candidate is not None and view.rejected and (noted is None or noted.generation != candidate):
            self._journal.note(secret.name, "rejected", candidate, Rejection.UNRECORDED)

    def _close_what_ended(self, secret: Secret, view: StoreView) -> None:
        """Close a rotation that another runner finished and went on from, or one that can no longer reach its goal."""
        standing, candidate, current = self._journal.rotation(secret.name), candidate_of(view), _current(view)
        if standing is None:
            return
        if current >= standing.goal and candidate is not None:
            self._journal.close_rotation(secret.name, current, Ending.PROMOTED, "by another runner, which went on")
        if current < standing.goal and candidate is None and standing.carries not in (None, _previous(view)):
            gone = f"generation {standing.carries}, which it was to bring back, is not kept any more"
            self._journal.close_rotation(secret.name, current, Ending.ROLLED_BACK, gone)

    def _take_back(self, standing: Rotation, view: StoreView) -> None:
        """Note a rollback of what needs no rejecting in the store: nothing is staged yet, or it is rejected already."""
        if self._purpose is not Purpose.ROLL_BACK or standing.carries is not None or _current(view) >= standing.goal:
            return
        candidate = candidate_of(view)
        if candidate is None or view.rejected:
            self._journal.note(standing.secret, "rejected", candidate or standing.goal, Rejection.PERSON)

    def _carried(self, secret: Secret, view: StoreView) -> int | None:
        """The generation whose value the candidate carries, for a rollback whose journal is lost."""
        if view.pending is None or view.previous is None or view.previous.generation is None:
            return None
        candidate, previous = (self._custody.read(secret, version) for version in (view.pending, view.previous))
        return previous.generation if candidate.value == previous.value else None

    def _following(self, secret: Secret, view: StoreView) -> int:
        return max(view.highest, self._journal.highest(secret.name)) + 1

    def _require_accepted(self, secret: Secret, view: StoreView) -> None:
        """Where two logins take turns, a value that the target denies by now may be an older one of the login that is
        current (`keyturn adopt`): to install it again would lock that out."""
        if view.previous is None or secret.strategy is Strategy.SINGLE:
            return
        answer = self._plugins.kind(secret).check(self._custody.read(secret, view.previous))
        if answer is Acceptance.DENIED:
            raise StoreError(
                f"generation {view.previous.generation} of {secret.name} cannot be brought back: the target denies it",
                f"Go forward instead: `keyturn rotate {secret.name}`.",
            )

    def _probe(self, secret: Secret, view: StoreView) -> None:
        """Before anything is changed: the target must answer, and must let the administrator in."""
        kind = self._plugins.kind(secret)
        if isinstance(kind, HasAdministrator):
            kind.probe()
        if view.current is not None:
            answer = kind.check(self._custody.read(secret, view.current))
            if answer is Acceptance.UNKNOWN:
                raise Unavailable(f"the target of {secret.name} cannot be asked whether it accepts the current value")


def candidate_of(view: StoreView) -> int | None:
    """The generation in flight; what is pending but not newer than the current one is a leftover, not in flight."""
    pending = view.pending.generation if view.pending else None
    return pending if pending is not None and pending > _current(view) else None


def previous_of(secret: Secret, view: StoreView) -> int:
    """The generation that a rollback after promotion brings back. Beside one that gave way to an adopted version, and
    may be what was to be rolled back, it cannot be told."""
    previous = _previous(view)
    if view.kept:
        kept = ", ".join(str(version.generation) for version in (*view.kept[::-1], view.previous) if version)
        raise StoreError(
            f"there is not one generation to roll {secret.name} back to: {kept} are kept since a version was adopted",
            f"Go forward instead (`keyturn rotate {secret.name}`), or retire them first (`keyturn retire`).",
        )
    if previous is None:
        raise StoreError(
            f"there is nothing to roll {secret.name} back to: the generation before the current one is retired",
            f"Go forward instead: `keyturn rotate {secret.name}`.",
        )
    return previous


def _current(view: StoreView) -> int:
    return (view.current.generation if view.current else None) or 0


def _previous(view: StoreView) -> int | None:
    return view.previous.generation if view.previous else None
