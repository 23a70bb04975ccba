"""What a rotation would do."""

from __future__ import annotations

import argparse

from rotation.arguments import file, reason

HELP = "show what a rotation would do, without values, and the Terraform plan's digest"
FEW = 10  # so many secrets are looked at again before they are planned: a store's list may be minutes behind


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secrets", nargs="*", metavar="SECRET", help="default: what is in flight or due")
    parser.add_argument("--due", action="store_true", help="what is due and may be turned now")
    reason(parser)
    parser.add_argument("--out", type=file, metavar="FILE", help="write the plan, for `keyturn rotate --plan`")


def run(options: argparse.Namespace) -> int:
    from rotation.due import reason_of
    from rotation.exit_codes import CHANGES, DONE
    from rotation.files import write_atomically
    from rotation.planning import describe, plan_rotations
    from rotation.session import session

    with session(options) as at_work:
        names, seen = at_work.names(options.secrets), None
        if options.due or not names:
            seen = at_work.look()
            rows = at_work.rows(seen)
            names += at_work.due(rows, reason_of(options).trigger)
            names += [] if options.due else at_work.in_flight(rows)
        if len(set(names)) <= FEW:
            seen = None
        made = plan_rotations(at_work.engine, set(names), seen)
        if options.out:
            write_atomically(options.out, made.model_dump_json(indent=1) + "\n")
        at_work.output.result(made.model_dump(mode="json"), describe(made))
        return CHANGES if made.rotations else DONE
