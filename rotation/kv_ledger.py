"""The ledger that keyturn keeps beside each secret of a KV store: which generation is where. It holds no value.

A KV store has nothing like AWS's staging labels, but it compares a document's version when that is written. So all
that runners must agree on is one document, and every change of it is one such write. The rules, which do no I/O:

- At most one generation is pending. It is *open* until somebody decides: *accepted* (from then on it can only be
  promoted) or *rejected* (it never can be).
- ``moving`` is set before the secret's own path is written: from which version on, and to which leaf. Nothing else is
  begun while that write can still succeed. Whoever finds it written, but not noted as current, notes it.
- A generation that was dropped, or displaced by another before anyone accepted it, is spent for ever.
- ``kept`` waits to be dropped like what is previous: where a foreign version is adopted, the candidate that gives way,
  and what was previous then.
- ``replaced`` is the envelope before the current one, after a re-wrap: consumers read it until they are deployed anew.
  It goes with the next re-wrap, or with its generation.
- ``dropping`` names the leaves of spent generations and envelopes until they are deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict

from rotation.errors import Conflict

_LEAF = re.compile(r"g(?P<generation>[1-9][0-9]*)(-r(?P<revision>[1-9][0-9]*))?")


class Decision(StrEnum):
    OPEN = "open"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class _Noted(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Leaf(_Noted):
    """Where the value of a generation lies, or of a re-wrap of it."""

    generation: int
    revision: int = 0

    def __str__(self) -> str:
        return f"g{self.generation}-r{self.revision}" if self.revision else f"g{self.generation}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what :meth:`__str__` gives; None for anything else."""
        match = _LEAF.fullmatch(text)
        return match and cls(generation=int(match["generation"]), revision=int(match["revision"] or 0))

    @property
    def next(self) -> Leaf:
        return Leaf(generation=self.generation, revision=self.revision + 1)


class Placed(_Noted):
    """A leaf whose value is the secret's own: as which version of its path, and when the store made that."""

    leaf: Leaf
    version: int
    created: str


class Move(_Noted):
    """A leaf that is being made the version after ``base`` of the secret's path."""

    leaf: Leaf
    base: int


