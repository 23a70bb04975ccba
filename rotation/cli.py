"""The command line: its parser, its errors and its exit codes. The commands themselves are in :mod:`rotation.commands`,
which is imported when one runs, so that `keyturn --help` answers at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rotation.errors import KeyturnError

FAILED, INTERRUPTED = 1, 130
PHASES = ("stage", "install", "test", "canary", "observe", "deploy", "promote")

EPILOG = """\
exit codes: 0 done · 1 error · 2 something to do, or stale · 3 waiting · 4 rolled back or blocked: needs a person
All commands take --environment/-e (default: local), --json, --project and --debug."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Errors are two lines: what happened, and what to do."""
    options = parser().parse_args(arguments)
    try:
        from rotation import commands

        return commands.run(options.command, options)
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


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="keyturn",
        description="Key and secret rotation as a reviewed, Terraform-deployed change.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    _local(commands)
    _status(commands)
    _plan(commands)
    _rotate(commands)
    _rollback(commands)
    _retire(commands)
    _adopt(commands)
    _render(commands)
    _rekey(commands)
    _audit(commands)
    return top


Commands = Any  # argparse keeps the type of its subparsers action to itself


def _command(commands: Commands, name: str, help_: str) -> Any:
    sub = commands.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
    sub.add_argument(
        "-e", "--environment", default=os.environ.get("KEYTURN_ENVIRONMENT", "local"), help="default: local"
    )
    sub.add_argument("--json", action="store_true", help="print one JSON document on stdout, the rest on stderr")
    sub.add_argument("--project", type=Path, help="the project's folder (default: the one we are in)")
    sub.add_argument("--debug", action="store_true", help="show the stack trace of an error")
    return sub


def _local(commands: Commands) -> None:
    sub = _command(commands, "local", "start, stop or look at the embedded environment")
    sub.add_argument("what", choices=("up", "down", "status", "env"), help="env prints its variables for a shell")
    sub.add_argument("--purge", action="store_true", help="with down: remove the data too")


def _status(commands: Commands) -> None:
    sub = _command(commands, "status", "show every secret: generations, age against policy, next due, phase")
    sub.add_argument("secrets", nargs="*", metavar="SECRET")


def _plan(commands: Commands) -> None:
    sub = _command(commands, "plan", "show what a rotation would do, without values, and the Terraform plan's digest")
    sub.add_argument("secrets", nargs="*", metavar="SECRET", help="default: what is in flight or due")
    sub.add_argument("--due", action="store_true", help="what is due and may be turned now")
    sub.add_argument("--out", type=_file, metavar="FILE", help="write the plan, for `keyturn rotate --plan`")


def _rotate(commands: Commands) -> None:
    sub = _command(commands, "rotate", "rotate, or go on with rotations in flight, until done, waiting or blocked")
    sub.add_argument("secrets", nargs="*", metavar="SECRET", help="default: only what is in flight")
    sub.add_argument("--due", action="store_true", help="what is due and may be turned now")
    sub.add_argument("--initialize", action="store_true", help="allow first values (without names: all that have none)")
    sub.add_argument("--plan", type=_file, metavar="FILE", help="only what this plan says, and only if nothing moved")
    sub.add_argument("--until", choices=PHASES, metavar="PHASE", help=f"go no further than: {', '.join(PHASES)}")
    sub.add_argument("--reason", default="asked for", metavar="TEXT", help="kept in the audit trail")
    _add_waiting(sub)


def _rollback(commands: Commands) -> None:
    sub = _command(commands, "rollback", "take a candidate back; after promotion, turn again with the previous value")
    sub.add_argument("secrets", nargs=1, metavar="SECRET")
    sub.add_argument("--reason", default="rolled back by hand", metavar="TEXT", help="kept in the audit trail")
    _add_waiting(sub)


def _retire(commands: Commands) -> None:
    sub = _command(commands, "retire", "retire previous generations that are out of use, or say what they wait for")
    sub.add_argument("secrets", nargs="*", metavar="SECRET", help="default: all that have a previous generation")
    _add_waiting(sub)


def _adopt(commands: Commands) -> None:
    sub = _command(commands, "adopt", "take over a version that was not made by keyturn")
    sub.add_argument("secret", metavar="SECRET")
    _add_waiting(sub)


def _render(commands: Commands) -> None:
    sub = _command(commands, "render", "regenerate application configuration from templates and pins")
    sub.add_argument("--check", action="store_true", help="change nothing; exit 2 if a file is stale")


def _rekey(commands: Commands) -> None:
    sub = _command(commands, "rekey", "rotate a key's material and re-wrap the values that it seals")
    sub.add_argument("key", metavar="KEY")
    sub.add_argument("--rewrap-only", action="store_true", help="leave the key; re-wrap what an earlier run left")
    sub.add_argument("--no-apply", action="store_true", help="leave the deployment to `cdktf deploy`")


def _audit(commands: Commands) -> None:
    sub = _command(commands, "audit", "print the audit trail after verifying its hashes")
    sub.add_argument("secret", nargs="?", metavar="SECRET")


def _add_waiting(sub: Any) -> None:
    sub.add_argument("--no-apply", action="store_true", help="leave deployments to `cdktf deploy`: exit 3 says when")
    sub.add_argument(
        "--wait", type=_seconds, metavar="SECONDS", help="stay this long for what time brings (default: 600)"
    )


def _file(text: str) -> Path:
    """A path from where the user is: commands work in the project's folder."""
    return Path(text).absolute()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds from 0 on")
    return seconds
