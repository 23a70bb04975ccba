"""Compare what is declared, stored, live and consumed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rotation.arguments import seconds

if TYPE_CHECKING:
    from rotation.drift import Way
    from rotation.drift.check import Drift
    from rotation.drift.fixing import Tried
    from rotation.drift.ignoring import Ignore
    from rotation.session import Session

HELP = "compare what is declared, stored, live and consumed, and put right what is safe"
WAYS = ("declared", "stored", "live", "consumed")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ways", nargs="*", type=_way, metavar="WAY", help=f"default: all of {', '.join(WAYS)}")
    parser.add_argument("--fix", action="store_true", help="put right what is safe, then look again")
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text", help="default: text")
    parser.add_argument("--wait", type=seconds, metavar="SECONDS", help="stay this long for what --fix has to wait for")


def run(options: argparse.Namespace) -> int:
    import sys

    from rotation.drift import Way, fixing, reporting
    from rotation.session import session
    from rotation.settings import load

    rules = load(options.project).drift.ignore
    ways = [Way(way) for way in options.ways] or list(Way)
    options.json = options.json or options.format == "json"
    # Whatever is said on the way goes to stderr, where stdout is for another program.
    quiet = argparse.Namespace(**{**vars(options), "json": options.json or options.format == "markdown"})
    with session(quiet) as at_work:
        found, tried = _look(at_work, ways, rules, options)
        _tell(at_work, found)
        left = fixing.left(tried, found.findings)
        if options.format == "markdown" and not options.json:
            sys.stdout.write("\n".join(report.body for report in reporting.reports(found)))
        else:
            at_work.output.result(reporting.document(found, tried, left), reporting.lines(found, tried, left))
        return found.exit_code


def _look(
    at_work: Session, ways: Sequence[Way], rules: Sequence[Ignore], options: argparse.Namespace
) -> tuple[Drift, list[Tried]]:
    """Look; with ``--fix`` put right what can be, and look again."""
    from datetime import timedelta

    from rotation.drift import fixing
    from rotation.drift.check import check

    found = check(at_work.engine, ways, rules)
    if not options.fix or not any(finding.fix and finding.counts for finding in found.findings):
        return found, []
    wait = timedelta(seconds=at_work.wait if options.wait is None else options.wait)
    with at_work.output.progress():
        tried = fixing.fix(at_work.engine, found.findings, wait)
    return check(at_work.engine, ways, rules), tried


def _tell(at_work: Session, found: Drift) -> None:
    """Tell people of drift, once for as long as it is the same."""
    from rotation.notifications import Notice
    from rotation.settings import Topic

    drifted = [finding for finding in found.findings if finding.counts]
    notices = [Notice(Topic.DRIFT, finding.address, finding.what, finding.remedy) for finding in drifted]
    at_work.notifier.tell_changed(Topic.DRIFT, notices, subject=f"drift {' '.join(found.ways)}")


def _way(text: str) -> str:
    if text not in WAYS:
        raise argparse.ArgumentTypeError(f"there is no way {text!r} (there are: {', '.join(WAYS)})")
    return text
