"""Jobs that become a role by their own identity: a declared trust, and what the official SDK is answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential

from tests.fixtures.oidc import ISSUER, Signer
from tests.fixtures.tencent import TencentCloud, ask, refused, running_tencent
from tests.fixtures.tencent_trust import AUDIENCE, PROVIDER, ROLE, SUBJECT, declare, job_token


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def trusting(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TencentCloud]:
    with running_tencent() as running:
        declare(running, signer, tmp_path_factory.mktemp("trust"))
        yield running


def assume(tencent: TencentCloud, token: str, **others: Any) -> dict[str, Any]:
    """As the SDK's own credential class asks, but over http."""
    profile = tencent.client("ssm").profile
    client = CommonClient("sts", "2018-08-13", None, tencent.region, profile)
    asked = {"ProviderId": PROVIDER, "WebIdentityToken": token, "RoleArn": ROLE, "RoleSessionName": "job", **others}
    answer: dict[str, Any] = client.call_json("AssumeRoleWithWebIdentity", asked, options={"SkipSign": True})
    return dict(answer["Response"])


def test_the_declared_job_becomes_the_role(trusting: TencentCloud, signer: Signer) -> None:
    answer = assume(trusting, job_token(signer))
    keys = answer["Credentials"]
    credential = Credential(keys["TmpSecretId"], keys["TmpSecretKey"], keys["Token"])
    client = CommonClient("sts", "2018-08-13", credential, trusting.region, trusting.client("ssm").profile)
    found = client.call_json("GetCallerIdentity", {})["Response"]
    assert (found["Type"], found["UserId"]) == ("CAMRole", "keyturn-staging:job")
    assert abs(answer["ExpiredTime"] - trusting.clock.now() - 7200) < 60


@pytest.mark.parametrize(
    ("audience", "subject", "claims", "code"),
    [
        (AUDIENCE, "repo:example/orders:environment:production", {}, "UnauthorizedOperation"),
        (AUDIENCE, "repo:mallory/orders:environment:staging", {}, "UnauthorizedOperation"),
        (AUDIENCE, "repo:example/orders:ref:refs/heads/feature", {}, "UnauthorizedOperation"),
        ("sts.amazonaws.com", SUBJECT, {}, "InvalidParameter.WebIdentityTokenError"),
        (AUDIENCE, SUBJECT, {"iss": "https://elsewhere.example"}, "InvalidParameter.WebIdentityTokenError"),
        (AUDIENCE, SUBJECT, {"exp": 1_700_000_000}, "InvalidParameter.WebIdentityTokenError"),
        (AUDIENCE, SUBJECT, {"nbf": 9_000_000_000, "exp": 9_000_000_001}, "InvalidParameter.WebIdentityTokenError"),
    ],
)
def test_another_job_does_not(
    trusting: TencentCloud, signer: Signer, audience: str, subject: str, claims: dict[str, Any], code: str
) -> None:
    with refused(code):
        assume(trusting, job_token(signer, subject, audience, **claims))


def test_a_token_that_nobody_trusted_signed_is_refused(trusting: TencentCloud, signer: Signer) -> None:
    header, claims, signature = job_token(signer).split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg": "none"}').rstrip(b"=").decode()
    altered = base64.urlsafe_b64encode(json.dumps({"iss": ISSUER, "sub": SUBJECT}).encode()).rstrip(b"=").decode()
    for token in (
        job_token(Signer()),
        f"{header}.{altered}.{signature}",
        f"{unsigned}.{claims}.",
        "no token",
        "",
    ):
        with refused("InvalidParameter.WebIdentityTokenError"):
            assume(trusting, token)


def test_another_role_another_provider_and_too_long_are_refused(trusting: TencentCloud, signer: Signer) -> None:
    token = job_token(signer)
    for others, code in (
        ({"RoleArn": ROLE + "-2"}, "InternalError.GetRoleError"),
        ({"RoleArn": ROLE.replace("100000000001", "100000000002")}, "InternalError.GetRoleError"),
        ({"ProviderId": "another"}, "InvalidParameter.ParamError"),
        ({"DurationSeconds": 7201}, "InvalidParameter.OverTimeError"),
    ):
        with refused(code):
            assume(trusting, token, **others)


def test_a_role_that_trusts_an_account_is_not_had_by_a_token(trusting: TencentCloud, signer: Signer) -> None:
    statement = {"effect": "allow", "action": ["name/sts:AssumeRole"], "principal": {"qcs": ["qcs::cam::uin/1:root"]}}
    ask(trusting.client("cam"), "CreateRole", RoleName="people", PolicyDocument=json.dumps({"statement": [statement]}))
    with refused("UnauthorizedOperation"):
        assume(trusting, job_token(signer), RoleArn=ROLE.replace("keyturn-staging", "people"))


def test_nothing_else_is_had_without_a_signature(tencent: TencentCloud) -> None:
    for service, version, action in (("sts", "2018-08-13", "GetCallerIdentity"), ("ssm", "2019-09-23", "ListSecrets")):
        client = CommonClient(service, version, None, tencent.region, tencent.client("ssm").profile)
        with refused("AuthFailure.InvalidAuthorization"):
            client.call_json(action, {}, options={"SkipSign": True})


def test_names_are_taken_once_and_keys_are_looked_at(trusting: TencentCloud) -> None:
    cam = trusting.client("cam")
    provider = {"IdentityUrl": ISSUER, "ClientId": [AUDIENCE]}
    with refused("InvalidParameterValue.IdentityKeyError"):
        ask(cam, "CreateOIDCConfig", Name="other", IdentityKey="bm8ga2V5cw==", **provider)
    with refused("InvalidParameter.IdentityNameInUse"):
        ask(cam, "CreateOIDCConfig", Name=PROVIDER, IdentityKey="", **provider)
    with refused("InvalidParameter.RoleNameInUse"):
        ask(cam, "CreateRole", RoleName="keyturn-staging", PolicyDocument="{}")
