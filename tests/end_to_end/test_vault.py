"""The environment local-vault: the same rotations, with secrets and keys in OpenBao and a token that can do no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hvac
import pytest

from rotation.local import openbao
from rotation.local.demo.certificate import certificate_rotation
from rotation.local.demo.leaks import Leaks
from rotation.local.demo.load import Load
from rotation.local.demo.scenario import Broken, Demo
from rotation.local.embedded import embedded
from rotation.local.embedded.local_vault.provisioning import ADMINISTRATOR, APPLICATION_TOKEN, MOUNT, RUNNER_TOKEN
from rotation.manifest import Manifest
from rotation.model import Ring
from tests.fixtures.children import told_by_a_rotation
from tests.fixtures.embedded import kill_a_rotation_and_finish_it, running_on
from tests.fixtures.openbao import are_forbidden
from tests.fixtures.project import SECRET, TOKEN, Project

pytestmark = pytest.mark.timeout(600)

ENVIRONMENT = "local-vault"


@pytest.fixture(scope="module")
def on_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with running_on(ENVIRONMENT, tmp_path_factory.mktemp("on-vault")) as project:
        yield project


@pytest.fixture
def leaks(on_vault: Project, monkeypatch: pytest.MonkeyPatch) -> Leaks:
    on_vault.enter(monkeypatch)
    monkeypatch.chdir(on_vault.path)
    return Leaks(on_vault.path, ENVIRONMENT)


def _client(project: Project, token: str) -> hvac.Client:
    return hvac.Client(project.variables["VAULT_ADDR"], token=token, timeout=30)


def _private_keys(project: Project) -> set[str]:
    """Of the certificates that the store holds now."""
    manifest = Manifest.load(project.path, ENVIRONMENT)
    texts = embedded(ENVIRONMENT).values(project.path, manifest)
    return {json.loads(text)["private_key"] for text in texts if '"private_key"' in text}


def test_a_killed_rotation_is_finished_under_load_without_a_failed_query(on_vault: Project) -> None:
    kill_a_rotation_and_finish_it(on_vault, ENVIRONMENT)
    on_vault.run("retire", SECRET)
    assert on_vault.status()["previous"] is None


def test_a_server_that_is_sealed_under_a_rotation_is_named_and_nothing_is_lost(on_vault: Project) -> None:
    on_vault.run("retire", SECRET)
    load, before = Load(on_vault.path, ENVIRONMENT), on_vault.status()["current"]
    keys = openbao.custody(on_vault.path / ".keyturn/local/openbao")
    root = _client(on_vault, keys.root_token)
    with on_vault.impatient.start("rotate", SECRET) as runner:
        assert runner.stdout is not None
        for line in runner.stdout:
            if "deploy canary" in line:
                break
        root.sys.seal()
        try:
            said, trouble = runner.communicate(timeout=240)
        finally:
            root.sys.submit_unseal_key(keys.unseal_key)
    assert runner.returncode == 1, said + trouble
    assert "sealed" in trouble
    on_vault.transcript.append(said + trouble)
    assert load.await_generation(Ring.CANARY, SECRET, before + 1), "the application, too, goes on once it is unsealed"
    on_vault.run("rotate", SECRET)
    row = on_vault.status()
    assert (row["current"], row["pending"], row["previous"]) == (before + 1, None, before)
    assert {ring: load.generation(ring, SECRET) for ring in Ring} == dict.fromkeys(Ring, before + 1)


def test_the_demo_s_own_parts_hold(on_vault: Project) -> None:
    """A certificate under live clients, a key whose old material opens nothing any more, and a search that also knows
    the certificate's old key, which OpenBao has forgotten."""
    on_vault.run("retire")
    planted = on_vault.path / ".keyturn/journal/planted"
    with pytest.MonkeyPatch.context() as patched:
        on_vault.enter(patched)
        patched.chdir(on_vault.path)
        demo, before = Demo(on_vault.path, ENVIRONMENT), _private_keys(on_vault)
        certificate_rotation(demo)
        demo.key_rotation(Load(on_vault.path, ENVIRONMENT))
        (forgotten,) = before - _private_keys(on_vault)
        planted.write_text(forgotten)
        try:
            with pytest.raises(Broken, match="values looked for"):
                demo.leaks()
        finally:
            planted.unlink()
    on_vault.transcript.extend(demo.transcript)


