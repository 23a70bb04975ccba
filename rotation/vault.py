"""What the plugins for HashiCorp Vault and OpenBao share: the connection, the runner's token, and errors in keyturn's
words.

The runner's token comes from the option ``auth``; without it from VAULT_TOKEN or ~/.vault-token, as for Vault's CLI:

| method | token |
|---|---|
| ``token`` | what the environment variable ``variable`` (default VAULT_TOKEN) holds |
| ``token_file`` | what the file ``path`` holds; it may change at any time (Vault Agent's sink, a mounted secret) |
| ``jwt`` | a login as ``role`` with a JWT from ``token_file``, from the environment variable ``token_variable``, or, |
| | without either, from GitHub Actions for ``audience`` |
| ``approle`` | a login with ``role_id`` and the secret id in ``secret_id_file`` or ``secret_id_variable`` |
| ``kubernetes`` | a login as ``role`` with the pod's service account |

Logins go to ``mount`` (default: the method's name). A token near its end is renewed, or replaced by a new login; one
that the server does not accept any more is replaced once per call.

No value and no token gets out this way: the exceptions of hvac and requests hold the request with its headers and its
body, so they are never chained; and a call that carries a value (``quiet``) quotes nothing of the server's answer.
"""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import hvac
import requests
from hvac.adapters import JSONAdapter
from hvac.exceptions import VaultError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rotation.errors import KeyturnError, StoreError, Unauthorized, Unavailable, UsageError
from rotation.job_identity import from_github
from rotation.options import parse
from rotation.retries import retrying

T = TypeVar("T")
Refusals = Mapping[int, type[KeyturnError]]

TIMEOUT = (5.0, 15.0)  # seconds, to connect and to wait for the next bytes
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_RENEW_AFTER = 2 / 3  # of a token's life

# https://developer.hashicorp.com/vault/api-docs#http-status-codes, and /api-docs/system/health for 472 and 473
_TRY_AGAIN = frozenset({412, 429, 472, 473})
_WORDS = {
    472: "it is a standby of another site",
    473: "it is a standby",
    501: "it is not initialized",
    503: "it is sealed, or down for maintenance",
}


_NOT_ALLOWED = (
    "Check the runner's token and its policy, which the foundation stack declares: deploy that after a new declaration."
)
_PROXY = "Correct HTTPS_PROXY (HTTP_PROXY), or name the server in NO_PROXY, then run the command again: it resumes."


class _LoginRefused(Unauthorized):
    remedy = (
        "Compare mount, role and namespace of `auth` with what Vault has there, and what is sent with what the role is "
        "bound to (audience, claims, addresses, uses); Vault's own words come with `vault write auth/MOUNT/login …`."
    )


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Given(_Declared):
    """A token that somebody else made."""

    @abstractmethod
    def token(self) -> str:
        """The token as it is now. Raises :class:`Unauthorized` where there is none."""


class _Login(_Declared):
    mount: str

    @abstractmethod
    def proof(self) -> dict[str, str]:
        """What the login sends: fresh at each call. Raises :class:`Unauthorized` where there is none."""


class _Token(_Given):
    method: Literal["token"]
    variable: str = "VAULT_TOKEN"

    def token(self) -> str:
        return _from_variable(self.variable)


class _TokenFile(_Given):
    method: Literal["token_file"]
    path: Path

    def token(self) -> str:
        return _from_file(self.path)


class _LikeTheCli(_Given):
    def token(self) -> str:
        if os.environ.get("VAULT_TOKEN"):
            return _from_variable("VAULT_TOKEN")
        return _from_file(Path.home() / ".vault-token")


class _Jwt(_Login):
    method: Literal["jwt"]
    mount: str = "jwt"
    role: str
    token_file: Path | None = None
    token_variable: str | None = None
    audience: str | None = None

    def proof(self) -> dict[str, str]:
        if self.token_file is not None:
            return {"role": self.role, "jwt": _from_file(self.token_file)}
        if self.token_variable is not None:
            return {"role": self.role, "jwt": _from_variable(self.token_variable)}
        return {"role": self.role, "jwt": from_github(self.audience, "declare token_file or token_variable")}


