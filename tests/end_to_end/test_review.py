"""Real plans of the sample stacks: saved, reviewed, refused, applied, killed and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rotation import deploy
from rotation.local import providers
from tests.fixtures.project import CHECKOUT, SECRET, STACKS, STORED_AS, Project, edit

pytestmark = pytest.mark.timeout(600)

CANARY = "canary-value-of-a-secret-9c1d"


def _spoil_secrets(stack: dict[str, Any]) -> None:
    """A deleted secret, a widened policy, a secret's version with a value, a sensitive output."""
    secrets = stack["resource"]["aws_secretsmanager_secret"]
    del secrets["orders--spare"]
    policy = json.loads(secrets["orders--db"]["policy"])
    policy["Statement"][0]["Principal"]["AWS"].append("arn:aws:iam::123456789012:role/billing")
    secrets["orders--db"]["policy"] = json.dumps(policy)
    version = {"secret_id": "${aws_secretsmanager_secret.orders--db.id}", "secret_string": CANARY}
    stack["resource"]["aws_secretsmanager_secret_version"] = {"planted": version}
    stack["output"] = {"planted": {"value": CANARY, "sensitive": True}}


def _spoil_foundation(stack: dict[str, Any]) -> None:
    """A key of another kind, which replaces it."""
    stack["resource"]["aws_kms_key"]["key-orders"]["customer_master_key_spec"] = "RSA_2048"


SPOILERS = {"secrets-local": _spoil_secrets, "foundation-local": _spoil_foundation}


