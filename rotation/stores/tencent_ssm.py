"""Custom secrets of Tencent Cloud's Secrets Manager (SSM), which has no labels and compares nothing.

A secret's slot is the secret; Terraform makes it without a version. Consumers read the version ``SSM_Current``. What
keyturn keeps stands beside it, under version ids of its own:

- ``g0000000042``: generation 42, from when it is staged until it is dropped; ``g0000000042-r1`` is its re-wrap 1. The
  id stays right after the promotion, so a consumer's configuration can name it.
- ``g0000000042.decided``: what was decided about generation 42, ``promoting`` or ``rejected``. Whoever puts it first
  has decided. It stays until a higher generation is staged, so that 42 is not used again where it was dropped.
- ``SSM_Current``: a copy of one generation's value, overwritten in place.

To put a version id that is not there is the one atomic thing that SSM can do (PutSecretValue refuses one that is). So a
generation's value, and what is decided about it, are the first runner's. UpdateSecret, which overwrites
``SSM_Current``, compares nothing: see :class:`~rotation.stores.PromotesUnderLease` for what makes it safe.

Which generation is current is read from the values, which are compared in memory; no digest of one is kept anywhere. It
is the highest whose value ``SSM_Current`` has, of those that can have been promoted: a rollback carries an older one's
value, and has it before it is decided about. Where no generation has the value it is foreign.

At most 5 of SSM's 10 versions are in use: ``SSM_Current``, current, previous, pending (or, where a foreign version is
adopted, the candidate that gave way to it), and one decision. Before and after each change what is over is deleted:
decisions about lower generations than the highest, what a re-wrap before the last has replaced, and ``default``, which
Terraform's provider may leave; with a promotion also generations that are older than the one that it replaces.
What SSM lists is not taken from one look where it would mean that somebody else was here: it may be some moments old.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rotation.errors import Conflict, GenerationSpent, KeyturnError, LimitExceeded, StoreError, Unavailable
from rotation.model import StoreView, Version
from rotation.options import parse
from rotation.retries import retrying
from rotation.secret_value import SecretValue
from rotation.stores import PromotesUnderLease, Rewrapping, SecretStore, earlier
from rotation.tencentcloud import Cloud, Connection, Manner, connect

CURRENT = "SSM_Current"
PLACEHOLDER = "default"
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
MOST_EARLIER = 2  # generations beside the candidate: with it, a decision and SSM_Current they are 5 versions
AT_ONCE = 8  # secrets that are observed at a time: SSM allows 40 lists and 300 reads a second
_DECIDED = ".decided"
_LOOKS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # the pause in seconds before each look, while what is seen is strange


class _Missing(StoreError):
    remedy = "Deploy the stack that declares the secret, then run the command again: it resumes."


class _Disabled(StoreError):
    remedy = "Enable the secret in SSM, then run the command again: it resumes."


class _Deleted(StoreError):
    remedy = "Bring the secret back in SSM (RestoreSecret) and enable it, or take its declaration out."


class _Full(LimitExceeded):
    remedy = "SSM keeps 10 versions of a secret, keyturn at most 5: delete those of others there, then run again."


class _Taken(StoreError):
    """That version id is there."""


_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "LimitExceeded": _Full,
    "ResourceInUse.VersionIdExists": _Taken,
    "ResourceNotFound": _Missing,
    "ResourceUnavailable.ResourceDisabled": _Disabled,
    "ResourceUnavailable.ResourcePendingDeleted": _Deleted,
}


class _Dropped(Conflict):
    """That version id was there just now."""


class _Options(Connection):
    value_bytes: int = Field(default=4096, ge=1, le=32768)
    signature_life: int = Field(default=300, ge=2, le=300)

    @model_validator(mode="after")
    def _real_signatures_live_long(self) -> Self:
        host = urlsplit(self.endpoint or "").hostname
        if self.signature_life < 300 and host not in {"127.0.0.1", "localhost"}:
            raise ValueError("signature_life can be shortened only for a server on this machine, which is told so too")
        return self


class _Decision(StrEnum):
    PROMOTING = "promoting"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, order=True)
class _Leaf:
    """A staged value: a generation, or a re-wrap of it."""

    generation: int
    revision: int = 0

    _ID: ClassVar = re.compile(r"g([0-9]{10})(?:-r([1-9][0-9]*))?")

    def __str__(self) -> str:
        return f"g{self.generation:010}" + (f"-r{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, version_id: str) -> Self | None:
        """Read what :meth:`__str__` gives; None for anything else."""
        match = cls._ID.fullmatch(version_id)
        return match and cls(int(match[1]), int(match[2] or 0))

    @property
    def version(self) -> Version:
        return Version(str(self), self.generation, self.revision)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A secret at one moment. ``made`` has its versions, each with when it was made; ``current_value`` is None where
    ``SSM_Current`` is not there. ``decision`` is about the highest generation that is there or was decided about."""

    name: str
    made: Mapping[str, datetime]
    current_value: bytes | None
    values: Mapping[_Leaf, bytes]
    decision: _Decision | None

    @property
    def highest(self) -> int:
        return max((*(leaf.generation for leaf in self.values), *_decided_about(self.made)), default=0)

    @property
    def current(self) -> _Leaf | None:
        """The leaf that ``SSM_Current`` is a copy of; None where it is foreign, or not there."""
        if self.current_value is None:
            return None
        promoted = self.decision is _Decision.PROMOTING
        there = self.current_value
        return max(
            (
                leaf
                for leaf, value in self.values.items()
                if hmac.compare_digest(value, there) and (promoted or leaf.generation < self.highest)
            ),
            default=None,
        )

    @property
    def foreign(self) -> bool:
        return self.current_value is not None and self.current is None

    @property
    def current_version(self) -> Version | None:
        if self.foreign:
            return Version(CURRENT, None)
        return self.current.version if self.current else None

    @property
    def pending(self) -> _Leaf | None:
        """The highest generation until it is current, or was: no other can become it any more."""
        leaf, was = self.leaf(self.highest), self.current
        if leaf is None or (self.foreign and self.decision is _Decision.PROMOTING):
            return None
        return None if was is not None and was.generation == leaf.generation else leaf

    @property
    def earlier(self) -> list[_Leaf]:
        """The last re-wrap of each generation that is neither current nor pending: what was current before the current
        one, or before others made theirs current, and what gave way to what is adopted."""
        now = {leaf.generation for leaf in (self.current, self.pending) if leaf is not None}
        last = {leaf.generation: leaf for leaf in sorted(self.values)}
        return [leaf for generation, leaf in last.items() if generation not in now]

    @property
    def displaced(self) -> list[str]:
        """The version ids that go when another candidate is staged. Where that is to adopt a foreign version, this one
        stays, to be retired, unless its value is the one to adopt; an older generation with its value lives on in it,
        and of others the last re-wrap is enough. Without room for it, it goes, too: then the last adoption died, and it
        is what that was to adopt."""
        if self.pending is None:
            return []
        value = self.values[self.pending]
        others = [leaf for leaf in self.earlier if not hmac.compare_digest(self.values[leaf], value)]
        adopted = self.current_value is not None and hmac.compare_digest(self.current_value, value)
        if not self.foreign or adopted or len(others) >= MOST_EARLIER:
            return [str(self.pending)]
        return [str(leaf) for leaf in self.values if leaf not in (*others, self.pending)]

    @property
    def rejected(self) -> bool:
        return self.pending is not None and self.decision is _Decision.REJECTED

    @property
    def promoting(self) -> bool:
        return self.pending is not None and self.decision is _Decision.PROMOTING

    def leaf(self, generation: int) -> _Leaf | None:
        """The last re-wrap of a generation."""
        return max((leaf for leaf in self.values if leaf.generation == generation), default=None)

    @property
    def surplus(self) -> list[str]:
        """The version ids that nobody needs any more. Whole generations are never among them: what was put too late,
        by a runner that was held up, looks like a previous one, and is retired before or after it as that is."""
        leaves = [leaf for leaf in self.values if self._is_outlived(leaf)]
        decisions = [_decision_id(number) for number in _decided_about(self.made) if number < self.highest]
        return [*map(str, leaves), *decisions, *({PLACEHOLDER} & self.made.keys() if self.values else ())]

    def _is_outlived(self, leaf: _Leaf) -> bool:
        """Whether it is an envelope that no configuration names any more: of the current generation the one before the
        last may still be named, of older ones only the last."""
        if self.current is None or leaf.generation > self.current.generation:
            return False
        if leaf.generation == self.current.generation:
            return leaf.revision < self.current.revision - 1
        return leaf != self.leaf(leaf.generation)


