"""The contract of secret stores on Tencent Cloud itself: `make test-tencent`.

It needs the credentials of an account in the environment, and leaves nothing behind: the secrets that it makes are
called keyturn-conformance-…, and are deleted at the end of each test. KEYTURN_TENCENT_ENDPOINT points it elsewhere.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from rotation.errors import KeyturnError, StoreError
from rotation.stores import SecretStore
from rotation.stores.tencent_ssm import CURRENT
from rotation.tencentcloud import Connection, Manner, connect
from tests.contracts.interruption import InterruptionContract
from tests.contracts.rewrapping import RewrappingContract
from tests.contracts.secret_store import SecretStoreContract
from tests.contracts.staging import Moment, Trouble
from tests.rotation.stores.ssm_runners import Meddled, Runner, TroubleAhead

if os.environ.get("KEYTURN_TENCENT_CONFORMANCE") != "1":
    pytest.skip(
        "Tencent Cloud itself is asked: set KEYTURN_TENCENT_CONFORMANCE=1, TENCENTCLOUD_REGION and credentials",
        allow_module_level=True,
    )

PREFIX = "keyturn-conformance-"


class TestTencentCloudItself(SecretStoreContract, InterruptionContract, RewrappingContract):
    value_bytes = 4096
    bad_names = ("", "with/slash", "with space", "é", "x" * 129)
    ids_tell_secrets_apart = False

    @pytest.fixture(autouse=True)
    def cloud(self) -> Iterator[None]:
        """The account, and what is made in it until the test ends."""
        self.connection = Connection(endpoint=os.environ.get("KEYTURN_TENCENT_ENDPOINT"))
        self.ahead = TroubleAhead()
        self.made: list[str] = []
        yield
        for name in self.made:
            with suppress(KeyturnError):
                self.ask("DisableSecret", SecretName=name)
            self.ask("DeleteSecret", SecretName=name, RecoveryWindowInDays=0)

    def ask(self, action: str, **parameters: Any) -> dict[str, Any]:
        return connect(self.connection).call("ssm", action, parameters, Manner(f"ask for {action}", StoreError))

    def open(self) -> Runner:
        line = Meddled(connect(self.connection).region, self.connection.endpoint)
        line.at, line.ahead = {}, self.ahead
        return Runner({}, line)

    def slot(self) -> str:
        self.ahead.name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self.ask("CreateSecret", SecretName=self.ahead.name, VersionId="default", SecretString="default")
        self.made.append(self.ahead.name)
        self.ask("DeleteSecretVersion", SecretName=self.ahead.name, VersionId="default")
        return self.ahead.name

    def put_foreign(self, name: str, text: str) -> str:
        listed = self.ask("ListSecretVersionIds", SecretName=name)["Versions"] or []
        there = CURRENT in {each["VersionId"] for each in listed}
        action = "UpdateSecret" if there else "PutSecretValue"
        self.ask(action, SecretName=name, VersionId=CURRENT, SecretString=text)
        return CURRENT

    @contextmanager
    def at_every_call(self, store: SecretStore, moment: Moment, do: Callable[[], None]) -> Iterator[None]:
        assert isinstance(store, Runner)
        line = store._cloud
        assert isinstance(line, Meddled)
        line.at = {moment: do}
        try:
            yield
        finally:
            line.at = {}

    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        self.ahead.kind, self.ahead.times, self.ahead.after = kind, times, after
