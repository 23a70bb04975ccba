"""Policies of Tencent Cloud's CAM, as plain data. https://www.tencentcloud.com/document/product/598/10604

A resource has six parts, `qcs::service:region:account:resource`; the last part of a secret or a key names who made it.
https://www.tencentcloud.com/document/product/598/57154 and 57129 list, for SSM and KMS, which actions take a resource.
Lists are lists even of one: Terraform's provider takes no plain text there, nor the account as `root`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Statement = dict[str, Any]

# A policy may hold 6,144 characters, and a role 200 policies: https://www.tencentcloud.com/document/product/598/10609
# Some is left over, for expressions can become longer once Terraform has resolved them.
_ROOM = 5_000
_OF_A_LIST = 3_500  # characters of the resources in one statement


def documents(statements: Iterable[Statement]) -> list[str]:
    """The statements, each once, as policies in JSON: as few as hold them in this order."""
    packed: list[list[Statement]] = []
    for statement in statements:
        if any(statement in together for together in packed):
            continue
        if packed and len(document([*packed[-1], statement])) <= _ROOM:
            packed[-1].append(statement)
        else:
            packed.append([statement])
    return [document(together) for together in packed]


def document(statements: Iterable[Statement]) -> str:
    return json.dumps({"version": "2.0", "statement": list(statements)}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Account:
    """How resources of one account in one region are written. ``uin`` is the root account's number, ``creator`` that of
    the account that makes secrets and keys, ``app_id`` the one in the names of buckets."""

    region: str
    uin: str
    creator: str
    app_id: str | None

    def secret(self, name: str) -> str:
        return f"qcs::ssm:{self.region}:uin/{self.uin}:secret/creatorUin/{self.creator}/{name}"

    def key(self, identifier: str) -> str:
        return f"qcs::kms:{self.region}:uin/{self.uin}:key/creatorUin/{self.creator}/{identifier}"

    def keys(self) -> str:
        """All keys, for the actions that are given for all of an account or not at all."""
        return f"qcs::kms:{self.region}:uin/{self.uin}:key/*"

    def user(self, uin: str) -> str:
        return f"qcs::cam::uin/{self.uin}:uin/{uin}"

    def objects(self, bucket: str, path: str) -> str:
        return f"qcs::cos:{self.region}:uid/{self.app_id}:{bucket}/{path}"


def _may(actions: Sequence[str], resources: Iterable[str]) -> list[Statement]:
    """These actions on these resources, in statements that each fit into a policy."""
    lists: list[list[str]] = []
    for resource in resources:
        if not lists or sum(len(other) + 3 for other in lists[-1]) + len(resource) > _OF_A_LIST:
            lists.append([])
        lists[-1].append(resource)
    return [{"effect": "allow", "action": list(actions), "resource": each} for each in lists]


def read_secrets(secrets: Sequence[str]) -> list[Statement]:
    return _may(["ssm:GetSecretValue"], secrets)


def look_at_secrets(secrets: Sequence[str]) -> list[Statement]:
    """Whether they are due. SSM has no labels: which version is current is read off the values."""
    return _may(["ssm:GetSecretValue", "ssm:ListSecretVersionIds"], secrets)


def turn_secrets(secrets: Sequence[str]) -> list[Statement]:
    """What rotation/stores/tencent_ssm.py calls. Neither the secret itself nor its state can be changed."""
    return _may(
        [
            "ssm:DeleteSecretVersion",
            "ssm:GetSecretValue",
            "ssm:ListSecretVersionIds",
            "ssm:PutSecretValue",
            "ssm:UpdateSecret",
        ],
        secrets,
    )


def turn_products(secrets: Sequence[str]) -> list[Statement]:
    """What rotation/credentials/tencent_product_secret.py needs of the secrets that SSM makes itself."""
    looks = ["ssm:DescribeRotationDetail", "ssm:DescribeRotationHistory", "ssm:GetSecretValue"]
    return [
        *_may([*looks, "ssm:RotateProductSecret"], secrets),
        *_may(["ssm:DescribeAsyncRequestInfo"], ["*"]),
    ]


def turn_access_keys(users: Sequence[str]) -> list[Statement]:
    """What rotation/credentials/tencent_cam_key.py needs of the users whose keys it turns."""
    return _may(
        [
            "cam:CreateAccessKey",
            "cam:DeleteAccessKey",
            "cam:GetSecurityLastUsed",
            "cam:GetUser",
            "cam:ListAccessKeys",
            "cam:UpdateAccessKey",
            "cam:UpdateUser",
        ],
        users,
    )


def turn_keys(account: Account, keys: Sequence[str]) -> list[Statement]:
    """To rotate keys, and to wrap anew what they have wrapped (rotation/keys/tencent_kms.py)."""
    return _with_keys(account, ["kms:ReEncrypt", "kms:RotateKey"], keys)


def seal_values(account: Account, keys: Sequence[str]) -> list[Statement]:
    """Data keys, and what opens them."""
    return _with_keys(account, ["kms:Decrypt", "kms:GenerateDataKey"], keys)


def _with_keys(account: Account, actions: Sequence[str], keys: Sequence[str]) -> list[Statement]:
    """A key is found by its alias, in the list of all."""
    return _may(["kms:ListKeyDetail"], [account.keys()]) + _may(actions, keys) if keys else []


def open_sealed(key: str) -> list[Statement]:
    return _may(["kms:Decrypt"], [key])


def put_configuration(objects: Sequence[str]) -> list[Statement]:
    """What the provider calls for configuration objects. Nothing is deleted: a rotation only changes them."""
    return _may(
        [
            "cos:GetObject",
            "cos:GetObjectACL",
            "cos:GetObjectTagging",
            "cos:HeadObject",
            "cos:PutObject",
            "cos:PutObjectTagging",
        ],
        objects,
    )


def keep_state(bucket: str, state: str) -> list[Statement]:
    """The application stack's state and its lock file; only the lock is ever deleted. A tag of the account's keeps two
    from writing the lock at once. https://developer.hashicorp.com/terraform/language/backend/cos"""
    return [
        *_may(["cos:GetBucket"], [bucket]),
        *_may(["cos:GetObject", "cos:HeadObject", "cos:PutObject"], [state, f"{state}.tflock"]),
        *_may(["cos:DeleteObject"], [f"{state}.tflock"]),
        *_may(["tag:CreateTag", "tag:DeleteTag", "tag:DescribeTags"], ["*"]),
    ]


