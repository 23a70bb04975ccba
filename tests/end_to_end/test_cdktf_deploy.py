"""The way with `cdktf deploy` in a pipeline: rotate before it, and again after it."""

from __future__ import annotations

import pytest

from rotation.model import Ring
from tests.fixtures.project import SECRET, Project

pytestmark = pytest.mark.timeout(600)


def _cdktf_deploy(project: Project) -> str:
    argv = ["cdktf", "deploy", "application-local", "--auto-approve", "--skip-provider-lock"]
    done = project.execute(argv)
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def test_cdktf_deploys_the_canary_then_everyone_and_the_rotation_ends_promoted(project: Project) -> None:
    before = project.status()
    candidate = project.next_generation()
    with project.watched():
        for ring in Ring:
            waiting = project.run("rotate", SECRET, "--no-apply", "--json", expect=3)
            state = waiting.json["secrets"][SECRET]
            assert (state["state"], state["outside"]) == ("wait", True)
            assert state["reason"] == f"the configuration of orders-api ({ring}) is to be deployed (`cdktf deploy`)"
            assert project.load.generation(ring, SECRET) == before["current"]
            assert f"config-orders-api-{ring}" in _cdktf_deploy(project)
            assert project.load.await_generation(ring, SECRET, candidate)
        project.run("rotate", SECRET, "--no-apply")
    row = project.status()
    assert (row["current"], row["pending"]) == (candidate, None)
    assert project.load.pins(SECRET) == dict.fromkeys(Ring, candidate)