class TencentSsm(SecretStore, Rewrapping, PromotesUnderLease):
    """Options: ``value_bytes`` (the largest value, default 4096; SSM keeps at most 32768), ``signature_life`` (how many
    seconds a signed request is good for: 300, but for an emulator that was told another number), and those of
    :class:`~rotation.tencentcloud.Connection`."""

    def __init__(self, options: Mapping[str, Any], cloud: Cloud | None = None) -> None:
        parsed = parse(_Options, options, plugin="tencent_ssm")
        self._value_bytes = parsed.value_bytes
        # A request lives for 300 s after the time that it is signed with, which may be 300 s ahead. The wait begins by
        # the clock of one runner, and ends by that of another: they may be 600 s apart, as the cloud takes what is
        # signed 300 s before or after its own time. https://www.tencentcloud.com/document/api/1105/50207
        self.settle = 4 * timedelta(seconds=parsed.signature_life)
        self._cloud = cloud or connect(parsed)
        self._seen: dict[str, int] = {}  # the highest generation that was ever seen here, by name
        self._holds: Callable[[], None] = _nobody

    def under(self, holds: Callable[[], None]) -> Self:
        leased = copy(self)
        leased._holds = holds
        return leased

    def observe(self, names: Sequence[str], *, fresh: bool = False) -> dict[str, StoreView]:  # noqa: ARG002
        """A list and up to five reads for each name, of up to 8 names at a time; all of it is fresh."""
        wanted = dict.fromkeys(names)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(self._observe_one, wanted), strict=True))

    def predict(self, name: str, generation: int) -> Version:  # noqa: ARG002
        return _Leaf(generation).version

    def read(self, name: str, version: Version | None = None) -> SecretValue:
        return SecretValue(_text(name, self._read(name, CURRENT if version is None else version.version_id)))

    def stage(self, name: str, generation: int, value: SecretValue) -> SecretValue:
        self._check_limits(name, value)
        seen = self._look(name)
        there = seen.leaf(generation)
        if there is not None:
            return SecretValue(seen.values[there].decode())
        if generation <= seen.highest:
            raise GenerationSpent(f"generation {generation} of the secret {name} was used before", seen.highest)
        self._displace(seen)
        self._sweep(seen)
        leaf = str(_Leaf(generation))
        try:
            winner = self._put(name, leaf, value.reveal().encode())
        except _Dropped as error:
            raise GenerationSpent(
                f"generation {generation} of the secret {name} was used before", generation
            ) from error
        self._sweep(self._look(name, lambda now: leaf in now.made))
        return SecretValue(winner.decode())

    def promote(self, name: str, generation: int, expected: Version | None) -> None:
        seen = self._look(name)
        if not _is_current(seen, generation):
            value = seen.values[self._pending(seen, generation)]
            if _id(seen.current_version) != _id(expected):
                raise Conflict(f"the secret {name} has another current version than expected")
            self._decide(seen, generation, _Decision.PROMOTING)
            self._place(name, value)
            # A rollback is staged while the generation is kept whose value it carries: that lives on in it.
            carried = [str(leaf) for leaf in seen.values if expected and leaf.generation < (expected.generation or 0)]
            seen = self._look(name, lambda now: _is_current(now, generation))
            self._delete(name, carried)
        self._sweep(seen)

    def confirm(self, name: str, generation: int) -> None:
        self._holds()
        if not _is_current(self._look(name), generation):
            raise Conflict(f"generation {generation} of the secret {name} is no longer current: it was overwritten")

    def reject(self, name: str, generation: int) -> None:
        seen = self._look(name)
        self._pending(seen, generation)
        self._decide(seen, generation, _Decision.REJECTED)

    def discard(self, name: str, generation: int) -> None:
        seen = self._look(name)
        if _is_current(seen, generation):
            raise Conflict(f"generation {generation} of the secret {name} is current")
        if seen.pending is not None and seen.pending.generation == generation and not seen.rejected:
            raise Conflict(f"generation {generation} of the secret {name} is pending and not rejected")
        self._delete(name, [str(leaf) for leaf in seen.values if leaf.generation == generation])
        self._look(name, lambda now: now.leaf(generation) is None)

    def rewrap(self, name: str, expected: Version, value: SecretValue) -> Version:
        self._check_limits(name, value)
        if expected.generation is None:
            raise Conflict(f"the current version of the secret {name} is foreign", "Adopt it first: `keyturn adopt`.")
        leaf = _Leaf(expected.generation, expected.revision + 1)
        seen = self._look(name)
        if seen.current != leaf:
            if seen.current_version != expected or seen.pending is not None or seen.earlier:
                raise Conflict(f"the secret {name} is being rotated, or was re-wrapped by someone else")
            self._sweep(seen)
            self._place(name, self._put(name, str(leaf), value.reveal().encode()))
            seen = self._look(name, lambda now: now.current == leaf)
        self._sweep(seen)
        return leaf.version

    # what is there

    def _observe_one(self, name: str) -> StoreView:
        try:
            seen = self._look(name)
        except _Missing:
            return StoreView(name, exists=False)
        except StoreError as error:  # a refusal of this secret alone
            return StoreView(name, exists=False, trouble=error)
        previous, kept = earlier(leaf.version for leaf in seen.earlier)
        return StoreView(
            name=name,
            reference=name,
            current=seen.current_version,
            pending=seen.pending.version if seen.pending else None,
            previous=previous,
            kept=kept,
            rejected=seen.rejected,
            promoting=seen.promoting,
            highest=seen.highest,
            changed_at=max(seen.made.values(), default=None),
        )

    def _look(self, name: str, shows: Callable[[_Seen], bool] | None = None) -> _Seen:
        """The secret as it is, and shows what was just written. ``_Missing`` where there is no slot.

        A look that finds something strange may be of an old state, and is repeated: a foreign version, a lower
        generation than before, a listed version that is not there. Raises :class:`Conflict` where what was written
        does not show, because somebody else has written too.
        """
        if not NAME.fullmatch(name):
            raise _Missing(f"SSM has no secret of the name {name[:60]!r}: it allows letters, digits, - and _")
        seen = None
        for pause in _LOOKS:
            time.sleep(pause)
            seen = self._glance(name)
            if seen is not None and (shows(seen) if shows else not seen.foreign):
                return seen
        if seen is None:
            raise Unavailable(f"the secret {name} does not stay the same while it is looked at")
        if shows is not None:
            raise Conflict(f"the secret {name} does not show what was written: somebody else has changed it too")
        return seen

    def _glance(self, name: str) -> _Seen | None:
        """One look; None where it is not of one moment, or of a moment before an earlier look."""
        made = self._versions(name)
        leaves = [leaf for leaf in map(_Leaf.parse, made) if leaf is not None]
        highest = max((*(leaf.generation for leaf in leaves), *_decided_about(made)), default=0)
        if highest < self._seen.get(name, 0):
            return None
        self._seen[name] = highest
        try:
            current = self._read(name, CURRENT) if CURRENT in made else None
            values = {leaf: self._read(name, str(leaf)) for leaf in leaves}
            decided = self._read(name, _decision_id(highest)).decode() if _decision_id(highest) in made else None
        except _Missing:
            return None
        return _Seen(name, made, current, values, None if decided is None else _decision(name, decided))

    def _versions(self, name: str) -> dict[str, datetime]:
        """The version ids that SSM lists, each with when it was made."""
        listed = self._ask("ListSecretVersionIds", {"SecretName": name}, f"list the secret {name}", "SecretName")
        versions = listed.get("Versions") or []  # null where there is none
        return {each["VersionId"]: datetime.fromtimestamp(each["CreateTime"], UTC) for each in versions}

    def _read(self, name: str, version_id: str) -> bytes:
        """A version's value, as UTF-8. ``_Missing`` where it is not there."""
        what = f"read version {version_id} of the secret {name}"
        answer = self._ask("GetSecretValue", {"SecretName": name, "VersionId": version_id}, what, "SecretString")
        if answer["SecretString"]:
            return str(answer["SecretString"]).encode()
        return base64.b64decode(answer.get("SecretBinary") or "")  # the field that is not in use comes empty

    # changes

    def _pending(self, seen: _Seen, generation: int) -> _Leaf:
        if seen.pending is None or seen.pending.generation != generation:
            raise Conflict(f"generation {generation} of the secret {seen.name} is not pending")
        return seen.pending

    def _displace(self, seen: _Seen) -> None:
        """Take the candidate out of the way of the next one, unless it is being promoted."""
        if seen.pending is not None:
            with suppress(_Dropped):  # by who does the same: the decision goes when the next generation is there
                self._decide(seen, seen.pending.generation, _Decision.REJECTED)
            self._delete(seen.name, seen.displaced)

    def _decide(self, seen: _Seen, generation: int, decision: _Decision) -> None:
        """Put what is decided; :class:`Conflict` where the opposite was decided first."""
        self._sweep(seen)
        standing = self._put(seen.name, _decision_id(generation), decision.encode()).decode()
        if _decision(seen.name, standing) is not decision:
            raise Conflict(f"generation {generation} of the secret {seen.name} is {standing}")

    def _place(self, name: str, value: bytes) -> None:
        """Make the value what consumers read. Each request is bound to the lease; see :class:`PromotesUnderLease`."""

        def attempt() -> None:
            there = self._current_value(name)
            if there == value:
                return  # also where an earlier attempt was applied and its answer was lost
            what = f"make a version of the secret {name} current"
            action = "UpdateSecret" if there is not None else "PutSecretValue"
            parameters = {"SecretName": name, "VersionId": CURRENT, "SecretString": _text(name, value)}
            self._cloud.call_once("ssm", action, parameters, _manner(what), holds=self._holds)

        try:
            retrying(attempt)
        except _Taken as error:  # the first value of all, and another runner was faster
            if self._taken(name, CURRENT) != value:
                raise Conflict(f"the secret {name} has another current version than expected") from error

    def _current_value(self, name: str) -> bytes | None:
        try:
            return self._read(name, CURRENT)
        except _Missing:
            return None

    def _put(self, name: str, version_id: str, value: bytes) -> bytes:
        """Put a value where none is; return the one that is there."""
        parameters = {"SecretName": name, "VersionId": version_id, "SecretString": value.decode()}
        try:
            self._ask("PutSecretValue", parameters, f"put version {version_id} into the secret {name}")
        except _Taken:
            return self._taken(name, version_id)
        return value

    def _taken(self, name: str, version_id: str) -> bytes:
        """The value of a version that SSM has just refused to put again, though it may not be shown yet."""
        for pause in _LOOKS:
            time.sleep(pause)
            with suppress(_Missing):
                return self._read(name, version_id)
        raise _Dropped(f"version {version_id} of the secret {name} was there, and is dropped")

    def _sweep(self, seen: _Seen) -> None:
        self._delete(seen.name, seen.surplus)

    def _delete(self, name: str, version_ids: Iterable[str]) -> None:
        for version_id in version_ids:
            with suppress(_Missing):
                what = f"delete version {version_id} of the secret {name}"
                self._ask("DeleteSecretVersion", {"SecretName": name, "VersionId": version_id}, what)

    def _ask(self, action: str, parameters: Mapping[str, Any], doing: str, *requires: str) -> dict[str, Any]:
        return self._cloud.call("ssm", action, parameters, _manner(doing, *requires))

    def _check_limits(self, name: str, value: SecretValue) -> None:
        if not NAME.fullmatch(name):
            raise LimitExceeded(
                f"SSM keeps no secret of the name {name[:60]!r} ({len(name)} characters)",
                "Use letters, digits, - and _, at most 128 characters in all.",
            )
        size = len(value.reveal().encode())
        if not 1 <= size <= self._value_bytes:
            raise LimitExceeded(f"the new value of {name} has {size} bytes: 1 to {self._value_bytes} are allowed")


