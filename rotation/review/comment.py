"""A review as one comment in Markdown: first what matters, then the rest, folded, cut to the platform's limit.

Whatever comes from plans (names, values, messages) stands in code spans and fenced blocks, whose fences are longer than
any in them: there neither Markdown nor HTML nor a mention works. What looks like a credential is redacted.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from rotation.planning import RotationPlan, describe_rotation
from rotation.redaction import redact
from rotation.review.document import Change, Document, Stack
from rotation.review.exceptions import Allowed
from rotation.review.policies import parse
from rotation.review.rules import Finding, Verdict
from rotation.terraform import Json

LIMIT = 65_536  # what GitHub takes for a comment, in characters
LEAST = 2_000
_RESERVED = 200  # for the sentence that says what was left out
_SHARES = {"Refused": 0.35, "Rotations": 0.2, "Warnings": 0.2, "Allowed by an exception": 0.1}  # of the limit, at most
_LONGEST_DIFF = 200  # lines
_LONGEST_NAME = 60  # characters of an environment's name: the first lines are never left out
_UNUSUAL = re.compile(r"[^\w .,:/-]")  # in the heading of a section, which is HTML
# Names that look like credentials: version ids of generations, ARNs, and the actions of Secrets Manager.
_NAMES = re.compile(r"""\bg\d{10}-[0-9a-f-]+|\barn:[\w-]+:[^\s"',;]+|\bsecretsmanager:[A-Z]\w*\*?""")


@dataclass(frozen=True, slots=True)
class Review:
    """All that a comment tells. ``plan`` is the rotation plan, if there is one."""

    document: Document
    findings: Sequence[Finding]
    allowed: Sequence[Allowed]
    plan: RotationPlan | None = None

    @property
    def refused(self) -> bool:
        return any(finding.verdict is Verdict.REFUSE for finding in self.findings)

    @property
    def planned(self) -> bool:
        return all(stack.planned for stack in self.document.stacks)

    @property
    def environments(self) -> tuple[str, ...]:
        return tuple(sorted({stack.environment for stack in self.document.stacks}))


@dataclass(slots=True)
class _Page:
    """Markdown that is never longer than ``limit`` bytes of UTF-8 (so never longer in characters)."""

    limit: int
    text: str = ""
    size: int = 0

    def add(self, block: str, within: float | None = None) -> bool:
        """Add a block if it fits, and tell whether it did."""
        length = len(block.encode())
        if self.size + length > (self.limit if within is None else within):
            return False
        self.text += block
        self.size += length
        return True


def marker(environments: Iterable[str]) -> str:
    """The hidden first line by which a pipeline finds the comment that it is to update."""
    names = (re.sub(r"[^a-zA-Z0-9_-]|--+", "_", name[:_LONGEST_NAME]) for name in environments)
    return f"<!-- keyturn review {' '.join(names)} -->"


def render(review: Review, limit: int = LIMIT) -> str:
    """The comment, at most ``limit`` bytes long; that is at least :data:`LEAST`."""
    page = _Page(limit - _RESERVED)
    page.add(f"{marker(review.environments[:5])}\n### {_title(review)}\n\n")
    if not review.planned:
        page.add(
            "No plan was made: this compares what is declared, not what is deployed. What changes in the cloud, and"
            " values that are known only there, are not seen.\n\n"
        )
    for heading, items in _first(review):
        _section(page, heading, items, within=page.size + limit * _SHARES[heading])
    left = [title for title, blocks in _rest(review) if not _fold(page, title, blocks)]
    page.limit = limit
    if left:
        page.add(f"{_count(len(left), 'section')} left out: the comment is as long as it may be.\n")
    return page.text


def data(review: Review) -> dict[str, Any]:
    """The review for machines."""
    verdict = "refused" if review.refused else "warned" if review.findings else "passed"
    return {
        "verdict": verdict,
        "planned": review.planned,
        "environments": list(review.environments),
        "rotations": [asdict(rotation) for rotation in review.document.rotations],
        "findings": [_finding_data(finding) for finding in review.findings],
        "allowed": [
            _finding_data(each.finding) | {"reason": _redacted(each.by.reason), "until": each.by.until.isoformat()}
            for each in review.allowed
        ],
        "rotation_plan": review.plan.digest if review.plan else None,
        "stacks": {stack.name: _stack_data(stack) for stack in review.document.stacks},
    }


