"""Where every secret stands."""

from __future__ import annotations

import argparse

HELP = "show every secret: generations, age against policy, next due, phase"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secrets", nargs="*", metavar="SECRET")


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rotation.exit_codes import DONE, FAILED
    from rotation.session import session
    from rotation.status import UNREADABLE, describe

    with session(options) as at_work:
        rows = at_work.rows(at_work.look(at_work.names(options.secrets)))
        document = {"environment": options.environment, "secrets": [asdict(row) for row in rows]}
        at_work.output.result(document, describe(rows))
    return FAILED if any(row.phase == UNREADABLE for row in rows) else DONE
