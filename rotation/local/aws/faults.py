"""Misbehaviour on demand, for tests: the AWS API throttles, fails, loses replies or is slow for the next N calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from werkzeug.wrappers import Response

from rotation.local.aws.wire import Call, error
from rotation.local.fault_queue import PlannedFault


class Kind(StrEnum):
    """What happens to a call."""

    THROTTLE = "throttle"  # refused: too many requests
    ERROR = "error"  # refused: an internal error (500)
    UNAVAILABLE = "unavailable"  # refused: 503
    DENY = "deny"  # refused: access denied
    DROP = "drop"  # the connection closes before anything is applied
    LOST_REPLY = "lost_reply"  # applied, then the connection closes without an answer
    DELAY = "delay"  # applied after some seconds


@dataclass(frozen=True)
class Fault(PlannedFault[Kind]):
    """A fault of the AWS API."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fault:
        """Raises ValueError or TypeError for what is not a fault."""
        return cls(**{**value, "kind": Kind(value.get("kind", ""))})


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
