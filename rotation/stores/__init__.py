"""Secret stores: where the values live. Every file here is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rotation.model import StoreView, Version
from rotation.secret_value import SecretValue


class SecretStore(ABC):
    """The staging protocol. Names are the store's own names of secrets.

    All methods raise :class:`~rotation.errors.Unavailable` when the store cannot be reached or is overloaded after
    retries with jitter, :class:`~rotation.errors.Unauthorized` when it refuses the runner, and
    :class:`~rotation.errors.StoreError` for any other refusal. Running any of them again is a no-op.
    """

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def observe(self, names: Sequence[str], *, fresh: bool = False) -> dict[str, StoreView]:
        """One view per name, without reading values; ``exists=False`` where there is no slot. A refusal of one secret
        alone is its view's ``trouble``, where the store can tell.

        Names are asked for in batches, which a store may answer from some minutes ago; ``fresh`` is for whoever is
        about to act, and may cost a call per name.
        """

    @abstractmethod
    def stage(self, name: str, generation: int, value: SecretValue) -> SecretValue:
        """Put the value as this generation, pending, if the generation is not there yet; return the one that is.

        Two runners that stage the same generation both get the winner's value. A candidate that is in its place can no
        longer be promoted. It is dropped; but where the current version is foreign (this one is to adopt it), rings may
        run it: then it is kept until it is discarded, as is each generation that was current before. Raises
        :class:`~rotation.errors.GenerationSpent` when that generation was there and has been dropped, and
        :class:`~rotation.errors.LimitExceeded` before anything is sent when the store could not hold it.
        """

    @abstractmethod
    def read(self, name: str, version: Version | None = None) -> SecretValue:
        """The value of a version; of the current one by default. StoreError where there is none."""

    @abstractmethod
    def promote(self, name: str, generation: int, expected: Version | None) -> None:
        """Make the pending generation current if ``expected`` still is, and read it back.

        Raises :class:`~rotation.errors.Conflict` when something else is current, or when the generation was rejected.
        """

    @abstractmethod
    def reject(self, name: str, generation: int) -> None:
        """Decide against the pending generation: from now on no runner can promote it. It stays readable.

        Raises :class:`~rotation.errors.Conflict` when someone is promoting it, or has.
        """

    @abstractmethod
    def discard(self, name: str, generation: int) -> None:
        """Drop a rejected or a previous generation. Never the current one (:class:`~rotation.errors.Conflict`)."""

    @abstractmethod
    def predict(self, name: str, generation: int) -> Version:
        """The version that :meth:`stage` will make of a generation: known before it exists."""


class PromotesUnderLease(ABC):
    """A store whose server overwrites what is current without comparing it. What makes that safe lies around it:

    1. Who overwrites holds the secret's lease in the journal, and has held it since before it looked.
    2. It takes the time first, then checks the lease, then signs the request with that time. The server refuses a
       request that is too old, so one that was held up in the runner or in the network dies like an old lease does.
    3. What was sent is read back; where the answer was lost, what is there is looked at before it is sent again.
    4. Before anything is revoked that was current before: ``settle`` has passed since the last of such requests ended,
       and then what is current is read once more and is ours, or it is promoted again and the time counts anew.

    Why nothing that is revoked comes back: a request that can still arrive was signed at a time when its runner held
    the lease. Every runner that held it before this one lost it before this one took it, wrote off what that had begun
    (from then the time counts) and looked. So ``settle`` later, with the lease still held, nothing is on its way but
    what this runner sent since, and that is what is current. A lost journal knows of no request: then the time counts
    from when this one first saw what is current, and who still works with the lost one finds that it has no lease.
    A rejected candidate needs no such wait: its promotion was never sent, as only one decision about it can be made.
    But where the journal knows that its promotion was begun, it waits as well: somebody may have deleted the decision.

    ``settle`` is as long as a request can be on its way, and as much more as the clocks of two runners can be apart.
    """

    settle: timedelta

    @abstractmethod
    def under(self, holds: Callable[[], None]) -> SecretStore:
        """This store for a runner with a lease: ``holds`` returns while it has it, and raises where it is lost.
        Without, nothing can be promoted or re-wrapped (:class:`~rotation.errors.StoreError`)."""

    @abstractmethod
    def confirm(self, name: str, generation: int) -> None:
        """Check the lease, then read that this generation is current (:class:`~rotation.errors.Conflict`)."""


def earlier(versions: Iterable[Version | None]) -> tuple[Version | None, tuple[Version, ...]]:
    """``previous`` and ``kept`` of a view, from all that is neither current nor pending."""
    ours = {version for version in versions if version is not None and version.generation is not None}
    first, *others = [*sorted(ours, key=lambda version: version.generation or 0, reverse=True), None]
    return first, tuple(filter(None, others))


def under_lease(store: SecretStore, holds: Callable[[], None]) -> SecretStore:
    """The store as a runner uses it that has a lease; ``holds`` raises where it is lost."""
    return store.under(holds) if isinstance(store, PromotesUnderLease) else store


class Rewrapping(ABC):
    """A store that can hold another envelope of a current generation's value."""

    @abstractmethod
    def rewrap(self, name: str, expected: Version, value: SecretValue) -> Version:
        """Replace the current version by the next revision of the same generation, if ``expected`` still is current.

        Only where nothing is pending and nothing previous is left (:class:`~rotation.errors.Conflict`). The version
        that is replaced can be read until the next re-wrap, or until its generation is dropped: consumers name it until
        they are deployed anew.
        """


class TokenStaging(ABC):
    """A store that rotates by itself through a function, and then chooses the new version's id: a token."""

    @abstractmethod
    def stage_token(self, name: str, token: str, generation: int, value: SecretValue) -> None:
        """Put the value as this generation in the version that the store made pending, unless that has one already.

        From then on the version is like one that :meth:`SecretStore.stage` made. Raises
        :class:`~rotation.errors.Conflict` when another version is pending, or none, and
        :class:`~rotation.errors.GenerationSpent` when the generation is taken.
        """

    @abstractmethod
    def release_token(self, name: str, token: str) -> None:
        """Take the pending mark off the version that the store made, if it has it and holds no value yet."""
