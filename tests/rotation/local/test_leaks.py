"""What the search for leaks looks for."""

from __future__ import annotations

import json

import pytest

from rotation.local.demo.leaks import _sensitive
from tests.fixtures.tls import Shelf


@pytest.mark.parametrize("key_type", ["ec-p256", "ec-p384", "rsa-2048"])
def test_of_a_certificate_the_private_key_is_looked_for_however_its_lines_are_broken(
    shelf: Shelf, key_type: str
) -> None:
    text = shelf.local_ca(key_type=key_type).issue(None).reveal()
    value = json.loads(text)
    (looked_for,) = _sensitive(text)
    for form in (text, value["private_key"], value["private_key"].replace("\n", "\r\n    ")):
        assert looked_for in form.encode()
    for public in ("certificate", "chain", "ca"):
        assert looked_for not in value[public].encode()


def test_of_a_login_the_password_is_looked_for_and_not_the_host() -> None:
    assert list(_sensitive('{"host": "db.example.com", "password": "long-enough"}')) == [b"long-enough"]
