from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rotation.errors import UsageError
from rotation.review.document import Rotation, named, of_plans, of_synth, read_plan
from rotation.review.rules import BUILT_IN, judge
from tests.rotation.review.plans import change, plan, policy, review_document, write

CANARY = "canary-value-of-a-secret"


def test_neither_sensitive_nor_unknown_values_are_in_the_document(tmp_path: Path) -> None:
    document = _with_canaries(tmp_path)
    assert CANARY not in json.dumps(document.data())
    (thing,) = (c for _, c in document.changes() if c.type == "some_thing")
    assert (thing.sensitive, thing.unknown) == (("list[0].inner", "token"), ("id",))
    assert thing.after["id"] == "(known after apply)"


def _with_canaries(folder: Path) -> Any:
    thing = change(
        "some_thing.a",
        "update",
        {"token": CANARY, "name": "a"},
        {"token": CANARY, "name": "b", "list": [{"inner": CANARY}]},
        sensitive={"token": True, "list": [{"inner": True}]},
        unknown={"id": True},
    )
    thing["change"]["before_sensitive"] = {"token": True}
    return review_document(
        folder,
        thing,
        change("aws_secretsmanager_secret_version.v", "create", None, {"secret_string": CANARY}),
        outputs={"told": {"actions": ["create"], "before": None, "after": CANARY, "after_sensitive": True}},
        variables={"x": {"value": CANARY}},
        prior_state={"values": {"x": CANARY}},
    )


def test_pins_that_move_are_rotations(tmp_path: Path) -> None:
    before, after = {"input": {"orders/db": 41, "orders/token": 7}}, {"input": {"orders/db": 42, "orders/token": 7}}
    document = review_document(
        tmp_path,
        change("terraform_data.pins-orders-api-canary", "update", before, after),
        change("terraform_data.pins-billing-stable", "create", None, {"input": {"billing/db": 1}}),
    )
    assert document.rotations == (
        Rotation("billing/db", None, 1, "stable", "billing"),
        Rotation("orders/db", 41, 42, "canary", "orders-api"),
    )
    assert str(document.rotations[1]) == "orders/db 41 → 42 (canary)"


STATE = {"format_version": "1.0", "terraform_version": "1.11.4", "values": {}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not one JSON document, or not a whole one"),
        (json.dumps(plan(change("a.b", "create")))[:-20], "is not one JSON document, or not a whole one"),
        ('{"type": "version"}\n{"type": "planned_change"}', "is not one JSON document"),
        ("[" * 100_000, "is not one JSON document"),
        ("[]", "is not a plan of Terraform"),
        ("{}", "is not a plan of Terraform"),
        (STATE, "is a state or an empty document, not a plan"),
        (plan() | {"format_version": "2.0"}, "is a plan of format 2.0, and keyturn reads 1.x"),
        (plan(errored=True), "is the plan of a run that failed"),
        (plan() | {"resource_changes": [{"address": "a.b"}]}, "is a damaged plan"),
        (plan() | {"resource_changes": 3}, "is a damaged plan"),
        (plan(change("a.b", "create") | {"change": {"actions": 3}}), "is a damaged plan"),
        (plan() | {"output_changes": {"x": 3}}, "is a damaged plan"),
        ({"rotations": []}, "is a rotation plan, not Terraform's"),
    ],
)
def test_what_is_no_plan_is_said_to_be_none(tmp_path: Path, text: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_plan(write(tmp_path / "plan.json", text))
    assert said in str(caught.value)


def test_a_plan_is_named_by_its_file_and_given_once(tmp_path: Path) -> None:
    first = write(tmp_path / "secrets-local.json", plan())
    assert list(named([first])) == ["secrets-local"]
    with pytest.raises(UsageError, match="two plans of secrets-local"):
        named([first, first])
    with pytest.raises(UsageError, match="there is no plan to review"):
        named([])


def test_a_plan_without_changes_is_a_stack_without_changes(tmp_path: Path) -> None:
    document = review_document(tmp_path, change("a.b", "no-op", {"a": 1}, {"a": 1}))
    assert [stack.changes for stack in document.stacks] == [()]
    assert of_plans({}, "local", embedded=False).rotations == ()


# ── synthesized stacks ──


def _synth(folder: Path, resources: dict[str, Any], **more: Any) -> Path:
    stack = folder / "stacks" / "secrets-staging"
    stack.mkdir(parents=True)
    write(stack / "cdk.tf.json", {"//": {"metadata": {}}, "resource": resources, **more})
    (folder / "manifests").mkdir()
    write(folder / "manifests" / "staging.json", {"environment": "staging", "stacks": ["secrets-staging"]})
    return folder


def _secret(**arguments: Any) -> dict[str, Any]:
    return {"aws_secretsmanager_secret": {"orders": {"//": {"path": "x"}, "name": "orders", **arguments}}}


def _judged(folder: Path, base: Path | None) -> list[tuple[str, str]]:
    return [(f.rule, f.verdict.value) for f in judge(BUILT_IN, of_synth(folder, base))]


def test_synthesized_stacks_are_compared_with_their_base_without_the_cdk_s_comments(tmp_path: Path) -> None:
    base = _synth(tmp_path / "base", _secret())
    same = _synth(tmp_path / "same", {"aws_secretsmanager_secret": {"orders": {"name": "orders"}}})
    (stack,) = of_synth(same, base).stacks
    assert (stack.environment, stack.planned, stack.changes) == ("staging", False, ())


def test_the_rules_hold_for_synthesized_stacks_too(tmp_path: Path) -> None:
    base = _synth(tmp_path / "base", _secret())
    wide = policy({"Effect": "Allow", "Principal": "*", "Action": "s:Get", "Resource": "*"})
    open_to_all = _synth(tmp_path / "open", _secret(policy=wide, recovery_window_in_days=0))
    assert _judged(open_to_all, base) == [("recovery-window", "refuse"), ("policy-open", "refuse")]
    version = {"aws_secretsmanager_secret_version": {"v": {"secret_string": CANARY}}}
    valued = _synth(tmp_path / "valued", _secret() | version, output={"o": {"value": CANARY, "sensitive": True}})
    assert _judged(valued, base) == [("value-in-state", "refuse")] * 2
    assert CANARY not in json.dumps(of_synth(valued, base).data())
    gone = _synth(tmp_path / "gone", {})
    assert _judged(gone, base) == [("secret-deleted", "refuse")]


def test_without_a_base_what_is_declared_is_looked_at_and_nothing_is_called_new(tmp_path: Path) -> None:
    pins = {"terraform_data": {"pins-orders-api-canary": {"input": {"orders/db": 42}}}}
    document = of_synth(_synth(tmp_path / "alone", _secret() | pins), None)
    assert {c.actions for _, c in document.changes()} == {("declare",)}
    assert document.rotations == ()
    assert _judged(tmp_path / "alone", None) == []


def test_a_folder_without_stacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no synthesized stacks"):
        of_synth(tmp_path, None)
