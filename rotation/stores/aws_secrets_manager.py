"""AWS Secrets Manager.

Generation g of a secret is the version with the id ``g%010d-<uuid5 of name and generation>``, and its re-wrap r the
version ``g%010d-r%03d-<uuid5>``. A version that Secrets Manager itself asked for has the id that it chose, and says its
generation by a label. Any other version is foreign. What is going on stands in staging labels:

- AWSCURRENT, AWSPREVIOUS, AWSPENDING: as AWS uses them.
- KEYTURN_OPEN: on the pending version while nobody has decided about it. A decision moves it, away from the version
  it decides about, to one of two marker versions, which hold a constant text and no secret: *accepted* (from now on it
  can only be promoted) or *rejected* (it never can be). AWS compares the version that a label is moved from, so exactly
  one of any number of runners decides, and everyone can see how. The markers are made when first needed, and kept
  alive by a label of their own (KEYTURN_ACCEPTED, KEYTURN_REJECTED).
- KEYTURN_REWRAP: on the newest re-wrap.
- KEYTURN_G0000000042: on the version of generation 42 where its id does not say so. It is attached by the same
  PutSecretValue as the value, and taken off when the version is dropped: a secret has 20 labels in all.
- KEYTURN_KEPT_G0000000042: on generation 42 where it waits to be discarded and AWS's own labels leave it: it was a
  candidate, or AWSPREVIOUS, when a foreign version was adopted.
- KEYTURN_CLAIM: on the newest claim. A claim is a version with the id that the generation would have here, with a
  constant text. It is put before the version with the other id: PutSecretValue with a token that is in use is refused,
  so no two versions can be of one generation, and a dropped one stays spent.

The decision is a move and never a removal, as AWS documents that a label which is attached elsewhere is not moved, and
says nothing on moving one that is attached nowhere.

A secret's very first version gets AWSCURRENT from AWS by itself (PutSecretValue, API reference) whatever labels were
asked for. While it is pending and not accepted it does not count as current; dropping it leaves AWSCURRENT on the
marker *rejected*, which does not count either.

AWS is eventually consistent: DescribeSecret is fresher than ListSecrets, which "might not reflect changes from the last
five minutes" (API reference). Nothing here is decided by a look alone: every change is compared by the server.
"""

from __future__ import annotations

import contextlib
import os.path
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from rotation.aws import CONFIG, Quota, ask, connect, pages
from rotation.errors import Conflict, GenerationSpent, KeyturnError, LimitExceeded, StoreError, Unavailable
from rotation.model import StoreView, Version
from rotation.retries import until
from rotation.secret_value import SecretValue
from rotation.stores import Rewrapping, SecretStore, TokenStaging, earlier

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager.type_defs import (
        DescribeSecretResponseTypeDef,
        FilterTypeDef,
        SecretListEntryTypeDef,
    )

T = TypeVar("T")

CURRENT, PREVIOUS, PENDING = "AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"
OPEN, REWRAP, CLAIM = "KEYTURN_OPEN", "KEYTURN_REWRAP", "KEYTURN_CLAIM"

_KEPT = "KEYTURN_KEPT_G"  # and the generation

# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
VALUE_BYTES = 65_536
NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
PAGE = 100
_WRITES = Quota("writes", 50)
_READS = Quota("reads", 10_000)
QUOTAS = {
    "PutSecretValue": _WRITES,
    "UpdateSecretVersionStage": _WRITES,
    "DescribeSecret": _READS,
    "GetSecretValue": _READS,
    "ListSecrets": Quota("ListSecrets", 100),
    "ListSecretVersionIds": Quota("ListSecretVersionIds", 50),
}
FEW = 10  # up to here one fresh DescribeSecret for each name, beyond it pages of ListSecrets
AT_ONCE = 8  # of these

_NAMESPACE = uuid.UUID("6b1f4a1e-51a5-4b0e-9a0c-0f2f8a3f7c11")
_VERSION_ID = re.compile(r"g(?P<generation>\d{10})(-r(?P<revision>\d{3,}))?-.{36}")
_GENERATION_LABEL = re.compile(r"KEYTURN_G(?P<generation>\d{10})")
_MARKER = "keyturn-"  # what a marker's version id begins with
_MARKER_TEXT = "keyturn keeps this version as a marker; it holds no secret"


