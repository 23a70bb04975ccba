"""Give a key new material."""

from __future__ import annotations

import argparse

HELP = "rotate a key's material and re-wrap the values that it seals"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("--rewrap-only", action="store_true", help="leave the key; re-wrap what an earlier run left")
    parser.add_argument("--no-apply", action="store_true", help="leave the deployment to `cdktf deploy`")


def run(options: argparse.Namespace) -> int:
    from rotation.exit_codes import DONE, WAITING
    from rotation.rekey import rewrap, rotate_key
    from rotation.session import session

    with session(options) as at_work, at_work.engine.journal.lease([]):
        engine, say = at_work.engine, at_work.output.say
        if not options.rewrap_only:
            say(f"{rotate_key(engine.manifest, options.key, engine.plugins, engine.journal)} has new material")
        waiting = rewrap(engine.manifest, options.key, engine, say, outside=options.no_apply)
        at_work.output.result({"key": options.key, "waiting": waiting})
        return WAITING if waiting else DONE
