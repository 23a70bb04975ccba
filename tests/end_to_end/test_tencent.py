"""The environment local-tencent: the same rotations on a store that compares nothing, with a database that is MariaDB's
where it is installed, and with a consumer that is a cloud function."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rotation.errors import ClockSkew, StoreError
from rotation.local import environment, mariadb, providers
from rotation.local.embedded.local_tencent import REGION, SIGNATURE_LIFE
from rotation.local.leaks import Leaks
from rotation.local.load import Load, Probe
from rotation.local.plants_mysql import plants_of
from rotation.local.tencent_environment import runner_key
from rotation.local.tencent_function import GENERATION, Receipts
from rotation.manifest import Manifest
from rotation.model import Ring
from rotation.tencentcloud import Cloud, Manner
from tests.fixtures.children import told_by_a_rotation
from tests.fixtures.project import SECRET, TOKEN, Project, copy_declarations, edit

pytestmark = pytest.mark.timeout(600)

ENVIRONMENT = "local-tencent"
STORED_AS = "local-tencent--orders--db"
_PACE = {"bake": (4, 1), "settle": (2, 0.5), "patience": (10, 8), "grace": (3, 1)}


@pytest.fixture(scope="module")
def on_tencent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose local-tencent is deployed and has its first values; in the end nothing holds a value, nor what
    the runner signs with."""
    folder = tmp_path_factory.mktemp("on-tencent")
    copy_declarations(folder)
    for name, (declared, short) in _PACE.items():
        old, new = (f"{name}=timedelta(seconds={seconds})" for seconds in (declared, short))
        edit(folder / "stacks/environments.py", old, new)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    bare = kept | {"KEYTURN_WAIT": "120", "KEYTURN_ENVIRONMENT": ENVIRONMENT}
    starting = Project(folder, bare)
    try:
        starting.run("local", "up")
        variables = bare | environment.environment_variables(folder) | providers.tool_environment(folder)
        project = Project(folder, variables, starting.transcript)
        assert project.synth().code == 0
        project.run("deploy")
        project.run("rotate", "--initialize")
        assert Load(folder, ENVIRONMENT).await_traffic(), "the application places no orders"
        yield project
        with _inside(project):
            leaks = Leaks(folder, ENVIRONMENT)
            leaks.learn(runner_key(folder).secret_key)
            report = leaks.search(project.transcript)
        assert report.values > 5
        assert not report.found, f"values are in {report.found}"
    finally:
        starting.run("local", "down", "--purge")


@contextmanager
def _inside(project: Project) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        project.enter(patched)
        patched.chdir(project.path)
        yield


@pytest.fixture
def inside(on_tencent: Project) -> Iterator[Project]:
    """This process has the variables of the project's commands."""
    with _inside(on_tencent):
        yield on_tencent


def _endpoint(project: Project) -> str:
    return environment.place_of(project.path, ENVIRONMENT).server


def _versions(project: Project, stored_as: str) -> set[str]:
    asked, doing = {"SecretName": stored_as}, Manner("list", StoreError)
    listed = Cloud(REGION, _endpoint(project)).call("ssm", "ListSecretVersionIds", asked, doing)["Versions"]
    return {version["VersionId"] for version in listed}


def test_the_database_is_mariadb_where_it_is_installed(inside: Project) -> None:
    """And then its users are made by another kind of credential."""
    manifest = Manifest.load(inside.path, ENVIRONMENT)
    kinds = {True: "mysql_user", False: "postgres_user"}
    assert manifest.secret(SECRET).credential.kind == kinds[mariadb.installed()]


def test_a_killed_rotation_is_finished_under_load_without_a_failed_order(inside: Project) -> None:
    load = Load(inside.path, ENVIRONMENT)
    before, failed = inside.status()["current"], load.failed()
    probe = Probe(inside.path, SECRET, ENVIRONMENT)
    probe.start()
    try:
        with inside.start("rotate", SECRET) as runner:
            assert runner.stdout is not None
            for line in runner.stdout:
                if "deploy canary" in line:
                    break
            os.kill(runner.pid, signal.SIGKILL)
        inside.run("rotate", SECRET)
    finally:
        probe.stop()
    assert probe.failed == 0, probe.last_error
    assert probe.logins > 0
    assert load.failed() == failed
    row = inside.status()
    assert (row["current"], row["pending"], row["previous"]) == (before + 1, None, before)
    assert {ring: load.generation(ring, SECRET) for ring in Ring} == dict.fromkeys(Ring, before + 1)


