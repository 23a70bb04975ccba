"""A value shows itself to nobody who does not ask for it by name."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import asdict

import pytest

from rotation.model import Credential
from rotation.secret_value import SecretValue

CANARY = "canary-8f3a"
VALUE = SecretValue(CANARY)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda value: f"{value}",
        lambda value: f"{value!r:>30}",
        lambda value: "%s %r" % (value, value),  # noqa: UP031  # loggers format like this
        "{0:10}".format,
        lambda value: repr([value, {"password": value}]),
        lambda value: repr(Credential("orders/db", 1, value)),
        lambda value: str(asdict_or_error(value)),
        lambda value: repr(dir(value)),
    ],
)
def test_no_way_of_showing_it_shows_the_text(show: Callable[[SecretValue], str]) -> None:
    assert CANARY not in show(VALUE)


def asdict_or_error(value: SecretValue) -> object:
    """``asdict`` copies deeply, which a value refuses."""
    try:
        return asdict(Credential("orders/db", 1, value))
    except TypeError as error:
        return error


@pytest.mark.parametrize("store", [pickle.dumps, json.dumps, copy.copy, copy.deepcopy, hash])
def test_it_is_not_serialized_copied_or_hashed(store: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as caught:
        store(VALUE)
    assert CANARY not in str(caught.value)


def test_it_is_not_in_logs_nor_in_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError(VALUE)
    logging.getLogger("test").error("failed with %s", VALUE, exc_info=error)
    assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY not in caplog.text
    assert "••••" in caplog.text


def test_equal_values_are_equal_and_nothing_else_is() -> None:
    assert SecretValue(CANARY) == VALUE
    assert SecretValue("another") != VALUE
    assert VALUE != CANARY
    assert VALUE.reveal() == CANARY


def test_only_text_is_a_value() -> None:
    with pytest.raises(TypeError, match="a secret value is text"):
        SecretValue(b"bytes")  # type: ignore[arg-type]


def test_values_beyond_ascii_are_compared_too() -> None:
    assert SecretValue("pässword") == SecretValue("pässword")
