"""One look at an environment, in the ways that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rotation.drift import Class, Finding, Fix, Way, consumed, declared, live, scene, stored
from rotation.drift.ignoring import Ignore, expired, ignore
from rotation.drift.memory import remember
from rotation.drift.scene import Scene, Work
from rotation.engine import Engine
from rotation.exit_codes import CHANGES, DONE, FAILED

_WAYS: Mapping[Way, Callable[[Scene], list[Finding]]] = {
    Way.STORED: stored.look,
    Way.CONSUMED: consumed.look,
    Way.LIVE: live.look,
    Way.DECLARED: declared.look,
}


@dataclass(frozen=True, slots=True)
class Drift:
    """What one look found, by class, then by address. ``stacks`` are the environment's, ``expired`` the ignore rules
    that no longer count."""

    environment: str
    stacks: tuple[str, ...]
    at: datetime
    ways: tuple[Way, ...]
    findings: tuple[Finding, ...]
    expired: tuple[Ignore, ...] = ()

    def of(self, *classes: Class) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.found in classes)

    @property
    def exit_code(self) -> int:
        """2 for drift, also where something else could not be checked: what was found is certain. 1 only where nothing
        was found and something could not be checked."""
        if self.of(Class.UNEXPECTED, Class.DELETED):
            return CHANGES
        return FAILED if self.of(Class.UNCHECKED) else DONE


def check(engine: Engine, ways: Iterable[Way], rules: Sequence[Ignore] = ()) -> Drift:
    """Look once in these ways, and note in the journal what was found. Changes nothing else."""
    wanted = tuple(way for way in Way if way in set(ways))
    seen = scene.look(engine, deployments=not {Way.STORED, Way.CONSUMED}.isdisjoint(wanted))
    findings = [finding for way, look in _WAYS.items() if way in wanted for finding in look(seen)]
    today = seen.began.date()
    judged = ignore(_excused(findings, Work.at(engine, seen.began)), rules, today)
    order = list(Class)
    noted = sorted(
        remember(engine.journal, judged, wanted), key=lambda finding: (order.index(finding.found), finding.address)
    )
    manifest = engine.manifest
    return Drift(manifest.environment, manifest.stacks, seen.began, wanted, tuple(noted), expired(rules, today))


def _excused(findings: Iterable[Finding], work: Work) -> list[Finding]:
    """The findings, those about secrets that somebody worked on while they were looked at as expected: what was seen
    first may not fit what was seen last. What is to be applied again was changed outside Terraform: not by them."""
    return [
        replace(finding, found=Class.EXPECTED)
        if finding.counts and finding.fix is not Fix.DEPLOY and not work.busy.isdisjoint(finding.secrets)
        else finding
        for finding in findings
    ]
