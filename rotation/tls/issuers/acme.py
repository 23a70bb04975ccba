"""An ACME directory (RFC 8555): a public authority's, or one's own (the PKI engine of OpenBao, step-ca).

The account's key is a secret too: ``account`` names it in the same store. Turn it with the kind ``acme_account``, or
put a private key there by hand, as PEM; its account is made with the first order.

Names are proved by http-01 alone: the directory fetches a text from each of them, at port 80. So there are no
wildcards. What answers at port 80 either shows the folder ``webroot``, or passes ``/.well-known/acme-challenge/`` on to
``listen``, where the runner itself answers for as long as an order takes.

Nothing is kept between runs. One that was killed leaves an order that expires; the next one orders anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

import requests
from acme import challenges, messages
from acme.client import ClientV2
from cryptography import x509
from pydantic import Field, model_validator

from rotation.credentials import ReadSecret
from rotation.errors import DeclarationError, TargetError, Unavailable
from rotation.options import parse
from rotation.retries import retrying, until
from rotation.tls import address_of, bundle, is_root, split
from rotation.tls.acme import TIMEOUT, Account, AccountKey, Membership
from rotation.tls.http_challenge import from_folder, from_here
from rotation.tls.issuers import Issuer, Signed, Wanted

PATIENCE = 90.0  # seconds, for the directory to prove a name, and again for it to sign
_UNSPECIFIED = 0  # RFC 5280, CRLReason: OpenBao takes no other


class _Options(Membership):
    account: str
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")] | None = None
    webroot: Path | None = None

    @model_validator(mode="after")
    def _one_way_to_answer(self) -> Self:
        if (self.listen is None) == (self.webroot is None):
            raise ValueError("give either listen or webroot")
        return self


class Acme(Issuer):
    """Options: ``directory`` (its address), ``account``, ``external_account``, ``contact`` ("mailto:…"),
    ``agree_to_terms`` (the directory's, where it has some), and either ``listen`` ("address:port") or ``webroot``.

    How long a certificate is valid is the directory's to decide."""

    trust_comes_with_the_value = False

    def __init__(self, options: Mapping[str, Any], read: ReadSecret) -> None:
        self._options = parse(_Options, options, "acme")
        self._read = read

    def sign(self, wanted: Wanted) -> Signed:
        _refuse_what_cannot_be_proved(wanted.names)
        with self._account() as account:
            order = account.ask("order a certificate", lambda c: c.new_order(wanted.pem.encode()))
            self._prove(account, order)
            leaf, *above = account.ask("get a certificate signed", lambda c: _finalized(c, order))
        return Signed(bundle([leaf]), bundle(found for found in above if not is_root(found)))

    def authorities(self) -> str:
        """Those that browsers trust. For a directory of one's own, declare the kind's option ``trust``."""
        return Path(requests.utils.DEFAULT_CA_BUNDLE_PATH).read_text(encoding="utf-8")

    def is_revoked(self, signed: Signed, authorities: str) -> bool:
        """ACME does not tell: look at the list that the certificate names, if it names one."""
        signers = [*split(signed.chain), *split(authorities)]
        return any(_is_listed(signed.x509, url, signers) for url in _lists_of(signed.x509))

    def revoke(self, signed: Signed) -> None:
        """As the account. Clients that load lists may hear of it some hours later."""
        with self._account() as account:
            doing = f"revoke the certificate {signed.serial}"
            account.ask_unless({"alreadyRevoked"}, doing, lambda c: c.revoke(signed.x509, _UNSPECIFIED))

    @contextmanager
    def _account(self) -> Iterator[Account]:
        name, other = self._options.account, self._options.external_account
        key = AccountKey(self._read(name), f"the secret {name}")
        with Account.at(self._options, key) as account:
            account.join(self._options, None if other is None else self._read(other))
            yield account

    def _prove(self, account: Account, order: messages.OrderResource) -> None:
        """Answer for every name that the directory does not know as ours yet."""
        missing = [found for found in order.authorizations if found.body.status != messages.STATUS_VALID]
        with ExitStack() as answering:
            for authorization in missing:
                challenge = _http_challenge(authorization)
                response, text = challenge.chall.response_and_validation(account.key.jwk)
                answering.enter_context(self._answering(challenge.chall.path, text))
                # "malformed" is a challenge that went on already, by a request whose reply was lost.
                account.ask_unless({"malformed"}, f"prove {_name(authorization)}", _answer(challenge, response))
            for authorization in missing:
                _await_proof(account, authorization)

    def _answering(self, path: str, text: str) -> AbstractContextManager[None]:
        if self._options.webroot is not None:
            return from_folder(self._options.webroot, path, text)
        return from_here(str(self._options.listen), path, text)


def _refuse_what_cannot_be_proved(names: Sequence[str]) -> None:
    for name in names:
        if name.startswith("*."):
            raise DeclarationError(
                f"acme: {name} cannot be proved: a wildcard needs the challenge dns-01, which is not supported",
                "Name each name by itself, or use another issuer.",
            )
    if address_of(names[0]) is not None:
        raise DeclarationError(
            f"acme: {names[0]} comes first, and Certbot's client takes the first one for a DNS name",
            "Put a DNS name before it.",
        )


def _http_challenge(authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
    for found in authorization.body.challenges:
        if isinstance(found.chall, challenges.HTTP01):
            return found
    raise TargetError(
        f"the directory does not take http-01 as a proof of {_name(authorization)}",
        "Allow that challenge there, or use another issuer.",
    )


def _answer(challenge: messages.ChallengeBody, response: challenges.ChallengeResponse) -> Any:
    return lambda client: client.answer_challenge(challenge, response)


def _await_proof(account: Account, authorization: messages.AuthorizationResource) -> None:
    """Wait until the directory has made up its mind. Some try for a while before they say no."""
    name, seen = _name(authorization), [authorization]

    def look() -> messages.Status:
        seen.append(account.ask(f"prove {name}", lambda c: c.poll(authorization)[0]))
        return seen[-1].body.status

    try:
        status = until(look, lambda s: s != messages.STATUS_PENDING, what=f"a proof of {name}", seconds=PATIENCE)
    except Unavailable:
        if not _reasons(seen[-1]):
            raise
        status = messages.STATUS_INVALID
    if status != messages.STATUS_VALID:
        said = "; ".join(_reasons(seen[-1])) or f"it is {status.name}"
        raise TargetError(
            f"the directory found no proof of {name}: {said}",
            f"See that http://{name}/.well-known/acme-challenge/ shows what the option listen or webroot holds.",
        )


def _reasons(authorization: messages.AuthorizationResource) -> list[str]:
    return [str(found.error.detail) for found in authorization.body.challenges if found.error is not None]


def _name(authorization: messages.AuthorizationResource) -> str:
    return str(authorization.body.identifier.value)


def _finalized(client: ClientV2, order: messages.OrderResource) -> list[x509.Certificate]:
    """The certificate, and those above it. ValueError where there is none."""
    deadline = datetime.now() + timedelta(seconds=PATIENCE)  # without a zone, as Certbot's client compares it
    signed = client.finalize_order(order, deadline)
    return x509.load_pem_x509_certificates(signed.fullchain_pem.encode())


def _lists_of(certificate: x509.Certificate) -> list[str]:
    """Where the lists are on which it would be, if it were revoked."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return []
    names = [str(name.value) for point in points for name in point.full_name or ()]
    return [name for name in names if name.startswith(("http://", "https://"))]


def _is_listed(certificate: x509.Certificate, url: str, signers: Sequence[x509.Certificate]) -> bool:
    doing = f"read the list of revoked certificates {url}"
    revoked = retrying(lambda: _fetched(url, doing))
    signed = any(revoked.issuer == c.subject and _is_signed_by(revoked, c) for c in signers)
    if not signed or (revoked.next_update_utc is not None and revoked.next_update_utc < datetime.now(UTC)):
        raise Unavailable(f"could not {doing}: it is {'out of date' if signed else 'not signed by its issuer'}")
    return revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def _is_signed_by(revoked: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    try:
        return revoked.is_signature_valid(signer.public_key())  # type: ignore[arg-type]
    except TypeError:  # a key that signs no lists
        return False


def _fetched(url: str, doing: str) -> x509.CertificateRevocationList:
    try:
        with requests.Session() as session:
            answer = session.get(url, timeout=TIMEOUT)
            answer.raise_for_status()
            return x509.load_der_x509_crl(answer.content)
    except (requests.RequestException, ValueError) as error:
        raise Unavailable(f"could not {doing}: {type(error).__name__}") from error
