"""`aws secretsmanager rotate-secret` on a secret that applications use: rings follow by the next `keyturn rotate`."""

from __future__ import annotations

import uuid

import pytest

from rotation.engine import Engine
from rotation.handlers.steps import Step, take
from rotation.journal import Journal
from rotation.manifest import Manifest
from rotation.model import Ring
from rotation.plugins import Plugins
from tests.fixtures.project import SECRET, STORED_AS, Project

pytestmark = pytest.mark.timeout(600)

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:keyturn-local"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


def test_the_rings_stay_where_they_are_pinned_and_follow_by_the_next_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    before, candidate = project.status(), project.next_generation()
    if before["previous"] is not None:
        project.run("retire", SECRET, "--wait", "60")
    client = project.aws.client("secretsmanager")
    token = str(uuid.uuid4())
    asked = {"SecretId": STORED_AS[SECRET], "ClientRequestToken": token}
    client.rotate_secret(**asked, RotationLambdaARN=FUNCTION)
    # It would stay on, which nobody declares: drift for whoever looks next.
    request.addfinalizer(lambda: client.cancel_rotate_secret(SecretId=asked["SecretId"]))
    project.enter(monkeypatch)
    monkeypatch.chdir(project.path)
    with project.watched():
        for step in STEPS:
            _invoke(project, {**asked, "Step": step})
        row = project.status()
        assert row["current"] == candidate
        assert project.labels()["AWSCURRENT"] == token
        assert set(row["pins"].values()) == {before["current"]}
        assert project.load.pins(SECRET) == dict.fromkeys(Ring, before["current"])
        project.run("rotate")
        row = project.status()
        assert set(row["pins"].values()) == {row["current"]} == {candidate}
        assert project.load.await_generation(Ring.STABLE, SECRET, row["current"])
        project.run("retire", SECRET, "--wait", "60")
        assert project.status()["previous"] is None


def _invoke(project: Project, event: dict[str, str]) -> None:
    """One invocation of the function, whose journal is not the pipeline's."""
    manifest = Manifest.load(project.path, "local")
    with Journal(project.path / ".keyturn/function.sqlite3") as journal:
        take(Engine(project.path, manifest, Plugins(project.path, manifest), journal), Step.read(event))
