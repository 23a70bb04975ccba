"""What `keyturn local up` makes on the emulated Tencent Cloud beside what is declared there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rotation.errors import DeclarationError, LocalError
from rotation.local import environment
from rotation.local.embedded import embedded
from rotation.local.embedded.local_tencent import SIGNATURE_LIFE
from rotation.local.embedded.local_tencent import provisioning as under_test
from rotation.local.embedded.local_tencent.function import have_function
from rotation.local.tencent.embedded import Custody
from rotation.secret_value import SecretValue
from rotation.stores.tencent_ssm import TencentSsm
from rotation.tencentcloud import Cloud
from tests.fixtures.tencent import TencentCloud, ask


@pytest.fixture
def root(tencent: TencentCloud) -> Cloud:
    key = Custody(tencent.key.secret_id, tencent.key.secret_key)
    return Cloud(tencent.region, tencent.options["endpoint"], credentials=under_test._Signer(key))


def test_the_runner_s_key_is_kept_while_it_is_good_and_replaced_where_somebody_took_it_away(
    tencent: TencentCloud, root: Cloud, tmp_path: Path
) -> None:
    path, cam = tmp_path / under_test.RUNNER_KEY, tencent.client("cam")
    path.parent.mkdir(parents=True)
    under_test._give_key(root, path)
    first = under_test.runner_key(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    under_test._give_key(root, path)
    assert under_test.runner_key(tmp_path) == first

    uin = ask(cam, "GetUser", Name=under_test.RUNNER).Uin
    ask(cam, "UpdateAccessKey", TargetUin=uin, AccessKeyId=first.secret_id, Status="Inactive")
    under_test._give_key(root, path)
    second = under_test.runner_key(tmp_path)
    listed = [key.AccessKeyId for key in ask(cam, "ListAccessKeys", TargetUin=uin).AccessKeys]
    assert listed == [second.secret_id] != [first.secret_id]


def test_a_login_is_kept_once_and_followed_when_it_changes(tencent: TencentCloud, root: Cloud) -> None:
    name, ssm = tencent.name("db-admin"), tencent.client("ssm")
    for value in ("first-login", "first-login", "second-login"):
        under_test._keep(root, name, SecretValue(value))
        assert ask(ssm, "GetSecretValue", SecretName=name, VersionId="SSM_Current").SecretString == value
    assert tencent.faults.calls()["ssm.UpdateSecret"] == 1, "what is there already is not written again"


def test_the_function_is_made_once(tencent: TencentCloud, root: Cloud) -> None:
    have_function(root)
    have_function(root)
    assert tencent.faults.calls()["scf.CreateFunction"] == 1


def test_before_the_first_start_the_way_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="has no key for the runner yet") as caught:
        under_test.runner_key(tmp_path)
    assert caught.value.remedy == "Run `keyturn local up -e local-tencent`."


def test_a_first_start_that_failed_is_no_obstacle_to_the_other_environments(tmp_path: Path) -> None:
    environment._with(embedded("local-tencent"), tmp_path, environment._choose(tmp_path))
    assert environment.environment_variables(tmp_path).keys() >= {"AWS_ENDPOINT_URL"}
    assert not any(name.startswith("TENCENT") for name in environment.environment_variables(tmp_path))


@pytest.mark.parametrize("endpoint", [None, "https://ssm.example.com", "http://127.0.0.1.example.com:80"])
def test_only_a_server_on_this_machine_has_signatures_that_live_shorter(endpoint: str | None) -> None:
    options = {"region": "ap-guangzhou", "signature_life": SIGNATURE_LIFE}
    with pytest.raises(DeclarationError, match="signature_life can be shortened only for a server on this machine"):
        TencentSsm(options | ({"endpoint": endpoint} if endpoint else {}))
    assert TencentSsm({"region": "ap-guangzhou"}).settle.total_seconds() == 1200
    here = TencentSsm({**options, "endpoint": "http://127.0.0.1:4577"})
    assert here.settle.total_seconds() == 4 * SIGNATURE_LIFE


def test_mariadb_is_there_where_both_of_its_programs_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And else the database is in the embedded PostgreSQL."""
    monkeypatch.setattr("rotation.local.mariadb._FOLDERS", str(tmp_path))
    assert not embedded("local-tencent").has_mysql
    for name in ("mariadbd", "mariadb-install-db"):
        (tmp_path / name).touch(mode=0o755)
    assert embedded("local-tencent").has_mysql
