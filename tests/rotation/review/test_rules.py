from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rotation.review.policies import Policy, parse
from rotation.review.rules import BUILT_IN, judge
from tests.rotation.review.plans import allow, change, policy, review_document

SECRET, KEY = "aws_secretsmanager_secret.orders", "aws_kms_key.orders"
READER, OTHER = "arn:aws:iam::1:role/reader", "arn:aws:iam::1:role/other"


def _said(document: Any) -> list[tuple[str, str, str]]:
    return [(f.verdict.value, f.rule, f.message) for f in judge(BUILT_IN, document)]


READ_BY = {
    name: policy(allow("secretsmanager:GetSecretValue", {"AWS": names}))
    for name, names in {"one": READER, "two": [READER, OTHER], "all": "*"}.items()
}
NOT_ACTION = policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})


@pytest.mark.parametrize(
    ("resource", "verdict", "rule", "said"),
    [
        (change(SECRET, "delete", {"name": "x"}), "refuse", "secret-deleted", "deletes the secret"),
        (
            change(SECRET, "delete/create", {"name": "x"}, {"name": "y"}),
            "refuse",
            "secret-deleted",
            "replaces the secret",
        ),
        (
            change(SECRET, "create/delete", {"name": "x"}, {"name": "y"}),
            "refuse",
            "secret-deleted",
            "replaces the secret",
        ),
        (change(SECRET, "forget", {"name": "x"}), "warn", "secret-deleted", "forgets the secret"),
        (change(KEY, "delete", {"a": 1}), "refuse", "key-deleted", "deletes the key"),
        (change(KEY, "delete/create", {"a": 1}, {"a": 2}), "refuse", "key-deleted", "replaces the key"),
        (change("aws_s3_bucket.state", "delete", {"a": 1}), "refuse", "place-deleted", "state or configuration"),
        (
            change(SECRET, "update", {"recovery_window_in_days": 30}, {"recovery_window_in_days": 0}),
            "refuse",
            "recovery-window",
            "recovery_window_in_days is 0",
        ),
        (
            change(SECRET, "create", None, {"recovery_window_in_days": 0}),
            "refuse",
            "recovery-window",
            "recovery_window_in_days is 0",
        ),
        (
            change(SECRET, "update", {"recovery_window_in_days": None}, {"recovery_window_in_days": 7}),
            "warn",
            "recovery-window",
            "from 30 to 7 days",
        ),
        (
            change(KEY, "update", {"deletion_window_in_days": 30}, {"deletion_window_in_days": 7}),
            "warn",
            "recovery-window",
            "deletion_window_in_days is shortened from 30 to 7 days",
        ),
        (
            change(KEY, "update", {"is_enabled": True}, {"is_enabled": False}),
            "refuse",
            "key-disabled",
            "disables the key",
        ),
        (
            change(KEY, "update", {"enable_key_rotation": True}, {"enable_key_rotation": False}),
            "warn",
            "key-disabled",
            "the key's own rotation is off",
        ),
        (
            change("aws_secretsmanager_secret_version.v", "create", None, {"secret_string": "s"}),
            "refuse",
            "value-in-state",
            "its value would be kept in state",
        ),
        (change("random_password.p", "create", None, {"length": 9}), "refuse", "value-in-state", "makes a value"),
        (
            change("data.aws_secretsmanager_secret_version.v", "read", None, {"id": "x"}),
            "refuse",
            "value-in-state",
            "what it reads is kept in state",
        ),
        (
            change("aws_db_instance.d", "create", None, {"password": "canary"}),
            "refuse",
            "value-in-state",
            "password would be kept",
        ),
        (
            change("some_thing.d", "update", {"token": "a"}, {"token": "b"}, sensitive={"token": True}),
            "refuse",
            "value-in-state",
            "token would be kept in state",
        ),
        (
            change("some_thing.d", "create", None, {}, unknown={"made": True}, sensitive={"made": True}),
            "refuse",
            "value-in-state",
            "made would be kept in state",
        ),
        (
            change(SECRET, "update", {"policy": READ_BY["one"]}, {"policy": READ_BY["all"]}),
            "refuse",
            "policy-open",
            "policy allows secretsmanager:GetSecretValue to everyone",
        ),
        (change(SECRET, "create", None, {"policy": READ_BY["all"]}), "refuse", "policy-open", "to everyone"),
        (
            change("aws_iam_policy.p", "create", None, {"policy": policy(allow("*"))}),
            "refuse",
            "policy-open",
            "policy allows * on *",
        ),
        (
            change(SECRET, "update", {"policy": READ_BY["one"]}, {"policy": READ_BY["two"]}),
            "warn",
            "policy-widened",
            f"policy newly allows secretsmanager:GetSecretValue to {OTHER}",
        ),
        (
            change(
                "aws_iam_role.r",
                "update",
                {"assume_role_policy": READ_BY["one"]},
                {"assume_role_policy": READ_BY["two"]},
            ),
            "warn",
            "policy-widened",
            "assume_role_policy newly allows",
        ),
        (
            change(
                "aws_iam_role_policy.r", "create", None, {"policy": policy(allow(["kms:Decrypt"], resource="arn:k"))}
            ),
            "warn",
            "policy-widened",
            "policy newly allows kms:Decrypt on arn:k",
        ),
        (
            change("aws_iam_role_policy.r", "create", None, {}, unknown={"policy": True}),
            "warn",
            "policy-unknown",
            "known only after apply",
        ),
        (
            change("aws_iam_policy.p", "update", {"policy": policy()}, {"policy": NOT_ACTION}),
            "warn",
            "policy-widened",
            "NotAction",
        ),
        (
            change("some_thing.new", "no-op", {}, {}, previous_address="some_thing.old"),
            "warn",
            "unusual-action",
            "address",
        ),
    ],
)
def test_what_a_reviewer_must_see_is_found(
    tmp_path: Path, resource: dict[str, Any], verdict: str, rule: str, said: str
) -> None:
    found = _said(review_document(tmp_path, resource))
    assert [(v, r) for v, r, message in found if said in message] == [(verdict, rule)], found
    assert {r for _, r, _ in found} == {rule}


