"""The audit trail."""

from __future__ import annotations

import argparse

HELP = "print the audit trail after verifying its hashes"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secret", nargs="?", metavar="SECRET")


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rotation.exit_codes import DONE
    from rotation.session import session

    with session(options) as at_work:
        entries = at_work.engine.journal.trail(options.secret)
        lines = [f"{e.at[:19]}  {e.secret:<18}  {e.generation:>4}  {e.event:<14}  {e.detail}" for e in entries]
        at_work.output.result({"entries": [asdict(entry) for entry in entries]}, lines)
    return DONE
