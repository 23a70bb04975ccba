"""The function on AWS Lambda. :func:`handler` answers two kinds of events:

- EventBridge's *scheduled event*: what is due is turned, or handed to the pipeline (:mod:`rotation.handlers.due`).
- A *step* of Secrets Manager's own rotation (:mod:`rotation.handlers.steps`).

An error ends the invocation as failed, which is what Lambda counts, and what Secrets Manager tries again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from rotation.errors import UsageError
from rotation.handlers import function
from rotation.handlers.due import turn_due
from rotation.handlers.steps import Step, take


class Context(Protocol):
    """What is asked of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int: ...


def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Answer one event; the result is JSON without values. Raises :class:`~rotation.errors.KeyturnError`."""
    settings = function.settings()
    with function.engine(settings.environment) as engine:
        if "Step" in event:
            result = take(engine, Step.read(event))
        elif event.get("detail-type") == "Scheduled Event":
            result = turn_due(engine, settings.dispatch, lambda: context.get_remaining_time_in_millis() / 1000)
        else:
            raise UsageError(
                "this event is neither a scheduled event nor a step of a rotation",
                "Let EventBridge's rule or Secrets Manager call the function.",
            )
    function.log.info(json.dumps(result))
    return result
