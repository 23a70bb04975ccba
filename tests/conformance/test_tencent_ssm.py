"""The contract of secret stores on Tencent Cloud itself: `make test-tencent`.

It needs the credentials of an account in the environment, and leaves nothing behind: the secrets that it makes are
called keyturn-conformance-…, and are deleted at the end of each test. KEYTURN_TENCENT_ENDPOINT points it elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from rotation.errors import KeyturnError
from tests.conformance.account import Account, name, require_wanted
from tests.rotation.stores.ssm_runners import Meddled, SsmContract, TroubleAhead

require_wanted()


class TestTencentCloudItself(SsmContract):
    @pytest.fixture(autouse=True)
    def secrets(self, account: Account) -> Iterator[None]:
        """What is made in the account until the test ends."""
        self.account, self.ahead, self.made = account, TroubleAhead(), list[str]()
        yield
        for made in self.made:
            with suppress(KeyturnError):
                self.ask("DisableSecret", SecretName=made)
            self.ask("DeleteSecret", SecretName=made, RecoveryWindowInDays=0)

    def ask(self, action: str, **parameters: Any) -> Mapping[str, Any]:
        return self.account.ask("ssm", action, **parameters)

    def line(self) -> Meddled:
        line = Meddled(self.account.cloud.region, self.account.options.get("endpoint"))
        line.at, line.ahead = {}, self.ahead
        return line

    def slot(self) -> str:
        self.made.append(name())
        return self.slot_called(self.made[-1])
