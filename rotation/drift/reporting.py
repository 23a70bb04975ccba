"""What was found, for people, for machines, and as one issue per stack that a pipeline keeps up to date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rotation.drift import Class, Finding, Way
from rotation.drift.check import Drift
from rotation.drift.fixing import Tried
from rotation.output import table

MOST_CHARACTERS = 60_000  # of one report: GitHub takes 65,536 in an issue or a comment
_SHOWN = (Class.UNEXPECTED, Class.DELETED, Class.UNCHECKED)  # the others are folded


@dataclass(frozen=True, slots=True)
class StackReport:
    """One stack's findings as an issue; ``stack`` is a stack's name, or the environment's for what is no stack's.
    ``marker`` is hidden in ``body`` and, like ``title``, always the same: by it the issue is found again. An issue is
    needed where ``open``; where it is not, nothing is wrong."""

    stack: str
    title: str
    marker: str
    open: bool
    body: str


def lines(drift: Drift, tried: Sequence[Tried] = (), left: Mapping[str, str] | None = None) -> list[str]:
    """A table for each class, what to do below each finding, and what `--fix` did."""
    told = [line for found in Class for line in _table(found, drift.of(found))]
    told += [f"the ignore rule {rule.address} expired on {rule.until}: {rule.reason}" for rule in drift.expired]
    told += _fixes(tried, left or {})
    ways = ", ".join(drift.ways)
    drifted, unknown = len(drift.of(Class.UNEXPECTED, Class.DELETED)), len(drift.of(Class.UNCHECKED))
    verdict = f"{drifted} findings are drift" if drifted else "no drift"
    return [*told, f"{drift.environment}: {verdict}{f', {unknown} could not be checked' if unknown else ''} ({ways})"]


def _table(found: Class, findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield f"{found} ({len(findings)})"
    rows = [(f"  {finding.address}", _since(finding), finding.what) for finding in findings]
    for finding, line in zip(findings, table(("  address", "since", "what"), rows)[1:], strict=True):
        yield line
        yield f"      → {finding.remedy}{' (--fix does it)' if finding.fix and finding.counts else ''}"


def _since(finding: Finding) -> str:
    return f"{finding.since:%Y-%m-%d %H:%M}" if finding.since else "-"


def _fixes(tried: Iterable[Tried], left: Mapping[str, str]) -> Iterator[str]:
    for one in tried:
        if one.address in left:
            yield f"left    {one.address}: {one.did} did not help{f': {one.problem}' if one.problem else ''}"
        else:
            yield f"fixed   {one.address}: {one.did}"


def document(drift: Drift, tried: Sequence[Tried] = (), left: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All of it, and the reports, for machines."""
    remaining = left or {}
    return {
        "environment": drift.environment,
        "at": drift.at,
        "ways": list(drift.ways),
        "drift": bool(drift.of(Class.UNEXPECTED, Class.DELETED)),
        "unchecked": bool(drift.of(Class.UNCHECKED)),
        "findings": [_finding(finding) for finding in drift.findings],
        "fixes": [asdict(one) | {"fixed": one.address not in remaining} for one in tried],
        "expired": [rule.model_dump(mode="json") for rule in drift.expired],
        "reports": [asdict(report) for report in reports(drift)],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "address": finding.address,
        "way": finding.way,
        "class": finding.found,
        "what": finding.what,
        "remedy": finding.remedy,
        "since": finding.since,
        "secrets": finding.secrets,
        "fix": finding.fix if finding.counts else None,
    }


def reports(drift: Drift) -> list[StackReport]:
    """One report per stack, and one for what no stack declares: stores, targets and consumers. Where not everything was
    looked at that belongs into a report, there is one only for what was found."""
    by_stack: dict[str, list[Finding]] = {name: [] for name in (*drift.stacks, drift.environment)}
    for finding in drift.findings:
        by_stack[finding.stack or drift.environment].append(finding)
    whole = dict.fromkeys(drift.stacks, Way.DECLARED in drift.ways)
    whole[drift.environment] = {Way.STORED, Way.LIVE, Way.CONSUMED} <= set(drift.ways)
    made = [_report(drift, name, findings) for name, findings in by_stack.items()]
    return [report for report in made if report.open or whole[report.stack]]


def _report(drift: Drift, name: str, findings: Sequence[Finding]) -> StackReport:
    title, marker = f"Drift in {name}", f"<!-- keyturn drift: {name} -->"
    needed = any(finding.found in _SHOWN for finding in findings)
    body = [marker, f"## {title}", "", *_summary(drift, findings), *_sections(findings)]
    return StackReport(name, title, marker, needed, _cut(body))


def _summary(drift: Drift, findings: Sequence[Finding]) -> Iterator[str]:
    counts = {found: sum(finding.found is found for finding in findings) for found in Class}
    told = ", ".join(f"{count} {found}" for found, count in counts.items() if count)
    yield f"{told or 'Nothing found'} at {drift.at:%Y-%m-%d %H:%M} UTC (looked at: {', '.join(drift.ways)})."
    for rule in drift.expired:
        yield f"The ignore rule {_code(rule.address)} expired on {rule.until}: {_plain(rule.reason)}"


def _sections(findings: Sequence[Finding]) -> Iterator[str]:
    for found in Class:
        here = [finding for finding in findings if finding.found is found]
        if not here:
            continue
        folded = found not in _SHOWN
        heading = f"{found} ({len(here)})"
        yield from ("", f"<details><summary>{heading}</summary>" if folded else f"### {heading.capitalize()}", "")
        yield from ("| Address | Since (UTC) | What | What to do |", "|---|---|---|---|")
        for f in here:
            yield f"| {_code(f.address)} | {_since(f)} | {_plain(f.what)} | {_plain(f.remedy)} |"
        yield from ("", "</details>") if folded else ()


def _cut(body: Sequence[str]) -> str:
    """The lines that fit; what matters comes first."""
    kept: list[str] = []
    room = MOST_CHARACTERS - 200
    for number, line in enumerate(body):
        room -= len(line) + 1
        if room < 0:
            kept += ["", f"… and {len(body) - number} lines more: see `keyturn drift`."]
            break
        kept.append(line)
    return "\n".join(kept) + "\n"


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is, and that calls nobody. Commands between backticks stay code."""
    for character, shown in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("@", "@\u200b"), ("\n", " ")):
        text = text.replace(character, shown)
    return text
