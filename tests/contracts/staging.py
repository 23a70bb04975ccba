"""What the contracts of secret stores share: prepared secrets, cuts into remote calls, and runners that cross."""

from __future__ import annotations

import itertools
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import pytest
import stamina

from rotation.errors import Conflict, KeyturnError
from rotation.model import StoreView, Version
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore

ATTEMPTS = 3  # of one call while these tests run, without pauses
CANARY = "canary-9f31c7-should-be-seen-nowhere"


class Moment(Enum):
    """Where a remote call is cut into: before it is sent, or after its answer came."""

    BEFORE = "before"
    AFTER = "after"


class Trouble(Enum):
    """How a server misbehaves."""

    THROTTLED = "throttled"
    BROKEN = "broken"  # answers with an internal error
    DROPPED = "dropped"  # closes the connection before it applies anything
    LOST_REPLY = "lost reply"  # applies, then closes the connection
    DENIED = "denied"


class Killed(BaseException):
    """The runner dies here."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A view without ids: what two ways to the same end must agree on."""

    current: int | None
    pending: int | None
    previous: int | None
    rejected: bool
    revision: int

    @classmethod
    def of(cls, view: StoreView) -> Shape:
        current, pending, previous = (v.generation if v else None for v in (view.current, view.pending, view.previous))
        return cls(current, pending, previous, view.rejected, view.current.revision if view.current else 0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A prepared secret, and one act on it that may be cut anywhere."""

    sentence: str
    prepare: Callable[[SecretStore, str], None]
    act: Callable[[SecretStore, str], object]


def every_point() -> Iterator[tuple[int, Moment]]:
    """Before and after the first remote call, the second, and so on without end."""
    return ((nth, moment) for nth in itertools.count(1) for moment in Moment)


def text_of(generation: int) -> SecretValue:
    return SecretValue(f"value of generation {generation}")


def current_of(store: SecretStore, name: str) -> Version | None:
    return store.observe([name])[name].current


def adopted(store: SecretStore, name: str, generation: int, foreign: str) -> None:
    """Give a foreign current version's value to a generation, and make that current."""
    version = Version(foreign, None)
    store.stage(name, generation, store.read(name, version))
    store.promote(name, generation, version)


def promoted(store: SecretStore, name: str, generation: int) -> None:
    store.stage(name, generation, text_of(generation))
    store.promote(name, generation, current_of(store, name))


def rejected(store: SecretStore, name: str, generation: int) -> None:
    store.stage(name, generation, text_of(generation))
    store.reject(name, generation)


def nothing(_store: SecretStore, _name: str) -> None: ...


def one_pending(store: SecretStore, name: str) -> None:
    store.stage(name, 1, text_of(1))


def one_current(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)


def two_pending(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)
    store.stage(name, 2, text_of(2))


def two_current(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)
    promoted(store, name, 2)


def one_rejected(store: SecretStore, name: str) -> None:
    rejected(store, name, 1)


def two_rejected(store: SecretStore, name: str) -> None:
    promoted(store, name, 1)
    rejected(store, name, 2)


def three_pending_after_a_rejected_one(store: SecretStore, name: str) -> None:
    two_rejected(store, name)
    store.discard(name, 2)
    store.stage(name, 3, text_of(3))


# ``expected`` is what a runner sees when it starts: a resumed run observes afresh, as the engine does.
def _promote(generation: int) -> Callable[[SecretStore, str], object]:
    return lambda store, name: store.promote(name, generation, current_of(store, name))


SCENARIOS = (
    Scenario("stage a first value", nothing, lambda s, n: s.stage(n, 1, text_of(1))),
    Scenario("stage a second value", one_current, lambda s, n: s.stage(n, 2, text_of(2))),
    Scenario("promote the first value", one_pending, _promote(1)),
    Scenario("promote the second value", two_pending, _promote(2)),
    Scenario("promote after a rejected one", three_pending_after_a_rejected_one, _promote(3)),
    Scenario("reject the first value", one_pending, lambda s, n: s.reject(n, 1)),
    Scenario("reject the second value", two_pending, lambda s, n: s.reject(n, 2)),
    Scenario("discard the rejected first value", one_rejected, lambda s, n: s.discard(n, 1)),
    Scenario("discard the rejected second value", two_rejected, lambda s, n: s.discard(n, 2)),
    Scenario("discard the previous value", two_current, lambda s, n: s.discard(n, 1)),
)
EVERY_SCENARIO = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.sentence)


class StoreHarness(ABC):
    """What a store's own test says: how to make what the contracts need."""

    value_bytes: ClassVar[int]
    bad_names: ClassVar[tuple[str, ...]]
    ids_tell_secrets_apart: ClassVar[bool] = True  # whether no two secrets have a version id in common

    @abstractmethod
    def open(self) -> SecretStore:
        """One runner's store; each runner opens its own."""

    @abstractmethod
    def slot(self) -> str:
        """The name of a new slot without a value."""

    @abstractmethod
    def put_foreign(self, name: str, text: str) -> str:
        """Another tool makes a value current; return its version id."""

    @abstractmethod
    def at_every_call(self, store: SecretStore, moment: Moment, do: Callable[[], None]) -> AbstractContextManager[None]:
        """Run ``do`` at every remote call of this store object."""

    def at_call(
        self, store: SecretStore, nth: int, moment: Moment, do: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Run ``do`` at the nth (from 1) remote call of this store object."""
        count = itertools.count(1)
        return self.at_every_call(store, moment, lambda: do() if next(count) == nth else None)

    @abstractmethod
    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        """The store's server misbehaves for so many calls, once so many have passed."""

    @pytest.fixture(autouse=True)
    def without_pauses(self) -> Iterator[None]:
        with stamina.set_testing(True, attempts=ATTEMPTS):
            yield

    def shape(self, name: str) -> Shape:
        return Shape.of(self.open().observe([name])[name])


def die() -> None:
    raise Killed


def promote(generation: int, expected: Version | None, store: SecretStore, name: str) -> None:
    store.promote(name, generation, expected)


def reject(generation: int, store: SecretStore, name: str) -> None:
    store.reject(name, generation)


def stage_own(generation: int, got: list[str], store: SecretStore, name: str) -> None:
    """Stage a value that no other runner would, and note which one it became."""
    got.append(store.stage(name, generation, SecretValue(f"{id(store)}-{generation}")).reveal())


def wins(act: Callable[[], object]) -> bool:
    """Act; False where someone else moved first."""
    try:
        act()
    except Conflict:
        return False
    return True


@dataclass
class Crossing:
    """What another runner does in the middle of an act. ``won`` is None until it has done it."""

    act: Callable[[], object]
    won: bool | None = None

    def __call__(self) -> None:
        self.won = wins(self.act)


def together(work: Sequence[Callable[[], object]]) -> list[bool]:
    """Run each act in its own thread, all at once; tell which ones won and which met a Conflict."""
    start = threading.Barrier(len(work))

    def run(act: Callable[[], object]) -> bool:
        start.wait(timeout=60)
        return wins(act)

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work, timeout=60))


def told_by(act: Callable[[], object]) -> str:
    """All that an error says: its text, its causes and contexts, their attributes, and the traceback."""
    with pytest.raises(KeyturnError) as caught:
        act()
    told = "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        told += f"{error!s} {error!r} {error.args!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__
    return told
