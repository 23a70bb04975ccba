"""A synth stops at whatever would put a value into Terraform's state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modules.cdk import App, TerraformResource
from modules.resource import Provider, Resource, Stack
from modules.secretless import refusals
from rotation.value_carriers import ANYWHERE, DATA, RESOURCES
from tests.modules.conftest import NEW

Declare = Callable[[Stack], object]

# Each listed argument of each listed resource, or the resource itself.
LISTED = [
    (kind, argument, {argument: "x"} if argument else {})
    for kind, rule in RESOURCES.items()
    for argument in (sorted(rule.arguments) or [""])
]


def _written(section: str, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A stack as the CDK writes it, with one block."""
    return {section: {kind: {"a": {"//": {"metadata": {"path": "s/a"}}, **arguments}}}}


@pytest.mark.parametrize(("kind", "argument", "arguments"), LISTED, ids=[f"{k}.{a}" if a else k for k, a, _ in LISTED])
def test_every_listed_resource_is_refused(kind: str, argument: str, arguments: Mapping[str, Any]) -> None:
    ((path, what),) = refusals(_written("resource", kind, arguments))

    assert path == "s/a"
    assert what.startswith(f"s/a ({kind}) " + (f"sets {argument}: " if argument else "is refused: "))
    assert "state" in what


@pytest.mark.parametrize("kind", DATA)
def test_every_listed_data_source_is_refused(kind: str) -> None:
    ((_, what),) = refusals(_written("data", kind, {"name": "x"}))

    assert what.startswith(f"s/a ({kind}) is refused: what it reads is kept in state")


@pytest.mark.parametrize("argument", sorted(ANYWHERE.arguments))
def test_telling_arguments_are_refused_in_any_resource_and_at_any_depth(argument: str) -> None:
    top = _written("resource", "acme_thing", {argument: "x"})
    nested = _written("resource", "acme_thing", {"block": [{"inner": {argument: "x"}}]})

    assert [what for _, what in refusals(top)] == [what for _, what in refusals(nested)]
    assert f"s/a (acme_thing) sets {argument}: " in next(refusals(top))[1]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("aws_secretsmanager_secret", {"name": "x", "description": "a password"}),
        ("aws_ssm_parameter", {"name": "x", "type": "SecureString", "value_wo": "x", "value_wo_version": 1}),
        ("kubernetes_secret_v1", {"data_wo": {"a": "x"}, "data_wo_revision": 1}),
        ("vault_kv_secret_v2", {"mount": "m", "name": "x", "data_json_wo": "x", "data_json_wo_version": 1}),
        ("vault_generic_endpoint", {"path": "secret/metadata/orders/db", "data_json": "{}"}),
        ("vault_database_secret_backend_connection", {"postgresql": {"username": "u", "password_wo": "x"}}),
        ("aws_db_instance", {"manage_master_user_password": True, "password": None}),
        ("terraform_data", {"input": {"password": 42}}),  # the pin of a secret of this name
    ],
)
def test_write_only_arguments_and_harmless_ones_pass(kind: str, arguments: Mapping[str, Any]) -> None:
    assert list(refusals(_written("resource", kind, arguments))) == []


def _by_resource(stack: Stack) -> object:
    return Resource(stack, "token", "aws_ssm_parameter", {"name": "t", "type": "SecureString", "value": "hunter2"})


def _by_a_prebuilt_binding(stack: Stack) -> object:
    return TerraformResource(stack, "token", terraform_resource_type="random_password")


def _by_an_override(stack: Stack) -> object:
    made = Resource(stack, "token", "aws_ssm_parameter", {"name": "t", "type": "String"})
    made.add_override("value", "hunter2")
    return made


def _by_an_override_of_the_stack(stack: Stack) -> object:
    stack.add_override("resource.aws_iam_access_key.token", {"user": "u"})
    return stack


@pytest.mark.parametrize(
    "declare", [_by_resource, _by_a_prebuilt_binding, _by_an_override, _by_an_override_of_the_stack]
)
def test_an_ordinary_synth_raises_and_writes_no_stack(tmp_path: Path, declare: Declare) -> None:
    app, stack = _new(tmp_path)
    declare(stack)

    with pytest.raises(RuntimeError, match="state") as caught:
        app.synth()

    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "stacks" / "s" / "cdk.tf.json").exists()
    assert stack.secretless.refusal is not None
    assert "never a value" in stack.secretless.refusal.remedy


def test_a_refusal_names_the_line_that_declared_it(tmp_path: Path) -> None:
    app, stack = _new(tmp_path)
    _by_resource(stack)

    with pytest.raises(RuntimeError, match=re.escape("s/token (aws_ssm_parameter) sets value: ")) as caught:
        app.synth()

    file, line, _ = str(caught.value).split(":", 2)
    assert file == "tests/modules/test_secretless.py"
    assert '"hunter2"' in Path(__file__).read_text(encoding="utf-8").splitlines()[int(line) - 1]


def _new(folder: Path) -> tuple[App, Stack]:
    app = App(outdir=str(folder))
    stack = Stack(app, "s")
    Provider(stack, "hashicorp/aws", NEW, {"region": "eu-central-1"})
    return app, stack
