"""The command line: its parser, its errors and its exit codes. The commands are the files of :mod:`rotation.commands`,
which import what they work with when they run, so that `keyturn --help` answers at once."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Sequence

from rotation import arguments, commands
from rotation.errors import KeyturnError
from rotation.exit_codes import FAILED, INTERRUPTED

EPILOG = """\
exit codes: 0 done · 1 error · 2 something to do, or stale · 3 waiting · 4 rolled back or blocked: needs a person
All commands take --environment/-e (default: local), --json, --project and --debug."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Errors are two lines: what happened, and what to do."""
    options = parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except KeyturnError as error:
        if options.debug:
            raise
        if options.json:
            print(json.dumps({"error": str(error), "remedy": error.remedy}))  # noqa: T201
        print(f"error: {error}\n  {error.remedy}", file=sys.stderr)  # noqa: T201
        return FAILED
    except KeyboardInterrupt:
        print("stopped\n  Run the command again: it resumes.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left; without this the interpreter complains when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="keyturn",
        description="Key and secret rotation as a reviewed, Terraform-deployed change.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for found in pkgutil.iter_modules(commands.__path__):
        command = importlib.import_module(f"{commands.__name__}.{found.name}")
        sub = subparsers.add_parser(
            found.name, help=command.HELP, description=f"{command.HELP[0].upper()}{command.HELP[1:]}."
        )
        arguments.common(sub)
        command.arguments(sub)
        sub.set_defaults(run=command.run)
    return top
