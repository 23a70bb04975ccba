"""What several commands take on their command lines."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PHASES = ("stage", "install", "test", "canary", "observe", "deploy", "promote")


def common(parser: argparse.ArgumentParser) -> None:
    """What every command takes."""
    parser.add_argument(
        "-e", "--environment", default=os.environ.get("KEYTURN_ENVIRONMENT", "local"), help="default: local"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, the rest on stderr")
    parser.add_argument("--project", type=Path, help="the project's folder (default: the one we are in)")
    parser.add_argument("--debug", action="store_true", help="show the stack trace of an error")


def waiting(parser: argparse.ArgumentParser) -> None:
    """What every command takes that works until something has to be waited for."""
    parser.add_argument("--no-apply", action="store_true", help="leave deployments to `cdktf deploy`: exit 3 says when")
    parser.add_argument(
        "--wait", type=seconds, metavar="SECONDS", help="stay this long for what time brings (default: 600)"
    )


def reason(parser: argparse.ArgumentParser) -> None:
    """What every command takes that rotates."""
    parser.add_argument(
        "--reason",
        metavar="TEXT",
        help="schedule, deployment, incident or manual, perhaps with ': words'; other text is manual. Kept in the "
        "audit trail; --due takes what is due after a deployment or an incident",
    )


def file(text: str) -> Path:
    """A path from where the user is: commands work in the project's folder."""
    return Path(text).absolute()


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds from 0 on")
    return number


def words(text: str) -> str:
    """A reason in words, on one line."""
    line = " ".join(text.split())
    if not line:
        raise argparse.ArgumentTypeError("a reason in words")
    return line
