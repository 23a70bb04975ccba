"""A key with its alias, its own renewal, its deletion window and its policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modules.declarations import Key
from modules.encryption_key import EncryptionKey
from modules.resource import Stack
from rotation.errors import DeclarationError
from tests.modules.conftest import NEW, OLD, aws, only

READER = "arn:aws:iam::111122223333:role/orders-api"


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_key_renews_itself_and_can_be_brought_back(make_stack: Callable[..., Stack], version: str) -> None:
    stack = make_stack(version)
    key = EncryptionKey(stack, aws(version), Key("orders"), deletion_days=30)

    declared = only(stack, "aws_kms_key")
    assert declared["enable_key_rotation"] is True
    assert declared["deletion_window_in_days"] == 30
    assert only(stack, "aws_kms_alias") == {
        "name": "alias/keyturn-staging-orders",
        "target_key_id": "${aws_kms_key.key-orders.key_id}",
    }
    assert key.declared.reference == "alias/keyturn-staging-orders"
    assert key.declared.service.model_dump() == {"kind": "aws_kms", "options": {"region": "eu-central-1"}}


def test_another_period_is_passed_on_where_the_provider_has_it(stack: Stack) -> None:
    EncryptionKey(stack, aws(), Key("orders", native_days=90), deletion_days=30)

    assert only(stack, "aws_kms_key")["rotation_period_in_days"] == 90


def test_another_period_is_refused_where_the_provider_has_it_not(make_stack: Callable[..., Stack]) -> None:
    with pytest.raises(DeclarationError, match=r"test_encryption_key\.py:\d+: .*no argument rotation_period_in_days"):
        EncryptionKey(make_stack(OLD), aws(OLD), Key("orders", native_days=90), deletion_days=30)


def test_without_readers_only_the_account_is_in_the_policy(stack: Stack) -> None:
    EncryptionKey(stack, aws(), Key("orders"), deletion_days=30)

    (statement,) = _policy(stack)
    assert statement["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}


def test_readers_may_only_decrypt_and_only_values_of_this_environment(stack: Stack) -> None:
    EncryptionKey(stack, aws(), Key("orders"), deletion_days=30, readers=(READER,))

    _, through_store, sealed = _policy(stack)
    for statement in (through_store, sealed):
        assert statement["Action"] == "kms:Decrypt"
        assert statement["Principal"] == {"AWS": [READER]}
    assert through_store["Condition"] == {
        "StringEquals": {"kms:ViaService": "secretsmanager.eu-central-1.amazonaws.com"},
    }
    assert sealed["Condition"] == {"StringLike": {"kms:EncryptionContext:keyturn:secret": "staging/*"}}


def _policy(stack: Stack) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads(only(stack, "aws_kms_key")["policy"])["Statement"]
    return statements