class _Exists(StoreError):
    """The version is there, with another value."""


class _Refused(StoreError):
    """The server compared, and something else is there."""


class _Missing(StoreError):
    remedy = "Deploy the stack that declares the secret, then run the command again: it resumes."


_REFUSALS: Mapping[str, type[KeyturnError]] = {
    "ResourceExistsException": _Exists,
    "InvalidParameterException": _Refused,
    "ResourceNotFoundException": _Missing,
    "LimitExceededException": LimitExceeded,
}


class _Decision(Enum):
    OPEN = "undecided"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


def _version_id(name: str, generation: int, revision: int = 0) -> str:
    fingerprint = uuid.uuid5(_NAMESPACE, f"{name}\n{generation}\n{revision}")
    return f"g{generation:010d}-r{revision:03d}-{fingerprint}" if revision else f"g{generation:010d}-{fingerprint}"


def _version(name: str, version_id: str) -> Version:
    """Read a version id. It is foreign unless it is exactly what this secret's generation would get."""
    match = _VERSION_ID.fullmatch(version_id)
    if match:
        generation, revision = int(match["generation"]), int(match["revision"] or 0)
        if version_id == _version_id(name, generation, revision):
            return Version(version_id, generation, revision)
    return Version(version_id, None)


def _generation_label(generation: int) -> str:
    return f"KEYTURN_G{generation:010d}"


def _kept_label(generation: int) -> str:
    return f"{_KEPT}{generation:010d}"


def _keeps(label: str) -> bool:
    """Whether a version with this label is not dropped."""
    return label in {CURRENT, PREVIOUS, PENDING} or label.startswith(_KEPT)


def _marker_id(name: str, decision: _Decision) -> str:
    fingerprint = uuid.uuid5(_NAMESPACE, f"{name}\n{decision.value}")
    return f"{_MARKER}{decision.value}-{fingerprint}"


@dataclass(frozen=True, slots=True)
class _Labels:
    """One secret's staging labels, each with the id of the version that holds it."""

    name: str
    holders: Mapping[str, str]

    @classmethod
    def of(cls, name: str, versions: Mapping[str, Sequence[str]]) -> _Labels:
        return cls(name, {label: version_id for version_id, labels in versions.items() for label in labels})

    def _holder(self, label: str) -> Version | None:
        """The version with a label; None where there is none or only a marker."""
        version_id = self.holders.get(label)
        return None if version_id is None or self._is_marker(version_id) else self.version(version_id)

    def _is_marker(self, version_id: str) -> bool:
        # Fingerprints are made only for what looks like one: a list of an estate asks this for every label.
        return version_id.startswith(_MARKER) and version_id in {_marker_id(self.name, d) for d in _Decision}

    def version(self, version_id: str) -> Version:
        """Read a version id, or the one label that says its generation where the id does not."""
        found = _version(self.name, version_id)
        labels = self.generation_labels(version_id) if found.generation is None else ()
        return Version(version_id, int(labels[0].removeprefix("KEYTURN_G"))) if len(labels) == 1 else found

    def generation_labels(self, version_id: str) -> tuple[str, ...]:
        """The labels on a version that say a generation."""
        return tuple(label for label, holder in self._generations if holder == version_id)

    @property
    def _generations(self) -> list[tuple[str, str]]:
        return [(label, holder) for label, holder in self.holders.items() if _GENERATION_LABEL.fullmatch(label)]

    @property
    def stale(self) -> tuple[str, ...]:
        """The labels that say the generation of a version that was dropped: a run died before it took them off."""
        alive = {holder for label, holder in self.holders.items() if _keeps(label)}
        return tuple(label for label, holder in self._generations if holder not in alive)

    @property
    def decision(self) -> _Decision:
        """What was decided about the pending version; meaningless where nothing is pending."""
        holder = self.holders.get(OPEN)
        if holder is not None and holder == self.holders.get(PENDING):
            return _Decision.OPEN
        return _Decision.REJECTED if holder == _marker_id(self.name, _Decision.REJECTED) else _Decision.ACCEPTED

    def decision_on(self, generation: int) -> _Decision | None:
        """What was decided about a generation; None where it is neither current nor pending."""
        if self.current is not None and self.current.generation == generation:
            return _Decision.ACCEPTED
        return self.decision if self.pending is not None and self.pending.generation == generation else None

    @property
    def current(self) -> Version | None:
        given_by_aws = self.holders.get(CURRENT) == self.holders.get(PENDING) and self.decision != _Decision.ACCEPTED
        return None if given_by_aws else self._holder(CURRENT)

    @property
    def pending(self) -> Version | None:
        pending = self._holder(PENDING)
        return None if pending == self.current else pending

    @property
    def previous(self) -> Version | None:
        previous, current = self._holder(PREVIOUS), self.current
        if previous is None or previous == self.pending:
            return None
        rewrapped = current is not None and current.generation is not None and current.generation == previous.generation
        return None if rewrapped else previous

    @property
    def earlier(self) -> tuple[Version | None, tuple[Version, ...]]:
        """``previous`` and ``kept`` of a view."""
        kept = (self.version(holder) for label, holder in self.holders.items() if label.startswith(_KEPT))
        now = (self.current, self.pending)
        previous, others = earlier(version for version in (self.previous, *kept) if version not in now)
        return previous or self.previous, others  # of foreign ones at least that one is shown

    @property
    def highest(self) -> int:
        return max((self.version(holder).generation or 0 for holder in self.holders.values()), default=0)


