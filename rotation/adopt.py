"""Take over a version that was not made by keyturn: the same value becomes the next generation."""

from __future__ import annotations

from rotation.custody import Custody
from rotation.errors import Conflict, GenerationSpent, TargetError, UsageError
from rotation.journal import Journal
from rotation.manifest import Secret
from rotation.model import Acceptance, Act, Credential, Ending, StoreView
from rotation.opening import candidate_of
from rotation.plugins import Plugins
from rotation.stores import under_lease


def adopt(secret: Secret, view: StoreView, plugins: Plugins, custody: Custody, journal: Journal) -> int:
    """Make the foreign current version a generation and return its number; the target is asked and not changed. A
    candidate in flight gives way to it: the store keeps that, as rings may run it, until it is retired.

    Raises :class:`UsageError` where there is nothing to adopt, :class:`TargetError` where the target does not accept
    the value, :class:`Conflict` where it is another one by now. Running it again goes on where an earlier run died.
    """
    if view.current is None:
        raise UsageError(
            f"{secret.name} has no value to adopt",
            f"Make its first one with `keyturn rotate --initialize {secret.name}`.",
        )
    if view.current.generation is not None:
        raise UsageError(
            f"generation {view.current.generation} of {secret.name} was made by keyturn: there is nothing to adopt",
            f"Look at it with `keyturn status {secret.name}`.",
        )
    found = custody.read(secret, view.current)
    answer = plugins.kind(secret).check(found)
    if answer is not Acceptance.ACCEPTED:
        raise TargetError(
            f"the target's answer to the current value of {secret.name} is {answer}, so it is not adopted",
            "Put a value that works into the store (or repair the target), then adopt it.",
        )
    generation = _staged_before(secret, view, found, custody)
    if generation is None:
        _end_rotation(secret.name, view, journal)
    generation, intent = _stage(secret, generation or _next(secret, view, journal), found, custody, journal)
    # A store may have one name for whatever is current, so what it compares does not tell two foreign values apart.
    if custody.read(secret, view.current).value != found.value:
        raise Conflict(f"somebody else has changed the current value of {secret.name} while it was adopted")
    store = under_lease(plugins.store(secret), lambda: journal.require_lease(secret.name))
    store.promote(secret.stored_as, generation, view.current)
    journal.note(secret.name, "promoted", generation)
    journal.settle(intent, "done", f"adopted version {view.current.version_id} as generation {generation}")
    return generation


def _staged_before(secret: Secret, view: StoreView, found: Credential, custody: Custody) -> int | None:
    """The candidate that holds the same value already: of a run that died here, or what is to be adopted itself."""
    candidate = candidate_of(view)
    if view.pending is None or candidate is None or view.rejected:
        return None
    return candidate if custody.read(secret, view.pending).value == found.value else None


def _next(secret: Secret, view: StoreView, journal: Journal) -> int:
    return max(view.highest, journal.highest(secret.name)) + 1


def _stage(secret: Secret, generation: int, found: Credential, custody: Custody, journal: Journal) -> tuple[int, int]:
    """Stage the value; return as which generation, and the intent. A journal that was lost does not know which
    generations were used and dropped: the store says so, and the one after them is taken."""
    intent = journal.intend(secret.name, generation, Act.STAGE)
    try:
        custody.stage(secret, generation, found.value)
    except GenerationSpent as spent:
        highest = max(spent.highest, generation)
        journal.note(secret.name, "spent", highest)
        journal.settle(intent, "overtaken", str(spent))
        return _stage(secret, highest + 1, found, custody, journal)
    return generation, intent


def _end_rotation(name: str, view: StoreView, journal: Journal) -> None:
    """Say of an open rotation that it ends here: else what is adopted would be taken for what it was to reach."""
    if journal.rotation(name) is not None:
        why = "it gives way to a version that is adopted"
        journal.close_rotation(name, candidate_of(view) or 0, Ending.ROLLED_BACK, why)