class Ledger(_Noted):
    highest: int = 0
    spent: tuple[tuple[int, int], ...] = ()  # ranges, both ends included
    current: Placed | None = None
    previous: Leaf | None = None
    pending: int | None = None
    decision: Decision = Decision.OPEN
    moving: Move | None = None
    replaced: Leaf | None = None
    kept: tuple[Leaf, ...] = ()
    dropping: tuple[Leaf, ...] = ()

    @classmethod
    def lost(cls, highest: int) -> Self:
        """A new ledger in the place of one that somebody deleted, as far as the leaves that are left tell."""
        return cls(highest=highest, spent=((1, highest),) if highest else ())

    def leaf(self, generation: int) -> Leaf | None:
        """Where the value of a generation lies that is current, pending or previous."""
        alive = (None if self.current is None else self.current.leaf, self.previous, self.candidate, *self.kept)
        return next((leaf for leaf in alive if leaf is not None and leaf.generation == generation), None)

    @property
    def candidate(self) -> Leaf | None:
        return None if self.pending is None else Leaf(generation=self.pending)

    @property
    def earlier(self) -> tuple[Leaf, ...]:
        """What waits to be dropped."""
        return self.kept if self.previous is None else (self.previous, *self.kept)

    @property
    def promoted(self) -> int:
        """The generation that is current, 0 for none."""
        return self.current.leaf.generation if self.current else 0

    def is_spent(self, generation: int) -> bool:
        return any(first <= generation <= last for first, last in self.spent)

    def staged(self, generation: int, version: int) -> Self:
        """Make it pending, in the place of one that nobody accepted. ``version`` is the path's, now: a move from an
        earlier one can no longer succeed."""
        if self.leaf(generation) is not None:
            return self
        if self.moving is not None and self.moving.base == version:
            raise Conflict(f"generation {self.moving.leaf.generation} is being made current")
        return self._without(
            self.candidate,
            version,
            pending=generation,
            decision=Decision.OPEN,
            moving=None,
            highest=max(self.highest, generation),
        )

    def accepted(self, generation: int, base: int) -> Self:
        """Decide for the pending generation: it is to become the version after ``base``."""
        self._check_pending(generation)
        if self.decision is Decision.REJECTED:
            raise Conflict(f"generation {generation} was rejected")
        if generation < self.promoted:
            raise Conflict(f"generation {self.promoted} was promoted before: current never goes back")
        return self._with(decision=Decision.ACCEPTED, moving=Move(leaf=Leaf(generation=generation), base=base))

    def rejected(self, generation: int) -> Self:
        self._check_pending(generation)
        if self.decision is Decision.ACCEPTED:
            raise Conflict(f"generation {generation} is being promoted")
        return self._with(decision=Decision.REJECTED)

    def rewrapping(self, leaf: Leaf, base: int) -> Self:
        """Begin to put another envelope of the current generation's value in its place."""
        if self.current is None or self.current.leaf.next != leaf or self.pending is not None or self.earlier:
            raise Conflict("it is being rotated, or was re-wrapped by someone else")
        return self._with(moving=Move(leaf=leaf, base=base))

    def moved(self, version: int, created: str) -> Self:
        """Note that what was moving is current now."""
        if self.moving is None or self.moving.base + 1 != version:
            return self
        old, new = self.current, Placed(leaf=self.moving.leaf, version=version, created=created)
        if old is not None and old.leaf.generation == new.leaf.generation:
            before = () if self.replaced is None else (self.replaced,)
            return self._with(current=new, moving=None, replaced=old.leaf, dropping=(*self.dropping, *before))
        return self._without(
            self.previous,
            self.moving.base,
            current=new,
            previous=old and old.leaf,
            pending=None,
            decision=Decision.OPEN,
            moving=None,
        )

    def dropped(self, generation: int) -> Self:
        """Take a rejected or a previous generation out. One that is not there stays as it is."""
        if generation == self.promoted:
            raise Conflict(f"generation {generation} is current")
        if self.previous is not None and self.previous.generation == generation:
            return self._with(self.previous, previous=None)
        for leaf in self.kept:
            if leaf.generation == generation:
                return self._with(leaf, kept=tuple(other for other in self.kept if other != leaf))
        if self.candidate is not None and self.pending == generation:
            if self.decision is not Decision.REJECTED:
                raise Conflict(f"generation {generation} is pending and not rejected")
            return self._with(self.candidate, pending=None, decision=Decision.OPEN)
        return self

    def deleted(self, leaves: Iterable[Leaf]) -> Self:
        """Note that the leaves of spent generations are gone."""
        gone = set(leaves)
        return self._with(dropping=tuple(leaf for leaf in self.dropping if leaf not in gone))

    def _check_pending(self, generation: int) -> None:
        if self.pending != generation:
            raise Conflict(f"generation {generation} is not pending")

    def _without(self, leaf: Leaf | None, base: int, **changes: object) -> Self:
        """A copy in which something else has a leaf's place. The leaf is spent, but where others have written version
        ``base`` of the path, which is being adopted then: it is kept."""
        if leaf is not None and base != (self.current.version if self.current else 0):
            return self._with(kept=(*self.kept, leaf), **changes)
        return self._with(*filter(None, (leaf,)), **changes)

    def _with(self, *dropped: Leaf, **changes: object) -> Self:
        """A copy with other fields, and with leaves whose generations are spent from now on."""
        if dropped:
            # A run that re-wrapped the last of them may have died after it put the next one, and before it said so.
            leaves = [*self.dropping, *(each for leaf in dropped for each in (leaf, leaf.next))]
            spent = self.spent
            for leaf in dropped:
                spent = _joined(spent, leaf.generation)
            if self.replaced is not None and self.replaced.generation in {leaf.generation for leaf in dropped}:
                leaves.append(self.replaced)
                changes = {"replaced": None} | changes
            changes = {"dropping": tuple(dict.fromkeys(leaves)), "spent": spent} | changes
        return self.model_copy(update=changes)


def _joined(ranges: tuple[tuple[int, int], ...], number: int) -> tuple[tuple[int, int], ...]:
    """The ranges, in order, with one more number in them."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted((*ranges, (number, number))):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)
