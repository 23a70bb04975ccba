"""Data keys, their context, and a rotation on Tencent Cloud's own KMS: `make test-tencent`.

Two keys are made, called keyturn-conformance-…. KMS deletes no key in less than 7 days: so long they stay, disabled.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import pytest

from rotation.keys import Wrapped
from rotation.keys.tencent_kms import TencentKms
from tests.conformance.account import Account, name, require_wanted
from tests.contracts.key_service import CONTEXT, DataKeyContract

require_wanted()


@pytest.fixture(scope="module")
def keys(account: Account) -> Iterator[tuple[str, str]]:
    """The aliases of two keys, both of which can be rotated once."""
    aliases, ids = (name(), name()), list[str]()
    try:
        for alias in aliases:
            ids.append(account.ask("kms", "CreateKey", Alias=alias)["KeyId"])
            account.ask("kms", "EnableKeyRotation", KeyId=ids[-1])
        yield aliases
    finally:
        for key_id in ids:
            account.ask("kms", "DisableKey", KeyId=key_id)
            account.ask("kms", "ScheduleKeyDeletion", KeyId=key_id, PendingWindowInDays=7)


class TestTencentCloudItself(DataKeyContract):
    @pytest.fixture(autouse=True)
    def both(self, account: Account, keys: tuple[str, str]) -> None:
        self.account, self.keys = account, cycle(keys)

    def open(self) -> TencentKms:
        return TencentKms(self.account.options)

    def key(self) -> str:
        return next(self.keys)

    def test_what_was_wrapped_before_a_rotation_opens_and_is_wrapped_anew(self) -> None:
        service, key = self.open(), self.key()
        made = service.data_key(key, CONTEXT)
        wrapped = Wrapped(made.wrapped, CONTEXT)
        assert service.rewrap(key, [wrapped]) == [made.wrapped]
        assert service.observe([key])[key].rotated_at is None
        service.rotate(key)
        assert service.observe([key])[key].rotated_at is not None
        assert service.unwrap(key, made.wrapped, CONTEXT) == made.plaintext
        (anew,) = service.rewrap(key, [wrapped])
        assert anew != made.wrapped
        assert service.unwrap(key, anew, CONTEXT) == made.plaintext
