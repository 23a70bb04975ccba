"""The posture as a page."""

from __future__ import annotations

import argparse

from rotation.arguments import file
from rotation.commands.drift import WAYS

HELP = "write the posture of an environment as one HTML page that needs no network"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", type=file, metavar="FILE", required=True, help="the page")
    parser.add_argument(
        "--drift",
        nargs="*",
        choices=WAYS,
        metavar="WAY",
        help=f"look for drift, too: in these ways, or in all of {', '.join(WAYS)}",
    )


def run(options: argparse.Namespace) -> int:
    from rotation.drift import Way
    from rotation.errors import UsageError
    from rotation.exit_codes import DONE
    from rotation.files import write_atomically
    from rotation.report import gather
    from rotation.report.summary import document, lines
    from rotation.session import session
    from rotation.settings import load

    try:
        from rotation.report.page import render
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a report needs the package {error.name}, which is not installed",
            "Install keyturn with the extra report.",
        ) from error
    rules = load(options.project).drift.ignore
    ways = list(Way) if options.drift == [] else [Way(way) for way in options.drift or ()]
    with session(options) as at_work:
        made = gather(at_work, ways, rules)
        page = render(made)
        write_atomically(options.html, page)
        at_work.output.result(document(made, options.html, page), lines(made, options.html, page))
    return DONE
