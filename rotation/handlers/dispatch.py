"""Asking a pipeline to turn what is due, because only it can deploy.

It is asked for *what is due*, never for certain secrets: an event that is delivered twice finds nothing due the second
time. The names go along as words for the audit trail.

- ``github``: ``https://api.github.com/repos/OWNER/REPOSITORY/actions/workflows/rotate.yml/dispatches``, with the inputs
  of that workflow. The token is a fine-grained one with "Actions: write" on that repository.
  https://docs.github.com/rest/actions/workflows#create-a-workflow-dispatch-event
- ``jenkins``: ``https://HOST/job/NAME/buildWithParameters``, with the parameters of the Jenkinsfile. The token is
  ``user:token``. https://www.jenkins.io/doc/book/using/remote-access-api/
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

import urllib3

from rotation.errors import KeyturnError, Unauthorized, Unavailable
from rotation.manifest import Dispatch
from rotation.model import Trigger
from rotation.retries import retrying
from rotation.secret_value import SecretValue

MOST_NAMES = 10
_TIMEOUT = urllib3.Timeout(connect=5, read=15)


class _Request(NamedTuple):
    headers: dict[str, str]
    body: bytes


def send(dispatch: Dispatch, environment: str, secrets: Sequence[str], token: SecretValue) -> None:
    """Ask the pipeline. Raises Unavailable where it cannot be reached, Unauthorized where it refuses the token, and
    :class:`KeyturnError` for any other refusal; none quotes the pipeline's answer."""
    more = f" and {len(secrets) - MOST_NAMES} more" if len(secrets) > MOST_NAMES else ""
    words = f"{', '.join(secrets[:MOST_NAMES])}{more}"
    make = {"github": _github, "jenkins": _jenkins}[dispatch.kind]
    request = make(dispatch, environment, words, token.reveal().strip())
    retrying(lambda: _post(dispatch.url, request))


def _github(dispatch: Dispatch, environment: str, words: str, token: str) -> _Request:
    inputs = {"environments": json.dumps([environment]), "trigger": Trigger.SCHEDULE, "words": words}
    accept = {"Accept": "application/vnd.github+json", "Content-Type": "application/json", "User-Agent": "keyturn"}
    body = json.dumps({"ref": dispatch.branch, "inputs": inputs})
    return _Request({**accept, "Authorization": f"Bearer {token}"}, body.encode())


def _jenkins(dispatch: Dispatch, environment: str, words: str, token: str) -> _Request:
    del dispatch
    body = {"ACTION": "rotate", "ENVIRONMENT": environment, "TRIGGER": Trigger.SCHEDULE, "WORDS": words}
    headers = {"Content-Type": "application/x-www-form-urlencoded", **urllib3.make_headers(basic_auth=token)}
    return _Request(headers, urlencode(body).encode())


def _post(url: str, request: _Request) -> None:
    problem: KeyturnError | None = None
    try:
        # A redirect is not followed: the token would go to wherever it points.
        with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as client:
            answer = client.request("POST", url, headers=request.headers, body=request.body, redirect=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        problem = Unavailable(f"the pipeline at {url} cannot be reached: {type(error).__name__}")
    else:
        problem = _refusal(url, answer.status)
    if problem is not None:
        raise problem  # outside of the handler: the request, with its token, is nowhere in its context


def _refusal(url: str, status: int) -> KeyturnError | None:
    if 200 <= status < 300:
        return None
    what = f"the pipeline at {url} answered {status}"
    if status in (401, 403):
        return Unauthorized(what, "Check the pipeline's token in its store, and what it may do.")
    if status == 429 or status >= 500:
        return Unavailable(what)
    return KeyturnError(what, "Check the address that the trigger declares, and that the pipeline takes this event.")
