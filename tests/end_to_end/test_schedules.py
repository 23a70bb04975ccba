"""What is due is turned: together where it shares an application, not before its window, and after an event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotation.model import Ring
from rotation.schedule import WEEKDAYS
from tests.fixtures.project import SECRET, TOKEN, Project

pytestmark = pytest.mark.timeout(600)

DUE = "RotationSchedule(every=timedelta(seconds=1), immediately=True"


@pytest.fixture
def estate(project: Project) -> Iterator[Path]:
    """The project's estate, which is put back as it was."""
    path = project.path / "stacks/estate.py"
    before = path.read_text(encoding="utf-8")
    yield path
    path.write_text(before, encoding="utf-8")
    assert project.synth().code == 0


def declare(project: Project, estate: Path, *schedules: str) -> None:
    """Give the estate's secrets these schedules, in their order."""
    parts = estate.read_text(encoding="utf-8").split("schedule=monthly")
    assert len(parts) == len(schedules) + 1
    text = parts[0] + "".join(f"schedule={schedule}{part}" for schedule, part in zip(schedules, parts[1:], strict=True))
    estate.write_text(text, encoding="utf-8")
    done = project.synth()
    assert done.code == 0, done.stderr


def deployments(project: Project, since: int) -> dict[Ring, list[str]]:
    """What the audit trail tells of each ring's deployments from one of its lines on, each with its plan's digest."""
    entries = project.run("audit", "--json").json["entries"][since:]
    return {ring: [e["detail"] for e in entries if e["event"] == f"deploy {ring}"] for ring in Ring}


def audited(project: Project) -> int:
    return len(project.run("audit", "--json").json["entries"])


def test_two_secrets_that_are_due_make_one_deployment_per_ring(project: Project, estate: Path) -> None:
    project.run("retire")  # a grace window that is still open would hold one of them up, and rightly not the other
    before = {name: project.status(name)["current"] for name in (SECRET, TOKEN)}
    project.run("rotate", TOKEN, "--until", "test", expect=3)  # it is several steps ahead of the other one
    declare(project, estate, f"{DUE})", f"{DUE})")
    planned = project.run("plan", "--due", expect=2).stdout
    for name in before:
        assert f"{name}: due since " in planned
    lines = audited(project)
    with project.watched():
        done = project.run("rotate", "--due")
    assert f"{SECRET}: due since " in done.stdout
    assert {name: project.status(name)["current"] > before[name] for name in before} == dict.fromkeys(before, True)
    for ring, details in deployments(project, lines).items():
        assert len(details) == len(before), ring
        assert len(set(details)) == 1, f"the {ring} ring was deployed by several plans: {details}"
    opened = [e for e in project.run("audit", SECRET, "--json").json["entries"] if e["event"] == "opened"]
    assert opened[-1]["detail"] == "schedule"


def test_what_its_window_holds_is_left_and_says_until_when(project: Project, estate: Path) -> None:
    opens = datetime.now(UTC) + timedelta(days=3)
    window = f'{{"weekdays": ("{WEEKDAYS[opens.weekday()]}",)}}'
    declare(
        project,
        estate,
        f'{DUE}, minimum_age=timedelta(seconds=1), events=("deployment",))',
        f"{DUE}, windows=({window},))",
    )
    held = project.status(TOKEN)
    assert held["held_until"][:16] == f"{opens:%Y-%m-%d}T00:00"
    assert held["overdue_since"] is None
    assert f"(held until {opens:%Y-%m-%d} 00:00)" in project.run("status", TOKEN).stdout
    before = project.status()
    done = project.run("rotate", "--due", "--reason", "deployment: release 4.2")
    assert f"{SECRET}: due after each deployment" in done.stdout
    after = project.status()
    assert after["current"] > before["current"]
    assert "deployment: release 4.2" in project.run("audit", SECRET).stdout
    planned = project.run("plan", "--due", "--json", expect=2)
    assert [rotation["secret"] for rotation in planned.json["rotations"]] == [SECRET]
    assert f"{TOKEN}: due since " in planned.stderr
    assert f"held until {opens:%Y-%m-%d} 00:00 UTC" in planned.stderr
    assert project.status(TOKEN)["current"] == held["current"]
