"""The runner is killed with SIGKILL at any moment, time and again, while everyone goes on logging in."""

from __future__ import annotations

import random
import signal
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import psutil
import pytest

from rotation.local.demo.load import within
from rotation.model import Ring
from tests.fixtures.project import SECRET, Project

pytestmark = pytest.mark.timeout(600)

KILLS = 20
LONGEST_LIFE = 9.0  # seconds: a little less than an undisturbed rotation takes


def test_no_kill_leaves_anything_stuck_or_locks_anybody_out(project: Project) -> None:
    lives = random.Random(KILLS)  # noqa: S311
    before = project.labels()
    with project.watched():
        for _ in range(KILLS):
            _run_and_kill(lives, project)
        project.run("rotate", SECRET)
        row = project.status()
        assert row["pending"] is None
        assert project.load.pins(SECRET) == dict.fromkeys(Ring, row["current"])
        for ring in Ring:
            assert project.load.await_generation(ring, SECRET, row["current"])
    assert project.labels()["AWSCURRENT"] != before["AWSCURRENT"]
    project.run("retire")
    assert project.status()["phase"] == "idle"
    project.run("audit", SECRET)
    project.run("render", "--check")
    assert within(lambda: not _left_behind(project)), f"still run: {_left_behind(project)}"


def _run_and_kill(lives: random.Random, project: Project) -> None:
    """Start a rotation, or go on with the one that the last kill left, and kill it: after some seconds, most of which
    Terraform takes, or shortly after some line of its timeline, for the quick steps to be hit too."""
    with project.start("rotate", SECRET) as runner:
        assert runner.stdout is not None
        if lives.random() < 0.5:
            deadline = time.monotonic() + lives.uniform(0.3, LONGEST_LIFE)
            while runner.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            printed = ""
        else:
            printed = "".join(islice(runner.stdout, lives.randint(1, 6)))
            time.sleep(lives.uniform(0, 0.2))
        runner.kill()
        stdout, stderr = runner.communicate()
    sys.stdout.write(f"--- exit {runner.returncode}\n{printed}{stdout}{stderr}\n")
    assert runner.returncode in (0, -signal.SIGKILL)
    project.transcript.extend((printed, stdout, stderr))


def _left_behind(project: Project) -> list[str]:
    """The processes that work in the project's folder, but for its servers."""
    servers = {service["pid"] for service in project.run("local", "status", "--json").json["services"]}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            where = Path(process.cwd())
            ours = where.is_relative_to(project.path) and not where.is_relative_to(project.path / ".keyturn/local")
            if ours and process.pid not in servers:
                found.append(" ".join(process.cmdline()))
    return found
