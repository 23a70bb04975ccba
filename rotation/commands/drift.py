"""Compare what is declared, stored, live and consumed."""

from __future__ import annotations

import argparse

from rotation.arguments import seconds

HELP = "compare what is declared, stored, live and consumed, and put right what is safe"
WAYS = ("declared", "stored", "live", "consumed")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ways", nargs="*", type=_way, metavar="WAY", help=f"default: all of {', '.join(WAYS)}")
    parser.add_argument("--fix", action="store_true", help="put right what is safe, then look again")
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text", help="default: text")
    parser.add_argument("--wait", type=seconds, metavar="SECONDS", help="stay this long for what --fix has to wait for")


def run(options: argparse.Namespace) -> int:
    import sys
    from datetime import timedelta

    from rotation.drift import Way, fixing, reporting
    from rotation.drift.check import check
    from rotation.notifications import Notice
    from rotation.session import session
    from rotation.settings import Topic, load

    rules = load(options.project).drift.ignore
    ways = [Way(way) for way in options.ways] or list(Way)
    options.json = options.json or options.format == "json"
    # Whatever is said on the way goes to stderr, where stdout is for another program.
    quiet = argparse.Namespace(**{**vars(options), "json": options.json or options.format == "markdown"})
    with session(quiet) as at_work:
        found = check(at_work.engine, ways, rules)
        tried = []
        if options.fix and any(finding.fix and finding.counts for finding in found.findings):
            wait = timedelta(seconds=at_work.wait if options.wait is None else options.wait)
            with at_work.output.progress():
                tried = fixing.fix(at_work.engine, found.findings, wait)
            found = check(at_work.engine, ways, rules)
        left = fixing.left(tried, found.findings)
        drifted = [finding for finding in found.findings if finding.counts]
        notices = [Notice(Topic.DRIFT, finding.address, finding.what, finding.remedy) for finding in drifted]
        at_work.notifier.tell_changed(Topic.DRIFT, notices, subject=f"drift {options.environment}")
        if options.format == "markdown" and not options.json:
            sys.stdout.write("\n".join(report.body for report in reporting.reports(found)))
        else:
            at_work.output.result(reporting.document(found, tried, left), reporting.lines(found, tried, left))
        return found.exit_code


def _way(text: str) -> str:
    if text not in WAYS:
        raise argparse.ArgumentTypeError(f"there is no way {text!r} (there are: {', '.join(WAYS)})")
    return text
