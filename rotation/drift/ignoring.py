"""Findings that are known and accepted for a time: ``[[drift.ignore]]`` in keyturn.toml."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rotation.drift import Class, Finding


class Ignore(BaseModel):
    """``address`` is a finding's, or a pattern of it (``*``, ``?``, ``[…]``); ``until`` is the last day on which it is
    ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Annotated[str, Field(pattern=r"^(declared|stored|live|consumed|\*):.")]
    reason: Annotated[str, Field(min_length=1)]
    until: date

    def matches(self, finding: Finding) -> bool:
        return fnmatchcase(finding.address, self.address)


def ignore(findings: Iterable[Finding], rules: Sequence[Ignore], today: date) -> list[Finding]:
    """The findings, those that a rule accepts marked as ignored, with its reason. Expired rules ignore nothing."""
    valid = [rule for rule in rules if rule.until >= today]
    return [_judged(finding, next((rule for rule in valid if rule.matches(finding)), None)) for finding in findings]


def expired(rules: Iterable[Ignore], today: date) -> tuple[Ignore, ...]:
    return tuple(rule for rule in rules if rule.until < today)


def _judged(finding: Finding, rule: Ignore | None) -> Finding:
    if rule is None or finding.found is Class.EXPECTED:
        return finding
    return replace(finding, found=Class.IGNORED, remedy=f"Ignored until {rule.until}: {rule.reason}", fix=None)
