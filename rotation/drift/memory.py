"""Since when each finding has been there: what the journal keeps of the last looks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from rotation.drift import Class, Finding, Way
from rotation.journal import Journal

SUBJECT = "drift findings"  # the journal's notes are by secret; no secret has a blank in its name


def remember(journal: Journal, findings: Iterable[Finding], ways: Iterable[Way]) -> list[Finding]:
    """Note what was found and forget what is gone; return the findings with the times when they were first seen.

    What was not looked at is kept as it is: other ways, and what could not be checked this time.
    """
    found = list(findings)
    looked_at = {str(way) for way in ways}
    unknown = {
        (finding.way, subject)
        for finding in found
        if finding.found is Class.UNCHECKED
        for subject in (finding.subject, *finding.secrets)
    }
    blind = {f"{way}:{subject}:" for way, subject in unknown}

    def is_gone(address: str) -> bool:
        return address.partition(":")[0] in looked_at and not address.startswith(tuple(blind))

    kept = journal.keep(SUBJECT, {finding.address: _detail(finding) for finding in found}, is_gone)
    return [replace(finding, since=kept[finding.address].at) for finding in found]


def _detail(finding: Finding) -> str:
    return json.dumps({"class": finding.found, "what": finding.what, "remedy": finding.remedy})