def test_no_value_is_left_anywhere_not_even_one_that_the_store_has_forgotten(
    on_vault: Project, leaks: Leaks, tmp_path: Path
) -> None:
    """Not with the children of a rotation, nor in OpenBao's own log and audit."""
    leaks.learn()
    told = told_by_a_rotation(on_vault, tmp_path, TOKEN)
    before = leaks.search(told).values
    on_vault.run("retire", TOKEN)
    report = leaks.search([*told, *on_vault.transcript])
    assert report.values == before
    assert not report.found


def test_a_planted_value_is_found_wherever_it_is(on_vault: Project, leaks: Leaks) -> None:
    """Also where OpenBao itself would write it down: the path of a request is in the audit log in clear."""
    value = "a-value-that-was-put-where-none-may-be"
    names = (
        ".keyturn/journal/planted",
        ".keyturn/local/logs/openbao.planted",
        ".keyturn/local/terraform/planted.tfstate",
        "cdktf.out/planted.json",
        "stacks/config/rendered/planted.yaml",
    )
    keys = openbao.custody(on_vault.path / ".keyturn/local/openbao")
    _client(on_vault, keys.root_token).read(f"{MOUNT}/data/{value}")
    planted = [on_vault.path / name for name in names]
    try:
        for path in planted:
            path.write_text(value)
        leaks.learn(value)
        found = leaks.search([value]).found
    finally:
        for path in planted:
            path.unlink()
    assert set(found) == {*names, ".keyturn/local/openbao/audit.log", "what the commands printed"}


def test_the_application_s_token_reads_what_it_is_pinned_to_and_nothing_else(on_vault: Project) -> None:
    kv = _client(on_vault, (on_vault.path / APPLICATION_TOKEN).read_text(encoding="utf-8")).secrets.kv.v2
    current = on_vault.status()["current"]
    login = kv.read_secret(f"_rotation/{SECRET}/g{current}", mount_point=MOUNT, raise_on_deleted_version=True)
    assert login["data"]["data"].keys() >= {"username", "password"}
    are_forbidden(
        lambda: kv.read_secret(ADMINISTRATOR, mount_point=MOUNT, raise_on_deleted_version=True),
        lambda: kv.create_or_update_secret(SECRET, {"value": "x"}, mount_point=MOUNT),
        lambda: kv.delete_metadata_and_all_versions(TOKEN, mount_point=MOUNT),
    )


def test_the_runner_s_token_can_neither_change_policies_nor_reach_other_secrets(on_vault: Project) -> None:
    runner = _client(on_vault, (on_vault.path / RUNNER_TOKEN).read_text(encoding="utf-8"))
    kv = runner.secrets.kv.v2
    are_forbidden(
        runner.sys.list_policies,
        runner.sys.list_mounted_secrets_engines,
        runner.auth.token.create,
        lambda: kv.create_or_update_secret("billing/db", {"value": "x"}, mount_point=MOUNT),
        lambda: kv.create_or_update_secret(ADMINISTRATOR, {"value": "x"}, mount_point=MOUNT),
        lambda: runner.secrets.transit.delete_key("orders", mount_point=f"{MOUNT}-transit"),
    )


def test_a_second_up_keeps_tokens_and_ports_and_a_third_replaces_a_token_that_was_revoked(on_vault: Project) -> None:
    path: Path = on_vault.path / RUNNER_TOKEN
    before = path.read_text(encoding="utf-8")
    on_vault.run("local", "up")
    assert path.read_text(encoding="utf-8") == before
    _client(on_vault, before).auth.token.lookup_self()
    keys = openbao.custody(on_vault.path / ".keyturn/local/openbao")
    _client(on_vault, keys.root_token).auth.token.revoke(before)
    assert "Vault" in on_vault.run("rotate", SECRET, expect=1).stderr
    on_vault.run("local", "up")
    assert path.read_text(encoding="utf-8") != before
    assert path.stat().st_mode & 0o777 == 0o600
    on_vault.run("status")
