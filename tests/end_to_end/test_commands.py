"""Every command as a user and as a machine would run it: what it prints, and with which exit code it ends."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import sys
from collections.abc import Callable

import pytest

from rotation.arguments import PHASES
from rotation.keys.aws_kms import AwsKms
from rotation.model import Ring
from rotation.sealing import unseal
from rotation.secret_value import SecretValue
from tests.fixtures.project import SECRET, STORED_AS, TOKEN, Project

pytestmark = pytest.mark.timeout(600)

COMMANDS = (
    *("local", "status", "plan", "rotate", "rollback", "retire", "adopt", "render", "rekey", "audit", "incident"),
    *("deploy", "drift", "report", "review"),
)


def _value(project: Project, secret: str = SECRET) -> str:
    reply = project.aws.client("secretsmanager").get_secret_value(SecretId=STORED_AS[secret])
    return str(reply["SecretString"])


# Help and errors


def test_help_answers_in_less_than_0_3_seconds(project: Project) -> None:
    """Of a processor: what else this machine is busy with does not count."""
    assert min(_seconds(lambda: project.run("--help")) for _ in range(5)) < 0.3


def _seconds(call: Callable[[], object]) -> float:
    """What the children that ended meanwhile have taken."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_help_imports_neither_pydantic_nor_an_sdk(project: Project) -> None:
    code = "import sys; from rotation import cli; cli.parser().format_help(); print(*sys.modules)"
    imported = set(project.execute([sys.executable, "-c", code]).stdout.split())
    assert "rotation.cli" in imported
    assert imported.isdisjoint({"pydantic", "boto3", "botocore", "psycopg", "jinja2", "rotation.session"})


def test_every_command_has_help_and_help_knows_every_command(project: Project) -> None:
    overview = project.run("--help").stdout
    assert set(re.findall(r"^    (\w+)  ", overview, re.MULTILINE)) == set(COMMANDS)
    for command in COMMANDS:
        assert f"usage: keyturn {command}" in project.run(command, "--help").stdout


def test_an_error_is_json_for_machines_and_has_a_trace_only_for_those_who_ask(project: Project) -> None:
    for_machines = project.run("status", "orders/bd", "--json", expect=1)
    assert for_machines.json.keys() == {"error", "remedy"}
    assert "no secret 'orders/bd'" in for_machines.json["error"]
    assert "Traceback" not in for_machines.stderr
    assert "Traceback" in project.run("status", "orders/bd", "--debug", expect=1).stderr


# What changes nothing


def test_local_says_where_its_servers_are(project: Project) -> None:
    services = project.run("local", "status", "--json").json["services"]
    assert [service["name"] for service in services] == ["aws", "postgresql", "orders-api-canary", "orders-api-stable"]
    assert all(service["ready"] for service in services)
    assert "ready" in project.run("local", "status").stdout
    assert project.run("local", "env", "--json").json["AWS_ENDPOINT_URL"] == project.aws.endpoint
    assert f"export AWS_ENDPOINT_URL={project.aws.endpoint}\n" in project.run("local", "env").stdout


def test_status_shows_every_secret(project: Project) -> None:
    rows = {row["secret"]: row for row in project.run("status", "--json").json["secrets"]}
    assert {name: row["phase"] for name, row in rows.items()} | {SECRET: "", TOKEN: ""} == {
        SECRET: "",
        TOKEN: "",
        "orders/spare": "empty",
    }
    assert rows[SECRET]["pins"] == {f"orders-api/{ring}": rows[SECRET]["current"] for ring in Ring}
    text = project.run("status").stdout
    assert all(re.search(rf"^{name} ", text, re.MULTILINE) for name in rows)


def test_render_makes_stale_configuration_fresh(project: Project) -> None:
    assert "2 files are what" in project.run("render", "--check").stdout
    rendered = project.path / "stacks/config/rendered/local/canary/orders-api.yaml"
    right = rendered.read_bytes()
    rendered.write_text("stale: true\n", encoding="utf-8")
    assert f"{rendered.relative_to(project.path)} is stale" in project.run("render", "--check", expect=2).stdout
    checked = project.run("render", "--check", "--json", expect=2).json["files"]
    assert [file["changed"] for file in checked] == [True, False]
    project.run("render")
    assert rendered.read_bytes() == right


