"""Retire what is out of use."""

from __future__ import annotations

import argparse

from rotation.arguments import waiting

HELP = "retire previous generations that are out of use, or say what they wait for"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secrets", nargs="*", metavar="SECRET", help="default: all that have a previous generation")
    waiting(parser)


def run(options: argparse.Namespace) -> int:
    from rotation.opening import Purpose
    from rotation.session import session

    with session(options) as at_work:
        names = at_work.names(options.secrets) or [row.secret for row in at_work.all() if row.previous is not None]
        return at_work.run(options, names, Purpose.RETIRE)
