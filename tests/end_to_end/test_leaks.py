"""No value is anywhere but in its store: not in files, plans, state, output, stack traces, nor in children's arguments
and environments. When the session's last test has ended, its project is searched once more, with all that was printed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rotation.local.demo.leaks import Leaks
from tests.fixtures.children import told_by_a_rotation
from tests.fixtures.project import SECRET, STORED_AS, TOKEN, Project

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def leaks(project: Project, monkeypatch: pytest.MonkeyPatch) -> Leaks:
    project.enter(monkeypatch)
    return Leaks(project.path)


def _password(project: Project) -> str:
    reply = project.aws.client("secretsmanager").get_secret_value(SecretId=STORED_AS[SECRET])
    return str(json.loads(reply["SecretString"])["password"])


def test_no_child_gets_a_value_as_argument_or_variable(project: Project, leaks: Leaks, tmp_path: Path) -> None:
    report = leaks.search(told_by_a_rotation(project, tmp_path, SECRET, TOKEN))
    assert report.values >= 6
    assert not report.found


def test_no_failing_command_prints_a_value_not_even_in_its_stack_trace(project: Project, leaks: Leaks) -> None:
    printed = []
    for service, operation, kind, secret in (
        ("secretsmanager", "PutSecretValue", "deny", SECRET),
        ("secretsmanager", "UpdateSecretVersionStage", "deny", SECRET),
        ("secretsmanager", "GetSecretValue", "deny", SECRET),
        ("kms", "GenerateDataKey", "deny", TOKEN),
        ("kms", "Decrypt", "deny", TOKEN),
    ):
        project.aws.faults(service, operation, kind, times=99)
        done = project.run("rotate", secret, "--debug", expect=1)
        project.aws.clear_faults()
        printed += [done.stdout, done.stderr]
    project.run("rotate")
    client = project.aws.client("secretsmanager")
    administrator = client.get_secret_value(SecretId="local/orders/db-admin")["SecretString"]
    for wrong in (administrator[:-1], json.dumps(json.loads(administrator) | {"username": "nobody"})):
        client.put_secret_value(SecretId="local/orders/db-admin", SecretString=wrong)
        done = project.run("rotate", SECRET, "--debug", expect=1)
        printed += [done.stdout, done.stderr]
    client.put_secret_value(SecretId="local/orders/db-admin", SecretString=administrator)
    assert not leaks.search(printed).found


def test_terraform_s_own_logs_are_refused(project: Project) -> None:
    before = project.trace()
    done = project.run("rotate", SECRET, expect=1, TF_LOG="trace")
    assert done.stderr.startswith("error: TF_LOG would write the bodies of requests")
    assert len(done.stderr.splitlines()) == 2
    assert project.trace() == before


@pytest.mark.parametrize(
    "place", [".keyturn/journal/planted", "cdktf.out/planted.json", "stacks/pins/planted.json", ".keyturn/planted"]
)
def test_a_planted_value_is_found(project: Project, leaks: Leaks, place: str) -> None:
    planted = project.path / place
    planted.write_bytes(b"\0binary\xff" + _password(project).encode() + b"\0")
    try:
        assert leaks.search([]).found == (place,)
    finally:
        planted.unlink()


def test_a_printed_value_is_found(project: Project, leaks: Leaks) -> None:
    assert leaks.search(["all is well", f"password={_password(project)}"]).found == ("what the commands printed",)
