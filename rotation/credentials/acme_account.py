"""An account at an ACME directory: what the issuer ``acme`` of TLS certificates orders as. A value is its private key,
as PEM, made here; only requests signed with it leave this process.

Old and new are two accounts, side by side ("overlapping"): to install a generation is to make its account, to revoke it
is to close that for ever. Certificates go on, whoever ordered them. But the directory may let only the account that
ordered a certificate revoke it (OpenBao's does): so retire certificates before the account that ordered them.

Where the directory wants an account to be known beforehand, put a new ``external_account`` in the store before each
rotation, as most of them let in one account each.
"""

# ruff: noqa: ARG002 (an account does not depend on the one before it, and has no sessions)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from rotation.credentials import CredentialKind, DescribesOperations, ReadSecret
from rotation.errors import DeclarationError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Strategy
from rotation.options import parse
from rotation.secret_value import SecretValue
from rotation.tls import key_text, new_key
from rotation.tls.acme import Account, AccountKey, Membership


class AcmeAccount(CredentialKind, DescribesOperations):
    """Options: those of :class:`~rotation.tls.acme.Membership`."""

    strategies: ClassVar[frozenset[Strategy]] = frozenset({Strategy.OVERLAPPING})

    def __init__(self, options: Mapping[str, Any], strategy: Strategy, read: ReadSecret) -> None:
        if strategy not in self.strategies:
            raise DeclarationError(f"acme_account has no strategy {strategy} (it has: {Strategy.OVERLAPPING})")
        self._options = parse(Membership, options, "acme_account")
        self._read = read

    def issue(self, current: Credential | None) -> SecretValue:
        return key_text(new_key("ec-p256"))

    def install(self, new: Credential, current: Credential | None) -> None:
        """Make the account, or find it."""
        name = self._options.external_account
        with self._account(new) as account:
            account.join(self._options, None if name is None else self._read(name))

    def check(self, credential: Credential) -> Acceptance:
        try:
            with self._account(credential) as account:
                return Acceptance.ACCEPTED if account.find() else Acceptance.DENIED
        except (Unavailable, Unauthorized):
            return Acceptance.UNKNOWN

    def revoke(self, old: Credential, current: Credential | None, *, end_sessions: bool = False) -> None:
        if current is not None and current.value == old.value:
            return
        with self._account(old) as account:
            account.leave()

    def operations(self, new: int, current: int | None) -> tuple[str, ...]:
        directory = self._options.directory
        making = f"{directory} makes an account for generation {new}"
        return (making,) if current is None else (making, f"{directory} closes the account of generation {current}")

    @contextmanager
    def _account(self, credential: Credential) -> Iterator[Account]:
        key = AccountKey(credential.value, f"generation {credential.generation} of {credential.secret}")
        with Account.at(self._options, key) as account:
            yield account
