"""An account at an ACME directory (RFC 8555), by Certbot's client, with its errors in keyturn's words.

An account is its key: whoever has the key is the account. So the key is a secret's value, as PEM.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any, Self, TypeVar

import requests
from acme import errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.errors import Error as JoseError
from josepy.jwa import ES256, RS256, JWASignature
from josepy.jwk import JWK, JWKEC, JWKRSA
from pydantic import BaseModel, ConfigDict, Field

from rotation.errors import DeclarationError, KeyturnError, TargetError, Unauthorized, Unavailable, UsageError
from rotation.retries import retrying
from rotation.secret_value import SecretValue

T = TypeVar("T")

TIMEOUT = 20  # seconds, for each answer
_NEEDED = ("newNonce", "newAccount", "newOrder", "revokeCert")

# https://datatracker.ietf.org/doc/html/rfc8555#section-6.7
_TRY_AGAIN = frozenset({"rateLimited", "serverInternal", "badNonce"})
_NO_ACCOUNT = frozenset({"accountDoesNotExist", "unauthorized"})  # the latter is a closed one's
_NOT_WELCOME = frozenset({"unauthorized", "accountDoesNotExist", "externalAccountRequired", "userActionRequired"})


class Membership(BaseModel):
    """The options on a directory and on the account there. ``external_account`` names a secret, in the same store, with
    what the directory gave out to let an account in, as JSON: {"kid": …, "hmac_key": …}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Annotated[str, Field(pattern=r"^https?://[^/\s]+/\S*$")]
    external_account: str | None = None
    contact: tuple[Annotated[str, Field(pattern=r"^mailto:\S+@\S+$")], ...] = ()
    agree_to_terms: bool = False


class AccountKey:
    """The key of an account, and how it signs. ``what`` names it in the :class:`TargetError` for a value that is no key
    of a kind that ACME servers take."""

    def __init__(self, value: SecretValue, what: str) -> None:
        try:
            self.jwk, self.algorithm = _read_key(value.reveal())
        except (ValueError, TypeError):
            pass
        else:
            return
        # Out here, so that an error that quotes the text is not this one's context.
        raise TargetError(f"{what} is no key of an ACME account", "Put a private key there as PEM: EC P-256 or RSA.")


