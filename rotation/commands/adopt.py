"""Take over a foreign version."""

from __future__ import annotations

import argparse

from rotation.arguments import waiting

HELP = "take over a version that was not made by keyturn"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secret", metavar="SECRET")
    waiting(parser)


def run(options: argparse.Namespace) -> int:
    from rotation.adopt import adopt
    from rotation.opening import Purpose
    from rotation.session import session

    with session(options) as at_work:
        engine, (name,) = at_work.engine, at_work.names([options.secret])
        secret = engine.manifest.secrets[name]
        with engine.journal.lease([name]):
            view = engine.observer.stored([secret], fresh=True)[name]
            generation = adopt(secret, view, engine.plugins, engine.custody, engine.journal)
        at_work.output.say(f"{name}: its value is generation {generation} now")
        return at_work.run(options, [name], Purpose.RESUME)  # the rings follow, canary first