def test_what_is_replaced_is_kept_while_a_signature_lives_and_then_retired(inside: Project) -> None:
    kept = inside.run("retire", SECRET, "--wait", "0", expect=3).stdout
    assert "could still arrive" in kept or "grace window" in kept, kept
    previous = inside.status()["previous"]
    assert f"g{previous:010}" in _versions(inside, STORED_AS)
    inside.run("retire", SECRET)
    assert inside.status()["previous"] is None
    assert f"g{previous:010}" not in _versions(inside, STORED_AS)


def test_what_breaks_the_canary_is_rolled_back_and_the_stable_ring_never_sees_it(inside: Project) -> None:
    load, before = Load(inside.path, ENVIRONMENT), inside.status()["current"]
    failed = load.failed(Ring.STABLE)
    with plants_of(inside.path, ENVIRONMENT).policy_for_one_user():
        said = inside.run("rotate", SECRET, expect=4).stdout
    assert "reject canary" in said
    assert load.await_generation(Ring.CANARY, SECRET, before)
    assert load.pins(SECRET) == dict.fromkeys(Ring, before)
    assert load.failed(Ring.STABLE) == failed
    row = inside.status()
    assert (row["current"], row["pending"]) == (before, None)
    candidate, versions = f"g{before + 1:010}", _versions(inside, STORED_AS)
    assert candidate not in versions
    assert f"{candidate}.decided" in versions, "so that its number is not used again"


def test_the_function_follows_by_its_alias_and_no_value_reaches_its_variables_or_a_child(
    inside: Project, tmp_path: Path
) -> None:
    receipts, leaks = Receipts(inside.path), Leaks(inside.path, ENVIRONMENT)
    leaks.learn()
    before, old = receipts.serving(), receipts.call()
    told = told_by_a_rotation(inside, tmp_path, TOKEN)
    assert int(receipts.serving()) > int(before)
    assert receipts.call(before) == old
    assert receipts.call() == str(inside.status(TOKEN)["current"]) == receipts.variables()[GENERATION] != old
    report = leaks.search([*told, json.dumps(receipts.variables())])
    assert not report.found, f"values are in {report.found}"


def test_a_planted_value_is_found_wherever_it_is(inside: Project) -> None:
    value = "a-value-that-was-put-where-none-may-be"
    names = (
        ".keyturn/journal/planted",
        ".keyturn/local/logs/tencent.planted",
        ".keyturn/local/terraform/planted.tfstate",
        "stacks/config/rendered/planted.yaml",
    )
    paths, leaks = [inside.path / name for name in names], Leaks(inside.path, ENVIRONMENT)
    try:
        for path in paths:
            path.write_text(value)
        leaks.learn(value)
        found = leaks.search([value]).found
    finally:
        for path in paths:
            path.unlink()
    assert set(found) == {*names, "what the commands printed"}


def test_a_signature_lives_for_as_long_as_the_store_is_told(inside: Project) -> None:
    """The emulator's own setting is as short as the store's wait is: neither is the real cloud's 300 seconds."""
    store = Manifest.load(inside.path, ENVIRONMENT).secret(SECRET).store
    assert store.options["signature_life"] == SIGNATURE_LIFE
    doing = Manner("list", StoreError, quiet=True)
    old = Cloud(REGION, _endpoint(inside), clock=lambda: time.time() - SIGNATURE_LIFE - 1.5)
    with pytest.raises(ClockSkew):
        old.call_once("ssm", "ListSecretVersionIds", {"SecretName": STORED_AS}, doing)
    assert _versions(inside, STORED_AS)


def test_a_second_up_keeps_the_runner_s_key_ports_and_values(inside: Project) -> None:
    before, key = inside.status(), runner_key(inside.path)
    endpoint = _endpoint(inside)
    inside.run("local", "down")
    inside.run("local", "up")
    assert runner_key(inside.path) == key
    assert _endpoint(inside) == endpoint
    after = inside.status()
    assert [after[name] for name in ("current", "pending", "previous")] == [before["current"], None, None]
    assert Load(inside.path, ENVIRONMENT).await_traffic()
