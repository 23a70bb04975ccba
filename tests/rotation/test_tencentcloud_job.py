"""A pipeline's job on Tencent Cloud: it becomes the declared role by its own identity, and stays it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
import yaml

from rotation import tencentcloud
from rotation.deploy import terraform_environment
from rotation.errors import StoreError, Unauthorized, Unavailable, UsageError
from rotation.tencentcloud import Cloud, JobIdentity, JobRole, Manner, Throttled
from tests.contracts.staging import told_by
from tests.fixtures.answering import Answering, served
from tests.fixtures.oidc import Signer
from tests.fixtures.ports import closed_port
from tests.fixtures.project import CHECKOUT
from tests.fixtures.tencent import TencentCloud, running_tencent
from tests.fixtures.tencent_trust import PROVIDER, ROLE, declare, job_token

IDENTITY = Manner("ask who this is", StoreError)
ASSUME = "sts.AssumeRoleWithWebIdentity"
HOUR = 3600


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def trusting(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TencentCloud]:
    with running_tencent() as running:
        declare(running, signer, tmp_path_factory.mktemp("trust"))
        yield running


@pytest.fixture(autouse=True)
def job(trusting: TencentCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A job whose environment has no keys, but names the role and the file of its token, which it returns."""
    for name in [name for name in os.environ if name.startswith(("TENCENTCLOUD_", "ACTIONS_ID_TOKEN_"))]:
        monkeypatch.delenv(name)
    file = tmp_path / "token"
    for name, value in {
        "REGION": trusting.region,
        "ROLE_ARN": ROLE,
        "PROVIDER_ID": PROVIDER,
        "WEB_IDENTITY_TOKEN_FILE": str(file),
        "STS_ENDPOINT": f"http://{trusting.endpoint}",
    }.items():
        monkeypatch.setenv(f"TENCENTCLOUD_{name}", value)
    tencentcloud._job_role.cache_clear()
    trusting.faults.forget_calls()
    with stamina.set_testing(True, attempts=2):
        yield file
    trusting.faults.clear()
    trusting.clock.run()
    tencentcloud._job_role.cache_clear()


@pytest.fixture
def cloud(trusting: TencentCloud) -> Cloud:
    return Cloud(trusting.region, f"http://{trusting.endpoint}", timeout=5)


def who(cloud: Cloud) -> str:
    return str(cloud.call("sts", "GetCallerIdentity", {}, IDENTITY)["UserId"])


