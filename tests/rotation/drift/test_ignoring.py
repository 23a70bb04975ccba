"""Rules that accept drift for a time, and settings that hold them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from rotation.drift import Class, Finding, Fix, Way, unchecked
from rotation.drift.ignoring import Ignore, expired, ignore
from rotation.errors import UsageError
from rotation.settings import load

TODAY = date(2026, 11, 22)
STUCK = Finding(Way.STORED, "orders/db", "pending", Class.UNEXPECTED, "is stuck", "resume it", fix=Fix.RESUME)


def rule(address: str, until: date = TODAY) -> Ignore:
    return Ignore(address=address, reason="known since Monday", until=until)


@pytest.mark.parametrize(
    "address", ["stored:orders/db:pending", "stored:orders/*", "*:pending", "stored:orders/d[bx]:*"]
)
def test_a_rule_ignores_what_its_pattern_names_and_says_why(address: str) -> None:
    (found,) = ignore([STUCK], [rule(address)], TODAY)
    assert (found.found, found.counts, found.fix) == (Class.IGNORED, False, None)
    assert found.what == "is stuck"
    assert found.remedy == "Ignored until 2026-11-22: known since Monday"


@pytest.mark.parametrize("address", ["stored:orders/api-token:*", "live:orders/db:pending", "stored:orders"])
def test_a_rule_leaves_alone_what_it_does_not_name(address: str) -> None:
    assert ignore([STUCK], [rule(address)], TODAY) == [STUCK]


def test_an_expired_rule_ignores_nothing_and_is_told_of() -> None:
    old = rule("stored:*", until=date(2026, 11, 21))
    assert ignore([STUCK], [old], TODAY) == [STUCK]
    assert expired([old, rule("live:*")], TODAY) == (old,)


def test_what_cannot_be_checked_can_be_ignored_too() -> None:
    unreachable = unchecked(Way.LIVE, "orders/db", "no way there from here", "Open the firewall.")
    (found,) = ignore([unreachable], [rule("live:orders/db:check")], TODAY)
    assert found.found is Class.IGNORED


def test_rules_stand_in_the_projects_settings(tmp_path: Path) -> None:
    write(tmp_path, 'address = "stored:orders/*"\nreason = "see the ticket"\nuntil = 2026-12-31')
    (found,) = load(tmp_path).drift.ignore
    assert found == Ignore(address="stored:orders/*", reason="see the ticket", until=date(2026, 12, 31))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('address = "stored:*"\nreason = "forever"', "until"),
        ('address = "stored:*"\nuntil = 2026-12-31', "reason"),
        ('address = "orders/db"\nreason = "no way is named"\nuntil = 2026-12-31', "address"),
        ('address = "stored:*"\nreason = "r"\nuntil = "soon"', "until"),
        ('address = "stored:*"\nreason = "r"\nuntil = 2026-12-31\nforever = true', "forever"),
    ],
)
def test_a_rule_without_a_reason_an_end_or_an_address_is_refused(tmp_path: Path, content: str, named: str) -> None:
    write(tmp_path, content)
    with pytest.raises(UsageError, match=rf"the setting drift\.ignore\.0\.{named} is not valid"):
        load(tmp_path)


def write(project: Path, content: str) -> None:
    (project / "cdktf.json").write_text("{}")
    (project / "keyturn.toml").write_text(f"[[drift.ignore]]\n{content}\n")
