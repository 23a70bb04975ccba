from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rotation.model import Strategy
from rotation.planning import PlannedRotation, PlannedStack, RotationPlan
from rotation.review.comment import LEAST, LIMIT, Review, data, render
from rotation.review.document import Change, Document, Output, Stack
from rotation.review.exceptions import Allowed
from rotation.review.rules import BUILT_IN, Finding, Verdict, judge
from rotation.settings import Allowance
from tests.rotation.review.plans import TODAY, document

PIN = Change(
    "terraform_data.pins-orders-api-canary",
    "terraform_data",
    ("update",),
    {"input": {"orders/db": 41}},
    {"input": {"orders/db": 42}},
)
DELETED = Change("aws_secretsmanager_secret.orders", "aws_secretsmanager_secret", ("delete",), {"name": "orders"})


def _review(*changes: Change, findings: Sequence[Finding] | None = None, plan: RotationPlan | None = None) -> Review:
    made = document(*changes)
    return Review(made, judge(BUILT_IN, made) if findings is None else findings, (), plan)


def _plan(digest: str = "d" * 64) -> RotationPlan:
    rotation = PlannedRotation(
        secret="orders/db",
        store="aws_secrets_manager: production/orders/db",
        credential="postgres_user",
        strategy=Strategy.ALTERNATING,
        current=41,
        to=42,
        resumes=False,
        places=("orders-api/canary", "orders-api/stable"),
        readers=("arn:aws:iam::1:role/orders",),
        steps=("stage it", "retire generation 41"),
        operations=("ALTER ROLE orders_app_b LOGIN with a new verifier",),
        bake=timedelta(minutes=15),
        settle=timedelta(minutes=10),
        grace=timedelta(days=3),
        irreversible="step 2, retire generation 41",
    )
    stack = PlannedStack(stack="secrets-production", digest=digest, changes=("update a.b",))
    return RotationPlan(
        environment="production",
        made_at=datetime.now(UTC),
        sources="s" * 64,
        rotations=(rotation,),
        terraform=(stack,),
    ).digested()


def test_what_matters_comes_first_and_the_rest_is_folded() -> None:
    text = render(_review(PIN, DELETED, plan=_plan()))
    lines = text.splitlines()
    assert lines[0] == "<!-- keyturn review production -->"
    assert lines[1] == "### keyturn: refused · 2 changes in `production`"
    first, _, rest = text.partition("<details>")
    assert "- `secret-deleted` `aws_secretsmanager_secret.orders` in `secrets-production`: `deletes the secret" in first
    assert first.count("- `orders/db 41 → 42 (canary)`") == 1  # of the rotation plan, and of the pins: said once
    assert "ALTER ROLE orders_app_b LOGIN with a new verifier" in rest
    assert "digest dddddddddddd, which is the plan that is reviewed here" in rest
    assert '+ input = {"orders/db": 42}' in rest


def test_a_rotation_plan_of_another_terraform_plan_is_not_called_the_reviewed_one() -> None:
    assert "which is the plan" not in render(_review(PIN, plan=_plan("e" * 64)))


def test_exceptions_are_shown_with_their_reason_and_their_last_day() -> None:
    allowance = Allowance(address="*", rule="secret-deleted", reason="it is empty", until=TODAY)
    finding = Finding(Verdict.REFUSE, "deletes it", "secrets-production", "a.b", "secret-deleted")
    text = render(Review(document(), (), [Allowed(finding, allowance)]))
    assert f"`secret-deleted` `a.b` in `secrets-production`: `deletes it` until {TODAY}: `it is empty`" in text
    assert "nothing to object to" in text


def test_stacks_without_a_plan_are_said_to_have_none() -> None:
    stack = Stack("secrets-staging", "staging", False, False, "", (DELETED,))
    assert "No plan was made" in render(Review(Document((stack,)), (), ()))


HOSTILE = [
    "@everyone look",
    "</details><h1>approved</h1>",
    "<!-- keyturn review production -->",
    "`code` **bold** [x](https://evil.example) ![i](https://evil.example/i)",
    "a\n\n# approved\n\n- [x] done",
    "```\n</details>\n# approved",
    "\u202edetrevni\u200b",
    "\x1b[2J\r",
    "| a | b |\n|---|---|",
    "\ud800",
]


def _outside_of_code(text: str) -> str:
    """A comment's text without its fenced blocks and code spans, which nothing in a plan can leave."""
    fenced = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", fenced)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_and_values_cannot_inject_markup_or_mention_people(hostile: str) -> None:
    change = Change(f"a.{hostile}", "a", ("update",), {"d": "x", hostile: "x"}, {"d": hostile, hostile: {"y": hostile}})
    stack = Stack(hostile, hostile, False, True, hostile, (change,), (Output(hostile, ("create",), None, hostile),))
    finding = Finding(Verdict.REFUSE, hostile, hostile, hostile, hostile)
    allowed = Allowed(finding, Allowance.model_construct(address="*", rule="r", reason=hostile, until=TODAY))
    text = render(Review(Document((stack,)), [finding], [allowed]))
    outside = _outside_of_code(text)
    assert text.encode().decode() == text
    for written in (
        "@everyone",
        "<h1>",
        "**bold**",
        "](https",
        "# approved\n",
        "- [x]",
        "\u202e",
        "\u200b",
        "\x1b",
        "\r",
    ):
        assert written not in outside, outside
    assert outside.count("<details>") == outside.count("</details>") == 1
    assert outside.count("<!--") == 1


