"""Misbehaviour on demand, for tests: the AWS API throttles, fails, loses replies or is slow for the next N calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Lock
from typing import Any

from werkzeug.wrappers import Response

from rotation.local.aws_wire import Call, error


class Kind(StrEnum):
    """What happens to a call."""

    THROTTLE = "throttle"  # refused: too many requests
    ERROR = "error"  # refused: an internal error (500)
    UNAVAILABLE = "unavailable"  # refused: 503
    DENY = "deny"  # refused: access denied
    DROP = "drop"  # the connection closes before anything is applied
    LOST_REPLY = "lost_reply"  # applied, then the connection closes without an answer
    DELAY = "delay"  # applied after some seconds


@dataclass(frozen=True, slots=True)
class Fault:
    """``operation`` may be ``*`` for any of the service's. ``after`` lets that many calls pass first."""

    service: str
    operation: str
    kind: Kind
    times: int = 1
    after: int = 0
    seconds: float = 0.0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fault:
        """Raises ValueError or TypeError for what is not a fault."""
        return cls(**{**value, "kind": Kind(value.get("kind", ""))})

    def concerns(self, call: Call) -> bool:
        return self.service == call.service and self.operation in ("*", call.operation)


@dataclass
class Faults:
    """The faults that are still to come, and a count of all calls."""

    _pending: list[Fault] = field(default_factory=list)
    _calls: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()

    def count(self, call: Call) -> Fault | None:
        """Count a call; return the oldest fault that is due for it, if any."""
        with self._lock:
            self._calls[str(call)] += 1
            for index, fault in enumerate(self._pending):
                if not fault.concerns(call):
                    continue
                self._use(index)
                return fault if fault.after == 0 else None
            return None

    def _use(self, index: int) -> None:
        fault = self._pending[index]
        if fault.after:
            self._pending[index] = replace(fault, after=fault.after - 1)
        elif fault.times > 1:
            self._pending[index] = replace(fault, times=fault.times - 1)
        else:
            del self._pending[index]

    def calls(self) -> dict[str, int]:
        with self._lock:
            return dict(self._calls)

    def forget_calls(self) -> None:
        with self._lock:
            self._calls.clear()


# Names and statuses from the "Common Errors" and "Errors" pages of each service's API reference.
_THROTTLED = {"s3": (503, "SlowDown"), "iam": (400, "Throttling"), "sts": (400, "Throttling")}
_FAILED = {
    "secretsmanager": (500, "InternalServiceError"),
    "kms": (500, "KMSInternalException"),
    "s3": (500, "InternalError"),
    "iam": (500, "ServiceFailure"),
}
_DENIED = {"s3": (403, "AccessDenied"), "iam": (403, "AccessDenied"), "sts": (403, "AccessDenied")}


def refusal(kind: Kind, call: Call) -> Response | None:
    """The service's own words for a refused call; None for the kinds that are not refusals."""
    if kind is Kind.THROTTLE:
        return error(call.service, *_THROTTLED.get(call.service, (400, "ThrottlingException")), "Rate exceeded")
    if kind is Kind.ERROR:
        failed = _FAILED.get(call.service, (500, "InternalFailure"))
        return error(call.service, *failed, "An error occurred on the server side.")
    if kind is Kind.UNAVAILABLE:
        return error(call.service, 503, "ServiceUnavailable", "Service is unable to handle request.")
    if kind is Kind.DENY:
        denied = _DENIED.get(call.service, (400, "AccessDeniedException"))
        message = f"User is not authorized to perform: {call.service}:{call.operation}"
        return error(call.service, *denied, message)
    return None
