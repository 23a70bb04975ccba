"""An authority in the store, and its change: who trusts and who signs at every moment of it."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from rotation import plugins
from rotation.credentials import CredentialKind
from rotation.credentials.tls_authority import TlsAuthority
from rotation.errors import DeclarationError
from rotation.model import Acceptance, Credential, Strategy
from rotation.tls import split
from rotation.tls.handshake import client_context
from tests.contracts.credential_kind import Make, OverlapContract, installed, issued
from tests.fixtures.tls import AUTHORITY, Shelf, material, serving, shake_hands

LEAF = "orders/tls"


class TestTlsAuthority(OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING})

    @pytest.fixture
    def make(self) -> Make:
        return lambda strategy: TlsAuthority({"common_name": "Orders"}, strategy, Shelf().__getitem__)

    @pytest.fixture
    def kind(self, make: Make) -> CredentialKind:
        return make(Strategy.OVERLAPPING)


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "tls_authority") is TlsAuthority


def trusts(port: int, authority: Credential) -> bool:
    """Whether a client that has this generation of the authority shakes hands with the server."""
    try:
        shake_hands(port, client_context(material(authority).ca))
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_clients_trust_the_new_authority_before_it_signs_and_the_old_one_until_nothing_of_it_is_left() -> None:
    shelf = Shelf()
    authority = shelf.authority(certificates=[LEAF])
    first = issued(authority, 1)
    shelf[AUTHORITY] = first.value
    leaf = shelf.local_ca()
    old_leaf = installed(leaf, 1)
    shelf[LEAF] = old_leaf.value
    with serving(material(old_leaf)) as server:
        second = issued(authority, 2, first)  # staged, installed, and deployed to every client
        assert authority.missing(first, second) == ()
        assert (trusts(server.port, first), trusts(server.port, second)) == (True, True)

        shelf[AUTHORITY] = second.value  # promoted: from here on it signs
        assert leaf.check(old_leaf) is Acceptance.ACCEPTED
        new_leaf = issued(leaf, 2, old_leaf)
        assert leaf.missing(old_leaf, new_leaf) == ()
        assert material(new_leaf).x509.issuer == material(second).x509.subject
        server.present(material(new_leaf))
        assert trusts(server.port, second)
        assert not trusts(server.port, first)

        third = issued(authority, 3, second)  # turned again while a server still has the old certificate
        assert material(first).x509 in split(material(third).ca)
        server.present(material(old_leaf))
        assert trusts(server.port, third)

        shelf[LEAF] = new_leaf.value  # the old one is retired
        fourth = issued(authority, 3, second)
        assert not trusts(server.port, fourth)
        server.present(material(new_leaf))
        assert trusts(server.port, fourth)


def test_an_authority_that_does_not_know_a_certificate_in_use_is_turned_down(shelf: Shelf) -> None:
    """A rollback behind the authority that signed it, say."""
    authority = shelf.authority(certificates=[LEAF])
    first = Credential(AUTHORITY, 1, shelf[AUTHORITY])
    second = Credential(AUTHORITY, 2, shelf.authority().issue(first))
    shelf[AUTHORITY] = second.value
    shelf[LEAF] = issued(shelf.local_ca(), 1).value
    back = Credential(AUTHORITY, 3, first.value)
    (lack,) = authority.missing(second, back)
    assert lack.startswith(f"the root of {LEAF} (")


def test_a_value_that_signs_nothing_is_denied(shelf: Shelf) -> None:
    leaf = issued(shelf.local_ca(), 1)
    assert shelf.authority().check(leaf) is Acceptance.DENIED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"common_name": ""}, "option common_name"),
        ({"lifetime": "P30000D"}, "option lifetime"),
        ({"renew_after": 0}, "option renew_after"),
        ({"names": ["orders.test"]}, "option names"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=f"tls_authority: {reason}"):
        Shelf().authority(**options)
