"""Exceptions from rules, declared in keyturn.toml by address with a reason and a last day, and shown in the comment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase

from rotation.review.rules import Finding
from rotation.settings import Allowance


@dataclass(frozen=True, slots=True)
class Allowed:
    """A finding that an exception lets pass."""

    finding: Finding
    by: Allowance


def apply(
    findings: Iterable[Finding], allowances: Sequence[Allowance], today: date
) -> tuple[list[Finding], list[Allowed]]:
    """The findings that stand, and those that an exception lets pass. One that has expired lets nothing pass, and the
    finding says so."""
    standing: list[Finding] = []
    allowed: list[Allowed] = []
    for finding in findings:
        fitting = [a for a in allowances if a.rule == finding.rule and _fits(a.address, finding.address)]
        in_force = next((a for a in fitting if a.until >= today), None)
        if in_force is not None:
            allowed.append(Allowed(finding, in_force))
        elif fitting:
            ended = max(a.until for a in fitting)
            standing.append(replace(finding, message=f"{finding.message} (the exception from this ended on {ended})"))
        else:
            standing.append(finding)
    return standing, allowed


def _fits(pattern: str, address: str) -> bool:
    """``*`` stands for any characters; brackets are those of an address (``aws_kms_key.each["a"]``)."""
    return pattern == address or fnmatchcase(address, pattern.replace("[", "[[]"))