class AwsSecretsManager(SecretStore, Rewrapping, TokenStaging):
    """Options: ``region`` (default: boto3's own). Endpoint and credentials come from boto3's standard chain."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._client = connect(lambda session: session.client("secretsmanager", config=CONFIG), options, QUOTAS)

    def observe(self, names: Sequence[str], *, fresh: bool = False) -> dict[str, StoreView]:
        """One DescribeSecret per name for up to 10 names, or where it is to be ``fresh``; else one ListSecrets per 100
        secrets whose names begin as all of ``names`` do, which may be five minutes behind."""
        wanted = dict.fromkeys(names)
        if fresh or len(wanted) <= FEW:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                return dict(zip(wanted, pool.map(self._observe_one, wanted), strict=True))
        views = {name: StoreView(name, exists=False) for name in wanted}
        missing = set(wanted)
        prefix = os.path.commonprefix(list(wanted))  # noqa: RUF071 - AWS's filter knows no path parts either
        for entry in self._list(prefix):
            if (name := entry["Name"]) in missing:
                labels = _Labels.of(name, entry.get("SecretVersionsToStages", {}))
                views[name] = _view(labels, entry["ARN"], entry.get("LastChangedDate") or entry.get("CreatedDate"))
                missing.remove(name)
                if not missing:
                    break
        return views

    def predict(self, name: str, generation: int) -> Version:
        return Version(_version_id(name, generation), generation)

    def read(self, name: str, version: Version | None = None) -> SecretValue:
        if version is None:
            version = self._look(name).current
            if version is None:
                raise StoreError(f"the secret {name} has no current value", "Run `keyturn rotate` to give it one.")
        version_id = version.version_id
        reply = self._ask(
            f"read version {version_id} of the secret {name}",
            lambda: self._client.get_secret_value(SecretId=name, VersionId=version_id),
        )
        if reply.get("VersionId") != version_id:
            raise Unavailable(f"the answer on version {version_id} of the secret {name} was incomplete")
        if "SecretString" not in reply:
            raise StoreError(f"version {version_id} of the secret {name} is binary: keyturn keeps text")
        return SecretValue(reply["SecretString"])

    def stage(self, name: str, generation: int, value: SecretValue) -> SecretValue:
        _check_limits(name, value)
        version_id = _version_id(name, generation)
        seen = self._look(name)
        if _is_foreign(seen.current) and seen.pending is not None and seen.pending.generation != generation:
            self._keep(seen, seen.pending)
        try:
            labels, ours = self._put(name, version_id, value, [PENDING, OPEN]), True
        except _Exists:
            labels, ours = self._labels_of(name, version_id), False
        if not any(map(_keeps, labels)):
            # AWS also answers success, and changes nothing, when a dropped version is put again with its own value.
            return self.read(name, self._claimed(name, generation))
        return value if ours else self.read(name, self.predict(name, generation))

    def stage_token(self, name: str, token: str, generation: int, value: SecretValue) -> None:
        _check_limits(name, value)
        labels = self._look(name)
        if labels.holders.get(PENDING) != token:
            raise Conflict(f"version {token} of the secret {name} is not pending")
        if labels.version(token).generation is not None:
            return
        for label in labels.stale:
            self._move(name, label, source=labels.holders[label])
        self._claim(name, generation)
        with contextlib.suppress(_Exists):  # put by another call for the same token: its value is the one
            self._put(name, token, value, [PENDING, OPEN, _generation_label(generation)])

    def release_token(self, name: str, token: str) -> None:
        labels = self._look(name)
        if labels.holders.get(PENDING) == token and labels.version(token).generation is None:
            self._move(name, PENDING, source=token)

    def _claim(self, name: str, generation: int) -> None:
        """Take a generation. GenerationSpent where it is taken: then it is not known by whom."""
        claim = _version_id(name, generation)
        try:
            self._put(name, claim, SecretValue(f"{_MARKER_TEXT} ({uuid.uuid4()})"), [CLAIM])
        except _Exists as taken:
            raise self._spent(name, generation, self._all_versions(name)) from taken

    def _claimed(self, name: str, generation: int) -> Version:
        """The living version with an id of AWS's choice that is of this generation. GenerationSpent without one."""
        versions = self._all_versions(name)
        for version_id, labels in versions.items():
            if _generation_label(generation) in labels and any(map(_keeps, labels)):
                return Version(version_id, generation)
        raise self._spent(name, generation, versions)

    def _spent(self, name: str, generation: int, versions: Iterable[str]) -> GenerationSpent:
        highest = max(_version(name, known).generation or 0 for known in versions)
        return GenerationSpent(f"generation {generation} of the secret {name} was used and dropped before", highest)

    def promote(self, name: str, generation: int, expected: Version | None) -> None:
        labels = self._look(name)
        if labels.current is None or labels.current.generation != generation:
            candidate = self._check_order(labels, generation, expected)
            self._decide(labels, generation, _Decision.ACCEPTED)
            if _is_foreign(labels.current) and labels.previous is not None:
                self._keep(labels, labels.previous)  # AWS puts its label on the foreign version
            labels = self._make_current(labels, candidate.version_id)
            if labels.current is None or labels.current.generation != generation:
                raise Conflict(f"generation {generation} of the secret {name} is not promoted: another became current")
        if labels.holders.get(PENDING) == labels.current.version_id:
            self._move(name, PENDING, source=labels.holders[PENDING])

    def reject(self, name: str, generation: int) -> None:
        labels = self._look(name)
        _check_pending(labels, generation)
        self._decide(labels, generation, _Decision.REJECTED)

    def discard(self, name: str, generation: int) -> None:
        labels = self._look(name)
        if labels.current is not None and labels.current.generation == generation:
            raise Conflict(f"generation {generation} of the secret {name} is current")
        if labels.pending is not None and labels.pending.generation == generation:
            if labels.decision is not _Decision.REJECTED:
                raise Conflict(f"generation {generation} of the secret {name} is pending and not rejected")
            if labels.holders.get(CURRENT) == labels.holders[PENDING]:
                labels = self._make_current(labels, _marker_id(name, _Decision.REJECTED))
        self._drop(labels, generation, PREVIOUS, PENDING, _kept_label(generation))

    def rewrap(self, name: str, expected: Version, value: SecretValue) -> Version:
        _check_limits(name, value)
        if expected.generation is None:
            raise Conflict(f"the current version of the secret {name} is foreign", "Adopt it first: `keyturn adopt`.")
        revision = expected.revision + 1
        new = Version(_version_id(name, expected.generation, revision), expected.generation, revision)
        labels = self._look(name)
        if labels.current != new:
            if labels.current != expected or labels.pending or labels.previous or labels.earlier[1]:
                raise Conflict(f"the secret {name} is being rotated, or was re-wrapped by someone else")
            labels = self._add_rewrap(labels, new, value)
        if labels.holders.get(PREVIOUS) == expected.version_id:
            self._drop(labels, expected.generation, PREVIOUS)
        return new

    def _add_rewrap(self, labels: _Labels, new: Version, value: SecretValue) -> _Labels:
        with contextlib.suppress(_Exists):  # another runner's envelope, or an earlier run's, of the same text
            self._put(labels.name, new.version_id, value, [REWRAP])
        labels = self._make_current(labels, new.version_id)
        if labels.current != new:
            raise Conflict(f"the secret {labels.name} was changed while it was re-wrapped")
        return labels

    def _keep(self, labels: _Labels, version: Version) -> None:
        """Let a version be found that AWS's own labels are about to leave, unless it is foreign."""
        if version.generation is not None and _kept_label(version.generation) not in labels.holders:
            self._move(labels.name, _kept_label(version.generation), source=None, to=version.version_id)

    def _drop(self, labels: _Labels, generation: int, *among: str) -> None:
        """Take those of the labels that a generation has off it, in their order, so that what is pending is found again
        after a crash; and what said its generation after that, or a foreign version could be left."""
        there = {label: labels.holders[label] for label in among if label in labels.holders}
        has = {label: holder for label, holder in there.items() if labels.version(holder).generation == generation}
        says = {label: holder for holder in has.values() for label in labels.generation_labels(holder)}
        for label, holder in (has | says).items():
            self._move(labels.name, label, source=holder)

    def _check_order(self, labels: _Labels, generation: int, expected: Version | None) -> Version:
        candidate = _check_pending(labels, generation)
        if (labels.current and labels.current.version_id) != (expected and expected.version_id):
            raise Conflict(f"the secret {labels.name} has another current version than expected")
        if expected is not None and (expected.generation or 0) > generation:
            raise Conflict(f"the secret {labels.name} is past generation {generation}: current never goes back")
        return candidate

    def _decide(self, labels: _Labels, generation: int, wanted: _Decision) -> None:
        """Decide about the pending generation, unless it is decided. Conflict when it was decided otherwise."""
        name, version_id = labels.name, labels.holders[PENDING]
        if labels.decision is _Decision.OPEN:
            marker = self._marker(labels, wanted)
            if self._move(name, OPEN, source=version_id, to=marker):
                return
            labels = until(
                lambda: self._look(name),
                lambda seen: seen.holders.get(OPEN) != version_id,
                what=f"the decision about generation {generation} of the secret {name}",
            )
        if labels.decision_on(generation) is not wanted:
            raise Conflict(f"someone else decided about generation {generation} of the secret {name}")

    def _marker(self, labels: _Labels, decision: _Decision) -> str:
        """The id of a marker version, which is made where it is missing."""
        marker, label = _marker_id(labels.name, decision), f"KEYTURN_{decision.name}"
        if labels.holders.get(label) != marker:
            self._put(labels.name, marker, SecretValue(_MARKER_TEXT), [label])
        return marker

    def _make_current(self, labels: _Labels, version_id: str) -> _Labels:
        """Move AWSCURRENT from where ``labels`` saw it; return the labels once they show who won."""
        name, source = labels.name, labels.holders.get(CURRENT)
        if source == version_id:
            return self._look(name)
        self._move(name, CURRENT, source=source, to=version_id)
        return until(
            lambda: self._look(name),
            lambda seen: seen.holders.get(CURRENT) != source,
            what=f"the new current version of the secret {name}",
        )

    def _move(self, name: str, label: str, *, source: str | None, to: str | None = None) -> bool:
        """Move a label, or take it off. False when ``source`` does not hold it (any more)."""
        versions = {"RemoveFromVersionId": source, "MoveToVersionId": to}
        given = {parameter: version_id for parameter, version_id in versions.items() if version_id is not None}
        try:
            self._ask(
                f"move {label} on the secret {name}",
                lambda: self._client.update_secret_version_stage(SecretId=name, VersionStage=label, **given),
            )
        except _Refused:
            return False
        return True

    def _put(self, name: str, version_id: str, value: SecretValue, labels: Sequence[str]) -> list[str]:
        """Put a version; return the labels that it has now."""
        reply = self._ask(
            f"put version {version_id} of the secret {name}",
            lambda: self._client.put_secret_value(
                SecretId=name, ClientRequestToken=version_id, SecretString=value.reveal(), VersionStages=labels
            ),
            quiet=True,
        )
        return list(reply.get("VersionStages", ()))

    def _labels_of(self, name: str, version_id: str) -> list[str]:
        """The labels of a version that is known to be there, even if AWS is slow to list it."""
        known = until(
            lambda: self._all_versions(name),
            lambda versions: version_id in versions,
            what=f"version {version_id} of the secret {name}",
        )
        return known[version_id]

    def _all_versions(self, name: str) -> dict[str, list[str]]:
        """Every version with its labels, also those without any."""
        listed = pages(
            lambda more: self._ask(
                f"list the versions of the secret {name}",
                lambda: self._client.list_secret_version_ids(
                    SecretId=name, IncludeDeprecated=True, MaxResults=PAGE, **more
                ),
            ),
            sends="NextToken",
            reads="NextToken",
        )
        return {entry["VersionId"]: entry.get("VersionStages", []) for reply in listed for entry in reply["Versions"]}

    def _look(self, name: str) -> _Labels:
        """The labels as they are now. StoreError where the secret is not there or about to be deleted."""
        reply = self._describe(name)
        if "DeletedDate" in reply:
            raise StoreError(f"the secret {name} is scheduled for deletion", "Restore it, then run the command again.")
        return _Labels.of(name, reply.get("VersionIdsToStages", {}))

    def _describe(self, name: str) -> DescribeSecretResponseTypeDef:
        return self._ask(f"look at the secret {name}", lambda: self._client.describe_secret(SecretId=name))

    def _observe_one(self, name: str) -> StoreView:
        try:
            reply = self._describe(name)
        except _Missing:
            return StoreView(name, exists=False)
        if "DeletedDate" in reply:
            return StoreView(name, exists=False)
        labels = _Labels.of(name, reply.get("VersionIdsToStages", {}))
        return _view(labels, reply["ARN"], reply.get("LastChangedDate") or reply.get("CreatedDate"))

    def _list(self, prefix: str) -> Iterator[SecretListEntryTypeDef]:
        filters: list[FilterTypeDef] = [{"Key": "name", "Values": [prefix]}] if prefix else []
        listed = pages(
            lambda more: self._ask(
                "list the secrets", lambda: self._client.list_secrets(MaxResults=PAGE, Filters=filters, **more)
            ),
            sends="NextToken",
            reads="NextToken",
        )
        return (entry for reply in listed for entry in reply["SecretList"])

    def _ask(self, doing: str, call: Callable[[], T], *, quiet: bool = False) -> T:
        return ask(call, doing, _REFUSALS, StoreError, quiet)


