"""Two runners on one row of revisions, held up anywhere, on a COS that promises no more than is known of the real one.

That COS looks at what is there and writes in two steps, between which others come first; its lists lag; answers get
lost; and between any two steps there may be an hour. Each schedule is drawn by a seed, so that it can be run again.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any, cast

import pytest
import stamina

from rotation.buckets import cos
from rotation.buckets.cos import CosBucket
from rotation.cos import Answer, Cos, Listed
from rotation.errors import Conflict, KeyturnError, Unavailable
from tests.racing import RUNNERS, Baton, at_once

BEGIN = 1_800_000_000.0
WRITES = 4
SCHEDULES = 150
PAUSES = (*[0.1] * 20, 1.0, 3.0, 8.0)  # seconds between two steps, at most; now and then it is an hour
HELD = 5.0  # seconds: what COS lets through has its effect by then, or never


@dataclass
class WeakCos:
    """A bucket in memory, its clock, and what was won in it."""

    draw: random.Random
    held: float = HELD
    now: float = BEGIN
    objects: dict[str, Answer] = field(default_factory=dict)
    lists: list[tuple[float, list[Listed]]] = field(default_factory=list)
    won: dict[int, bytes] = field(default_factory=dict)
    built_on: dict[int, bytes] = field(default_factory=dict)

    def date(self) -> datetime:
        return datetime.fromtimestamp(int(self.now), UTC)

    def commit(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        headers = {f"x-cos-meta-{name}": value for name, value in metadata.items()}
        headers |= {"content-length": str(len(body)), "last-modified": formatdate(int(self.now), usegmt=True)}
        self.objects[key] = Answer(headers, body, self.date())
        self.noted()

    def noted(self) -> None:
        self.lists.append((self.now, [Listed(key, found.modified) for key, found in sorted(self.objects.items())]))


class Line:
    """One runner's way to it, with the methods of :class:`Cos`: at each step others may come first."""

    def __init__(self, cos: WeakCos, runner: str, baton: Baton) -> None:
        self._cos = cos
        self._runner = runner
        self._baton = baton

    def step(self) -> None:
        self._baton.hook(self._runner, "step", "before")
        pause = 3600.0 if self._cos.draw.random() < 0.003 else self._cos.draw.choice(PAUSES)
        self._cos.now += pause * self._cos.draw.random()

    def wait(self, seconds: float) -> None:
        until = self._cos.now + seconds
        while self._cos.now < until:
            self.step()
            self._cos.now += 0.2  # or else it would stand still where nobody else does anything

    def below(self, prefix: str) -> tuple[list[Listed], datetime]:
        self.step()
        began = self._cos.date()
        lag = self._cos.draw.choice((0.0, 0.0, 20.0))
        seen = [listed for at, listed in self._cos.lists if at <= self._cos.now - lag]
        self.step()
        return [entry for entry in (seen[-1] if seen else []) if entry.key.startswith(prefix)], began

    def head(self, key: str) -> Answer | None:
        self.step()
        found = self._cos.objects.get(key)
        return Answer(found.headers, found.body, self._cos.date()) if found else None

    get = head

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> Answer:
        self.step()
        there = key in self._cos.objects
        let_through = self._cos.now
        self.step()  # another request that was let through may take effect first
        if self._cos.now - let_through > self._cos.held:
            raise Unavailable("it was held up for too long")
        if not there:
            self._cos.commit(key, body, metadata)
        date = self._cos.date()
        self.step()
        if self._cos.draw.random() < 0.05:
            raise Unavailable("the answer is lost")
        if there:
            raise Conflict("it is there")
        return Answer({}, b"", date)

    def delete(self, key: str) -> None:
        self.step()
        self._cos.objects.pop(key, None)
        self._cos.noted()


def work(world: WeakCos, runner: str, baton: Baton, failures: list[BaseException]) -> None:
    """Read and write again and again, as a runner that goes on from what it finds."""
    line = Line(world, runner, baton)
    bucket = CosBucket("cos://weak-1/row", cast(Cos, line), line.wait)
    try:
        baton.wait(runner)
        for count in range(WRITES):
            _update(world, bucket, f"{runner} {count}".encode(), line)
    except BaseException as error:  # noqa: BLE001 - raised again where the test can see it
        failures.append(error)
    finally:
        baton.finish(runner)