@pytest.fixture(scope="session")
def raw_plans(shared_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `terraform show -json` prints of plans that no synth would have let pass."""
    folder = tmp_path_factory.mktemp("raw")
    environment = {**shared_project.variables, **providers.tool_environment(shared_project.path)}
    for stack, spoil in SPOILERS.items():
        copy = folder / "stacks" / stack
        shutil.copytree(shared_project.path / deploy.SYNTH / "stacks" / stack, copy, symlinks=True)
        content = json.loads((copy / deploy.STACK_FILE).read_text(encoding="utf-8"))
        spoil(content)
        (copy / deploy.STACK_FILE).write_text(json.dumps(content), encoding="utf-8")
        for argv in (["plan", "-input=false", "-lock=false", "-out=plan"], ["show", "-json", "plan"]):
            done = subprocess.run(
                ["terraform", *argv],
                cwd=copy,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        (folder / f"{stack}.json").write_text(done.stdout, encoding="utf-8")
    assert CANARY in (folder / "secrets-local.json").read_text(encoding="utf-8")
    return folder


def test_a_review_of_raw_plans_finds_what_was_planted_and_shows_no_value(project: Project, raw_plans: Path) -> None:
    project.run("plan", SECRET, "--out", "rotation.json", expect=2)
    files = [str(raw_plans / f"{stack}.json") for stack in SPOILERS]
    candidate = project.next_generation()
    current = project.status()["current"]
    shown = project.run("review", *files, "--rotation", "rotation.json", expect=4).stdout
    first = shown.partition("<details>")[0]
    for said in (
        "<!-- keyturn review local -->",
        "`secret-deleted` `aws_secretsmanager_secret.orders--spare` in `secrets-local`: `deletes the secret",
        "`key-deleted` `aws_kms_key.key-orders` in `foundation-local`: `replaces the key",
        "`value-in-state` `aws_secretsmanager_secret_version.planted` in `secrets-local`",
        "`value-in-state` `output.planted` in `secrets-local`",
        f"- `{SECRET} {current} → {candidate} (canary)`",
        "`policy newly allows secretsmanager:GetSecretValue to arn:aws:iam::123456789012:role/billing`",
    ):
        assert said in first, shown
    machine = project.run("review", *files, "--rotation", "rotation.json", "--format", "json", expect=4)
    found = {(finding["rule"], finding["verdict"]) for finding in machine.json["findings"]}
    assert found >= {("secret-deleted", "refuse"), ("key-deleted", "refuse"), ("policy-widened", "warn")}
    rotation_plan = (project.path / "rotation.json").read_text(encoding="utf-8")
    assert not [text for text in (shown, machine.stdout, rotation_plan) if CANARY in text]


def test_exceptions_of_keyturn_toml_let_pass_what_they_name(project: Project, raw_plans: Path) -> None:
    foundation = str(raw_plans / "foundation-local.json")
    exception = '[[review.allow]]\naddress = "aws_kms_key.*"\nrule = "key-deleted"\nreason = "it is new"\nuntil = {}\n'
    settings = project.path / "keyturn.toml"
    try:
        settings.write_text(exception.format("2100-01-01"), encoding="utf-8")
        allowed = project.run("review", foundation).stdout
        assert "**Allowed by an exception**" in allowed
        assert "until 2100-01-01: `it is new`" in allowed
        settings.write_text(exception.format("2001-01-01"), encoding="utf-8")
        assert "the exception from this ended on 2001-01-01" in project.run("review", foundation, expect=4).stdout
    finally:
        settings.unlink()


def _change(project: Project) -> None:
    """Let a role and a secret be not as declared, so that two stacks have something to do."""
    project.aws.client("iam").update_role(RoleName="keyturn-local", Description="changed")
    client = project.aws.client("secretsmanager")
    client.update_secret(SecretId=STORED_AS[SECRET], Description="changed")


def _description(project: Project) -> str:
    return str(project.aws.client("secretsmanager").describe_secret(SecretId=STORED_AS[SECRET])["Description"])


def _refuse_by_rules(project: Project, *command: str) -> None:
    """A rule of the project refuses, and a file of rules that does not compile is an error: nothing is changed."""
    rules, settings = project.path / "rules.rego", project.path / "keyturn.toml"
    settings.write_text('rules = ["rules.rego"]\n', encoding="utf-8")
    try:
        rules.write_text('package keyturn\ndeny contains "not today" if count(input.stacks) > 0\n', encoding="utf-8")
        assert "refuse: rules: not today" in project.run(*command, expect=4).stdout
        rules.write_text("package keyturn\ndeny contains", encoding="utf-8")
        assert "do not compile" in project.run(*command, expect=1).stderr
    finally:
        settings.unlink()
        rules.unlink()
    assert _description(project) == "changed"


def test_saved_plans_are_reviewed_refused_applied_and_a_killed_run_is_gone_on_with(
    project: Project, tmp_path: Path
) -> None:
    _change(project)
    folder = str(tmp_path / "plans")
    made = project.run("deploy", "--out", folder, "--json", expect=2).json
    assert [(plan["stack"], plan["changes"]) for plan in made["stacks"]] == [
        ("foundation-local", ["update aws_iam_role.runner"]),
        ("secrets-local", ["update aws_secretsmanager_secret.orders--db"]),
        ("application-local", []),
    ]
    comment = project.run("review", folder).stdout
    assert "nothing to object to · 2 changes in `local`" in comment
    assert "- description = changed" in comment
    _refuse_by_rules(project, "deploy", "--from", folder)
    with project.start("deploy", "--from", folder) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "foundation-local: applied\n"
        os.kill(killed.pid, signal.SIGKILL)
    done = project.run("deploy", "--from", folder, "--json").json["stacks"]
    assert done["foundation-local"]["outcome"] == "applied before"
    assert done["secrets-local"]["outcome"] in ("applied", "applied before")
    assert done["application-local"]["outcome"] == "no changes"
    assert _description(project) != "changed"


def test_a_fork_without_credentials_gets_a_review_of_what_it_declares(project: Project, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    shutil.copytree(project.path, fork, ignore=shutil.ignore_patterns(".keyturn", "node_modules", "__pycache__"))
    (fork / "node_modules").symlink_to(CHECKOUT / "node_modules")
    edit(fork / "stacks/environments.py", "recovery_days=7)", "recovery_days=0)")
    bare = {n: v for n, v in project.variables.items() if not n.startswith(("AWS_", "TF_"))}
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=fork, env=bare, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    base = str(project.path / "cdktf.out")
    reviewed = project.run("review", "--synth", str(fork / "cdktf.out"), "--base", base, expect=4).stdout
    assert "No plan was made" in reviewed
    assert "`recovery-window` `aws_secretsmanager_secret.orders--db` in `secrets-staging`" in reviewed


def test_what_cannot_be_reviewed_is_an_error_and_never_passes(project: Project, raw_plans: Path) -> None:
    text = (raw_plans / "secrets-local.json").read_text(encoding="utf-8")
    (project.path / "cut.json").write_text(text[: len(text) // 2], encoding="utf-8")
    cut = project.run("review", "cut.json", expect=1)
    assert cut.stderr.startswith("error: cut.json is not one JSON document, or not a whole one\n")
    assert project.run("review", expect=1).stderr.startswith("error: there is no plan to review\n")
    assert "cannot hold a review" in project.run("review", "cut.json", "--limit", "10", expect=1).stderr
    assert [path for path in STACKS if path in cut.stdout] == []


def test_a_wrong_option_is_refused_while_it_is_reviewed_and_planned(project: Project, raw_plans: Path) -> None:
    path = project.path / "cdktf.out/manifests/local.json"
    kept = path.read_text(encoding="utf-8")
    manifest = json.loads(kept)
    manifest["secrets"]["orders/db"]["credential"]["options"]["frobnicate"] = 1
    path.write_text(json.dumps(manifest), encoding="utf-8")
    try:
        for command in (["review", str(raw_plans / "secrets-local.json")], ["plan", "orders/db"]):
            said = project.run(*command, expect=1)
            what = "error: orders/db: postgres_user: option frobnicate: there is no such option (it has: administrator,"
            assert said.stderr.startswith(what)
            assert said.stdout == ""
    finally:
        path.write_text(kept, encoding="utf-8")
