"""Throttling, 5xx, lost replies, an outage and a locked state in the middle of whole rotations."""

from __future__ import annotations

import fcntl
import time

import pytest

from rotation.model import Ring
from tests.fixtures.project import LIMIT, SECRET, TOKEN, Project

pytestmark = pytest.mark.timeout(600)


def test_a_rotation_gets_through_throttling_errors_and_lost_replies(project: Project) -> None:
    candidate = project.next_generation()
    with project.watched():
        for operation in ("PutSecretValue", "UpdateSecretVersionStage", "DescribeSecret"):
            for after, kind in enumerate(("throttle", "error", "lost_reply", "unavailable", "drop")):
                project.aws.faults("secretsmanager", operation, kind, after=after)
        project.run("rotate", SECRET)
    assert project.status()["current"] == candidate


def test_a_sealed_secret_s_rotation_gets_through_faults_of_the_key_service(project: Project) -> None:
    candidate = project.next_generation(TOKEN)
    for operation in ("GenerateDataKey", "Decrypt"):
        for after, kind in enumerate(("throttle", "error", "lost_reply")):
            project.aws.faults("kms", operation, kind, after=after)
    project.run("rotate", TOKEN)
    row = project.status(TOKEN)
    assert (row["current"], row["pending"]) == (candidate, None)
    assert set(row["pins"].values()) == {row["current"]}


def test_an_outage_ends_the_run_and_the_next_one_goes_on(project: Project) -> None:
    candidate = project.next_generation()
    project.run("retire")  # else the outage would stop the run there, before anything is staged
    with project.watched():
        project.aws.faults("secretsmanager", "UpdateSecretVersionStage", "unavailable", times=10_000)
        failed = project.impatient.run("rotate", SECRET, expect=1)
        assert "ServiceUnavailable" in failed.stderr
        assert len(failed.stderr.splitlines()) == 2
        assert "it resumes" in failed.stderr
        project.aws.clear_faults()
        assert project.status()["pending"] == candidate
        project.run("rotate")
    assert project.status()["current"] == candidate
    assert project.load.pins(SECRET) == dict.fromkeys(Ring, candidate)


def test_a_state_that_somebody_else_has_locked_is_waited_for(project: Project) -> None:
    candidate = project.next_generation()
    folder = project.path / ".keyturn/local/terraform"
    left_by_the_dead = folder / ".application-local.tfstate.lock.info"
    left_by_the_dead.write_text('{"ID": "left", "Operation": "OperationTypeApply", "Who": "nobody@nowhere"}')
    with (folder / "application-local.tfstate").open("r+") as state, project.start("rotate", SECRET) as runner:
        fcntl.lockf(state, fcntl.LOCK_EX)
        assert runner.stdout is not None
        while "pin canary" not in (line := runner.stdout.readline()):
            assert line, "it ended before it deployed"
        time.sleep(5)  # Terraform plans by now, and finds the state locked
        assert project.load.pins(SECRET)[Ring.CANARY] == candidate
        assert runner.poll() is None
        fcntl.lockf(state, fcntl.LOCK_UN)
        stdout, stderr = runner.communicate(timeout=LIMIT)
    assert runner.returncode == 0, stdout + stderr
    assert project.status()["current"] == candidate


def test_what_was_not_applied_is_not_taken_for_deployed(project: Project) -> None:
    before, candidate = project.status()["current"], project.next_generation()
    with project.watched():
        project.aws.faults("s3", "PutObject", "deny", times=1)
        failed = project.run("rotate", SECRET, expect=1)
        assert "terraform apply failed in application-local" in failed.stderr
        assert len(failed.stderr.splitlines()) == 2
        assert project.load.generation(Ring.CANARY, SECRET) == before
        project.run("rotate", SECRET)
    assert project.status()["current"] == candidate
    assert project.load.generation(Ring.CANARY, SECRET) == candidate