def keep_journal(objects: str) -> list[Statement]:
    """What rotation/buckets/cos.py calls for the journal, the lease, and what lies beside them. A list is allowed by
    the prefix that it asks for: https://www.tencentcloud.com/document/product/598/57092"""
    actions = ["cos:DeleteObject", "cos:GetBucket", "cos:GetObject", "cos:HeadObject", "cos:PutObject"]
    return _may(actions, [objects])


def trust_account(uin: str) -> Statement:
    return {
        "effect": "allow",
        "action": ["name/sts:AssumeRole"],
        "principal": {"qcs": [f"qcs::cam::uin/{uin}:uin/{uin}"]},
    }


def trust_service(name: str) -> Statement:
    return {"effect": "allow", "action": ["name/sts:AssumeRole"], "principal": {"service": [name]}}


def trust_oidc(uin: str, provider: str, issuer: str, audience: str, subject: str) -> Statement:
    """Jobs whose token comes from this issuer, was made for this audience, and is of this subject: CAM looks at no
    other claim. https://www.tencentcloud.com/document/product/598/47191"""
    return {
        "effect": "allow",
        "action": ["name/sts:AssumeRoleWithWebIdentity"],
        "principal": {"federated": [f"qcs::cam::uin/{uin}:oidc-provider/{provider}"]},
        "condition": {"string_equal": {"oidc:iss": [issuer], "oidc:aud": [audience], "oidc:sub": [subject]}},
    }
