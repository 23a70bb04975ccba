from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from rotation import review
from rotation.errors import UsageError
from rotation.review import rule_files
from rotation.review.document import Change
from rotation.review.exceptions import apply
from rotation.review.rules import Finding, Verdict, judge
from rotation.settings import Allowance
from tests.rotation.review.plans import TODAY, document, write

BUCKET = Change("aws_s3_bucket.logs", "aws_s3_bucket", ("create",), None, {"acl": "public-read", "versioning": None})
DOCUMENT = document(BUCKET)

PYTHON = """
from rotation.review.rules import refuse, rule

@rule("public-bucket", "refuses public buckets")
def public_bucket(document):
    for stack, change in document.changes():
        if change.type == "aws_s3_bucket" and change.after["acl"].startswith("public"):
            yield refuse(f"the ACL is {change.after['acl']}", stack, change)
"""

REGO = """
package keyturn

deny contains {"msg": msg, "address": change.address, "stack": stack.name} if {
    some stack in input.stacks
    some change in stack.changes
    startswith(change.after.acl, "public")
    msg := sprintf("the ACL is %s", [change.after.acl])
}

warn contains "a bucket is made" if {
    input.stacks[_].changes[_].actions == ["create"]
}
"""

REFUSED = Finding(Verdict.REFUSE, "the ACL is public-read", "secrets-production", "aws_s3_bucket.logs")


def _judge(path: Path) -> list[Finding]:
    return judge(rule_files.load([path]), DOCUMENT)


def test_a_python_file_adds_rules(tmp_path: Path) -> None:
    (found,) = _judge(write(tmp_path / "ours.py", PYTHON))
    assert (found.verdict, found.message, found.address, found.rule) == (
        *(REFUSED.verdict, REFUSED.message, REFUSED.address),
        "public-bucket",
    )


def test_a_rego_file_adds_rules(tmp_path: Path) -> None:
    refused, warned = _judge(write(tmp_path / "ours.rego", REGO))
    assert (refused.verdict, refused.message, refused.address, refused.rule) == (
        *(REFUSED.verdict, REFUSED.message, REFUSED.address),
        "ours",
    )
    assert (warned.verdict, warned.message, warned.address) == (Verdict.WARN, "a bucket is made", "")


@pytest.mark.parametrize("text", ['deny[msg] { msg := "no" }', 'deny[{"msg": "no"}] { true }'])
def test_the_older_way_to_write_sets_in_rego_is_understood(tmp_path: Path, text: str) -> None:
    (found,) = _judge(write(tmp_path / "ours.rego", f"package keyturn\n{text}\n"))
    assert (found.verdict, found.message) == (Verdict.REFUSE, "no")


_BEGINS = "from rotation.review.rules import rule\n@rule('r', 'a')\ndef r(document):\n    "


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.py", "def (", "the rules r.py cannot be loaded: SyntaxError"),
        ("r.py", "1 / 0", "the rules r.py cannot be loaded: ZeroDivisionError"),
        ("r.py", "raise SystemExit(0)", "the rules r.py cannot be loaded: SystemExit: 0"),
        ("r.py", "x = 1", "r.py declares no rule"),
        ("r.py", f"{_BEGINS}yield 1 / 0", "the rule r of r.py failed: ZeroDivisionError"),
        ("r.py", f"{_BEGINS}import sys; sys.exit(0)", "the rule r of r.py failed: SystemExit: 0"),
        ("r.py", f"{_BEGINS}yield 'no'", "the rule r of r.py yields str, not findings"),
        ("r.py", f"{_BEGINS}return None", "the rule r of r.py failed: TypeError"),
        ("r.rego", "package keyturn\ndeny contains x if {", "the rules r.rego do not compile: this is unclosed"),
        ("r.rego", "package other\ndeny contains 1 if true", "declares neither deny nor warn in the package keyturn"),
        ("r.rego", 'package keyturn\ndeny contains x if { x := to_number("x") }', "deny of r.rego cannot be evaluated"),
        ("r.rego", 'package keyturn\ndeny contains x if { x := nosuch("x") }', "deny of r.rego cannot be evaluated"),
        ("r.rego", "package keyturn\nwarn contains x if { x := http.send({}) }", "warn of r.rego cannot be evaluated"),
        ("r.rego", "package keyturn\ndeny := 3", "r.rego yields 3, not a set of messages"),
        ("r.rego", "package keyturn\ndeny contains 3 if true", "neither a string nor an object with msg"),
        ("r.txt", "", "the rules r.txt are neither Python"),
    ],
)
def test_a_file_that_cannot_be_asked_is_an_error_and_passes_nothing(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _judge(write(tmp_path / name, text))
    assert said in str(caught.value)
    assert "nothing is passed" in caught.value.remedy or "@rule" in caught.value.remedy


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the rules gone\.rego cannot be read: No such file"):
        rule_files.load([tmp_path / "gone.rego"])


def test_rego_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regopy", None)
    monkeypatch.delitem(sys.modules, "rotation.review.rego", raising=False)
    monkeypatch.delattr(review, "rego", raising=False)
    with pytest.raises(UsageError, match="need the package regopy"):
        rule_files.load([write(tmp_path / "r.rego", REGO)])


FINDING = Finding(Verdict.REFUSE, "no", "secrets-production", 'aws_kms_key.each["a"]', "key-deleted")


def _allowance(address: str = FINDING.address, rule: str = FINDING.rule, days: int = 0) -> Allowance:
    return Allowance(address=address, rule=rule, reason="it is empty", until=TODAY + timedelta(days=days))


@pytest.mark.parametrize("address", [FINDING.address, "aws_kms_key.*", "*"])
def test_an_exception_lets_pass_what_it_names_up_to_its_last_day(address: str) -> None:
    allowance = _allowance(address)
    standing, allowed = apply([FINDING], [allowance], TODAY)
    assert standing == []
    assert [(each.finding, each.by) for each in allowed] == [(FINDING, allowance)]


@pytest.mark.parametrize("allowance", [_allowance(rule="secret-deleted"), _allowance("aws_kms_key.b"), _allowance("")])
def test_an_exception_for_something_else_lets_nothing_pass(allowance: Allowance) -> None:
    assert apply([FINDING], [allowance], TODAY) == ([FINDING], [])


def test_an_expired_exception_lets_nothing_pass_and_the_finding_says_so() -> None:
    yesterday = TODAY - timedelta(days=1)
    (standing,), allowed = apply([FINDING], [_allowance(days=-1), _allowance(days=-9)], TODAY)
    assert (standing.verdict, allowed) == (Verdict.REFUSE, [])
    assert standing.message == f"no (the exception from this ended on {yesterday})"