def in_words(finding: Finding) -> str:
    """A finding as one plain line."""
    where = " ".join(part for part in (finding.stack, finding.address) if part)
    said = f"{finding.verdict}: {finding.rule}: {where + ': ' if where else ''}{_redacted(finding.message)}"
    return _plain(" ".join(said.split()))


def _finding_data(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"message": _redacted(finding.message)}


def _stack_data(stack: Stack) -> dict[str, Any]:
    changes = {change.address: "/".join(change.actions) for change in stack.changes}
    outputs = {f"output.{output.name}": "/".join(output.actions) for output in stack.outputs}
    return {"environment": stack.environment, "digest": stack.digest, "changes": changes | outputs}


def _title(review: Review) -> str:
    warnings = sum(finding.verdict is Verdict.WARN for finding in review.findings)
    verdict = "refused" if review.refused else f"{_count(warnings, 'warning')}" if warnings else "nothing to object to"
    changes = sum(len(stack.changes) for stack in review.document.stacks)
    names = ", ".join(_code(name[:_LONGEST_NAME]) for name in review.environments[:5]) or "no environment"
    return f"keyturn: {verdict} · {_count(changes, 'change')} in {names}"


def _first(review: Review) -> Iterator[tuple[str, list[str]]]:
    """What matters, in its order."""
    refusals = [f for f in review.findings if f.verdict is Verdict.REFUSE]
    yield "Refused", [_finding(finding) for finding in refusals]
    yield "Rotations", list(dict.fromkeys([*_planned_rotations(review.plan), *_pin_changes(review.document)]))
    yield "Warnings", [_finding(finding) for finding in review.findings if finding.verdict is Verdict.WARN]
    yield "Allowed by an exception", [_allowed(each) for each in review.allowed]


def _section(page: _Page, heading: str, items: Sequence[str], within: float) -> None:
    if not items or not page.add(f"**{heading}**\n\n"):
        return
    more = "- … and {} more\n"
    for at, item in enumerate(items):
        if not page.add(f"- {item}\n", within=min(within, page.limit - len(more) - 10)):
            page.add(more.format(len(items) - at))
            break
    page.add("\n")


def _finding(finding: Finding) -> str:
    where = f" {_code(finding.address)}" if finding.address else ""
    stack = f" in {_code(finding.stack)}" if finding.stack else ""
    return f"{_code(finding.rule)}{where}{stack}: {_code(_redacted(finding.message))}"


def _allowed(allowed: Allowed) -> str:
    return f"{_finding(allowed.finding)} until {allowed.by.until}: {_code(_redacted(allowed.by.reason))}"


def _planned_rotations(plan: RotationPlan | None) -> Iterator[str]:
    for rotation in plan.rotations if plan else ():
        ring = rotation.places[0].rpartition("/")[2] if rotation.places else "no consumer"
        yield _code(f"{rotation.secret} {rotation.current or 'no value'} → {rotation.to} ({ring})")


def _pin_changes(document: Document) -> Iterator[str]:
    for rotation in document.rotations:
        yield _code(str(rotation))


# ── the rest, folded ──


def _rest(review: Review) -> Iterator[tuple[str, Iterable[str]]]:
    if review.plan is not None:
        yield f"Rotation plan, digest {review.plan.digest[:12]}", _plan(review.plan, review.document)
    for stack in review.document.stacks:
        if stack.changes or stack.outputs:
            digest = f", digest {stack.digest[:12]}" if stack.digest else ""
            yield f"{stack.name}: {_count(len(stack.changes), 'change')}{digest}", _stack(stack)


