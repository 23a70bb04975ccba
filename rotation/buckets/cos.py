"""Tencent Cloud's object storage (COS), which compares nothing that is overwritten. So nothing is overwritten.

An object is a row of revisions, ``<name>/0000000001`` and so on, each written once; the highest one counts. Whoever
replaces revision n makes n+1 under ``x-cos-forbid-overwrite``. What is removed gets an empty revision at its end, so no
number ever comes back. What is known of COS (https://www.tencentcloud.com/document/product/436/ unless said otherwise):

- *PUT Object* (7749) has no If-Match. With ``x-cos-forbid-overwrite: true`` it refuses with 409 FileAlreadyExists what
  is there. One after the other, requests are kept apart; two **at once** may both be let through, and the later one
  stays. Both was seen on the real COS by Apache OpenDAL's authors (https://github.com/apache/opendal/pull/7526).
- The header does nothing where versioning is on or ever was (https://github.com/apache/opendal/pull/5514).
- *APPEND Object* (7741) compares a length, but not in buckets of several zones, and what is appended to only grows.
- *GET Bucket* (30614) may not show what was written just now. What is asked for by its name is taken as it is.
- DELETE compares nothing. Each answer tells COS's time (Date), each object when it was written, in whole seconds.

A write therefore counts under these rules, each of which a test takes away to see an update lost:

1. It was answered within :data:`PROMPT` of an earlier answer of COS, both by COS's own clock. So it does not matter how
   long a runner, or a request on its way, is held up anywhere: what comes later than that is not believed.
2. :data:`SETTLE` after its answer the revision is still this write's, by an identifier in its metadata.
3. What it replaces is as old as SETTLE, and still has the identifier with which it was read.

Why two writers cannot both win a revision: say B's content is the one that stays, so B's came into effect later. A
looked after that would have seen B's, so A looked before; that was SETTLE after A's answer. As B's was answered within
PROMPT, which is shorter, B's request began after A's was answered: COS keeps two such apart, and refused B's. By the
same count nobody who can still win a revision comes into effect once it is as old as SETTLE: what is built on by rule 3
stays.

Old revisions are cleaned up once they were replaced :data:`KEPT` ago. Whoever finds a number free because of that has
seen it free before it was ever written: too long ago, by rule 1. A request that arrives after all that makes a revision
far below the highest one, which nobody reads; or the next one, as if its runner had not died, with what that wrote.

A lost answer is looked up by the identifier, within the same time. The first write of a run proves that COS refuses.

What is left: a request that COS lets through and then holds up for longer than SETTLE may replace a revision that
another runner has won. Who holds a lease by that revision sees a foreign one, and stops; of a journal the next
revision holds everything again, so that it costs the last lines where there is no next one.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import TypeVar

from rotation.buckets import Bucket, Stored, patiently
from rotation.cos import Answer, Cos, Listed
from rotation.errors import Conflict, KeyturnError, Unavailable, UsageError

T = TypeVar("T")

PROMPT = timedelta(seconds=4)
SETTLE = 6.0  # seconds: PROMPT, and what two times in whole seconds can hide
KEPT = timedelta(minutes=15)
HISTORY = 5  # revisions that stay however old they are, for a person to go back to
_AT_ONCE = 50  # revisions that one write cleans up at most, for a lease is renewed meanwhile
_NUMBER = re.compile(r"\d{10}")

_WRITE_ID = "keyturn-write"  # metadata
_META = f"x-cos-meta-{_WRITE_ID}"
_VERSION = "x-cos-version-id"  # the header of an answer where versioning is on


@dataclass(frozen=True, slots=True)
class _Look:
    """A row of revisions as it was at ``began`` or later, by COS's clock. ``last`` is the highest number, 0 for none;
    ``etag`` that of what it holds, if it holds anything; ``age`` its seconds. ``old`` are the keys that nobody needs.
    """

    last: int
    etag: str | None
    age: float
    began: datetime
    old: Sequence[str]


class CosBucket(Bucket):
    """A write takes :data:`SETTLE` and about a second; everything else is as fast as COS. ``wait`` sleeps."""

    def __init__(self, url: str, cos: Cos | None = None, wait: Callable[[float], None] = time.sleep) -> None:
        super().__init__(url)
        self._cos = cos or Cos(self._bucket)
        self._wait = wait
        self._proven = False

    def read(self, name: str) -> Stored | None:
        return patiently(lambda: self._read(name))

    def write(self, name: str, body: bytes, replaces: str | None, *, patient: bool = True) -> str:
        ask = patiently if patient else _once
        look = self._settled(name, replaces, ask)
        key, write_id = self._key(name, look.last + 1), uuid.uuid4().hex
        written = ask(lambda: self._put(key, body, write_id))
        if written.date - look.began > PROMPT:
            raise Unavailable(
                f"{self.url(name)} was written too slowly to know that nobody else did",
                "Run it nearer to the bucket; a lease that was taken so ends by itself.",
            )
        self._prove(key, body, write_id)
        self._clean(look.old)
        self._wait(SETTLE)
        standing = ask(lambda: self._cos.head(key))
        if standing is None or not _is(standing, write_id):
            raise self._changed(name)
        return _etag(look.last + 1, standing)

    def remove(self, name: str, etag: str) -> None:
        # Without the rules of a write: whoever loses to this one, or wins, sees that by them.
        key, write_id = self._key(name, int(etag.partition("-")[0]) + 1), uuid.uuid4().hex
        patiently(lambda: self._put(key, b"", write_id))

    def _settled(self, name: str, replaces: str | None, ask: Callable[[Callable[[], _Look]], _Look]) -> _Look:
        """A look at what is replaced, as soon as that stays. Raises :class:`Conflict` where it is something else."""
        while True:
            look = ask(lambda: self._look(name))
            if look.etag != replaces:
                raise self._changed(name)
            if look.age >= SETTLE:
                return look
            self._wait(SETTLE - look.age)

    def _changed(self, name: str) -> Conflict:
        return Conflict(f"{self.url(name)} was written or removed by somebody else in the meantime")

    def _key(self, name: str, number: int) -> str:
        return f"{self._prefix}{name}/{number:010d}"

    def _read(self, name: str) -> Stored | None:
        last = self._look(name).last
        found = self._cos.get(self._key(name, last)) if last else None
        if last and found is None:
            raise Unavailable(f"{self.url(name)} changes while it is read")
        return Stored(found.body, _etag(last, found), found.date - found.modified) if found and found.body else None

    def _look(self, name: str) -> _Look:
        """A list says where to begin; what it does not show yet is asked for by its name."""
        row = f"{self._prefix}{name}/"
        entries, began = self._cos.below(row)
        listed = [entry for entry in entries if _NUMBER.fullmatch(entry.key.removeprefix(row))]
        last = int(listed[-1].key.removeprefix(row)) if listed else 0
        newest = self._cos.head(self._key(name, last)) if listed else None
        if listed and newest is None:
            raise Unavailable(f"the list of {self.url(name)} shows what is not there")
        while following := self._cos.head(self._key(name, last + 1)):
            last, newest = last + 1, following
        if newest is None:
            return _Look(0, None, math.inf, began, ())
        etag = _etag(last, newest) if int(newest.headers["content-length"]) else None
        return _Look(last, etag, (newest.date - newest.modified).total_seconds(), began, _old(listed, began))

    def _put(self, key: str, body: bytes, write_id: str) -> Answer:
        """Write a revision. Raises :class:`Conflict` where it is somebody else's."""
        try:
            written = self._cos.put_new(key, body, {_WRITE_ID: write_id})
        except Conflict:
            standing = self._cos.head(key)
            if standing is None or not _is(standing, write_id):
                raise
            return standing  # the answer to an earlier attempt was lost
        if _VERSION in written.headers:
            raise self._versioned()
        return written

    def _prove(self, key: str, body: bytes, write_id: str) -> None:
        """See that what was written just now cannot be written again."""
        if self._proven:
            return
        with suppress(Unavailable):  # then the next write proves it
            try:
                self._cos.put_new(key, body, {_WRITE_ID: write_id})
            except Conflict:
                self._proven = True
                return
            raise self._versioned()

    def _versioned(self) -> UsageError:
        return UsageError(
            f"the bucket {self._bucket} overwrites what it is told not to: its versioning is on, or once was",
            "Keep the journal in a bucket of its own whose versioning has never been on.",
        )

    def _clean(self, keys: Sequence[str]) -> None:
        with suppress(KeyturnError):  # a later write does it
            for key in keys:
                self._cos.delete(key)


def _once(call: Callable[[], T]) -> T:
    return call()


def _etag(number: int, revision: Answer) -> str:
    return f"{number}-{revision.headers.get(_META, '')}"


def _is(revision: Answer, write_id: str) -> bool:
    return revision.headers.get(_META) == write_id


def _old(listed: Sequence[Listed], now: datetime) -> list[str]:
    """The revisions that were replaced long ago, the oldest ones first."""
    followed = islice(pairwise(listed), max(0, len(listed) - HISTORY))
    return [revision.key for revision, following in followed if now - following.modified > KEPT][:_AT_ONCE]
