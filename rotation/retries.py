"""Trying again: where a server refuses for a moment, and where it shows a change only after a while."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

import stamina

from rotation.errors import Unavailable

T = TypeVar("T")

# stamina warns of every further attempt; where nobody set up logging, Python would print that on stderr.
logging.getLogger("stamina").addHandler(logging.NullHandler())

_LONGEST_PAUSE = 10.0  # seconds, whatever a server asks for


def _pause(error: Exception) -> bool | float:
    """Whether to try again; where the server said after how many seconds, those and a little more at random."""
    if not isinstance(error, Unavailable):
        return False
    if error.retry_after is None:
        return True
    return min(error.retry_after, _LONGEST_PAUSE) + random.uniform(0, 0.5)  # noqa: S311 - jitter


# No new attempt starts later than this many seconds after the first; with the longest request that is about a minute.
_AGAIN = stamina.RetryingCaller(attempts=10, timeout=45.0, wait_initial=0.2, wait_max=5.0, wait_jitter=1.0).on(_pause)


def retrying(call: Callable[[], T]) -> T:
    """Call, and call again with growing, jittered pauses for as long as it raises :class:`Unavailable`.

    Any other error goes through at once; the last Unavailable goes through after 10 attempts or 45 s.
    """
    return _AGAIN(call)


def until(look: Callable[[], T], good: Callable[[T], bool], *, what: str, seconds: float = 15.0) -> T:
    """Look until what is seen is good, and return it: a server may be slow to show what it has accepted.

    The pauses grow from 50 ms to 1 s. Raises :class:`Unavailable` saying ``what`` did not show after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    for pause in (min(0.05 * 2**n, 1.0) for n in itertools.count()):
        seen = look()
        if good(seen):
            return seen
        if time.monotonic() + pause > deadline:
            break
        time.sleep(pause)
    raise Unavailable(f"{what} does not show after {seconds:g} s")
