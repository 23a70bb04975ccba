"""One runner at a time on an environment, for runners that share nothing but a bucket.

The lease is an object that only one runner can make, or take over once its age, by the bucket's clock, is over
:data:`LEASE`. Whoever holds it replaces it again and again to keep it young.
"""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from rotation.buckets import Bucket, Stored
from rotation.errors import Conflict, LeaseHeld
from rotation.pipeline import run_url

LEASE = timedelta(seconds=90)
RENEWAL = LEASE / 4
BRIEF = timedelta(seconds=30)  # for one write, by a command that only looked; one to COS takes 8 seconds
_LOOK_AGAIN = 0.5  # seconds


class EnvironmentLease:
    """The lease of ``environment`` in ``bucket``, for the runner ``owner``. Not safe for threads."""

    def __init__(self, bucket: Bucket, environment: str, owner: str) -> None:
        self._bucket = bucket
        self._environment = environment
        self._name = f"{environment}.lease.json"
        self._owner = owner
        self._etag: str | None = None

    def take(self, *, brief: bool = False) -> None:
        """Become the one runner. Raises :class:`LeaseHeld`, which names the other one. A ``brief`` lease is not
        renewed, and waited for by who finds it."""
        while True:
            standing = self._bucket.read(self._name)
            is_brief = bool(_read(standing).get("brief"))
            if standing is None or standing.age >= (BRIEF if is_brief else LEASE):
                return self._write(standing.etag if standing else None, brief=brief)
            if brief or not is_brief:
                raise self._held(standing)
            time.sleep(_LOOK_AGAIN)

    def is_held(self) -> bool:
        """Whether some runner has the lease."""
        standing = self._bucket.read(self._name)
        return standing is not None and standing.age < LEASE

    def require(self) -> None:
        """Raise :class:`LeaseHeld` unless the lease is this owner's now. Safe for threads."""
        standing = self._bucket.read(self._name)
        if standing is None or _read(standing).get("owner") != self._owner or standing.age >= LEASE:
            raise self._held(standing)

    def renew(self) -> None:
        """Keep the lease. Raises :class:`LeaseHeld` where it had run out, and another runner took it."""
        if self._etag is None:  # the bucket could not be reached when it was to be taken
            return self.take()
        return self._write(self._etag)

    def release(self) -> None:
        """Let the next runner in at once."""
        if self._etag is not None:
            self._bucket.remove(self._name, self._etag)
            self._etag = None

    def _write(self, replaces: str | None, *, brief: bool = False) -> None:
        try:
            self._etag = self._bucket.write(self._name, self._text(brief), replaces)
        except Conflict as conflict:
            raise self._held(self._bucket.read(self._name)) from conflict

    def _text(self, brief: bool) -> bytes:
        about = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "run": run_url(),
            "expires": f"{datetime.now(UTC) + (BRIEF if brief else LEASE):%Y-%m-%d %H:%M:%S} UTC",
            "brief": brief,
        }
        return json.dumps(about, indent=1).encode()

    def _held(self, standing: Stored | None) -> LeaseHeld:
        about = _read(standing)
        who = f"process {about.get('process', '?')} on {about.get('host', 'an unknown host')}"
        run = f", {about['run']}" if about.get("run") else ""
        until = f" until {about['expires']}" if about.get("expires") else ""
        return LeaseHeld(f"another runner ({who}{run}) works on {self._environment}{until}")


def _read(standing: Stored | None) -> dict[str, Any]:
    """What a lease says of its holder: nothing where it was released just now, or is no lease."""
    try:
        about = json.loads(standing.body) if standing else {}
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