class Account:
    """An account at its directory. See :meth:`at`."""

    def __init__(self, network: ClientNetwork, key: AccountKey) -> None:
        self._network, self.key = network, key
        self._last: requests.Response | None = None
        network.session.hooks["response"].append(self._notice)

    @classmethod
    @contextmanager
    def at(cls, membership: Membership, key: AccountKey) -> Iterator[Self]:
        """The directory, as whoever has the key; nothing is known of the account yet."""
        network = ClientNetwork(key.jwk, alg=key.algorithm, user_agent="keyturn", timeout=TIMEOUT)
        try:
            account = cls(network, key)
            account._open(membership.directory)
            yield account
        finally:
            network.session.close()

    def _open(self, url: str) -> None:
        doing = f"read the ACME directory {url}"
        directory = retrying(lambda: self._ask_once(doing, lambda: ClientV2.get_directory(url, self._network)))
        if lacking := [name for name in _NEEDED if name not in directory.to_partial_json()]:
            raise TargetError(f"could not {doing}: it is none, for it has no {lacking[0]}", _WRONG)
        self._client = ClientV2(directory, self._network)

    def find(self) -> bool:
        """Whether the directory has an open account with this key. If so it is used from then on."""
        unknown = messages.RegistrationResource(body=messages.Registration())
        found = self.ask_unless(_NO_ACCOUNT, "find the ACME account", lambda c: c.query_registration(unknown))
        return found is not None and found.body.status == messages.STATUS_VALID.name

    def join(self, membership: Membership, given: SecretValue | None) -> None:
        """Find the account, or make it. ``given`` is the value of the secret ``external_account``."""
        if self.find():
            return
        terms = self._client.directory.meta.terms_of_service
        if terms and not membership.agree_to_terms:
            raise DeclarationError(
                f"the ACME directory {membership.directory} has terms: {terms}", "Read them, and set agree_to_terms."
            )
        wanted = messages.NewRegistration(
            contact=membership.contact or None,
            terms_of_service_agreed=True if terms else None,
            external_account_binding=self._binding(given, str(membership.external_account)) if given else None,
        )
        self._network.account = None
        self.ask("make an ACME account", lambda c: self._made(c, wanted))

    def leave(self) -> None:
        """Close the account for ever, if there is one."""
        if self.find() and (account := self._network.account) is not None:
            self.ask("close the ACME account", lambda c: c.deactivate_registration(account))

    def ask(self, doing: str, call: Callable[[ClientV2], T]) -> T:
        """Call the directory, again and again while it is :class:`Unavailable`. ``doing`` completes "could not …"."""
        return retrying(lambda: self._ask_once(doing, lambda: call(self._client)))

    def ask_unless(self, codes: Collection[str], doing: str, call: Callable[[ClientV2], T]) -> T | None:
        """The same; None where the directory answers with one of these ACME errors."""

        def unless(client: ClientV2) -> T | None:
            try:
                return call(client)
            except messages.Error as error:
                if error.code not in codes:
                    raise
                return None

        return self.ask(doing, unless)

    def _made(self, client: ClientV2, wanted: messages.NewRegistration) -> None:
        try:
            client.new_account(wanted)
        except errors.ConflictError as error:  # it is there: made by a request whose reply was lost, or long closed
            if not self.find():
                raise Unauthorized("the ACME account is closed", "Give the account a new key.") from error

    def _binding(self, given: SecretValue, name: str) -> dict[str, Any]:
        try:
            fields = json.loads(given.reveal())
            binding: dict[str, Any] = messages.ExternalAccountBinding.from_data(
                self.key.jwk.public_key(), str(fields["kid"]), fields["hmac_key"], self._client.directory
            )
        except (ValueError, TypeError, KeyError):
            pass
        else:
            return binding
        # Out here, so that an error that quotes the text is not this one's context.
        raise TargetError(f"the secret {name} is no external account", 'Put {"kid": …, "hmac_key": …} there.')

    def _ask_once(self, doing: str, call: Callable[[], T]) -> T:
        self._last = None
        try:
            return call()
        except messages.Error as error:
            raise self._refused(doing, error) from error
        except errors.IssuanceError as error:
            raise self._refused(doing, error.error) from error
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                raise Unavailable(f"could not {doing}: the TLS handshake failed") from error
            raise UsageError(
                f"could not {doing}: the server's certificate is not trusted",
                "Set REQUESTS_CA_BUNDLE to its authority's file.",
            ) from error
        except (requests.RequestException, errors.TimeoutError) as error:
            raise Unavailable(f"could not {doing}: {type(error).__name__}") from error
        except (errors.Error, JoseError, ValueError, TypeError, LookupError) as error:
            raise self._refused(doing, None) from error

    def _refused(self, doing: str, error: messages.Error | None) -> KeyturnError:
        """What an answer means that is not the one wanted; ``error`` is the problem that it tells, if it does."""
        status = 0 if self._last is None else self._last.status_code
        code, said = (error.code, _words(error)) if error else (None, "")
        words = f"could not {doing}: {said or f'the server answered {status}'}"
        if code in _TRY_AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            return Unavailable(words, retry_after=_seconds(self._last))
        if code in _NOT_WELCOME:
            return Unauthorized(
                words, "Check the ACME account's key, and whether the directory wants an external account."
            )
        return TargetError(words) if code else TargetError(f"{words}, which is not ACME", _WRONG)

    def _notice(self, response: requests.Response, **_: Any) -> None:
        self._last = response


_WRONG = "Check the option directory: it is the address of a JSON document, which names all others."


def _read_key(pem: str) -> tuple[JWK, JWASignature]:
    key = load_pem_private_key(pem.encode(), password=None)
    if isinstance(key, RSAPrivateKey):
        return JWKRSA(key=key), RS256
    # https://datatracker.ietf.org/doc/html/rfc8555#section-6.2 asks servers for ES256 and no more
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return JWKEC(key=key), ES256
    raise TypeError("neither RSA nor EC P-256")


def _words(error: messages.Error) -> str:
    """The directory's own: an ACME problem names neither key nor token."""
    parts = [error.code, error.detail, *(_words(part) for part in error.subproblems or ())]
    return ": ".join(str(part) for part in parts if part)


def _seconds(response: requests.Response | None) -> float | None:
    """Retry-After, which is a number of seconds or a date."""
    header = "" if response is None else response.headers.get("Retry-After", "")
    if header.isdecimal():
        return float(header)
    try:
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
