"""Take over a version that was not made by keyturn: the same value becomes the next generation."""

from __future__ import annotations

from rotation.custody import Custody
from rotation.errors import Conflict, TargetError, UsageError
from rotation.journal import Journal
from rotation.manifest import Secret
from rotation.model import Acceptance, Act, StoreView
from rotation.plugins import Plugins
from rotation.stores import under_lease


def adopt(secret: Secret, view: StoreView, plugins: Plugins, custody: Custody, journal: Journal) -> int:
    """Make the foreign current version a generation and return its number; the target is asked and not changed.

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
    generation = max(view.highest, journal.highest(secret.name)) + 1
    intent = journal.intend(secret.name, generation, Act.STAGE)
    custody.stage(secret, generation, found.value)
    # A store may have one name for whatever is current, so what it compares does not tell two foreign values apart.
    if custody.read(secret, view.current).value != found.value:
        raise Conflict(f"somebody else has changed the current value of {secret.name} while it was adopted")
    store = under_lease(plugins.store(secret), lambda: journal.require_lease(secret.name))
    store.promote(secret.stored_as, generation, view.current)
    journal.note(secret.name, "promoted", generation)
    journal.settle(intent, "done", f"adopted version {view.current.version_id} as generation {generation}")
    return generation
