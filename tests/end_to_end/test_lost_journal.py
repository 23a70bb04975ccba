"""The journal is lost at each phase of a rotation: store, target and deployment alone are enough to go on."""

from __future__ import annotations

import shutil

import pytest

from rotation.arguments import PHASES
from rotation.model import Ring
from tests.fixtures.project import SECRET, Project

pytestmark = pytest.mark.timeout(600)


def test_a_rotation_that_loses_its_journal_at_every_phase_ends_promoted(project: Project) -> None:
    candidate = project.next_generation()
    with project.watched():
        for phase in PHASES[:-1]:
            project.run("rotate", SECRET, "--until", phase, expect=3)
            _lose_journal(project)
            assert project.status()["pending"] == candidate, phase
        project.run("rotate")
    _is_promoted(project, candidate)


def test_what_loses_its_journal_after_promotion_is_not_turned_again_and_can_be_retired(project: Project) -> None:
    project.run("rotate", SECRET)
    current = project.status()["current"]
    _lose_journal(project)
    assert "nothing to do" in project.run("rotate").stdout
    project.run("retire")
    row = project.status()
    assert (row["current"], row["previous"]) == (current, None)


def test_a_candidate_that_was_turned_down_is_taken_back_without_its_journal(project: Project) -> None:
    before = project.status()
    with project.watched():
        project.run("rotate", SECRET, "--until", "canary", expect=3)
        _lose_journal(project)
        project.run("rollback", SECRET)
    after = project.status()
    assert (after["current"], after["pending"], after["pins"]) == (before["current"], None, before["pins"])


def _lose_journal(project: Project) -> None:
    shutil.rmtree(project.path / ".keyturn/journal")


def _is_promoted(project: Project, generation: int) -> None:
    row = project.status()
    assert (row["current"], row["pending"]) == (generation, None)
    assert project.load.pins(SECRET) == dict.fromkeys(Ring, generation)
