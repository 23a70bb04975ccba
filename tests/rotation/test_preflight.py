"""What cannot be started is refused before anything is changed, with the way out."""

from __future__ import annotations

import pytest

from rotation.errors import KeyturnError, StoreError, UsageError
from rotation.model import StoreView, Version
from rotation.preflight import preflight
from tests.rotation.test_decide import SPEC, store

FOREIGN = Version("made-by-hand", None)


@pytest.mark.parametrize(
    ("view", "refused", "what", "remedy"),
    [
        (StoreView("orders/db", exists=False), StoreError, "no slot orders/db", "cdktf deploy"),
        (StoreView("orders/db", current=FOREIGN), StoreError, "not made by keyturn (made-by-hand)", "keyturn adopt"),
        (
            StoreView("orders/db", current=Version("v1", 1), pending=FOREIGN),
            StoreError,
            "pending version of orders/db was not made by keyturn",
            "cancel the rotation",
        ),
        (StoreView("orders/db"), UsageError, "orders/db has no value yet", "keyturn rotate --initialize orders/db"),
    ],
    ids=["no slot", "foreign current", "foreign pending", "no value"],
)
def test_refusal(view: StoreView, refused: type[KeyturnError], what: str, remedy: str) -> None:
    with pytest.raises(refused) as caught:
        preflight(SPEC, view, initialize=False)
    assert what in str(caught.value)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("view", "initialize"),
    [(store(1), False), (store(1, 2, 1), False), (store(None, 1), False), (store(None), True), (store(1), True)],
    ids=["a value", "in flight", "a first value in flight", "a first value asked for", "asked for needlessly"],
)
def test_passing(view: StoreView, initialize: bool) -> None:
    preflight(SPEC, view, initialize=initialize)
