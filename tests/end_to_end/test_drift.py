"""Drift planted on the real servers, in all four ways: found, explained, and put right where that is safe."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rotation.local.environment import config_bucket
from rotation.model import Ring
from tests.fixtures.project import LIMIT, SECRET, STORED_AS, TOKEN, Project

pytestmark = pytest.mark.timeout(600)

CONFIG = "declared:application-local:aws_s3_bucket_object.config-orders-api"
SLOT = "declared:secrets-local:aws_secretsmanager_secret.orders--api-token"
RENDERED = "stacks/config/rendered/local/canary/orders-api.yaml"
FOREIGN = "stored:orders/db:pending"
IGNORING = """
[[drift.ignore]]
address = "{address}"
reason = "being looked into"
until = {until}
"""


@pytest.fixture
def rules(project: Project) -> Iterator[Any]:
    """Write ignore rules for the project's commands; they are gone afterwards."""
    path = project.path / "keyturn.toml"

    def ignore(address: str, until: str) -> None:
        with path.open("a") as file:
            file.write(IGNORING.format(address=address, until=until))

    yield ignore
    path.unlink(missing_ok=True)


def classes(document: Any) -> dict[str, str]:
    """What counts, or would count, by address."""
    return {f["address"]: f["class"] for f in document["findings"] if f["class"] != "expected rotation"}


def kill_after_staging(project: Project, secret: str) -> None:
    with project.start("rotate", secret) as runner:
        assert runner.stdout is not None
        for line in runner.stdout:
            project.transcript.append(line)
            if " stage  " in line:
                os.kill(runner.pid, signal.SIGKILL)
                break


def overwrite(project: Project, ring: Ring) -> None:
    body = f"# edited by hand\n{project.path.joinpath(RENDERED.replace('canary', ring)).read_text()}"
    project.aws.client("s3").put_object(
        Bucket=config_bucket("local"), Key=f"orders-api/{ring}.yaml", Body=body.encode()
    )


def test_drift_of_every_kind_is_found_and_what_is_safe_is_put_right(project: Project, rules: Any) -> None:
    store = project.aws.client("secretsmanager")
    project.run("rotate", SECRET)
    project.run("retire", SECRET, TOKEN)
    rendered = (project.path / RENDERED).read_bytes()
    # Declared: an object changed by hand, one deleted, and a tag that no stack gives.
    overwrite(project, Ring.STABLE)
    project.aws.client("s3").delete_object(Bucket=config_bucket("local"), Key="orders-api/canary.yaml")
    store.tag_resource(SecretId=STORED_AS[TOKEN], Tags=[{"Key": "by", "Value": "hand"}])
    # Stored: a dead run's candidate, and somebody else's rotation.
    kill_after_staging(project, TOKEN)
    foreign = store.put_secret_value(SecretId=STORED_AS[SECRET], SecretString="x", VersionStages=["AWSPENDING"])
    # Live: a login that was locked out. Consumed: a file that is generated.
    user = project.database_faults.let_in_again()
    (project.path / RENDERED).write_bytes(rendered + b"# by hand\n")

    planted = project.run("drift", "--json", expect=2).json
    assert classes(planted) == {
        f"{CONFIG}-canary": "deleted",
        f"{CONFIG}-stable": "unexpected",
        SLOT: "unexpected",
        "stored:orders/api-token:pending": "unexpected",
        FOREIGN: "unexpected",
        f"live:orders/db:leftover-{user}": "unexpected",
        f"consumed:{RENDERED}:rendered": "unexpected",
    }
    since = {finding["address"]: finding["since"] for finding in planted["findings"]}

    rules(FOREIGN, "2999-12-31")
    rules(SLOT, "2020-01-01")  # expired: it ignores nothing
    left = project.run("drift", "--fix", "--json", expect=2).json
    assert {fix["address"]: fix["fixed"] for fix in left["fixes"]} == {
        f"{CONFIG}-canary": True,
        f"{CONFIG}-stable": True,
        f"consumed:{RENDERED}:rendered": True,
        "stored:orders/api-token:pending": True,
    }
    assert [rule["address"] for rule in left["expired"]] == [SLOT]
    # Another one's rotation is no evidence that a login is nobody's: it is left alone as long as that is there.
    assert classes(left) == {
        SLOT: "unexpected",
        FOREIGN: "ignored",
        f"live:orders/db:leftover-{user}": "unexpected",
    }
    assert {f["address"]: f["since"] for f in left["findings"] if f["address"] in since}[SLOT] == since[SLOT]
    assert project.labels()["AWSPENDING"] == foreign["VersionId"], "a foreign version is never touched"
    assert (project.path / RENDERED).read_bytes() != rendered, "the token's new generation is in it"
    assert project.status(TOKEN)["pending"] is None

    store.untag_resource(SecretId=STORED_AS[TOKEN], TagKeys=["by"])
    store.update_secret_version_stage(
        SecretId=STORED_AS[SECRET], VersionStage="AWSPENDING", RemoveFromVersionId=foreign["VersionId"]
    )
    markdown = project.run("drift", "--fix", "--format", "markdown", "stored", "live", "consumed").stdout
    assert markdown.startswith("<!-- keyturn drift: local -->\n## Drift in local\n")
    assert not may_log_in(project, user)
    assert project.load.await_traffic()
    assert "drift: lock out" in project.run("audit", SECRET).stdout


