"""Take a rotation back."""

from __future__ import annotations

import argparse

from rotation.arguments import waiting

HELP = "take a candidate back; after promotion, turn again with the previous value"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secrets", nargs=1, metavar="SECRET")
    parser.add_argument("--reason", default="rolled back by hand", metavar="TEXT", help="kept in the audit trail")
    waiting(parser)


def run(options: argparse.Namespace) -> int:
    from rotation.opening import Purpose
    from rotation.session import session

    with session(options) as at_work:
        return at_work.run(options, at_work.names(options.secrets), Purpose.ROLL_BACK)
