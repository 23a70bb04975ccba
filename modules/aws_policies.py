"""AWS's policy documents, as plain data. https://docs.aws.amazon.com/service-authorization/latest/reference/ lists, for
Secrets Manager, KMS and S3, which actions take which resources and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Statement = dict[str, Any]

# Secrets Manager puts six random characters behind a secret's name; `?` stands for one character each, so that
# "orders/db" does not also cover "orders/db-admin".
SUFFIX = "-??????"
ENVIRONMENT_TAG = "keyturn:environment"

# What one role's inline policies may hold is 10,240 characters, so a list in one of them gets this many.
_ROOM = 6_000


def document(statements: Iterable[Statement]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


@dataclass(frozen=True, slots=True)
class Scope:
    """Some secrets of an account by the patterns of their ARNs, under a condition that can be empty."""

    arns: tuple[str, ...]
    condition: Mapping[str, Any]

    @classmethod
    def of(cls, names: Sequence[str], environment: str, prefix: str) -> Scope:
        """Just these secrets while their list fits into a role's policy (about 80 of them). Beyond that, all of the
        environment by its prefix and by the tag that every slot carries: what somebody else puts there stays out of
        reach."""
        arns = tuple(f"{prefix}{name}{SUFFIX}" for name in names)
        if _fits(arns):
            return cls(arns, {})
        tag = {"StringEquals": {f"aws:ResourceTag/{ENVIRONMENT_TAG}": environment}}
        return cls((f"{prefix}{environment}/*",), tag)


def _fits(items: Sequence[str], room: int = _ROOM) -> bool:
    return sum(len(item) + 3 for item in items) <= room


def find_secrets() -> Statement:
    """ListSecrets takes no resource: AWS gives it for all of an account or not at all. It shows names, labels and
    dates, never a value; it is what lets one call observe a hundred secrets."""
    return {"Sid": "FindSecrets", "Effect": "Allow", "Action": "secretsmanager:ListSecrets", "Resource": "*"}


def turn_secrets(scope: Scope) -> Statement:
    statement: Statement = {
        "Sid": "TurnSecrets",
        "Effect": "Allow",
        "Action": [
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:ListSecretVersionIds",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
        ],
        "Resource": list(scope.arns),
    }
    return statement | ({"Condition": dict(scope.condition)} if scope.condition else {})


def look_at_secrets(scope: Scope) -> Statement:
    """Names, labels and dates of secrets, to know whether they are due; never a value."""
    statement: Statement = {
        "Sid": "LookAtSecrets",
        "Effect": "Allow",
        "Action": "secretsmanager:DescribeSecret",
        "Resource": list(scope.arns),
    }
    return statement | ({"Condition": dict(scope.condition)} if scope.condition else {})


def read_administrators(arns: Sequence[str]) -> Statement:
    return {
        "Sid": "ReadAdministrators",
        "Effect": "Allow",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": list(arns),
    }


def turn_keys(keys: Sequence[str]) -> Statement:
    return {
        "Sid": "TurnKeys",
        "Effect": "Allow",
        "Action": [
            "kms:DescribeKey",
            "kms:GetKeyRotationStatus",
            "kms:ListKeyRotations",
            "kms:RotateKeyOnDemand",
        ],
        "Resource": list(keys),
    }


def encrypt_through_store(keys: Sequence[str], region: str, secrets: str) -> Statement:
    """Secrets Manager encrypts on behalf of the caller, with the secret's ARN as encryption context. Which secrets the
    caller reaches through it is for the other statements to say; this keeps to the environment's."""
    return {
        "Sid": "EncryptThroughSecretsManager",
        "Effect": "Allow",
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": list(keys),
        "Condition": {
            "StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"},
            "StringLike": {"kms:EncryptionContext:SecretARN": secrets},
        },
    }


def seal_values(keys: Sequence[str], names: Sequence[str], environment: str) -> Statement:
    """Data keys of sealed values, whose encryption context names the secret: no other data can be unwrapped."""
    exact = list(names) if _fits(names, 1_500) else [f"{environment}/*"]
    return {
        "Sid": "SealValues",
        "Effect": "Allow",
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": list(keys),
        "Condition": {"StringLike": {"kms:EncryptionContext:keyturn:secret": exact}},
    }