def _update(world: WeakCos, bucket: CosBucket, body: bytes, line: Line) -> None:
    try:
        stored = bucket.read("one")
        line.step()
        etag = bucket.write("one", body, stored.etag if stored else None)
        number = int(etag.partition("-")[0])
        assert number not in world.won, f"{world.won[number]!r} and {body!r} both won {number}"
        world.won[number] = body
        world.built_on[number] = stored.body if stored else b""
        if world.draw.random() < 0.2:
            bucket.remove("one", etag)
    except KeyturnError:
        pass  # it lost, or it cannot tell


def run(seed: int) -> WeakCos:
    draw = random.Random(seed)  # noqa: S311 - a schedule
    world, failures = WeakCos(draw), list[BaseException]()
    baton = Baton([draw.random() < 0.5 for _ in range(2000)])
    at_once([threading.Thread(target=work, args=(world, runner, baton, failures)) for runner in RUNNERS])
    for failure in failures:
        raise failure
    _check_chain(world)
    return world


def _check_chain(world: WeakCos) -> None:
    """Who won a revision had read what won the one before it, and that stays."""
    for number, read in world.built_on.items():
        before = world.won.get(number - 1)
        assert before is None or read in (before, b""), f"{number} was made from {read!r}, and {before!r} is lost"
    for number, body in world.won.items():
        standing = [found.body for key, found in world.objects.items() if int(key[-10:]) == number]
        assert standing in ([body], []), f"{standing!r} stands where {body!r} won {number}"


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Between two attempts, which are as many as ever."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


def _run_all() -> list[WeakCos]:
    return [run(seed) for seed in range(SCHEDULES)]


def test_of_two_runners_each_revision_is_won_by_one_that_knew_the_one_before_it() -> None:
    worlds = _run_all()
    wins = [body.split()[0] for world in worlds for body in world.won.values()]
    assert all(wins.count(runner.encode()) >= SCHEDULES for runner in RUNNERS)  # so that it is about something


@pytest.mark.parametrize("rule", ["nobody looks once more", "nobody waits before that"])
def test_without_a_last_look_or_the_wait_before_it_two_win(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if rule == "nobody looks once more":
        monkeypatch.setattr(cos, "_is", lambda *_: True)
    else:
        monkeypatch.setattr(cos, "SETTLE", 0.0)
    with pytest.raises(AssertionError, match=r"both won|stands where"):
        _run_all()


# One long pause, at each step


class Calm(random.Random):
    """Nothing of what is drawn happens."""

    def random(self) -> float:
        return 0.5

    def choice(self, seq: Any) -> Any:
        return seq[0]


@dataclass
class Pause:
    """What others do while a runner is held up at its step ``at``."""

    at: int
    meanwhile: Callable[[], None]
    steps: int = 0

    def hook(self, *_: object) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.meanwhile()


def _held_up(at: int, others: int) -> bool:
    """Let a runner write once, and be held up at its step ``at`` while the other one writes some times, every 20
    minutes; return whether it ever came to that step."""
    world = WeakCos(Calm(), held=math.inf)
    free = Line(world, RUNNERS[1], cast(Baton, Pause(0, lambda: None)))
    other = CosBucket("cos://weak-1/row", cast(Cos, free), free.wait)

    def go_on() -> None:
        for count in range(others):
            _update(world, other, f"other {count}".encode(), free)
            world.now += 1200

    go_on()
    pause = Pause(at, go_on)
    line = Line(world, RUNNERS[0], cast(Baton, pause))
    _update(world, CosBucket("cos://weak-1/row", cast(Cos, line), line.wait), b"one", line)
    _update(world, other, b"last", free)
    assert max(world.won) == max(int(key[-10:]) for key in world.objects), "the last one wins nothing"
    return pause.steps >= at


def _held_up_at_each_step(others: int) -> int:
    """How many steps there are."""
    return next(at for at in range(1, 1000) if not _held_up(at, others)) - 1


@pytest.mark.parametrize("others", [1, 2 * cos.HISTORY])
def test_a_runner_that_is_held_up_at_any_step_wins_nothing_that_another_has_won(others: int) -> None:
    assert _held_up_at_each_step(others) > 10


@pytest.mark.parametrize("others", [1, 2 * cos.HISTORY])
def test_without_a_bound_on_its_time_it_does(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one other write, as COS held up what it had let through; with many, as the revision was cleaned up."""
    monkeypatch.setattr(cos, "PROMPT", timedelta(days=1))
    with pytest.raises(AssertionError, match="both won"):
        _held_up_at_each_step(others)
