"""Tencent Cloud's Secrets Manager, on the emulator."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from rotation.errors import Conflict
from rotation.local.tencent.wire import ApiError, refusal
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore, tencent_ssm
from rotation.stores.tencent_ssm import CURRENT, TencentSsm
from rotation.tencentcloud import SdkError
from tests.contracts.interruption import InterruptionContract
from tests.contracts.rewrapping import RewrappingContract
from tests.contracts.secret_store import SecretStoreContract
from tests.contracts.staging import Moment, Trouble
from tests.tencent_line import Emulated, Line


def _nothing() -> None: ...


@dataclass
class TroubleAhead:
    """What the calls about one secret meet, whatever others are asked about at the same time."""

    kind: Trouble = Trouble.DROPPED
    name: str = ""
    times: int = 0
    after: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, name: object) -> Trouble | None:
        with self.lock:
            if name != self.name or not self.times:
                return None
            if self.after:
                self.after -= 1
                return None
            self.times -= 1
            return self.kind


class RunnersLine(Line):
    """One runner's calls, with something done at each, and the trouble that is ahead."""

    def __init__(self, emulated: Emulated, ahead: TroubleAhead) -> None:
        super().__init__(emulated, emulated.cloud.clock.now)
        self.at: dict[Moment, Callable[[], None]] = {}
        self._ahead = ahead

    def call_once(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.at.get(Moment.BEFORE, _nothing)()
        answer = super().call_once(*arguments, **options)
        self.at.get(Moment.AFTER, _nothing)()
        return answer

    def _send(self, service: str, action: str, parameters: Mapping[str, Any], signed_at: int) -> bytes:
        trouble = self._ahead.next(parameters.get("SecretName"))
        if trouble in _REFUSED:
            return refusal(ApiError(_REFUSED[trouble], "so it is"))
        if trouble is Trouble.DROPPED:
            raise SdkError("ClientNetworkError", "the connection was closed")
        answer = super()._send(service, action, parameters, signed_at)
        if trouble is Trouble.LOST_REPLY:
            raise SdkError("ClientNetworkError", "the connection was closed")
        return answer


_REFUSED = {
    Trouble.THROTTLED: "RequestLimitExceeded",
    Trouble.BROKEN: "InternalError",
    Trouble.DENIED: "UnauthorizedOperation",
}


class Runner(TencentSsm):
    """A runner that takes a lease for what it changes. Those at work on the same generation share theirs, so that the
    contracts can let them meet; whoever works on another one takes it over."""

    leases: ClassVar[dict[str, int]] = {}

    def promote(self, name: str, generation: int, expected: Version | None) -> None:
        TencentSsm.promote(self._leased(name, generation), name, generation, expected)

    def rewrap(self, name: str, expected: Version, value: SecretValue) -> Version:
        return TencentSsm.rewrap(self._leased(name, expected.generation or 0), name, expected, value)

    def _leased(self, name: str, generation: int) -> TencentSsm:
        self.leases[name] = generation

        def holds() -> None:
            if self.leases[name] != generation:
                raise Conflict("the lease is lost")

        return self.under(holds)


class Harness:
    """Secrets as Terraform makes them, in a cloud of each test's own."""

    @pytest.fixture(autouse=True)
    def server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rates and patience have tests of their own."""
        monkeypatch.setattr(tencent_ssm, "_LOOKS", (0.0, 0.0, 0.01, 0.02))
        self.emulated, self.ahead = Emulated.begin(monkeypatch), TroubleAhead()

    def open(self) -> Runner:
        return Runner({}, RunnersLine(self.emulated, self.ahead))

    def slot(self) -> str:
        self.ahead.name = self.emulated.slot(f"secret-{uuid.uuid4().hex[:12]}")
        return self.ahead.name

    def put_foreign(self, name: str, text: str) -> str:
        action = "UpdateSecret" if CURRENT in self.emulated.values(name) else "PutSecretValue"
        self.emulated.ask(action, SecretName=name, VersionId=CURRENT, SecretString=text)
        return CURRENT

    @contextmanager
    def at_every_call(self, store: SecretStore, moment: Moment, do: Callable[[], None]) -> Iterator[None]:
        assert isinstance(store, Runner)
        line = store._cloud
        assert isinstance(line, RunnersLine)
        line.at = {moment: do}
        try:
            yield
        finally:
            line.at = {}

    def trouble(self, kind: Trouble, times: int, after: int = 0) -> None:
        self.ahead.kind, self.ahead.times, self.ahead.after = kind, times, after


class TestTencentSsm(Harness, SecretStoreContract, InterruptionContract, RewrappingContract):
    value_bytes = 4096
    bad_names = ("", "with/slash", "with space", "é", "x" * 129)
    ids_tell_secrets_apart = False
