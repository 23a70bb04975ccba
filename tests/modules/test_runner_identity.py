"""The runner may do what a rotation needs, on what the estate declares, and nothing else."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from modules.declarations import Consumer, Credential, Estate, Key, Secret
from modules.resource import Stack
from modules.runner_identity import RunnerIdentity, github_actions
from modules.vendor import AccountTrust, OidcTrust, Places, Trust
from rotation.errors import DeclarationError
from rotation.model import Strategy
from tests.modules.conftest import aws, only, synthesized

ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:"
GITHUB = github_actions("example/orders", "staging")
ESTATE = Estate(
    keys=(Key("orders"), Key("idle")),
    secrets=(
        Secret(
            "orders/db",
            Credential("postgres_user", reads=("staging/orders/db-admin",)),
            strategy=Strategy.ALTERNATING,
        ),
        Secret("orders/token", Credential("random_token"), strategy=Strategy.OVERLAPPING, key="orders", sealed=True),
    ),
    consumers=(Consumer("orders-api", template=Path("t"), format="yaml", secrets=("orders/db",), signals={}),),
)


def _declare(
    stack: Stack,
    estate: Estate = ESTATE,
    trusts: tuple[Trust, ...] = (GITHUB,),
    state: tuple[str, str] | None = None,
    journal: tuple[str, str] | None = None,
) -> None:
    keys = {key.name: f"arn:{key.name}" for key in estate.keys}
    RunnerIdentity(stack, aws(), estate, keys=keys, places=Places("config", state, journal), trusts=trusts)


def _may(stack: Stack) -> dict[str, dict[str, Any]]:
    policy = json.loads(only(stack, "aws_iam_role_policy")["policy"])
    assert all(statement["Effect"] == "Allow" for statement in policy["Statement"])
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_every_action_stands_on_just_what_it_needs(stack: Stack) -> None:
    _declare(stack, state=("states", "keyturn/application-staging.tfstate"))

    allowed = {
        (action, resource)
        for statement in _may(stack).values()
        for action in _listed(statement["Action"])
        for resource in _listed(statement["Resource"])
    }
    turned = [f"{ARN}staging/orders/db-??????", f"{ARN}staging/orders/token-??????"]
    verbs = ("DescribeSecret", "GetSecretValue", "ListSecretVersionIds", "PutSecretValue", "UpdateSecretVersionStage")
    key_verbs = ("DescribeKey", "GetKeyRotationStatus", "ListKeyRotations", "RotateKeyOnDemand")
    object_verbs = ("GetObject", "GetObjectTagging", "PutObject", "PutObjectTagging")
    state = "arn:aws:s3:::states/keyturn/application-staging.tfstate"
    assert allowed == {
        ("secretsmanager:ListSecrets", "*"),
        *((f"secretsmanager:{verb}", arn) for verb in verbs for arn in turned),
        ("secretsmanager:GetSecretValue", f"{ARN}staging/orders/db-admin-??????"),
        *((f"kms:{verb}", key) for verb in key_verbs for key in ("arn:orders", "arn:idle")),
        ("kms:Decrypt", "arn:orders"),
        ("kms:GenerateDataKey", "arn:orders"),
        ("s3:ListBucket", "arn:aws:s3:::config"),
        *((f"s3:{verb}", "arn:aws:s3:::config/orders-api/*") for verb in object_verbs),
        ("s3:ListBucket", "arn:aws:s3:::states"),
        ("s3:GetObject", state),
        ("s3:PutObject", state),
        *((f"s3:{verb}", f"{state}.tflock") for verb in ("DeleteObject", "GetObject", "PutObject")),
    }


def test_a_secrets_pattern_does_not_cover_another_that_begins_with_its_name(stack: Stack) -> None:
    _declare(stack)

    patterns = _may(stack)["TurnSecrets"]["Resource"]
    assert any(fnmatchcase(f"{ARN}staging/orders/db-a1B2c3", pattern) for pattern in patterns)
    assert not any(fnmatchcase(f"{ARN}staging/orders/db-admin-a1B2c3", pattern) for pattern in patterns)


def test_keys_encrypt_only_for_the_store_or_with_a_secrets_name(stack: Stack) -> None:
    _declare(stack)

    may = _may(stack)
    assert may["EncryptThroughSecretsManager"]["Condition"] == {
        "StringEquals": {"kms:ViaService": "secretsmanager.eu-central-1.amazonaws.com"},
        "StringLike": {"kms:EncryptionContext:SecretARN": f"{ARN}staging/*"},
    }
    assert may["SealValues"]["Condition"] == {
        "StringLike": {"kms:EncryptionContext:keyturn:secret": ["staging/orders/token"]},
    }


def test_buckets_are_listed_only_below_what_is_ours(stack: Stack) -> None:
    _declare(stack, state=("states", "a.tfstate"))

    may = _may(stack)
    assert may["ListConfiguration"]["Condition"] == {"StringLike": {"s3:prefix": ["orders-api/*"]}}
    assert may["ListState"]["Condition"] == {"StringLike": {"s3:prefix": ["a.tfstate", "a.tfstate.tflock", "env:/*"]}}


def test_its_journal_is_its_own_below_a_prefix(stack: Stack) -> None:
    _declare(stack, journal=("states", "journals"))

    may = _may(stack)
    assert may["FindJournal"]["Condition"] == {"StringLike": {"s3:prefix": ["journals/*"]}}
    assert may["KeepJournal"]["Resource"] == "arn:aws:s3:::states/journals/*"


def test_an_estate_too_large_for_a_policy_is_covered_by_its_tag(stack: Stack) -> None:
    secrets = tuple(
        Secret(f"team/secret-{n}", Credential("random_token"), strategy=Strategy.OVERLAPPING, key="k", sealed=True)
        for n in range(1000)
    )
    _declare(stack, Estate(keys=(Key("k"),), secrets=secrets))

    may = _may(stack)
    assert may["TurnSecrets"]["Resource"] == [f"{ARN}staging/*"]
    assert may["TurnSecrets"]["Condition"] == {"StringEquals": {"aws:ResourceTag/keyturn:environment": "staging"}}
    assert may["SealValues"]["Condition"]["StringLike"] == {"kms:EncryptionContext:keyturn:secret": ["staging/*"]}
    assert len(only(stack, "aws_iam_role_policy")["policy"]) < 10_240


@pytest.mark.parametrize("count", [1, 40, 78, 120])
def test_the_policy_fits_into_what_iam_allows_whatever_the_estate(stack: Stack, count: int) -> None:
    secrets = tuple(
        Secret(f"a-team-of-many/secret-{n}", Credential("random_token"), strategy=Strategy.OVERLAPPING)
        for n in range(count)
    )
    _declare(stack, Estate(secrets=secrets), state=("states", "keyturn/application-staging.tfstate"))

    assert len(only(stack, "aws_iam_role_policy")["policy"]) < 10_240


def test_an_empty_estate_may_nothing(stack: Stack) -> None:
    _declare(stack, Estate())

    assert _may(stack) == {}


def test_github_is_trusted_for_one_repository_and_environment(stack: Stack) -> None:
    _declare(stack)

    (statement,) = _trusted(stack)
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Federated": "${aws_iam_openid_connect_provider.oidc-0.arn}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
                "token.actions.githubusercontent.com:sub": "repo:example/orders:environment:staging",
            }
        },
    }
    assert only(stack, "aws_iam_openid_connect_provider")["url"] == "https://token.actions.githubusercontent.com"


def test_any_issuer_can_be_trusted_and_one_that_the_account_has_is_not_declared_again(stack: Stack) -> None:
    gitlab = OidcTrust("https://gitlab.example.com", "aws", {"sub": "project_path:o/r:ref_type:branch:ref:main"}, True)
    _declare(stack, trusts=(gitlab,))

    (statement,) = _trusted(stack)
    assert statement["Principal"] == {"Federated": "arn:aws:iam::111122223333:oidc-provider/gitlab.example.com"}
    assert statement["Condition"]["StringEquals"] == {
        "gitlab.example.com:aud": "aws",
        "gitlab.example.com:sub": "project_path:o/r:ref_type:branch:ref:main",
    }
    assert "aws_iam_openid_connect_provider" not in synthesized(stack)["resource"]


def test_the_account_itself_can_be_trusted(stack: Stack) -> None:
    _declare(stack, trusts=(AccountTrust(),))

    (statement,) = _trusted(stack)
    assert statement["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}


@pytest.mark.parametrize(
    ("trust", "says"),
    [
        (OidcTrust("https://ci.example.com", "aws", {}), "without a subject of its own"),
        (OidcTrust("https://ci.example.com", "aws", {"sub": "repo:*"}), "without a subject of its own"),
        (OidcTrust("ci.example.com", "aws", {"sub": "a"}), "is not an https:// address"),
    ],
)
def test_a_trust_in_anyone_is_refused(stack: Stack, trust: OidcTrust, says: str) -> None:
    with pytest.raises(DeclarationError, match=r"test_runner_identity\.py:\d+: secrets-staging/runner") as caught:
        _declare(stack, trusts=(trust,))

    assert says in str(caught.value)


def _trusted(stack: Stack) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads(only(stack, "aws_iam_role")["assume_role_policy"])["Statement"]
    return statements


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