def _is_foreign(version: Version | None) -> bool:
    return version is not None and version.generation is None


def _view(labels: _Labels, arn: str, changed_at: datetime | None) -> StoreView:
    previous, kept = labels.earlier
    return StoreView(
        name=labels.name,
        reference=arn,
        current=labels.current,
        pending=labels.pending,
        previous=previous,
        kept=kept,
        rejected=labels.pending is not None and labels.decision is _Decision.REJECTED,
        promoting=labels.pending is not None and labels.decision is _Decision.ACCEPTED,
        highest=labels.highest,
        changed_at=changed_at and changed_at.astimezone(UTC),
    )


def _check_pending(labels: _Labels, generation: int) -> Version:
    if labels.pending is None or labels.pending.generation != generation:
        raise Conflict(f"generation {generation} of the secret {labels.name} is not pending")
    return labels.pending


def _check_limits(name: str, value: SecretValue) -> None:
    if not NAME.fullmatch(name):
        raise LimitExceeded(
            f"AWS allows no secret of the name {name[:60]!r} ({len(name)} characters)",
            "Use 1 to 512 letters, digits and any of /_+=.@-",
        )
    size = len(value.reveal().encode())
    if not 1 <= size <= VALUE_BYTES:
        raise LimitExceeded(f"the new value of {name} has {size} bytes: AWS keeps 1 to {VALUE_BYTES} bytes")
