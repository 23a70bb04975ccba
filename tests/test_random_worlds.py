"""Worlds in which anything goes wrong for a while: nothing that must always hold breaks, and once it is over at most
two more runs bring quiet (I1-I5, P3, P13).

The world itself checks at every call; here a whole history of troubles, kills and requests is drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rotation.engine import Request, Result
from rotation.errors import DeployError, KeyturnError, Unavailable
from rotation.journal import LEASE
from rotation.model import Done, Ring, Strategy
from tests.scenarios import RESUME, RETIRE, ROLL_BACK, ROTATE
from tests.world import NAME, Killed, Side, World, fresh, memory_folder, no_hook

OTHER = "orders/api"
MOST_MORE_RUNS = 2


@dataclass(frozen=True)
class Trouble:
    """From one remote call of a run on, for a number of calls, something is wrong."""

    what: str
    begins: int
    lasts: int

    def is_on(self, call: int) -> bool:
        return self.begins <= call < self.begins + self.lasts


@dataclass(frozen=True)
class Chapter:
    """One run: what is asked for, what goes wrong meanwhile, and at which call, if at any, it is killed."""

    request: Request
    troubles: tuple[Trouble, ...]
    killed_at: int | None
    side: Side
    loses_journal: bool
    pause: int


WHATS = ("target down", "signals silent", "store throttled", "deployment fails")
troubles = st.builds(Trouble, st.sampled_from(WHATS), st.integers(1, 120), st.integers(1, 60))
chapters = st.builds(
    Chapter,
    st.sampled_from((ROTATE, ROTATE, ROTATE, RESUME, RETIRE, ROLL_BACK)),
    st.lists(troubles, max_size=3).map(tuple),
    st.none() | st.integers(1, 150),
    st.sampled_from(("before", "after")),
    st.sampled_from((False, False, True)),
    st.sampled_from((0, 100)),
)
characters = st.fixed_dictionaries(
    {
        "bad_under": st.dictionaries(st.sampled_from(Ring), st.sets(st.integers(2, 4), max_size=2)),
        "lacks": st.dictionaries(st.integers(2, 4), st.just(("SELECT on orders",)), max_size=1),
        "ignored_installs": st.dictionaries(st.integers(2, 4), st.sampled_from((1, 2, 99)), max_size=2),
    }
)


class Playing:
    """The hook that lets one chapter's troubles happen."""

    def __init__(self, world: World, chapter: Chapter) -> None:
        self._world = world
        self._chapter = chapter
        self._call = 0

    def __call__(self, runner: str, call: str, side: Side) -> None:
        self._call += side == "before"
        on = {trouble.what for trouble in self._chapter.troubles if trouble.is_on(self._call)}
        for part in self._world.parts.values():
            part.faults.target_down = "target down" in on
            part.faults.silent_signals = "signals silent" in on
        if (self._call, side) == (self._chapter.killed_at, self._chapter.side):
            raise Killed
        if side == "before" and "store throttled" in on and call.startswith("store."):
            raise Unavailable("the store is overloaded")
        if "deployment fails" in on and call == "deploy.apply":
            raise DeployError("the apply failed")


def play(world: World, names: Sequence[str], chapter: Chapter) -> None:
    if chapter.loses_journal:
        world.lose_journal()
    world.now += timedelta(seconds=chapter.pause)
    world.hook = Playing(world, chapter)
    try:
        world.run_all(names, chapter.request)
    except (Killed, KeyturnError):
        world.now += LEASE + timedelta(seconds=1)


def play_by_hand(world: World, number: int, chapter: Chapter) -> None:
    """Somebody else makes a login of their own current, which is adopted as the chapter says; one that they had made
    current before, and that was not adopted, they take away again."""
    if chapter.loses_journal:
        world.lose_journal()
    world.now += timedelta(seconds=chapter.pause)
    if world.slot.foreign is not None:
        world.principals[json.loads(world.slot.foreign.reveal())["username"]].password = None
    world.put_by_hand(f"legacy{number}", "by hand")
    world.hook = Playing(world, chapter)
    with suppress(Killed, KeyturnError):
        world.adopt()
    world.now += LEASE + timedelta(seconds=1)


def require_quiet_soon(world: World, names: Sequence[str]) -> dict[str, Result]:
    """The troubles are over: signals speak, the target is up, and what was bad stays bad."""
    world.hook = no_hook
    for part in world.parts.values():
        part.faults.target_down = part.faults.silent_signals = False
    for _ in range(MOST_MORE_RUNS):
        results = world.run_all(names, RESUME)
        if all(isinstance(result.decision, Done) for result in results.values()):
            break
    assert all(isinstance(result.decision, Done) for result in results.values()), results
    world.require_quiet()
    return results


WORLDS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@WORLDS
@given(st.lists(chapters, min_size=1, max_size=4), characters, st.sampled_from((0, 5)), st.booleans())
def test_whatever_goes_wrong_nothing_breaks_and_it_ends_quiet(
    story: list[Chapter], character: dict[str, object], reload_delay: int, tells_running: bool
) -> None:
    with memory_folder() as folder:
        world = fresh(folder, tells_running=tells_running)
        world.reload_delay = timedelta(seconds=reload_delay)
        for name, fault in character.items():
            setattr(world.faults, name, fault)
        for chapter in story:
            play(world, [NAME], chapter)
        require_quiet_soon(world, [NAME])


@WORLDS
@given(st.lists(chapters, min_size=1, max_size=3), characters)
def test_two_secrets_of_one_consumer_end_quiet_too(story: list[Chapter], character: dict[str, object]) -> None:
    with memory_folder() as folder:
        world = fresh(folder, names=(NAME, OTHER))
        for name, fault in character.items():
            setattr(world.faults, name, fault)
        for chapter in story:
            play(world, [NAME, OTHER], chapter)
        require_quiet_soon(world, [NAME, OTHER])


@WORLDS
@given(st.lists(chapters, min_size=1, max_size=3), characters)
def test_in_place_rotations_end_quiet_too(story: list[Chapter], character: dict[str, object]) -> None:
    with memory_folder() as folder:
        world = fresh(folder, Strategy.SINGLE)
        for name, fault in character.items():
            setattr(world.faults, name, fault)
        for chapter in story:
            play(world, [NAME], chapter)
        require_quiet_soon(world, [NAME])


@settings(WORLDS, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), chapters), min_size=2, max_size=4), characters, st.booleans())
def test_what_others_make_current_at_any_time_is_adopted_and_all_else_retired(
    story: list[tuple[bool, Chapter]], character: dict[str, object], tells_running: bool
) -> None:
    with memory_folder() as folder:
        world = fresh(folder, tells_running=tells_running)
        for name, fault in character.items():
            setattr(world.faults, name, fault)
        for number, (by_hand, chapter) in enumerate(story):
            if by_hand:
                play_by_hand(world, number, chapter)
            else:
                play(world, [NAME], chapter)
        world.hook = no_hook
        for part in world.parts.values():
            part.faults.target_down = part.faults.silent_signals = False
        if world.slot.foreign is not None:
            assert world.adopt().error is None
        require_quiet_soon(world, [NAME])
        world.now += timedelta(hours=1)
        retired = world.run(RETIRE)
        assert isinstance(retired.decision, Done), retired
        assert world.slot.waiting == []
        world.require_quiet()
