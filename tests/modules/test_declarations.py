"""An estate's names are checked against each other, and errors name its lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modules.declarations import Consumer, Credential, Estate, Key, Secret
from rotation.errors import DeclarationError
from rotation.model import Strategy


def _secret(name: str, key: str | None = None) -> Secret:
    return Secret(name, Credential("random_token"), strategy=Strategy.OVERLAPPING, key=key)


def _consumer(*secrets: str) -> Consumer:
    return Consumer("app", template=Path("t"), format="yaml", secrets=secrets, signals={})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Estate(keys=(Key("a"), Key("a"))), "the key a is declared already at tests/modules/test_declarations"),
        (lambda: Estate(keys=(Key("Bad name!"),)), "the key Bad name!: String should match pattern"),
        (lambda: Estate(secrets=(_secret("a"), _secret("a"))), "the secret a is declared already at"),
        (lambda: Estate(consumers=(_consumer(), _consumer())), "the consumer app is declared already at"),
        (lambda: Estate(secrets=(_secret("a", "k"),)), "the secret a uses the key k, which is not declared"),
        (lambda: Estate(consumers=(_consumer("a"),)), "the consumer app uses the secret a, which is not declared"),
    ],
)
def test_names_that_do_not_fit_together_are_refused(make: Callable[[], Estate], says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        make()

    assert says in str(caught.value)
    assert str(caught.value).startswith("tests/modules/test_declarations.py:")


def test_a_declaration_knows_its_line_and_equals_one_from_elsewhere() -> None:
    first = Key("a")
    second = Key("a")

    assert first == second
    assert second.where.line == first.where.line + 1
    assert str(first.where) == f"tests/modules/test_declarations.py:{first.where.line}"
