"""Version 2 of the KV engine of HashiCorp Vault and OpenBao.

A secret's slot is its metadata: ``<mount>/metadata/<name>`` must be there, with or without a version (a write of
``custom_metadata``, even of an empty one, makes it). Ordinary consumers read ``<mount>/data/<name>``. What keyturn
keeps lies beside it, below ``_rotation/<name>/``:

- ``g42``: generation 42, from when it is staged until it is dropped; ``g42-r1`` is its re-wrap 1. Its path is its
  version id, so a consumer's configuration can name it while it is pending, and it stays right after the promotion.
- ``ledger``: which generation is current, pending or previous, and what was decided (rotation/kv_ledger.py). It is the
  truth; custom metadata could not be it, which Vault does not compare when it is written.

Every write names the version that it replaces (``cas``), so it never overwrites what its writer has not seen. To
promote, the ledger first says what is to become the version after which one; then ``<name>`` is written; then the
ledger notes version and creation time. Where a run died before the last, the value that is there is compared with the
value that was to be there: only then does :meth:`VaultKv.observe` read values. A version of ``<name>`` that the ledger
does not know is foreign. So is one that is deleted: undelete it.

A value that is a JSON object of texts, whole numbers, truths and nulls is kept as the fields of its entry (it comes
back as the same object, not always in the same order); any other text as the one field ``value``.

Neither ``max_versions`` (1 is enough) nor ``cas_required`` nor deletions in ``_rotation/`` that can be undone disturb
this. Metadata that is deleted takes the version numbers along: generations then go on from the ledger, and without that
from the leaves that are left. https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import hvac
from pydantic import Field, ValidationError

from rotation.errors import (
    Conflict,
    GenerationSpent,
    KeyturnError,
    LimitExceeded,
    StoreError,
    Unauthorized,
    Unavailable,
)
from rotation.kv_ledger import Decision, Leaf, Ledger
from rotation.model import StoreView, Version
from rotation.options import parse
from rotation.secret_value import SecretValue
from rotation.stores import Rewrapping, SecretStore, earlier
from rotation.vault import Connection, connect

T = TypeVar("T")

FOLDER = "_rotation"
LEDGER = "ledger"

# The smallest of Vault's storages, Consul, keeps 512 KiB an entry, and JSON and encryption add to a value.
# https://developer.hashicorp.com/vault/docs/internals/limits
VALUE_BYTES = 256 * 1024
NAME = re.compile(r"(?!_rotation(/|$))[A-Za-z0-9_+=@.-]{1,200}(/[A-Za-z0-9_+=@.-]{1,200})*")
NAME_CHARACTERS = 512
AT_ONCE = 8  # secrets that are observed at a time, with 2 calls each
_ROUNDS = 12  # in which a change may lose against others before it is given up
_EXACT = 2**53  # whole numbers below it are the same in every JSON library


class _Refused(StoreError):
    """The server compared, and another version is there."""


class _Missing(StoreError):
    remedy = "Deploy the stack that declares the secret, then run the command again: it resumes."


class _Altered(StoreError):
    remedy = "Put its version before back (`vault kv rollback`), then run again."


# What Vault and OpenBao say of a path that no engine serves, and of a namespace that is not there.
_NO_MOUNT = ("no handler for route", "namespace not found")
_WHICH_MOUNT = (
    "Compare address, namespace and mount with `vault secrets list -detailed`, or deploy the foundation stack."
)
_REFUSALS: Mapping[int, type[KeyturnError]] = {400: _Refused, 404: _Missing}


class _Options(Connection):
    mount: str = Field(default="secret", pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A secret's own path. ``version`` is 0 where it has none; ``deleted`` tells that consumers cannot read it."""

    version: int
    created: str
    deleted: bool
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class _Seen:
    """A secret at one moment. ``noted`` is the ledger as it is written, in version ``at``; ``ledger`` also has what a
    run that died has left to be noted."""

    name: str
    entry: _Entry
    noted: Ledger
    at: int
    ledger: Ledger

    @property
    def foreign(self) -> bool:
        """Whether others have written the secret since keyturn did."""
        current = self.ledger.current
        if self.entry.version == 0:
            return False
        return self.entry.deleted or current is None or not _is_placed(current.version, current.created, self.entry)

    @property
    def ours(self) -> Leaf | None:
        """The leaf whose value is current."""
        current = self.ledger.current
        return None if current is None or self.foreign or not self.entry.version else current.leaf


