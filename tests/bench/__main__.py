"""Measure, print a table on the way and, with ``--json``, one document instead."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import declaring, deploying, drifting, reading, rotating
from tests.bench.report import Section, as_json, as_text

BENCHES: dict[str, Callable[[Path], Section]] = {
    "example": declaring.example,
    "thousand": declaring.thousand,
    "help": reading.help_text,
    "reading": reading.estates,
    "login": rotating.login,
    "tokens": rotating.tokens,
    "deploying": deploying.application,
    "drifting": drifting.estates,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what keyturn costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BENCHES)}")
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    sections = []
    for name in options.names or BENCHES:
        with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as folder:
            section = BENCHES[name](Path(folder))
        sections.append(section)
        if not options.json:
            sys.stdout.write(f"{as_text([section])}\n")
            sys.stdout.flush()
    if options.json:
        sys.stdout.write(f"{as_json(sections)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
