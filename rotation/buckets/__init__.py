"""Buckets that a journal can be kept in. Every file here IS one kind; its name is the scheme of its URLs.

What a journal needs of a bucket is little: small objects below one prefix, each replaced only by who knows what it is
now. How that is had differs: S3 compares (:mod:`rotation.buckets.s3`), COS does not (:mod:`rotation.buckets.cos`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import stamina

from rotation.errors import Unavailable

T = TypeVar("T")

# A journal is not worth a long wait: no new attempt starts later than 6 seconds after the first.
_AGAIN = stamina.RetryingCaller(attempts=3, timeout=6.0, wait_initial=0.2, wait_max=1.0, wait_jitter=0.2)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was read. ``etag`` is another one after each write; ``age`` is how long ago it was written, both
    times by the bucket's clock."""

    body: bytes
    etag: str
    age: timedelta


class Bucket(ABC):
    """The objects below a URL (``scheme://bucket/prefix``).

    Every call ends within seconds, and raises :class:`~rotation.errors.Unavailable`,
    :class:`~rotation.errors.Unauthorized`, :class:`~rotation.errors.ClockSkew` or
    :class:`~rotation.errors.JournalError` where the bucket cannot be worked with.
    """

    def __init__(self, url: str) -> None:
        self._scheme, _, place = url.partition("://")
        self._bucket, _, prefix = place.partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def url(self, name: str) -> str:
        return f"{self._scheme}://{self._bucket}/{self._prefix}{name}"

    @abstractmethod
    def read(self, name: str) -> Stored | None:
        """The object, or None where there is none."""

    @abstractmethod
    def write(self, name: str, body: bytes, replaces: str | None, *, patient: bool = True) -> str:
        """Write the object (of one byte or more) if it still has the ETag ``replaces`` (None: if there is none), and
        return its new ETag. ``patient`` tries again what failed for the moment.

        Raises :class:`~rotation.errors.Conflict` where somebody else has written or removed it in the meantime,
        :class:`~rotation.errors.UsageError` for a bucket that cannot keep two writers apart.
        """

    @abstractmethod
    def remove(self, name: str, etag: str) -> None:
        """Remove the object if it still has this ETag. Raises :class:`~rotation.errors.Conflict` where it has another
        one."""


def patiently(call: Callable[[], T]) -> T:
    """Call, and call again while it is :class:`Unavailable`, for about 6 seconds."""
    return _AGAIN(Unavailable, call)
