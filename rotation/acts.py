"""What one step does to the store and the target. Every act is idempotent: running it again changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from rotation.credentials import ComparesPrivileges
from rotation.custody import Custody
from rotation.errors import GenerationSpent, StoreError
from rotation.journal import Journal
from rotation.manifest import Secret
from rotation.model import Act, Credential, Observation, Rejection, Step, Version
from rotation.plugins import Plugins
from rotation.stores import PromotesUnderLease, SecretStore, under_lease


class Acts:
    """The acts on one secret alone; pins and deployments are in :mod:`rotation.rollout`. Each returns what it did."""

    def __init__(self, plugins: Plugins, custody: Custody, journal: Journal) -> None:
        self._plugins = plugins
        self._custody = custody
        self._journal = journal
        self._by_act: dict[Act, Callable[[Secret, Observation, Step], str]] = {
            Act.STAGE: self._stage,
            Act.INSTALL: self._install,
            Act.TEST: self._test,
            Act.PROMOTE: self._promote,
            Act.REJECT: self._reject,
            Act.RESTORE: self._restore,
            Act.DISCARD: self._discard,
            Act.RETIRE: self._retire,
        }

    def perform(self, secret: Secret, seen: Observation, step: Step) -> str:
        return self._by_act[step.act](secret, seen, step)

    def _stage(self, secret: Secret, seen: Observation, step: Step) -> str:
        generation = _generation(step)
        rotation = self._journal.rotation(secret.name)
        current = self._read(secret, seen.store.current)
        if rotation is not None and rotation.carries is not None:
            value = self._carried(secret, seen, rotation.carries).value
        else:
            value = self._plugins.kind(secret).issue(current)
        try:
            self._custody.stage(secret, generation, value)
        except GenerationSpent as spent:
            self._journal.note(secret.name, "spent", max(spent.highest, generation))
            return f"generation {generation} was used before; the next one is taken"
        return f"generation {generation} is in the store, pending"

    def _carried(self, secret: Secret, seen: Observation, generation: int) -> Credential:
        previous = seen.store.previous
        if previous is None or previous.generation != generation:
            raise StoreError(f"generation {generation} of {secret.name} is no longer kept", "Rotate instead.")
        return self._custody.read(secret, previous)

    def _install(self, secret: Secret, seen: Observation, step: Step) -> str:
        candidate = self._required(secret, seen.store.pending)
        self._plugins.kind(secret).install(candidate, self._read(secret, seen.store.current))
        return f"generation {candidate.generation} is installed in the target"

    def _test(self, secret: Secret, seen: Observation, step: Step) -> str:
        candidate = self._required(secret, seen.store.pending)
        current = self._read(secret, seen.store.current)
        kind = self._plugins.kind(secret)
        lacks: tuple[str, ...] = ()
        if isinstance(kind, ComparesPrivileges) and current is not None:
            lacks = kind.missing(current, candidate)
        self._journal.note(secret.name, "tested", candidate.generation, "\n".join(lacks))
        if lacks:
            return f"generation {candidate.generation} lacks {'; '.join(lacks)}"
        return f"generation {candidate.generation} is accepted and lacks no privilege"

    def _promote(self, secret: Secret, seen: Observation, step: Step) -> str:
        generation = _generation(step)
        self._leased(secret).promote(secret.stored_as, generation, seen.store.current)
        self._journal.note(secret.name, "promoted", generation)
        return f"generation {generation} is current"

    def _reject(self, secret: Secret, seen: Observation, step: Step) -> str:
        """The reason is put on record first: a run that dies in between would leave a rejection that nobody explains.
        A reason without a rejection means nothing."""
        generation, rejection = _generation(step), step.rejection or Rejection.PERSON
        noted = self._journal.notes(secret.name).get("rejected")
        again = noted is not None and (noted.generation, noted.detail) == (generation, rejection)
        if rejection is Rejection.TARGET and seen.goal is not None and not again:
            self._journal.note(secret.name, "replaced", seen.goal, str(seen.replaced + 1))
        self._journal.note(secret.name, "rejected", generation, rejection)
        self._plugins.store(secret).reject(secret.stored_as, generation)
        return step.why

    def _restore(self, secret: Secret, seen: Observation, step: Step) -> str:
        current = self._required(secret, seen.store.current)
        self._plugins.kind(secret).install(current, self._read(secret, seen.store.pending))
        return f"generation {current.generation} is installed in the target again"

    def _discard(self, secret: Secret, seen: Observation, step: Step) -> str:
        candidate = self._required(secret, seen.store.pending)
        self._revoke(secret, candidate, seen)
        self._plugins.store(secret).discard(secret.stored_as, candidate.generation)
        return f"generation {candidate.generation} is revoked and discarded"

    def _retire(self, secret: Secret, seen: Observation, step: Step) -> str:
        previous = self._required(secret, seen.store.previous)
        self._revoke(secret, previous, seen)
        self._plugins.store(secret).discard(secret.stored_as, previous.generation)
        return f"generation {previous.generation} is revoked and retired: {step.why}"

    def _revoke(self, secret: Secret, old: Credential, seen: Observation) -> None:
        current = self._read(secret, seen.store.current)
        if current is not None:
            self.confirm(secret, current.generation)
        self._plugins.kind(secret).revoke(old, current, end_sessions=secret.end_sessions)

    def confirm(self, secret: Secret, generation: int) -> None:
        """Before anybody is locked out: where the store compares nothing, look once more whether this generation still
        is current, under the lease. Raises Conflict or LeaseHeld where not."""
        store = self._leased(secret)
        if isinstance(store, PromotesUnderLease):
            store.confirm(secret.stored_as, generation)

    def _leased(self, secret: Secret) -> SecretStore:
        return under_lease(self._plugins.store(secret), lambda: self._journal.require_lease(secret.name))

    def _read(self, secret: Secret, version: Version | None) -> Credential | None:
        return None if version is None else self._custody.read(secret, version)

    def _required(self, secret: Secret, version: Version | None) -> Credential:
        if version is None:
            raise StoreError(f"a version of {secret.name} that was just there is gone")
        return self._custody.read(secret, version)


def _generation(step: Step) -> int:
    if step.generation is None:
        raise ValueError(f"{step.act} needs a generation")
    return step.generation
