"""Accounts at OpenBao's ACME directory: made, found again, and closed."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rotation import plugins
from rotation.credentials import CredentialKind
from rotation.credentials.acme_account import AcmeAccount
from rotation.errors import DeclarationError, TargetError, Unauthorized, Unavailable
from rotation.model import Acceptance, Credential, Strategy
from rotation.secret_value import SecretValue
from tests.contracts.credential_kind import SECRET, Make, OverlapContract, installed, issued, texts_of
from tests.fixtures.acme import EXTERNAL, AcmeDirectory
from tests.fixtures.ports import closed_port


class TestAcmeAccount(OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING})

    @pytest.fixture
    def make(self, acme_directory: AcmeDirectory) -> Make:
        return acme_directory.account

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(Strategy.OVERLAPPING)


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "acme_account") is AcmeAccount


def test_an_account_is_there_once_it_is_installed_and_never_again_once_it_is_revoked(
    acme_directory: AcmeDirectory,
) -> None:
    kind = acme_directory.account()
    first, second = issued(kind, 1), issued(kind, 2)
    assert kind.check(first) is Acceptance.DENIED
    kind.install(first, None)
    kind.install(second, first)
    kind.revoke(first, second)
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)
    with pytest.raises(Unauthorized):
        kind.install(first, second)
    assert kind.check(first) is Acceptance.DENIED


def test_a_candidate_that_was_never_installed_is_turned_down_without_ado(acme_directory: AcmeDirectory) -> None:
    kind = acme_directory.account()
    kind.revoke(issued(kind, 2), installed(kind, 1))
    assert acme_directory.accounts() == 1


def test_a_new_account_needs_a_new_introduction_where_they_are_asked_for(acme_directory: AcmeDirectory) -> None:
    acme_directory.admit("always-required")
    acme_directory.introduce()
    kind = acme_directory.account(external_account=EXTERNAL)
    first = installed(kind, 1)
    second = issued(kind, 2, first)
    with pytest.raises(Unauthorized, match="could not make an ACME account"):
        kind.install(second, first)
    acme_directory.introduce()
    kind.install(second, first)
    kind.revoke(first, second)
    assert (kind.check(first), kind.check(second)) == (Acceptance.DENIED, Acceptance.ACCEPTED)


def test_a_dead_directory_is_unknown_to_check_and_unavailable_to_the_rest(
    acme_directory: AcmeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rotation.tls.acme.retrying", lambda call: call())
    kind = acme_directory.account(directory=f"http://127.0.0.1:{closed_port()}/directory")
    first = issued(kind, 1)
    assert kind.check(first) is Acceptance.UNKNOWN
    with pytest.raises(Unavailable):
        kind.install(first, None)
    with pytest.raises(Unavailable):
        kind.revoke(first, None)


def test_no_key_gets_into_errors_or_logs(acme_directory: AcmeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kind = acme_directory.account()
    first = installed(kind, 1)
    kind.revoke(first, None)
    with pytest.raises(Unauthorized) as closed:
        kind.install(first, None)
    cut = first.value.reveal().replace("END PRIVATE KEY", "END")
    with pytest.raises(TargetError, match="generation 2 of orders/db is no key of an ACME account") as wrong:
        kind.install(Credential(SECRET, 2, SecretValue(cut)), None)
    seen = "\n".join([caplog.text, *texts_of(closed.value), *texts_of(wrong.value)])
    assert first.value.reveal().splitlines()[1] not in seen


def test_what_it_does_is_said_beforehand(acme_directory: AcmeDirectory) -> None:
    made, closed = acme_directory.account().operations(3, 2)
    assert made == f"{acme_directory.url} makes an account for generation 3"
    assert closed == f"{acme_directory.url} closes the account of generation 2"


@pytest.mark.parametrize("others", [{"directory": "example.com"}, {"contact": ["x"]}, {"listen": "127.0.0.1:80"}])
def test_a_wrong_option_is_refused_by_its_name(others: dict[str, Any]) -> None:
    declared = {"directory": "https://ca.example.com/directory"} | others
    (name,) = others
    with pytest.raises(DeclarationError, match=f"acme_account: option {name}"):
        AcmeAccount(declared, Strategy.OVERLAPPING, dict[str, SecretValue]().__getitem__)