def test_the_audit_trail_tells_how_each_rotation_ended(project: Project) -> None:
    entries = project.run("audit", SECRET, "--json").json["entries"]
    assert {entry["secret"] for entry in entries} == {SECRET}
    assert {"opened", "stage", "install", "promote", "promoted"} <= {entry["event"] for entry in entries}
    assert len(project.run("audit").stdout.splitlines()) > len(entries)


# Rotations


def test_a_rotation_goes_as_far_as_asked_and_on_from_there(project: Project) -> None:
    before = project.status()
    reached = {"stage": "staged", "install": "staged", "test": "staged", "canary": "canary", "observe": "canary"}
    reached |= {"deploy": "deploy", "promote": "grace"}
    with project.watched():
        for phase in PHASES:
            done = project.run("rotate", SECRET, "--until", phase, "--json", expect=0 if phase == "promote" else 3)
            state = done.json["secrets"][SECRET]
            assert state["state"] == ("done" if phase == "promote" else "wait"), state
            assert project.status()["phase"] == reached[phase], phase
    after = project.status()
    assert after["previous"] == before["current"]
    assert set(after["pins"].values()) == {after["current"]}
    _retires_on_evidence(project, before["current"])


def _retires_on_evidence(project: Project, previous: int) -> None:
    waiting = project.run("retire", SECRET, "--wait", "0", expect=(0, 3))
    if waiting.code == 3:
        assert f"generation {previous} is kept" in waiting.stdout
    assert f"generation {previous} is revoked and retired" in waiting.stdout + project.run("retire").stdout
    assert project.status()["phase"] == "idle"


def test_a_reviewed_plan_is_followed_unless_something_moved(project: Project) -> None:
    planned = project.run("plan", SECRET, "--out", "reviewed.json", "--json", expect=2).json
    assert [stack["stack"] for stack in planned["terraform"]] == ["application-local"]
    assert project.run("plan", "--due", "--json").json["rotations"] == []
    project.run("rotate", "--plan", "reviewed.json")
    assert project.status()["current"] == planned["rotations"][0]["to"]
    moved = project.run("rotate", "--plan", "reviewed.json", expect=1)
    assert re.fullmatch(r"error: since this plan was made the secrets.* moved\n  Make a new plan.*\n", moved.stderr)
    content = json.loads((project.path / "reviewed.json").read_text())
    content["rotations"][0]["to"] += 1
    (project.path / "reviewed.json").write_text(json.dumps(content))
    assert "was changed after it was made" in project.run("rotate", "--plan", "reviewed.json", expect=1).stderr


def test_a_rollback_before_promotion_takes_the_candidate_back(project: Project) -> None:
    before, candidate = project.status(), project.next_generation()
    value = hashlib.sha256(_value(project).encode()).digest()
    with project.watched():
        project.run("rotate", SECRET, "--until", "canary", expect=3)
        assert set(project.status()["pins"].values()) == {before["current"], candidate}
        done = project.run("rollback", SECRET, "--reason", "the release was called off")
    assert "revoked and discarded" in done.stdout
    after = project.status()
    assert (after["current"], after["pending"], after["pins"]) == (before["current"], None, before["pins"])
    assert hashlib.sha256(_value(project).encode()).digest() == value
    assert "the release was called off" in project.run("audit", SECRET).stdout


def test_a_rollback_after_promotion_brings_the_old_value_back_as_a_new_generation(project: Project) -> None:
    value = hashlib.sha256(_value(project).encode()).digest()
    with project.watched():
        project.run("rotate", SECRET)
        turned = project.status()
        assert hashlib.sha256(_value(project).encode()).digest() != value
        project.run("rollback", SECRET)
    after = project.status()
    assert after["current"] == turned["current"] + 1
    assert set(after["pins"].values()) == {after["current"]}
    assert hashlib.sha256(_value(project).encode()).digest() == value


def test_a_new_key_changes_the_envelope_and_not_the_value(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.run("retire", TOKEN)
    before, envelope = project.status(TOKEN), _value(project, TOKEN)
    with project.watched():
        assert project.run("rekey", "orders", "--json").json == {"key": "orders", "waiting": {}}
    after, envelope_after = project.status(TOKEN), _value(project, TOKEN)
    assert (after["current"], after["pins"]) == (before["current"], before["pins"])
    assert envelope_after != envelope
    project.enter(monkeypatch)
    values = [
        unseal(SecretValue(text), name=STORED_AS[TOKEN], generation=after["current"], service=AwsKms({}))
        for text in (envelope, envelope_after)
    ]
    assert values[0] == values[1]
    assert project.load.await_traffic()
