"""The identity of a pipeline's job: a token (JWT) that says which job it is, for whoever trusts its issuer."""

from __future__ import annotations

import os

import requests

from rotation.errors import KeyturnError, Unauthorized, Unavailable

_TIMEOUT = (5.0, 15.0)  # seconds, to connect and to wait for the next bytes
_TRY_AGAIN = 429


def from_github(audience: str | None, otherwise: str) -> str:
    """A token for this job of GitHub Actions. ``otherwise`` completes "Give the job that permission, or …".

    https://docs.github.com/actions/reference/security/oidc#methods-for-requesting-the-oidc-token
    Raises :class:`Unauthorized` where there is none, :class:`Unavailable` where GitHub does not answer.
    """
    url, bearer = (os.environ.get(f"ACTIONS_ID_TOKEN_REQUEST_{name}") for name in ("URL", "TOKEN"))
    if not url or not bearer:
        raise Unauthorized(
            "there is no JWT to log in with: this is no job of GitHub Actions that may ask for one",
            f"Give the job `permissions: {{id-token: write}}`, or {otherwise}.",
        )
    problem: KeyturnError
    try:
        answer = requests.get(
            url,
            params={"audience": audience} if audience else None,
            headers={"Authorization": f"bearer {bearer}"},
            timeout=_TIMEOUT,
        )
        if answer.ok:
            return str(answer.json()["value"])
        busy = answer.status_code == _TRY_AGAIN or answer.status_code >= 500
        kind = Unavailable if busy else Unauthorized
        problem = kind(f"could not get a JWT from GitHub: it answered {answer.status_code}")
    except (requests.RequestException, LookupError, TypeError) as error:
        problem = Unavailable(f"could not get a JWT from GitHub: {type(error).__name__}")
    raise problem  # out here, so that requests' error, which knows the job's bearer token, is not its context
