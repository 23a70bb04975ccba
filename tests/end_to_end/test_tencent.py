"""The environment local-tencent: the same rotations on a store that compares nothing, with a database that is MariaDB's
where it is installed, and with a consumer that is a cloud function."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.errors import ClockSkew, StoreError
from rotation.local import environment, mariadb
from rotation.local.demo.database_faults import faults_of
from rotation.local.demo.leaks import Leaks
from rotation.local.demo.load import Load
from rotation.local.demo.sealed import Sealed
from rotation.local.embedded.local_tencent import REGION, SIGNATURE_LIFE
from rotation.local.embedded.local_tencent.function import GENERATION, Receipts
from rotation.local.embedded.local_tencent.provisioning import runner_key
from rotation.manifest import Manifest
from rotation.model import Ring
from rotation.tencentcloud import Cloud, Manner
from tests.fixtures.children import told_by_a_rotation
from tests.fixtures.embedded import inside, kill_a_rotation_and_finish_it, running_on
from tests.fixtures.project import CHECKOUT, SECRET, TOKEN, Project

pytestmark = pytest.mark.timeout(600)

ENVIRONMENT, KEY = "local-tencent", "orders"
STORED_AS = "local-tencent--orders--db"


@pytest.fixture(scope="module")
def on_tencent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """In the end not even what the runner signs with is in a file."""
    with running_on(
        ENVIRONMENT, tmp_path_factory.mktemp("on-tencent"), lambda folder: [runner_key(folder).secret_key]
    ) as project:
        yield project


@pytest.fixture
def project(on_tencent: Project) -> Iterator[Project]:
    """This process has the variables of its commands."""
    with inside(on_tencent):
        yield on_tencent


def _endpoint(project: Project) -> str:
    return environment.place_of(project.path, ENVIRONMENT).server


def _versions(project: Project, stored_as: str) -> set[str]:
    asked, doing = {"SecretName": stored_as}, Manner("list", StoreError)
    listed = Cloud(REGION, _endpoint(project)).call("ssm", "ListSecretVersionIds", asked, doing)["Versions"]
    return {version["VersionId"] for version in listed}


@pytest.fixture
def pipeline(project: Project, tmp_path: Path) -> Iterator[Pipeline]:
    """The project's folder as a pipeline's checkout."""
    made = Pipeline(project, tmp_path / "origin.git")
    try:
        made.publish()
        yield made
    finally:
        shutil.rmtree(project.path / ".git")


@dataclass(frozen=True)
class Pipeline:
    """What pipelines run, on a checkout whose remote is a bare repository."""

    project: Project
    origin: Path

    def publish(self) -> None:
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.origin))
        self._git("init", "--quiet", "--initial-branch=main", ".")
        self._git("remote", "add", "origin", str(self.origin))
        self._git("add", "stacks")
        self._git("commit", "--quiet", "--message", "The project")
        self._git("push", "--quiet", "origin", "main")

    def rotate(self, *secrets: str, expect: int = 0) -> str:
        """Its job "rotate", which says what it does; returns that."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{self.project.variables['PATH']}"
        argv = [sys.executable, str(CHECKOUT / ".ci" / "rotate.py"), ENVIRONMENT, "--reason", "manual: a job", *secrets]
        done = self.project.execute(argv, PATH=path)
        assert done.code == expect, done.stdout + done.stderr
        return done.stderr

    def pushed(self) -> list[str]:
        """The subjects of what it pushed, the oldest first."""
        return self._git("--git-dir", str(self.origin), "log", "--format=%s", "--reverse", "main").splitlines()[1:]

    def _git(self, *arguments: str) -> str:
        done = self.project.execute(["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *arguments])
        assert done.code == 0, done.stderr
        return done.stdout


def _when(act: str, printed: str) -> timedelta:
    """The time of day, in whole seconds, at which a step was last done to the login."""
    *_, last = re.finditer(rf"(\d\d):(\d\d):(\d\d)  {SECRET} +{act} ", printed)
    hours, minutes, seconds = map(int, last.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def test_the_database_is_mariadb_where_it_is_installed(project: Project) -> None:
    """And then its users are made by another kind of credential."""
    manifest = Manifest.load(project.path, ENVIRONMENT)
    kinds = {True: "mysql_user", False: "postgres_user"}
    assert manifest.secret(SECRET).credential.kind == kinds[mariadb.installed()]


def test_a_killed_rotation_is_finished_under_load_and_what_it_replaced_is_kept_while_a_signature_lives(
    project: Project,
) -> None:
    previous = kill_a_rotation_and_finish_it(project, ENVIRONMENT)
    printed = project.run("retire", SECRET).stdout
    promoted, retired = (_when(act, "".join(project.transcript)) for act in ("promote", "retire"))
    assert (retired - promoted) % timedelta(days=1) >= timedelta(seconds=4 * SIGNATURE_LIFE - 1), printed
    assert project.status()["previous"] is None
    assert f"g{previous:010}" not in _versions(project, STORED_AS)


def test_a_pipeline_turns_a_password_and_a_sealed_token_from_the_call_to_the_promotion(
    project: Project, pipeline: Pipeline
) -> None:
    """The password in SSM and MariaDB, the token under a new data key of KMS, each ring by Terraform and a commit."""
    load, sealed, names = (
        Load(project.path, ENVIRONMENT),
        Sealed(project.path, ENVIRONMENT, KEY),
        sorted((SECRET, TOKEN)),
    )
    before, failed, envelopes = {name: project.status(name)["current"] for name in names}, load.failed(), sealed.look()
    said = pipeline.rotate(*names)
    after = {name: project.status(name)["current"] for name in names}
    assert after == {name: generation + 1 for name, generation in before.items()}
    moves = [f"{name} {before[name]} → {after[name]}" for name in names]
    assert pipeline.pushed() == [
        f"Rotate in {ENVIRONMENT}: {', '.join(f'{move} ({ring})' for move in moves)}"
        for ring in (Ring.CANARY, Ring.STABLE)
    ]
    assert said.count("application-local-tencent: applied") == len(Ring)
    for name in names:
        assert {ring: load.generation(ring, name) for ring in Ring} == dict.fromkeys(Ring, after[name])
    keys = [json.loads(each[TOKEN].stored.reveal())["wrapped"] for each in (envelopes, sealed.look())]
    assert keys[0] != keys[1]
    assert load.failed() == failed


def test_what_breaks_the_canary_of_a_pipeline_is_rolled_back_and_the_stable_ring_never_sees_it(
    project: Project, pipeline: Pipeline
) -> None:
    load, before = Load(project.path, ENVIRONMENT), project.status()["current"]
    failed = load.failed(Ring.STABLE)
    with faults_of(project.path, ENVIRONMENT).policy_for_one_user():
        said = pipeline.rotate(SECRET, expect=4)
    assert "reject canary" in said
    to, back = (
        f"Rotate in {ENVIRONMENT}: {SECRET} {move} (canary)"
        for move in (f"{before} → {before + 1}", f"{before + 1} → {before}")
    )
    assert pipeline.pushed() == [to, back]
    assert load.await_generation(Ring.CANARY, SECRET, before)
    assert load.pins(SECRET) == dict.fromkeys(Ring, before)
    assert load.failed(Ring.STABLE) == failed
    row = project.status()
    assert (row["current"], row["pending"]) == (before, None)
    candidate, versions = f"g{before + 1:010}", _versions(project, STORED_AS)
    assert candidate not in versions
    assert f"{candidate}.decided" in versions, "so that its number is not used again"


def test_the_function_follows_by_its_alias_and_no_value_reaches_its_variables_or_a_child(
    project: Project, tmp_path: Path
) -> None:
    receipts, leaks = Receipts(project.path), Leaks(project.path, ENVIRONMENT)
    leaks.learn()
    before, old = receipts.serving(), receipts.call()
    told = told_by_a_rotation(project, tmp_path, TOKEN)
    assert int(receipts.serving()) > int(before)
    assert receipts.call(before) == old
    assert receipts.call() == str(project.status(TOKEN)["current"]) == receipts.variables()[GENERATION] != old
    report = leaks.search([*told, json.dumps(receipts.variables())])
    assert not report.found, f"values are in {report.found}"


def test_a_planted_value_is_found_wherever_it_is(project: Project) -> None:
    value = "a-value-that-was-put-where-none-may-be"
    names = (
        ".keyturn/journal/planted",
        ".keyturn/local/logs/tencent.planted",
        ".keyturn/local/terraform/planted.tfstate",
        "stacks/config/rendered/planted.yaml",
    )
    paths, leaks = [project.path / name for name in names], Leaks(project.path, ENVIRONMENT)
    try:
        for path in paths:
            path.write_text(value)
        leaks.learn(value)
        found = leaks.search([value]).found
    finally:
        for path in paths:
            path.unlink()
    assert set(found) == {*names, "what the commands printed"}


def test_a_signature_lives_for_as_long_as_the_store_is_told(project: Project) -> None:
    """The emulator's own setting is as short as the store's wait is: neither is the real cloud's 300 seconds."""
    store = Manifest.load(project.path, ENVIRONMENT).secret(SECRET).store
    assert store.options["signature_life"] == SIGNATURE_LIFE
    doing = Manner("list", StoreError, quiet=True)
    old = Cloud(REGION, _endpoint(project), clock=lambda: time.time() - SIGNATURE_LIFE - 1.5)
    with pytest.raises(ClockSkew):
        old.call_once("ssm", "ListSecretVersionIds", {"SecretName": STORED_AS}, doing)
    assert _versions(project, STORED_AS)


def test_a_second_up_keeps_the_runner_s_key_ports_and_values(project: Project) -> None:
    before, key = project.status(), runner_key(project.path)
    endpoint = _endpoint(project)
    project.run("local", "down")
    project.run("local", "up")
    assert runner_key(project.path) == key
    assert _endpoint(project) == endpoint
    after = project.status()
    assert [after[name] for name in ("current", "pending", "previous")] == [before["current"], None, None]
    assert Load(project.path, ENVIRONMENT).await_traffic()
