"""A system of the sample estate is compromised: its old login dies, also when the runner is killed time and again; and
production asks for what a rehearsal leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.fixtures.project import SECRET, STORED_AS, Project, edit

pytestmark = pytest.mark.timeout(600)

SYSTEM = ("incident", "--system", "orders-api")
PRODUCTION, PARTNER = "local-production", "orders/partner"
EVIDENCE = Path("stacks/evidence/local.json")

_ENVIRONMENT = f'''

def _beside(project: Path) -> Environment:
    return replace(
        local(project),
        name="{PRODUCTION}",
        order=1,
        vendor=replace(local(project).vendor, environment="{PRODUCTION}"),
        rehearsal=Rehearsal(environment="local", within=timedelta(days=1)),
    )
'''
_ESTATE = f'''

def estate(environment: Environment) -> Estate:
    partner = Secret("{PARTNER}", Credential("random_token"), strategy=Strategy.OVERLAPPING)
    if environment.name == "{PRODUCTION}":
        return Estate(secrets=(partner,))
    whole = _whole(environment)
    return Estate(whole.keys, (*whole.secrets, partner), whole.consumers)
'''


# An incident


def login(project: Project) -> str:
    """How the system would open a session with the login that is current now."""
    text = project.aws.client("secretsmanager").get_secret_value(SecretId=STORED_AS[SECRET])["SecretString"]
    value = json.loads(text)
    parts = {name: value[name] for name in ("host", "port", "password", "dbname")}
    return make_conninfo(user=value["username"], **parts)


def run_and_kill(project: Project, lines: int) -> None:
    with project.start(*SYSTEM) as runner:
        assert runner.stdout is not None
        printed = "".join(islice(runner.stdout, lines))
        runner.kill()
        project.transcript.extend((printed, *runner.communicate()))


def test_an_incident_outlives_its_runners_and_the_old_login_does_not(project: Project) -> None:
    wanted = {name: project.next_generation(name) for name in STORED_AS}
    old = {name: project.status(name)["current"] for name in STORED_AS}
    failed = project.load.failed()
    leaked = login(project)
    with psycopg.connect(leaked) as session:
        for lines in (1, 5, 10):
            run_and_kill(project, lines)
        done = project.run(*SYSTEM, "--report", "incident.md", "--json")
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match=r"authentication failed|not permitted to log in"):
        psycopg.connect(leaked)
    for name in STORED_AS:
        row = project.status(name)
        assert (row["current"], row["previous"], row["pending"]) == (wanted[name], None, None), "turned once"
        assert set(row["pins"].values()) == {wanted[name]}
        told = done.json["secrets"][name]
        assert (told["old"], told["new"], told["state"]) == (old[name], wanted[name], "retired")
    assert list(done.json["by_hand"]) == ["local/orders/db-admin"]
    assert project.load.await_traffic()
    assert project.load.failed() == failed, "no query of the application failed"
    assert f"| {SECRET} | {old[SECRET]} → {wanted[SECRET]} | retired |" in (project.path / "incident.md").read_text()
    goes_on_and_ends(project, wanted)


def goes_on_and_ends(project: Project, wanted: dict[str, int]) -> None:
    """Run again it turns nothing; it is closed once, and the audit trail tells all of it."""
    assert "goes on with the incident of" in project.run(*SYSTEM).stdout
    assert {name: project.status(name)["current"] for name in STORED_AS} == wanted
    assert "closed: orders-api" in project.run(*SYSTEM, "--done").stdout
    assert "no incident of orders-api is open" in project.run(*SYSTEM, "--done", expect=1).stderr
    trail = project.run("audit", "incident orders-api", "--json").json["entries"]
    assert [entry["event"] for entry in trail] == ["incident begins", "incident closed"]
    assert "windows, blackouts" in trail[0]["detail"]


def test_an_unknown_system_is_refused_and_nothing_begins(project: Project) -> None:
    before = project.trace()
    refused = project.run("incident", "--system", "orders-api", "--system", "oders-api", expect=1)
    assert "no secret of local has a reader or consumer 'oders-api'" in refused.stderr
    assert "known: arn:aws:iam::123456789012:role/orders-api, orders-api" in refused.stderr
    assert project.trace() == before
    assert "no incident of orders-api is open" in project.run(*SYSTEM, "--done", expect=1).stderr


# A rehearsal


@pytest.fixture
def two(project: Project) -> Iterator[Project]:
    """The project with a second environment, which asks for rehearsals in the first one."""
    files = {path: path.read_text() for path in (project.path / "stacks").glob("*.py")}
    environments, estate = (project.path / "stacks" / name for name in ("environments.py", "estate.py"))
    edit(environments, "from dataclasses import dataclass, field", "from dataclasses import dataclass, field, replace")
    edit(environments, "        local(project),\n", "        local(project),\n        _beside(project),\n")
    edit(estate, "def estate(", "def _whole(")
    environments.write_text(environments.read_text() + _ENVIRONMENT)
    estate.write_text(estate.read_text() + _ESTATE)
    try:
        declare(project, "secrets-local", f"secrets-{PRODUCTION}")
        yield project
    finally:
        for path, text in files.items():
            path.write_text(text)
        (project.path / EVIDENCE).unlink(missing_ok=True)
        declare(project, "secrets-local")


def declare(project: Project, *stacks: str) -> None:
    done = project.synth()
    assert done.code == 0, done.stderr
    project.deploy(*stacks)


def test_production_takes_what_was_rehearsed_with_the_same_code_or_a_reason(two: Project) -> None:
    there = ("-e", PRODUCTION, PARTNER)
    refused = two.run("rotate", "--initialize", *there, expect=1)
    assert f"{PARTNER} is not rehearsed: there is no evidence of a rotation of it in local" in refused.stderr
    assert f"keyturn rotate -e local {PARTNER}" in refused.stderr
    assert two.run("status", *there, "--json").json["secrets"][0]["phase"] == "empty"

    two.run("rotate", "--initialize", PARTNER)
    assert list(json.loads((two.path / EVIDENCE).read_text())["rehearsed"]) == [PARTNER]
    assert "rehearsal: rehearsed in local on" in two.run("plan", *there, expect=2).stdout
    two.run("rotate", "--initialize", *there)
    two.run("rotate", *there)

    edit(two.path / "stacks/estate.py", '"random_token")', '"random_token", {"length": 40})')
    two.synth()
    two.run("rotate", *there, expect=1)
    assert "refused without `--override`: the code has changed" in two.run("plan", *there, expect=2).stdout
    two.run("rotate", *there, "--override", "the partner leaked it")
    assert two.run("status", *there, "--json").json["secrets"][0]["current"] == 3
    entries = two.run("audit", *there, "--json").json["entries"]
    (overridden,) = [entry["detail"] for entry in entries if entry["event"] == "overridden"]
    assert overridden.startswith("the partner leaked it (the code has changed since its rotation in local")
