"""Misbehaviour on demand, for tests: what can happen to a call, on the wire and in the cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Event
from typing import Any

from rotation.local.fault_queue import FaultQueue, PlannedFault
from rotation.local.tencent.wire import ApiError


class Kind(StrEnum):
    """What happens to a call."""

    THROTTLE = "throttle"  # refused: RequestLimitExceeded
    INTERNAL = "internal"  # refused: InternalError
    DENY = "deny"  # refused: UnauthorizedOperation
    HTTP_ERROR = "http_error"  # HTTP status 500 and a page of text, before anything is applied
    DROP = "drop"  # the connection closes before anything is applied
    LOST_REPLY = "lost_reply"  # applied, then the connection closes without an answer
    CUT = "cut"  # applied, then the connection closes in the middle of the answer's body
    DELAY = "delay"  # looked at ``seconds`` later; its signature may have expired by then
    HOLD = "hold"  # looked at when the test says so: see Faults.release
    STALE = "stale"  # reads as before the service's last ``writes``
    BLIND = "blind"  # of COS: a PUT whose look at what is there came before somebody else's write
    CHARSET = "charset"  # answered with the content type `application/json; charset=utf-8`


@dataclass(frozen=True)
class Fault(PlannedFault[Kind]):
    """A fault of an emulated service of Tencent Cloud."""

    writes: int = 1

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fault:
        """Raises ValueError or TypeError for what is not a fault."""
        return cls(**{**value, "kind": Kind(value.get("kind", ""))})


class Faults(FaultQueue[Fault]):
    """The faults still to come, a count of all calls, and the calls that are held."""

    def __init__(self) -> None:
        super().__init__()
        self._released = Event()
        self._held = 0

    def plan(
        self, call: str, kind: str, *, times: int = 1, after: int = 0, seconds: float = 0, writes: int = 1
    ) -> None:
        """Let the next calls of ``service.Action`` (or ``service.*``) fail in this way."""
        service, _, operation = call.partition(".")
        self.add(Fault(service, operation, Kind(kind), times, after, seconds, writes))

    @property
    def held(self) -> int:
        """How many calls wait to be released."""
        return self._held

    def hold(self) -> None:
        """Wait until the calls that are held now are released."""
        released = self._released
        with self._lock:
            self._held += 1
        released.wait()
        with self._lock:
            self._held -= 1

    def release(self) -> None:
        """Let the cloud look at the calls that it held back."""
        released, self._released = self._released, Event()
        released.set()

    def clear(self) -> None:
        super().clear()
        self.release()


_REFUSALS = {
    Kind.THROTTLE: ("RequestLimitExceeded", "The number of requests exceeds the frequency limit."),
    Kind.INTERNAL: ("InternalError", "An internal error occurred."),
    Kind.DENY: ("UnauthorizedOperation", "The operation is not authorized."),
}


def refuse(kind: Kind) -> None:
    """Raise :class:`ApiError` for the kinds that are refusals."""
    if kind in _REFUSALS:
        raise ApiError(*_REFUSALS[kind])
