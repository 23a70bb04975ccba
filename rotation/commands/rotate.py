"""Rotate, or go on with rotations in flight."""

from __future__ import annotations

import argparse

from rotation.arguments import PHASES, file, reason, waiting, words

HELP = "rotate, or go on with rotations in flight, until done, waiting or blocked"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secrets", nargs="*", metavar="SECRET", help="default: only what is in flight")
    parser.add_argument("--due", action="store_true", help="what is due and may be turned now")
    parser.add_argument(
        "--initialize", action="store_true", help="allow first values (without names: all that have none)"
    )
    parser.add_argument("--plan", type=file, metavar="FILE", help="only what this plan says, and only if nothing moved")
    parser.add_argument("--until", choices=PHASES, metavar="PHASE", help=f"go no further than: {', '.join(PHASES)}")
    reason(parser)
    parser.add_argument(
        "--override", type=words, metavar="REASON", help="go on without the rehearsal that is asked for; audited"
    )
    waiting(parser)


def run(options: argparse.Namespace) -> int:
    from rotation.due import reason_of
    from rotation.opening import Purpose
    from rotation.planning import RotationPlan, plan_rotations
    from rotation.session import session

    why = reason_of(options)
    options.reason = str(why)
    with session(options) as at_work:
        purpose, names = Purpose.ROTATE, at_work.names(options.secrets)
        if options.plan:
            reviewed = RotationPlan.load(options.plan)
            names = [rotation.secret for rotation in reviewed.rotations]
            reviewed.refuse_if_moved(plan_rotations(at_work.engine, names))
        elif options.due:
            rows = at_work.all()
            names = sorted({*names, *at_work.due(rows, why.trigger), *at_work.unreadable(rows)})
        elif options.initialize and not names:
            names = [row.secret for row in at_work.all() if row.phase == "empty"]
        elif not names:
            rows = at_work.all()
            purpose, names = Purpose.RESUME, sorted({*at_work.in_flight(rows), *at_work.unreadable(rows)})
        code = at_work.run(options, names, purpose, initialize=options.initialize, until=options.until)
        if options.due:
            at_work.tell_overdue()
        return code