@pytest.mark.parametrize(
    "resource",
    [
        change(SECRET, "create", None, {"name": "x", "recovery_window_in_days": 30, "policy": READ_BY["one"]}),
        change(SECRET, "update", {"policy": READ_BY["two"]}, {"policy": READ_BY["one"]}),
        change(SECRET, "update", {"description": "a"}, {"description": "b"}),
        change(SECRET, "update", {"recovery_window_in_days": 7}, {"recovery_window_in_days": 30}),
        change(KEY, "create", None, {"is_enabled": True, "enable_key_rotation": True, "deletion_window_in_days": 7}),
        change(
            "terraform_data.pins-orders-api-canary",
            "update",
            {"input": {"orders/db": 41}},
            {"input": {"orders/db": 42}},
        ),
        change(
            "aws_db_instance.d", "create", None, {"password": None, "secret_string": ""}, sensitive={"password": True}
        ),
        change("aws_db_instance.d", "delete", {"password": "canary"}),
        change("aws_s3_bucket_object.config", "delete", {"key": "x"}),
    ],
)
def test_what_is_usual_is_not_objected_to(tmp_path: Path, resource: dict[str, Any]) -> None:
    assert _said(review_document(tmp_path, resource)) == []


def test_a_window_of_no_days_is_for_the_embedded_environment(tmp_path: Path) -> None:
    resource = change(SECRET, "create", None, {"recovery_window_in_days": 0})
    assert _said(review_document(tmp_path, resource, embedded=True)) == []


def test_a_sensitive_output_is_refused_but_a_reference_of_another_stack_is_only_warned_of(tmp_path: Path) -> None:
    output = {"actions": ["create"], "before": None, "after": "canary", "after_sensitive": True}
    outputs = {"told": output, "cross-stack-output-arn": output}
    found = _said(review_document(tmp_path, outputs=outputs))
    assert [(verdict, rule) for verdict, rule, _ in found] == [("refuse", "value-in-state"), ("warn", "value-in-state")]


def _policy(*statements: dict[str, Any]) -> Policy:
    parsed = parse(policy(*statements))
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("before", "after", "widens"),
    [
        (allow("s3:*", resource="*"), allow("s3:GetObject", resource="arn:b"), False),
        (allow("s3:Get*", resource="arn:*"), allow("s3:GetObject", resource="arn:b"), False),
        (allow("s3:GetObject"), allow("S3:getobject"), False),
        (allow("s3:GetObject"), allow("s3:Get*"), True),
        (allow("s3:GetObject", resource="arn:a"), allow("s3:GetObject", resource="arn:b"), True),
        (allow("s3:GetObject"), allow("s3:GetObject", Condition={"Bool": {"x": "true"}}), False),
        (allow("s3:GetObject", Condition={"Bool": {"x": "true"}}), allow("s3:GetObject"), True),
        (allow("s3:GetObject", "*"), allow("s3:GetObject", {"AWS": READER}), False),
        (allow("s3:GetObject", {"AWS": READER}), allow("s3:GetObject", {"Service": "lambda"}), True),
        (allow("s3:GetObject", {"AWS": READER}), allow("s3:GetObject", {"AWS": [READER]}), False),
    ],
)
def test_a_policy_is_wider_when_it_allows_what_the_other_did_not(
    before: dict[str, Any], after: dict[str, Any], widens: bool
) -> None:
    assert bool(_policy(after).beyond(_policy(before))) is widens


def test_a_denial_that_is_taken_away_widens(tmp_path: Path) -> None:
    denied = policy({"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"})
    found = _said(review_document(tmp_path, change(KEY, "update", {"policy": denied}, {"policy": policy()})))
    assert found == [("warn", "policy-widened", "policy no longer denies kms:Decrypt to everyone")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"Statement": 3}', "{" * 5_000, '{"Statement": [3]}'])
def test_other_texts_are_no_policies(text: str) -> None:
    parsed = parse(text)
    assert parsed is None or parsed == Policy()


def test_large_policies_are_compared_in_no_time() -> None:
    before = _policy(
        *(allow(["s3:GetObject", "s3:Put*"], {"AWS": READER}, f"arn:aws:s3:::b/{n}/*") for n in range(400))
    )
    after = _policy(*(allow(["s3:GetObject"], {"AWS": READER}, f"arn:aws:s3:::c/{n}/x") for n in range(400)))
    assert len(after.beyond(before)) == 400
