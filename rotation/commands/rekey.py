"""Give a key new material."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rotation.session import Session

HELP = "rotate a key's material and re-wrap the values that it seals"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--rewrap-only", action="store_true", help="leave the key; re-wrap what an earlier run left")
    instead.add_argument(
        "--raise-minimum", action="store_true", help="only end the use of older material that seals nothing any more"
    )
    parser.add_argument("--no-apply", action="store_true", help="leave the deployment to `cdktf deploy`")


def run(options: argparse.Namespace) -> int:
    from rotation.exit_codes import DONE, WAITING
    from rotation.session import session

    with session(options) as at_work, at_work.engine.journal.lease([]):
        waiting = _raise_minimum(options, at_work) if options.raise_minimum else _rekey(options, at_work)
        at_work.output.result({"key": options.key, "waiting": waiting})
        return WAITING if waiting else DONE


def _rekey(options: argparse.Namespace, at_work: Session) -> dict[str, str]:
    from rotation.rekey import rewrap, rotate_key, weaknesses

    engine, say = at_work.engine, at_work.output.say
    if not options.rewrap_only:
        say(f"{rotate_key(engine.manifest, options.key, engine.plugins, engine.journal)} has new material")
        for weakness in weaknesses(engine.manifest, options.key, engine.plugins):
            at_work.output.warn(
                f"of the key {options.key}, {weakness}", "Make a new key without that, and seal with it."
            )
    return rewrap(engine.manifest, options.key, engine, say, outside=options.no_apply)


def _raise_minimum(options: argparse.Namespace, at_work: Session) -> dict[str, str]:
    from rotation.errors import UsageError
    from rotation.rekey import raise_minimum

    if options.no_apply:
        raise UsageError(
            "the minimum is raised only after a deployment that finds nothing to change",
            "Run `cdktf deploy`, then this command again without --no-apply.",
        )
    return raise_minimum(at_work.engine.manifest, options.key, at_work.engine, at_work.output.say)
