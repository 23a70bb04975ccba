"""The real Terraform on a synthesized stack, against the local AWS API."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from main import PROJECT
from rotation.local.providers import tool_environment
from tests.fixtures.aws import ACCESS_KEY, REGION, SECRET_KEY


def terraform(folder: Path, command: str, *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it printed."""
    environment = {
        "HOME": os.environ["HOME"],
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        **tool_environment(PROJECT),
    }
    done = subprocess.run(
        ["terraform", command, "-input=false", "-no-color", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr
