"""Regenerate configuration."""

from __future__ import annotations

import argparse

HELP = "regenerate application configuration from templates and pins"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="change nothing; exit 2 if a file is stale")


def run(options: argparse.Namespace) -> int:
    from rotation.exit_codes import CHANGES, DONE
    from rotation.session import session, short

    with session(options) as at_work:
        engine = at_work.engine
        stored = engine.observer.stored(engine.manifest.secrets.values())
        rendered = engine.rollout.regenerate(stored, check=options.check)
        stale = [file for file in rendered if file.changed]
        verb = "is stale" if options.check else "is regenerated"
        at_work.output.result(
            {"files": [{"path": short(f.path, engine.project), "changed": f.changed} for f in rendered]},
            [f"{short(file.path, engine.project)} {verb}" for file in stale]
            or [f"{len(rendered)} files are what their templates and pins say"],
        )
        return CHANGES if options.check and stale else DONE
