"""A slot has a policy, tags and a recovery window, and never a version."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from modules.declarations import Credential, Pace, Secret
from modules.managed_secret import ManagedSecret
from modules.resource import Stack
from rotation.errors import DeclarationError
from rotation.model import Strategy
from tests.modules.conftest import NEW, OLD, aws, only, synthesized

PACE = Pace(*(timedelta(minutes=minutes) for minutes in (1, 2, 3, 4)))
READER = "arn:aws:iam::111122223333:role/orders-api"


def _managed(stack: Stack, **arguments: Any) -> ManagedSecret:
    declared: dict[str, Any] = {"strategy": Strategy.OVERLAPPING, **arguments}
    secret = Secret(declared.pop("name", "orders/db"), Credential("random_token", {"length": 43}), **declared)
    return ManagedSecret(stack, aws(), secret, pace=PACE, recovery_days=7)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_slot_is_declared_whole_and_without_a_version(make_stack: Callable[..., Stack], version: str) -> None:
    stack = make_stack(version)
    _managed(stack, description="login", key="orders", readers=(READER,), tags={"team": "orders"})

    assert set(synthesized(stack)["resource"]) == {"aws_secretsmanager_secret"}
    slot = only(stack, "aws_secretsmanager_secret")
    assert json.loads(slot.pop("policy"))["Statement"] == [
        {
            "Sid": "Readers",
            "Effect": "Allow",
            "Principal": {"AWS": [READER]},
            "Action": "secretsmanager:GetSecretValue",
            "Resource": "*",
        }
    ]
    assert slot == {
        "name": "staging/orders/db",
        "description": "login",
        "kms_key_id": "arn:aws:kms:eu-central-1:111122223333:alias/keyturn-staging-orders",
        "recovery_window_in_days": 7,
        "tags": {"team": "orders", "keyturn:environment": "staging"},
    }


def test_the_manifest_gets_the_environments_pace_or_the_secrets_own(stack: Stack) -> None:
    own = Pace(*(timedelta(hours=hours) for hours in (1, 2, 3, 4)))

    ours = _managed(stack).declared
    its = _managed(stack, name="other", pace=own).declared

    assert (ours.bake, ours.settle, ours.patience, ours.grace) == (PACE.bake, PACE.settle, PACE.patience, PACE.grace)
    assert (its.bake, its.settle, its.patience, its.grace) == (own.bake, own.settle, own.patience, own.grace)
    assert ours.stored_as == "staging/orders/db"
    assert ours.store.model_dump() == {"kind": "aws_secrets_manager", "options": {"region": "eu-central-1"}}
    assert ours.credential.model_dump() == {"kind": "random_token", "options": {"length": 43}}


def test_the_single_strategy_is_warned_of_and_not_fatal(stack: Stack) -> None:
    _managed(stack, strategy=Strategy.SINGLE)

    (warning,) = stack.warnings
    assert "orders/db has the strategy single" in warning
    assert "dead credential" in warning
    assert warning.startswith("tests/modules/test_managed_secret.py:")
    assert only(stack, "aws_secretsmanager_secret")["name"] == "staging/orders/db"


def test_other_strategies_are_not_warned_of(stack: Stack) -> None:
    _managed(stack)

    assert stack.warnings == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "Orders DB"}, "the secret Orders DB: name: String should match"),
        ({"sealed": True}, "orders/db is sealed, and names no key to seal it with"),
        ({"pace": Pace(timedelta(-1), *(timedelta(1),) * 3)}, "bake: a duration is not negative"),
    ],
)
def test_what_the_manifest_would_refuse_names_its_line(stack: Stack, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        _managed(stack, **arguments)

    assert says in str(caught.value)
    assert str(caught.value).startswith("tests/modules/test_managed_secret.py:")
