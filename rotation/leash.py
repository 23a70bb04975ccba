"""Run a program that is interrupted when its runner dies: ``python -I -S leash.py RUNNER-PID PROGRAM ARGUMENT…``.

Without this the Terraform of a killed runner goes on, or dies as soon as it prints: then without its state written and
its lock freed. An interrupt lets it finish what it has begun, write its state and free its lock. The kernel sends it
(prctl(2), PR_SET_PDEATHSIG); other systems than Linux have no such thing, and there the program goes on.

A program of its own, as nothing but exec is safe between fork and exec in a process with threads; it imports next to
nothing, and takes 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(runner: int, argv: list[str]) -> str | None:
    """Become the program; return why that failed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != runner:
            return "error: the runner died"
    # Python ignores the first two and its children would too; whoever runs in the background may ignore the third.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  # there is no shell on purpose
    except OSError as error:
        return f"error: {argv[0]} cannot be started: {error.strerror}"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