def test_a_job_with_its_token_in_a_file_calls_as_the_declared_role(
    job: Path, cloud: Cloud, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    token = job_token(signer)
    job.write_text(f"{token}\n")
    with caplog.at_level(logging.DEBUG):
        assert who(cloud) == "keyturn-staging:keyturn"
    assert caplog.text
    assert token not in caplog.text


def test_all_of_a_process_share_one_session(job: Path, trusting: TencentCloud, cloud: Cloud, signer: Signer) -> None:
    job.write_text(job_token(signer))
    other = Cloud("ap-beijing", f"http://{trusting.endpoint}")
    assert [who(cloud), who(other), who(cloud)] == ["keyturn-staging:keyturn"] * 3
    assert trusting.faults.calls()[ASSUME] == 1


@pytest.fixture
def github(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A job that has no file, and may ask GitHub for its identity."""

    class GitHub(Answering):
        def answer(self, asked: str) -> Any:
            assert self.headers["Authorization"] == "bearer the-jobs-own"
            return {"value": job_token(signer, audience=self.path.partition("&audience=")[2])}

    monkeypatch.delenv("TENCENTCLOUD_WEB_IDENTITY_TOKEN_FILE")
    with served(GitHub) as address:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{address}/token?api-version=2.0")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the-jobs-own")
        yield


@pytest.mark.usefixtures("github")
def test_a_job_of_github_actions_asks_for_its_own_identity(cloud: Cloud) -> None:
    assert who(cloud) == "keyturn-staging:keyturn"


def jobs_with_a_role() -> Iterator[Any]:
    """The variables of each job of the workflows that may ask for an identity."""
    for file in sorted((CHECKOUT / ".github/workflows").glob("*.yml")):
        for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items():
            if "id-token" in job.get("permissions", {}) and "steps" in job:
                yield pytest.param(job["env"], id=f"{file.stem}-{name}")


@pytest.mark.usefixtures("github")
@pytest.mark.parametrize("variables", [*jobs_with_a_role()])
def test_each_job_of_the_workflows_that_needs_the_role_becomes_it(
    cloud: Cloud, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = {
        "KEYTURN_TENCENT_ROLE": ROLE,
        "TENCENTCLOUD_PROVIDER_ID": PROVIDER,
        "TENCENTCLOUD_REGION": "ap-guangzhou",
    }
    for name in ("TENCENTCLOUD_ROLE_ARN", "TENCENTCLOUD_PROVIDER_ID", "TENCENTCLOUD_REGION"):
        asked = re.fullmatch(r"\$\{\{ vars\.(\w+) \}\}", variables[name])
        assert asked is not None
        monkeypatch.setenv(name, repository[asked[1]])
    assert who(cloud) == "keyturn-staging:keyturn"


@pytest.mark.parametrize(("status", "error"), [(403, Unauthorized), (503, Unavailable)])
def test_when_github_gives_no_identity_it_is_said_and_not_by_what_the_job_asks(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]
) -> None:
    answering = type("Refusing", (Answering,), {"status": status})
    monkeypatch.delenv("TENCENTCLOUD_WEB_IDENTITY_TOKEN_FILE")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the-jobs-own")
    with served(answering) as address:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{address}/token?api-version=2.0")
        with pytest.raises(error, match=f"could not get a JWT from GitHub: it answered {status}"):
            who(cloud)
        assert os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] not in told_by(lambda: who(cloud))


def test_a_job_that_may_not_ask_for_an_identity_is_told_how(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENCENTCLOUD_WEB_IDENTITY_TOKEN_FILE")
    with pytest.raises(Unauthorized) as told:
        who(cloud)
    assert "id-token: write" in told.value.remedy
    assert "TENCENTCLOUD_WEB_IDENTITY_TOKEN_FILE" in told.value.remedy


@pytest.mark.parametrize(
    ("change", "code", "remedy"),
    [
        ({"subject": "repo:example/orders:environment:production"}, "UnauthorizedOperation", "TENCENTCLOUD_ROLE_ARN"),
        ({"subject": "repo:mallory/orders:environment:staging"}, "UnauthorizedOperation", "TENCENTCLOUD_ROLE_ARN"),
        ({"audience": "another"}, "WebIdentityTokenError", "TENCENTCLOUD_PROVIDER_ID"),
        ({"exp": 1_700_000_000}, "WebIdentityTokenError", "start the build again"),
    ],
)
def test_another_job_is_refused_at_once_and_told_what_to_compare(
    job: Path, trusting: TencentCloud, cloud: Cloud, signer: Signer, change: dict[str, Any], code: str, remedy: str
) -> None:
    token = job_token(signer, **change)
    job.write_text(token)
    with pytest.raises(Unauthorized, match=f"could not assume the role {ROLE}.*{code}") as told:
        who(cloud)
    assert remedy in told.value.remedy
    assert token not in told_by(lambda: who(cloud))
    assert "sts.GetCallerIdentity" not in trusting.faults.calls()


def test_a_role_or_provider_that_is_not_there_is_told(
    job: Path, cloud: Cloud, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write_text(job_token(signer))
    for name in ("ROLE_ARN", "PROVIDER_ID"):
        with monkeypatch.context() as patch:
            patch.setenv(f"TENCENTCLOUD_{name}", f"{os.environ[f'TENCENTCLOUD_{name}']}-2")
            with pytest.raises(Unauthorized, match="could not assume the role"):
                who(Cloud(cloud.region, os.environ["TENCENTCLOUD_STS_ENDPOINT"]))


def test_a_role_without_a_provider_is_no_declaration_of_a_job(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENCENTCLOUD_PROVIDER_ID", "")
    with pytest.raises(UsageError, match="no OIDC provider") as told:
        who(cloud)
    assert "TENCENTCLOUD_PROVIDER_ID" in told.value.remedy


def test_a_file_that_is_not_there_is_named(job: Path, cloud: Cloud) -> None:
    with pytest.raises(Unauthorized, match=f"{job} cannot be read: FileNotFoundError"):
        who(cloud)


def test_while_sts_is_down_it_is_tried_again_and_then_said(
    job: Path, trusting: TencentCloud, cloud: Cloud, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = job_token(signer)
    job.write_text(token)
    trusting.faults.plan(ASSUME, "drop")
    assert who(cloud) == "keyturn-staging:keyturn"
    tencentcloud._job_role.cache_clear()
    monkeypatch.setenv("TENCENTCLOUD_STS_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    other = Cloud(cloud.region, f"http://{trusting.endpoint}")
    with pytest.raises(Unavailable, match=r"could not assume the role .*127\.0\.0\.1"):
        who(other)
    assert token not in told_by(lambda: who(other))


def test_being_asked_too_often_is_no_refusal(job: Path, trusting: TencentCloud, cloud: Cloud, signer: Signer) -> None:
    job.write_text(job_token(signer))
    trusting.faults.plan(ASSUME, "throttle", times=5)
    with pytest.raises(Throttled):
        who(cloud)


@pytest.fixture
def timed(trusting: TencentCloud, job: Path) -> Callable[[], Cloud]:
    """What calls, and assumes the role, by the emulator's clock."""
    sts = Cloud(trusting.region, f"http://{trusting.endpoint}", clock=trusting.clock.now)
    return lambda: sts.signing_as(JobRole(JobIdentity(ROLE, PROVIDER, job), sts))


def test_a_long_run_assumes_the_role_again_before_its_keys_end(
    job: Path, trusting: TencentCloud, timed: Callable[[], Cloud], signer: Signer
) -> None:
    cloud = timed()
    trusting.clock.stop()
    for step in range(6):  # two of them are more than two thirds of the keys' 7200 s, and less than all
        job.write_text(job_token(signer, exp=int(trusting.clock.now()) + HOUR))
        assert who(cloud) == "keyturn-staging:keyturn"
        assert trusting.faults.calls()[ASSUME] == 1 + step // 2
        trusting.clock.advance(2500)


def test_keys_that_are_still_good_are_used_while_the_next_ones_cannot_be_had(
    job: Path, trusting: TencentCloud, timed: Callable[[], Cloud], signer: Signer
) -> None:
    cloud = timed()
    trusting.clock.stop()
    job.write_text(job_token(signer, exp=int(trusting.clock.now()) + HOUR))
    assert who(cloud) == "keyturn-staging:keyturn"
    trusting.clock.advance(1.5 * HOUR)  # the token has ended, the keys have not
    assert who(cloud) == who(cloud) == "keyturn-staging:keyturn"
    assert trusting.faults.calls()[ASSUME] == 2, "not with each call"
    trusting.clock.advance(HOUR)
    with pytest.raises(Unauthorized, match="WebIdentityTokenError"):
        who(cloud)


def test_terraform_gets_the_roles_keys_and_no_token_of_the_job(
    job: Path, trusting: TencentCloud, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = job_token(signer)
    job.write_text(token)
    passed = terraform_environment(tmp_path, {})
    keys = tuple(passed[f"TENCENTCLOUD_{name}"] for name in ("SECRET_ID", "SECRET_KEY", "SECURITY_TOKEN"))
    found = trusting.cloud.identities.find(keys[0])
    assert found is not None
    assert (found.secret_key, found.token) == keys[1:]
    assert token not in passed.values()
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "mine")
    assert terraform_environment(tmp_path, {})["TENCENTCLOUD_SECRET_ID"] == "mine"


def test_without_a_role_terraform_gets_what_it_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENCENTCLOUD_ROLE_ARN", "")
    assert "TENCENTCLOUD_SECRET_ID" not in terraform_environment(tmp_path, {})


def test_what_holds_keys_or_tokens_does_not_show_them(trusting: TencentCloud, job: Path, signer: Signer) -> None:
    job.write_text(job_token(signer))
    role = tencentcloud.job_role()
    assert role is not None
    keys = role.get_credential_info()
    shown = f"{role!r} {role._held!r} {role._identity!r}"
    assert not any(key in shown for key in keys)
