"""Two runners at once, with no memory in common, in an order of remote calls that a test draws.

Each runner is a thread with a journal of its own, and only the one that holds the baton goes on: at each remote call it
hands the baton to whom the drawn schedule names. So a schedule is an interleaving, and a failure can be run again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rotation.engine import Request, Result
from rotation.errors import KeyturnError
from tests.world import Broken, Side

RUNNERS = ("one", "other")
PATIENCE = 60.0  # seconds of real time for any of this to happen: it takes milliseconds, with real servers a second


class Course(Protocol):
    """What two runners work on. ``project`` gets their journals."""

    @property
    def project(self) -> Path: ...

    def run(self, request: Request, runner: str = ..., journal: Path | None = ...) -> Result: ...


@dataclass
class Baton:
    """Lets one of two threads go on at a time. ``turns`` says, call by call, who goes next; after it they alternate."""

    turns: Sequence[bool]
    holder: str = RUNNERS[0]
    finished: set[str] = field(default_factory=set)
    passed: threading.Condition = field(default_factory=threading.Condition)
    calls: int = 0

    def hook(self, runner: str, call: str, side: Side) -> None:
        """Between two remote calls somebody else may go first."""
        if side == "before":
            self.wait(runner)
            self.hand_on()
            self.wait(runner)

    def hand_on(self) -> None:
        with self.passed:
            other = self.turns[self.calls] if self.calls < len(self.turns) else self.calls % 2 == 0
            self.calls += 1
            self._give(RUNNERS[1] if other else RUNNERS[0])

    def wait(self, runner: str) -> None:
        with self.passed:
            if not self.passed.wait_for(lambda: self.holder == runner, PATIENCE):
                raise Broken(f"{runner} waits for a baton that nobody hands on")

    def finish(self, runner: str) -> None:
        with self.passed:
            self.finished.add(runner)
            self._give(next(name for name in RUNNERS if name != runner))

    def _give(self, runner: str) -> None:
        left = [name for name in RUNNERS if name not in self.finished]
        self.holder = runner if runner in left else left[0] if left else ""
        self.passed.notify_all()


@dataclass
class Runner:
    """What one runner is asked for, one after the other; ``results`` tell what came of it."""

    name: str
    requests: Sequence[Request]
    results: list[Result | BaseException] = field(default_factory=list)

    def work(self, course: Course, baton: Baton) -> None:
        try:
            baton.wait(self.name)
            for request in self.requests:
                self._run(course, request)
        except BaseException as error:  # noqa: BLE001  # raised again where the test can see it
            self.results.append(error)
        finally:
            baton.finish(self.name)

    def _run(self, course: Course, request: Request) -> None:
        journal = course.project / f"{self.name}.sqlite3"
        try:
            self.results.append(course.run(request, self.name, journal))
        except KeyturnError as error:
            self.results.append(error)


def compete(course: Course, baton: Baton, scripts: Sequence[Sequence[Request]]) -> list[Runner]:
    """Let both work to their ends, each remote call of theirs by the baton's hook; raise what broke."""
    runners = [Runner(name, script) for name, script in zip(RUNNERS, scripts, strict=True)]
    at_once([threading.Thread(target=runner.work, args=(course, baton)) for runner in runners])
    for error in (result for runner in runners for result in runner.results):
        if isinstance(error, BaseException) and not isinstance(error, KeyturnError):
            raise error
    return runners


def at_once(threads: Sequence[threading.Thread]) -> None:
    """Start them, and wait until all have ended."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if any(thread.is_alive() for thread in threads):
        raise Broken(f"the runners are not done after {PATIENCE:g} s")
