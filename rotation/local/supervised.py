"""A server of the embedded environment as a program: its command line, its end, and its errors."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from rotation.errors import KeyturnError


def run(module: str, server: str, serve: Callable[..., int], **numbers: int) -> int:
    """``serve`` in a folder and on a port, as the command line says, until SIGTERM or SIGINT; returns the exit code.

    ``numbers`` are what else it takes by name: each is an option with that default.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Run {server}.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--with-parent", action="store_true", help="stop when the process that started this one ends")
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help="default: %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.with_parent:
        _end_with_parent()
    try:
        return serve(options.folder, options.port, **{name: getattr(options, name) for name in numbers})
    except KeyturnError as error:
        sys.stderr.write(f"{error}\n{error.remedy}\n")
        return 1
    except KeyboardInterrupt:  # before the server was there
        return 0


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM at the death of the process that started this one."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() == 1:
        raise SystemExit("the process that started this one has ended")
