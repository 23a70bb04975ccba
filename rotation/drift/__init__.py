"""Drift: what is declared, stored, live and consumed, compared in four ways and classified.

- *declared*: the stacks against Terraform's state and the cloud.
- *stored*: the stores' versions against what keyturn put there and what is pinned or deployed.
- *live*: the targets: do they accept what is current, and do they still let in what was retired?
- *consumed*: pins, rendered files, deployments and what each ring runs, against each other.

A finding is never a value: it holds names, generations, addresses and the names of attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rotation.model import Place


class Way(StrEnum):
    DECLARED = "declared"
    STORED = "stored"
    LIVE = "live"
    CONSUMED = "consumed"


class Class(StrEnum):
    """What a finding is, in the order in which reports show them. The first two are drift."""

    UNEXPECTED = "unexpected"
    DELETED = "deleted"
    UNCHECKED = "could not check"
    EXPECTED = "expected rotation"
    IGNORED = "ignored"


class Fix(StrEnum):
    """What `--fix` does about a finding, in its order."""

    REPIN = "re-pin"  # a pin to what is gone goes back to what is deployed, and from there to the current generation
    RENDER = "re-render"
    LOCK_OUT = "lock out"  # a login that keyturn retired, and that somebody let in again
    DEPLOY = "re-apply"  # configuration objects alone, by a saved plan and its guard
    RESUME = "resume"  # let the engine finish or discard what is there, canary first


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, or that could not be told.

    ``subject`` is what it is about (a stack, a secret, consumer/ring, a file), ``aspect`` what of it; with the way they
    are the ``address``, which stays the same from run to run. ``stack`` is the stack in whose report it stands.
    ``secrets`` and ``places`` are whom a ``fix`` concerns; None is for a person. ``since`` is when it was first seen.
    """

    way: Way
    subject: str
    aspect: str
    found: Class
    what: str
    remedy: str
    stack: str = ""
    secrets: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    fix: Fix | None = None
    since: datetime | None = None

    @property
    def address(self) -> str:
        return f"{self.way}:{self.subject}:{self.aspect}"

    @property
    def counts(self) -> bool:
        """Whether it is drift."""
        return self.found in (Class.UNEXPECTED, Class.DELETED)


def unchecked(
    way: Way,
    subject: str,
    reason: object,
    remedy: str,
    secrets: tuple[str, ...] = (),
    aspect: str = "check",
    stack: str = "",
) -> Finding:
    """A finding that says what could not be checked, and why."""
    what = f"could not be checked: {reason}"
    return Finding(way, subject, aspect, Class.UNCHECKED, what, remedy, stack, secrets)