class VaultKv(SecretStore, Rewrapping):
    """Options: ``mount`` (default ``secret``), and those of :class:`~rotation.vault.Connection`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        parsed = parse(_Options, options, plugin="vault_kv")
        self._mount = parsed.mount
        self._vault = connect(parsed)

    def observe(self, names: Sequence[str], *, fresh: bool = False) -> dict[str, StoreView]:  # noqa: ARG002
        """Two calls for each name, of up to 8 names at a time; all of it is fresh."""
        wanted = dict.fromkeys(names)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            views = dict(zip(wanted, pool.map(self._observe_one, wanted), strict=True))
        refused = [view.trouble for view in views.values() if isinstance(view.trouble, Unauthorized)]
        if refused and len(refused) == len(views):
            raise refused[0]  # it is no single secret's trouble
        return views

    def predict(self, name: str, generation: int) -> Version:
        return self._version(name, Leaf(generation=generation))

    def read(self, name: str, version: Version | None = None) -> SecretValue:
        if version is None:
            version = self._current(self._look(name))
            if version is None:
                raise StoreError(f"the secret {name} has no current value", "Run `keyturn rotate` to give it one.")
        if version.generation is None:
            return SecretValue(to_text(self._read(name, self._foreign_number(name, version))))
        leaf = Leaf(generation=version.generation, revision=version.revision)
        try:
            fields = self._read(self._path(name, leaf))
        except _Missing:
            fields = self._read_in_its_place(name, leaf)
        return SecretValue(to_text(fields))

    def stage(self, name: str, generation: int, value: SecretValue) -> SecretValue:
        _check_limits(name, value)
        leaf = Leaf(generation=generation)

        def step(seen: _Seen) -> Ledger:
            if seen.ledger.leaf(generation) is None and seen.ledger.is_spent(generation):
                raise _spent(seen, generation)
            return seen.ledger.staged(generation, seen.entry.version)

        # This writes a ledger first where there is none: leaves without one mean that somebody deleted it.
        seen = self._changed(self._swept(self._rewrapped(self._look(name))), lambda now: now.ledger)
        there = seen.ledger.leaf(generation)
        if there is not None:
            return SecretValue(to_text(self._read(self._path(name, there))))
        _said_of(seen, step)
        fields = self._put_leaf(seen, leaf, to_fields(value.reveal()))
        try:
            seen = self._changed(seen, step)
        except GenerationSpent:
            self._delete(name, leaf)
            raise
        self._swept(seen)
        return SecretValue(to_text(fields))

    def promote(self, name: str, generation: int, expected: Version | None) -> None:
        def step(seen: _Seen) -> Ledger:
            if seen.ours is not None and seen.ours.generation == generation:
                return seen.ledger
            ledger = seen.ledger.accepted(generation, seen.entry.version)
            current = self._current(seen)
            if (current and current.version_id) != (expected and expected.version_id):
                raise Conflict("it has another current version than expected")
            return ledger

        seen = self._finished(self._changed(self._look(name), step))
        if seen.ours is None or seen.ours.generation != generation:
            raise Conflict(f"generation {generation} of the secret {name} is not promoted: another became current")
        self._swept(seen)

    def reject(self, name: str, generation: int) -> None:
        self._changed(self._look(name), lambda seen: seen.ledger.rejected(generation))

    def discard(self, name: str, generation: int) -> None:
        self._swept(self._changed(self._look(name), lambda seen: seen.ledger.dropped(generation)))

    def rewrap(self, name: str, expected: Version, value: SecretValue) -> Version:
        _check_limits(name, value)
        if expected.generation is None:
            raise Conflict(f"the current version of the secret {name} is foreign", "Adopt it first: `keyturn adopt`.")
        leaf = Leaf(generation=expected.generation, revision=expected.revision + 1)
        new = self._version(name, leaf)

        def step(seen: _Seen) -> Ledger:
            if seen.ours == leaf:
                return seen.ledger
            if self._current(seen) != expected:
                raise Conflict("it was re-wrapped or promoted by someone else")
            return seen.ledger.rewrapping(leaf, seen.entry.version)

        seen = self._rewrapped(self._look(name))
        if seen.ours != leaf:
            _said_of(seen, step)
            self._put_leaf(seen, leaf, to_fields(value.reveal()))
        seen = self._finished(self._changed(seen, step))
        if seen.ours != leaf:
            raise Conflict(f"the secret {name} was changed while it was re-wrapped")
        self._swept(seen)
        return new

    # what is there

    def _observe_one(self, name: str) -> StoreView:
        try:
            seen = self._look(name)
        except _Missing as error:
            self._check_mount(error)
            return StoreView(name, exists=False)
        except (Unauthorized, _Altered) as error:
            return StoreView(name, exists=False, trouble=error)
        # What others have overwritten is no longer current, and becomes what is previous when theirs is adopted.
        replaced = seen.ledger.current.leaf if seen.foreign and seen.ledger.current else None
        previous, kept = earlier(self._version_of(name, leaf) for leaf in (*seen.ledger.earlier, replaced))
        return StoreView(
            name=name,
            reference=f"{self._mount}/data/{name}",
            current=self._current(seen),
            pending=self._version_of(name, seen.ledger.candidate),
            previous=previous,
            kept=kept,
            rejected=seen.ledger.decision is Decision.REJECTED,
            promoting=seen.ledger.decision is Decision.ACCEPTED,
            highest=seen.ledger.highest,
            changed_at=seen.entry.changed_at,
        )

    def _check_mount(self, missing: _Missing) -> None:
        """Refuse a mount that holds no secrets of version 2: else a wrong option looks like a slot not yet deployed."""
        path = f"sys/internal/ui/mounts/{self._mount}"
        if any(words in str(missing) for words in _NO_MOUNT):
            raise StoreError(f"there is no KV engine at {self._mount}: {missing}", _WHICH_MOUNT)
        try:
            found = self._ask(f"look at the mount {self._mount}", lambda c: c.adapter.get(f"/v1/{path}"))["data"]
        except (Unauthorized, _Missing):
            return  # it may not be told
        if found["type"] != "kv" or (found.get("options") or {}).get("version") != "2":
            raise StoreError(f"the mount {self._mount} is no KV engine of version 2", _WHICH_MOUNT)

    def _current(self, seen: _Seen) -> Version | None:
        if seen.foreign:
            return Version(f"{self._mount}/data/{seen.name}?version={seen.entry.version}", None)
        return self._version_of(seen.name, seen.ours)

    def _version_of(self, name: str, leaf: Leaf | None) -> Version | None:
        return None if leaf is None else self._version(name, leaf)

    def _version(self, name: str, leaf: Leaf) -> Version:
        return Version(f"{self._mount}/data/{self._path(name, leaf)}", leaf.generation, leaf.revision)

    def _path(self, name: str, leaf: Leaf | str) -> str:
        return f"{FOLDER}/{name}/{leaf}"

    def _look(self, name: str) -> _Seen:
        """The secret as it is. ``_Missing`` where there is no slot."""
        at, ledger = self._ledger(name)
        for _ in range(_ROUNDS):
            seen = _Seen(name, self._entry(name), ledger, at, ledger)
            if at > 0 and not seen.foreign and (seen.ours is not None) == (ledger.current is not None):
                return seen
            highest = self._highest_leaf(name) if at == 0 else 0
            again, latest = self._ledger(name)
            if again == at:  # nothing moved in between: they do disagree
                return self._compared(replace(seen, ledger=Ledger.lost(highest)) if at == 0 else seen)
            at, ledger = again, latest
        raise Unavailable(f"the secret {name} does not stay the same while it is looked at")

    def _compared(self, seen: _Seen) -> _Seen:
        """Find out whether the version that the ledger does not know is the one that it says is on the way."""
        move = seen.ledger.moving
        if move is None or seen.entry.version != move.base + 1 or seen.entry.deleted:
            return seen
        try:
            there = self._read(seen.name, seen.entry.version)
            wanted = self._read(self._path(seen.name, move.leaf))
        except _Missing:
            return seen
        return (
            replace(seen, ledger=seen.ledger.moved(seen.entry.version, seen.entry.created)) if there == wanted else seen
        )

    def _entry(self, name: str) -> _Entry:
        data = self._ask(
            f"look at the secret {name}",
            lambda c: c.secrets.kv.v2.read_secret_metadata(name, mount_point=self._mount),
        )["data"]
        number = data["current_version"]
        version = data["versions"].get(str(number), {})
        deleted = number > 0 and (version.get("destroyed", True) or _is_over(version["deletion_time"]))
        return _Entry(number, version.get("created_time", ""), deleted, _time(data["updated_time"]))

    def _ledger(self, name: str) -> tuple[int, Ledger]:
        """The ledger with its version; an empty one with version 0 where there is none."""
        try:
            at, fields = self._read_versioned(self._path(name, LEDGER))
            return at, Ledger.model_validate(fields)
        except _Missing:
            return 0, Ledger()
        except ValidationError:
            raise _Altered(f"the ledger of the secret {name} in {self._mount}/{FOLDER} was altered") from None

    def _highest_leaf(self, name: str) -> int:
        try:
            listed = self._ask(
                f"list what is staged of the secret {name}",
                lambda c: c.secrets.kv.v2.list_secrets(f"{FOLDER}/{name}", mount_point=self._mount),
            )["data"]["keys"]
        except _Missing:
            return 0
        return max((leaf.generation for leaf in map(Leaf.parse, listed) if leaf is not None), default=0)

    # changes

    def _changed(self, seen: _Seen, step: Callable[[_Seen], Ledger]) -> _Seen:
        """Write the ledger that ``step`` makes of what is seen, and of what is seen then, until nobody was faster."""
        for turn in range(_ROUNDS):
            wanted = _said_of(seen, step)
            if wanted == seen.noted and seen.at > 0:
                return seen
            fields = wanted.model_dump(mode="json")
            try:
                at, _ = self._write(self._path(seen.name, LEDGER), fields, seen.at)
            except _Refused:
                time.sleep(random.uniform(0, 0.02 * turn))  # noqa: S311 - jitter
                seen = self._look(seen.name)
            else:
                return replace(seen, noted=wanted, ledger=wanted, at=at)
        raise Unavailable(f"the ledger of the secret {seen.name} does not stay the same long enough to change it")

    def _rewrapped(self, seen: _Seen) -> _Seen:
        """End a re-wrap that a run left behind. A promotion is left to those who know what the target says."""
        return seen if seen.ledger.moving is None or seen.ledger.pending is not None else self._finished(seen)

    def _finished(self, seen: _Seen) -> _Seen:
        """End what is moving: write the secret's own path, and note it. What is seen then may be another's doing."""
        move = seen.ledger.moving
        if move is not None and seen.entry.version == move.base:
            try:
                fields = self._read(self._path(seen.name, move.leaf))
                version, created = self._write(seen.name, fields, move.base)
            except (_Refused, _Missing):  # the leaf of what others have promoted, and dropped since, is gone
                seen = self._look(seen.name)
                if seen.ledger.moving == move and seen.entry.version == move.base:
                    raise
            else:
                entry = replace(seen.entry, version=version, created=created, deleted=False)
                seen = replace(seen, entry=entry, ledger=seen.ledger.moved(version, created))
        return self._changed(seen, lambda now: now.ledger)

    def _swept(self, seen: _Seen) -> _Seen:
        """Delete the leaves of spent generations, and what a run that died has left of them."""
        leaves = seen.ledger.dropping
        if not leaves:
            return seen
        for leaf in leaves:
            self._delete(seen.name, leaf)
        return self._changed(seen, lambda now: now.ledger.deleted(leaves))

    def _put_leaf(self, seen: _Seen, leaf: Leaf, fields: dict[str, Any]) -> dict[str, Any]:
        """Put a value where none is; return the one that is there."""
        path = self._path(seen.name, leaf)
        try:
            self._write(path, fields, 0)
        except _Refused:
            try:
                return self._read(path)
            except _Missing as error:  # deleted for good
                raise _spent(seen, leaf.generation) from error
        return fields

    # calls

    def _write(self, path: str, fields: Mapping[str, Any], cas: int) -> tuple[int, str]:
        """Write a path's version after ``cas``; return its number and when it was made."""
        data = self._ask(
            f"write {self._mount}/{path}",
            lambda c: c.secrets.kv.v2.create_or_update_secret(path, dict(fields), cas=cas, mount_point=self._mount),
            quiet=True,
        )["data"]
        return data["version"], data["created_time"]

    def _read(self, path: str, version: int | None = None) -> dict[str, Any]:
        return self._read_versioned(path, version)[1]

    def _read_versioned(self, path: str, version: int | None = None) -> tuple[int, dict[str, Any]]:
        """A path's version and its fields. What keyturn keeps is taken back where somebody deleted it."""
        data = self._fetch(path, version)
        if data["data"] is None and path.startswith(f"{FOLDER}/") and not data["metadata"]["destroyed"]:
            number = data["metadata"]["version"]
            self._ask(
                f"take {self._mount}/{path} back",
                lambda c: c.secrets.kv.v2.undelete_secret_versions(path, [number], mount_point=self._mount),
            )
            data = self._fetch(path, version)
        if data["data"] is None:
            raise _Missing(f"{self._mount}/{path} is deleted", "Take it back with `vault kv undelete`, if it is right.")
        return data["metadata"]["version"], data["data"]

    def _fetch(self, path: str, version: int | None) -> dict[str, Any]:
        data: dict[str, Any] = self._ask(
            f"read {self._mount}/{path}",
            lambda c: c.secrets.kv.v2.read_secret_version(
                path, version, mount_point=self._mount, raise_on_deleted_version=False
            ),
            quiet=True,
        )["data"]
        return data

    def _read_in_its_place(self, name: str, leaf: Leaf) -> dict[str, Any]:
        """The value of a leaf that is gone, from the secret's own path where that holds it."""
        seen = self._look(name)
        if seen.ours != leaf:
            raise StoreError(f"the secret {name} has no version {self._version(name, leaf).version_id}")
        return self._read(name, seen.entry.version)

    def _foreign_number(self, name: str, version: Version) -> int:
        path, _, number = version.version_id.partition("?version=")
        if path != f"{self._mount}/data/{name}" or not number.isdecimal():
            raise StoreError(f"{version.version_id} is no version of the secret {name}")
        return int(number)

    def _delete(self, name: str, leaf: Leaf) -> None:
        path = self._path(name, leaf)
        self._ask(
            f"delete {self._mount}/{path}",
            lambda c: c.secrets.kv.v2.delete_metadata_and_all_versions(path, mount_point=self._mount),
        )

    def _ask(self, doing: str, call: Callable[[hvac.Client], T], *, quiet: bool = False) -> T:
        return self._vault.ask(call, doing, _REFUSALS, StoreError, quiet)


