"""What a plan says of changes outside Terraform, and what of it is noise."""

from __future__ import annotations

from typing import Any

from rotation.drift.comparison import Outside, changed_outside

POLICY = '{"Statement": "of the runner"}'


def document(
    before: dict[str, Any],
    after: dict[str, Any] | None,
    *,
    declared: tuple[str, ...] = (),
    others: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """A plan's JSON, in which the resource ``it`` changed."""
    change = {"actions": ["update"] if after else ["delete"], "before": before, "after": after}
    resources = [{"address": f"other.{number}", "values": values} for number, values in enumerate(others)]
    return {
        "resource_drift": [{"address": "some_kind.it", "change": change}],
        "configuration": {
            "root_module": {"resources": [{"address": "some_kind.it", "expressions": {name: {} for name in declared}}]}
        },
        "prior_state": {
            "values": {"root_module": {"resources": [*resources, {"address": "some_kind.it", "values": after or {}}]}}
        },
    }


def changed(*attributes: str) -> tuple[Outside, ...]:
    return (Outside("some_kind.it", deleted=False, attributes=attributes),)


def test_a_plan_without_drift_has_none() -> None:
    assert changed_outside({"format_version": "1.2"}) == ()


def test_attributes_that_changed_are_named_and_never_shown() -> None:
    (found,) = changed_outside(document({"etag": "old-value"}, {"etag": "new-value"}, declared=("etag",)))
    assert (found,) == changed("etag")
    assert "value" not in repr(found)


def test_a_declared_attribute_counts_whatever_other_resources_hold() -> None:
    others = ({"text": "new"},)
    assert changed_outside(document({"text": "old"}, {"text": "new"}, declared=("text",), others=others)) == changed(
        "text"
    )


def test_an_empty_text_a_list_of_none_and_nothing_are_the_same() -> None:
    before: dict[str, Any] = {"tags": None, "metadata": {}, "inline": [{"name": "", "policy": ""}]}
    assert changed_outside(document(before, {"tags": {}, "metadata": None, "inline": []})) == changed()


def test_what_another_resource_of_the_stack_put_there_is_explained() -> None:
    before = {"inline_policy": [{"name": "", "policy": ""}]}
    after = {"inline_policy": [{"name": "rotation", "policy": POLICY}]}
    others = ({"name": "rotation", "policy": POLICY},)
    assert changed_outside(document(before, after, others=others)) == changed()
    assert changed_outside(document(before, after)) == changed("inline_policy")


def test_a_policy_that_somebody_added_is_not_explained_by_the_one_beside_it() -> None:
    ours = {"name": "rotation", "policy": POLICY}
    after = {"inline_policy": [ours, {"name": "mine", "policy": '{"Action": "*"}'}]}
    assert changed_outside(document({"inline_policy": [ours]}, after, others=(ours,))) == changed("inline_policy")


def test_what_is_gone_is_not_explained() -> None:
    ours = {"name": "rotation", "policy": POLICY}
    assert changed_outside(document({"inline_policy": [ours]}, {"inline_policy": []}, others=(ours,))) == changed(
        "inline_policy"
    )


def test_a_flag_that_was_turned_is_not_explained_by_other_flags() -> None:
    others = ({"anything": True, "protected": False},)
    assert changed_outside(document({"protected": True}, {"protected": False}, others=others)) == changed("protected")


def test_a_resource_that_is_gone_is_deleted() -> None:
    assert changed_outside(document({"etag": "old"}, None)) == (Outside("some_kind.it", deleted=True, attributes=()),)


def test_an_instance_of_a_counted_resource_is_declared_by_its_block() -> None:
    counted = document({"etag": "old"}, {"etag": "new"}, declared=("etag",), others=({"etag": "new"},))
    counted["resource_drift"][0]["address"] = "some_kind.it[0]"
    assert changed_outside(counted) == (Outside("some_kind.it[0]", deleted=False, attributes=("etag",)),)
