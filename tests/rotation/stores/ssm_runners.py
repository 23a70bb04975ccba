"""Runners of Tencent Cloud's store for the contracts: calls that are cut into, meet trouble, and hold leases."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rotation.errors import Conflict
from rotation.local.tencent.wire import ApiError, refusal
from rotation.model import Version
from rotation.secret_value import SecretValue
from rotation.stores import SecretStore
from rotation.stores.tencent_ssm import CURRENT, PLACEHOLDER, TencentSsm
from rotation.tencentcloud import Cloud, SdkError
from tests.contracts.interruption import InterruptionContract
from tests.contracts.rewrapping import RewrappingContract
from tests.contracts.secret_store import SecretStoreContract
from tests.contracts.staging import Moment, Trouble
from tests.tencent_line import Emulated, Line


def nothing() -> None: ...


@dataclass
class TroubleAhead:
    """What the calls about one secret meet, whatever others are asked about at the same time."""

    kind: Trouble = Trouble.DROPPED
    name: str = ""
    times: int = 0
    after: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    lagging: tuple[int, int, int] = (0, 0, 0)  # reads that are behind, by how many writes, and after how many writes

    def lags(self, *, calls: int, writes: int, after_writes: int = 0) -> None:
        """Show the next reads what was there so many writes ago."""
        self.lagging = (calls, writes, after_writes)

    def behind(self, action: str) -> int:
        """By how many writes this call is behind."""
        calls, writes, later = self.lagging
        if not calls:
            return 0
        if action not in ("GetSecretValue", "ListSecretVersionIds"):
            self.lagging = (calls, writes, max(later - 1, 0))
            return 0
        if later:
            return 0
        self.lagging = (calls - 1, writes, 0)
        return writes

    def next(self, name: object) -> Trouble | None:
        with self.lock:
            if name != self.name or not self.times:
                return None
            if self.after:
                self.after -= 1
                return None
            self.times -= 1
            return self.kind


class Meddled(Cloud):
    """One runner's calls, with something done at each, and the trouble that is ahead. It comes before a cloud that
    sends, be it the real one."""

    at: dict[Moment, Callable[[], None]]
    ahead: TroubleAhead

    def call_once(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.at.get(Moment.BEFORE, nothing)()
        answer = super().call_once(*arguments, **options)
        self.at.get(Moment.AFTER, nothing)()
        return answer

    def _send(self, service: str, action: str, parameters: Mapping[str, Any], signed_at: int) -> bytes:
        trouble = self.ahead.next(parameters.get("SecretName"))
        if trouble in _REFUSED:
            return refusal(ApiError(_REFUSED[trouble], "so it is"))
        if trouble is Trouble.DROPPED:
            raise SdkError("ClientNetworkError", "the connection was closed")
        answer = super()._send(service, action, parameters, signed_at)
        if trouble is Trouble.LOST_REPLY:
            raise SdkError("ClientNetworkError", "the connection was closed")
        return answer


class RunnersLine(Meddled, Line):
    """One runner's calls of the emulated cloud."""

    def __init__(self, emulated: Emulated, ahead: TroubleAhead) -> None:
        super().__init__(emulated, emulated.cloud.clock.now)
        self.at, self.ahead = {}, ahead

    def behind(self, action: str) -> int:
        return self.ahead.behind(action)


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


class SsmHarness(ABC):
    """What tests of the store need of a cloud, be it the real one. ``ahead`` is what the calls of all runners meet."""

    ahead: TroubleAhead

    @abstractmethod
    def ask(self, action: str, **parameters: Any) -> Mapping[str, Any]:
        """What SSM answers to somebody who is no runner."""

    @abstractmethod
    def line(self) -> Meddled:
        """The calls of one more runner."""

    def open(self) -> Runner:
        return Runner({}, self.line())

    def slot_called(self, name: str) -> str:
        """A secret as Terraform's provider makes it, which is the one that meets what is ahead."""
        self.ask("CreateSecret", SecretName=name, VersionId=PLACEHOLDER, SecretString=PLACEHOLDER)
        self.ask("DeleteSecretVersion", SecretName=name, VersionId=PLACEHOLDER)
        self.ahead.name = name
        return name

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


class SsmContract(SsmHarness, SecretStoreContract, InterruptionContract, RewrappingContract):
    """All that the store must do."""

    value_bytes = 4096
    bad_names = ("", "with/slash", "with space", "é", "x" * 129)
    ids_tell_secrets_apart = False