def test_what_looks_like_a_credential_is_redacted_and_what_is_a_name_is_not() -> None:
    name = "arn:aws:secretsmanager:us-east-1:1:secret:prod/orders-x1Y2z3"
    after = {
        "user_data": "password=hunter2hunter2",
        "content": "version: g0000000042-ab12cd34\nurl: https://user:hunter2@host/\ntoken: hunter2hunter2x",
        "note": "password:Hunter2",
        "policy": f'{{"Statement": [{{"Action": "secretsmanager:GetSecretValue", "Resource": "{name}"}}]}}',
    }
    text = render(_review(Change("a.b", "a", ("create",), None, after)))
    assert "hunter2" not in text.lower()
    for kept in ("g0000000042-ab12cd34", "secretsmanager:GetSecretValue", name):
        assert kept in text


def test_a_change_that_is_redacted_is_still_said_to_be_one() -> None:
    before, after = {"a": "password=one", "b": "x\n---\ny"}, {"a": "password=two", "b": "x\ny"}
    text = render(_review(Change("a.b", "a", ("update",), before, after)))
    assert "~ a: what changes in it is not shown" in text
    assert "\n----\n" in text


def _many(number: int) -> tuple[Change, ...]:
    return tuple(
        Change(f"aws_thing.n{at}", "aws_thing", ("update",), {"tags": {"v": at}}, {"tags": {"v": at + 1}})
        for at in range(number)
    )


def test_a_plan_of_5000_resources_is_cut_to_the_limit_fast_and_keeps_its_first_part() -> None:
    began = time.process_time()
    review = _review(PIN, DELETED, *_many(5_000), plan=_plan())
    text = render(review)
    assert time.process_time() - began < 20
    assert len(text.encode()) <= LIMIT
    assert len(text) > LIMIT * 0.9
    assert "`deletes the secret" in text
    assert "`orders/db 41 → 42 (canary)`" in text
    left = re.search(r"and ([\d,]+) more, left out", text)
    assert left is not None
    shown = text.count("\n+ tags = ")
    assert int(left[1].replace(",", "")) + shown + 2 == 5_002
    assert len(data(review)["stacks"]["secrets-production"]["changes"]) == 5_002


def test_many_findings_leave_room_for_the_rotations_and_are_counted() -> None:
    findings = [Finding(Verdict.REFUSE, "deletes it", "s", f"aws_kms_key.k{at}", "key-deleted") for at in range(5_000)]
    text = render(_review(PIN, findings=findings))
    assert len(text.encode()) <= LIMIT
    assert "`orders/db 41 → 42 (canary)`" in text
    more = re.search(r"… and (\d+) more", text)
    assert more is not None
    assert text.count("- `key-deleted`") + int(more[1]) == 5_000


_WORDS = st.text(max_size=200)
_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=8,
)
_OBJECTS = st.none() | st.dictionaries(_WORDS, _VALUES, max_size=4)
_CHANGES = st.builds(
    Change,
    address=_WORDS,
    type=st.sampled_from(["aws_kms_key", "a"]),
    actions=st.sampled_from([("create",), ("delete",), ("delete", "create"), ("update",)]),
    before=_OBJECTS,
    after=_OBJECTS,
)
_FINDINGS = st.builds(Finding, st.sampled_from(Verdict), _WORDS, _WORDS, _WORDS, _WORDS)


def test_the_verdict_is_never_left_out_however_long_the_names_are() -> None:
    stack = Stack("s" * 90_000, "e" * 90_000, False, True, "d", (DELETED,))
    text = render(Review(Document((stack,)), [Finding(Verdict.REFUSE, "m" * 90_000, "s" * 90_000)], ()), LEAST)
    assert "### keyturn: refused" in text
    assert "… and 1 more" in text
    assert len(text.encode()) <= LEAST


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(_CHANGES, max_size=30),
    findings=st.lists(_FINDINGS, max_size=60),
    name=_WORDS,
    limit=st.integers(LEAST, 12_000),
    copies=st.sampled_from([1, 20]),
)
def test_a_comment_is_never_longer_than_its_limit_and_always_whole(
    changes: list[Change], findings: list[Finding], name: str, limit: int, copies: int
) -> None:
    stack = Stack(name, name, False, True, "d", tuple(changes * copies))
    text = render(Review(Document((stack,) * 2), findings * copies, (), None), limit)
    assert len(text.encode()) <= limit
    outside = _outside_of_code(text)
    assert outside.count("<details>") == outside.count("</details>")
    assert text.splitlines()[0].startswith("<!-- keyturn review ")
    if any(finding.verdict is Verdict.REFUSE for finding in findings):
        assert "### keyturn: refused" in text
