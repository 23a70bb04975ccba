"""Trying again, and looking until something shows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
import stamina
from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

from rotation import retries
from rotation.errors import Conflict, KeyturnError, Unavailable
from rotation.retries import retrying, until


def failing(times: int, error: KeyturnError) -> Callable[[], int]:
    """Fails so often, then returns the number of the call."""
    calls = itertools.count(1)

    def call() -> int:
        number = next(calls)
        if number <= times:
            raise error
        return number

    return call


def test_what_is_unavailable_for_a_moment_is_tried_again() -> None:
    with stamina.set_testing(True, attempts=3):
        assert retrying(failing(2, Unavailable("busy"))) == 3


def test_what_stays_unavailable_is_told_in_its_own_words() -> None:
    with stamina.set_testing(True, attempts=3), pytest.raises(Unavailable, match="busy"):
        retrying(failing(3, Unavailable("busy")))


def test_any_other_error_goes_through_at_once() -> None:
    call = failing(1, Conflict("moved"))
    with pytest.raises(Conflict):
        retrying(call)
    assert call() == 2


@pytest.fixture
def pauses() -> Iterator[list[float]]:
    """The seconds that are waited before each further try."""
    told: list[float] = []
    before = get_on_retry_hooks()
    set_on_retry_hooks([lambda details: told.append(details.wait_for)])
    yield told
    set_on_retry_hooks(before)


def test_there_is_a_pause_before_another_try(pauses: list[float]) -> None:
    started = time.monotonic()
    retrying(failing(1, Unavailable("busy")))
    (pause,) = pauses
    assert 0.2 <= pause <= 1.2
    assert time.monotonic() - started > pause * 0.9


def test_the_pause_is_the_one_that_the_server_asks_for(pauses: list[float]) -> None:
    retrying(failing(1, Unavailable("busy", retry_after=2)))
    (pause,) = pauses
    assert 2 <= pause <= 2.5


def test_no_server_makes_anyone_wait_for_long(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    monkeypatch.setattr(retries, "_LONGEST_PAUSE", 0.1)
    retrying(failing(1, Unavailable("busy", retry_after=3600)))
    (pause,) = pauses
    assert pause <= 0.6


def test_looking_ends_when_it_shows() -> None:
    seen = itertools.count(1)
    assert until(lambda: next(seen), lambda number: number == 3, what="three") == 3


def test_looking_once_is_enough_when_it_is_there() -> None:
    seen = itertools.count(1)
    until(lambda: next(seen), lambda _: True, what="anything")
    assert next(seen) == 2


def test_looking_has_an_end() -> None:
    seen = itertools.count(1)
    with pytest.raises(Unavailable, match=r"the thing does not show after 0\.2 s"):
        until(lambda: next(seen), lambda _: False, what="the thing", seconds=0.2)
    assert next(seen) <= 4, "after pauses of 50 and 100 ms the next would be too long"