def _nobody() -> None:
    raise StoreError("Tencent SSM compares nothing, so only a runner that holds a lease may change what is current")


def _manner(doing: str, *requires: str) -> Manner:
    return Manner(doing, StoreError, _REFUSALS, requires, quiet=True)


def _decision_id(generation: int) -> str:
    return f"{_Leaf(generation)}{_DECIDED}"


def _decided_about(version_ids: Iterable[str]) -> list[int]:
    """The generations about which decisions are kept."""
    leaves = (_Leaf.parse(each.removesuffix(_DECIDED)) for each in version_ids if each.endswith(_DECIDED))
    return [leaf.generation for leaf in leaves if leaf is not None]


def _decision(name: str, text: str) -> _Decision:
    try:
        return _Decision(text)
    except ValueError:
        # Not to be deleted: that would let a generation be rejected whose promotion may still be on its way.
        raise StoreError(
            f"what was decided about a generation of the secret {name} was altered",
            f"Put {' or '.join(_Decision)} back into its version g…{_DECIDED} (see `keyturn audit`), then run again.",
        ) from None


def _text(name: str, value: bytes) -> str:
    with suppress(UnicodeDecodeError):  # which holds the value, so it is nobody's context
        return value.decode()
    raise StoreError(f"a value of the secret {name} is no text", "Put one that is text in its place.")


def _is_current(seen: _Seen, generation: int) -> bool:
    return seen.current is not None and seen.current.generation == generation


def _id(version: Version | None) -> str | None:
    return version.version_id if version is not None else None
