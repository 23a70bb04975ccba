"""What the pipeline that runs this says of itself."""

from __future__ import annotations

import os


def run_url() -> str | None:
    """The page of the run that this process belongs to: GitHub Actions' default variables, or Jenkins's BUILD_URL."""
    server, repository, run = (os.environ.get(f"GITHUB_{part}") for part in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    if server and repository and run:
        return f"{server}/{repository}/actions/runs/{run}"
    return os.environ.get("BUILD_URL")