def may_log_in(project: Project, user: str) -> bool:
    with project.database_faults._connect() as connection:
        row = connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [user]).fetchone()
    return row == (True,)


def test_a_login_that_is_in_use_is_left_to_a_person(project: Project) -> None:
    project.run("rotate", SECRET)
    project.run("retire", SECRET)
    user = project.database_faults.let_in_again()
    with project.database_faults._connect() as connection:
        connection.execute("ALTER ROLE " + user + " PASSWORD 'known-to-the-test'")
        host, port = connection.info.host, connection.info.port
    with psycopg.connect(host=host, port=port, dbname="orders", user=user, password="known-to-the-test"):
        document = project.run("drift", "live", "--fix", "--json", expect=2).json
        (finding,) = document["findings"]
        assert finding["fix"] is None
        assert "it has 1 open sessions" in finding["what"]
        assert document["fixes"] == []
        assert may_log_in(project, user)
    assert project.run("drift", "live", "--fix", "--json").json["fixes"][0]["fixed"]
    assert not may_log_in(project, user)


def test_two_looks_in_the_middle_of_a_rotation_find_no_drift_and_disturb_nothing(project: Project) -> None:
    candidate = project.next_generation()
    with project.watched(), project.start("rotate", SECRET) as runner:
        ways = ("stored", "live", "consumed")
        with project.start("drift", "--json") as one, project.start("drift", "--json", *ways) as other:
            ended = [finish(project, each) for each in (one, other)]
        rotated = finish(project, runner)
        assert rotated[0] in (0, 3), rotated  # its deployments wait for the plans of the look
        project.run("rotate")
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert project.status()["current"] == candidate


def finish(project: Project, child: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = child.communicate(timeout=LIMIT)
    project.transcript.extend((stdout, stderr))
    return child.returncode, stdout, stderr


def test_what_cannot_be_asked_is_told_from_drift(project: Project) -> None:
    project.aws.faults("secretsmanager", "GetSecretValue", "deny", times=1_000)
    done = project.run("drift", "live", "--json", expect=1)
    assert {finding["class"] for finding in done.json["findings"]} == {"could not check"}
    assert done.json["unchecked"]
    assert not done.json["drift"]


def test_a_way_that_is_not_there_is_refused(project: Project) -> None:
    assert "there is no way 'lives'" in project.run("drift", "lives", expect=2).stderr
