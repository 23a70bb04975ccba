"""Time and memory of whole commands, by the operating system's own accounting.

The machines that this runs on are noisy: quote medians, and ratios of commands that ran in turn.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

LIMIT = 300  # seconds that one command may take
_EVERY = 0.005  # seconds between two looks at a command's memory

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, where it runs and all that it sees; ``codes`` are the exit codes it may have."""

    argv: Sequence[str]
    folder: Path
    variables: Mapping[str, str]
    codes: Sequence[int] = (0,)

    def run(self) -> None:
        """Run it to its end. Raises RuntimeError, with what it wrote, for another exit code."""
        with self._started() as child:
            self._finish(child)

    def seconds(self) -> float:
        """Run it, and return how long that took."""
        began = time.perf_counter()
        self.run()
        return time.perf_counter() - began

    def memory(self) -> Memory:
        """Run it while looking at its memory, which slows it down: take times from another run."""
        with self._started() as child:
            seen = Memory()
            while child.poll() is None:
                seen = seen.grown(child.pid)
                time.sleep(_EVERY)
            self._finish(child)
        return seen

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv,
            cwd=self.folder,
            env=dict(self.variables),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _finish(self, child: subprocess.Popen[str]) -> None:
        try:
            _, stderr = child.communicate(timeout=LIMIT)
        except BaseException:
            child.kill()
            raise
        if child.returncode not in self.codes:
            raise RuntimeError(f"{' '.join(self.argv)[:200]} ended with {child.returncode}:\n{stderr[-4000:]}")


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks in megabytes: the ``largest`` process's resident memory, and that of all of them ``together``."""

    largest: float = 0.0
    together: float = 0.0

    def grown(self, process_id: int) -> Memory:
        """These peaks, or what a process and its children have now where that is more.

        Pages that processes of one program share (its code, above all) are counted once, and pages that they share
        with processes of other commands in full, so that the sum does not depend on what else runs on the machine.
        """
        own: list[int] = []
        resident: list[int] = []
        shared: dict[str, int] = {}
        for process in _family(process_id):
            try:
                memory, program = process.memory_full_info(), process.exe()
            except psutil.Error:  # it has just ended
                continue
            own.append(memory.uss)
            resident.append(memory.rss)
            shared[program] = max(shared.get(program, 0), memory.rss - memory.uss)
        largest, together = max(resident, default=0), sum(own) + sum(shared.values())
        return Memory(max(self.largest, largest / MEGABYTE), max(self.together, together / MEGABYTE))


def _family(process_id: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process_id)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def medians(runs: Mapping[str, Callable[[], float]], times: int, warm: bool = True) -> dict[str, float]:
    """The median of what each gives in so many runs. They run in turn, after one round that does not count."""
    if warm:
        for run in runs.values():
            run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            taken[name].append(run())
    return {name: median(values) for name, values in taken.items()}


@dataclass(slots=True)
class Stopwatch:
    """How long each named part took, in seconds, summed over all that was timed."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - began


def variables(**more: str) -> dict[str, str]:
    """What measured commands see of this process's environment: where things are, and nothing that changes them."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ} | more