def _plan(plan: RotationPlan, document: Document) -> Iterator[str]:
    for rotation in plan.rotations:
        yield _fence(describe_rotation(rotation), "text")
    reviewed = {stack.digest for stack in document.stacks if stack.digest}
    for stack in plan.terraform:
        here = ", which is the plan that is reviewed here" if stack.digest in reviewed else ""
        digest = f"the Terraform plan of its first ring, digest {stack.digest[:12]}{here}"
        yield f"{_code(stack.stack)}: {digest}\n\n{_fence(stack.changes or ('no changes',), 'text')}"


def _stack(stack: Stack) -> Iterator[str]:
    for change in stack.changes:
        heading = f"{_code('/'.join(change.actions))} {_code(change.address)}\n\n"
        lines = list(_attributes(change))
        yield heading + (_fence(lines, "diff") if lines else "")
    for output in stack.outputs:
        yield f"{_code('/'.join(output.actions))} output {_code(output.name)}\n\n"


def _attributes(change: Change) -> Iterator[str]:
    """The attributes that change, as lines of a diff."""
    before = change.before if isinstance(change.before, dict) else {}
    after = change.after if isinstance(change.after, dict) else {}
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new and not (old in _NOTHING and new in _NOTHING):
            yield from _difference(name, old, new)


_NOTHING: tuple[Json, ...] = (None, "", [], {})


def _difference(name: str, old: Json, new: Json) -> Iterator[str]:
    olds, news = _lines(old), _lines(new)
    if olds == news:
        if not (isinstance(new, str) and parse(new) is not None):  # a policy may only be written in another way
            yield f"~ {name}: what changes in it is not shown"
        return
    if max(len(olds), len(news)) <= 1:
        yield from (f"- {name} = {line}" for line in olds)
        yield from (f"+ {name} = {line}" for line in news)
        return
    yield f"  {name}:"
    differences = difflib.unified_diff(olds[:_LONGEST_DIFF], news[:_LONGEST_DIFF], lineterm="", n=1)
    yield from (line for line in islice(differences, 2, None) if not line.startswith("@@"))  # without the files' names
    if max(len(olds), len(news)) > _LONGEST_DIFF:
        yield f"  … (lines after the first {_LONGEST_DIFF} are not shown)"


def _lines(value: Json) -> list[str]:
    """A value as lines, redacted; nothing for what is not there."""
    if value in _NOTHING:
        return []
    if isinstance(value, str):
        text = value if parse(value) is None else json.dumps(json.loads(value), indent=1, sort_keys=True)
        return [_redacted(line) for line in text.splitlines()[: _LONGEST_DIFF + 1]]
    return [_redacted(json.dumps(value, ensure_ascii=False, sort_keys=True))]


def _redacted(line: str) -> str:
    """A line without what looks like a credential; names of principals, resources, actions and versions stay."""
    keep: set[str] = set()
    for name in _NAMES.findall(line):
        parts = [name[at:] for at in (0, *(m.end() for m in re.finditer(":", name)))]
        keep.update(parts, (f'{part}"' for part in parts), re.findall(r"[\w+/=-]{20,}", name))
    return redact(line, keep)


# ── Markdown ──


def _fold(page: _Page, title: str, blocks: Iterable[str]) -> bool:
    """Add a folded section, or as many whole blocks of it as there is room for; False where there is room for none."""
    opening = f"<details><summary><code>{_UNUSUAL.sub('_', title)}</code></summary>\n\n"
    closing = "\n</details>\n\n"
    note = "and {:,} more, left out: the comment is as long as it may be.\n"
    room = page.limit - page.size - len(f"{opening}{closing}{note}".encode()) - 10
    kept: list[str] = []
    left = 0
    for block in blocks:
        room -= len(block.encode())
        if room < 0:
            left += 1
        else:
            kept.append(block)
    if left and not kept:
        return False
    return page.add(f"{opening}{''.join(kept)}{note.format(left) if left else ''}{closing}")


def _code(text: str) -> str:
    """Untrusted text as a code span. https://spec.commonmark.org/0.31.2/#code-spans"""
    line = _plain(" ".join(text.split()))
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _fence(lines: Sequence[str], language: str) -> str:
    text = "\n".join(_plain(line) for line in lines)
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}\n\n"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _plain(line: str) -> str:
    """A line without what a reader cannot see: control characters, marks that turn the direction of writing."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
