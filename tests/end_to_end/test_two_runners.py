"""Two real processes at once on one secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rotation.model import Ring
from tests.fixtures.project import LIMIT, SECRET, Project

pytestmark = pytest.mark.timeout(600)


def _ended(project: Project, runner: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = runner.communicate(timeout=LIMIT)
    project.transcript.extend((stdout, stderr))
    return runner.returncode, stdout, stderr


def test_a_second_runner_on_the_same_journal_is_told_who_the_first_one_is(project: Project) -> None:
    candidate = project.next_generation()
    with project.watched(), project.start("rotate", SECRET) as first:
        assert first.stdout is not None
        with project.held_up():
            first.stdout.readline()  # it has begun
            second = project.run("rotate", SECRET, expect=1)
        code, _, stderr = _ended(project, first)
    assert second.stderr.startswith(f"error: another runner (process {first.pid} on ")
    assert len(second.stderr.splitlines()) == 2
    assert code == 0, stderr
    assert project.status()["current"] == candidate


def test_two_runners_who_know_nothing_of_each_other_bring_about_one_rotation(project: Project, tmp_path: Path) -> None:
    candidate = project.next_generation()
    journals = [{"KEYTURN_JOURNAL": str(tmp_path / name)} for name in ("one", "other")]
    with (
        project.watched(),
        project.start("rotate", SECRET, **journals[0]) as one,
        project.start("rotate", SECRET, **journals[1]) as other,
    ):
        ends = [_ended(project, runner) for runner in (one, other)]
    assert 0 in {code for code, _, _ in ends}, ends
    assert not any("Traceback" in stderr for _, _, stderr in ends)
    project.run("rotate")  # where one of them gave way, the next run finishes
    row = project.status()
    assert row["pending"] is None
    assert row["current"] in (
        candidate,
        candidate + 1,
    )  # the later one may have found the first done
    assert project.load.pins(SECRET) == dict.fromkeys(Ring, row["current"])