class _AppRole(_Login):
    method: Literal["approle"]
    mount: str = "approle"
    role_id: str
    secret_id_file: Path | None = None
    secret_id_variable: str | None = None

    @model_validator(mode="after")
    def _one_secret_id(self) -> Self:
        if (self.secret_id_file is None) == (self.secret_id_variable is None):
            raise ValueError("give either secret_id_file or secret_id_variable")
        return self

    def proof(self) -> dict[str, str]:
        secret_id = _from_file(self.secret_id_file) if self.secret_id_file else _from_variable(self.secret_id_variable)
        return {"role_id": self.role_id, "secret_id": secret_id}


class _Kubernetes(_Login):
    method: Literal["kubernetes"]
    mount: str = "kubernetes"
    role: str
    token_file: Path = _SERVICE_ACCOUNT

    def proof(self) -> dict[str, str]:
        return {"role": self.role, "jwt": _from_file(self.token_file)}


class Connection(_Declared):
    """The options that all plugins for Vault share; a plugin's own model adds its mount."""

    address: str | None = None
    namespace: str | None = None
    auth: Annotated[_Token | _TokenFile | _Jwt | _AppRole | _Kubernetes, Field(discriminator="method")] | None = None


def connect(options: Mapping[str, Any] | Connection) -> Vault:
    """The one client of this process for an address, a namespace and a way to log in. Nothing is sent yet.

    ``options`` are those of :class:`Connection`, or a plugin's own model of them with more fields. The address is
    VAULT_ADDR where none is declared, the namespace VAULT_NAMESPACE. Raises :class:`DeclarationError` for other
    options, :class:`UsageError` where there is no address.
    """
    if not isinstance(options, Connection):
        options = parse(Connection, options, plugin="Vault")
    address = options.address or os.environ.get("VAULT_ADDR", "")
    if not address.startswith(("http://", "https://")):
        what = f"{address!r} is no address of a Vault server" if address else "no address of a Vault server is set"
        raise UsageError(what, "Declare the option address, or set VAULT_ADDR (https://…).")
    namespace = options.namespace or os.environ.get("VAULT_NAMESPACE") or None
    return _connected(Connection(address=address, namespace=namespace, auth=options.auth))


@cache
def _connected(connection: Connection) -> Vault:
    return Vault(connection)


class Vault:
    """One server, as one runner. Threads may share it. See :func:`connect`."""

    def __init__(self, connection: Connection) -> None:
        self.address = connection.address
        self._client = hvac.Client(
            connection.address, token="", namespace=connection.namespace, timeout=TIMEOUT, adapter=_Adapter
        )
        self._runner = _Runner(connection)

    @property
    def session(self) -> requests.Session:
        """Through which every call but logins and renewals goes."""
        session: requests.Session = self._client.adapter.session
        return session

    def ask(
        self,
        call: Callable[[hvac.Client], T],
        doing: str,
        refusals: Refusals | None = None,
        otherwise: type[KeyturnError] = StoreError,
        quiet: bool = False,
    ) -> T:
        """Call Vault, again and again while it is :class:`Unavailable`; see :meth:`ask_once`.

        A write whose reply was lost is sent again: for what must not happen twice, use :meth:`ask_once`.
        """
        return retrying(lambda: self.ask_once(call, doing, refusals, otherwise, quiet))

    def ask_once(
        self,
        call: Callable[[hvac.Client], T],
        doing: str,
        refusals: Refusals | None = None,
        otherwise: type[KeyturnError] = StoreError,
        quiet: bool = False,
    ) -> T:
        """Call Vault once, and say its errors in keyturn's words.

        ``doing`` completes "could not …". ``refusals`` maps HTTP statuses to errors, before all else. A server that is
        sealed, a standby, overloaded or broken (412, 429, 472, 473, 5xx), and connections that fail or time out become
        :class:`Unavailable`; 401 and 403 :class:`Unauthorized`, once a new token did not help; other refusals become
        ``otherwise``.
        """
        refusals = refusals or {}
        token = self._runner.token()
        try:
            return self._try(call, token, doing, refusals, otherwise, quiet)
        except Unauthorized:
            renewed = self._runner.replace(token)
            if renewed is None:
                raise
        return self._try(call, renewed, doing, refusals, otherwise, quiet)

    def _try(
        self,
        call: Callable[[hvac.Client], T],
        token: str,
        doing: str,
        refusals: Refusals,
        otherwise: type[KeyturnError],
        quiet: bool,
    ) -> T:
        self._client.token = token
        return _translated(lambda: call(self._client), doing, refusals, otherwise, quiet)


