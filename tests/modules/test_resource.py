"""Arguments are checked where they are declared, against the provider version that the environment pins."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modules.resource import Provider, Resource, Stack, address, literal
from modules.schema import Schema
from rotation.errors import DeclarationError
from tests.modules.conftest import NEW, OLD, bare_stack, only, synthesized

KEY, SECRET, BUCKET, RULE = "aws_kms_key", "aws_secretsmanager_secret", "aws_s3_bucket", "aws_cloudwatch_metric_alarm"

REFUSED: list[tuple[str, str, str, Mapping[str, Any], str]] = [
    ("an unknown argument", NEW, SECRET, {"nam": "x"}, "there is no argument nam; did you mean name?"),
    ("an unknown argument like no other", NEW, SECRET, {"zzz": "x"}, "there is no argument zzz"),
    (
        "an argument of a later version",
        OLD,
        KEY,
        {"rotation_period_in_days": 90},
        "no argument rotation_period_in_days",
    ),
    ("a missing argument", NEW, "aws_kms_alias", {"name": "alias/x"}, "the argument target_key_id is missing"),
    ("a required argument that is None", NEW, "aws_kms_alias", {"target_key_id": None}, "target_key_id is missing"),
    (
        "text for a number",
        NEW,
        KEY,
        {"deletion_window_in_days": "7"},
        "deletion_window_in_days must be number, not str",
    ),
    ("a flag for a number", NEW, KEY, {"deletion_window_in_days": True}, "must be number, not bool"),
    ("a number for text", NEW, KEY, {"description": 7}, "description must be string, not int"),
    ("text for a flag", NEW, KEY, {"is_enabled": "yes"}, "is_enabled must be bool, not str"),
    ("text for a map", NEW, KEY, {"tags": "a=b"}, "tags must be map(string), not str"),
    ("a map of numbers for one of texts", NEW, KEY, {"tags": {"a": 1}}, 'tags["a"] must be string, not int'),
    ("a list for a map", NEW, KEY, {"tags": ["a"]}, "tags must be map(string), not list"),
    (
        "text for a list",
        NEW,
        "aws_iam_openid_connect_provider",
        {"url": "https://x", "client_id_list": "x"},
        "client_id_list must be list(string), not str",
    ),
    ("an argument that the provider computes", OLD, KEY, {"arn": "x"}, "arn is computed by the provider"),
    ("text for a block", OLD, BUCKET, {"versioning": "on"}, "versioning is a block: give it a mapping"),
    ("a block too many", OLD, BUCKET, {"versioning": [{}, {}]}, "at most 1 of the block versioning, and there are 2"),
    (
        "a single block twice",
        NEW,
        "aws_s3_bucket_versioning",
        {"bucket": "b", "versioning_configuration": [{"status": "a"}, {"status": "b"}]},
        "at most 1 of the block versioning_configuration",
    ),
    (
        "a missing block",
        NEW,
        "aws_s3_bucket_versioning",
        {"bucket": "b"},
        "the block versioning_configuration is missing",
    ),
    (
        "too few of a block",
        OLD,
        BUCKET,
        {"replication_configuration": {"role": "r", "rules": []}},
        "at least 1 of the block replication_configuration.rules, and there are 0",
    ),
    (
        "a wrong argument in a block",
        OLD,
        BUCKET,
        {"lifecycle_rule": [{"enabled": True, "expiration": {"dys": 3}}]},
        "no argument lifecycle_rule.expiration.dys; did you mean days?",
    ),
    (
        "a missing argument in a block",
        OLD,
        BUCKET,
        {"lifecycle_rule": {"prefix": "x"}},
        "the argument lifecycle_rule.enabled is missing",
    ),
]


@pytest.mark.parametrize(
    ("version", "kind", "arguments", "says"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refused_with_the_line_the_construct_and_the_argument(
    make_stack: Callable[..., Stack], version: str, kind: str, arguments: Mapping[str, Any], says: str
) -> None:
    stack = make_stack(version)

    with pytest.raises(DeclarationError) as caught:
        Resource(stack, "orders/db", kind, arguments)

    text = str(caught.value)
    assert says in text
    assert re.match(r"tests/modules/test_resource\.py:\d+: secrets-staging/orders--db \(" + kind + r"\): ", text)
    line = int(text.split(":")[1])
    assert "Resource(stack," in Path(__file__).read_text(encoding="utf-8").splitlines()[line - 1]


def test_all_that_is_wrong_is_said_at_once(stack: Stack) -> None:
    with pytest.raises(DeclarationError, match=r"no argument nme; .*; the argument target_key_id is missing"):
        Resource(stack, "a", "aws_kms_alias", {"nme": "x"})


def test_an_error_never_quotes_what_was_given(stack: Stack) -> None:
    with pytest.raises(DeclarationError) as caught:
        Resource(stack, "a", KEY, {"is_enabled": "correct-horse-battery"})

    assert "correct-horse" not in str(caught.value)


def test_a_resource_that_this_version_does_not_have_is_refused(make_stack: Callable[..., Stack]) -> None:
    with pytest.raises(DeclarationError, match=r"hashicorp/aws 3\.39\.0 has no resource aws_s3_object"):
        Resource(make_stack(OLD), "a", "aws_s3_object", {"bucket": "b", "key": "k"})


def test_a_resource_that_no_schema_describes_is_refused_with_a_likely_name(stack: Stack) -> None:
    with pytest.raises(DeclarationError, match=r"has no aws_kms_keyy; did you mean aws_kms_key\?"):
        Resource(stack, "a", "aws_kms_keyy", {})


def test_a_resource_whose_provider_the_stack_lacks_is_refused(stack: Stack) -> None:
    with pytest.raises(DeclarationError, match="secrets-staging has no provider for vault_mount"):
        Resource(stack, "a", "vault_mount", {})


def test_two_resources_of_one_name_are_refused(stack: Stack) -> None:
    Resource(stack, "orders/db", KEY, {})
    with pytest.raises(DeclarationError, match="secrets-staging/orders--db: There is already a Construct"):
        Resource(stack, "orders/db", KEY, {})


def test_a_provider_is_checked_too() -> None:
    stack = bare_stack()
    with pytest.raises(
        DeclarationError, match=r"secrets-staging/aws \(provider\): there is no argument regoin; did you mean region\?"
    ):
        Provider(stack, "hashicorp/aws", NEW, {"regoin": "x"})


def test_a_provider_version_without_a_schema_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"no schema of the provider aws 1\.0\.0 .*aws-6\.69\.1"):
        Provider(bare_stack(), "hashicorp/aws", "1.0.0", {})


@pytest.mark.parametrize("argument", ["deletion_window_in_days", "is_enabled", "tags"])
def test_an_expression_passes_for_every_type(stack: Stack, argument: str) -> None:
    Resource(stack, "a", KEY, {argument: "${var.later}"})

    assert only(stack, KEY) == {argument: "${var.later}"}


def test_the_attributes_of_other_resources_pass_for_every_type(stack: Stack) -> None:
    first = Resource(stack, "first", "aws_kms_alias", {"target_key_id": "x"})
    tokens = {
        "description": first.get_string_attribute("arn"),
        "deletion_window_in_days": first.get_number_attribute("days"),
        "is_enabled": first.get_boolean_attribute("enabled"),
        "tags": first.get_string_map_attribute("tags"),
    }
    Resource(stack, "a", KEY, tokens)
    clients = first.get_list_attribute("clients")
    Resource(stack, "b", "aws_iam_openid_connect_provider", {"url": "https://x", "client_id_list": clients})

    assert only(stack, KEY) == {
        "description": "${aws_kms_alias.first.arn}",
        "deletion_window_in_days": "${aws_kms_alias.first.days}",
        "is_enabled": "${aws_kms_alias.first.enabled}",
        "tags": "${aws_kms_alias.first.tags}",
    }


def test_arguments_that_are_none_are_left_out(stack: Stack) -> None:
    Resource(stack, "a", KEY, {"description": None, "is_enabled": False})

    assert only(stack, KEY) == {"is_enabled": False}


def test_an_address_is_as_terraform_will_call_it(stack: Stack) -> None:
    Resource(stack, "orders/db-2_x", KEY, {})

    (name,) = synthesized(stack)["resource"][KEY]
    assert address(KEY, "orders/db-2_x") == f"{KEY}.{name}"


def test_a_literal_keeps_terraform_from_reading_templates_in_it() -> None:
    assert literal("${a} %{ if } $ % {}") == "$${a} %%{ if } $ % {}"


def test_every_schema_loads_and_calls_itself_what_its_file_is_called() -> None:
    assert Schema.load("aws", NEW).has("aws_s3_object")
    assert not Schema.load("aws", OLD).has("aws_s3_object")
    assert {Schema.load("aws", version).version for version in (OLD, NEW)} == {OLD, NEW}
