"""The function on Tencent Cloud (SCF). :func:`main_handler` answers a timer's event: what is due is turned, or handed
to the pipeline (:mod:`rotation.handlers.due`).

- SCF delivers an event twice now and then, and again when the function failed
  (https://www.tencentcloud.com/document/product/583/9708). It carries nothing that counts: what is due is found anew,
  under the journal's lease, so the second delivery finds nothing left to do, or the first one at work.
- A function ends after 900 s at the latest. No secret is begun that could meet the limit; the next tick goes on.
- Without a journal in a bucket it does nothing: SSM compares nothing, so a lease must keep two runs apart. The keys of
  the function's role are those that COS is asked with; a bucket of S3 needs its own.

SCF has no Python that is new enough, so this runs on a *custom runtime*: the archive's ``bootstrap`` starts a Python
that a layer brings, and :func:`serve` asks SCF for events
(https://www.tencentcloud.com/document/product/583/38129).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import urllib3

from rotation.errors import KeyturnError, UsageError
from rotation.handlers import function
from rotation.handlers.due import turn_due

LIMIT = "time_limit_in_ms"


def main_handler(event: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one event; the result is JSON without values. Raises :class:`KeyturnError`.

    Of ``context`` the time limit counts: SCF tells no remaining time, so it is measured from here on.
    """
    deadline = time.monotonic() + _limit(context)
    if event.get("Type") != "Timer":
        raise UsageError("this event is not a timer's", "Let a timer of the function call it.")
    settings = function.settings()
    with function.engine(settings.environment, alone=True) as engine:
        result = turn_due(engine, settings.dispatch, lambda: deadline - time.monotonic())
    function.log.info(json.dumps(result))
    return result


def _limit(context: Mapping[str, Any]) -> float:
    """The function's time limit in seconds."""
    try:
        return int(context[LIMIT]) / 1000
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"SCF does not say how long the function may run ({LIMIT})", "Look at the runtime of the function."
        ) from error


def serve() -> None:
    """Take events from SCF's runtime API for as long as this instance lives."""
    base = f"http://{os.environ['SCF_RUNTIME_API']}:{os.environ['SCF_RUNTIME_API_PORT']}/runtime"
    with urllib3.PoolManager(retries=False, timeout=None) as api:  # an instance waits long for its next event
        api.request("POST", f"{base}/init/ready", body=b" ")
        while True:
            asked = api.request("GET", f"{base}/invocation/next")
            if asked.status != 200:
                return
            path, answer = _answer(asked.data, {name.lower(): value for name, value in asked.headers.items()})
            api.request("POST", f"{base}/invocation/{path}", body=json.dumps(answer).encode())


def _answer(event: bytes, context: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Where the answer goes, and what it is. An error's cause stays in the function: it might quote too much."""
    try:
        return "response", main_handler(json.loads(event), context)
    except KeyturnError as error:
        said, remedy = str(error), error.remedy
    except Exception as error:  # noqa: BLE001 - the instance lives on
        said, remedy = f"unexpected {type(error).__name__}", KeyturnError.remedy
    function.log.error("%s. %s", said, remedy)
    return "error", {"errorCode": 1, "errorMessage": said}


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
    serve()