class _Adapter(JSONAdapter):  # type: ignore[misc]  # hvac has no types
    """hvac's own, with what it leaves out: an error's HTTP status, and that a 200 without JSON is no answer.

    Each thread has its own token: else a call could go out with one that another thread has just seen refused.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._of_thread = threading.local()
        super().__init__(*args, **kwargs)

    @property
    def token(self) -> str:
        return getattr(self._of_thread, "token", "")

    @token.setter
    def token(self, token: str) -> None:
        self._of_thread.token = token

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        answer = super().request(method, url, *args, **kwargs)
        if isinstance(answer, requests.Response) and answer.status_code == requests.codes.ok and method != "head":
            raise requests.exceptions.InvalidJSONError("the answer is no JSON")
        return answer

    def _raise_for_error(self, method: str, url: str, response: requests.Response) -> None:
        try:
            super()._raise_for_error(method, url, response)
        except VaultError as error:
            error.status, error.retry_after = response.status_code, response.headers.get("Retry-After", "")
            raise


def _translated(call: Callable[[], T], doing: str, refusals: Refusals, otherwise: type[KeyturnError], quiet: bool) -> T:
    try:
        return call()
    except VaultError as error:
        problem = _refused(error, doing, refusals, otherwise, quiet)
    except requests.exceptions.SSLError as error:
        problem = (
            UsageError(
                f"could not {doing}: the server's certificate is not trusted",
                "Set VAULT_CACERT to its authority's file.",
            )
            if "CERTIFICATE_VERIFY_FAILED" in str(error)
            else Unavailable(f"could not {doing}: the TLS handshake failed")
        )
    except requests.exceptions.ProxyError:
        problem = Unavailable(f"could not {doing}: the proxy of this environment did not pass it on", _PROXY)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        problem = Unavailable(f"could not {doing}: {type(error).__name__}")
    except (requests.exceptions.InvalidJSONError, requests.exceptions.ContentDecodingError):
        problem = Unavailable(f"could not {doing}: the answer was incomplete")
    except requests.RequestException as error:
        problem = otherwise(f"could not {doing}: {type(error).__name__}")
    raise problem  # out here, so that hvac's or requests' error, which knows token and value, is not its context


def _refused(
    error: VaultError, doing: str, refusals: Refusals, otherwise: type[KeyturnError], quiet: bool
) -> KeyturnError:
    status: int = getattr(error, "status", 0)
    said = "" if quiet else "; ".join(error.errors or ())
    words = " ".join(filter(None, (f"could not {doing}: Vault answered {status}", said and f"({said})")))
    words += f": {_WORDS[status]}" if status in _WORDS and not said else ""
    if status in refusals:
        return refusals[status](words)
    if status in (401, 403):
        return Unauthorized(words, _NOT_ALLOWED)
    if status in _TRY_AGAIN or status >= 500:
        return Unavailable(words, retry_after=_seconds(getattr(error, "retry_after", "")))
    return otherwise(words)


def _seconds(header: str) -> float | None:
    """Retry-After in seconds; Vault sends no dates."""
    return float(header) if header.isdecimal() else None


@dataclass(frozen=True, slots=True)
class _Held:
    """A token: when to renew or replace it, and when it ends, by the monotonic clock; None is never."""

    token: str = field(repr=False)
    renewable: bool = False
    look_at: float | None = None
    end: float | None = None

    @classmethod
    def lasting(cls, token: str, seconds: float, renewable: bool) -> Self:
        """``seconds`` 0 means without end."""
        now = time.monotonic()
        if not seconds:
            return cls(token)
        return cls(token, renewable, now + max(seconds * _RENEW_AFTER, 1.0), now + seconds)

    @property
    def near_its_end(self) -> bool:
        return self.look_at is not None and time.monotonic() >= self.look_at


class _Runner:
    """Who the runner is to the server: it has a token, and sees that it stays good."""

    def __init__(self, connection: Connection) -> None:
        self._auth = connection.auth or _LikeTheCli()
        self._connection = connection
        self._held: _Held | None = None
        self._lock = threading.Lock()

    def token(self) -> str:
        """A token that is not near its end, as far as that can be told."""
        with self._lock:
            if isinstance(self._auth, _Given):
                token = self._auth.token()
                if self._held is None or self._held.token != token:
                    self._held = self._looked_up(token)
            elif self._held is None:
                self._held = self._logged_in(self._auth)
            if self._held.near_its_end:
                self._held = self._prolonged(self._held)
            return self._held.token

    def replace(self, refused: str) -> str | None:
        """Another token, where a call was refused with this one for the token's sake; None where there is none."""
        with self._lock:
            if self._held is not None and self._held.token != refused:
                return self._held.token  # another thread was faster
            if isinstance(self._auth, _Given):
                token = self._auth.token()
                if token == refused:
                    return None
                self._held = self._looked_up(token)
            else:
                if self._is_good(refused):
                    return None
                self._held = self._logged_in(self._auth)
            return self._held.token

    def _prolonged(self, held: _Held) -> _Held:
        """The token renewed; or another, where it cannot be or would still end soon."""
        longer = self._renewed(held) if held.renewable else None
        if longer is not None and (longer.end or 0) > (held.end or 0) + 1:
            return longer
        if isinstance(self._auth, _Login):
            return self._logged_in(self._auth)
        left = max((held.end or 0) - time.monotonic(), 0)
        return _Held.lasting(held.token, left or 60.0, held.renewable)

    def _renewed(self, held: _Held) -> _Held | None:
        try:
            auth = self._call("renew the runner's token", held.token, lambda c: c.auth.token.renew_self())["auth"]
        except (Unauthorized, Unavailable, StoreError):
            return None
        return _Held.lasting(held.token, auth["lease_duration"], auth["renewable"])

    def _looked_up(self, token: str) -> _Held:
        """A given token with its life, or without where it may not look at itself: the first call will tell."""
        try:
            data = self._call("look up the runner's token", token, lambda c: c.auth.token.lookup_self())["data"]
        except (Unauthorized, Unavailable, StoreError):
            return _Held(token)
        return _Held.lasting(token, data["ttl"], data.get("renewable", False))

    def _is_good(self, token: str) -> bool:
        try:
            self._call("look up the runner's token", token, lambda c: c.auth.token.lookup_self())
        except Unauthorized:
            return False
        return True

    def _logged_in(self, auth: _Login) -> _Held:
        proof = auth.proof()
        doing = f"log in at auth/{auth.mount}"
        # Vault answers 400 to a wrong role, secret id or JWT, and says in its message what is wrong with it.
        refusals = dict.fromkeys((400, 403, 404), _LoginRefused)
        path = f"/v1/auth/{auth.mount}/login"
        reply = self._call(doing, "", lambda c: c.adapter.post(path, json=proof), refusals)["auth"]
        return _Held.lasting(reply["client_token"], reply["lease_duration"], reply["renewable"])

    def _call(
        self, doing: str, token: str, call: Callable[[hvac.Client], Any], refusals: Refusals | None = None
    ) -> dict[str, Any]:
        client = hvac.Client(
            self._connection.address,
            token=token,
            namespace=self._connection.namespace,
            timeout=TIMEOUT,
            adapter=_Adapter,
        )
        try:
            answer: dict[str, Any] = _translated(lambda: call(client), doing, refusals or {}, StoreError, quiet=True)
        finally:
            client.adapter.close()
        return answer


def _from_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unauthorized(
            f"the runner's credential for Vault in {path} cannot be read: {type(error).__name__}"
        ) from None
    if not text:
        raise Unauthorized(f"the runner's credential for Vault in {path} is empty")
    return text


def _from_variable(name: str | None) -> str:
    text = os.environ.get(name or "", "").strip()
    if not text:
        raise Unauthorized(f"the runner's credential for Vault is missing: {name} is not set")
    return text