def put_configuration(bucket: str, consumers: Sequence[str]) -> list[Statement]:
    """What the AWS provider calls for the configuration objects. Nothing is deleted: a rotation only changes them."""
    return [
        _list_bucket("ListConfiguration", bucket, [f"{consumer}/*" for consumer in consumers]),
        {
            "Sid": "PutConfiguration",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectTagging", "s3:PutObject", "s3:PutObjectTagging"],
            "Resource": [f"arn:aws:s3:::{bucket}/{consumer}/*" for consumer in consumers],
        },
    ]


def keep_state(bucket: str, key: str) -> list[Statement]:
    """The application stack's state and its lock file; only the lock is ever deleted. `terraform init` looks for other
    workspaces, below "env:/", even where there are none.
    https://developer.hashicorp.com/terraform/language/backend/s3#s3-bucket-permissions"""
    return [
        _list_bucket("ListState", bucket, [key, f"{key}.tflock", "env:/*"]),
        {
            "Sid": "KeepState",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": f"arn:aws:s3:::{bucket}/{key}",
        },
        {
            "Sid": "LockState",
            "Effect": "Allow",
            "Action": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            "Resource": f"arn:aws:s3:::{bucket}/{key}.tflock",
        },
    ]


def keep_journal(bucket: str, prefix: str) -> list[Statement]:
    """The journal with what lies beside it, and the lease, which is deleted when it ends."""
    return [
        _list_bucket("FindJournal", bucket, [f"{prefix}/*"]),
        {
            "Sid": "KeepJournal",
            "Effect": "Allow",
            "Action": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            "Resource": f"arn:aws:s3:::{bucket}/{prefix}/*",
        },
    ]


def write_log(group: str) -> Statement:
    return {
        "Sid": "WriteLog",
        "Effect": "Allow",
        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": f"{group}:*",
    }


def join_network() -> Statement:
    """What Lambda does with the function's role to place it in a network; it takes no resource before that.
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions"""
    return {
        "Sid": "JoinNetwork",
        "Effect": "Allow",
        "Action": [
            "ec2:AssignPrivateIpAddresses",
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:UnassignPrivateIpAddresses",
        ],
        "Resource": "*",
    }


def _list_bucket(sid: str, bucket: str, prefixes: Sequence[str]) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": f"arn:aws:s3:::{bucket}",
        "Condition": {"StringLike": {"s3:prefix": list(prefixes)}},
    }


def read_secret(readers: Sequence[str]) -> dict[str, Any]:
    """A secret's resource policy: who may read it beside those whom their own policies let."""
    return document(
        [
            {
                "Sid": "Readers",
                "Effect": "Allow",
                "Principal": {"AWS": list(readers)},
                "Action": "secretsmanager:GetSecretValue",
                "Resource": "*",  # in a resource policy: this secret
            }
        ]
    )


def own_key(account: str, region: str, environment: str, readers: Sequence[str]) -> dict[str, Any]:
    """A key's policy: the account administers it through its own policies, without which a key can become
    unmanageable; readers decrypt values of this environment's secrets, through the store or from an envelope."""
    statements: list[Statement] = [
        {
            "Sid": "AccountAdministers",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
            "Action": "kms:*",
            "Resource": "*",  # in a key's policy: this key
        }
    ]
    if readers:
        readable: Statement = {
            "Effect": "Allow",
            "Principal": {"AWS": list(readers)},
            "Action": "kms:Decrypt",
            "Resource": "*",
        }
        store = {"StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}}
        envelope = {"StringLike": {"kms:EncryptionContext:keyturn:secret": f"{environment}/*"}}
        statements.append({"Sid": "ReadersThroughSecretsManager", **readable, "Condition": store})
        statements.append({"Sid": "ReadersOfSealedValues", **readable, "Condition": envelope})
    return document(statements)


def trust_account(account: str) -> Statement:
    return {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "sts:AssumeRole",
    }


def trust_service(name: str) -> Statement:
    return {"Effect": "Allow", "Principal": {"Service": name}, "Action": "sts:AssumeRole"}


def trust_oidc(provider_arn: str, host: str, audience: str, claims: Mapping[str, str]) -> Statement:
    """Jobs whose token comes from this issuer, was made for this audience, and carries these claims exactly."""
    wanted = {f"{host}:aud": audience} | {f"{host}:{claim}": value for claim, value in claims.items()}
    return {
        "Effect": "Allow",
        "Principal": {"Federated": provider_arn},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": wanted},
    }