def to_fields(text: str) -> dict[str, Any]:
    """The fields of a KV entry that holds a value."""
    try:
        pairs: Iterable[tuple[str, Any]] = json.loads(text, object_pairs_hook=_Pairs)
    except ValueError:
        return {"value": text}
    if not isinstance(pairs, _Pairs) or not all(_is_plain(member) for _, member in pairs):
        return {"value": text}
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) and fields.keys() - {"value"} else {"value": text}


def to_text(fields: Mapping[str, Any]) -> str:
    """The value that the fields of a KV entry hold."""
    if fields.keys() == {"value"} and isinstance(fields["value"], str):
        return str(fields["value"])
    return json.dumps(fields, ensure_ascii=False, sort_keys=True)


class _Pairs(list[tuple[str, Any]]):
    """An object's members in their order, repeated ones as well."""


def _is_plain(member: object) -> bool:
    if isinstance(member, int):
        return abs(member) < _EXACT
    return member is None or isinstance(member, str)


def _is_placed(version: int, created: str, entry: _Entry) -> bool:
    return version == entry.version and _time(created) == _time(entry.created)


def _is_over(deletion_time: str) -> bool:
    """Whether a deletion, which may be set for later, is past."""
    return bool(deletion_time) and _time(deletion_time) <= datetime.now(UTC)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _said_of(seen: _Seen, step: Callable[[_Seen], Ledger]) -> Ledger:
    """What a step makes of a secret; where it will not, with the secret's name."""
    try:
        return step(seen)
    except Conflict as error:
        raise Conflict(f"the secret {seen.name}: {error}") from error


def _spent(seen: _Seen, generation: int) -> GenerationSpent:
    what = f"generation {generation} of the secret {seen.name} was used and dropped before"
    return GenerationSpent(what, max(seen.ledger.highest, generation))


def _check_limits(name: str, value: SecretValue) -> None:
    if not NAME.fullmatch(name) or len(name) > NAME_CHARACTERS or not {".", ".."}.isdisjoint(name.split("/")):
        raise LimitExceeded(
            f"keyturn keeps no secret of the name {name[:60]!r} ({len(name)} characters) in a KV engine",
            "Use letters, digits and any of _+=@.- in parts between single slashes, at most 512 characters in all.",
        )
    size = len(value.reveal().encode())
    if not 1 <= size <= VALUE_BYTES:
        raise LimitExceeded(f"the new value of {name} has {size} bytes: keyturn keeps 1 to {VALUE_BYTES} bytes in KV")
