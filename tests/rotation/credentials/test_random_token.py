"""Random tokens: the kind without a target."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation import plugins
from rotation.credentials import CredentialKind
from rotation.credentials.random_token import ALPHABETS, RandomToken
from rotation.errors import DeclarationError
from rotation.model import Strategy
from rotation.secret_value import SecretValue
from tests.contracts.credential_kind import Make, OverlapContract


def _never_read(name: str) -> SecretValue:
    raise AssertionError(f"a token needs no other secret, and asked for {name}")


def _token(strategy: Strategy = Strategy.OVERLAPPING, **options: Any) -> RandomToken:
    return RandomToken(options, strategy, _never_read)


class TestRandomToken(OverlapContract):
    strategies = frozenset({Strategy.OVERLAPPING, Strategy.SINGLE})

    @pytest.fixture
    def make(self) -> Make:
        return _token

    @pytest.fixture
    def kind(self) -> CredentialKind:
        return _token()


def test_it_is_found_by_the_name_of_its_file() -> None:
    assert plugins.load(CredentialKind, "random_token") is RandomToken


@given(
    alphabet=st.sampled_from(sorted(ALPHABETS)) | st.just("αβγδεζηθικλμνξοπ"),
    length=st.integers(32, 300),
    prefix=st.text("abc_-", max_size=8),
)
def test_a_token_has_the_declared_prefix_length_and_alphabet(alphabet: str, length: int, prefix: str) -> None:
    token = _token(alphabet=alphabet, length=length, prefix=prefix).issue(None).reveal()
    drawn = token.removeprefix(prefix) if prefix else token
    assert token == prefix + drawn
    assert len(drawn) == length
    assert set(drawn) <= set(ALPHABETS.get(alphabet, alphabet))


@given(size=st.integers(2, 62), length=st.integers(1, 140))
def test_it_is_refused_exactly_when_it_has_fewer_than_128_bits(size: int, length: int) -> None:
    bits = length * math.log2(size)
    alphabet = ALPHABETS["alphanumeric"][:size]
    if bits >= 128:
        assert len(_token(alphabet=alphabet, length=length).issue(None).reveal()) == length
    else:
        with pytest.raises(DeclarationError, match=rf"{bits:.0f} bits of entropy, fewer than 128"):
            _token(alphabet=alphabet, length=length)


def test_every_character_of_the_alphabet_is_used() -> None:
    assert set(_token(alphabet="hex", length=2000).issue(None).reveal()) == set("0123456789abcdef")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"alphabet": "aab"}, "'aab' is neither one of alphanumeric, hex, urlsafe nor"),
        ({"alphabet": "alphanumerik"}, "'alphanumerik' is neither one of"),
        ({"alphabet": ""}, "0 bits of entropy"),
        ({"prefix": "a\nb"}, "printable"),
        ({"alphabet": "ab\x00cdefghijklmnopq", "length": 64}, "printable"),
        ({"length": 0}, "option length"),
        ({"length": "long"}, "option length"),
        ({"size": 32}, "option size"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        _token(**options)
